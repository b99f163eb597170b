"""The states of a stream's writers, recovered and kept: the newest checkpoint, then the log after it, without deciding.

A writer's state is a function of its log's prefix and of the history before it, and a checkpoint is named by both: whoever
makes one makes the same, and the newest whole one is the best.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.stream.event_log import EventLog
from fraud_pipeline.adapters.stream.intake import Item, read_records
from fraud_pipeline.adapters.stream.portion import Portion, portion_of, portion_of_items, take_in_portion
from fraud_pipeline.adapters.stream.stream_checkpoints import SHARED, History, StreamCheckpoints
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.seen_ids import NEW
from fraud_pipeline.domain.transaction import LabelChange, Transaction
from fraud_pipeline.errors import StateError

CHECKPOINTS_KEPT: Final = 3
"""The newest, and two before it should it be damaged, or be ahead of what its group has committed."""
log = logging.getLogger(__name__)


class RawRows(Protocol):
    """The ledger's copy of the log, for what the log holds no more."""

    def items(self, writer: str, first: int, until: int) -> Iterator[list[Item]]:
        """What the records at [first, until) say, without those that say nothing. StateError for a gap."""

    def clock_closings(self, writer: str, first: int, until: int) -> list[tuple[int, int]]:
        """Where in [first, until] the writer's clock closed minutes: (offset, minute)."""


