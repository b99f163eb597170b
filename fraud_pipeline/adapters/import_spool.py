"""The import's external sort: rows of any order go in, days come out, one at a time, in bounded memory.

Rows are buffered, cut by day and appended to one Arrow stream file per day in a scratch folder. Also finds transaction
ids that occur twice, at 8 bytes of memory per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.import_rules import ROW_NUMBER

BUFFERED_ROWS = 400_000
"""About 50 MB of payments, 150 MB with 30 attributes."""
_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class DaySpool:
    """Rows by the day of one of their times."""

    def __init__(self, folder: Path, time_column: str) -> None:
        self.folder = folder
        self.time_column = time_column
        self.rows = 0
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._days: set[int] = set()

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self._buffered += table.num_rows
        if table.num_rows:
            self._buffer.append(table)
        if self._buffered >= BUFFERED_ROWS:
            self._flush()

    def days(self) -> list[date]:
        """The days that have rows, in order."""
        self._flush()
        return [_EPOCH + timedelta(days=day) for day in sorted(self._days)]

    def read_day(self, day: date) -> pa.Table:
        """A day's rows, in the order in which they were added."""
        self._flush()
        tables = []
        with pa.OSFile(str(self._path((day - _EPOCH).days))) as file:
            size = file.size()
            while file.tell() < size:
                with pa.ipc.open_stream(file) as stream:
                    tables.append(stream.read_all())
        return pa.concat_tables(tables)

    def tables(self) -> Iterator[pa.Table]:
        for day in self.days():
            yield self.read_day(day)

    def _path(self, day: int) -> Path:
        return self.folder / f"{day}.arrows"

    def _flush(self) -> None:
        if not self._buffer:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        table = pa.concat_tables(self._buffer)
        self._buffer, self._buffered = [], 0
        days = table.column(self.time_column).cast(pa.int64()).to_numpy() // _DAY_US
        if np.any(days[1:] < days[:-1]):
            order = np.argsort(days, kind="stable")
            table, days = table.take(pa.array(order)), days[order]
        table = table.combine_chunks()
        borders = [*np.flatnonzero(np.diff(days, prepend=days[0] - 1)).tolist(), len(days)]
        for start, end in pairwise(borders):
            day = int(days[start])
            self._days.add(day)
            with self._path(day).open("ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table.slice(start, end - start))


class DuplicateFinder:
    """Transaction ids that occur more than once: hashes of all, then a look at the few whose hashes meet."""

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.uint64]] = []

    def add(self, transaction_ids: pa.ChunkedArray) -> None:
        self._hashes.append(hash_ids(transaction_ids))

    def repeated(self, transactions: DaySpool) -> pa.Table:
        """(transaction_id, row_number) of each row whose id an earlier row of the file has, by row number."""
        empty = pa.table({"transaction_id": pa.array([], pa.string()), ROW_NUMBER: pa.array([], pa.int64())})
        hashes = np.sort(np.concatenate([np.empty(0, np.uint64), *self._hashes]))
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if not len(suspects):
            return empty
        found = [empty]
        for table in transactions.tables():
            mask = np.isin(hash_ids(table.column("transaction_id")), suspects)
            found.append(table.select(empty.column_names).filter(pa.array(mask)))
        rows = pa.concat_tables(found).sort_by([("transaction_id", "ascending"), (ROW_NUMBER, "ascending")])
        ids = rows.column("transaction_id").combine_chunks()
        again = np.zeros(len(ids), bool)
        again[1:] = pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        return rows.filter(pa.array(again)).sort_by(ROW_NUMBER)


def hash_ids(transaction_ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """64-bit hashes of valid transaction ids (at most 64 ASCII characters)."""
    if not len(transaction_ids):
        return np.empty(0, np.uint64)
    words = np.ascontiguousarray(transaction_ids.to_numpy().astype("S64")).view(np.uint64).reshape(-1, 8)
    mixed = np.zeros(len(words), np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * _MIX
        mixed ^= mixed >> _HALF
    return mixed
