"""What the assets materialized, as daily Parquet: `data/<dataset>/day=YYYY-MM-DD/`.

A day exists when its `manifest.json` does; the manifest is written after the Parquet and carries its fingerprint, so a
kill in the middle leaves nothing that a reader would take for a day. A closed day keeps its content.
Knows nothing of how rows come about, nor of Dagster. `root` is always the home (FRAUD_HOME).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal, Self

import pyarrow as pa

from fraud_pipeline.adapters.dataset_schemas import (
    LABEL_SCHEMA,
    TIMESTAMP,
    TRANSACTION_SCHEMA,
    TRUTH_SCHEMA,
    attribute_names,
    concatenate,
    conform,
    days_between,
    transaction_schema,
    with_columns,
)
from fraud_pipeline.adapters.parquet_files import (
    content_fingerprint,
    read_json,
    read_parquet,
    sync_path,
    write_json,
    write_parquet,
)
from fraud_pipeline.adapters.source_store import SourceStore, SourceWriter, WorldManifest, refuse_other_world
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX
from fraud_pipeline.errors import DatasetError, IntegrityError

# The stores and their schemas are used together: this module offers all of them.
__all__ = [
    "ATTRIBUTE_PREFIX",
    "LABEL_SCHEMA",
    "TIMESTAMP",
    "TRANSACTION_SCHEMA",
    "TRUTH_SCHEMA",
    "DatasetStore",
    "DayManifest",
    "SourceStore",
    "SourceWriter",
    "Verdict",
    "WorldManifest",
    "attribute_names",
    "concatenate",
    "conform",
    "days_between",
    "refuse_other_world",
    "transaction_schema",
]

_MANIFEST: Final = "manifest.json"
_RETIRED: Final = "retired.json"
Verdict = Literal["passed", "failed", "unchecked"]


@dataclass(frozen=True, slots=True)
class DayManifest:
    """What one stored day holds. `failures`: one sentence for each expectation that failed."""

    rows: int
    fingerprint: str
    verdict: Verdict = "unchecked"
    failures: tuple[str, ...] = ()
    file: str = "part-0.parquet"
    file_bytes: int = 0

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(**{**content, "failures": tuple(content["failures"])})


class DatasetStore:
    """The materialized datasets of a home: `data/<dataset>/day=YYYY-MM-DD/`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def write_day(
        self, dataset: str, day: date, table: pa.Table, *, verdict: Verdict = "unchecked", replace: bool = False
    ) -> DayManifest:
        """Store a day. The same content again changes nothing; other content is refused unless `replace`.

        Raises DatasetError (closed day, columns), DependencyError (disk full; the day stays as it was).
        """
        table = conform(dataset, table)
        folder, fingerprint = self._folder(dataset, day), content_fingerprint(table)
        if self.is_retired(dataset, day):
            retired = self.retired(dataset, day)
            if retired.fingerprint == fingerprint:
                return retired
            raise DatasetError(
                f"{dataset} of {day} was deleted by the retention; it held other content ({retired.rows} rows; now {table.num_rows}).",
                remedy="A closed day is never rewritten: leave it, or use another FRAUD_HOME.",
            )
        old = self.manifest(dataset, day) if self.has_day(dataset, day) else None
        if old is not None and old.fingerprint == fingerprint:
            if _file_size(folder / old.file) != old.file_bytes:  # the Parquet was lost or cut: repair it
                write_parquet(folder / old.file, table)
                old = self._publish(folder, old)
            return old
        if old is not None and not replace:
            raise DatasetError(
                f"{dataset} of {day} is closed with other content ({old.rows} rows; now {table.num_rows}).",
                remedy="Use another FRAUD_HOME for another world.",
            )
        # A replacement goes beside the old part, and the manifest, replaced in one step, says which one counts.
        name = "part-1.parquet" if old is not None and old.file == "part-0.parquet" else "part-0.parquet"
        write_parquet(folder / name, table)
        manifest = self._publish(folder, DayManifest(table.num_rows, fingerprint, verdict, (), name))
        if old is not None:
            (folder / old.file).unlink(missing_ok=True)
        return manifest

    def set_verdict(self, dataset: str, day: date, verdict: Verdict, failures: Sequence[str] = ()) -> DayManifest:
        """Write what the data checks made of a stored day into its manifest."""
        old = self.manifest(dataset, day)
        new = replace(old, verdict=verdict, failures=tuple(failures))
        return old if new == old else self._publish(self._folder(dataset, day), new)

    def has_day(self, dataset: str, day: date) -> bool:
        return (self._folder(dataset, day) / "manifest.json").exists()

    def days(self, dataset: str) -> list[date]:
        """The stored days, in order."""
        return self._days(dataset, _MANIFEST)

    def _days(self, dataset: str, marked: str) -> list[date]:
        folders = (self.root / "data" / dataset).glob(f"day=*/{marked}")
        return sorted(date.fromisoformat(path.parent.name.removeprefix("day=")) for path in folders)

    def manifest(self, dataset: str, day: date) -> DayManifest:
        path = self._folder(dataset, day) / "manifest.json"
        if not path.exists():
            raise DatasetError(f"{dataset} has no day {day}.", remedy="Materialize it first: `fraud run`.")
        try:
            return DayManifest.from_json(read_json(path))
        except (KeyError, TypeError) as err:
            raise IntegrityError(f"{path} is corrupt: {err}.", remedy="Remove its folder and run again.") from err

    def read_day(
        self, dataset: str, day: date, columns: Sequence[str] | None = None, *, dictionary: bool = False
    ) -> pa.Table:
        """One day in stored order; `dictionary=True` gives strings dictionary-encoded (quicker to turn into codes)."""
        manifest = self.manifest(dataset, day)
        path = self._folder(dataset, day) / manifest.file
        table = read_parquet(path, columns, dictionary=dictionary)
        if table.num_rows != manifest.rows and table.num_columns:
            raise IntegrityError(
                f"{path} holds {table.num_rows} rows, its manifest says {manifest.rows}.",
                remedy="Remove its folder and run again.",
            )
        return with_columns(table, columns, f"{dataset} of {day}")

    def read_range(
        self,
        dataset: str,
        start: date,
        end: date,
        columns: Sequence[str] | None = None,
        *,
        dictionary: bool = False,
    ) -> pa.Table:
        """The days from `start` to the one before `end`, one after the other.

        Attributes that only some days have are null in the others. Raises DatasetError naming the days that are missing.
        """
        days = days_between(start, end)
        missing = [day for day in days if not self.has_day(dataset, day)]
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise DatasetError(
                f"{dataset} lacks {len(missing)} of the {len(days)} days from {start} to {end}: {shown}.",
                remedy="Materialize them first: `fraud run`.",
            )
        tables = [self.read_day(dataset, day, columns, dictionary=dictionary) for day in days]
        return concatenate(dataset, tables, columns)

    def retire_day(self, dataset: str, day: date) -> int:
        """Delete a day's rows and keep its manifest, under another name: what comes after it still knows what it held.

        Returns the bytes that were freed. The day is gone with one rename; a file that is left behind goes the next time.
        """
        folder = self._folder(dataset, day)
        if (folder / _MANIFEST).exists():
            os.replace(folder / _MANIFEST, folder / _RETIRED)
            sync_path(folder)
        freed = 0
        for path in folder.iterdir():
            if path.name != _RETIRED:
                freed += path.stat().st_size
                path.unlink()
        return freed

    def is_retired(self, dataset: str, day: date) -> bool:
        return (self._folder(dataset, day) / _RETIRED).exists()

    def retired_days(self, dataset: str) -> list[date]:
        """The days that were deleted, in order."""
        return self._days(dataset, _RETIRED)

    def retired(self, dataset: str, day: date) -> DayManifest:
        """What a deleted day held."""
        return DayManifest.from_json(read_json(self._folder(dataset, day) / _RETIRED))

    def verify(self, dataset: str, day: date) -> None:
        """Raise IntegrityError when the day's Parquet does not hold what was written."""
        manifest = self.manifest(dataset, day)
        if content_fingerprint(self.read_day(dataset, day)) != manifest.fingerprint:
            raise IntegrityError(
                f"{dataset} of {day} is not what was written (its fingerprint differs).",
                remedy="Remove its folder and run again.",
            )

    def _folder(self, dataset: str, day: date) -> Path:
        return self.root / "data" / dataset / f"day={day.isoformat()}"

    def _publish(self, folder: Path, manifest: DayManifest) -> DayManifest:
        manifest = replace(manifest, file_bytes=_file_size(folder / manifest.file))
        write_json(folder / "manifest.json", asdict(manifest))
        return manifest


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
