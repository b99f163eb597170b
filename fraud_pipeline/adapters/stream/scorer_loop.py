"""The loop of a stream's scorer: read, decide, write and move on in one transaction; whatever fails is as if it never began.

One thread owns everything here. Knows no broker, no HTTP and no signal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from fraud_pipeline.adapters.stream.admission import Admission, Admitted, Waiting, may_close
from fraud_pipeline.adapters.stream.deciding import BatchDecider, BatchOutcome
from fraud_pipeline.adapters.stream.event_log import EventLog, LogRecord, TransactionAborted
from fraud_pipeline.adapters.stream.intake import Item, read_records
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_merged import ANY_MINUTE, MergedState, closed_at_watermark
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.minute_closing import ClosingParts
from fraud_pipeline.domain.payment_columns import warm

MAX_BATCH: Final = 2_000
"""Records of one transaction when there is a backlog: its fixed cost (about 5 ms) is then a few µs of each, and what a rollback
repeats is a tenth of a second."""
MAX_AHEAD: Final = 8
"""Batches in a row that are decided before the one before them is known to stay. Then one waits: only states with nothing open
can be kept as checkpoints and written to the state view."""
WAITING_LIMIT: Final = 4 * MAX_BATCH
"""Records of a partition that are held in memory while it waits for others; beyond it the log holds them."""
IDLE_POLL_S: Final = 0.05
"""How long an idle loop waits for a record: then it looks at others' minutes and at the clock."""
BUSY_POLL_S: Final = 0.0
NO_MODEL_POLL_S: Final = 0.5
LIVE_WITHIN: Final = 60
"""Minutes behind the clock within which a stream is live, and idle partitions' minutes end by the clock; one that replays the
past goes by the others' event times."""
log = logging.getLogger(__name__)


class Aftermath(Protocol):
    """What wants to know of committed changes: the state view's feed, the keeper of checkpoints."""

    def adopted(self, partition: int, state: WriterState) -> None: ...
    def dropped(self, partition: int) -> None: ...
    def committed(self, states: Mapping[int, WriterState], changed: Mapping[int, set[str]]) -> None: ...


@dataclass
class _Owned:
    """A partition of ours."""

    generation: int
    state: WriterState
    waiting: Waiting
    held: bool = False


@dataclass
class _Writing:
    """A batch that is decided and not known to be written."""

    admitted: Admitted
    outcome: BatchOutcome
    started: float
    future: Future[None] | None = None


