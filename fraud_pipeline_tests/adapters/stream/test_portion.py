"""A replay by column leaves the state that the records leave one by one, whatever stands among them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.adapters.kafka.messages import HEADERS, decision_value, label_message
from fraud_pipeline.adapters.stream.event_log import LogRecord, RecordColumns
from fraud_pipeline.adapters.stream.intake import read_records
from fraud_pipeline.adapters.stream.portion import portion_of, portion_of_items, take_in_portion
from fraud_pipeline.adapters.stream.writer_states import entered
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.transaction import Label, LabelChange, parse_transaction
from fraud_pipeline_tests.sink_rig import decision

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WRITER = "t[0]"
PLAIN = list(HEADERS["transaction"])


def stream(seed: int, count: int) -> list[LogRecord]:
    """Payments with repeats, conflicts, late ones, labels, attached decisions and bad messages among them."""
    chance = np.random.default_rng(seed)
    records: list[LogRecord] = []
    for offset in range(count):
        number = int(chance.integers(0, max(1, offset))) if chance.random() < 0.1 else offset
        customer, kind = f"C{int(chance.integers(0, 9))}", chance.random()
        late = timedelta(minutes=20) if chance.random() < 0.1 else timedelta(0)
        at = NOW + timedelta(seconds=37 * number) - late
        payment = {
            "transaction_id": f"t{number}", "event_time": at.isoformat(), "customer_id": customer,
            "amount": round(float(chance.random()) * 90, 2),
            "merchant_id": f"M{int(chance.integers(0, 5))}" if kind > 0.05 else "Bäcker",
            "country": [None, "US", "DE"][int(chance.integers(0, 3))],
            "device_id": f"d{int(chance.integers(0, 20))}" if kind > 0.5 else None,
            **({"latitude": 1.5, "longitude": round(float(chance.random()), 4)} if kind > 0.7 else {}),
        }  # fmt: skip
        headers, value, key = PLAIN, orjson.dumps(payment), customer.encode()
        if kind < 0.1:
            change = LabelChange(f"t{number}", 1, at, at, customer, "M1", "unknown", "pos", "US", None)
            message = label_message(change, Label(f"t{number}", True, "analyst", "a", at))
            key, value, headers = message.key, message.value, list(message.headers)
        elif kind < 0.15:
            value = value[:-9]
        elif kind < 0.2:
            made = decision_value(decision(parse_transaction(payment)), customer_id=customer)
            headers = [*PLAIN, ("decision", made if kind < 0.18 else b"{}")]
        elif kind < 0.22:
            key = b"somebody"
        elif kind < 0.24:
            value, headers = b"", None  # type: ignore[assignment]
        if records and 0.24 < kind < 0.3:
            key, value, headers = records[-1].key or b"", records[-1].value or b"", records[-1].headers  # type: ignore[assignment]
        records.append(LogRecord(0, 2 * offset, microseconds(at + timedelta(minutes=1)), key, value, headers))
    return records


def one_by_one(records: list[LogRecord]) -> bytes:
    """The state after the records as the scorer takes them in."""
    state = WriterState(WRITER, MergedState([WRITER]).state)
    found = entered(state, read_records(records, currency="USD"))
    state.take(state.rows_of(found.payments), state.label_rows_of(found.labels), found.positions)
    state.offset = records[-1].offset + 1
    state.commit()
    return state.snapshot()


def by_column(records: list[LogRecord], size: int, cut: int) -> bytes:
    state = WriterState(WRITER, MergedState([WRITER]).state)
    for first in range(0, len(records), size):
        portion = portion_of(RecordColumns.of(records[first : first + size]), currency="USD")
        for start, stop in ((0, min(cut, len(portion))), (cut, len(portion))):
            take_in_portion(state, portion, start, stop)
    state.commit()
    return state.snapshot()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 120), st.integers(1, 130), st.integers(0, 60))
def test_the_state_is_the_same_bit_for_bit(seed: int, count: int, size: int, cut: int) -> None:
    records = stream(seed, count)
    assert by_column(records, size, cut) == one_by_one(records)


def test_the_stream_of_these_tests_holds_every_kind() -> None:
    items = read_records(stream(1, 2_000), currency="USD")
    codes = {item.bad.code for item in items if item.bad is not None}
    assert codes >= {"not_json", "invalid_decision", "wrong_key"}
    state = WriterState(WRITER, MergedState([WRITER]).state)
    assert set(entered(state, items).verdicts) == {0, 1, 2}
    assert any(item.label is not None for item in items)
    assert any(item.decided is not None for item in items)


def test_most_payments_are_read_by_column() -> None:
    portion = portion_of(stream(2, 1_000), currency="USD")
    assert portion.columns.plain.mean() > 0.6


def test_what_the_ledger_gives_is_taken_in_likewise() -> None:
    records = stream(3, 300)
    state = WriterState(WRITER, MergedState([WRITER]).state)
    portion = portion_of_items(read_records(records, currency="USD"))
    take_in_portion(state, portion, 0, len(portion))
    state.commit()
    assert state.snapshot() == one_by_one(records)


@pytest.mark.parametrize("missing", ["event", "label"])
def test_a_record_less_is_another_state(missing: str) -> None:
    records = stream(4, 200)
    kinds = [item.label is not None for item in read_records(records, currency="USD")]
    places = [place for place, is_label in enumerate(kinds) if is_label == (missing == "label")]
    assert by_column([each for place, each in enumerate(records) if place != places[3]], 50, 9) != one_by_one(records)


def test_columns_of_records_are_the_records() -> None:
    records = stream(5, 20)
    columns = RecordColumns.of(records)
    assert list(columns) == records
    assert columns[3:7] == records[3:7]
    assert list(columns.before(records[7].offset)) == records[:7]
