"""CSV and Parquet files of others, read in batches with bounded memory. Values stay as they stand in the file.

Knows nothing of transactions: `import_rules` judges the rows.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from fraud_pipeline.adapters.import_mapping import CsvFormat
from fraud_pipeline.errors import DatasetError

BATCH_ROWS = 131_072
BLOCK_BYTES = 8 << 20
"""Of a CSV at a time; also the longest row that can be read."""
HEADER_BLOCK_BYTES = 1 << 20
_READ_ERRORS = (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError)

Progress = Callable[[int, int], None]
"""Called with (bytes or rows done, of how many)."""


@dataclass(frozen=True, slots=True)
class MalformedRow:
    """A CSV row that cannot be cut into its columns. `lines` above 1: a quote left open has swallowed those after it."""

    row_number: int
    text: str
    reason: str
    lines: int


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Rows of a file: `row_numbers` (int64, from 1, the header not counted), their columns, and the malformed among them."""

    row_numbers: npt.NDArray[np.int64]
    columns: pa.RecordBatch
    malformed: tuple[MalformedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was opened once: what it is, and the columns it has."""

    path: Path
    kind: Literal["csv", "parquet"]
    columns: tuple[str, ...]
    csv: CsvFormat
    gzipped: bool = False

    def batches(self, columns: Sequence[str], progress: Progress | None = None) -> Iterator[FileBatch]:
        """All rows, with these columns only. Raises DatasetError where the file cannot be read on."""
        wanted = list(dict.fromkeys(columns))
        return _csv_batches(self, wanted, progress) if self.kind == "csv" else _parquet_batches(self, wanted, progress)

    def fingerprint(self) -> str:
        """Hash (BLAKE2b, hex) of the file's bytes."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def open_source(path: Path, csv: CsvFormat) -> SourceFile:
    """Look at a file: by its first bytes Parquet, gzipped CSV or CSV. Raises DatasetError for anything else."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DatasetError(f"{path} {what}.", remedy="Give the path of a CSV or Parquet file.")
    with _readable(path):
        with path.open("rb") as file:
            start = file.read(4096)
        if not start:
            raise DatasetError(f"{path} is empty.", remedy="Give a CSV with a header and rows, or a Parquet file.")
        if start.startswith(b"PAR1"):
            with pq.ParquetFile(path) as parquet:
                return SourceFile(path, "parquet", tuple(parquet.schema_arrow.names), csv)
        gzipped = start.startswith(b"\x1f\x8b")
        if not gzipped and (
            path.suffix.lower() in (".parquet", ".pq") or b"\x00" in start or start.startswith(b"PK\x03\x04")
        ):
            raise DatasetError(
                f"{path} is neither Parquet nor CSV: it begins with {start[:8]!r}.",
                remedy="Convert it to CSV (UTF-8, with a header) or Parquet.",
            )
        source = SourceFile(path, "csv", (), csv, gzipped)
        with _opened_csv(source, None, lambda _: "skip", block_bytes=HEADER_BLOCK_BYTES) as (reader, _):
            columns = tuple(reader.schema.names)
    return SourceFile(path, "csv", columns, csv, gzipped)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _READ_ERRORS as err:
        text = " ".join(str(err).split())
        raise DatasetError(f"{path} cannot be read: {text}.", remedy="Check the file and its [csv] settings.") from err


def _parquet_batches(source: SourceFile, columns: list[str], progress: Progress | None) -> Iterator[FileBatch]:
    done = 0
    with _readable(source.path), pq.ParquetFile(source.path) as file:
        total = file.metadata.num_rows
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield FileBatch(np.arange(done + 1, done + batch.num_rows + 1, dtype=np.int64), batch)
            done += batch.num_rows
            if progress is not None:
                progress(done, total)


@dataclass(slots=True)
class _CountedStream:
    """Bytes on their way to the CSV reader; counts the lines that hold something, so that none can vanish unseen."""

    stream: IO[bytes]
    lines: int = 0
    closed: bool = False
    _line_is_blank: bool = field(default=True)

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        content = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(content == ord("\n"))
        # Characters other than \r and \n seen up to each line end: a line is blank when the count did not move.
        seen = np.cumsum((content != ord("\n")) & (content != ord("\r")), dtype=np.int64)
        if len(ends):
            at_end = seen[ends]
            filled = np.diff(at_end, prepend=0) > 0
            filled[0] |= not self._line_is_blank
            self.lines += int(filled.sum())
            self._line_is_blank = int(seen[-1]) == int(at_end[-1])
        elif len(data):
            self._line_is_blank &= int(seen[-1]) == 0
        return data

    def total_lines(self) -> int:
        """Lines seen; once the stream is at its end, with the one that has no line break after it."""
        return self.lines + (not self._line_is_blank)

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return True


@contextmanager
def _opened_csv(
    source: SourceFile,
    columns: list[str] | None,
    on_malformed: Callable[[pacsv.InvalidRow], str],
    *,
    block_bytes: int,
) -> Iterator[tuple[pacsv.CSVStreamingReader, tuple[_CountedStream, IO[bytes]]]]:
    with source.path.open("rb") as raw, closing(gzip.GzipFile(fileobj=raw) if source.gzipped else raw) as stream:
        counted = _CountedStream(stream)  # type: ignore[arg-type]  # GzipFile reads like a binary file
        reader = pacsv.open_csv(
            pa.PythonFile(counted, mode="r"),
            # One thread: rows keep their order and the malformed ones have a number.
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block_bytes, encoding=source.csv.encoding),
            parse_options=pacsv.ParseOptions(
                delimiter=source.csv.delimiter,
                newlines_in_values=source.csv.multiline,
                invalid_row_handler=on_malformed,
            ),
            # Bytes, not text: one value that is not UTF-8 must cost its row, not the block.
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(columns or (), pa.binary()), include_columns=columns, check_utf8=False
            ),
        )
        with reader:
            yield reader, (counted, raw)


def _csv_batches(source: SourceFile, columns: list[str], progress: Progress | None) -> Iterator[FileBatch]:
    found: list[MalformedRow] = []

    def on_malformed(row: pacsv.InvalidRow) -> str:
        lines = row.text.count("\n") + 1
        reason = f"has {row.actual_columns} columns, not {row.expected_columns}"
        reason += ": a quote is not closed" if lines > 1 else ""
        found.append(MalformedRow(row.number - 1, row.text[:500], reason, lines))  # Arrow counts the header too
        return "skip"

    good, told, size = 0, 0, source.path.stat().st_size
    with (
        _readable(source.path),
        _opened_csv(source, columns, on_malformed, block_bytes=BLOCK_BYTES) as (reader, (counted, raw)),
    ):
        for batch in reader:
            numbers = _row_numbers(good, batch.num_rows, found)
            yield FileBatch(numbers, batch, tuple(found[told:]))
            told, good = len(found), good + batch.num_rows
            if progress is not None:
                progress(min(raw.tell(), size), size)
        lines = counted.total_lines()
    if told < len(found):  # malformed rows after the last good one
        yield FileBatch(np.empty(0, np.int64), pa.RecordBatch.from_pylist([], reader.schema), tuple(found[told:]))
    rows = good + sum(row.lines for row in found)
    if not source.csv.multiline and lines - 1 > rows:
        raise DatasetError(
            f"{source.path} has {lines - 1} lines but {rows} rows: in some row a quote is opened and not closed.",
            remedy="Mend it; or, where values really hold line breaks, set `multiline = true` under [csv] in the mapping.",
        )


def _row_numbers(good_before: int, count: int, malformed: Sequence[MalformedRow]) -> npt.NDArray[np.int64]:
    """The numbers in the file of the next `count` well-formed rows, when `good_before` came before them."""
    skipped = np.array([row.row_number for row in malformed], np.int64)
    ordinal = np.arange(good_before + 1, good_before + count + 1, dtype=np.int64)
    # Before skipped row number s (the i-th, from 0) there are s - 1 - i good ones.
    return ordinal + np.searchsorted(skipped - 1 - np.arange(len(skipped)), ordinal, side="left")
