"""What fences a member that is none any more: its transaction must not move a partition that may be another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from fraud_pipeline.adapters.kafka import kafka_log
from fraud_pipeline.adapters.kafka.envelope import HEADERS, Message
from fraud_pipeline.adapters.kafka.kafka_log import STUCK_S, KafkaLog
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.stream.event_log import EventLog, Output, TransactionAborted
from fraud_pipeline_tests.event_logs import KafkaRig

PATIENCE_S = 60.0


@pytest.fixture
def rig(kafka: KafkaServer, tmp_path: Path) -> KafkaRig:
    return KafkaRig(kafka.address, tmp_path)


@pytest.fixture
def member(rig: KafkaRig) -> Iterator[Callable[[], EventLog]]:
    """Opens logs that ask to join; they are closed at the end."""
    with ExitStack() as opened:

        def opener() -> EventLog:
            log = rig.open()
            opened.callback(log.close)
            log.start()
            return log

        yield opener


def poll_until(condition: Callable[[], bool], *logs: EventLog) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        for log in logs:
            log.poll(10, 0.02)


def test_who_has_not_joined_moves_nothing(rig: KafkaRig, member: Callable[[], EventLog]) -> None:
    """A broker takes the offsets of a transaction that names no member, though the partition has an owner."""
    owner = member()
    poll_until(lambda: len(owner.assigned()) == rig.partitions, owner)
    stranger = rig.open()
    stranger.start()
    with pytest.raises(TransactionAborted, match="no member"):
        stranger.commit([], {0: 7})
    assert owner.position(0) is None
    stranger.close()


def test_a_batch_of_before_a_rebalance_is_not_written_after_it(rig: KafkaRig, member: Callable[[], EventLog]) -> None:
    """Decided while the partition was ours, and written late: it is another's by then, who decides the same payments."""
    first = member()
    poll_until(lambda: len(first.assigned()) == rig.partitions, first)
    decided_as = first.membership()
    second = member()
    poll_until(lambda: bool(second.assigned()), first, second)
    (lost, *_) = second.assigned()
    decision = Output.of(rig.topics.decisions, lost, Message(b"key", b"{}", HEADERS["decision"]))
    with pytest.raises(TransactionAborted):
        first.commit([decision], {lost: 5}, decided_as)
    assert second.position(lost) is None
    assert not rig.content(rig.topics.decisions)[lost]
    (kept, *_) = first.assigned()
    first.commit([], {kept: 3})
    assert first.position(kept) == 3


def test_partitions_change_hands_while_batches_are_written(rig: KafkaRig, member: Callable[[], EventLog]) -> None:
    """A rebalance's callback waits for the transaction at hand, which must not wait for the consumer in turn."""
    first = member()
    poll_until(lambda: len(first.assigned()) == rig.partitions, first)
    second = member()
    deadline, writing, written = time.monotonic() + PATIENCE_S, None, 0
    with ThreadPoolExecutor(1) as executor:
        while not second.assigned():
            assert time.monotonic() < deadline, "nobody took over"
            if writing is None or writing.done():
                written += writing is not None and _succeeded(writing)
                offsets = dict.fromkeys(first.assigned(), written)
                writing = executor.submit(first.commit, [], offsets, first.membership())
            first.poll(10, 0.001)
            second.poll(10, 0.001)
        assert writing is not None
        _succeeded(writing)
    assert written > 0
    assert sorted([*first.assigned(), *second.assigned()]) == [0, 1, 2]


class Stuck:
    """A producer whose transactions' offsets are never answered, as librdkafka's after some losses of a coordinator."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def send_offsets_to_transaction(self, *_: Any) -> None:
        threading.Event().wait()


def test_a_producer_that_never_answers_is_replaced(rig: KafkaRig) -> None:
    log = KafkaLog(
        rig.settings, topic=rig.topics.transactions, shared_topic=rig.topics.shared_state, group=f"{rig.topics.prefix}g",
        instance="one", stuck_s=0.2,
    )  # fmt: skip
    log.start()
    poll_until(lambda: len(log.assigned()) == rig.partitions, log)
    log._producers[0] = Stuck(log._producers[0])  # type: ignore[call-overload]
    decision = Output.of(rig.topics.decisions, 1, Message(b"key", b"{}", HEADERS["decision"]))
    with pytest.raises(TransactionAborted, match="not answered"):
        log.commit([decision], {1: 5})
    assert log.position(1) is None
    log._stuck_s = STUCK_S  # a busy broker answers later than that
    for place in (5, 6, 7):
        log.commit([decision], {1: place})
    assert log.position(1) == 7
    assert len(rig.content(rig.topics.decisions)[1]) == 3
    log.close()


@pytest.mark.parametrize("begun", [8, 10])
@pytest.mark.parametrize("read_at_once", [1, 10_000])
def test_a_client_that_begins_later_than_it_was_told_loses_nothing(
    rig: KafkaRig, member: Callable[[], EventLog], begun: int, read_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle, or at the partition's end, where no record shows it; what is too much to be read at once is assigned anew."""
    monkeypatch.setattr(kafka_log, "MOST_MISSED", read_at_once)
    rig.append(rig.topics.transactions, 0, [(b"key", b"%d" % number, None) for number in range(10)])
    log = member()
    assert isinstance(log, KafkaLog)
    poll_until(lambda: len(log.assigned()) == rig.partitions, log)
    log.read_from(0, 4)
    place = TopicPartition(rig.topics.transactions, 0, begun)
    log._consumer.incremental_unassign([place])
    log._consumer.incremental_assign([place])
    found: list[int] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < 6:
        assert time.monotonic() < deadline, found
        found += [record.offset for record in log.poll(100, 0.05)]
    assert found == [4, 5, 6, 7, 8, 9]
    poll_until(lambda: log.at_end(0), log)


def _succeeded(writing: Future[None]) -> bool:
    try:
        writing.result(PATIENCE_S)
    except TransactionAborted:
        return False
    return True