class ScorerLoop:
    """`start`, then `step` again and again; an error of a step leaves nothing half done, and the process should end."""

    def __init__(
        self,
        events: EventLog,
        states: WriterStates,
        decider: BatchDecider,
        metrics: StreamMetrics,
        *,
        currency: str,
        now: Callable[[], datetime],
        admission: Admission | None = None,
        aftermath: Sequence[Aftermath] = (),
        max_batch: int = MAX_BATCH,
        executor: Executor | None = None,
    ) -> None:
        """`executor` has one thread, which writes batches; without it, a step ends when its batch is written."""
        self.merged: MergedState | None = None
        self.shared_offsets: dict[int, int] = {}
        self._events = events
        self._states = states
        self._decider = decider
        self._metrics = metrics
        self._currency = currency
        self._now = now
        self._admission = admission or Admission()
        self._aftermath = tuple(aftermath)
        self._max_batch = max_batch
        self._parts = ClosingParts()
        self._owned: dict[int, _Owned] = {}
        self._executor = executor
        self._writing: _Writing | None = None
        self._ahead = 0
        self._changed: dict[int, set[str]] = {}

    @property
    def owned(self) -> dict[int, WriterState]:
        """Our partitions' states."""
        return {partition: each.state for partition, each in self._owned.items()}

    def start(self) -> None:
        """Recover what is shared, and join."""
        self._states.check_layout()
        warm()  # before the group waits for us
        self.merged, offsets = self._states.merged()
        for partition in range(len(self._states.writers)):
            self.shared_offsets[partition] = offsets.get(partition, 0)
            self._events.shared(partition, self.shared_offsets[partition])
        self._events.start()

    def step(self) -> int:
        """One round; returns how many records were committed since the last one.

        With an executor, a batch is being written while the next one is read, and where there is a backlog, decided: if the
        first is taken back, so is the second.
        """
        started = time.perf_counter()
        waiting = any(each.waiting.items for each in self._owned.values())
        if not self._decider.has_model:
            done = self._settle() or 0
            self._hold_all()
            self._events.poll(0, NO_MODEL_POLL_S)
            self._follow_assignment()
            return done
        quiet = self._writing is None and (not waiting or self._admission.blocked_s > 0.0)
        records = self._events.poll(self._max_batch, IDLE_POLL_S if quiet else BUSY_POLL_S)
        self._metrics.stages["poll"].observe(time.perf_counter() - started)
        items = self._read(records)
        ahead = self._may_go_ahead(len(items))
        done = 0
        if not ahead:
            done = self._settle() or 0
            self._follow_assignment()
        self._hear()
        self._queue(items)
        done += self._work(ahead)
        return done if self._executor is not None else self._settle() or 0

    def finish(self) -> int:
        """End what is being written; returns how many records it committed."""
        return self._settle() or 0

    # Within a step

    def _follow_assignment(self) -> None:
        assigned = self._events.assigned()
        for partition, owned in list(self._owned.items()):
            if assigned.get(partition) != owned.generation:
                self._drop(partition)
        new = [partition for partition in assigned if partition not in self._owned]
        self._states.check_partitions(assigned)
        if new:
            self._metrics.rebalances += 1
        for partition in sorted(new):
            self._adopt(partition, assigned[partition])

    def _adopt(self, partition: int, generation: int) -> None:
        """Recover a partition's state as its group left it, and read on from there."""
        assert self.merged is not None
        started = time.perf_counter()
        until = self._events.position(partition)
        until = self._events.begins_at(partition) if until is None else until
        self._hear(end_of=partition)  # its last owner's closings are among them
        before = self._states.replayed_events
        state = self._states.recover(partition, until, self.merged)
        self._metrics.replayed_events += self._states.replayed_events - before
        self._owned[partition] = _Owned(generation, state, Waiting(state.watermark_us))
        self._events.read_from(partition, until)
        for each in self._aftermath:
            each.adopted(partition, state)
        log.info(
            "%s is ours from %d on; %d records were replayed in %.2f s", state.writer, until,
            self._states.replayed_events - before, time.perf_counter() - started,
        )  # fmt: skip

    def _drop(self, partition: int) -> None:
        owned = self._owned.pop(partition)
        self._changed.pop(partition, None)
        for each in self._aftermath:
            each.dropped(partition)
        self._metrics.lag.pop(partition, None)
        log.info("%s is not ours any more", owned.state.writer)

    def _hear(self, *, end_of: int | None = None) -> None:
        """Merge the minutes that others closed (ours are in already)."""
        assert self.merged is not None
        for message in self._events.hear(end_of=end_of):
            closing = self._parts.add(message.value)
            if closing is not None:
                self.merged.merge(closing)
                self.shared_offsets[message.partition] = message.offset + 1

    def _read(self, records: Sequence[LogRecord]) -> list[Item]:
        started = time.perf_counter()
        items = read_records(records, currency=self._currency)
        if items:
            self._metrics.stages["parse"].observe((time.perf_counter() - started) / len(items), len(items))
        return items

    def _queue(self, items: Sequence[Item]) -> None:
        for item in items:
            owned = self._owned.get(item.record.partition)
            if owned is not None:
                owned.waiting.add(item)
        for partition, owned in self._owned.items():
            too_many = len(owned.waiting.items) > WAITING_LIMIT
            if too_many != owned.held:
                owned.held = too_many
                self._events.hold(partition, too_many)

    def _hold_all(self) -> None:
        for partition, owned in self._owned.items():
            if not owned.held:
                owned.held = True
                self._events.hold(partition, True)

    def _admit(self) -> Admitted:
        assert self.merged is not None
        ours = {owned.state.writer for owned in self._owned.values()}
        others = min(
            (minute for writer, minute in self.merged.closed.items() if writer not in ours), default=ANY_MINUTE
        )
        admitted = self._admission.admit(
            {partition: owned.waiting for partition, owned in self._owned.items()},
            {partition: owned.state.closed for partition, owned in self._owned.items()},
            others=others, limit=self._max_batch, idle=self._idle_minute,
        )  # fmt: skip
        self._metrics.blocked_s = self._admission.blocked_s
        return admitted

    def _closings(self, admitted: Admitted) -> dict[int, int]:
        """Up to which minute each of our partitions closes now."""
        assert self.merged is not None
        found = {}
        for partition, owned in self._owned.items():
            state, by_clock = owned.state, self._idle_minute(partition)
            if admitted.items:
                through = may_close(owned.waiting, state.closable, admitted.through, by_clock)
            elif owned.waiting.items:  # it waits for others, and they need not wait for it
                through = min(closed_at_watermark(owned.waiting.watermark), self.merged.closable)
                through = min(through, owned.waiting.items[0].needs + 1)
            else:
                through = NEVER if by_clock is None else by_clock
            through = max(through, closed_at_watermark(_newest(state, admitted.items.get(partition, ()))))
            if through > state.closed:
                found[partition] = through
        return found

    def _idle_minute(self, partition: int) -> int | None:
        """The newest minute that the clock may close in a partition with nothing to read; None where it is not idle."""
        assert self.merged is not None
        if self._owned[partition].waiting.items or not self._events.at_end(partition):
            return None
        newest = max(self.merged.closed.values())
        coming = [closed_at_watermark(each.waiting.watermark) for each in self._owned.values()]
        newest = max([newest, *coming])
        if newest <= 0:
            return None  # nobody has begun
        now = closed_at_watermark(microseconds(self._now()))
        return min(now if now - newest < LIVE_WITHIN else newest, self.merged.closable)

    def _may_go_ahead(self, coming: int) -> bool:
        """Whether the next batch may be decided before it is known that the last one stays."""
        if self._writing is None or self._executor is None or self._ahead >= MAX_AHEAD:
            return False
        if {partition: owned.generation for partition, owned in self._owned.items()} != dict(self._events.assigned()):
            return False
        return coming + sum(len(owned.waiting.items) for owned in self._owned.values()) >= self._max_batch

    def _work(self, ahead: bool) -> int:
        """Decide what may be decided, and have it written; returns how many records of the batch before were committed."""
        assert self.merged is not None
        admitted = self._admit()
        closings = self._closings(admitted)
        if not admitted.items and not closings:
            done = self._settle() or 0
            self._tick()
            return done
        if ahead:
            self.merged.begin()
            for state in self.owned.values():
                state.begin()
        outcome = self._decider.work(admitted.items, self.owned, self.merged, closings)
        done = 0
        if ahead:
            stayed = self._settle(ahead=admitted)
            if stayed is None:
                return 0
            done = stayed
        self._ahead = self._ahead + 1 if ahead else 0
        self._metrics.decided_ahead += ahead
        self._writing = _Writing(admitted, outcome, time.perf_counter())
        if self._executor is not None:
            self._writing.future = self._executor.submit(
                # As whom we decided: by the time it is written, a partition may be another's.
                self._events.commit,
                outcome.outputs,
                outcome.positions,
                self._events.membership(),
            )
        return done

    def _settle(self, *, ahead: Admitted | None = None) -> int | None:
        """Know what became of the batch that was being written: how many records it committed; None where it was taken back.

        `ahead` is decided already, on the states that the batch left: it goes with it where that is taken back.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return 0
        assert self.merged is not None
        try:
            if writing.future is None:
                self._events.commit(writing.outcome.outputs, writing.outcome.positions)
            else:
                writing.future.result()
        except TransactionAborted as err:
            log.warning("a batch was taken back: %s", err.message)
            self._metrics.aborted += 1
            self._roll_back([writing.admitted] if ahead is None else [writing.admitted, ahead])
            return None
        self._metrics.stages["commit"].observe(time.perf_counter() - writing.started)
        states = self.owned
        for state in states.values():
            state.commit()
        self.merged.commit()
        self._count(writing.admitted, writing.outcome)
        for partition, customers in writing.outcome.changed.items():
            self._changed.setdefault(partition, set()).update(customers)
        if ahead is None:  # else the states hold what is not committed
            changed, self._changed = self._changed, {}
            for each in self._aftermath:
                each.committed(states, changed)
        return sum(map(len, writing.admitted.items.values()))

    def _roll_back(self, batches: Sequence[Admitted]) -> None:
        assert self.merged is not None
        for partition, owned in self._owned.items():
            owned.state.roll_back()
            for batch in reversed(batches):
                owned.waiting.give_back(batch.items.get(partition, []))
        self.merged.roll_back()
        self._ahead = 0

    def _count(self, admitted: Admitted, outcome: BatchOutcome) -> None:
        metrics = self._metrics
        for count in outcome.counts:
            count(metrics)
        if admitted.items:
            metrics.batches.observe(sum(map(len, admitted.items.values())))
        for partition, owned in self._owned.items():
            metrics.lag[partition] = max(0, self._events.end(partition) - owned.state.offset)

    def _tick(self) -> None:
        for each in self._aftermath:
            each.committed(self.owned, {})


def _newest(state: WriterState, items: Sequence[Item]) -> int:
    """The state's watermark once these records are in."""
    times = [item.time_us for item in items if item.payment is not None]
    return max([state.watermark_us, *times])
