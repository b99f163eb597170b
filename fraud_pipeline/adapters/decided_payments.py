"""A batch of decisions as the ledger's entries: each made only where somebody asks for it. Knows no SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import overload

from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.domain.decision_batch import DecisionBatch


@dataclass(frozen=True, slots=True, eq=False)
class DecidedPayments(Sequence[LedgerEntry]):
    """What the ledger's writer takes by column (see `ledger_append`), and everyone else as entries."""

    batch: DecisionBatch
    received_at: datetime

    def __len__(self) -> int:
        return len(self.batch)

    @overload
    def __getitem__(self, place: int) -> LedgerEntry: ...
    @overload
    def __getitem__(self, place: slice) -> list[LedgerEntry]: ...
    def __getitem__(self, place: int | slice) -> LedgerEntry | list[LedgerEntry]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        batch = self.batch
        record = DecisionRecord.of(batch[place], answer=batch.answers[place])
        return LedgerEntry(batch.transactions[place], self.received_at, decision=record)
