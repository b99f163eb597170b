"""The rules of the Transaction contract over whole batches of a file: good rows become transactions and labels, bad ones are named.

The same rules as `domain.transaction.parse_transaction`, minus the two of the live routes (age and receipt); a property
test keeps them equal. Knows nothing of files and folders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TIMESTAMP, transaction_schema
from fraud_pipeline.adapters.import_files import FileBatch
from fraud_pipeline.adapters.import_mapping import (
    ANY,
    ROW,
    AttributeSource,
    FieldSource,
    LabelSource,
    Mapping,
    TimeSource,
    template_parts,
)
from fraud_pipeline.adapters.import_values import Mask, Read, read_amounts, read_numbers, read_text, read_times
from fraud_pipeline.domain.iso_codes import COUNTRIES
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX, CHANNELS

ROW_NUMBER = "row_number"
QUARANTINE_SCHEMA = pa.schema(
    [(ROW_NUMBER, pa.int64()), ("field", pa.string()), ("value", pa.string()), ("reason", pa.string())]
)
EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG)."""
_SHOWN = 80
_YEAR_US = 365.25 * 86_400e6


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """What became of a batch. The two tables have their schemas' columns and `row_number` last."""

    transactions: pa.Table
    labels: pa.Table
    quarantine: pa.Table
    rejected_rows: int


@dataclass(slots=True)
class _Findings:
    """Broken rules, gathered column by column."""

    batch: FileBatch
    bad: Mask
    tables: list[pa.Table] = field(default_factory=list)

    def add(self, mask: Mask, name: str, reason: str, values: pa.Array | None) -> None:
        if not mask.any():
            return
        rows = np.flatnonzero(mask)
        self.bad |= mask
        shown: list[str | None] = [None] * len(rows)
        if values is not None:
            shown = [shorten(value) for value in values.take(pa.array(rows)).to_pylist()]
        self.tables.append(quarantine_table(self.batch.row_numbers[rows], name, shown, reason))

    def add_read(self, read: Read, name: str, values: pa.Array, *, required: bool) -> None:
        for mask, reason in read.broken:
            self.add(mask, name, reason, values)
        if required:
            self.add(read.missing & ~read.is_broken(), name, "must not be null", values)


def shorten(value: object) -> str | None:
    """A value as the quarantine shows it: at most 80 characters, with escapes for what is not text."""
    if value is None:
        return None
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def quarantine_table(
    row_numbers: npt.NDArray[np.int64], name: str, values: Sequence[str | None], reason: str
) -> pa.Table:
    """One broken rule in some rows, as the quarantine keeps it."""
    count = len(row_numbers)
    columns = [pa.array(row_numbers), pa.repeat(name, count), pa.array(values, pa.string()), pa.repeat(reason, count)]
    return pa.Table.from_arrays(columns, schema=QUARANTINE_SCHEMA)


def check_batch(batch: FileBatch, mapping: Mapping, *, currency: str) -> CheckedBatch:
    """Apply a resolved mapping to a batch and hold each row to the contract; `currency` is the only one accepted.

    Raises MappingError where a column's type can never hold its field.
    """
    found = _Findings(batch, np.zeros(len(batch.row_numbers), bool))
    columns: dict[str, pa.Array] = {"event_time": _moments(found, mapping.event_time, "event_time", required=True)}
    amounts = read_amounts(_column(batch, mapping.amount.column), mapping.amount)
    found.add_read(amounts, "amount", _column(batch, mapping.amount.column), required=True)
    columns["amount_minor"] = pa.array(amounts.values)
    for name, rule in _text_rules(currency).items():
        columns[name] = _text_field(found, name, getattr(mapping, name), rule)
    columns["latitude"], columns["longitude"] = _location(found, mapping)
    for name, attribute in mapping.attributes.items():
        columns[ATTRIBUTE_PREFIX + name] = _attribute(found, name, attribute, columns["event_time"])
    label_fraud, known_at = _label(found, mapping.label, columns["event_time"])

    good = pa.array(~found.bad)
    schema = transaction_schema(list(mapping.attributes))
    count = len(batch.row_numbers)
    all_rows = pa.Table.from_arrays(
        [columns.get(f.name, pa.nulls(count, f.type)).cast(f.type) for f in schema], schema=schema
    ).append_column(ROW_NUMBER, pa.array(batch.row_numbers))
    labels = _labels(all_rows, label_fraud, known_at, mapping.label).filter(
        pc.and_(good, pc.and_(pc.is_valid(label_fraud), pc.is_valid(known_at)))
    )
    malformed = [
        quarantine_table(np.array([row.row_number]), "row", [shorten(row.text)], row.reason) for row in batch.malformed
    ]
    quarantine = pa.concat_tables([QUARANTINE_SCHEMA.empty_table(), *malformed, *found.tables]).sort_by(ROW_NUMBER)
    rejected = int(found.bad.sum()) + sum(row.lines for row in batch.malformed)
    return CheckedBatch(all_rows.filter(good), labels, quarantine, rejected)


