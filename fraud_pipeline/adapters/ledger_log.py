"""A writer's log as columns, page by page: what recovery, checkpoints and the parity proof read in millions.

Knows only tables and Arrow; what the events mean is the feature kernels' matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters.ledger_schema import labels, transactions, writers
from fraud_pipeline.errors import StateError

PAGE: Final = 50_000
"""Places per read: about 30 MB, and no read transaction stays open while the caller works."""
_MOMENT: Final = pa.timestamp("us", tz="UTC")
_EVENT_COLUMNS: Final = (
    "event_time", "customer_id", "merchant_id", "amount_minor", "merchant_category", "channel", "country", "device_id",
    "latitude", "longitude",
)  # fmt: skip
_LABEL_COLUMNS: Final = ("known_at", "event_time", "change", "merchant_id", "merchant_category", "country", "channel")
_TYPES: Final[dict[str, pa.DataType]] = {
    "event_time": _MOMENT, "known_at": _MOMENT, "received_at": _MOMENT, "amount_minor": pa.int64(), "latitude": pa.float64(),
    "longitude": pa.float64(), "change": pa.int8(), "sequence": pa.int64(),
}  # fmt: skip


@dataclass(frozen=True)
class LogPage:
    """Places `after` < sequence <= `last`: payments and label changes as Arrow tables of the contracts' columns.

    `positions` [labels] says before which of the page's payments each label change stands.
    """

    after: int
    last: int
    events: pa.Table
    labels: pa.Table
    positions: npt.NDArray[np.int64]

    @property
    def places(self) -> int:
        return self.last - self.after


def last_sequence(connection: Connection, writer: str) -> int:
    """The newest place of a writer whose log is the ledger; 0 before the first."""
    found = connection.execute(sa.select(writers.c.last_sequence).where(writers.c.writer == writer)).scalar()
    return int(found or 0)


def read_page(connection: Connection, writer: str, after: int, *, until: int, extra: tuple[str, ...] = ()) -> LogPage:
    """The next page up to and with place `until`; `extra` names more columns of the payments.

    StateError for a gap: a place that is neither a payment nor a label.
    """
    page = read_places(connection, writer, after, until=until, extra=extra)
    if (found := len(page.events) + len(page.labels)) != page.places:
        raise StateError(
            f"The log of writer {writer} has {found} of the {page.places} places after {after}.",
            remedy="Rows were removed from the ledger: restore it from a backup. A gap is never skipped.",
        )
    return page


def read_places(connection: Connection, writer: str, after: int, *, until: int, extra: tuple[str, ...] = ()) -> LogPage:
    """`read_page` of a log in which places may be empty: a Kafka partition's, with its markers, repeats and bad messages."""
    last = min(until, after + PAGE)
    events = _table(connection, _events(writer, after, last, extra), (*_EVENT_COLUMNS, *extra, "sequence"))
    changes = _table(connection, _changes(writer, after, last), (*_LABEL_COLUMNS, "sequence"))
    places, of_labels = events["sequence"].to_numpy(), changes["sequence"].to_numpy()
    return LogPage(after, last, events, changes, np.searchsorted(places, of_labels).astype(np.int64))


def _events(writer: str, after: int, last: int, extra: tuple[str, ...]) -> sa.Select[Any]:
    columns = [transactions.c[name] for name in (*_EVENT_COLUMNS, *extra, "sequence")]
    return (
        sa.select(*columns)
        .where(transactions.c.writer == writer, transactions.c.sequence > after, transactions.c.sequence <= last)
        .order_by(transactions.c.sequence)
    )


def _changes(writer: str, after: int, last: int) -> sa.Select[Any]:
    own = ("known_at", "change")
    columns = [labels.c[n] if n in own else transactions.c[n] for n in _LABEL_COLUMNS]
    return (
        sa.select(*columns, labels.c.sequence)
        .join_from(labels, transactions, labels.c.transaction_id == transactions.c.transaction_id)
        .where(labels.c.writer == writer, labels.c.sequence > after, labels.c.sequence <= last)
        .order_by(labels.c.sequence)
    )


def _table(connection: Connection, query: sa.Select[Any], names: tuple[str, ...]) -> pa.Table:
    """The rows as the driver gives them, by column: SQLAlchemy's row objects would take most of the time."""
    compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
    cursor = connection.exec_driver_sql(str(compiled), _bound(compiled)).cursor
    rows = [] if cursor is None else cursor.fetchall()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    arrays = [pa.array(values, _TYPES.get(name, pa.string())) for name, values in zip(names, columns, strict=True)]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _bound(compiled: sa.sql.compiler.Compiled) -> Any:
    parameters = compiled.params
    order = getattr(compiled, "positiontup", None)
    return tuple(parameters[name] for name in order) if order else parameters
