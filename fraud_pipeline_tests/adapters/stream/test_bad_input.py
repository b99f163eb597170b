"""Bad input of every kind: a dead letter or a clear stop, and nothing beside it is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.adapters.kafka.messages import HEADERS, MAX_VALUE_BYTES, decision_value, transaction_message
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.stream.event_log import LogRecord, Output
from fraud_pipeline.adapters.stream.intake import Item, read_records
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import FraudError, InputError, StateError
from fraud_pipeline_tests.event_logs import EmbeddedRig, KafkaRig, Stored
from fraud_pipeline_tests.scorer_rig import NOW, Scorer, decided, letters, models, pay, put, scorer
from fraud_pipeline_tests.sink_rig import decision

GOOD = Transaction("good", NOW - timedelta(minutes=30), "c1", "m1", 1_000)
PLAIN = list(HEADERS["transaction"])


def message(**changes: Any) -> bytes:
    """A payment's value with other members."""
    return orjson.dumps({**orjson.loads(transaction_message(GOOD).value), **changes})


def with_header(name: str, value: bytes) -> list[tuple[str, bytes | None]]:
    return [*(header for header in PLAIN if header[0] != name), (name, value)]


BAD: dict[str, tuple[str, Stored]] = {
    "truncated JSON": ("not_json", (b"c1", message()[:-9], PLAIN)),
    "wrong UTF-8": ("not_json", (b"c1", message(merchant_id="m").replace(b'"m"', b'"\xff\xfe"'), PLAIN)),
    "NaN": ("not_json", (b"c1", message().replace(b"10.0", b"NaN"), PLAIN)),
    "a name twice": ("not_json", (b"c1", message().replace(b"{", b'{"amount":1,', 1), PLAIN)),
    "no object": ("not_json", (b"c1", b"[]", PLAIN)),
    "empty value": ("not_json", (b"c1", b"", PLAIN)),
    "null value (tombstone)": ("null_value", (b"c1", None, PLAIN)),
    "null everything": ("null_value", (None, None, None)),
    "2 MB": ("too_large", (b"c1", message(merchant_id="m" * 2_000_000), PLAIN)),
    "one byte too many": ("too_large", (b"c1", message() + b" " * (MAX_VALUE_BYTES + 1 - len(message())), PLAIN)),
    "future time": ("invalid_transaction", (b"c1", message(event_time="2100-01-01T00:00:00Z"), PLAIN)),
    "too old": ("invalid_transaction", (b"c1", message(event_time="2001-01-01T00:00:00Z"), PLAIN)),
    "time without zone": ("invalid_transaction", (b"c1", message(event_time="2026-01-01T00:00:00"), PLAIN)),
    "negative amount": ("invalid_transaction", (b"c1", message(amount=-1), PLAIN)),
    "other currency": ("invalid_transaction", (b"c1", message(currency="EUR"), PLAIN)),
    "unknown version": ("unknown_version", (b"c1", message(), with_header("version", b"2"))),
    "unknown content type": ("unknown_content_type", (b"c1", message(), with_header("content-type", b"avro"))),
    "unknown type": ("unknown_type", (b"c1", message(), with_header("type", b"refund"))),
    "wrong key": ("wrong_key", (b"c2", message(), PLAIN)),
    "null key": ("wrong_key", (None, message(), PLAIN)),
    "bad label": ("invalid_label", (b"c1", message(), with_header("type", b"label"))),
    "bad decision": ("invalid_decision", (b"c1", message(), with_header("decision", b"{}"))),
    "another's decision": (
        "invalid_decision",
        (b"c1", message(), with_header(
            "decision", decision_value(decision(replace(GOOD, transaction_id="other")), customer_id="c1")
        )),
    ),
}  # fmt: skip


@pytest.fixture
def rig(tmp_path: Path) -> EmbeddedRig:
    return EmbeddedRig(tmp_path)


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_a_dead_letter_with_its_bytes_and_what_is_beside_it_is_decided(
    rig: EmbeddedRig, tmp_path: Path, kind: str
) -> None:
    code, (key, value, headers) = BAD[kind]
    where = 1
    put(rig, (key, value, headers), partition=where)
    pay(rig, [GOOD, replace(GOOD, transaction_id="after", event_time=NOW)])
    with scorer(rig, tmp_path / "kept") as one:
        one.work()
        assert one.metrics.dead_letters == {code: 1}
    assert letters(rig) == [(code, f"{rig.topics.transactions}[1]@0")]
    letter = rig.content(rig.topics.dead_letters)[0][0]
    assert (letter.key, letter.value) == (key, value)
    original = [header for header in letter.headers or () if not header[0].startswith("dlq-")]
    assert original == list(headers or ())
    assert set(decided(rig)) == {"good", "after"}


