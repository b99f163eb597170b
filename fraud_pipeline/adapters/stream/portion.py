"""Records of one partition by column, and the rows that a writer's state takes of them: an object only for the odd one.

Says of each record what `intake` says of it alone; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.kafka.messages import MAX_VALUE_BYTES
from fraud_pipeline.adapters.stream.event_log import LogRecord, RecordColumns
from fraud_pipeline.adapters.stream.intake import PLAIN, Item, is_plain, read_records
from fraud_pipeline.domain.event_rows import column_rows, event_rows
from fraud_pipeline.domain.feature_layout import EVENT
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.payment_columns import PaymentColumns, payment_columns
from fraud_pipeline.domain.seen_ids import NEW

Ints = npt.NDArray[np.int64]

_NO_OTHERS: Final[dict[int, Item]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Portion:
    """n records. `payments` are the rows that say a payment, and for these stand times (µs) and hashes."""

    offsets: Ints
    columns: PaymentColumns
    others: dict[int, Item]
    """What the rows say that are no plain payment."""
    payments: npt.NDArray[np.bool_]
    times: Ints
    identities: Ints
    contents: Ints

    def __len__(self) -> int:
        return len(self.offsets)


def portion_of(records: Sequence[LogRecord], *, currency: str) -> Portion:
    """What at least one record of a partition says."""
    given = RecordColumns.of(records)
    bodies, keys = _bodies(given), given.keys
    columns = payment_columns(
        bodies, [key or b"" for key in keys] if None in keys else keys, np.array(given.received_us, np.int64),  # type: ignore[arg-type]
        currency=currency,
    )  # fmt: skip
    times, identities, contents = columns.times, columns.identities, columns.contents
    rows = np.flatnonzero(~columns.plain).tolist()
    payments, others = columns.plain, _NO_OTHERS
    if rows:
        items = read_records([given[row] for row in rows], currency=currency)
        others, payments = dict(zip(rows, items, strict=True)), payments.copy()
        for row, item in others.items():
            payments[row] = item.payment is not None
            times[row], identities[row], contents[row] = item.time_us, item.identity, item.content
    return Portion(np.array(given.offsets, np.int64), columns, others, payments, times, identities, contents)


def _bodies(given: RecordColumns) -> Sequence[bytes]:
    """The values that may be plain payments; nothing where one is none."""
    values: Sequence[Any] = given.values
    if given.headers.count(PLAIN) == len(given) and None not in values and max(map(len, values)) <= MAX_VALUE_BYTES:
        return values
    return [value if is_plain(headers, value) else b"" for headers, value in zip(given.headers, values, strict=True)]


def portion_of_items(items: Sequence[Item]) -> Portion:
    """What was read already, at least one record."""
    count = len(items)
    columns = payment_columns([b""] * count, [b""] * count, np.zeros(count, np.int64), currency="")
    return Portion(
        np.array([item.record.offset for item in items], np.int64), columns, dict(enumerate(items)),
        np.array([item.payment is not None for item in items], bool),
        np.array([item.time_us for item in items], np.int64), np.array([item.identity for item in items], np.int64),
        np.array([item.content for item in items], np.int64),
    )  # fmt: skip


def take_in_portion(state: WriterState, portion: Portion, first: int, stop: int) -> None:
    """Take the rows [first, stop) of a replay into a writer's state, in their order, and move on past them."""
    if first >= stop:
        return
    rows = first + np.flatnonzero(portion.payments[first:stop])
    verdicts = state.enter(portion.identities[rows], portion.contents[rows], portion.times[rows])
    new = rows[verdicts == NEW]
    labels = [
        (row, item.label) for row, item in portion.others.items() if item.label is not None and first <= row < stop
    ]
    positions = np.searchsorted(new, [row for row, _ in labels])
    state.take(
        _events(state.own, portion, new), state.label_rows_of([label for _, label in labels]), positions,
        read=False, undoable=False,
    )  # fmt: skip
    state.offset = int(portion.offsets[stop - 1]) + 1


def _events(state: FeatureState, portion: Portion, rows: Ints) -> npt.NDArray[Any]:
    """Rows of EVENT of these payments."""
    plain = portion.columns.plain[rows]
    if plain.all():
        return column_rows(state, portion.columns, rows)
    found = np.zeros(len(rows), EVENT)
    found[plain] = column_rows(state, portion.columns, rows[plain])
    closely = [portion.others[row].payment for row in rows[~plain].tolist()]
    found[~plain] = event_rows(state, [payment for payment in closely if payment is not None])
    return found
