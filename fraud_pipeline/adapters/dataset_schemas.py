"""The columns of every dataset, as Arrow schemas, and tables made to have exactly them.

The names and types are the Transaction and Label contracts of `domain/transaction.py`. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import pyarrow as pa

from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX
from fraud_pipeline.errors import DatasetError

TIMESTAMP = pa.timestamp("us", tz="UTC")

TRANSACTION_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_time", TIMESTAMP),
        ("customer_id", pa.string()),
        ("merchant_id", pa.string()),
        ("amount_minor", pa.int64()),
        ("currency", pa.string()),
        ("merchant_category", pa.string()),
        ("channel", pa.string()),
        ("country", pa.string()),
        ("device_id", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("writer", pa.string()),
        ("sequence", pa.int64()),
    ]
)
LABEL_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("is_fraud", pa.bool_()),
        ("source", pa.string()),
        ("author", pa.string()),
        ("known_at", TIMESTAMP),
        ("change", pa.int8()),
        ("event_time", TIMESTAMP),
        ("customer_id", pa.string()),
        ("merchant_id", pa.string()),
        ("merchant_category", pa.string()),
        ("channel", pa.string()),
        ("country", pa.string()),
        ("device_id", pa.string()),
    ]
)
TRUTH_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("is_fraud", pa.bool_()),
        ("campaign_id", pa.string()),
        ("kind", pa.string()),
    ]
)
SCHEMAS = {"transactions": TRANSACTION_SCHEMA, "labels": LABEL_SCHEMA, "truth": TRUTH_SCHEMA}
OPTIONAL_COLUMNS = frozenset(
    {"country", "device_id", "latitude", "longitude", "writer", "sequence", "campaign_id", "kind"}
)


def transaction_schema(attributes: Sequence[str] = ()) -> pa.Schema:
    """The columns of a world's transactions: the contract's, then one `attributes.<name>` float64 per attribute."""
    return pa.schema([*TRANSACTION_SCHEMA, *(pa.field(ATTRIBUTE_PREFIX + name, pa.float64()) for name in attributes)])


def attribute_names(schema: pa.Schema) -> tuple[str, ...]:
    """The names of a table's attributes, in its order."""
    return tuple(n.removeprefix(ATTRIBUTE_PREFIX) for n in schema.names if n.startswith(ATTRIBUTE_PREFIX))


def conform(dataset: str, table: pa.Table) -> pa.Table:
    """`table` with exactly the columns of its dataset: ordered, cast, absent optional ones as nulls, no metadata.

    A dataset without a schema here (features) is taken as it is. Raises DatasetError naming the column that is missing,
    unknown or of another type.
    """
    table = table.replace_schema_metadata(None)
    schema = SCHEMAS.get(dataset)
    if schema is None:
        return table
    if schema is TRANSACTION_SCHEMA:
        schema = transaction_schema(attribute_names(table.schema))
    missing = [n for n in schema.names if n not in table.schema.names and n not in OPTIONAL_COLUMNS]
    unknown = [n for n in table.schema.names if n not in schema.names]
    if missing or unknown:
        raise DatasetError(f"{dataset}: columns missing: {missing}; columns that do not belong there: {unknown}.")
    columns = []
    for wanted in schema:
        try:
            columns.append(
                _cast(table.column(wanted.name), wanted.type)
                if wanted.name in table.schema.names
                else pa.nulls(table.num_rows, wanted.type)
            )
        except pa.ArrowException as err:
            raise DatasetError(f"{dataset}: column {wanted.name} is not {wanted.type}: {err}.") from err
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def days_between(start: date, end: date) -> list[date]:
    """The days from `start` to the one before `end`."""
    return [start + timedelta(days=i) for i in range((end - start).days)]


def concatenate(dataset: str, tables: Sequence[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """Tables of one dataset in the given order, as one; an empty list gives an empty table of the dataset's schema."""
    if not tables:
        schema = SCHEMAS.get(dataset)
        if schema is None:
            raise DatasetError(f"{dataset}: no days were asked for.")
        empty = schema.empty_table()
        return empty if columns is None else with_columns(empty, columns, dataset)
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries()


def with_columns(table: pa.Table, columns: Sequence[str] | None, what: str) -> pa.Table:
    """`table` with just `columns`; an attribute that it lacks is null, another column that it lacks is an error."""
    if columns is None:
        return table
    absent = [name for name in columns if name not in table.schema.names]
    unknown = [name for name in absent if not name.startswith(ATTRIBUTE_PREFIX)]
    if unknown:
        raise DatasetError(f"{what} has no column {', '.join(unknown)}.")
    for name in absent:
        table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
    return table.select(list(columns))
