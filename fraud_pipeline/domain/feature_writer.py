"""The state of one writer: its customers' own history, the minutes it has not closed, and the ids it has decided.

A deterministic function of a prefix of the writer's log (its events, its label changes, and where the clock closed
minutes). Everything taken in since the last `commit` can be rolled back, also more than one batch. Belongs to one thread at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.event_rows import event_rows
from fraud_pipeline.domain.feature_layout import (
    CATEGORY,
    CHANNEL,
    CLOSED_THROUGH,
    COUNTRY,
    ENTITY_KINDS,
    LABEL,
    MERCHANT,
    NOTHING,
    PAIRS_USED,
    STAMP,
    grown,
)
from fraud_pipeline.domain.feature_merged import SlotTable, closed_at_watermark
from fraud_pipeline.domain.feature_spec import FEATURES, HOUR_US, MATURITY_HOURS
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.feature_writer_kernels import (
    put_back_customers,
    put_back_pairs,
    run_writer,
    save_customers,
    save_pairs,
    saved_words,
)
from fraud_pipeline.domain.minute_closing import Closing, Rows
from fraud_pipeline.domain.seen_ids import Entered, SeenIds
from fraud_pipeline.domain.transaction import LabelChange, Transaction
from fraud_pipeline.errors import StateError

Ints = npt.NDArray[np.int64]
_FIELDS: Final = ("merchant", "category", "country", "channel", "device")
_LABELLED: Final = ("merchant", "category", "country", "channel")
_EVENT_NUMBERS: Final = ("minute", "amount", "customer")
_LABEL_NUMBERS: Final = ("minute", "matured", "change")
_MAGIC: Final = b"fraud-writer-state-1\n"

OPEN: Final = np.dtype(
    [("minute", "i8"), ("amount", "i8"), ("customer", "i8"), *((name, "i4") for name in _FIELDS), ("padding", "i4")]
)
"""A payment in a minute that is not closed: `customer` is the customer's hash, the others are slots."""
OPEN_LABEL: Final = np.dtype(
    [("minute", "i8"), ("matured", "i8"), ("change", "i8"), *((name, "i4") for name in _LABELLED)]
)
"""A label change in a minute that is not closed."""


@dataclass(frozen=True)
class Taken:
    """What taking n events in found: their own features [n, F] (the shared columns are not filled) and the times (µs) as of
    which they read shared state.
    """

    values: npt.NDArray[np.float32]
    times: Ints


@dataclass
class _Undo:
    """How it was before one `take`."""

    events: npt.NDArray[Any]
    customers: npt.NDArray[np.int32]
    records: npt.NDArray[Any]
    lengths: Ints
    words: Ints
    pair_times: Ints


@dataclass
class _Mark:
    """How it was where a batch began, and what undoes the batch."""

    clock: Ints
    open_events: list[npt.NDArray[Any]]
    open_labels: list[npt.NDArray[Any]]
    closed: int
    offset: int
    undo: list[_Undo] = field(default_factory=list)
    entered: list[Entered] = field(default_factory=list)


