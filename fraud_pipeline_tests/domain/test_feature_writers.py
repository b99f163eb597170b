"""A log split among writers: batch against the oracle, and scorers that race, fail and restart against the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_many_writers import ClockClosing, WriterLog, compute_features_of_writers
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_portions import own_portion, shared_portion
from fraud_pipeline.domain.feature_shared_state import last_readable_minute
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, PRIOR_RATE, PRIOR_STRENGTH
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.minute_closing import Closing, ClosingParts
from fraud_pipeline.errors import StateError
from fraud_pipeline_tests.domain.histories import (
    START,
    History,
    apply_online,
    difference,
    event_columns,
    histories,
    label_change_of,
    transaction_of,
)
from fraud_pipeline_tests.domain.oracle import (
    HOUR,
    MINUTE,
    SECOND,
    Applied,
    Change,
    Payment,
    apply_log,
    features_of,
    view_of,
)

WRITERS = ("t[0]", "t[1]", "t[2]")
Log = list[Payment | Change | int]
random_histories = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@st.composite
def split_logs(draw: st.DrawFn, *, clock: bool = True) -> dict[str, Log]:
    """A history with each customer at one writer, labels at any, and clocks that close minutes where they like."""
    history = draw(histories(served=True))
    logs: dict[str, Log] = {writer: [] for writer in WRITERS}
    for entry in history.log:
        owner = "abc".index(entry.customer) if isinstance(entry, Payment) else draw(st.integers(0, 2))
        logs[WRITERS[owner]].append(entry)
    if clock and draw(st.booleans()):
        for log in logs.values():
            times = [entry.time for entry in log if isinstance(entry, Payment)]
            if draw(st.booleans()) and times:
                minute = draw(st.sampled_from(times)) // MINUTE + draw(st.integers(-2, 200))
                log.insert(draw(st.integers(0, len(log))), minute)
    return logs


def expected(logs: dict[str, Log]) -> dict[str, NDArray[np.float32]]:
    """By the oracle."""
    applied = {writer: apply_log(log) for writer, log in logs.items()}
    everyone = [entry for entries in applied.values() for entry in entries]
    found = {}
    for writer, entries in applied.items():
        rows = []
        for place, entry in enumerate(entries):
            if isinstance(entry, Applied):
                view = view_of(
                    entries[:place], entry.payment, everyone=everyone, prior_strength=PRIOR_STRENGTH, prior_rate=PRIOR_RATE
                )  # fmt: skip
                values = features_of(view)
                rows.append([values[name] for name in FEATURE_NAMES])
        found[writer] = np.array(rows, np.float32).reshape(len(rows), len(FEATURE_NAMES))
    return found


def columns(log: Sequence[Payment | Change | int], state: WriterState) -> WriterLog:
    """A log as the batch executor takes it."""
    payments = [entry for entry in log if isinstance(entry, Payment)]
    changes = [entry for entry in log if isinstance(entry, Change)]
    positions, closings, before, labels = [], [], 0, 0
    for entry in log:
        if isinstance(entry, Payment):
            before += 1
        elif isinstance(entry, Change):
            positions.append(before)
            labels += 1
        else:
            closings.append(ClockClosing(before, labels, entry))
    return WriterLog(
        state.rows_of([transaction_of(each, 0) for each in payments]),
        state.label_rows_of([label_change_of(each) for each in changes]),
        np.array(positions, np.int64),
        closings,
    )


def batch(logs: dict[str, Log], first_minute: int | None = None) -> dict[str, NDArray[np.float32]]:
    merged = MergedState(WRITERS)
    states = {writer: WriterState(writer, merged.state) for writer in WRITERS}
    for state in states.values():
        if first_minute is not None:
            state.clock_closed(first_minute - 3)
    return compute_features_of_writers(states, merged, {w: columns(logs[w], states[w]) for w in WRITERS})


@random_histories
@given(split_logs())
def test_the_batch_over_many_writers_equals_the_oracle(logs: dict[str, Log]) -> None:
    computed, wanted = batch(logs), expected(logs)
    for writer in WRITERS:
        assert difference(computed[writer], wanted[writer]) == ""


@random_histories
@given(histories(served=True))
def test_one_writer_alone_computes_what_the_embedded_state_does(history: History) -> None:
    merged = MergedState(["local"])
    state = WriterState("local", merged.state)
    found = compute_features_of_writers({"local": state}, merged, {"local": columns(history.log, state)})["local"]
    embedded = compute_features(event_columns(history.payments), history.labels).values
    np.testing.assert_array_equal(found.view(np.uint32), embedded.view(np.uint32))


@dataclass
class Process:
    """A scorer without Kafka: some writers' states, the shared state, and closings that it has not heard of yet."""

    writers: dict[str, WriterState]
    merged: MergedState
    inbox: list[Closing] = field(default_factory=list)

    def hear(self) -> None:
        for closing in self.inbox:
            self.merged.merge(closing)
        self.inbox.clear()

    def _all(self) -> list[MergedState | WriterState]:
        return [self.merged, *self.writers.values()]

    def begin(self) -> None:
        for each in self._all():
            each.begin()

    def commit(self) -> None:
        for each in self._all():
            each.commit()

    def roll_back(self) -> None:
        for each in self._all():
            each.roll_back()

    def said(self, log: Log) -> list[object]:
        """All that tells two such processes apart: states, what is closed, and what the log's payments would read."""
        payments = [transaction_of(entry, 0) for entry in log if isinstance(entry, Payment)]
        newest = max([entry.time for entry in log if isinstance(entry, Payment)], default=START)
        shared, _ = self.merged.features(payments, np.full(len(payments), newest, np.int64))
        facts = [self.merged.closed, self.merged.clock_closings, shared.tobytes()]
        return [*facts, *(state.snapshot() for state in self.writers.values())]

    def restarted(self) -> Process:
        """From snapshots of everything, as after a crash."""
        merged, offsets = MergedState.restore(self.merged.snapshot({0: 7}))
        assert offsets == {0: 7}
        writers = {name: WriterState.restore(state.snapshot(), merged.state) for name, state in self.writers.items()}
        for name, state in writers.items():
            assert state.snapshot() == self.writers[name].snapshot()
        return Process(writers, merged, self.inbox)


