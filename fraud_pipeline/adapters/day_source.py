"""Where a day's payments and labels come from: the landed world up to its end, what was served from then on.

What was served is what is trained on next: live rows keep their writer's order. Where a stream fills the ledger, days are
those of its log (`log_days`); where the ledger is the log itself, those of receipt. Knows nothing of Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, transaction_schema
from fraud_pipeline.adapters.history_labels import HistoryLabels
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER, RecordedTransaction
from fraud_pipeline.adapters.log_days import LogDays
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX, Label, LabelChange
from fraud_pipeline.errors import DatasetError


class DaySource:
    """The world of a home, continued by its ledger. `open_ledger` is called only for days after the world's end.

    `topic` is the stream's topic of payments; whether one fills the ledger, the ledger says.
    """

    def __init__(self, source: SourceStore, open_ledger: Callable[[], Ledger], *, topic: str = "transactions") -> None:
        self.source = source
        self._open_ledger = open_ledger
        self._topic = topic

    def transactions(self, day: date) -> pa.Table:
        """The day's payments: of a world by event time, live ones in each writer's order.

        Raises NotFound where no world has landed, DatasetError for a day of a log that has not ended.
        """
        world = self.source.manifest()
        if day < world.end:
            return self.source.read_day("transactions", day)
        with self._open_ledger() as ledger:
            if (log := self._log(ledger)) is not None:
                return log.transactions(day, world.attributes)
            return live_transactions(ledger.transactions_received(*_bounds(day)), world.attributes)

    def labels(self, day: date) -> pa.Table:
        """The labels that became known on the day, by time."""
        landed = self.source.read_day("labels", day)
        if day < self.source.manifest().end:
            return landed
        with self._open_ledger() as ledger:
            if (log := self._log(ledger)) is not None:
                return log.labels(day)  # the world's later ones among them, where the log told them
            known = ledger.labels_known(*_bounds(day))
        # Labels of the world that become known after its end are fed into the live log too.
        fed = set(zip(landed["transaction_id"].to_pylist(), landed["known_at"].to_pylist(), strict=True))
        live = live_labels([pair for pair in known if (pair[0].transaction_id, pair[0].known_at) not in fed])
        return pa.concat_tables([landed, live]).sort_by([("known_at", "ascending"), ("transaction_id", "ascending")])

    def ended_through(self) -> date | None:
        """The newest day of the log that has ended; None before the first, and where the home has no log."""
        with self._open_ledger() as ledger:
            log = self._log(ledger)
            return None if log is None else log.ended_through()

    def closed_through(self) -> dict[str, date | None]:
        """How far each writer of the log is: the newest day that it has ended."""
        with self._open_ledger() as ledger:
            log = self._log(ledger)
            return {} if log is None else log.closed_through()

    def tell_history(self, *, after: datetime | None) -> tuple[datetime | None, int]:
        """Record the world's labels that became known after its end, up to the log's clock; that clock, and how many were new.

        The sink produces them to the logs of their customers, so that scorers and days have them, as the service has where
        it is alone. `after` is the clock of the time before.
        """
        with self._open_ledger() as ledger:
            log = self._log(ledger)
            clock = None if log is None else log.clock()
            if clock is None or (after is not None and clock <= after):
                return clock, 0
            history = HistoryLabels(self.source)
            due = history.due(after=after, until=clock)
            if not due:
                return clock, 0
            ids = {label.transaction_id for label in due}
            known = {each.transaction.transaction_id for each in ledger.transactions(sorted(ids))}
            ledger.adopt(history.payments(ids - known))
            return clock, len(ledger.record_labels(due).released)

    def _log(self, ledger: Ledger) -> LogDays | None:
        """The log that a stream fills the ledger from; None where none does. DatasetError where the service decides, too."""
        log = LogDays(ledger.database, self._topic, first_day=self.source.manifest().end)
        if not log.writers():
            return None
        if ledger.last_sequence(LOCAL_WRITER):
            raise DatasetError(
                f"The ledger holds payments that the service took by itself and others from {self._topic}: their days are"
                " not the same, and neither are their features.",
                remedy="Use one way in for a home: a stream with replicas (FRAUD_STATE_VIEW_URL), or the service alone.",
            )
        return log


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
