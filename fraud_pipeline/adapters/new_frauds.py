"""Counts the frauds that became known since the champion learned, from the stored days. Reads only."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.domain.learning_data import labels_as_of
from fraud_pipeline.domain.new_labels import NewLabels
from fraud_pipeline.domain.promotion import Promotion

MOST_DAYS: Final = 28
"""The newest so many are looked at: a champion of last year has more new labels than any rule asks for."""


class NewFrauds:
    """Counts once for each champion, day and set of stored days: a sensor asks every minute."""

    def __init__(self, store: DatasetStore, *, maturity_days: int) -> None:
        self._store = store
        self._maturity = timedelta(days=maturity_days)
        self._known: tuple[tuple[object, ...], NewLabels] | None = None

    def since(self, champion: Promotion, *, as_of: date) -> NewLabels | None:
        """What is known at the midnight that begins `as_of`; None where nobody wrote what the champion learned from."""
        window = str(champion.evidence.get("training_window") or "")
        try:
            learned_through = date.fromisoformat(window.partition("..")[2])
        except ValueError:
            return None
        stored = self._store.days("labels")
        key = (champion.fingerprint, as_of, len(stored), stored[-1:])
        if self._known is None or self._known[0] != key:
            self._known = (key, self._count(learned_through + timedelta(days=1), as_of, stored))
        return self._known[1]

    def _count(self, first: date, as_of: date, stored: list[date]) -> NewLabels:
        end = as_of - self._maturity
        first = max(first, end - timedelta(days=MOST_DAYS))
        days = [day for day in self._store.days("transactions") if first <= day < end]
        columns = ("transaction_id", "is_fraud", "known_at", "event_time")
        tables = [self._store.read_day("labels", day, columns) for day in stored if first <= day < as_of]
        if not days or not tables:
            return NewLabels(0, len(days), first)
        table = pa.concat_tables(tables)
        edges = [pa.scalar(datetime.combine(day, time.min, UTC), table["event_time"].type) for day in (first, end)]
        inside = pc.and_(pc.greater_equal(table["event_time"], edges[0]), pc.less(table["event_time"], edges[1]))
        chosen = table.filter(inside)
        _, is_fraud, _ = labels_as_of(
            chosen["transaction_id"].to_numpy(zero_copy_only=False),
            chosen["is_fraud"].to_numpy(zero_copy_only=False),
            chosen["known_at"].cast(pa.int64()).to_numpy(),
            as_of=(datetime.combine(as_of, time.min, UTC) - datetime(1970, 1, 1, tzinfo=UTC))
            // timedelta(microseconds=1),
        )
        return NewLabels(int(np.count_nonzero(is_fraud)), len(days), first)
