"""The wire format: what goes out comes back, and each kind of bad message has its code and says what is wrong."""

from __future__ import annotations

import base64
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.adapters.kafka.messages import (
    MAX_VALUE_BYTES,
    BadMessage,
    Message,
    Place,
    alert_message,
    attached_decision,
    dead_letter,
    decision_message,
    decision_value,
    header_text,
    inbox_message,
    label_message,
    read_alert,
    read_decision,
    read_inbox_label,
    read_log_message,
    transaction_message,
)
from fraud_pipeline.adapters.ledger_records import Alert
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.explanation import Reason
from fraud_pipeline.domain.iso_codes import COUNTRIES
from fraud_pipeline.domain.transaction import CHANNELS, Label, LabelChange, LabelSource, Transaction
from fraud_pipeline.errors import InputError

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PLAIN = Transaction("t1", NOW, "c1", "m1", 2436)
SOURCE = Place("transactions", 3, 123)
LABEL = Label("t1", True, "chargeback", "bank ü", NOW + timedelta(days=3))
CHANGE = LabelChange("t1", 1, LABEL.known_at, NOW, "c1", "m1", "grocery", "pos", "BE", "d1")
DECISION = Decision(
    transaction_id="t1",
    event_time=NOW,
    decided_at=NOW + timedelta(milliseconds=1),
    fraud_probability=0.1 + 0.2,
    anomaly_score=-0.0,
    raw_score=1e-17,
    decision="REVIEW",
    risk_factors=("high_amount",),
    reasons=(Reason("amount", 24.36, 0.7), Reason("amount_z", None, -0.1)),
    model_version="3",
    feature_schema="abc",
    processing_time_ms=0.25,
    features=np.array([1.5, np.nan, -0.0, np.float32(0.1)], dtype="<f4").tobytes(),
    control=True,
    degraded=("shared_state_lag",),
)

names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=64)
moments = st.datetimes(datetime(2025, 12, 10), datetime(2026, 3, 1, 12), timezones=st.just(UTC))  # noqa: DTZ001 hypothesis wants naive bounds
payments = st.builds(
    Transaction,
    transaction_id=st.from_regex(r"[A-Za-z0-9._:\-]{1,64}", fullmatch=True),
    event_time=moments,
    customer_id=names,
    merchant_id=names,
    amount_minor=st.integers(0, 10_000_000_00),
    merchant_category=names.map(lambda text: text[:32]),
    channel=st.sampled_from(CHANNELS),
    country=st.none() | st.sampled_from(sorted(COUNTRIES)),
    device_id=st.none() | names,
    attributes=st.dictionaries(
        st.from_regex(r"[a-z0-9_]{1,40}", fullmatch=True), st.floats(allow_nan=False, allow_infinity=False), max_size=4
    ),
)
places = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def read(message: Message, **changes: object) -> Transaction | LabelChange:
    given: dict[str, Any] = {"key": message.key, "value": message.value, "headers": list(message.headers), **changes}
    return read_log_message(**given, currency="USD", received_at=NOW)


def code_of(message: Message, **changes: object) -> str:
    with pytest.raises(BadMessage) as caught:
        read(message, **changes)
    assert caught.value.message
    return caught.value.code


def with_value(message: Message, **changes: object) -> bytes:
    return orjson.dumps({**orjson.loads(message.value), **changes})


@settings(max_examples=300, deadline=None)
@given(payments, st.none() | places)
def test_a_payment_comes_back_as_it_was(payment: Transaction, place: tuple[float, float] | None) -> None:
    if place is not None:
        payment = replace(payment, latitude=place[0], longitude=place[1])
    message = transaction_message(payment)
    assert message.key == payment.customer_id.encode()
    assert read(message) == payment


def test_a_payment_is_the_body_that_the_rest_route_takes() -> None:
    assert orjson.loads(transaction_message(PLAIN).value) == {
        "transaction_id": "t1",
        "event_time": "2026-03-01T12:00:00.123456Z",
        "customer_id": "c1",
        "merchant_id": "m1",
        "amount": 24.36,
        "currency": "USD",
        "merchant_category": "unknown",
        "channel": "unknown",
    }
    assert dict(transaction_message(PLAIN).headers) == {
        "type": b"transaction", "content-type": b"application/json", "version": b"1",
    }  # fmt: skip


@pytest.mark.parametrize("headers", [None, [], [("trace", b"\xff")], [("type", b"label"), ("type", b"transaction")]])
def test_headers_may_be_missing_and_others_do_not_matter(headers: list[tuple[str, bytes]] | None) -> None:
    assert read(transaction_message(PLAIN), headers=headers) == PLAIN


