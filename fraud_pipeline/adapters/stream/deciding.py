"""From the records of a batch to what is written for them: decisions, alerts, dead letters, and minutes that close.

Changes states, in a way that can be rolled back, and writes nothing itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from fraud_pipeline.adapters.kafka.decision_values import answered_value
from fraud_pipeline.adapters.kafka.messages import (
    HEADERS,
    ROLE,
    SOURCE,
    BadMessage,
    Message,
    Place,
    alert_message,
    dead_letter,
    decision_message,
    decision_value,
)
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.adapters.stream.event_log import Output
from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline.adapters.stream.writer_states import entered
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.decision_batch import DecisionBatch, decide_many
from fraud_pipeline.domain.feature_layout import LATE
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.minute_closing import Closing
from fraud_pipeline.domain.seen_ids import CONFLICT, NEW, REPEAT
from fraud_pipeline.domain.transaction import Transaction

LAGGING: Final = "shared_state_lag"
"""What a decision lacks that could not wait for other writers' minutes."""
_APPROVED: Final = "APPROVE"
log = logging.getLogger(__name__)


@dataclass
class _Taken:
    """One partition's part of a batch."""

    partition: int
    state: WriterState
    places: list[int]
    """Offsets of the new payments."""
    payments: list[Transaction]
    decided: list[Decision | None]
    values: npt.NDArray[np.float32]
    times: npt.NDArray[np.int64]
    events: npt.NDArray[Any]


@dataclass
class BatchOutcome:
    """All that a batch makes; the states hold it too, until they are rolled back."""

    outputs: list[Output] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    changed: dict[int, set[str]] = field(default_factory=dict)
    """Customers whose history has changed, by partition."""
    counts: list[Callable[[StreamMetrics], None]] = field(default_factory=list)
    """What is counted when it is committed."""


