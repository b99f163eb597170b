"""The shared state of all writers: minutes that each of them closed, merged. Read by scorers and by REST replicas.

A value as of minute m is exact once every writer has closed m. Belongs to one thread at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import (
    CATEGORY,
    CHANNEL,
    COUNTRY,
    DEVICE,
    ENTITY_KINDS,
    EVENT,
    MERCHANT,
    NEVER,
    NOTHING,
    WATERMARK,
)
from fraud_pipeline.domain.feature_shared_state import last_readable_minute
from fraud_pipeline.domain.feature_spec import CLOSE_AFTER_US, FEATURES, LATE_READ_US, MINUTE_US, READ_AFTER_US
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.feature_writer_kernels import (
    merge_counts,
    merge_marks,
    read_shared_rows,
    take_back_counts,
    take_back_marks,
)
from fraud_pipeline.domain.minute_closing import Closing, Rows
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError

Ints = npt.NDArray[np.int64]

CLOSE_STEP: Final = 6 * 60
"""How many minutes past the slowest writer one may close without an event of its own: a gap of days in a replay is crossed
in steps that all take together, and nobody's minutes are folded before the others have read them."""
MAX_FOLD_LAG: Final = 4 * CLOSE_STEP
"""Minutes that are kept apart for a writer that lags behind the others. One that lags more reads folded, later values, and
says so; else a writer that never comes back would have every minute of every merchant kept for ever."""
MAX_CLOCK_CLOSINGS: Final = 5_000
"""A log with pauses of a minute has as many in 3 days; a checkpoint that is older than that is not replayed from."""
ANY_MINUTE: Final = 2**62
_MAGIC: Final = b"fraud-merged-state-1\n"
_ENTITY_FIELDS: Final = ("merchant", "category", "country", "channel", "device")


@dataclass
class _Merged:
    """A closing that may still be taken back."""

    writer: str
    before: int
    through: int
    clock_before: list[tuple[int, int]]
    counts: Ints
    marks: Ints
    added: npt.NDArray[np.bool_]