@pytest.mark.parametrize(
    "change", [CHANGE, LabelChange("t1", -1, LABEL.known_at, NOW, "ç1", "m1"), replace(CHANGE, change=0)]
)
def test_a_label_change_comes_back_as_it_was(change: LabelChange) -> None:
    message = label_message(change, LABEL)
    assert read(message) == change
    assert message.key == change.customer_id.encode()
    value = orjson.loads(message.value)
    assert {field.name for field in fields(LabelChange)} | {"is_fraud", "source", "author"} == value.keys()
    assert (value["is_fraud"], value["source"], value["author"]) == (True, "chargeback", "bank ü")


def test_a_label_comes_back_from_the_inbox_with_the_recorders_clock() -> None:
    message = inbox_message(LABEL)
    assert message.key == b"t1"
    read_back = read_inbox_label(message.value, list(message.headers), known_at=NOW)
    assert read_back == replace(LABEL, known_at=NOW)
    assert read_inbox_label(b'{"transaction_id":"t9","is_fraud":false,"known_at":"2001"}', None, known_at=NOW) == Label(
        "t9", False, "analyst", "unknown", NOW
    )


@pytest.mark.parametrize("source", ["simulation", "import"])
def test_a_historys_label_keeps_the_time_at_which_it_became_known(source: LabelSource) -> None:
    label = replace(LABEL, source=source, known_at=NOW - timedelta(days=80, microseconds=7))
    message = inbox_message(label, with_time=True)
    assert read_inbox_label(message.value, list(message.headers), known_at=NOW) == label
    without = inbox_message(label)
    assert read_inbox_label(without.value, list(without.headers), known_at=NOW) == replace(label, known_at=NOW)


@pytest.mark.parametrize("source", ["chargeback", "analyst"])
def test_of_everyone_elses_labels_the_recorder_knows_when_they_came(source: LabelSource) -> None:
    message = inbox_message(replace(LABEL, source=source, known_at=NOW - timedelta(days=80)), with_time=True)
    assert read_inbox_label(message.value, list(message.headers), known_at=NOW).known_at == NOW


@pytest.mark.parametrize(
    ("known_at", "why"),
    [
        ((NOW + timedelta(seconds=1)).isoformat(), "is later than the recorder's clock"),
        ("1969-12-31T23:59:59Z", "must lie between 1970 and 2199"),
        ("2026-03-01T00:00:00", "must be an RFC 3339 time with its zone"),
        (1_700_000_000, "must be an RFC 3339 time with its zone"),
    ],
)
def test_a_historys_label_with_an_impossible_time_is_refused(known_at: object, why: str) -> None:
    value = orjson.dumps({"transaction_id": "t9", "is_fraud": True, "source": "simulation", "known_at": known_at})
    with pytest.raises(BadMessage, match=why) as caught:
        read_inbox_label(value, None, known_at=NOW)
    assert caught.value.code == "invalid_label"
    assert str(caught.value.message).startswith("known_at=")


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (None, None, "null_value"),
        (b"{", None, "not_json"),
        (b'{"transaction_id":"t9","is_fraud":1}', None, "invalid_label"),
        (b'{"transaction_id":"t9","is_fraud":true}', [("type", b"transaction")], "unknown_type"),
    ],
)
def test_a_bad_label_in_the_inbox_has_its_code(
    value: bytes | None, headers: list[tuple[str, bytes]] | None, code: str
) -> None:
    with pytest.raises(BadMessage) as caught:
        read_inbox_label(value, headers, known_at=NOW)
    assert caught.value.code == code


def test_a_decision_comes_back_bit_for_bit() -> None:
    message = decision_message(decision_value(DECISION, customer_id='c"1'), customer_id='c"1', source=SOURCE)
    assert read_decision(message.value) == (DECISION, 'c"1')
    assert str(read_decision(message.value)[0].anomaly_score) == "-0.0"
    assert message.key == b'c"1'
    assert dict(message.headers) == {
        "type": b"decision", "content-type": b"application/json", "version": b"1", "role": b"decided",
        "source": b"transactions[3]@123",
    }  # fmt: skip
    assert header_text(message.headers, "role") == "decided"


def test_a_replicas_decision_travels_with_its_payment() -> None:
    message = transaction_message(PLAIN, decision=decision_value(DECISION, customer_id="c1"))
    assert read(message) == PLAIN
    assert attached_decision(list(message.headers), transaction=PLAIN) == DECISION
    assert attached_decision(transaction_message(PLAIN).headers) is None
    assert attached_decision(None) is None