class BatchDecider:
    """Decides with whatever model is in the slot at that moment."""

    def __init__(
        self,
        topics: Topics,
        models: ModelSlot,
        metrics: StreamMetrics,
        *,
        control_share: float,
        now: Callable[[], datetime],
    ) -> None:
        self._topics = topics
        self._models = models
        self._metrics = metrics
        self._control_share = control_share
        self._now = now
        self._partitions = 1
        self._said_misplaced = False

    @property
    def has_model(self) -> bool:
        return self._models.champion is not None

    def work(
        self,
        items: Mapping[int, Sequence[Item]],
        states: Mapping[int, WriterState],
        merged: MergedState,
        closings: Mapping[int, int],
    ) -> BatchOutcome:
        """Take the records in, close the minutes that `closings` names, and decide the payments."""
        outcome = BatchOutcome()
        self._partitions = len(merged.closed)
        started = time.perf_counter()
        taken = [self._take(partition, states[partition], each, outcome) for partition, each in items.items()]
        for partition, through in closings.items():
            self._close(partition, states[partition], merged, through, outcome)
        count = sum(len(part.payments) for part in taken)
        exact = [merged.read(part.state.slots.events(part.events), part.times, part.values) for part in taken]
        read = time.perf_counter()
        if count:
            self._decide(taken, exact, outcome)
            stages = self._metrics.stages
            stages["features"].observe((read - started) / count, count)
            stages["model"].observe((time.perf_counter() - read) / count, count)
        return outcome

    def _take(self, partition: int, state: WriterState, items: Sequence[Item], outcome: BatchOutcome) -> _Taken:
        found = entered(state, items)
        late = int(state.own.arrays.clock[LATE])
        events = state.rows_of(found.payments)
        read = state.take(events, state.label_rows_of(found.labels), found.positions)
        late = int(state.own.arrays.clock[LATE]) - late
        state.offset = outcome.positions[partition] = items[-1].record.offset + 1
        outcome.changed[partition] = {payment.customer_id for payment in found.payments}
        misplaced = self._misplaced(state, partition, found.payments)
        places, decided = self._sort_out(items, found.verdicts, outcome)
        records, labels, repeats = len(items), len(found.labels), found.verdicts.count(REPEAT)

        def count(metrics: StreamMetrics) -> None:
            metrics.records += records
            metrics.labels += labels
            metrics.repeats += repeats
            metrics.late_events += late
            metrics.misplaced += misplaced

        outcome.counts.append(count)
        return _Taken(partition, state, places, found.payments, decided, read.values, read.times, events)

    def _misplaced(self, state: WriterState, partition: int, payments: Sequence[Transaction]) -> int:
        """How many of them are on another partition than their key belongs to: then a customer may be on two, with two
        histories. Said once.
        """
        wrong = [each for each in payments if _belongs_to(each.customer_id, self._partitions) != partition]
        if wrong and not self._said_misplaced:
            self._said_misplaced = True
            log.warning(
                "%s holds payments of customers that belong to other partitions, the first of %a: a producer has another"
                " partitioner than murmur2 of the customer id, and a customer on two partitions has two histories",
                state.writer, wrong[0].customer_id,
            )  # fmt: skip
        return len(wrong)

    def _sort_out(
        self, items: Sequence[Item], verdicts: Sequence[int], outcome: BatchOutcome
    ) -> tuple[list[int], list[Decision | None]]:
        """Send bad messages and conflicts to the dead letters; the places of the new payments, and decisions that they
        brought.
        """
        places: list[int] = []
        decided: list[Decision | None] = []
        payment = 0
        for item in items:
            if item.payment is not None:
                verdict = verdicts[payment]
                payment += 1
                if verdict == NEW:
                    places.append(item.record.offset)
                    decided.append(item.decided)
                elif verdict == CONFLICT:
                    identity = item.payment.transaction_id
                    self._bury(item, BadMessage("id_conflict", f"{identity} is another payment's already."), outcome)
            elif item.bad is not None:
                self._bury(item, item.bad, outcome)
        return places, decided

    def _bury(self, item: Item, error: BadMessage, outcome: BatchOutcome) -> None:
        record = item.record
        letter = dead_letter(
            record.key, record.value, record.headers, source=Place(self._topics.transactions, record.partition, record.offset),
            error=error, at=self._now(),
        )  # fmt: skip
        outcome.outputs.append(Output.of(self._topics.dead_letters, None, letter))
        outcome.counts.append(lambda metrics: metrics.dead_letters.update([error.code]))

    def _close(
        self, partition: int, state: WriterState, merged: MergedState, through: int, outcome: BatchOutcome
    ) -> None:
        closing = state.close(through, by_clock=through > state.closable)
        if closing is None:
            return
        merged.merge(closing, commit=False)
        outcome.positions.setdefault(partition, state.offset)
        outcome.outputs += [
            Output.of(self._topics.shared_state, partition, message) for message in closing_messages(closing)
        ]
        outcome.counts.append(_count_closing)

    def _decide(self, taken: Sequence[_Taken], exact: Sequence[npt.NDArray[np.bool_]], outcome: BatchOutcome) -> None:
        values = np.concatenate([part.values for part in taken])
        payments = [payment for part in taken for payment in part.payments]
        brought = [decision for part in taken for decision in part.decided]
        whole = np.concatenate(exact)
        sources = [(part.partition, place) for part in taken for place in part.places]
        if any(brought):
            self._pass_on(payments, brought, sources, outcome)
            kept = np.array([decision is None for decision in brought])
        else:
            kept = np.ones(len(payments), bool)
        for group, degraded in ((kept & whole, ()), (kept & ~whole, (LAGGING,))):
            chosen = np.flatnonzero(group)
            if len(chosen):
                self._decide_group(
                    values[chosen], [payments[i] for i in chosen], [sources[i] for i in chosen], degraded, outcome
                )

    def _decide_group(
        self,
        values: npt.NDArray[np.float32],
        payments: list[Transaction],
        sources: list[tuple[int, int]],
        degraded: tuple[str, ...],
        outcome: BatchOutcome,
    ) -> None:
        by_bundle: dict[int, tuple[ModelBundle, list[int]]] = {}
        for place, bundle in enumerate(self._models.bundles_for([payment.customer_id for payment in payments])):
            assert bundle is not None  # the loop takes nothing without a champion
            by_bundle.setdefault(id(bundle), (bundle, []))[1].append(place)
        for bundle, places in by_bundle.values():
            rows, mine = values[places], [payments[place] for place in places]
            batch = self._decide_with(bundle, rows, mine, degraded)
            self._write(batch, [sources[place] for place in places], "decided", outcome)
            other = self._models.counterpart(bundle.version)
            if other is not None:
                shadow = self._decide_with(other, rows, mine, degraded)
                self._write(shadow, [sources[place] for place in places], "shadow", outcome)

    def _decide_with(
        self, bundle: ModelBundle, rows: npt.NDArray[np.float32], payments: list[Transaction], degraded: tuple[str, ...]
    ) -> DecisionBatch:
        return decide_many(
            rows, bundle, payments, decided_at=self._now(), control_share=self._control_share, degraded=degraded
        )

    def _write(self, batch: DecisionBatch, sources: list[tuple[int, int]], role: str, outcome: BatchOutcome) -> None:
        topic, log = self._topics.decisions, self._topics.transactions
        common = [*HEADERS["decision"], (ROLE, role.encode())]
        keys = [payment.customer_id for payment in batch.transactions]
        for (partition, offset), customer, answer, features in zip(
            sources, keys, batch.answers, batch.features, strict=True
        ):
            value = answered_value(answer, features, customer_id=customer)
            headers = [*common, (SOURCE, b"%b[%d]@%d" % (log.encode(), partition, offset))]
            outcome.outputs.append(Output(topic, partition, customer.encode(), value, headers))
        if role == "decided":
            for place in batch.alerts:
                partition, offset = sources[place]
                alert = alert_message(batch[place], batch.transactions[place], source=Place(log, partition, offset))
                outcome.outputs.append(Output.of(self._topics.alerts, partition, alert))

        def count(metrics: StreamMetrics) -> None:
            if role == "shadow":
                metrics.shadow_decisions += len(batch)
                return
            metrics.decisions.update(zip(batch.verdicts, batch.model_versions, strict=True))
            metrics.scores.observe_all(batch.probabilities)
            metrics.degraded.update({reason: len(batch) for reason in batch.degraded})

        outcome.counts.append(count)

    def _pass_on(
        self, payments: Sequence[Transaction], brought: Sequence[Decision | None], sources: Sequence[tuple[int, int]],
        outcome: BatchOutcome,
    ) -> None:  # fmt: skip
        """Decisions that replicas gave already: their callers have them, and nobody decides again."""
        for payment, decision, (partition, offset) in zip(payments, brought, sources, strict=True):
            if decision is None:
                continue
            source = Place(self._topics.transactions, partition, offset)
            value = decision_value(decision, customer_id=payment.customer_id)
            message = decision_message(value, customer_id=payment.customer_id, source=source)
            outcome.outputs.append(Output.of(self._topics.decisions, partition, message))
            if decision.decision != _APPROVED:
                alert = alert_message(decision, payment, source=source)
                outcome.outputs.append(Output.of(self._topics.alerts, partition, alert))
        passed = sum(decision is not None for decision in brought)

        def count(metrics: StreamMetrics) -> None:
            metrics.passed_on += passed

        outcome.counts.append(count)


@lru_cache(maxsize=200_000)
def _belongs_to(customer_id: str, partitions: int) -> int:
    """Remembered: the hash takes 3 µs, and customers come again."""
    return partition_of(customer_id.encode(), partitions)


def closing_messages(closing: Closing) -> list[Message]:
    """A closing for `shared-state`."""
    return [
        Message(closing.writer.encode(), orjson.dumps(part | {"partition": int(closing.writer[:-1].rpartition("[")[2])}),
                HEADERS["minutes"])
        for part in closing.parts()
    ]  # fmt: skip


def _count_closing(metrics: StreamMetrics) -> None:
    metrics.closings += 1
