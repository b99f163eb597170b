"""What scorers of a stream wrote against batch: every payment decided once, on the vector that its log and all closed minutes
give, bit for bit.

The topics' content is all that batch gets. Knows no broker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.decision_check import SHARED_INPUTS, may_differ
from fraud_pipeline.adapters.stream.event_log import LogRecord, writer_of
from fraud_pipeline.adapters.stream.intake import Item, read_records
from fraud_pipeline.adapters.stream.writer_states import entered
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_many_writers import ClockClosing, WriterLog, compute_features_of_writers
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.seen_ids import NEW
from fraud_pipeline.domain.transaction import Transaction

BundleOf = Callable[[str], ModelBundle]
"""A bundle by the version that decisions carry."""


@dataclass(frozen=True, slots=True)
class Written:
    """One decision as it stands in `decisions`: where its payment stands, and which role it has."""

    partition: int
    offset: int
    role: str
    decision: Decision


@dataclass
class StreamParity:
    """What was compared. `payments` are those that count (no repeats, conflicts, bad messages); each has one decision, or it is
    `lost` or `doubled`; `stray` are decisions on nothing. Values count where a decision does not say that it lacked them.
    """

    payments: int = 0
    labels: int = 0
    repeats_and_conflicts: int = 0
    bad: int = 0
    decisions: int = 0
    lost: int = 0
    doubled: int = 0
    stray: int = 0
    degraded_decisions: int = 0
    compared_values: int = 0
    differing_customer_values: int = 0
    differing_shared_values: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    first_difference: dict[str, Any] | None = None

    @property
    def equal(self) -> bool:
        """Something was compared, nothing is missing, and nothing differs."""
        wrong = self.lost + self.doubled + self.stray + self.differing_customer_values + self.differing_shared_values
        return self.payments > 0 and wrong == 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}


@dataclass
class _Partition:
    writer: str
    log: WriterLog
    payments: list[Transaction]
    offsets: list[int]


def compare_stream(
    records: Mapping[int, Sequence[LogRecord]],
    closings: Iterable[Mapping[str, Any]],
    decisions: Iterable[Written],
    *,
    topic: str,
    states: Mapping[str, WriterState],
    merged: MergedState,
    bundle_of: BundleOf,
    currency: str,
) -> StreamParity:
    """`states` and `merged` are those before the log, and are used up; `closings` are the messages of `shared-state`."""
    report = StreamParity()
    by_clock: dict[str, list[tuple[int, int]]] = {writer: [] for writer in states}
    for closing in closings:
        if closing["by_clock"] and closing["part"] == closing["parts"]:
            by_clock[closing["writer"]].append((int(closing["offset"]), int(closing["minute"])))
    partitions = {
        partition: _partition(writer_of(topic, partition), states, each, by_clock, currency, report)
        for partition, each in records.items()
    }
    values = compute_features_of_writers(states, merged, {each.writer: each.log for each in partitions.values()})
    found = _by_place(decisions, report)
    for partition, each in partitions.items():
        _compare(report, partition, each, values[each.writer], found, bundle_of)
    report.stray = len(found)
    return report


def _partition(
    writer: str, states: Mapping[str, WriterState], records: Sequence[LogRecord],
    by_clock: Mapping[str, list[tuple[int, int]]], currency: str, report: StreamParity,
) -> _Partition:  # fmt: skip
    state = states[writer]
    items: list[Item] = read_records(records, currency=currency)
    taken = entered(state, items)
    given = [item for item in items if item.payment is not None]
    offsets = [item.record.offset for item, verdict in zip(given, taken.verdicts, strict=True) if verdict == NEW]
    labels = [item.record.offset for item in items if item.label is not None]
    report.payments += len(taken.payments)
    report.labels += len(labels)
    report.repeats_and_conflicts += len(given) - len(offsets)
    report.bad += sum(item.bad is not None for item in items)
    closings = [
        ClockClosing(int(np.searchsorted(offsets, offset)), int(np.searchsorted(labels, offset)), minute)
        for offset, minute in sorted(by_clock[writer])
    ]
    log = WriterLog(state.rows_of(taken.payments), state.label_rows_of(taken.labels), taken.positions, closings)
    return _Partition(writer, log, taken.payments, offsets)


def _by_place(decisions: Iterable[Written], report: StreamParity) -> dict[tuple[int, int], Decision]:
    """The decided ones by the place of their payment."""
    found: dict[tuple[int, int], Decision] = {}
    for each in decisions:
        if each.role != "decided":
            continue
        report.decisions += 1
        report.doubled += (each.partition, each.offset) in found
        found[each.partition, each.offset] = each.decision
    return found


def _compare(
    report: StreamParity, partition: int, each: _Partition, values: npt.NDArray[np.float32],
    found: dict[tuple[int, int], Decision], bundle_of: BundleOf,
) -> None:  # fmt: skip
    decided = [found.pop((partition, offset), None) for offset in each.offsets]
    compare_rows(report, each.writer, each.payments, each.offsets, values, decided, bundle_of)


def compare_rows(
    report: StreamParity,
    writer: str,
    payments: Sequence[Transaction],
    offsets: Sequence[int],
    values: npt.NDArray[np.float32],
    decided: Sequence[Decision | None],
    bundle_of: BundleOf,
) -> None:
    """Compare what some payments' logs give with the decisions on them (None: lost), and count it in the report."""
    report.lost += sum(decision is None for decision in decided)
    by_version: dict[str, list[int]] = {}
    for place, decision in enumerate(decided):
        if decision is not None:
            by_version.setdefault(decision.model_version, []).append(place)
    for version, places in by_version.items():
        bundle = bundle_of(version)
        batch = bundle.inputs.vectors(values[places], [payments[place] for place in places])
        chosen = [decision for place in places if (decision := decided[place]) is not None]
        served = np.stack([decision.vector for decision in chosen]).astype(np.float32)
        differing = batch.view(np.uint32) != served.view(np.uint32)
        shared = np.array([name in SHARED_INPUTS for name in bundle.input_names])
        for is_shared in (True, False):
            excused = np.array([may_differ(decision.degraded, is_shared=is_shared) for decision in chosen])
            differing &= ~(excused[:, None] & (shared == is_shared)[None, :])
        report.versions = dict(Counter(report.versions) + Counter({version: len(places)}))
        report.degraded_decisions += sum(bool(decision.degraded) for decision in chosen)
        report.compared_values += differing.size
        report.differing_shared_values += int(differing[:, shared].sum())
        report.differing_customer_values += int(differing[:, ~shared].sum())
        if report.first_difference is None and differing.any():
            row, column = (int(axis[0]) for axis in np.nonzero(differing))
            report.first_difference = {
                "place": f"{writer}@{offsets[places[row]]}", "transaction_id": chosen[row].transaction_id,
                "input": bundle.input_names[column], "batch": float(batch[row, column]), "served": float(served[row, column]),
                "degraded": list(chosen[row].degraded),
            }  # fmt: skip