@pytest.mark.parametrize("other", [{"transaction_id": "t2"}, {"customer_id": "c2"}, {"event_time": NOW + timedelta(1)}])
def test_an_attached_decision_about_another_payment_is_bad(other: dict[str, object]) -> None:
    headers = transaction_message(PLAIN, decision=decision_value(DECISION, customer_id="c1")).headers
    with pytest.raises(BadMessage, match="about 't1'") as caught:
        attached_decision(headers, transaction=replace(PLAIN, **other))  # type: ignore[arg-type]
    assert caught.value.code == "invalid_decision"


@pytest.mark.parametrize("name", sorted(orjson.loads(decision_value(DECISION, customer_id="c1"))))
@pytest.mark.parametrize("bad", [None, [[]], "", {"a": 1}], ids=["null", "list", "text", "object"])
def test_a_decision_with_a_wrong_or_missing_field_is_bad(name: str, bad: object) -> None:
    whole = orjson.loads(decision_value(DECISION, customer_id="c1"))
    for value in ({**whole, name: bad}, {key: held for key, held in whole.items() if key != name}):
        with pytest.raises(BadMessage) as caught:
            read_decision(orjson.dumps(value))
        assert caught.value.code == "invalid_decision"


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"[]", b"1", b"{", b"{}",
        decision_value(replace(DECISION, features=b"123"), customer_id="c1"),
        decision_value(replace(DECISION, decision="MAYBE"), customer_id="c1"),  # type: ignore[arg-type]
        decision_value(DECISION, customer_id="c1").replace(b'"features":"', b'"features":"*'),
        decision_value(DECISION, customer_id="c1").replace(b"2026-03-01T12:00:00.123456Z", b"2026-03-01T12:00:00"),
    ],
)  # fmt: skip
def test_what_is_no_decision_is_bad(value: bytes | None) -> None:
    with pytest.raises(BadMessage) as caught:
        attached_decision([("decision", value if value is not None else b"null")])
    assert caught.value.code == "invalid_decision"


def test_an_alert_has_the_payment_and_no_vector() -> None:
    message = alert_message(DECISION, PLAIN, source=SOURCE)
    value = orjson.loads(message.value)
    assert value == {
        **orjson.loads(DECISION.to_json()), "customer_id": "c1", "merchant_id": "m1", "amount": 24.36, "currency": "USD",
    }  # fmt: skip
    assert (message.key, header_text(message.headers, "source")) == (b"c1", "transactions[3]@123")
    assert read_alert(message.value) == Alert("t1", DECISION.decided_at, "REVIEW", 0.1 + 0.2)


@pytest.mark.parametrize("value", [None, b"{}", b"[]", b'{"transaction_id":"t1"}'])
def test_what_is_no_alert_is_bad(value: bytes | None) -> None:
    with pytest.raises(BadMessage):
        read_alert(value)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"value": None}, "null_value"),
        ({"value": b""}, "not_json"),
        ({"value": transaction_message(PLAIN).value[:-5]}, "not_json"),
        ({"value": b'{"customer_id": "\xff"}'}, "not_json"),
        ({"value": b'{"customer_id": "\\ud800"}'}, "not_json"),
        ({"value": transaction_message(PLAIN).value.replace(b"24.36", b"NaN")}, "not_json"),
        ({"value": transaction_message(PLAIN).value[:-1] + b',"amount":1}'}, "not_json"),
        ({"value": b"[1]"}, "not_json"),
        ({"value": b"\x00\x00\x00\x00\x07avro"}, "not_json"),
        ({"value": b" " * (MAX_VALUE_BYTES + 1)}, "too_large"),
        (
            {"value": transaction_message(PLAIN).value.replace(b"24.36", b"24.360000000000000001")},
            "invalid_transaction",
        ),
        ({"value": with_value(transaction_message(PLAIN), amount=-1)}, "invalid_transaction"),
        ({"value": with_value(transaction_message(PLAIN), event_time="2026-03-01T12:05:01Z")}, "invalid_transaction"),
        ({"value": with_value(transaction_message(PLAIN), event_time="2025-11-30T11:59:59Z")}, "invalid_transaction"),
        ({"value": with_value(transaction_message(PLAIN), currency="EUR")}, "invalid_transaction"),
        ({"headers": [("version", b"2")]}, "unknown_version"),
        ({"headers": [("version", None)]}, "unknown_version"),
        ({"headers": [("content-type", b"avro/binary")]}, "unknown_content_type"),
        ({"headers": [("type", b"decision")]}, "unknown_type"),
        ({"headers": [("type", None)]}, "unknown_type"),
        ({"key": None}, "wrong_key"),
        ({"key": b"c2"}, "wrong_key"),
        ({"key": b"\xff"}, "wrong_key"),
    ],
)
def test_each_bad_payment_has_its_code(changes: dict[str, object], code: str) -> None:
    assert code_of(transaction_message(PLAIN), **changes) == code


