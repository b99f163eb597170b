"""The batch executor over the logs of many writers: what scorers must have computed, however their partitions raced.

Each log is run through its writer's state in its order; then shared minutes are merged in the order of time, and each
event reads them as of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import EVENT, LABEL
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_portions import own_portion
from fraud_pipeline.domain.feature_shared_state import last_readable_minute
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.transaction import LabelChange, Transaction

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClockClosing:
    """After so many events and labels of a writer's log, the clock closed the minutes up to `through`."""

    events: int
    labels: int
    through: int


@dataclass(frozen=True)
class WriterLog:
    """One writer's log in its own slots: `events` (EVENT) [n], `labels` (LABEL) in log order, each before the event at its
    position, and where the clock closed minutes.
    """

    events: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, EVENT))
    labels: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, LABEL))
    positions: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    clock_closings: Sequence[ClockClosing] = ()


def compute_features_of_writers(
    states: Mapping[str, WriterState], merged: MergedState, logs: Mapping[str, WriterLog]
) -> dict[str, npt.NDArray[np.float32]]:
    """Features [n, F] of each writer's events. The states are those before the logs; they are advanced beyond use."""
    values: dict[str, npt.NDArray[np.float32]] = {}
    times: dict[str, Ints] = {}
    for writer, log in logs.items():
        values[writer], times[writer] = _run(states[writer], log)
    shared = {writer: states[writer].slots.events(log.events) for writer, log in logs.items()}
    # Every minute that any event reads, from the oldest on; and, writer by writer, the rows that read it.
    reads = {writer: last_readable_minute.py_func(time) for writer, time in times.items()}
    orders = {writer: np.argsort(minutes, kind="stable") for writer, minutes in reads.items()}
    for minute in np.unique(np.concatenate([*reads.values(), np.zeros(0, np.int64)])).tolist():
        for state in states.values():
            closing = state.close(minute, by_clock=True)
            if closing is not None:
                merged.merge(closing, commit=False)
        merged.commit()
        for writer, order in orders.items():
            first, last = np.searchsorted(reads[writer][order], [minute, minute + 1])
            rows = order[first:last]
            if len(rows):
                read = values[writer][rows]
                merged.read(shared[writer][rows], times[writer][rows], read)
                values[writer][rows] = read
    return values


def _run(state: WriterState, log: WriterLog) -> tuple[npt.NDArray[np.float32], Ints]:
    """Own features and reading times, with the clock's closings where they were."""
    values, times = [], []
    event = label = 0
    for closing in [*log.clock_closings, None]:
        events, labels = (closing.events, closing.labels) if closing else (len(log.events), len(log.labels))
        taken = state.take(
            log.events[event:events], log.labels[label:labels], log.positions[label:labels] - event, undoable=False
        )
        values.append(taken.values)
        times.append(taken.times)
        event, label = events, labels
        if closing is not None:
            state.clock_closed(closing.through)
    return np.concatenate(values), np.concatenate(times)


def warm() -> None:
    """Compile (or load) all kernels of writers and of merged state with one made-up event, label and rollback."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    merged = MergedState(["warm"])
    state = WriterState("warm", merged.state)
    payment = Transaction("warm", moment, "warm", "warm", 100, device_id="warm")
    label = LabelChange("warm", 1, moment, moment, "warm", "warm")
    for _ in range(2):
        state.enter(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
        events = state.rows_of([payment])
        taken = state.take(events, state.label_rows_of([label]), np.ones(1, np.int64))
        closing = state.close(state.closable + 10, by_clock=True)
        assert closing is not None
        merged.merge(closing, commit=False)
        merged.read(state.slots.events(events), taken.times, taken.values)
        state.roll_back()
        merged.roll_back()
    shared = MergedState.restore(merged.snapshot({}))[0].state
    own_portion(WriterState.restore(state.snapshot(), shared).own, lambda _: True)
