"""The batch over many writers' logs in pieces, so that a log of any length is decided again in bounded memory.

As `feature_many_writers`, with the same values: own features as each piece comes, shared ones once every writer has closed
the minute that they read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_many_writers import WriterLog
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_shared_state import last_readable_minute
from fraud_pipeline.domain.feature_spec import LATE_READ_US, MINUTE_US
from fraud_pipeline.domain.feature_writer import WriterState

Ints = npt.NDArray[np.int64]

STEP: Final = LATE_READ_US // MINUTE_US // 2
"""Minutes that are closed at once and then read, each event as of its own: minutes are folded only when they are twice as old."""


@dataclass(frozen=True)
class Ready:
    """Rows of one writer, numbered from its first, and their features [n, F]."""

    rows: Ints
    values: npt.NDArray[np.float32]


@dataclass
class _Pending:
    """Rows whose shared features are still to be read, at the minutes `reads`."""

    rows: Ints
    values: npt.NDArray[np.float32]
    times: Ints
    reads: Ints
    shared: npt.NDArray[Any]

    def only(self, chosen: npt.NDArray[np.bool_]) -> _Pending:
        return _Pending(
            self.rows[chosen], self.values[chosen], self.times[chosen], self.reads[chosen], self.shared[chosen]
        )

    def and_then(self, other: _Pending) -> _Pending:
        join = np.concatenate
        return _Pending(
            join([self.rows, other.rows]), join([self.values, other.values]), join([self.times, other.times]),
            join([self.reads, other.reads]), join([self.shared, other.shared]),
        )  # fmt: skip


class WriterWindows:
    """`take` the next piece of each log, then `close` what all writers have closed by then, and so on to the end.

    The states and the merged one are those before the logs; they are advanced. `limits`: minutes after which a writer closes
    none, whatever its events would close.
    """

    def __init__(
        self, states: Mapping[str, WriterState], merged: MergedState, limits: Mapping[str, int] | None = None
    ) -> None:
        self.states = states
        self.merged = merged
        self._limits = limits or {}
        self._taken = dict.fromkeys(states, 0)
        self._pending: dict[str, _Pending] = {}

    def take(self, logs: Mapping[str, WriterLog], *, read: bool = True) -> None:
        """The next piece of some writers' logs. Without `read` its rows are counted and never ready."""
        for writer, log in logs.items():
            state, first = self.states[writer], self._taken[writer]
            values, times = _run(state, log, read=read)
            state.commit()  # there is nothing to go back to
            self._taken[writer] += len(log.events)
            if read and len(log.events):
                rows = np.arange(first, first + len(times))
                reads = last_readable_minute.py_func(times)
                piece = _Pending(rows, values, times, reads, state.slots.events(log.events))
                before = self._pending.get(writer)
                self._pending[writer] = piece if before is None else before.and_then(piece)

    def close(self, through: int | None, *, ended: Collection[str] = ()) -> dict[str, Ready]:
        """The rows that read no later than minute `through` (None: all that are left), with all their features.

        Each writer must have closed that minute by its own events, or be one of `ended`, whose log has no more.
        """
        chosen = {
            writer: pending.only(pending.reads <= through) if through is not None else pending
            for writer, pending in self._pending.items()
        }
        minutes = np.unique(np.concatenate([np.zeros(0, np.int64), *(each.reads for each in chosen.values())]))
        orders = {writer: np.argsort(each.reads, kind="stable") for writer, each in chosen.items()}
        while len(minutes):
            step = minutes[minutes < minutes[0] + STEP]
            minutes = minutes[len(step) :]
            self._close(int(step[-1]), ended if through is not None else self.states)
            for writer, each in chosen.items():
                order = orders[writer]
                first, last = np.searchsorted(each.reads[order], [step[0], step[-1] + 1])
                rows = order[first:last]
                if len(rows):
                    read = each.values[rows]
                    self.merged.read(each.shared[rows], each.times[rows], read)
                    each.values[rows] = read
        if through is not None:
            self._close(through, ended)
        self._pending = {
            writer: left
            for writer, pending in self._pending.items()
            if through is not None and len((left := pending.only(pending.reads > through)).rows)
        }
        return {writer: Ready(each.rows, each.values) for writer, each in chosen.items() if len(each.rows)}

    def _close(self, minute: int, ended: Collection[str]) -> None:
        for writer, state in self.states.items():
            closing = state.close(min(minute, self._limits.get(writer, minute)), by_clock=writer in ended)
            if closing is not None:
                self.merged.merge(closing, commit=False)
        self.merged.commit()


def _run(state: WriterState, log: WriterLog, *, read: bool) -> tuple[npt.NDArray[np.float32], Ints]:
    """Own features and reading times, with the clock's closings where they were."""
    values, times = [], []
    event = label = 0
    for closing in [*log.clock_closings, None]:
        events, labels = (closing.events, closing.labels) if closing else (len(log.events), len(log.labels))
        taken = state.take(
            log.events[event:events], log.labels[label:labels], log.positions[label:labels] - event, read=read,
            undoable=False,
        )  # fmt: skip
        values.append(taken.values)
        times.append(taken.times)
        event, label = events, labels
        if closing is not None:
            state.clock_closed(closing.through)
    return np.concatenate(values), np.concatenate(times)