def started(names: Sequence[str], first_minute: int) -> Process:
    """All writers have closed what lies before the first event."""
    merged = MergedState(WRITERS)
    for writer in WRITERS:
        merged.merge(Closing(writer, first_minute - 3, 0, by_clock=True))
    writers = {name: WriterState(name, merged.state) for name in names}
    for state in writers.values():
        state.close(first_minute - 3, by_clock=True)
        state.commit()
    return Process(writers, merged)


def first_minute(logs: dict[str, Log]) -> int:
    times = [entry.time for log in logs.values() for entry in log if isinstance(entry, Payment)]
    return min(times, default=START) // MINUTE


def wanted_minute(log: Log, start: int, stop: int, watermark: int) -> int:
    """The newest minute that an event of this chunk may read."""
    times = [entry.time for entry in log[start:stop] if isinstance(entry, Payment)]
    return int(last_readable_minute.py_func(max([*times, watermark])))


def raced(logs: dict[str, Log], chances: st.DataObject) -> dict[str, NDArray[np.float32]]:
    """Two scorers in small batches: some are rolled back, some scorers restart; none reads what it may not read yet."""
    processes = [started(WRITERS[:1], first_minute(logs)), started(WRITERS[1:], first_minute(logs))]
    values: dict[str, list[NDArray[np.float32]]] = {writer: [] for writer in WRITERS}
    at = dict.fromkeys(WRITERS, 0)
    while any(at[writer] < len(logs[writer]) for writer in WRITERS):
        for place, writer in ((0, WRITERS[0]), (1, WRITERS[1]), (1, WRITERS[2])):
            processes[place].hear()
            before = at[writer]
            step(processes[place], processes[1 - place], writer, logs[writer], at, values, chances)
            if at[writer] > before and chances.draw(st.integers(0, 9)) == 9:
                processes[place] = processes[place].restarted()
    return {w: np.concatenate([*v, np.empty((0, len(FEATURE_NAMES)), np.float32)]) for w, v in values.items()}