def record(message: Stored, offset: int, received: datetime = NOW) -> LogRecord:
    key, value, headers = message
    return LogRecord(0, offset, microseconds(received), key, value, headers)


def said(item: Item) -> tuple[Any, ...]:
    return item.record.offset, item.payment, item.label, item.bad and (item.bad.code, item.bad.message), item.decided


kinds = st.sampled_from([stored for kind, (_, stored) in BAD.items() if kind != "2 MB"])
good = st.builds(
    lambda number, minutes: (
        b"c1", message(transaction_id=f"t{number}", event_time=(NOW + timedelta(minutes=minutes)).isoformat()), PLAIN,
    ),
    st.integers(0, 9), st.sampled_from([-90 * 24 * 60 - 5, -90 * 24 * 60 + 5, -60, 0, 4, 6, 20]),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(good | kinds, st.integers(0, 30)), max_size=12))
def test_a_record_is_judged_alone_as_among_others(stream: list[tuple[Stored, int]]) -> None:
    """What was received at different times too: a replay reads in other batches than the first reading did."""
    records = [record(stored, place, NOW + timedelta(minutes=late)) for place, (stored, late) in enumerate(stream)]
    together = [said(item) for item in read_records(records, currency="USD")]
    alone = [said(read_records([each], currency="USD")[0]) for each in records]
    assert together == alone


def test_a_customer_on_a_foreign_partition_is_counted_and_said_once(
    rig: EmbeddedRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = transaction_message(GOOD)
    pay(rig, [GOOD])
    home = next(each for each, found in rig.content(rig.topics.transactions).items() if found)
    for number in range(3):
        value = message(transaction_id=f"stray-{number}")
        put(rig, (sent.key, value, PLAIN), partition=(home + 1) % rig.partitions)
    with caplog.at_level(logging.WARNING), scorer(rig, tmp_path / "kept", max_batch=1) as one:
        one.work()
        assert one.metrics.misplaced == 3
    assert len([said for said in caplog.messages if "has two histories" in said]) == 1
    assert len(decided(rig)) == 4


def test_another_number_of_partitions_is_refused_with_the_remedy(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, [GOOD])
    with scorer(rig, tmp_path / "kept") as one:
        one.work()
        one.keep()
    with pytest.raises(StateError, match="fraud state repartition"):
        Scorer(rig, tmp_path / "kept", models(), partitions=rig.partitions + 2)
    with scorer(rig, tmp_path / "kept") as one:  # the old number goes on
        assert not one.behind


@pytest.mark.parametrize("make", [EmbeddedRig, KafkaRig])
def test_a_missing_topic_stops_the_scorer(
    make: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = (request.getfixturevalue("kafka").address, tmp_path) if make is KafkaRig else (tmp_path,)
    log = make(*given).open(topic=f"gone-{uuid4().hex[:6]}")
    with pytest.raises(FraudError, match="fraud topics create"):
        log.partition_count()
    log.close()


def test_a_letter_that_no_broker_takes_stops_the_scorer_instead_of_going_round(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    rig = KafkaRig(kafka.address, tmp_path)
    log = rig.open()
    try:
        log.start()
        log.poll(1, 0.05)
        while not log.assigned():
            log.poll(1, 0.05)
        letter = Output(rig.topics.dead_letters, None, b"c1", b"x" * 2_000_000, [])
        with pytest.raises(InputError, match="MESSAGE_MAX_BYTES"):
            log.commit([letter], {0: 0})
        assert log.position(0) is None
    finally:
        log.close()


def test_future_is_judged_by_the_logs_clock_and_not_ours(rig: EmbeddedRig) -> None:
    """A replay years later judges as the first reading did."""
    then = datetime(2020, 1, 1, tzinfo=UTC)
    at = {"event_time": "2020-01-01T00:04:00Z"}
    early, late = (
        record((b"c1", message(**at), PLAIN), 0, then),
        record((b"c1", message(**at), PLAIN), 1, then - timedelta(minutes=2)),
    )
    first, second = read_records([early, late], currency="USD")
    assert first.payment is not None
    assert second.bad is not None
    assert second.bad.code == "invalid_transaction"
