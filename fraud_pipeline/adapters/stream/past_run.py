"""All writers' logs run again from their beginning, window by window of event time, in bounded memory.

Yields payments with the features that they were decided on, as soon as every writer has closed what they read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.stream.admission import minute_read_at
from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.adapters.stream.writer_states import entered
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_many_writers import ClockClosing, WriterLog
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.seen_ids import NEW
from fraud_pipeline.domain.writer_windows import WriterWindows

WINDOW: Final = 5_000
"""Records of a writer in one window, at most: some 10 MB; a window's fixed cost (a few ms) is then 1 µs of each."""

Check = Callable[[str, int], None]
"""(writer, minute): told before the minute of a writer whose log has ended is taken as whole; raises where it is not."""


@dataclass
class LogCursor:
    """One writer's log as it is read: `pages` of records in their order; `cuts`, (offset, minute) that its clock closed."""

    pages: Iterator[Sequence[Item]]
    cuts: deque[tuple[int, int]]
    watermark: int = NEVER
    waiting: deque[Item] = field(default_factory=deque)
    ended: bool = False

    def fill(self) -> None:
        """Have a whole window at hand, or what is left."""
        while not self.ended and len(self.waiting) < WINDOW:
            page = next(self.pages, None)
            if page is None:
                self.ended = True
            else:
                self.waiting.extend(page)

    @property
    def is_over(self) -> bool:
        return self.ended and not self.waiting

    def horizon(self) -> int | None:
        """The watermark (µs) after the next window's records; None where the log ends with them."""
        if self.ended and len(self.waiting) <= WINDOW:
            return None
        newest = self.watermark
        for _, item in zip(range(WINDOW), self.waiting, strict=False):
            if item.payment is not None:
                newest = max(newest, item.time_us)
        return newest

    def take(self, horizon: int | None) -> list[Item]:
        """The records until the watermark reaches the horizon (None: all)."""
        taken = []
        while self.waiting and (horizon is None or self.watermark < horizon):
            item = self.waiting.popleft()
            taken.append(item)
            if item.payment is not None:
                self.watermark = max(self.watermark, item.time_us)
        return taken


@dataclass(frozen=True, slots=True, eq=False)
class PastItems:
    """Payments of one writer, in the order of their places, and their features [n, F]."""

    writer: str
    items: list[Item]
    values: npt.NDArray[np.float32]


class PastRun:
    """`states` and `merged` are those before the logs, and are used up. `limits` are `WriterWindows`'."""

    def __init__(
        self, states: Mapping[str, WriterState], merged: MergedState, cursors: Mapping[str, LogCursor], *, check: Check,
        limits: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._windows = WriterWindows(states, merged, limits)
        self._cursors = cursors
        self._check = check
        self._kept: dict[str, dict[int, Item]] = {writer: {} for writer in cursors}
        self._rows = dict.fromkeys(cursors, 0)
        self.records = 0
        self.unwanted: dict[str, int] = {"repeats_and_conflicts": 0, "bad": 0, "labels": 0}
        for writer, cursor in cursors.items():
            cursor.watermark = states[writer].watermark_us

    def run(self, wanted: Callable[[Item], bool]) -> Iterator[PastItems]:
        """The wanted payments (no repeats, no conflicts), each once, those of a writer mostly in their order."""
        while True:
            for cursor in self._cursors.values():
                cursor.fill()
            horizons = [horizon for cursor in self._cursors.values() if (horizon := cursor.horizon()) is not None]
            horizon = min(horizons, default=None)
            self._take(horizon, wanted)
            yield from self._ready(horizon)
            if horizon is None:
                return

    def _take(self, horizon: int | None, wanted: Callable[[Item], bool]) -> None:
        taken = {writer: cursor.take(horizon) for writer, cursor in self._cursors.items()}
        read = any(item.payment is not None and wanted(item) for items in taken.values() for item in items)
        logs = {writer: self._log_of(writer, items, wanted) for writer, items in taken.items()}
        self._windows.take(logs, read=read)

    def _log_of(self, writer: str, items: Sequence[Item], wanted: Callable[[Item], bool]) -> WriterLog:
        state = self._windows.states[writer]
        found = entered(state, items)
        given = [item for item in items if item.payment is not None]
        new = [item for item, verdict in zip(given, found.verdicts, strict=True) if verdict == NEW]
        for row, item in enumerate(new, start=self._rows[writer]):
            if wanted(item):
                self._kept[writer][row] = item
        self._rows[writer] += len(new)
        self.records += len(items)
        self.unwanted["repeats_and_conflicts"] += len(given) - len(new)
        self.unwanted["bad"] += sum(item.bad is not None for item in items)
        self.unwanted["labels"] += len(found.labels)
        labels = [item.record.offset for item in items if item.label is not None]
        return WriterLog(
            state.rows_of(found.payments), state.label_rows_of(found.labels), found.positions,
            self._cuts(writer, items, [item.record.offset for item in new], labels),
        )  # fmt: skip

    def _cuts(
        self, writer: str, items: Sequence[Item], payments: Sequence[int], labels: Sequence[int]
    ) -> list[ClockClosing]:
        """The clock's closings before the last of these records, as counts of the records before each."""
        cuts, found = self._cursors[writer].cuts, []
        while cuts and items and cuts[0][0] <= items[-1].record.offset:
            offset, minute = cuts.popleft()
            found.append(
                ClockClosing(int(np.searchsorted(payments, offset)), int(np.searchsorted(labels, offset)), minute)
            )
        return found

    def _ready(self, horizon: int | None) -> Iterator[PastItems]:
        over = [writer for writer, cursor in self._cursors.items() if cursor.is_over]
        through = None if horizon is None else minute_read_at(horizon)
        if through is not None:
            for writer in over:
                self._check(writer, through)
        else:
            self._check_last(over)
        for writer, ready in self._windows.close(through, ended=over).items():
            kept = self._kept[writer]
            rows = sorted((row, place) for place, row in enumerate(ready.rows.tolist()) if row in kept)
            if rows:
                yield PastItems(writer, [kept.pop(row) for row, _ in rows], ready.values[[place for _, place in rows]])

    def _check_last(self, over: Sequence[str]) -> None:
        """What is left reads minutes up to that of the newest of them."""
        times = [item.time_us for kept in self._kept.values() for item in kept.values()]
        if times:
            for writer in over:
                self._check(writer, minute_read_at(max(times)))


def cursor(pages: Iterator[Sequence[Item]], cuts: Sequence[tuple[int, int]]) -> LogCursor:
    """A cursor at the beginning of what is left of a log."""
    return LogCursor(pages, deque(sorted(set(cuts))))