class MergedState:
    """`writers` are all there are: a minute is readable when each of them has closed it."""

    def __init__(self, writers: Iterable[str], *, time_zone: str = "UTC", base: FeatureState | None = None) -> None:
        """From nothing, or from the shared part of a history (`feature_portions.shared_portion`), closed to its end."""
        self.state = FeatureState.empty(time_zone) if base is None else base
        through = closed_at_watermark(self.state.watermark_us)
        self.closed: dict[str, int] = dict.fromkeys(writers, through)
        self.folded = NEVER
        self.clock_closings: dict[str, list[tuple[int, int]]] = {writer: [] for writer in self.closed}
        """Where each writer's clock closed minutes, (offset, minute): a replay of its log closes them there again."""
        self._settled = dict(self.closed)
        self._origin = 0
        self._batches: list[list[_Merged]] = [[]]

    @property
    def readable(self) -> int:
        """The newest minute that every writer has closed."""
        return min(self.closed.values(), default=NEVER)

    @property
    def closable(self) -> int:
        """The newest minute that a writer may close for no event of its own (idle, or waiting for others)."""
        slowest = min(self.closed.values(), default=0)
        if slowest <= 0:  # one has not begun: the others wait for it near where the first began
            return self._origin + CLOSE_STEP if self._origin else ANY_MINUTE
        return slowest + CLOSE_STEP

    def merge(self, closing: Closing, *, commit: bool = True) -> bool:
        """Take a closing in; False for one that is in already. Without `commit` it belongs to the batch and can be taken back.

        StateError for a writer that is not one of ours.
        """
        before = self.closed.get(closing.writer)
        if before is None:
            raise StateError(
                f"{closing.writer} closed a minute, and the writers are {', '.join(sorted(self.closed))}.",
                remedy="Has the number of partitions changed? `fraud state repartition` makes the state anew.",
            )
        if closing.through <= before:
            return False
        counts, marks = self._slots(closing.counts), self._slots(closing.marks)
        added = np.zeros(len(marks), bool)
        watermark = self._fold_watermark()
        self._to_the_end(merge_counts, counts, closing.counts.kinds, watermark)
        self._to_the_end(merge_marks, marks, closing.marks.kinds, watermark, added)
        self.closed[closing.writer] = closing.through
        self._origin = self._origin or closing.through
        merged = _Merged(closing.writer, before, closing.through, self._note_clock(closing), counts, marks, added)
        if commit:
            self._settle([merged])
        else:
            self._batches[-1].append(merged)
        return True

    def begin(self) -> None:
        """What comes now is a batch of its own, while it is not known whether the one before it stays."""
        self._batches.append([])

    def commit(self) -> None:
        """What the oldest batch merged stays."""
        self._settle(self._batches.pop(0))
        if not self._batches:
            self._batches.append([])

    def roll_back(self) -> None:
        """Take back what batches merged since the last commit."""
        for merged in reversed([each for batch in self._batches for each in batch]):
            take_back_marks(self.state.arrays, merged.marks, merged.added)
            take_back_counts(self.state.arrays, merged.counts)
            self.closed[merged.writer] = merged.before
            self.clock_closings[merged.writer] = merged.clock_before
        self._batches = [[]]

    def _settle(self, stay: Sequence[_Merged]) -> None:
        clock = self.state.arrays.clock
        for merged in stay:
            self._settled[merged.writer] = merged.through
            clock[WATERMARK] = max(int(clock[WATERMARK]), (merged.through + 1) * MINUTE_US)

    def events_of(self, transactions: Sequence[Transaction]) -> npt.NDArray[Any]:
        """Rows of EVENT as `read` wants them."""
        rows = np.zeros(len(transactions), EVENT)
        slot = self.state.entity_slot
        rows["time"] = [microseconds(each.event_time) for each in transactions]
        rows["amount"] = [each.amount_minor for each in transactions]
        rows["merchant"] = [slot(MERCHANT, each.merchant_id) for each in transactions]
        rows["category"] = [slot(CATEGORY, each.merchant_category) for each in transactions]
        rows["country"] = [NOTHING if t.country is None else slot(COUNTRY, t.country) for t in transactions]
        rows["channel"] = [slot(CHANNEL, each.channel) for each in transactions]
        rows["device"] = [NOTHING if t.device_id is None else slot(DEVICE, t.device_id) for t in transactions]
        return rows

    def read(self, events: npt.NDArray[Any], times: Ints, out: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Write the shared features of each event as of its time (µs) into its row of `out` [n, F].

        Returns which of them are exact: all minutes they read are closed by every writer, and none is folded away.
        """
        read_shared_rows(self.state.arrays, events, times, out)
        minutes = (times - READ_AFTER_US) // MINUTE_US - 1
        exact: npt.NDArray[np.bool_] = (minutes <= self.readable) & (minutes >= self.folded)
        return exact

    def features(self, transactions: Sequence[Transaction], times: Ints) -> tuple[npt.NDArray[np.float32], Any]:
        """`read` for those who hold no rows: [n, F] with the shared columns filled, and which are exact."""
        out = np.full((len(transactions), len(FEATURES)), np.nan, np.float32)
        return out, self.read(self.events_of(transactions), times, out)

    def snapshot(self, offsets: dict[int, int]) -> bytes:
        """All that is committed, with the place in each partition of the log of closings that it stands at."""
        if len(self._batches) > 1 or self._batches[0]:
            raise StateError("A state with uncommitted minutes was to be kept; commit or roll back first.")
        header = json.dumps(
            {
                "closed": self.closed,
                "folded": self.folded,
                "origin": self._origin,
                "clock_closings": self.clock_closings,
                "offsets": {str(partition): offset for partition, offset in sorted(offsets.items())},
            },
            sort_keys=True,
        ).encode()
        return _MAGIC + len(header).to_bytes(8, "little") + header + self.state.snapshot()

    @classmethod
    def restore(cls, content: bytes) -> tuple[MergedState, dict[int, int]]:
        """The reverse of `snapshot`; StateError where the bytes are not whole or of another schema."""
        if not content.startswith(_MAGIC):
            raise StateError("These bytes are not a snapshot of shared state.", remedy="Take an older checkpoint.")
        size = int.from_bytes(content[len(_MAGIC) : len(_MAGIC) + 8], "little")
        at = len(_MAGIC) + 8
        state = FeatureState.restore(content[at + size :])
        header = json.loads(content[at : at + size])
        merged = cls(header["closed"], time_zone=state.time_zone, base=state)
        merged.closed, merged.folded, merged._origin = dict(header["closed"]), header["folded"], header["origin"]
        merged._settled = dict(merged.closed)
        merged.clock_closings = {
            writer: [(offset, minute) for offset, minute in found] for writer, found in header["clock_closings"].items()
        }
        return merged, {int(partition): offset for partition, offset in header["offsets"].items()}

    def _note_clock(self, closing: Closing) -> list[tuple[int, int]]:
        """Remember where the clock closed; returns what was remembered before."""
        known = self.clock_closings[closing.writer]
        if closing.by_clock:
            earlier = known[:-1] if known and known[-1][0] == closing.offset else known
            self.clock_closings[closing.writer] = [*earlier[-MAX_CLOCK_CLOSINGS:], (closing.offset, closing.through)]
        return known

    def _fold_watermark(self) -> int:
        """As of when minutes may be folded into hours: no writer, unless it lags far, still reads them one by one."""
        slowest, fastest = min(self._settled.values()), max(self._settled.values())
        through = max(slowest, fastest - MAX_FOLD_LAG)
        if through <= 0:
            return NEVER
        watermark = (through + 1) * MINUTE_US + CLOSE_AFTER_US
        self.folded = max(self.folded, int(last_readable_minute(watermark - LATE_READ_US)))
        return watermark

    def _slots(self, rows: Rows) -> Ints:
        found = np.empty((len(rows), 4), np.int64)
        slot = self.state.entity_slot
        found[:, 0] = [slot(kind, identity) for kind, identity in zip(rows.kinds.tolist(), rows.ids, strict=True)]
        found[:, 1:] = rows.numbers
        return found

    def _to_the_end(self, kernel: Any, rows: Ints, *rest: Any) -> None:
        start = 0
        while start < len(rows):
            start = kernel(self.state.arrays, rows, *rest, start)
            if start < len(rows):
                self.state.make_room()


class SlotTable:
    """Which slot of the shared state each entity slot of a writer's own state is: ids are looked up once, not per event."""

    def __init__(self, own: FeatureState, merged: FeatureState) -> None:
        self.names: list[str] = []
        self.kinds = np.zeros(64, np.int64)
        self._own = own
        self._merged = merged
        self._known = [0] * len(ENTITY_KINDS)
        self._table = np.full(64, NOTHING, np.int32)

    def events(self, events: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same events in the shared state's slots (their customers are not there)."""
        self.refresh()
        renamed = events.copy()
        renamed["customer"] = 0
        for name in _ENTITY_FIELDS:
            renamed[name] = self._table[events[name]]  # the table's last place answers for "none", which is -1
        return renamed

    def refresh(self) -> None:
        """Learn the entities that are new."""
        counts = [len(slots) for slots in self._own.entities]
        if counts == self._known:
            return
        total = sum(counts)
        if total >= len(self._table):
            table = np.full(2 * total, NOTHING, np.int32)
            kinds = np.zeros(2 * total, np.int64)
            table[: len(self._table)], kinds[: len(self.kinds)] = self._table, self.kinds
            self._table, self.kinds = table, kinds
        self.names.extend([""] * (total - len(self.names)))
        for kind, slots in enumerate(self._own.entities):
            for name, slot in islice(reversed(slots.items()), counts[kind] - self._known[kind]):
                self._table[slot] = self._merged.entity_slot(kind, name)
                self.names[slot], self.kinds[slot] = name, kind
        self._known = counts


def closed_at_watermark(watermark_us: int) -> int:
    """The newest minute that a writer with this watermark has closed."""
    if watermark_us == NEVER:
        return 0
    return (watermark_us - CLOSE_AFTER_US) // MINUTE_US - 1
