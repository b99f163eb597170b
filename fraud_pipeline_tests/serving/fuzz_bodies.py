"""Bodies for the fuzz: valid payments, each kind of bad input that the contract names, and valid bodies with a few bytes changed.

Drawn from a `random.Random`; ids and times are of the moment.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from fraud_pipeline_tests.serving.fuzz_oracle import Expected, expected_of

JSON_HEADERS = {"Content-Type": "application/json"}
NAMES = "abc XYZ-1 Żółć 東京 Ελλάδα مرحبا e\u0301 €"


@dataclass(frozen=True)
class FuzzCase:
    """One request to `POST /score`. `broken` are fields that a 422 must name, `statuses` the only answers allowed if given."""

    kind: str
    body: bytes
    expected: Expected
    headers: dict[str, str] = field(default_factory=lambda: JSON_HEADERS)
    broken: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()


class Bodies:
    """Makes cases; every payment has an id of its own."""

    def __init__(self, run: str) -> None:
        self._run, self._made = run, 0

    def case(self, rng: random.Random, now: datetime, *, huge: bool = True) -> FuzzCase:
        """Any kind; `huge` bodies of megabytes are rare, and left out where not wanted."""
        if huge and rng.random() < HUGE_SHARE:
            return self._huge(rng, now)
        make = rng.choices([self._valid, self._bad_value, self._bad_syntax, self._bad_transport, self._mutated],
                           weights=[3, 5, 2, 1, 4])[0]  # fmt: skip
        return make(rng, now)

    def payment(self, rng: random.Random, now: datetime) -> dict[str, Any]:
        """A valid payment with any of its optional fields."""
        self._made += 1
        when = now - timedelta(seconds=rng.choice([0, 1, 60, 3_600, 86_400, 89 * 86_400]) * rng.random())
        payment: dict[str, Any] = {
            "transaction_id": f"{self._run}:{self._made}",
            "event_time": _spelled(rng, when + timedelta(minutes=rng.choice([0, 0, 0, 3]))),
            "customer_id": f"C{rng.randrange(50)}",
            "merchant_id": rng.choice(["M1", "M2", NAMES[: rng.randint(1, 30)].strip() or "M"]),
            "amount": _amount(rng),
        }
        optional: dict[str, Callable[[], Any]] = {
            "currency": lambda: "USD",
            "merchant_category": lambda: rng.choice(["grocery", "x" * 32, "食品"]),
            "channel": lambda: rng.choice(["pos", "online", "atm", "transfer", "unknown"]),
            "country": lambda: rng.choice(["US", "DE", "GB", "JP"]),
            "device_id": lambda: "d" * rng.randint(1, 64),
            "attributes": lambda: {f"a{n}": rng.choice([0, -1, 1.5, 1e300, -1e-300, 2**63]) for n in range(rng.choice([0, 1, 64]))},
            "note": lambda: rng.choice([None, [], {"deep": [1, {"er": 2}]}, "ignored"]),
        }  # fmt: skip
        payment |= {name: rng.choice([make(), make(), None]) for name, make in optional.items() if rng.random() < 0.4}
        if rng.random() < 0.4:
            payment |= {"latitude": rng.choice([0, -90, 90.0, 12.5]), "longitude": rng.choice([0, -180, 180.0, 1e-9])}
        return payment

    def _valid(self, rng: random.Random, now: datetime) -> FuzzCase:
        body = _dumps(self.payment(rng, now), rng)
        kind = rng.choice(["plain", "plain", "gzip", "charset"])
        if kind == "gzip":
            return FuzzCase("valid gzip", gzip.compress(body), "accept", {**JSON_HEADERS, "Content-Encoding": "gzip"})
        if kind == "charset":
            return FuzzCase("valid charset", body, "accept", {"Content-Type": "application/json; charset=utf-8"})
        return FuzzCase("valid", body, "accept")

    def _bad_value(self, rng: random.Random, now: datetime) -> FuzzCase:
        payment = self.payment(rng, now)
        wanted = rng.choices([1, 2, 4], weights=[6, 2, 1])[0]
        broken = frozenset(rng.sample(sorted(BAD_VALUES), wanted))
        for name in broken:
            payment[name] = BAD_VALUES[name](rng, now)
        if rng.random() < 0.05 and not broken & {"latitude", "longitude"}:
            given, other = rng.sample(["latitude", "longitude"], 2)
            payment |= {given: 1.5}
            payment.pop(other, None)
            broken |= {other}
        if rng.random() < 0.1:
            missing = rng.choice(["transaction_id", "event_time", "customer_id", "merchant_id", "amount"])
            payment.pop(missing)
            broken |= {missing}
        kind = "bad " + (next(iter(broken)) if len(broken) == 1 else "fields")
        return FuzzCase(kind, _dumps(payment, rng), "refuse", broken=broken)

    def _bad_syntax(self, rng: random.Random, now: datetime) -> FuzzCase:
        payment = self.payment(rng, now)
        text = json.dumps(payment)
        name = rng.choice(["amount", "customer_id", "transaction_id", "twice"])
        number = json.dumps({**payment, "amount": "@"}).replace('"@"', rng.choice(BAD_NUMBERS))
        deep = rng.choice([501, 2_000, 50_000])
        kind, body = rng.choice([
            ("bad number", number.encode()),
            ("duplicate keys", (text[:-1] + f', "{name}": 1, "{name}": {json.dumps(payment.get(name))}}}').encode()),
            ("deep lists", (text[:-1] + ', "note": ' + "[" * deep + "]" * deep + "}").encode()),
            ("deep objects", (text[:-1] + ', "note": ' + '{"a":' * deep + "1" + "}" * deep + "}").encode()),
            ("lone surrogate", text.replace(f'"{payment["customer_id"]}"', rng.choice(['"\\ud800"', '"a\\udc00b"', '"\\ud83d"'])).encode()),
            ("not UTF-8", text.encode()[:-1] + b', "note": "\xff\xfe"}'),
            ("encoded surrogate", text.encode()[:-1] + b', "note": "\xed\xa0\x80"}'),
            ("other encoding", text.encode(rng.choice(["utf-16", "utf-32", "utf-16-le"]))),
            ("cut off", text.encode()[: rng.randrange(len(text) - 1)]),
            ("more after it", text.encode() + rng.choice([b"{}", b" x", b"\x00", b","])),
            ("no object", json.dumps(rng.choice([[payment], [], "text", 1, None, True, {}])).encode()),
            ("empty", b""),
        ])  # fmt: skip
        return FuzzCase(kind, body, "refuse")

    def _bad_transport(self, rng: random.Random, now: datetime) -> FuzzCase:
        body = _dumps(self.payment(rng, now), rng)
        packed = gzip.compress(body)
        flipped = bytearray(packed)
        flipped[rng.randrange(len(flipped) - 8, len(flipped) - 4)] ^= 0xFF  # the checksum
        zipped = {**JSON_HEADERS, "Content-Encoding": "gzip"}
        kind, content, headers, statuses = rng.choice([
            ("content type", body, {"Content-Type": rng.choice(["text/plain", "application/xml", "multipart/form-data", "x"])}, {415}),
            ("form", b"amount=1", {"Content-Type": "application/x-www-form-urlencoded"}, {415}),
            ("encoding", body, {**JSON_HEADERS, "Content-Encoding": rng.choice(["br", "zstd", "deflate", "gzip, gzip", "x"])}, {415}),
            ("broken gzip: not gzip", body, zipped, {422}),
            ("broken gzip: cut off", packed[: rng.randrange(1, len(packed) - 1)], zipped, {422}),
            ("broken gzip: checksum", bytes(flipped), zipped, {422}),
            ("broken gzip: empty", b"", zipped, {422}),
        ])  # fmt: skip
        return FuzzCase(kind, content, "refuse", headers, statuses=frozenset(statuses))

    def _mutated(self, rng: random.Random, now: datetime) -> FuzzCase:
        payment = self.payment(rng, now)
        # No change of a few bytes makes it the id of a valid one.
        payment["transaction_id"] = f"{self._made}:mutant:{self._run}"
        body = bytearray(_dumps(payment, rng))
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(len(body))
            kind = rng.randrange(5)
            if kind == 0:
                body[at] = rng.randrange(256)
            elif kind == 1:
                body.insert(at, rng.choice(b'0123456789-+.eE"{}[],:\\ \x00nulltrue'))
            elif kind == 2 and len(body) > 2:
                del body[at]
            elif kind == 3:
                body[at:at] = body[at : at + rng.randint(1, 20)]
            else:
                del body[at : at + rng.randint(1, 20)]
                body = body or bytearray(b"{}")
        content = bytes(body)
        return FuzzCase("mutated", content, expected_of(content, now))

    def _huge(self, rng: random.Random, now: datetime) -> FuzzCase:
        payment = self.payment(rng, now)
        name = rng.choice(["transaction_id", "customer_id", "merchant_id", "device_id"])
        if rng.random() < 0.5:
            body = json.dumps({**payment, name: "@"}).encode().replace(b'"@"', b'"' + _megabytes(10) + b'"')
            return FuzzCase("10 MB id", body, "refuse", statuses=frozenset({413}))
        zipped = {**JSON_HEADERS, "Content-Encoding": "gzip"}
        return FuzzCase("gzip bomb", _bomb(), "refuse", zipped, statuses=frozenset({413}))


HUGE_SHARE = 1 / 2_000
BAD_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e309",
    "-1e309",
    "1e99999",
    "01",
    "1.",
    ".5",
    "+1",
    "0x10",
    "1_000",
    "--1",
    "1e",
    "9" * 5_000,
]
BAD_TEXT = [
    "",
    "x" * 65,
    "a\nb",
    "a\u0000",
    "\u200b",
    "\u2028",
    "\u00a0",
    "\u202e",
    "\ue000",
    5,
    True,
    [],
    {},
    ["a"],
    "\ufeffx",
]


def _bad_time(rng: random.Random, now: datetime) -> Any:
    def at(**ago: float) -> str:
        return (now + timedelta(**ago)).isoformat()

    naive = now.replace(tzinfo=None).isoformat()
    return rng.choice([
        at(minutes=6.5), at(days=-91), at(days=400), naive, naive + "+00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-02-30T00:00:00Z", "2026-01-01", "now", "", 1_767_225_600,
        "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z", "٢٠٢٦-01-01T00:00:00Z", None, [], True,
    ])  # fmt: skip


BAD_VALUES: dict[str, Callable[[random.Random, datetime], Any]] = {
    "transaction_id": lambda rng, now: rng.choice(["", "a b", "x" * 65, "é", "a/b", 1, None, [], {}, "a\n", "１"]),
    "event_time": _bad_time,
    "customer_id": lambda rng, now: rng.choice([*BAD_TEXT, None]),
    "merchant_id": lambda rng, now: rng.choice([*BAD_TEXT, None]),
    "amount": lambda rng, now: rng.choice(
        [12.345, -0.01, -1, 10_000_000.01, 1e-3, 1e300, 2**70, -(2**70), True, None, [], {}, "", "1,0", "1e2", "0.001",
         "-5", "NaN", "Infinity", " 1", "1 ", "10000000.01", "١", "9" * 14, "1.", ".5", "0x1"]
    ),
    "currency": lambda rng, now: rng.choice(["EUR", "usd", "", "XXX", 840, [], True]),
    "merchant_category": lambda rng, now: rng.choice([*BAD_TEXT, "x" * 33]),
    "channel": lambda rng, now: rng.choice(["POS", "", "fax", 1, [], {}, True]),
    "country": lambda rng, now: rng.choice(["us", "USA", "XX", "", 1, [], {}, True]),
    "device_id": lambda rng, now: rng.choice(BAD_TEXT),
    "latitude": lambda rng, now: rng.choice([90.001, -91, 1e300, "1", True, [], {}]),
    "attributes": lambda rng, now: rng.choice(
        [{f"a{n}": n for n in range(65)}, [], "a", 1, True, {"A": 1}, {"": 1}, {"a b": 1}, {"a": "1"}, {"a": None}, {"a": True},
         {"x" * 41: 1}, {"a": [1]}, {"b": 1, "a": {}}, {"é": 1}, {"a\n": 1}]
    ),
    "longitude": lambda rng, now: rng.choice([180.001, -181, 1e300, "1", True, [], {}]),
}  # fmt: skip


def _amount(rng: random.Random) -> Any:
    minor = rng.choice([0, 1, 99, 12_345, 10**9, rng.randrange(10**6)])
    written = f"{minor // 100}.{minor % 100:02d}"
    return rng.choice([minor / 100, minor // 100, written, "000" + written, written + "0000"])


def _spelled(rng: random.Random, moment: datetime) -> str:
    text = moment.isoformat()
    return rng.choice([text, text.replace("+00:00", "Z"), text.replace("T", " "), text.lower().replace("+00:00", "z"),
                       (moment + timedelta(hours=5, minutes=30)).isoformat().replace("+00:00", "+05:30")])  # fmt: skip


def _dumps(payment: dict[str, Any], rng: random.Random) -> bytes:
    items = list(payment.items())
    rng.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()


@cache
def _megabytes(count: int) -> bytes:
    return b"x" * (count * 2**20)


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * (200 * 2**20), 9)