def step(
    process: Process, other: Process, writer: str, log: Log, at: dict[str, int],
    values: dict[str, list[NDArray[np.float32]]], chances: st.DataObject,
) -> None:  # fmt: skip
    """One batch of one writer, as long as what it reads is closed by the others; or else what its clock may close."""
    state, merged = process.writers[writer], process.merged
    if at[writer] == len(log):  # idle: as the clock goes on, so do its minutes
        publish(process, other, state.close(min(max(merged.closed.values()), merged.closable), by_clock=True))
        return
    if isinstance(log[at[writer]], int):
        publish(process, other, state.close(int(log[at[writer]]), by_clock=True))  # type: ignore[arg-type]
        at[writer] += 1
        return
    stop = at[writer] + chances.draw(st.integers(1, 5))
    stop = min([stop, len(log), *(i for i in range(at[writer], stop) if i < len(log) and isinstance(log[i], int))])
    while stop > at[writer]:
        needed = wanted_minute(log, at[writer], stop, state.watermark_us)
        if all(merged.closed[each] >= needed for each in WRITERS if each != writer):
            break
        stop -= 1
    if (
        stop == at[writer]
    ):  # it waits for others; they must not wait for it: what its next event closes is closed already
        first = log[at[writer]]
        if isinstance(first, Payment):
            through = min((first.time - 60 * SECOND) // MINUTE - 1, merged.closable)
            publish(process, other, state.close(through, by_clock=True))
        return
    batch_of = columns(log[at[writer] : stop], state)
    for attempt in range(2):
        taken = state.take(batch_of.events, batch_of.labels, batch_of.positions)
        state.offset = stop
        closing = state.close(state.closable)
        if closing is not None:
            merged.merge(closing, commit=False)
        exact = merged.read(state.slots.events(batch_of.events), taken.times, taken.values)
        assert exact.all()
        if attempt == 0 and chances.draw(st.integers(0, 3)) == 3:
            state.roll_back()
            merged.roll_back()
            continue
        state.commit()
        merged.commit()
        break
    values[writer].append(taken.values)
    at[writer] = stop
    if closing is not None:
        send(other, closing)


def publish(process: Process, other: Process, closing: Closing | None) -> None:
    """A closing that comes with no event."""
    if closing is not None:
        process.merged.merge(closing)
        send(other, closing)
        for state in process.writers.values():
            state.commit()


def send(other: Process, closing: Closing) -> None:
    parts = ClosingParts()
    received = [found for message in closing.parts() if (found := parts.add(message)) is not None]
    assert len(received) == 1
    other.inbox.append(received[0])


@settings(random_histories, max_examples=40)
@given(split_logs(clock=False), st.data())
def test_scorers_that_race_fail_and_restart_compute_what_the_batch_does(
    logs: dict[str, Log], chances: st.DataObject
) -> None:
    found, wanted = raced(logs, chances), batch(logs, first_minute(logs))
    for writer in WRITERS:
        np.testing.assert_array_equal(found[writer].view(np.uint32), wanted[writer].view(np.uint32))


@settings(random_histories, max_examples=60)
@given(split_logs(clock=False), st.integers(0, 10), st.integers(0, 10), st.booleans())
def test_a_second_batch_goes_with_the_first_or_alone(
    logs: dict[str, Log], first: int, second: int, first_stays: bool
) -> None:
    log = logs[WRITERS[0]]
    process, only_the_first = started(WRITERS, first_minute(logs)), started(WRITERS, first_minute(logs))
    before = process.said(log)
    took(process, log[:first], first)
    process.begin()
    took(process, log[first : first + second], first + second)
    if first_stays:
        process.commit()
        took(only_the_first, log[:first], first)
        only_the_first.commit()
        before = only_the_first.said(log)
    process.roll_back()
    assert process.said(log) == before


def took(process: Process, log: Log, offset: int) -> None:
    """One batch of the first writer, with its closing."""
    state = process.writers[WRITERS[0]]
    batch_of = columns(log, state)
    hashes = np.arange(len(batch_of.events)) + 1_000 * offset
    state.enter(hashes, hashes, batch_of.events["time"].astype(np.int64))
    state.take(batch_of.events, batch_of.labels, batch_of.positions)
    state.offset = offset
    closing = state.close(state.closable)
    if closing is not None:
        process.merged.merge(closing, commit=False)


def test_a_history_is_divided_among_the_writers_that_continue_it() -> None:
    history = [
        Payment(START + i * 7 * MINUTE, "abc"[i % 3], f"m{i % 4}", 100 + i, device=f"d{i % 2}") for i in range(600)
    ]
    coming = [Payment(START + (600 + i) * 7 * MINUTE, "abc"[i % 3], f"m{i % 5}", 50 + i) for i in range(60)]
    base = FeatureState.empty()
    apply_online(base, [*history, Change(START + 3 * HOUR, START, merchant="m1")])
    wanted = apply_online(FeatureState.restore(base.snapshot()), coming)

    merged = MergedState(WRITERS, base=shared_portion(base))
    states = {
        writer: WriterState(writer, merged.state, own=own_portion(base, lambda c, n=number: "abc".index(c) == n))  # type: ignore[misc]
        for number, writer in enumerate(WRITERS)
    }
    assert [list(state.own.customers) for state in states.values()] == [["a"], ["b"], ["c"]]
    logs: dict[str, Log] = {w: [p for p in coming if "abc".index(p.customer) == n] for n, w in enumerate(WRITERS)}
    found = compute_features_of_writers(states, merged, {w: columns(logs[w], states[w]) for w in WRITERS})
    for number, writer in enumerate(WRITERS):
        np.testing.assert_array_equal(found[writer].view(np.uint32), wanted[number::3].view(np.uint32))


def test_a_closing_of_an_unknown_writer_is_refused() -> None:
    with pytest.raises(StateError, match=r"t\[9\] closed a minute, and the writers are t\[0\]"):
        MergedState(WRITERS).merge(Closing("t[9]", 5, 0, by_clock=True))


def test_a_part_out_of_turn_is_refused() -> None:
    part = next(Closing("t[0]", 5, 0, by_clock=True).parts())
    with pytest.raises(StateError, match="Part 2 of 3"):
        ClosingParts().add({**part, "part": 2, "parts": 3})
