"""The landed history as labels see it: payments that the ledger has never met, and labels that become known after its end.

A simulated or imported world ends at a midnight, but some of its labels are known only later. They are fed into the live log
when their time has come, as a bank's file would be. Knows nothing of state or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.payment_lookup import transaction_of
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.transaction import Label, Transaction


class HistoryLabels:
    """Reads a landed world; a home without one has nothing to tell."""

    def __init__(self, source: SourceStore) -> None:
        self._source = source

    def due(self, *, after: datetime | None, until: datetime) -> list[Label]:
        """Labels with `after` < known_at <= `until` that became known after the history's end, oldest first."""
        if not self._source.exists():
            return []
        end = self._source.manifest().end
        days = [day for day in self._source.days("labels") if day >= end and day <= until.date()]
        found = [self._label(row) for day in days for row in self._source.read_day("labels", day).to_pylist()]
        chosen = [x for x in found if x.known_at <= until and (after is None or x.known_at > after)]
        return sorted(chosen, key=lambda label: (label.known_at, label.transaction_id))

    def payments(self, transaction_ids: Iterable[str]) -> list[Transaction]:
        """Those of the ids that are in the history, by looking through its days, the newest first."""
        wanted = set(transaction_ids)
        if not wanted or not self._source.exists():
            return []
        found: list[Transaction] = []
        for day in reversed(self._source.days("transactions")):
            ids = self._source.read_day("transactions", day, ["transaction_id"])["transaction_id"]
            chosen = pc.is_in(ids, value_set=pa.array(sorted(wanted)))
            if pc.any(chosen).as_py():
                rows = self._source.read_day("transactions", day).filter(chosen).to_pylist()
                found += [transaction_of(row) for row in rows]
                wanted -= {row["transaction_id"] for row in rows}
            if not wanted:
                break
        return found

    @staticmethod
    def _label(row: dict[str, Any]) -> Label:
        return Label(row["transaction_id"], row["is_fraud"], row["source"], row["author"], row["known_at"])
