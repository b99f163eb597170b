"""Where a day's payments and labels come from: the landed world up to its end, the ledger's live rows from then on.

What was served is what is trained on next: live rows keep their writer's order. Knows nothing of Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, transaction_schema
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import RecordedTransaction
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX, Label, LabelChange


class DaySource:
    """The world of a home, continued by its ledger. `open_ledger` is called only for days after the world's end."""

    def __init__(self, source: SourceStore, open_ledger: Callable[[], Ledger]) -> None:
        self.source = source
        self._open_ledger = open_ledger

    def transactions(self, day: date) -> pa.Table:
        """The day's payments: of a world by event time, live ones by the time of receipt, in each writer's order.

        Raises NotFound where no world has landed.
        """
        world = self.source.manifest()
        if day < world.end:
            return self.source.read_day("transactions", day)
        with self._open_ledger() as ledger:
            return live_transactions(ledger.transactions_received(*_bounds(day)), world.attributes)

    def labels(self, day: date) -> pa.Table:
        """The labels that became known on the day, by time."""
        landed = self.source.read_day("labels", day)
        if day < self.source.manifest().end:
            return landed
        with self._open_ledger() as ledger:
            known = ledger.labels_known(*_bounds(day))
        # Labels of the world that become known after its end are fed into the live log too.
        fed = set(zip(landed["transaction_id"].to_pylist(), landed["known_at"].to_pylist(), strict=True))
        live = live_labels([pair for pair in known if (pair[0].transaction_id, pair[0].known_at) not in fed])
        return pa.concat_tables([landed, live]).sort_by([("known_at", "ascending"), ("transaction_id", "ascending")])


def live_transactions(recorded: Sequence[RecordedTransaction], attributes: Sequence[str]) -> pa.Table:
    """Ledger rows as a table of the contract; attributes that the world does not have are left out."""
    plain = [name for name in transaction_schema().names if name not in ("writer", "sequence")]
    columns: dict[str, list[object]] = {name: [getattr(row.transaction, name) for row in recorded] for name in plain}
    columns["writer"] = [row.writer for row in recorded]
    columns["sequence"] = [row.sequence for row in recorded]
    for name in attributes:
        columns[ATTRIBUTE_PREFIX + name] = [row.transaction.attributes.get(name) for row in recorded]
    return pa.table(columns, schema=transaction_schema(attributes))


def live_labels(known: Sequence[tuple[Label, LabelChange]]) -> pa.Table:
    """Ledger labels and their changes as a table of the contract."""
    columns: dict[str, list[object]] = {}
    for name in LABEL_SCHEMA.names:
        of_label = name in ("is_fraud", "source", "author")
        columns[name] = [getattr(label if of_label else change, name) for label, change in known]
    return pa.table(columns, schema=LABEL_SCHEMA)


def _bounds(day: date) -> tuple[datetime, datetime]:
    """The day's first moment and the next day's, UTC."""
    start = datetime.combine(day, time.min, UTC)
    return start, start + timedelta(days=1)
