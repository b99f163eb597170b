"""Payments by column from their bytes: what the closer look says of each, for all that are plainly valid."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.payment_columns import CODED, PaymentColumns, payment_columns
from fraud_pipeline.domain.seen_ids import content_hash, id_hash
from fraud_pipeline.domain.strict_json import strict_object
from fraud_pipeline.domain.transaction import Transaction, parse_transaction
from fraud_pipeline.errors import FraudError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
USUAL: dict[str, Any] = {
    "transaction_id": "t-1", "event_time": "2026-06-01T11:59:00.123456+00:00", "customer_id": "C0000907", "merchant_id": "M 1",
    "amount": 40.25, "currency": "USD", "merchant_category": "cash", "channel": "atm", "country": "US", "device_id": "d1",
    "latitude": 41.84539, "longitude": -87.70148,
}  # fmt: skip


def columns(bodies: list[bytes], keys: list[bytes] | None = None) -> PaymentColumns:
    received = np.full(len(bodies), microseconds(NOW))
    return payment_columns(bodies, keys or [b"C0000907"] * len(bodies), received, currency="USD")


def closely(body: bytes, key: bytes = b"C0000907") -> Transaction | None:
    try:
        found = parse_transaction(strict_object(body), currency="USD", received_at=NOW)
    except FraudError:
        return None
    return found if found.customer_id.encode() == key else None


def agree(read: PaymentColumns, row: int, payment: Transaction) -> None:
    time_us = microseconds(payment.event_time)
    numbers = (read.times[row], read.amounts[row], read.identities[row], read.contents[row])
    identity = id_hash(payment.transaction_id)
    assert numbers == (time_us, payment.amount_minor, identity, content_hash(payment, time_us))
    places = [None if np.isnan(degrees) else degrees for degrees in read.places[row].tolist()]
    assert places == [payment.latitude, payment.longitude]
    assert read.ids([row]) == [payment.transaction_id]
    texts = [read.column(field, np.array([row]))[0] for field in range(len(CODED))]
    assert texts == [getattr(payment, name) for name in CODED]


plain = [
    USUAL,
    {name: USUAL[name] for name in ("transaction_id", "event_time", "customer_id", "merchant_id", "amount")},
    USUAL | {"device_id": None, "country": None, "channel": None, "merchant_category": None, "currency": None},
    USUAL | {"latitude": None, "longitude": None},
    USUAL | {"amount": 0}, USUAL | {"amount": 10_000_000}, USUAL | {"amount": 0.1}, USUAL | {"amount": 9999999.99},
    USUAL | {"latitude": -0.5, "longitude": 180.0},
    USUAL | {"event_time": "2026-06-01T13:59:00+02:00"}, USUAL | {"event_time": "2026-06-01 11:59:00.5Z"},
    USUAL | {"event_time": "2026-05-31T23:29:59.1234567-12:30"}, USUAL | {"event_time": "2026-04-30T00:00:00Z"},
    USUAL | {"merchant_category": "unknown", "channel": "transfer"}, USUAL | {"transaction_id": "aZ09._:-" * 8},
]  # fmt: skip


@pytest.mark.parametrize("payload", plain)
def test_what_is_plainly_valid_is_read_by_column(payload: dict[str, Any]) -> None:
    for body in (orjson.dumps(payload), json.dumps(payload).encode()):
        read = columns([body])
        assert read.plain.tolist() == [True]
        payment = closely(body)
        assert payment is not None
        agree(read, 0, payment)


texts = st.sampled_from(
    ["C0000907", "", "a b", "\t", "ü", "a" * 64, "a" * 65, "a\\b", 'a"b', "unknown", "pos", "US", "us", "ZZ"]
)
numbers = st.one_of(
    st.floats(-200, 200), st.integers(-5, 20), st.sampled_from([1e-5, 12.345, 0.1, 1e7, 1e22, 90.0, -90.1, -0.0, 0.0]),
    st.floats(-180, 180).map(lambda degrees: round(degrees, 5)), st.floats(0, 1e7).map(lambda amount: round(amount, 2)),
)  # fmt: skip
times = st.one_of(
    st.tuples(
        st.timedeltas(timedelta(days=-100), timedelta(days=2)), st.sampled_from(["Z", "+05:30", "-23:59", "+24:00", "z", ""])
    ).map(lambda given: (NOW + given[0]).replace(tzinfo=None).isoformat() + given[1]),
    st.sampled_from([
        "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2026-06-01T24:00:00Z", "2026-06-01T11:59:60Z", "2026-06-01t11:59:00Z",
        "2026-06-01T11:59:00.Z", "2026-06-01", (NOW + timedelta(minutes=5)).isoformat(), (NOW - timedelta(days=90)).isoformat(),
        (NOW + timedelta(minutes=5, microseconds=1)).isoformat(),
    ]),
)  # fmt: skip
values: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(USUAL, texts), "amount": numbers | texts, "latitude": numbers, "longitude": numbers, "event_time": times,
}  # fmt: skip
changed = st.sampled_from(sorted(USUAL)).flatmap(
    lambda name: st.tuples(st.just(name), values[name] | st.none() | st.booleans())
)
payloads = st.tuples(st.lists(changed, max_size=3), st.sets(st.sampled_from(sorted(USUAL)), max_size=2)).map(
    lambda given: {name: value for name, value in (USUAL | dict(given[0])).items() if name not in given[1]}
)
bodies = st.one_of(
    payloads.map(orjson.dumps), payloads.map(lambda payload: json.dumps(payload, ensure_ascii=False).encode()),
    st.tuples(payloads.map(orjson.dumps), st.integers(0, 300), st.binary(max_size=2)).map(
        lambda given: given[0][: given[1]] + given[2] + given[0][given[1] + len(given[2]) :]
    ),
    st.tuples(payloads.map(orjson.dumps), st.integers(0, 300)).map(lambda given: given[0][: given[1]]),
    st.sampled_from([b"", b"{}", b"[]", b"null", b'{"amount":1,"amount":1}', orjson.dumps(USUAL) + b" ", b"\xff"]),
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(st.lists(bodies, min_size=1, max_size=8))
def test_whatever_is_taken_is_what_the_closer_look_takes(given_bodies: list[bytes]) -> None:
    read = columns(given_bodies)
    for row, body in enumerate(given_bodies):
        if read.plain[row]:
            payment = closely(body)
            assert payment is not None
            agree(read, row, payment)


@settings(deadline=None, max_examples=200)
@given(st.floats(-180, 180), st.floats(-90, 90), st.integers(0, 1_000_000_000))
def test_numbers_are_the_very_ones(longitude: float, latitude: float, minor: int) -> None:
    for digits in (1, 5, 9):
        body = orjson.dumps(
            USUAL | {"longitude": round(longitude, digits), "latitude": round(latitude, digits), "amount": minor / 100}
        )
        read, payment = columns([body]), closely(body)
        assert payment is not None
        if read.plain[0]:
            agree(read, 0, payment)


def test_another_key_is_left_to_the_closer_look() -> None:
    body = orjson.dumps(USUAL)
    keys = [b"", b"C000090", b"C0000907", b"C00009070", b"c0000907"]
    assert columns([body] * len(keys), keys).plain.tolist() == [False, False, True, False, False]


def test_equal_texts_have_equal_codes() -> None:
    given_bodies = [orjson.dumps(USUAL | {"merchant_id": f"M{row % 7}"}) for row in range(500)]
    read = columns(given_bodies)
    assert read.names[1] == [f"M{number}" for number in range(7)]
    assert read.codes[:, 1].tolist() == [row % 7 for row in range(500)]
    assert read.names[0] == ["C0000907"]
