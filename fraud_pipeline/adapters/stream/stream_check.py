"""`compare_stream` for topics of any length: the logs in windows, and each partition's decisions read alongside.

Decisions stand in their partition in the order of the batches that made them, so few of them are ever held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.adapters.stream.past_run import LogCursor, PastItems, PastRun
from fraud_pipeline.adapters.stream.scorer_loop import MAX_BATCH
from fraud_pipeline.adapters.stream.stream_parity import BundleOf, StreamParity, Written, compare_rows
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.errors import InputError

Mutation = Literal["ulp", "drop_event", "drop_label"]
WITHIN_A_BATCH: Final = MAX_BATCH
"""How far out of order decisions can stand: a batch is written model by model."""


@dataclass
class DecidedLog:
    """One partition's decisions: `written` in their order. `whole`: none of them is gone to retention.

    Only payments at places in [first, until) are asked for; where some are gone, `first` moves past the oldest there is.
    """

    written: Iterator[Written]
    first: int
    until: int
    whole: bool = True
    decisions: int = 0
    doubled: int = 0
    stray: int = 0
    _held: dict[int, Decision] = field(default_factory=dict)
    _given: bytearray = field(default_factory=bytearray)
    _begin: int = 0

    def __post_init__(self) -> None:
        self._begin, self._given = self.first, bytearray(max(0, self.until - self.first))
        if not self.whole and self._read():
            self.first = max(self.first, min(self._held, default=self.until) + WITHIN_A_BATCH)

    def of(self, offset: int) -> Decision | None:
        """The decision on the payment at this place, once; None where there is none."""
        while offset not in self._held and self._read():
            pass
        found = self._held.pop(offset, None)
        if found is not None:
            self._given[offset - self._begin] = 1
        return found

    def finish(self) -> None:
        """Read to the end: what nobody asked for is on nothing, or a second one."""
        while self._read():
            pass
        self.stray += len([offset for offset in self._held if self.first <= offset < self.until])

    def _read(self) -> bool:
        each = next(self.written, None)
        if each is None:
            return False
        if each.role == "decided" and self._begin <= each.offset < self.until:
            again = bool(self._given[each.offset - self._begin]) or each.offset in self._held
            self.doubled += again
            self.decisions += 1
            if not again:
                self._held[each.offset] = each.decision
        return True


class StreamCheck:
    """`states` and `merged` are those before the logs; `decided` by partition."""

    def __init__(
        self, states: Mapping[str, WriterState], merged: MergedState, cursors: Mapping[str, LogCursor],
        decided: Mapping[int, DecidedLog], *, bundle_of: BundleOf, mutate: Mutation | None = None,
    ) -> None:  # fmt: skip
        self._decided = decided
        self._bundle_of = bundle_of
        self._mutate = mutate
        self._harmed = False
        for cursor in cursors.values():
            cursor.pages = self._harming(cursor.pages)
        self._run = PastRun(states, merged, cursors, check=lambda _writer, _minute: None)
        self.report = StreamParity()

    def run(self) -> StreamParity:
        """Compare all of it. InputError where there is nothing to harm."""
        report = self.report
        for found in self._run.run(self._is_asked):
            self._compare(found)
        for each in self._decided.values():
            each.finish()
            report.decisions += each.decisions
            report.doubled += each.doubled
            report.stray += each.stray
        report.labels = self._run.unwanted["labels"]
        report.bad = self._run.unwanted["bad"]
        report.repeats_and_conflicts = self._run.unwanted["repeats_and_conflicts"]
        if self._mutate and not self._harmed:
            raise InputError(
                f"There is nothing in the log to {self._mutate!r}.", remedy="Use a stream with more in it."
            )
        return report

    def _is_asked(self, item: Item) -> bool:
        decided = self._decided[item.record.partition]
        return decided.first <= item.record.offset < decided.until

    def _compare(self, found: PastItems) -> None:
        payments = [item.payment for item in found.items if item.payment is not None]
        offsets = [item.record.offset for item in found.items]
        log = self._decided[found.items[0].record.partition]
        decisions = [log.of(offset) for offset in offsets]
        if self._mutate == "ulp" and not self._harmed:
            decisions = self._one_ulp(decisions)
        self.report.payments += len(payments)
        compare_rows(self.report, found.writer, payments, offsets, found.values, decisions, self._bundle_of)

    def _one_ulp(self, decisions: list[Decision | None]) -> list[Decision | None]:
        """One value of one vector, next to what it was."""
        for place, decision in enumerate(decisions):
            if decision is None or decision.degraded:
                continue
            vector = decision.vector.astype(np.float32).copy()
            column = int(np.flatnonzero(np.isfinite(vector))[0])
            vector[column] = np.nextafter(vector[column], np.float32(np.inf))
            self._harmed = True
            return [*decisions[:place], replace(decision, features=vector.tobytes()), *decisions[place + 1 :]]
        return decisions

    def _harming(self, pages: Iterator[Sequence[Item]]) -> Iterator[Sequence[Item]]:
        """Without the first payment (and its decision), or the first label that changes something, where that is wished."""
        for page in pages:
            if self._harmed or self._mutate not in ("drop_event", "drop_label"):
                yield page
                continue
            kept = []
            for item in page:
                if not self._harmed and self._is_harmed(item):
                    self._harmed = True
                else:
                    kept.append(item)
            if kept:
                yield kept

    def _is_harmed(self, item: Item) -> bool:
        if self._mutate == "drop_label":
            return item.label is not None and item.label.change != 0
        if item.payment is None:
            return False
        return self._is_asked(item) and self._decided[item.record.partition].of(item.record.offset) is not None
