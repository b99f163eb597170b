"""Which records may be decided now: hand-made queues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fraud_pipeline.adapters.stream.admission import Admission, Admitted, Waiting, may_close
from fraud_pipeline.adapters.stream.event_log import LogRecord
from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_merged import ANY_MINUTE
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.transaction import Transaction

MINUTE_0 = 30_000_000
"""Minutes since 1970 at which the hand-made hour begins."""
START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=MINUTE_0)
READS_BEFORE = 3
"""A payment within a minute reads those that ended 2 minutes before: the newest is 3 minutes earlier."""


@dataclass
class Clock:
    at: float = 0.0

    def __call__(self) -> float:
        return self.at


def item(minute: float | None, offset: int = 0) -> Item:
    """A payment so many minutes into the hour; without a time, a message that is none."""
    record = LogRecord(0, offset, 0, b"c1", b"", None)
    if minute is None:
        return Item(record)
    moment = START + timedelta(minutes=minute)
    return Item(record, payment=Transaction(f"t{offset}", moment, "c1", "m1", 100), time_us=microseconds(moment))


def queue(*minutes: float | None) -> Waiting:
    waiting = Waiting(NEVER)
    for offset, minute in enumerate(minutes):
        waiting.add(item(minute, offset))
    return waiting


def admit(
    admission: Admission, queues: dict[int, Waiting], *, closed: int = 0, others: int = ANY_MINUTE, limit: int = 100
) -> Admitted:
    """`closed` and `others` are minutes of the hour."""
    return admission.admit(
        queues, dict.fromkeys(queues, MINUTE_0 + closed), others=others if others == ANY_MINUTE else MINUTE_0 + others,
        limit=limit, idle=lambda partition: None,
    )  # fmt: skip


def taken(admitted: Admitted) -> dict[int, list[int]]:
    return {partition: [each.record.offset for each in items] for partition, items in admitted.items.items()}


def test_what_reads_no_minute_that_is_missing_goes_ahead() -> None:
    assert taken(admit(Admission(), {0: queue(1.0, 2.5, 9.9)}, closed=7)) == {0: [0, 1, 2]}


def test_a_backlog_goes_in_the_order_of_event_time_over_partitions() -> None:
    queues = {0: queue(1, 2, 3, 40, 41), 1: queue(1, 2, 3, 4, 5)}
    first = taken(admit(Admission(), queues, limit=6))
    assert first[0] == [0, 1, 2]
    assert first[1][:3] == [0, 1, 2]
    while queues[1].items:
        found = taken(admit(Admission(), queues, limit=6))
        assert 3 not in found.get(0, []) or not queues[1].items


def test_a_batch_takes_no_more_of_a_partition_than_its_limit() -> None:
    assert taken(admit(Admission(), {0: queue(*[1.0] * 50)}, limit=8)) == {0: list(range(8))}


def test_what_needs_others_minutes_waits_for_them_a_bounded_time() -> None:
    clock = Clock()
    admission = Admission(wait_s=15.0, clock=clock)
    queues = {0: queue(20.0)}
    assert not admit(admission, queues, others=20 - READS_BEFORE - 1).items
    clock.at = 14.9
    assert not admit(admission, queues, others=20 - READS_BEFORE - 1).items
    assert admission.blocked_s == 14.9
    clock.at = 15.0
    late = admit(admission, queues, others=20 - READS_BEFORE - 1)
    assert (taken(late), late.waited) == ({0: [0]}, True)


def test_it_goes_ahead_as_soon_as_others_have_closed() -> None:
    clock = Clock()
    admission = Admission(wait_s=15.0, clock=clock)
    queues = {0: queue(20.0)}
    assert not admit(admission, queues, others=20 - READS_BEFORE - 1).items
    ready = admit(admission, queues, others=20 - READS_BEFORE)
    assert (taken(ready), ready.waited) == ({0: [0]}, False)
    assert admission.blocked_s == 0.0


def test_messages_that_are_no_payment_wait_for_those_before_them_and_for_nothing_else() -> None:
    queues = {0: queue(None, None, 20.0, None)}
    blocked = admit(Admission(), queues, others=5)
    assert taken(blocked) == {0: [0, 1]}
    assert taken(admit(Admission(), queues, others=20)) == {0: [2, 3]}


def test_what_was_given_back_is_first_again() -> None:
    waiting = queue(1.0, 2.0, 3.0)
    given = waiting.take(ANY_MINUTE, 2)
    waiting.give_back(given)
    assert [each.record.offset for each in waiting.items] == [0, 1, 2]


def test_a_late_payment_needs_what_the_newest_before_it_needed() -> None:
    waiting = queue(20.0, 2.0)
    assert waiting.items[0].needs == waiting.items[1].needs == MINUTE_0 + 20 - READS_BEFORE


def test_an_empty_partition_closes_by_the_clock_alone() -> None:
    assert may_close(Waiting(NEVER), 5, 100, None) == 5
    assert may_close(Waiting(NEVER), 5, 100, 42) == 42
    assert may_close(Waiting(NEVER), 5, 30, 42) == 30
    assert may_close(queue(50.0), 5, MINUTE_0 + 10, None) == MINUTE_0 + 10