def _column(batch: FileBatch, name: str) -> pa.Array:
    return batch.columns.column(name)


@dataclass(frozen=True, slots=True)
class _TextRule:
    """What a text field must be. `wrong` judges distinct values; a missing one becomes `default`, or is an error."""

    wrong: Callable[[pa.Array], Mask]
    reason: str
    default: str | None = None
    required: bool = False


def _text_rules(currency: str) -> dict[str, _TextRule]:
    text = "must be text of 1 to {} printable characters"
    return {
        "transaction_id": _TextRule(
            lambda v: ~_matches(v, r"^[A-Za-z0-9._:\-]{1,64}$"), "must be 1 to 64 of A-Z a-z 0-9 . _ : -", required=True
        ),
        "customer_id": _TextRule(lambda v: _not_printable(v, 64), text.format(64), required=True),
        "merchant_id": _TextRule(lambda v: _not_printable(v, 64), text.format(64), required=True),
        "currency": _TextRule(lambda v: _not_in(v, {currency}), f"must be {currency}", default=currency),
        "merchant_category": _TextRule(lambda v: _not_printable(v, 32), text.format(32), default="unknown"),
        "channel": _TextRule(
            lambda v: _not_in(v, CHANNELS), f"must be one of {', '.join(CHANNELS)}", default="unknown"
        ),
        "country": _TextRule(lambda v: _not_in(v, COUNTRIES), "must be an ISO 3166-1 alpha-2 code in capitals"),
        "device_id": _TextRule(lambda v: _not_printable(v, 64), text.format(64)),
    }


def _not_printable(values: pa.Array, longest: int) -> Mask:
    wrong = (pc.utf8_length(values).to_numpy(zero_copy_only=False) > longest) | ~_matches(values, r"^[ -~]*$")
    for i in np.flatnonzero(wrong):  # too long, or not plain ASCII: the contract's own words decide
        text = values[int(i)].as_py()
        wrong[i] = len(text) > longest or not text.isprintable()
    return wrong


def _matches(values: pa.Array, pattern: str) -> Mask:
    return pc.match_substring_regex(values, pattern).to_numpy(zero_copy_only=False)


def _not_in(values: pa.Array, allowed: frozenset[str] | set[str] | tuple[str, ...]) -> Mask:
    return ~pc.is_in(values, value_set=pa.array(sorted(allowed))).to_numpy(zero_copy_only=False)


def _text_field(found: _Findings, name: str, source: FieldSource | None, rule: _TextRule) -> pa.Array:
    count = len(found.batch.row_numbers)
    if source is None:
        return pa.repeat(rule.default, count) if rule.default else pa.nulls(count, pa.string())
    if source.constant is not None:
        text, raw = pa.repeat(source.constant, count), None
    elif source.template is not None:
        text, raw = _templated(found, name, source.template), None
    else:
        raw = _column(found.batch, source.column or "")
        read = read_text(raw, name)
        found.add_read(read, name, raw, required=rule.required)
        text = read.values
    codes = text.dictionary_encode()
    values = codes.dictionary
    if source.values or source.default is not None:
        values = pa.array([source.translate(value) for value in values.to_pylist()], pa.string())
    wrong = np.append(rule.wrong(values), False)
    indices = codes.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    found.add(wrong[indices], name, rule.reason, text if raw is None else raw)
    text = values.take(codes.indices)
    return text if rule.default is None else pc.fill_null(text, rule.default)


def _templated(found: _Findings, name: str, template: str) -> pa.Array:
    """`"{row}-{CARD}"` filled in; null (and named) where one of its columns is."""
    count = len(found.batch.row_numbers)
    pieces: list[pa.Array] = [pa.repeat("", count)]
    for text, column in template_parts(template):
        pieces.append(pa.repeat(text, count))
        if column == ROW:
            pieces.append(pa.array(found.batch.row_numbers).cast(pa.string()))
        elif column:
            raw = _column(found.batch, column)
            read = read_text(raw, name)
            found.add_read(read, name, raw, required=True)
            pieces.append(read.values)
    return pc.binary_join_element_wise(*pieces, "")


def _moments(
    found: _Findings, source: TimeSource, name: str, *, required: bool = False, birthdays: bool = False
) -> pa.Array:
    column = _column(found.batch, source.column)
    read = read_times(column, source, name, birthdays=birthdays)
    found.add_read(read, name, column, required=required)
    return pa.array(read.values, mask=read.missing).cast(TIMESTAMP)


