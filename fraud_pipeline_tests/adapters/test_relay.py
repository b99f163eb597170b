"""From the journal into the log: in order, each row until it is confirmed, and none holds the others up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from fraud_pipeline.adapters.kafka import relay as relaying
from fraud_pipeline.adapters.kafka.partitions import murmur2, partition_of
from fraud_pipeline.adapters.kafka.relay import Confirmed, Relay
from fraud_pipeline.adapters.local_journal import JournalFull
from fraud_pipeline.adapters.own_events import OwnEvents, holds
from fraud_pipeline.adapters.replica_journal import ReplicaJournal, Row
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction

START = datetime(2026, 1, 1, tzinfo=UTC)


class Broker:
    """Takes what producers send; `fails` are the codes that the next messages end with, by id."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.fails: dict[bytes, list[int]] = {}
        self.producers = 0

    def producer(self) -> SmallProducer:
        self.producers += 1
        return SmallProducer(self)


class SmallProducer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: list[tuple[bytes, Any]] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Any) -> None:
        assert (topic, key, headers[-1]) == ("transactions", b"ann", ("decision", b"D" + value))
        self._waiting.append((value, on_delivery))

    def poll(self, _: float) -> int:
        waiting, self._waiting = self._waiting, []
        for value, on_delivery in waiting:
            codes = self._broker.fails.get(value, [])
            if codes:
                on_delivery(KafkaError(codes.pop(0)), None)
            else:
                self._broker.log.append(value)
                on_delivery(None, self)
        return len(waiting)

    flush = poll

    def purge(self) -> None:
        self._waiting.clear()

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return len(self._broker.log) - 1


class Rig:
    def __init__(self, folder: Path) -> None:
        self.broker = Broker()
        self.journal = ReplicaJournal.open_in(folder, limit=100)
        self.confirmed: list[Confirmed] = []
        self.relay = Relay(self.journal, "transactions", producer=self.broker.producer, confirmed=self.confirmed.extend)

    def put(self, *numbers: int) -> None:
        rows = [Row(f"t-{n}", b"ann", b"%d" % n, b"D%d" % n) for n in numbers]
        self.journal.release(self.journal.append(rows))
        self.relay.wake()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(relaying, "RETRY_S", 0.01)
    made = Rig(tmp_path)
    yield made
    made.relay.close()
    made.journal.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_rows_arrive_in_order_and_are_told_with_their_place(rig: Rig):
    rig.put(0, 1)
    rig.relay.start()
    rig.put(2)
    until(lambda: not len(rig.journal))
    assert rig.broker.log == [b"0", b"1", b"2"]
    assert rig.confirmed == [Confirmed(f"t-{n}", "transactions[1]", n) for n in range(3)]
    assert (rig.relay.relayed, rig.relay.late) == (3, False)


def test_rows_that_are_not_released_are_not_sent(rig: Rig):
    rig.relay.start()
    last = rig.journal.append([Row("t-9", b"ann", b"9", b"D9")])
    rig.journal.remove_ids(["t-9"])
    rig.journal.release(last)
    rig.put(1)
    until(lambda: not len(rig.journal))
    assert rig.broker.log == [b"1"]


def test_after_a_failure_a_fresh_producer_sends_again_what_is_not_confirmed(rig: Rig):
    rig.broker.fails[b"1"] = [KafkaError._FATAL]
    rig.put(0, 1, 2)
    rig.relay.start()
    until(lambda: not len(rig.journal))
    assert rig.broker.log == [b"0", b"2", b"1"]  # what was confirmed stays, the other is sent again
    assert rig.broker.producers == 2
    assert (rig.relay.errors, rig.relay.late) == (1, False)


def test_what_the_broker_refuses_for_its_size_is_kept_aside(rig: Rig):
    rig.broker.fails[b"1"] = [KafkaError.MSG_SIZE_TOO_LARGE]
    rig.put(0, 1, 2)
    rig.relay.start()
    until(lambda: not len(rig.journal))
    assert rig.broker.log == [b"0", b"2"]
    assert rig.journal.refused() == 1
    rig.put(3)
    until(lambda: len(rig.broker.log) == 3)


def test_a_journal_has_one_owner_a_limit_and_survives(tmp_path: Path):
    one, other = ReplicaJournal.open_in(tmp_path, limit=2), ReplicaJournal.open_in(tmp_path, limit=2)
    assert one.path != other.path
    one.append([Row("a", b"k", b"v", b"d"), Row("b", b"k", b"v", b"d")])
    with pytest.raises(JournalFull, match="FRAUD_JOURNAL_LIMIT"):
        one.append([Row("c", b"k", b"v", b"d")])
    other.append([Row("x", b"k", b"v", b"d")])
    one.close()
    other.close()
    again = ReplicaJournal.open_in(tmp_path, limit=2)
    assert [row.transaction_id for row in again.after(0, 10)] == ["a", "b", "x"]
    again.close()


@pytest.mark.parametrize(
    ("key", "hashed"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("abc", 479470107)],
)
def test_partitions_are_those_of_kafkas_own_clients(key: str, hashed: int):
    assert murmur2(key.encode()) == hashed % 2**32
    assert partition_of(key.encode(), 7) == (hashed & 0x7FFFFFFF) % 7


def payment(identity: str, minutes: int, **changes: Any) -> Transaction:
    return Transaction(identity, START + timedelta(minutes=minutes), "ann", "shop", 100, **changes)


def test_a_payment_in_a_record_is_recognized_at_its_time_and_when_it_came_late():
    state = FeatureState.empty()
    state.update(payment("a", 10))
    state.update(payment("late", 5, country="DE"))
    assert holds(state, payment("a", 10))
    assert holds(state, payment("late", 5, country="DE"))
    assert not holds(state, payment("b", 9))
    assert not holds(state, payment("b", 11))
    assert not holds(state, payment("b", 10, device_id="d"))
    assert not holds(FeatureState.empty(), payment("a", 10))


def test_own_payments_are_bounded_and_leave_with_the_view():
    own = OwnEvents(most=3)
    for number in range(5):
        own.add(payment(f"p{number}", number), "w")
    assert (len(own), own.forgotten) == (3, 2)
    own.confirmed("p2", "w", 7, 1.0)
    own.confirmed("p3", "w", 8, 2.0)
    assert own.oldest_known_at() == 1.0
    own.passed({"w": 8})
    state = FeatureState.empty()
    assert [each.transaction_id for each in own.missing("ann", {}, state)] == ["p3", "p4"]
    assert [each.transaction_id for each in own.missing("ann", {"w": 9}, state)] == ["p4"]
    own.passed({"w": 9})
    assert len(own) == 1
