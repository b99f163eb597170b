"""`fraud import`: a company's own file of payments becomes the landed world of a home, whole or not at all.

Reads in batches, keeps the contract (`import_rules`), sorts by day on disk (`import_spool`), names every rejected row in
a quarantine file. The same file, mapping and currency again change nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fraud_pipeline.adapters.import_files import Progress, SourceFile, open_source
from fraud_pipeline.adapters.import_mapping import Mapping
from fraud_pipeline.adapters.import_rules import QUARANTINE_SCHEMA, ROW_NUMBER, check_batch, quarantine_table
from fraud_pipeline.adapters.import_spool import DaySpool, DuplicateFinder
from fraud_pipeline.adapters.parquet_files import write_error
from fraud_pipeline.adapters.source_store import SourceStore, SourceWriter, WorldManifest
from fraud_pipeline.errors import DatasetError, InputError, MappingError

DUPLICATE = "is a duplicate of an earlier row"
HOPELESS_AFTER_ROWS = 100_000
"""From here on, a file of which most rows are rejected is not read to its end: its mapping is wrong."""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did. `reasons` counts broken rules by `field: rule`; a row may break several."""

    rows: int
    accepted: int
    rejected: int
    reasons: dict[str, int]
    fingerprint: str
    unchanged: bool
    frauds: int
    labels: int
    start: date
    end: date
    quarantine: Path