class WriterStates:
    """States of one topic with so many partitions."""

    def __init__(
        self,
        checkpoints: CheckpointStore,
        events: EventLog,
        history: History,
        *,
        partitions: int,
        currency: str,
        time_zone: str,
        raw: RawRows | None = None,
    ) -> None:
        self.kept = StreamCheckpoints(checkpoints, events.topic, history, partitions=partitions, time_zone=time_zone)
        self.writers = self.kept.writers
        self.replayed_events = 0
        self._checkpoints = checkpoints
        self._events = events
        self._currency = currency
        self._raw = raw

    def check_layout(self) -> None:
        """StateError where states were kept for another number of partitions, and none for this one."""
        self.kept.check_layout()

    def check_partitions(self, assigned: Iterable[int]) -> None:
        """StateError where a partition was added since the scorer started."""
        if max(assigned, default=0) >= len(self.writers):
            raise StateError(
                f"{self._events.topic} has got more than its {len(self.writers)} partitions: customers have moved to others.",
                remedy="Stop all scorers and run `fraud state repartition`; then start them again.",
            )

    def merged(self) -> tuple[MergedState, dict[int, int]]:
        """The newest kept shared state and the places in `shared-state` that it stands at; else what the layout began with."""
        folder = self.kept.folder(SHARED)
        for name in reversed(self.kept.names(folder)):
            try:
                return MergedState.restore(self._checkpoints.read(f"{folder}/{name}"))
            except StateError as err:
                log.warning("checkpoint %s is passed over: %s", name, err.message)
        return self.kept.merged_beginning()

    def recover(self, partition: int, until: int, merged: MergedState) -> WriterState:
        """The writer's state at place `until` of its log; `merged` has heard all that it closed before."""
        state = self._newest(partition, until, merged)
        self.replay(state, partition, until, merged)
        state.forget_closed(merged.closed[state.writer])
        state.commit()
        return state

    def replay(self, state: WriterState, partition: int, until: int, merged: MergedState) -> int:
        """Take in what the log holds from the state's place on; returns how many records."""
        first, done = state.offset, 0
        cuts = self._cuts(partition, first, until, merged)
        for portion in self._portions(partition, first, until):
            done += len(portion)
            start = 0
            while cuts and cuts[0][0] <= portion.offsets[-1]:
                stop = int(np.searchsorted(portion.offsets, cuts[0][0]))
                take_in_portion(state, portion, start, stop)
                state.clock_closed(cuts.pop(0)[1])
                start = stop
            take_in_portion(state, portion, start, len(portion))
            state.forget_closed(min(merged.closed[state.writer], state.closable))
            state.commit()
        for _, minute in cuts:
            state.clock_closed(minute)
        state.offset = until
        state.commit()
        self.replayed_events += done
        return done

    def keep(self, states: Sequence[WriterState], merged: MergedState, shared_offsets: dict[int, int]) -> list[str]:
        """Write checkpoints of committed states, and forget older ones; their names."""
        contents = [(self.kept.folder(state.writer), state.offset, state.snapshot()) for state in states]
        contents.append((self.kept.folder(SHARED), sum(shared_offsets.values()), merged.snapshot(shared_offsets)))
        names = []
        for folder, offset, content in contents:
            name = f"{offset:020d}.state"
            self._checkpoints.write(f"{folder}/{name}", content)
            names.append(f"{folder}/{name}")
            for old in self.kept.names(folder)[:-CHECKPOINTS_KEPT]:
                self._checkpoints.remove(f"{folder}/{old}")
        return names

    def _newest(self, partition: int, until: int, merged: MergedState) -> WriterState:
        """The newest sound checkpoint that is not beyond `until`; else the state that the layout began with."""
        folder = self.kept.folder(self.writers[partition])
        for name in reversed(self.kept.names(folder)):
            if int(name.removesuffix(".state")) > until:
                continue  # of a transaction that was taken back, or of a topic that was made anew
            try:
                return WriterState.restore(self._checkpoints.read(f"{folder}/{name}"), merged.state)
            except StateError as err:
                log.warning("checkpoint %s of %s is passed over: %s", name, self.writers[partition], err.message)
        return self.kept.writer_beginning(partition, merged)

    def items(self, partition: int, first: int, until: int) -> Iterator[list[Item]]:
        """What the records at [first, until) say: from the ledger, as far as the log holds them no more."""
        begin = self._events.begins_at(partition)
        yield from self._landed(partition, first, until, begin)
        for records in self._events.replay(partition, max(first, begin), until):
            yield read_records(records, currency=self._currency)

    def _portions(self, partition: int, first: int, until: int) -> Iterator[Portion]:
        """The same by column."""
        begin = self._events.begins_at(partition)
        for items in self._landed(partition, first, until, begin):
            yield portion_of_items(items)
        for records in self._events.replay(partition, max(first, begin), until):
            yield portion_of(records, currency=self._currency)

    def _landed(self, partition: int, first: int, until: int, begin: int) -> Iterator[list[Item]]:
        """What the ledger has of the records before the log's begin."""
        if first < min(begin, until):
            if self._raw is None:
                raise StateError(
                    f"{self.writers[partition]} begins at {begin}, and its state stands at {first}: what lies between is gone.",
                    remedy="Name the ledger that the sink writes (FRAUD_LEDGER_URL), or restore an older checkpoint's folder.",
                )
            yield from self._raw.items(self.writers[partition], first, min(begin, until))

    def _cuts(self, partition: int, first: int, until: int, merged: MergedState) -> list[tuple[int, int]]:
        """Where the clock closed minutes: as `shared-state` said, and as the ledger says of what that may hold no more."""
        cuts = [cut for cut in merged.clock_closings[self.writers[partition]] if first <= cut[0] <= until]
        return sorted({*cuts, *self.raw_closings(partition, first, until)})

    def raw_closings(self, partition: int, first: int, until: int) -> list[tuple[int, int]]:
        """Where the clock closed minutes, as the ledger says; asked only where the log does not reach back to `first`."""
        if self._raw is None or first >= min(self._events.begins_at(partition), until):
            return []
        return self._raw.clock_closings(self.writers[partition], first, until)


@dataclass(frozen=True, slots=True)
class Entered:
    """What some records are to the state: `verdicts` for each payment in them (NEW, REPEAT or CONFLICT); the new payments; the
    label changes, and before which new payment each stands.
    """

    verdicts: list[int]
    payments: list[Transaction]
    labels: list[LabelChange]
    positions: npt.NDArray[np.int64]


def entered(state: WriterState, items: Sequence[Item]) -> Entered:
    """Enter the ids of the payments in these records."""
    given = [item for item in items if item.payment is not None]
    payments = [item.payment for item in given if item.payment is not None]
    ids = np.array([item.identity for item in given], np.int64)
    contents = np.array([item.content for item in given], np.int64)
    times = np.array([item.time_us for item in given], np.int64)
    verdicts = state.enter(ids, contents, times).tolist()
    new = [payment for payment, verdict in zip(payments, verdicts, strict=True) if verdict == NEW]
    labels, positions, before, payment = [], [], 0, 0
    if len(payments) < len(items):
        for item in items:
            if item.label is not None:
                labels.append(item.label)
                positions.append(before)
            elif item.payment is not None:
                before += verdicts[payment] == NEW
                payment += 1
    return Entered(verdicts, new, labels, np.array(positions, np.int64))
