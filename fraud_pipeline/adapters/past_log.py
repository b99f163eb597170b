"""Payments of the past with the features that they were decided on, computed anew: what a replay and a check ask of a log.

`LocalPast` is the embedded ledger's writer, `HistoryPast` the days before any log. Kafka's writers, whose rows the sink keeps,
come in by the same two questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import orjson
import sqlalchemy as sa

from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.ledger_records import HISTORY_WRITER, LOCAL_WRITER
from fraud_pipeline.adapters.ledger_schema import transactions
from fraud_pipeline.adapters.live_state import LiveStateStore, advance
from fraud_pipeline.adapters.payment_lookup import find_payment, transaction_of
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import NotFound

Computed = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
_EXTRA: Final = ("transaction_id", "currency", "attributes", "received_at")
_FIELDS: Final = (
    "transaction_id", "event_time", "customer_id", "merchant_id", "amount_minor", "currency", "merchant_category",
    "channel", "country", "device_id", "latitude", "longitude",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PastPayments:
    """Payments in their log's order, their places in it, and their features [n, len(FEATURES)] as they were before each."""

    transactions: list[Transaction]
    writer: str
    sequences: list[int]
    computed: Computed

    def __len__(self) -> int:
        return len(self.transactions)

    def only(self, rows: Sequence[int]) -> PastPayments:
        """Some of them."""
        chosen, sequences = [self.transactions[row] for row in rows], [self.sequences[row] for row in rows]
        return PastPayments(chosen, self.writer, sequences, self.computed[list(rows)])


class PastLog(Protocol):
    """The log of one kind of writers."""

    def payments(self, since: datetime, until: datetime, progress: Progress | None = None) -> Iterator[PastPayments]:
        """Those received in [since, until), page by page in their order."""

    def payment(self, transaction_id: str) -> PastPayments | None:
        """One of them; None where this log does not have it."""


class LocalPast:
    """The writer `local`: the state before the first place by checkpoint and replay, then its log. StateError for a gap."""

    def __init__(self, ledger: Ledger, states: LiveStateStore, *, time_zone: str) -> None:
        self._ledger = ledger
        self._states = states
        self._time_zone = time_zone

    def payments(self, since: datetime, until: datetime, progress: Progress | None = None) -> Iterator[PastPayments]:
        received = transactions.c.received_at
        first, last = self._places(sa.and_(received >= since, received < until))
        for page, computed in self._pages(first, last):
            moments = page.events["received_at"].to_pylist()
            rows = [row for row, moment in enumerate(moments) if since <= moment < until]
            yield _of_page(page, computed).only(rows)
            if progress is not None:
                progress(page.last - first + 1, last - first + 1)

    def payment(self, transaction_id: str) -> PastPayments | None:
        first, last = self._places(transactions.c.transaction_id == transaction_id)
        for page, computed in self._pages(first, last):
            return _of_page(page, computed)
        return None

    def _places(self, condition: sa.ColumnElement[bool]) -> tuple[int, int]:
        """The first and the last place of such payments; nothing lies between 1 and 0."""
        query = sa.select(sa.func.min(transactions.c.sequence), sa.func.max(transactions.c.sequence)).where(
            transactions.c.writer == LOCAL_WRITER, condition
        )
        with self._ledger.database.reading() as connection:
            first, last = connection.execute(query).one()
        return (1, 0) if first is None else (int(first), int(last))

    def _pages(self, first: int, last: int) -> Iterator[tuple[LogPage, Computed]]:
        if first > last:
            return
        live = self._states.at(first - 1)
        for page in self._ledger.log_pages(LOCAL_WRITER, after=first - 1, until=last, extra=_EXTRA):
            yield page, advance(live, page, self._time_zone)


class HistoryPast:
    """The days before `end`, where the log begins, with their stored features.

    A payment of the past was received when it was made. Later days are the log's own, landed for training.
    """

    def __init__(self, features: FeatureStore, *, end: date) -> None:
        self._features = features
        self._end = end

    def payments(self, since: datetime, until: datetime, progress: Progress | None = None) -> Iterator[PastPayments]:
        histories = self._features.histories()
        days = [
            day
            for day in histories
            if day < self._end and _midnight(day) < until and _midnight(day) + timedelta(days=1) > since
        ]
        for done, day in enumerate(days, start=1):
            if not self._features.is_current(day, histories[day]):
                raise NotFound(
                    f"{day} has no features of this code.", remedy="Materialize `features` first: `fraud run`."
                )
            payments = self._of_day(day)
            moments = [payment.event_time for payment in payments.transactions]
            yield payments.only([row for row, moment in enumerate(moments) if since <= moment < until])
            if progress is not None:
                progress(done, len(days))

    def payment(self, transaction_id: str) -> PastPayments | None:
        try:
            found = find_payment(self._features.store, transaction_id)
        except NotFound:
            return None
        if found.day >= self._end:
            return None
        return PastPayments([found.transaction], HISTORY_WRITER, [0], found.computed[np.newaxis])

    def _of_day(self, day: date) -> PastPayments:
        store = self._features.store
        rows = store.read_day("transactions", day).to_pylist()
        table = store.read_day("features", day, FEATURE_NAMES)
        computed = np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES]).astype(np.float32)
        made = [transaction_of(row) for row in rows]
        return PastPayments(made, HISTORY_WRITER, list(range(1, len(made) + 1)), computed)


def _of_page(page: LogPage, computed: Computed) -> PastPayments:
    columns: list[list[Any]] = [page.events[name].to_pylist() for name in _FIELDS]
    columns[1] = [moment.astimezone(UTC) for moment in columns[1]]
    stored = page.events["attributes"].to_pylist()
    attributes = [orjson.loads(text) if isinstance(text, str | bytes) else dict(text or {}) for text in stored]
    made = [Transaction(*row) for row in zip(*columns, attributes, strict=True)]
    return PastPayments(made, LOCAL_WRITER, page.events["sequence"].to_pylist(), computed)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