class WriterState:
    """`offset` is the next place of the log that it has not taken in; `closed` the newest minute it has closed.

    `shared` is the state that its closings are merged into, whose slots it learns on the way.
    """

    def __init__(self, writer: str, shared: FeatureState, *, own: FeatureState | None = None) -> None:
        self.writer = writer
        self.own = FeatureState.empty(shared.time_zone) if own is None else own
        self.slots = SlotTable(self.own, shared)
        self.seen = SeenIds()
        self.offset = 0
        self.closed = closed_at_watermark(self.own.watermark_us)
        self._open_events: list[npt.NDArray[Any]] = []
        self._open_labels: list[npt.NDArray[Any]] = []
        self._batches = [self._marked()]

    @property
    def watermark_us(self) -> int:
        return self.own.watermark_us

    @property
    def closable(self) -> int:
        """The newest minute that its own events have closed."""
        return max(self.closed, closed_at_watermark(self.own.watermark_us))

    def enter(self, ids: Ints, contents: Ints, times: Ints) -> npt.NDArray[np.int8]:
        """Which of these ids (hashes) are NEW, a REPEAT or a CONFLICT, in their order; the new ones are remembered."""
        entered = self.seen.enter(ids, contents, times, self.own.watermark_us)
        self._batches[-1].entered.append(entered)
        return entered.verdicts

    def rows_of(self, transactions: Sequence[Transaction]) -> npt.NDArray[Any]:
        """Rows of EVENT, in this writer's slots."""
        return event_rows(self.own, transactions)

    def label_rows_of(self, labels: Sequence[LabelChange]) -> npt.NDArray[Any]:
        """Rows of LABEL, in this writer's slots."""
        slot = self.own.entity_slot
        rows = np.zeros(len(labels), LABEL)
        for place, label in enumerate(labels):
            rows[place] = (
                microseconds(label.known_at), microseconds(label.event_time),
                slot(MERCHANT, label.merchant_id), slot(CATEGORY, label.merchant_category),
                NOTHING if label.country is None else slot(COUNTRY, label.country), slot(CHANNEL, label.channel),
                label.change,
            )  # fmt: skip
        return rows

    def take(
        self,
        events: npt.NDArray[Any],
        labels: npt.NDArray[Any] | None = None,
        positions: Ints | None = None,
        *,
        read: bool = True,
        undoable: bool = True,
    ) -> Taken:
        """Take n events in, each label before the event at its position. Without `read`, no features are computed.

        Without `undoable` it cannot be rolled back: for a log that is replayed.
        """
        if undoable:
            self._batches[-1].undo.append(self._saved(events))
        labels = np.zeros(0, LABEL) if labels is None else labels
        positions = np.zeros(0, np.int64) if positions is None else positions
        values = np.full((len(events) if read else 0, len(FEATURES)), np.nan, np.float32)
        times, minutes = np.empty(len(events), np.int64), np.empty(len(events), np.int64)
        label_minutes = np.empty(len(labels), np.int64)
        row = label = 0
        while row < len(events) or label < len(labels):
            row, label = run_writer(
                self.own.arrays, events, labels, positions, values, times, minutes, label_minutes, row, label, len(events)
            )  # fmt: skip
            if row < len(events):
                self.own.make_room()
        self._keep_open(events, minutes, labels, label_minutes)
        return Taken(values, times)

    def close(self, through: int, *, by_clock: bool = False) -> Closing | None:
        """Close the minutes up to `through`, at the place where the log stands; None where they are closed already.

        By the clock, the state remembers it: later events of those minutes count in the oldest open one.
        """
        if through <= self.closed:
            return None
        if by_clock:
            self.own.arrays.clock[CLOSED_THROUGH] = max(int(self.own.arrays.clock[CLOSED_THROUGH]), through)
        elif through > self.closable:
            raise StateError(f"{self.writer} cannot close minute {through}: its events have closed {self.closable}.")
        counts, marks = self._contents(through)
        self.closed = through
        return Closing(self.writer, through, self.offset, by_clock, counts, marks)

    def forget_closed(self, through: int) -> None:
        """Minutes up to `through` were closed and told before: after a replay they are not told again."""
        self._contents(through)
        self.closed = max(self.closed, through)

    def clock_closed(self, through: int) -> None:
        """In a replay: here the clock closed the minutes up to `through`."""
        clock = self.own.arrays.clock
        clock[CLOSED_THROUGH] = max(int(clock[CLOSED_THROUGH]), through)

    def begin(self) -> None:
        """What comes now is a batch of its own, while it is not known whether the one before it stays."""
        self._batches.append(self._marked())

    def commit(self) -> None:
        """The oldest batch stays: all that was taken in, where there is only one."""
        self._batches.pop(0)
        if not self._batches:
            self._batches.append(self._marked())

    def roll_back(self) -> None:
        """As it was at the last commit: all batches since then go."""
        for mark in reversed(self._batches):
            self._undo(mark)
        mark, clock = self._batches[0], self.own.arrays.clock
        kept = clock[[PAIRS_USED, STAMP]]
        clock[:] = mark.clock
        clock[[PAIRS_USED, STAMP]] = kept
        self._open_events, self._open_labels = mark.open_events, mark.open_labels
        self.closed, self.offset = mark.closed, mark.offset
        self._batches = [self._marked()]

    def _undo(self, mark: _Mark) -> None:
        arrays = self.own.arrays
        for undo in reversed(mark.undo):
            need = int(arrays.allocator[0]) + 4 * len(undo.words) + 32 * len(undo.customers)
            self.own.arrays = arrays = grown(arrays, words=need)
            put_back_pairs(arrays, undo.events, undo.pair_times)
            put_back_customers(arrays, undo.customers, undo.records, undo.lengths, undo.words)
        for entered in reversed(mark.entered):
            self.seen.take_back(entered)

    def _marked(self) -> _Mark:
        return _Mark(
            self.own.arrays.clock.copy(), list(self._open_events), list(self._open_labels), self.closed, self.offset
        )

    def _saved(self, events: npt.NDArray[Any]) -> _Undo:
        arrays = self.own.arrays
        customers = np.unique(events["customer"])
        records = np.empty(len(customers), arrays.customers.dtype)
        lengths = np.empty((len(customers), 2), np.int64)
        words = np.empty(int(saved_words(arrays, customers)), np.int64)
        pair_times = np.empty(len(events), np.int64)
        save_customers(arrays, customers, records, lengths, words)
        save_pairs(arrays, events, pair_times)
        return _Undo(events, customers, records, lengths, words, pair_times)

    def _keep_open(self, events: Any, minutes: Ints, labels: Any, label_minutes: Ints) -> None:
        if len(events):
            rows = np.zeros(len(events), OPEN)
            rows["minute"], rows["amount"] = minutes, events["amount"]
            rows["customer"] = self.own.arrays.customers["hash"][events["customer"]]
            for name in _FIELDS:
                rows[name] = events[name]
            self._open_events.append(rows)
        if len(labels):
            marks = np.zeros(len(labels), OPEN_LABEL)
            marks["minute"], marks["change"] = label_minutes, labels["change"]
            marks["matured"] = labels["event_time"] // HOUR_US + MATURITY_HOURS
            for name in _LABELLED:
                marks[name] = labels[name]
            self._open_labels.append(marks[marks["change"] != 0])

    def _contents(self, through: int) -> tuple[Rows, Rows]:
        """Take out of the open minutes what is closed now, added up by entity and minute."""
        events, self._open_events = _split(self._open_events, through, OPEN)
        labels, self._open_labels = _split(self._open_labels, through, OPEN_LABEL)
        self.slots.refresh()
        return self._counts(events), self._marks(events, labels)

    def _counts(self, events: npt.NDArray[Any]) -> Rows:
        slots = np.concatenate([events[name] for name in _FIELDS]).astype(np.int64)
        minutes, amounts = np.tile(events["minute"], len(_FIELDS)), np.tile(events["amount"], len(_FIELDS))
        there = slots >= 0
        slots, minutes, amounts = slots[there], minutes[there], amounts[there]
        if not len(slots):
            return Rows.none()
        order = np.lexsort((minutes, slots))
        slots, minutes, amounts = slots[order], minutes[order], amounts[order]
        first = np.flatnonzero(np.r_[True, (slots[1:] != slots[:-1]) | (minutes[1:] != minutes[:-1])])
        counts = np.diff(np.r_[first, len(slots)])
        numbers = np.stack([minutes[first], counts, np.add.reduceat(amounts, first)], axis=1)
        return self._named(slots[first], numbers)

    def _marks(self, events: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Rows:
        used = events[events["device"] >= 0]
        devices = np.stack([used["device"], used["minute"], used["customer"], np.zeros(len(used), np.int64)], axis=1)
        found = [np.unique(devices, axis=0)] if len(devices) else []
        for name in _LABELLED:
            rows = labels[labels[name] >= 0]
            if len(rows):
                found.append(np.stack([rows[name], rows["minute"], rows["matured"], rows["change"]], axis=1))
        if not found:
            return Rows.none()
        rows = np.concatenate(found).astype(np.int64)
        return self._named(rows[:, 0], np.ascontiguousarray(rows[:, 1:]))

    def _named(self, slots: Ints, numbers: Ints) -> Rows:
        names = self.slots.names
        return Rows(self.slots.kinds[slots], [names[slot] for slot in slots.tolist()], numbers.astype(np.int64))

    def snapshot(self) -> bytes:
        """All of it, as of its last commit; StateError with changes that are not committed. Equal states, equal bytes."""
        mark = self._batches[0]
        if len(self._batches) > 1 or mark.undo or mark.entered or self.offset != mark.offset:
            raise StateError(f"The state of {self.writer} has uncommitted changes; commit or roll back first.")
        self.slots.refresh()
        events, labels = _joined(self._open_events, OPEN), _joined(self._open_labels, OPEN_LABEL)
        parts = [self.own.snapshot(), self.seen.rows(self.own.watermark_us).tobytes()]
        parts += [np.ascontiguousarray(events[name]).tobytes() for name in _EVENT_NUMBERS]
        parts += [np.ascontiguousarray(labels[name]).tobytes() for name in _LABEL_NUMBERS]
        header = {
            "writer": self.writer,
            "offset": self.offset,
            "closed": self.closed,
            "sizes": [len(part) for part in parts],
            "events": [self._names_of(events[name]) for name in _FIELDS],
            "labels": [self._names_of(labels[name]) for name in _LABELLED],
        }
        text = json.dumps(header, sort_keys=True).encode()
        content = len(text).to_bytes(8, "little") + text + b"".join(parts)
        return _MAGIC + hashlib.sha256(content).digest() + content

    @classmethod
    def restore(cls, snapshot: bytes, shared: FeatureState) -> WriterState:
        """The reverse of `snapshot`; StateError where the bytes are not whole or of another schema."""
        digest, content = snapshot[len(_MAGIC) : len(_MAGIC) + 32], snapshot[len(_MAGIC) + 32 :]
        if not snapshot.startswith(_MAGIC) or hashlib.sha256(content).digest() != digest:
            raise StateError("These bytes are not a whole snapshot of a writer's state.", remedy="Take an older one.")
        size = int.from_bytes(content[:8], "little")
        header, at, parts = json.loads(content[8 : 8 + size]), 8 + size, []
        for length in header["sizes"]:
            parts.append(content[at : at + length])
            at += length
        state = cls(header["writer"], shared, own=FeatureState.restore(parts[0]))
        state.seen = SeenIds.of_rows(np.frombuffer(parts[1], np.int64).reshape(-1, 3).copy())
        state.offset, state.closed = header["offset"], header["closed"]
        numbers = [np.frombuffer(part, np.int64) for part in parts[2:]]
        events = state._open_rows(OPEN, _EVENT_NUMBERS, numbers[:3], _FIELDS, header["events"])
        labels = state._open_rows(OPEN_LABEL, _LABEL_NUMBERS, numbers[3:], _LABELLED, header["labels"])
        state._open_events, state._open_labels = [events], [labels]
        state.commit()
        return state

    def _names_of(self, slots: npt.NDArray[np.int32]) -> list[str | None]:
        names = self.slots.names
        return [names[slot] if slot >= 0 else None for slot in slots.tolist()]

    def _open_rows(
        self,
        dtype: Any,
        numbers: Sequence[str],
        values: list[Any],
        fields: Sequence[str],
        names: list[list[str | None]],
    ) -> npt.NDArray[Any]:
        rows = np.zeros(len(values[0]), dtype)
        for name, value in zip(numbers, values, strict=True):
            rows[name] = value
        slot = self.own.entity_slot
        for name, found in zip(fields, names, strict=True):
            kind = ENTITY_KINDS.index(name)
            rows[name] = [NOTHING if each is None else slot(kind, each) for each in found]
        return rows


def _joined(pieces: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype)


def _split(pieces: list[npt.NDArray[Any]], through: int, dtype: Any) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
    """The rows of minutes up to `through`, and the others; the pieces themselves are not changed."""
    rows = _joined(pieces, dtype)
    closed = rows["minute"] <= through
    return rows[closed], [rows[~closed]] if not closed.all() else []