@pytest.mark.parametrize(
    "change",
    [
        {"change": 2}, {"change": True}, {"change": None}, {"known_at": "yesterday"}, {"known_at": None},
        {"known_at": "1950-01-01T00:00:00Z"}, {"event_time": 5}, {"customer_id": ""}, {"channel": "fax"},
        {"country": "Belgium"}, {"transaction_id": "a b"},
    ],
)  # fmt: skip
def test_each_bad_label_change_is_named(change: dict[str, object]) -> None:
    message = label_message(CHANGE, LABEL)
    with pytest.raises(BadMessage, match=next(iter(change))) as caught:
        read(message, value=with_value(message, **change))
    assert caught.value.code == "invalid_label"


def test_a_label_change_under_another_key_is_bad() -> None:
    assert code_of(label_message(CHANGE, LABEL), key=b"c2") == "wrong_key"


def test_the_age_of_a_payment_is_judged_by_when_the_broker_took_it() -> None:
    old = replace(PLAIN, event_time=NOW - timedelta(days=89))
    message = transaction_message(old)
    assert read_log_message(message.key, message.value, None, currency="USD", received_at=NOW) == old
    with pytest.raises(BadMessage, match="90 days"):
        read_log_message(message.key, message.value, None, currency="USD", received_at=NOW + timedelta(days=2))


def test_a_bad_message_shows_nothing_that_a_terminal_acts_on() -> None:
    with pytest.raises(BadMessage) as caught:
        read(transaction_message(PLAIN), key=b"\x1b[2J" + b"x" * 500)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@settings(deadline=None)
@given(st.binary(), st.none() | st.binary(max_size=40))
def test_any_bytes_are_a_bad_message_and_nothing_worse(value: bytes, key: bytes | None) -> None:
    with pytest.raises(BadMessage):
        read_log_message(key, value, None, currency="USD", received_at=NOW)
    with pytest.raises(BadMessage):
        read_decision(value)


def test_a_dead_letter_keeps_every_byte_and_says_why_and_from_where() -> None:
    headers: list[tuple[str, bytes | None]] = [
        ("type", b"transaction"), ("trace", b"\xff"), ("trace", None), ("dlq-code", b"an earlier round"),
    ]  # fmt: skip
    error = BadMessage("not_json", "The body is not JSON: \udcff" + "x" * 5_000)
    letter = dead_letter(b"\xfe", b'{"a":', headers, source=SOURCE, error=error, at=NOW)
    assert (letter.key, letter.value) == (b"\xfe", b'{"a":')
    assert list(letter.headers[:3]) == headers[:3]
    added = dict(letter.headers[3:])
    assert added.keys() == {"dlq-code", "dlq-error", "dlq-source", "dlq-at"}
    assert added["dlq-code"] == b"not_json"
    assert added["dlq-source"] == b"transactions[3]@123"
    assert added["dlq-at"] == b"2026-03-01T12:00:00.123456Z"
    assert len(added["dlq-error"]) < 1_100


def test_a_dead_letter_keeps_nulls() -> None:
    letter = dead_letter(None, None, None, source=SOURCE, error=BadMessage("null_value", "x"), at=NOW)
    assert [letter.key, letter.value] == [None, None]


@given(st.from_regex(r"[A-Za-z0-9._\-]{1,50}", fullmatch=True), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
def test_a_place_comes_back_from_its_text(topic: str, partition: int, offset: int) -> None:
    place = Place(topic, partition, offset)
    assert Place.parse(str(place)) == place
    assert str(place) == f"{place.writer}@{offset}"


@pytest.mark.parametrize(
    "text", ["", "transactions", "transactions[3]", "t[3]@", "t[-1]@3", "t[1]@2 ", "t[١]@2", "[1]@2"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="place"):
        Place.parse(text)


def test_the_vector_travels_as_little_endian_floats() -> None:
    stored = orjson.loads(decision_value(DECISION, customer_id="c1"))
    vector = np.frombuffer(base64.b64decode(stored["features"]), dtype="<f4")
    assert vector[0] == np.float32(1.5)
    assert vector.tobytes() == DECISION.features
