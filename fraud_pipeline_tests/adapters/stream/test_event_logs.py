"""What every log promises its scorer: the same tests on a real broker and on a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from fraud_pipeline.adapters.kafka.envelope import HEADERS, Message
from fraud_pipeline.adapters.stream.event_log import EventLog, LogRecord, Output, SharedMessage
from fraud_pipeline.errors import Busy, FraudError, StateError
from fraud_pipeline_tests.event_logs import EmbeddedRig, KafkaRig, LogRig, Stored

PATIENCE_S = 60.0
PLAIN = list(HEADERS["transaction"])


@pytest.fixture(params=["embedded", "kafka"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> LogRig:
    if request.param == "embedded":
        return EmbeddedRig(tmp_path)
    return KafkaRig(request.getfixturevalue("kafka").address, tmp_path)


@pytest.fixture
def join(rig: LogRig) -> Iterator[Callable[[], EventLog]]:
    """Opens logs, joined and with every partition assigned; they are closed at the end."""
    with ExitStack() as opened:

        def opener() -> EventLog:
            log = rig.open()
            opened.callback(log.close)
            for partition in range(rig.partitions):
                log.shared(partition, 0)
            log.start()
            wait(log, lambda: len(log.assigned()) == rig.partitions)
            return log

        yield opener


def wait(log: EventLog, condition: Callable[[], bool], *, limit: int = 100) -> list[LogRecord]:
    """Poll until it holds; what was delivered meanwhile."""
    deadline, found = time.monotonic() + PATIENCE_S, list[LogRecord]()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        found += log.poll(limit, 0.05)
    return found


def take(log: EventLog, count: int, *, limit: int = 100) -> list[LogRecord]:
    """The next so many records."""
    found: list[LogRecord] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} records came"
        found += log.poll(limit, 0.05)
    assert len(found) == count
    return found


def numbered(first: int, until: int) -> list[Stored]:
    return [(b"key", b"%d" % number, PLAIN) for number in range(first, until)]


def values(records: list[LogRecord], partition: int) -> list[int]:
    return [int(record.value or b"-1") for record in records if record.partition == partition]


def output(topic: str, partition: int, value: bytes) -> Output:
    return Output.of(topic, partition, Message(b"key", value, HEADERS["decision"]))


def closing(partition: int, minute: int) -> bytes:
    return orjson.dumps({"partition": partition, "minute": minute})


def test_a_missing_topic_is_named_with_what_makes_it(rig: LogRig) -> None:
    log = rig.open(topic="nowhere")
    with pytest.raises(FraudError, match=r"nowhere.*fraud topics create"):
        log.partition_count()
    log.close()


def test_partitions_are_counted_before_joining(rig: LogRig) -> None:
    log = rig.open()
    assert log.partition_count() == rig.partitions
    assert log.assigned() == {}
    log.close()


def test_nothing_is_delivered_before_the_scorer_says_from_where(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 10))
    log = join()
    assert set(log.assigned()) == {0, 1, 2}
    assert not log.poll(100, 0.2)
    log.read_from(0, 4)
    assert values(take(log, 6), 0) == list(range(4, 10))


def test_each_partition_comes_in_its_order_and_as_it_was_sent(rig: LogRig, join: Callable[[], EventLog]) -> None:
    odd: list[Stored] = [(None, b"1", None), (b"\xff", None, [("type", b"\xfe"), ("none", None)])]
    rig.append(rig.topics.transactions, 1, odd)
    for partition in (0, 2):
        rig.append(rig.topics.transactions, partition, numbered(0, 50))
    log = join()
    for partition in range(3):
        log.read_from(partition, 0)
    found = take(log, 102, limit=7)
    for partition in (0, 2):
        mine = [record for record in found if record.partition == partition]
        assert [record.offset for record in mine] == list(range(50))
        assert values(found, partition) == list(range(50))
        assert all(record.headers == PLAIN and record.key == b"key" for record in mine)
    first, second = (record for record in found if record.partition == 1)
    assert (first.key, first.value, first.headers) == (None, b"1", None)
    assert (second.key, second.value, second.headers) == (b"\xff", None, [("type", b"\xfe"), ("none", None)])


def test_the_log_says_when_it_took_a_record(rig: LogRig, join: Callable[[], EventLog]) -> None:
    before = time.time_ns() // 1_000_000 * 1_000
    rig.append(rig.topics.transactions, 0, numbered(0, 5))
    after = time.time_ns() // 1_000
    log = join()
    log.read_from(0, 0)
    times = [record.received_us for record in take(log, 5)]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    assert [record.received_us for batch in log.replay(0, 0, 5) for record in batch] == times


def test_a_poll_brings_no_more_than_asked(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 30))
    log = join()
    log.read_from(0, 0)
    sizes: list[int] = []
    while sum(sizes) < 30:
        sizes.append(len(log.poll(8, 0.5)))
    assert max(sizes) <= 8


def test_a_held_partition_waits_and_goes_on(rig: LogRig, join: Callable[[], EventLog]) -> None:
    for partition in (0, 1):
        rig.append(rig.topics.transactions, partition, numbered(0, 5))
    log = join()
    log.read_from(0, 0)
    log.read_from(1, 0)
    take(log, 10)
    log.hold(0, True)
    for partition in (0, 1):
        rig.append(rig.topics.transactions, partition, numbered(5, 10))
    assert values(take(log, 5), 1) == list(range(5, 10))
    assert not log.poll(100, 0.2)
    log.hold(0, False)
    assert values(take(log, 5), 0) == list(range(5, 10))


def test_the_end_is_known_once_all_was_delivered(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 5))
    log = join()
    assert not log.at_end(0)
    log.read_from(0, 0)
    log.read_from(1, 0)
    take(log, 5)
    wait(log, lambda: log.at_end(0) and log.at_end(1))
    assert log.end(0) == 5
    rig.append(rig.topics.transactions, 0, numbered(5, 9))
    first = take(log, 1, limit=1)
    assert values(first, 0) == [5]
    assert not log.at_end(0)
    take(log, 3)
    wait(log, lambda: log.at_end(0))


def test_outputs_and_positions_are_one_transaction(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 1, numbered(0, 10))
    log = join()
    assert [log.position(partition) for partition in range(3)] == [None, None, None]
    assert log.begins_at(1) == 0
    decisions = [output(rig.topics.decisions, number % 3, b"%d" % number) for number in range(9)]
    log.commit(decisions, {1: 7})
    assert (log.position(0), log.position(1)) == (None, 7)
    content = rig.content(rig.topics.decisions)
    assert [values(content[partition], partition) for partition in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert content[0][0].headers == list(HEADERS["decision"])
    log.commit([], {1: 8, 0: 0})
    assert (log.position(0), log.position(1)) == (0, 8)


def test_a_transaction_that_fails_leaves_nothing_and_can_be_done_again(
    rig: LogRig, join: Callable[[], EventLog]
) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 10))
    log = join()
    good = output(rig.topics.decisions, 0, b"1")
    with pytest.raises(FraudError):
        log.commit([good, output(rig.topics.decisions, 99, b"2")], {0: 5})
    assert log.position(0) is None
    log.commit([good], {0: 5})
    assert log.position(0) == 5
    assert values(rig.content(rig.topics.decisions)[0], 0) == [1]


def test_a_successor_goes_on_at_the_position(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 10))
    first = join()
    first.commit([], {0: 6})
    first.close()
    second = join()
    position = second.position(0)
    assert position == 6
    second.read_from(0, position)
    assert values(take(second, 4), 0) == [6, 7, 8, 9]


def test_a_replay_is_exactly_the_range(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 2, numbered(0, 500))
    log = join()
    found = [record for batch in log.replay(2, 20, 470) for record in batch]
    assert [record.offset for record in found] == list(range(20, 470))
    assert values(found, 2) == list(range(20, 470))
    assert not list(log.replay(2, 30, 30))


def test_a_replay_does_not_move_what_is_read(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 10))
    log = join()
    log.read_from(0, 3)
    assert values(take(log, 2, limit=2), 0) == [3, 4]
    assert len([record for batch in log.replay(0, 0, 10) for record in batch]) == 10
    assert values(take(log, 5), 0) == [5, 6, 7, 8, 9]


def test_closings_are_heard_from_every_partition(rig: LogRig, join: Callable[[], EventLog]) -> None:
    log = join()
    shared = rig.topics.shared_state
    log.commit([output(shared, each, closing(each, minute)) for each in range(3) for minute in (7, 8)], {0: 0})
    deadline, heard = time.monotonic() + PATIENCE_S, list[SharedMessage]()
    while len(heard) < 6:
        assert time.monotonic() < deadline
        heard += log.hear()
    assert sorted((each.partition, each.offset, each.value["minute"]) for each in heard) == [
        (partition, offset, 7 + offset) for partition in range(3) for offset in (0, 1)
    ]  # fmt: skip
    assert not log.hear()


def test_all_of_a_partition_is_heard_at_once_where_it_is_asked_for(rig: LogRig, join: Callable[[], EventLog]) -> None:
    first = join()
    first.commit([output(rig.topics.shared_state, 1, closing(1, minute)) for minute in range(40)], {1: 0})
    first.close()
    second = join()
    heard = [each.value["minute"] for each in second.hear(end_of=1) if each.partition == 1]
    assert heard == list(range(40))
    assert not second.hear(end_of=1)


def test_a_position_beyond_the_log_stops_the_scorer(rig: LogRig, join: Callable[[], EventLog]) -> None:
    rig.append(rig.topics.transactions, 0, numbered(0, 3))
    log = join()
    with pytest.raises(StateError, match=r"transactions\[0\]"):
        log.read_from(0, 9)


def test_no_partition_has_two_owners(rig: LogRig, join: Callable[[], EventLog]) -> None:
    """A broker shares them out; a file refuses the second and says what scales."""
    first = join()
    second = rig.open()
    if isinstance(rig, EmbeddedRig):
        with pytest.raises(Busy, match="fraud services up kafka"):
            second.start()
        assert set(first.assigned()) == {0, 1, 2}
    else:
        second.start()
        deadline = time.monotonic() + PATIENCE_S
        while len(first.assigned()) + len(second.assigned()) != 3 or not second.assigned():
            assert time.monotonic() < deadline
            first.poll(1, 0.05)
            second.poll(1, 0.05)
        assert not set(first.assigned()) & set(second.assigned())
    second.close()
