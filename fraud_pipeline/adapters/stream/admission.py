"""Which of the records that wait may be decided now: those whose shared minutes every writer has closed.

Our own partitions are taken in the order of event time, so none waits for another of ours; for others' it is a bounded
wait, after which payments are decided with what there is, and say so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_merged import closed_at_watermark
from fraud_pipeline.domain.feature_spec import MINUTE_US, READ_AFTER_US

SHARED_WAIT_S: Final = 15.0
"""How long payments wait for another writer's minutes: a killed scorer's partitions are another's after the session's 6 s, and
decided again after its recovery. Longer than that the other side is away, and payments are not to wait for it."""


@dataclass(slots=True)
class Waiting:
    """A partition's records that wait, in their order."""

    watermark: int
    items: deque[Item] = field(default_factory=deque)

    def add(self, item: Item) -> None:
        if item.payment is not None:
            self.watermark = max(self.watermark, item.time_us)
        item.needs = NEVER if self.watermark == NEVER else minute_read_at(self.watermark)
        self.items.append(item)

    def take(self, through: int, limit: int) -> list[Item]:
        """The first records whose minute is not after `through`, at most `limit`."""
        taken: list[Item] = []
        while self.items and self.items[0].needs <= through and len(taken) < limit:
            taken.append(self.items.popleft())
        return taken

    def give_back(self, items: list[Item]) -> None:
        """What was taken and did not happen: it is first again."""
        self.items.extendleft(reversed(items))


@dataclass(frozen=True, slots=True)
class Admitted:
    """`items` by partition, to be decided with shared minutes up to `through` closed by our own writers; `waited` where others'
    minutes are missing after all.
    """

    items: dict[int, list[Item]]
    through: int
    waited: bool


class Admission:
    """Decides what may go ahead. `idle(partition)`: the newest minute that its clock may close; None while it is not idle."""

    def __init__(self, *, wait_s: float = SHARED_WAIT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait_s = wait_s
        self._clock = clock
        self._blocked_since: float | None = None

    @property
    def blocked_s(self) -> float:
        """How long payments have been waiting for others' minutes."""
        return 0.0 if self._blocked_since is None else self._clock() - self._blocked_since

    def admit(
        self,
        waiting: Mapping[int, Waiting],
        closed: Mapping[int, int],
        *,
        others: int,
        limit: int,
        idle: Callable[[int], int | None],
    ) -> Admitted:
        """`closed`: what our partitions have closed; `others`: what all other writers have."""
        heads = [partition for partition, queue in waiting.items() if queue.items]
        if not heads:
            self._blocked_since = None
            return Admitted({}, NEVER, waited=False)
        through = min(self._through(waiting, limit), others)
        through = min(may_close(queue, closed[each], through, idle(each)) for each, queue in waiting.items())
        items = self._taken(waiting, through, limit)
        if items:
            self._blocked_since = None
            return Admitted(items, through, waited=False)
        if self._blocked_since is None:
            self._blocked_since = self._clock()
        if self.blocked_s < self._wait_s:
            return Admitted({}, through, waited=False)
        through = self._through(waiting, limit)
        return Admitted(self._taken(waiting, through, limit), through, waited=True)

    def _through(self, waiting: Mapping[int, Waiting], limit: int) -> int:
        """The minute up to which the next `limit` records read, in the order of event time."""
        needs = sorted(item.needs for queue in waiting.values() for item in islice(queue.items, limit))
        return needs[min(limit, len(needs)) - 1]

    def _taken(self, waiting: Mapping[int, Waiting], through: int, limit: int) -> dict[int, list[Item]]:
        found = {partition: queue.take(through, limit) for partition, queue in waiting.items()}
        return {partition: items for partition, items in found.items() if items}


def may_close(queue: Waiting, closed: int, through: int, by_clock: int | None) -> int:
    """The newest minute up to `through` that a partition of ours may close once it has read what it may read then.

    Where its next payment is later, all of it; else what its newest payment closes, or, where it is idle, the clock.
    """
    if queue.items and queue.items[-1].needs > through:
        return through
    return min(through, max(closed, closed_at_watermark(queue.watermark), NEVER if by_clock is None else by_clock))


def minute_read_at(time_us: int) -> int:
    """The newest minute that a payment of this time reads."""
    return (time_us - READ_AFTER_US) // MINUTE_US - 1