def import_file(
    path: Path,
    mapping: Mapping,
    *,
    home: Path,
    currency: str = "USD",
    max_reject_share: float = 0.01,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> ImportSummary:
    """Land the file as the world of `home`. `progress(done, total)`: the first half is reading, the second writing days.

    Raises MappingError (a column or type that does not fit), DatasetError (no such file, not CSV or Parquet, another
    world is here), InputError (more than `max_reject_share` of the rows rejected; the quarantine is kept and named),
    DependencyError (disk full). In each case nothing was imported and what was there is as it was.
    """
    if not 0 <= max_reject_share <= 1:
        raise InputError(f"The limit of rejected rows must be a share from 0 to 1, not {max_reject_share}.")
    source = open_source(path, mapping.csv)
    mapping = mapping.resolve(source.columns)
    _check_currency(mapping, currency)
    fingerprint = _input_fingerprint(source, mapping, currency)
    present = SourceStore(home)
    if present.exists():
        return _unchanged(present, fingerprint, path)
    with SourceWriter(home) as writer, _disk_errors(writer.folder):
        run = _Import(writer, mapping, currency)
        run.read(source, max_reject_share, _part(progress, 0))
        run.judge(path, max_reject_share)
        manifest = run.land(path, fingerprint, now or datetime.now(UTC), _part(progress, 1))
    return _summary(manifest, present, unchanged=False)


def _part(progress: Progress | None, half: int) -> Progress:
    """Report one of two halves of the work as a part of the whole."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(half * total + done, 2 * total)

    return report


def _check_currency(mapping: Mapping, currency: str) -> None:
    if mapping.currency is not None and mapping.currency.constant not in (None, currency):
        raise MappingError(
            f"The mapping's currency is {mapping.currency.constant}, this home's is {currency}; sums never mix currencies.",
            remedy=f"Set FRAUD_CURRENCY={mapping.currency.constant}.",
        )


def _input_fingerprint(source: SourceFile, mapping: Mapping, currency: str) -> str:
    rules = mapping.model_dump_json(exclude={"name", "description"})
    return hashlib.blake2b(f"{source.fingerprint()}\n{rules}\n{currency}".encode(), digest_size=16).hexdigest()


def _unchanged(present: SourceStore, fingerprint: str, path: Path) -> ImportSummary:
    world = present.manifest()
    if world.parameters.get("input") != fingerprint:
        raise DatasetError(
            f"{present.root} already holds a world ({world.kind} {world.name}, {world.rows} payments from {world.start}), "
            f"which is not {path.name} by this mapping; one home holds one world.",
            remedy="Set FRAUD_HOME to a new folder, or remove this one.",
        )
    return _summary(world, present, unchanged=True)


def _summary(world: WorldManifest, store: SourceStore, *, unchanged: bool) -> ImportSummary:
    rejected = int(world.parameters["rejected"])
    return ImportSummary(
        rows=world.rows + rejected,
        accepted=world.rows,
        rejected=rejected,
        reasons=dict(world.parameters["reasons"]),
        fingerprint=world.fingerprint,
        unchanged=unchanged,
        frauds=world.frauds,
        labels=world.labels,
        start=world.start,
        end=world.end,
        quarantine=store.folder / "quarantine.parquet",
    )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise write_error(err, folder) from err


@dataclass(slots=True)
class _Import:
    """One import under way in the writer's staging folder."""

    writer: SourceWriter
    mapping: Mapping
    currency: str
    rows: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repeated: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    transactions: DaySpool = field(init=False)
    labels: DaySpool = field(init=False)

    def __post_init__(self) -> None:
        self.transactions = DaySpool(self._scratch / "transactions", "event_time")
        self.labels = DaySpool(self._scratch / "labels", "known_at")

    @property
    def _scratch(self) -> Path:
        return self.writer.folder / "spool"

    @property
    def _quarantine(self) -> Path:
        return self.writer.folder / "quarantine.parquet"

    def read(self, source: SourceFile, max_reject_share: float, progress: Progress) -> None:
        """Every row to the spools or to the quarantine."""
        self._scratch.mkdir(parents=True)
        ids = DuplicateFinder()
        columns = [column for _, column in self.mapping.uses()]
        with pq.ParquetWriter(self._quarantine, QUARANTINE_SCHEMA, compression="zstd") as quarantine:
            for batch in source.batches(columns, progress):
                checked = check_batch(batch, self.mapping, currency=self.currency)
                ids.add(checked.transactions.column("transaction_id"))
                self.transactions.add(checked.transactions)
                self.labels.add(checked.labels)
                self.rows += checked.transactions.num_rows + checked.rejected_rows
                self._reject(checked.quarantine, checked.rejected_rows, quarantine)
                if self.rows >= HOPELESS_AFTER_ROWS and self.rejected > self.rows * max(0.5, max_reject_share):
                    return
            repeated = ids.repeated(self.transactions)
            self.repeated = repeated.column(ROW_NUMBER).to_numpy()
            shown = repeated.column("transaction_id").to_pylist()
            findings = quarantine_table(self.repeated, "transaction_id", shown, DUPLICATE)
            self._reject(findings, len(self.repeated), quarantine)

    def _reject(self, findings: pa.Table, rows: int, quarantine: pq.ParquetWriter) -> None:
        self.rejected += rows
        if findings.num_rows:
            quarantine.write_table(findings)
            named = pc.binary_join_element_wise(findings.column("field"), findings.column("reason"), ": ")
            self.reasons.update({item["values"]: item["counts"] for item in pc.value_counts(named).to_pylist()})

    def judge(self, path: Path, max_reject_share: float) -> None:
        """Stop here, with the quarantine kept for a look, when too much of the file was rejected."""
        if not self.rows:
            raise DatasetError(f"{path} has a header and no rows.", remedy="Give a file with payments in it.")
        if self.rejected <= self.rows * max_reject_share and self.rejected < self.rows:
            return
        kept = self.writer.root / "rejected_import.parquet"
        os.replace(self._quarantine, kept)
        common = "; ".join(f"{reason} ({count:,})" for reason, count in self.reasons.most_common(3))
        raise InputError(
            f"{self.rejected:,} of the {self.rows:,} rows read from {path.name} were rejected "
            f"({self.rejected / self.rows:.1%}, allowed {max_reject_share:.1%}); nothing was imported. "
            f"Most often: {common}.",
            remedy=f"Look at {kept}, mend the file or the mapping, or raise --max-reject-share.",
        )

    def land(self, path: Path, fingerprint: str, now: datetime, progress: Progress) -> WorldManifest:
        """Sort each day, write it, publish the world."""
        work = [(spool, day) for spool in (self.transactions, self.labels) for day in spool.days()]
        days: list[date] = []
        frauds = labels = 0
        for done, (spool, day) in enumerate(work, 1):
            if spool is self.labels:
                table = self._land_day(spool, "labels", day)
                labels += table.num_rows
                frauds += pc.sum(table.column("is_fraud")).as_py() or 0
            elif self._land_day(spool, "transactions", day).num_rows:
                days.append(day)
            progress(done, len(work))
        shutil.rmtree(self._scratch)
        manifest = WorldManifest(
            kind="import",
            name=self.mapping.name,
            start=days[0],
            end=days[-1] + timedelta(days=1),
            rows=self.rows - self.rejected,
            frauds=frauds,
            labels=labels,
            parameters=self._parameters(path, fingerprint),
            attributes=tuple(self.mapping.attributes),
            currency=self.currency,
            created_at=now,
        )
        manifest = self.writer.complete(manifest)
        (self.writer.root / "rejected_import.parquet").unlink(missing_ok=True)
        return manifest

    def _land_day(self, spool: DaySpool, dataset: str, day: date) -> pa.Table:
        table = spool.read_day(day)
        if len(self.repeated):
            table = table.filter(pa.array(~np.isin(table.column(ROW_NUMBER).to_numpy(), self.repeated)))
        table = table.sort_by([(spool.time_column, "ascending"), ("transaction_id", "ascending")])
        table = table.drop_columns([ROW_NUMBER])
        self.writer.write_day(dataset, day, table)
        return table

    def _parameters(self, path: Path, fingerprint: str) -> dict[str, Any]:
        return {
            "file": path.name,
            "mapping": self.mapping.name,
            "input": fingerprint,
            "rejected": self.rejected,
            "reasons": dict(self.reasons.most_common()),
        }