def _location(found: _Findings, mapping: Mapping) -> tuple[pa.Array, pa.Array]:
    if mapping.latitude is None or mapping.longitude is None:
        nothing = pa.nulls(len(found.batch.row_numbers), pa.float64())
        return nothing, nothing
    given, places = [], []
    for name, column, limit in (("latitude", mapping.latitude, 90.0), ("longitude", mapping.longitude, 180.0)):
        raw = _column(found.batch, column)
        read = read_numbers(raw, name)
        with np.errstate(invalid="ignore"):
            wrong = read.is_broken() | (np.abs(read.values) > limit)
        found.add(wrong, name, f"must be degrees from {-limit:g} to {limit:g}", raw)
        given.append(~read.missing)
        places.append(pa.array(read.values, mask=read.missing))
    found.add(given[0] & ~given[1], "longitude", "is required where latitude is given", None)
    found.add(given[1] & ~given[0], "latitude", "is required where longitude is given", None)
    return places[0], places[1]


def _attribute(found: _Findings, name: str, source: AttributeSource, event_time: pa.Array) -> pa.Array:
    field_name = ATTRIBUTE_PREFIX + name
    if source.function == "years_since":
        since = TimeSource(column=source.columns[0], format=source.format)
        start = _moments(found, since, field_name, birthdays=True)
        span = pc.subtract(event_time.view(pa.int64()), start.view(pa.int64()))
        return pc.divide(span.cast(pa.float64(), safe=False), _YEAR_US)
    numbers = []
    for column in source.columns:
        raw = _column(found.batch, column)
        read = read_numbers(raw, field_name)
        found.add_read(read, field_name, raw, required=False)
        numbers.append(np.where(read.is_broken(), np.nan, read.values))
    values = haversine_km(*numbers) if source.function == "haversine_km" else numbers[0]
    return pa.array(values, mask=np.isnan(values))


def haversine_km(
    latitude: npt.NDArray[np.float64],
    longitude: npt.NDArray[np.float64],
    other_latitude: npt.NDArray[np.float64],
    other_longitude: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Great-circle distance of two places in degrees, on a sphere; NaN where a coordinate is."""
    a, b, c, d = (np.radians(x) for x in (latitude, longitude, other_latitude, other_longitude))
    h = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0, 1)))


def _label(found: _Findings, source: LabelSource | None, event_time: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(is_fraud, known_at) of each row; null where it has no label, or none that anybody learned of."""
    if source is None:
        count = len(found.batch.row_numbers)
        return pa.nulls(count, pa.bool_()), pa.nulls(count, TIMESTAMP)
    raw = _column(found.batch, source.column)
    read = read_text(raw, "label")
    found.add_read(read, "label", raw, required=False)
    text = pc.utf8_lower(read.values)
    fraud, legitimate = (
        pc.is_in(text, value_set=pa.array([v.lower() for v in v_set])) for v_set in (source.fraud, source.legitimate)
    )
    if ANY in source.fraud:
        fraud = pc.and_not(pc.is_valid(text), legitimate)
    unknown = pc.and_(pc.is_valid(text), pc.invert(pc.or_(fraud, legitimate))).to_numpy(zero_copy_only=False)
    found.add(unknown, "label", f"must be one of {', '.join((*source.fraud, *source.legitimate))}", raw)
    is_fraud = pc.if_else(pc.is_valid(text), fraud, pa.scalar(None, pa.bool_()))
    if source.known_at is not None:
        known_at = _moments(found, source.known_at, "label.known_at")
        early = pc.fill_null(pc.less(known_at, event_time), False).to_numpy(zero_copy_only=False)
        found.add(
            early & ~found.bad,
            "label.known_at",
            "must not be before event_time",
            _column(found.batch, source.known_at.column),
        )
        return is_fraud, known_at
    known_at = pc.add(event_time.view(pa.int64()), (source.delay or timedelta()) // timedelta(microseconds=1))
    # Without a time of its own the absence of fraud is learned from silence, not from a label.
    return pc.if_else(is_fraud, is_fraud, pa.scalar(None, pa.bool_())), known_at.cast(TIMESTAMP)


def _labels(rows: pa.Table, is_fraud: pa.Array, known_at: pa.Array, source: LabelSource | None) -> pa.Table:
    own = {
        "is_fraud": is_fraud,
        "source": pa.repeat("import", rows.num_rows),
        "author": pa.repeat(source.author if source else "import", rows.num_rows),
        "known_at": known_at,
        "change": pc.fill_null(is_fraud, False).cast(pa.int8()),
    }
    columns = [own[f.name] if f.name in own else rows.column(f.name) for f in LABEL_SCHEMA]
    return pa.Table.from_arrays(columns, schema=LABEL_SCHEMA).append_column(ROW_NUMBER, rows.column(ROW_NUMBER))
