"""The relay against a fake of Kafka's transactions that can break at every point; the ledger is a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from fraud_pipeline.adapters.kafka import sink_relay
from fraud_pipeline.adapters.kafka.messages import read_log_message
from fraud_pipeline.adapters.kafka.sink_relay import LABEL_ID, LabelRelay, RelayFenced
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_sink import LedgerSink
from fraud_pipeline.adapters.ledger_sink_rows import RawLabel
from fraud_pipeline.domain.transaction import LabelChange
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.entries import T0, label
from fraud_pipeline_tests.sink_batches import KEY, TOPIC, WRITER, raw, write

POINTS = ("init", "begin", "produce", "commit lost", "commit kept", "commit cut short")


class Killed(BaseException):
    """The process is gone; nothing of it runs any more."""


class FakeLog:
    """One partition and the coordinator of one transactional id."""

    def __init__(self, payments: int) -> None:
        self.committed: list[tuple[int, LabelChange]] = []
        self.payments = payments
        self.open: list[tuple[int, LabelChange]] = []
        self.prepared: list[tuple[int, LabelChange]] = []
        self.owner: FakeProducer | None = None

    @property
    def end(self) -> int:
        return self.payments + len(self.committed)


class FakeProducer:
    """Breaks at one point, by an error or by being killed."""

    def __init__(self, log: FakeLog, *, breaks: str = "", by: BaseException | None = None) -> None:
        self.log, self.breaks, self.by = log, breaks, by

    def _maybe(self, point: str) -> None:
        if self.breaks == point:
            self.breaks = ""
            raise self.by or Killed

    def _fence(self) -> None:
        if self.log.owner is not self:
            raise KafkaException(KafkaError(KafkaError._FENCED))

    def init_transactions(self, timeout: float) -> None:
        self._maybe("init")
        self.log.committed += self.log.prepared  # the coordinator finishes a commit that it had begun
        self.log.open, self.log.prepared, self.log.owner = [], [], self

    def begin_transaction(self) -> None:
        self._fence()
        self._maybe("begin")

    def produce(
        self, topic: str, *, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]]
    ) -> None:
        self._fence()
        change = read_log_message(key, value, headers, currency="USD", received_at=T0)
        assert (topic, partition) == KEY
        assert isinstance(change, LabelChange)
        self.log.open.append((int(dict(headers)[LABEL_ID]), change))
        self._maybe("produce")

    def commit_transaction(self, timeout: float) -> None:
        self._fence()
        self._maybe("commit lost")
        if self.breaks == "commit cut short":
            self.log.prepared, self.log.open = self.log.open, []
        self._maybe("commit cut short")
        self.log.committed += self.log.open
        self.log.open = []
        self._maybe("commit kept")


class Rig:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.sink = ledger, LedgerSink(ledger.database)
        self.outbox = LedgerOutbox(ledger.database)
        write(self.sink, 0, 9, transactions=[raw(n, n) for n in range(9)])
        self.log = FakeLog(9)

    def relay(self, *producers: FakeProducer) -> LabelRelay:
        left = list(producers)
        return LabelRelay(
            self.outbox, TOPIC, producer=lambda: left.pop(0) if left else FakeProducer(self.log),
            ends=lambda: {0: self.log.end},
        )  # fmt: skip

    def read_back(self) -> None:
        """The sink reads the log to its end."""
        at = self.sink.positions()[KEY]
        kept = {u.label_id: u.label for u in self.outbox.unsent([WRITER], limit=1_000)}
        new = list(enumerate(self.log.committed, start=9))[at - 9 :]
        write(self.sink, at, self.log.end, labels=[RawLabel(kept[i], c.change, WRITER, o) for o, (i, c) in new])

    def run(self, relay: LabelRelay) -> None:
        for _ in range(4):
            try:
                relay.step()
            except (DependencyError, RelayFenced):
                continue
            self.read_back()

    @property
    def sent(self) -> list[tuple[str, int]]:
        return [(change.transaction_id, change.change) for _, change in self.log.committed]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        yield Rig(ledger)


def test_labels_reach_the_partition_of_their_payment_in_the_order_of_their_recording(rig: Rig):
    rig.ledger.record_labels([label(3), label(1)])
    relay = rig.relay()
    assert relay.step() == 2
    rig.ledger.record_labels([label(3, is_fraud=False, days=4), label(3, days=5, author="analyst")])
    assert relay.step() == 2
    assert rig.sent == [("t3", 1), ("t1", 1), ("t3", -1), ("t3", 1)]
    assert relay.in_flight == 4
    rig.read_back()
    assert relay.step() == 0
    assert relay.in_flight == 0
    assert rig.outbox.unsent([WRITER], limit=10) == []


@pytest.mark.parametrize("point", POINTS)
def test_a_relay_killed_at_any_point_leaves_neither_a_gap_nor_a_repeat(rig: Rig, point: str):
    rig.ledger.record_labels([label(1), label(2)])
    with pytest.raises(Killed):
        rig.relay(FakeProducer(rig.log, breaks=point)).step()
    rig.ledger.record_labels([label(3)])
    rig.run(rig.relay())
    assert rig.sent == [("t1", 1), ("t2", 1), ("t3", 1)]
    assert rig.outbox.unsent([WRITER], limit=10) == []


@pytest.mark.parametrize("point", POINTS)
def test_a_failure_at_any_point_is_mended_by_beginning_anew(rig: Rig, point: str):
    error = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    rig.ledger.record_labels([label(1), label(2)])
    relay = rig.relay(FakeProducer(rig.log, breaks=point, by=error))
    with pytest.raises(DependencyError, match="could not be sent to transactions"):
        relay.step()
    rig.run(relay)
    assert rig.sent == [("t1", 1), ("t2", 1)]


def test_what_an_older_relay_sent_is_waited_for_before_anything_is_sent(rig: Rig):
    rig.ledger.record_labels([label(1)])
    rig.relay().step()
    rig.ledger.record_labels([label(2)])
    relay = rig.relay()
    assert relay.step() == 0  # the sink has not read what stood in the log when this relay began
    rig.read_back()
    assert relay.step() == 1
    assert rig.sent == [("t1", 1), ("t2", 1)]


def test_a_relay_without_that_wait_would_send_twice(rig: Rig):
    rig.ledger.record_labels([label(1)])
    rig.relay().step()
    careless = LabelRelay(rig.outbox, TOPIC, producer=lambda: FakeProducer(rig.log), ends=lambda: {0: 0})
    careless.step()
    assert rig.sent == [("t1", 1), ("t1", 1)]


def test_a_zombie_is_fenced_and_sends_nothing(rig: Rig):
    zombie, heir = rig.relay(), rig.relay()
    zombie.step()
    heir.step()
    rig.ledger.record_labels([label(1)])
    with pytest.raises(RelayFenced):
        zombie.step()
    assert heir.step() == 1
    assert rig.sent == [("t1", 1)]


def test_many_labels_go_in_portions_and_wait_for_being_read_back(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sink_relay, "SEND", 2)
    monkeypatch.setattr(sink_relay, "IN_FLIGHT", 4)
    rig.ledger.record_labels([label(n) for n in range(7)])
    relay = rig.relay()
    assert [relay.step() for _ in range(3)] == [2, 2, 0]
    rig.read_back()
    assert [relay.step() for _ in range(3)] == [2, 1, 0]
    assert rig.sent == [(f"t{n}", 1) for n in range(7)]


def test_a_label_released_late_does_not_hide_one_that_was_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sink_relay, "SEND", 1)
    rig.ledger.record_labels([label(20), label(1)])
    relay = rig.relay()
    assert relay.step() == 1
    write(rig.sink, 9, 10, transactions=[raw(20, 9)])
    assert [relay.step() for _ in range(3)] == [1, 0, 0]
    assert rig.sent == [("t1", 1), ("t20", 1)]
