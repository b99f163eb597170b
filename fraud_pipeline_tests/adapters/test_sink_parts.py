"""Parts of the sink that need no broker: what it reads of messages, its metrics."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from fraud_pipeline.adapters.kafka.messages import (
    Message,
    Place,
    decision_message,
    decision_value,
    label_message,
    transaction_message,
)
from fraud_pipeline.adapters.kafka.sink_messages import Kind, SinkReader
from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.ledger_sink_rows import ClosedMinute, RawLabel, Written
from fraud_pipeline.adapters.metrics_port import MetricsPort
from fraud_pipeline.domain.transaction import Label, LabelChange
from fraud_pipeline_tests.sink_rig import NOW, decision, payment

KINDS: dict[str, Kind] = {
    "transactions": "transactions", "decisions": "decisions", "alerts": "alerts", "labels": "labels",
    "shared-state": "shared_state",
}  # fmt: skip


@dataclass
class FakeReceived:
    """As the client gives a message."""

    on: str
    said: Message
    at: int = 5

    def topic(self) -> str:
        return self.on

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return self.at

    def key(self) -> Any:
        return self.said.key

    def value(self) -> Any:
        return self.said.value

    def headers(self) -> Any:
        return list(self.said.headers)

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_800_000_000_123


@pytest.fixture
def reader() -> SinkReader:
    return SinkReader(KINDS, currency="USD", now=lambda: NOW)


def change_of(label: Label) -> Message:
    change = LabelChange("t1", 1, label.known_at, NOW, "c1", "m1")
    return label_message(change, label)


def test_a_label_of_the_log_is_the_recorded_label_again(reader: SinkReader):
    label = Label("t1", True, "chargeback", "bank", NOW + timedelta(microseconds=123_456))
    batch, refused = reader.read([FakeReceived("transactions", change_of(label))])
    assert batch.labels == [RawLabel(label, 1, "transactions[1]", 5)]
    assert refused == []


def test_a_label_of_the_log_without_what_it_came_from_is_what_its_change_says(reader: SinkReader):
    message = change_of(Label("t1", True, "chargeback", "bank", NOW))
    value = {k: v for k, v in orjson.loads(message.value).items() if k not in {"is_fraud", "source", "author"}}
    batch, _ = reader.read([FakeReceived("transactions", Message(message.key, orjson.dumps(value), message.headers))])
    assert batch.labels[0].label == Label("t1", True, "import", "unknown", NOW)


def test_the_brokers_time_is_kept_to_the_millisecond(reader: SinkReader):
    moment = datetime(2027, 1, 15, 8, 0, 0, 123_000, tzinfo=UTC)
    message = transaction_message(payment(1, event_time=moment))
    batch, _ = reader.read([FakeReceived("transactions", message)])
    assert batch.transactions[0].received_at == moment


@pytest.mark.parametrize(("role", "kept"), [("decided", ["decided"]), ("shadow", ["shadow"]), ("champion", [])])
def test_a_decisions_role_is_one_that_we_know(reader: SinkReader, role: str, kept: list[str]):
    value = decision_value(decision(payment(1)), customer_id="c1")
    message = decision_message(value, customer_id="c1", source=Place("transactions", 1, 5), role=role)
    batch, _ = reader.read([FakeReceived("decisions", message)])
    assert [record.role for record in batch.decisions] == kept
    assert reader.bad.total() == 1 - len(kept)


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{}", b'{"writer": "w", "minute": "1", "offset": 2, "by_clock": false}', b"\xff"]
)
def test_what_is_no_closed_minute_is_left_out(reader: SinkReader, value: bytes):
    good = b'{"writer": "w", "minute": 1, "offset": 2, "by_clock": false, "more": []}'
    batch, _ = reader.read([FakeReceived("shared-state", Message(b"w", each, ())) for each in (value, good)])
    assert batch.closings == [ClosedMinute("w", 1, 2, False)]
    assert reader.bad == {("shared_state", "not_json"): 1}


def test_metrics_are_served_over_http():
    metrics = SinkMetrics()
    metrics.wrote(Written(rows={"transactions": 3}, repeats={"transactions": 1}, conflicts=("t1",)), seconds=0.1)
    metrics.set_lags({("transactions", 1): 7, ("labels", 0): 2})
    metrics.set_lags({("transactions", 1): 5})
    port = MetricsPort(metrics.registry, port=0, host="127.0.0.1")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    finally:
        port.close()
    assert 'fraud_sink_rows_total{table="transactions"} 3.0' in lines
    assert 'fraud_sink_repeats_total{table="transactions"} 1.0' in lines
    assert "fraud_sink_conflicts_total 1.0" in lines
    assert "fraud_sink_commit_seconds_count 1.0" in lines
    assert [line for line in lines if line.startswith("fraud_sink_lag{")] == [
        'fraud_sink_lag{partition="1",topic="transactions"} 5.0'
    ]
