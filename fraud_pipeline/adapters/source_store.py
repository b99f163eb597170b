"""The landed world of a home (`source/`): written once, as a whole, by a simulation or an import, and never changed.

Knows nothing of how its rows come about. `root` is always the home (FRAUD_HOME).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import pyarrow as pa

from fraud_pipeline.adapters.dataset_schemas import SCHEMAS, conform, transaction_schema, with_columns
from fraud_pipeline.adapters.parquet_files import (
    content_fingerprint,
    read_json,
    read_parquet,
    sync_path,
    write_error,
    write_json,
    write_parquet,
)
from fraud_pipeline.errors import Busy, DatasetError, IntegrityError, NotFound

WorldKind = Literal["simulation", "import"]
_SYNC_THREADS = 8
"""Many fsyncs at once share one commit of the file system's journal."""


@dataclass(frozen=True, slots=True)
class WorldManifest:
    """What the landed world is. `end` is exclusive; labels may become known after it."""

    kind: WorldKind
    name: str
    start: date
    end: date
    rows: int
    frauds: int
    labels: int
    parameters: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    attributes: tuple[str, ...] = ()
    currency: str = "USD"
    created_at: datetime | None = None
    format: int = 1

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        content.update(start=self.start.isoformat(), end=self.end.isoformat(), attributes=list(self.attributes))
        content["created_at"] = self.created_at.astimezone(UTC).isoformat() if self.created_at else None
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        created = content["created_at"]
        return cls(
            **{
                **content,
                "start": date.fromisoformat(content["start"]),
                "end": date.fromisoformat(content["end"]),
                "attributes": tuple(content["attributes"]),
                "created_at": datetime.fromisoformat(created) if created else None,
            }
        )


class SourceStore:
    """Reads the landed world: `source/`. It is complete when it has a manifest, and never changes then."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.folder = self.root / "source"

    def exists(self) -> bool:
        return (self.folder / "manifest.json").exists()

    def manifest(self) -> WorldManifest:
        """Raises NotFound where no world has landed."""
        path = self.folder / "manifest.json"
        if not path.exists():
            raise NotFound(
                f"{self.root} holds no world yet.",
                remedy="Make one: `fraud simulate`, or `fraud import FILE --mapping NAME`.",
            )
        content = read_json(path)
        if content.get("format") != 1:
            raise DatasetError(f"{path} has format {content.get('format')}; this code reads format 1.")
        try:
            return WorldManifest.from_json(content)
        except (KeyError, TypeError, ValueError) as err:
            raise IntegrityError(
                f"{path} is corrupt: {err}.", remedy="Remove `source/` and land the world again."
            ) from err

    def days(self, dataset: str) -> list[date]:
        """The days that have rows, in order."""
        folders = (self.folder / dataset).glob("day=*/part-0.parquet")
        return sorted(date.fromisoformat(path.parent.name.removeprefix("day=")) for path in folders)

    def has_dataset(self, dataset: str) -> bool:
        """Whether the world has it at all: an import knows no truth."""
        return (self.folder / dataset).is_dir()

    def read_day(self, dataset: str, day: date, columns: Sequence[str] | None = None) -> pa.Table:
        """One day; empty where the world has no rows on it.

        Raises DatasetError for a transaction day outside the world, and for a dataset that it does not have.
        """
        manifest = self.manifest()
        if dataset == "truth" and manifest.kind == "import":
            raise DatasetError("An imported world has no truth: only a simulation knows it.")
        if dataset == "transactions" and not manifest.start <= day < manifest.end:
            raise DatasetError(f"{day} is outside the world, which has {manifest.start} to {manifest.end} (exclusive).")
        path = self.folder / dataset / f"day={day.isoformat()}" / "part-0.parquet"
        if path.exists():
            return with_columns(read_parquet(path, columns), columns, f"{dataset} of {day}")
        schema = transaction_schema(manifest.attributes) if dataset == "transactions" else SCHEMAS.get(dataset)
        if schema is None:
            raise DatasetError(f"A world has no dataset {dataset!r}.")
        return with_columns(schema.empty_table(), columns, dataset)


class SourceWriter:
    """Lands a world: days into a staging folder, then all of it at once under `source/`. Use as a context manager.

    Raises Busy while another process lands one here. What a killed run left in staging is removed.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.folder = self.root / "source.staging"
        self._fingerprints: dict[tuple[str, date], str] = {}
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".source.lock").open("wb")
        except OSError as err:
            raise write_error(err, self.folder) from err
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            lock.close()
            raise Busy(f"Another process is landing a world in {self.root}.", remedy="Wait for it to end.") from err
        self._lock = lock
        shutil.rmtree(self.folder, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    def write_day(self, dataset: str, day: date, table: pa.Table) -> None:
        """Write a day once. An empty table leaves no file: a landed world without rows on a day has none."""
        if (dataset, day) in self._fingerprints:
            raise DatasetError(f"{dataset} of {day} was already written to this world.")
        table = conform(dataset, table)
        (self.folder / dataset).mkdir(parents=True, exist_ok=True)
        if not table.num_rows:
            return
        path = self.folder / dataset / f"day={day.isoformat()}" / "part-0.parquet"
        write_parquet(path, table, durable=False)  # complete() syncs them all, when most are on disk anyway
        self._fingerprints[dataset, day] = content_fingerprint(table)

    def fingerprint(self) -> str:
        """Hash of everything written so far, whatever the order of the days."""
        rows = sorted((dataset, day.isoformat(), digest) for (dataset, day), digest in self._fingerprints.items())
        return content_fingerprint(
            pa.table({n: [r[i] for r in rows] for i, n in enumerate(("dataset", "day", "hash"))})
        )

    def complete(self, manifest: WorldManifest) -> WorldManifest:
        """Publish the world. A manifest without a fingerprint gets that of the content.

        Landing the world that is already there changes nothing. Raises DatasetError where another one is.
        """
        manifest = replace(manifest, fingerprint=manifest.fingerprint or self.fingerprint())
        present = SourceStore(self.root)
        if present.exists():
            refuse_other_world(present, manifest.fingerprint)
            return present.manifest()
        write_json(self.folder / "manifest.json", manifest.to_json())
        try:
            with ThreadPoolExecutor(_SYNC_THREADS) as pool:
                list(pool.map(sync_path, _tree(self.folder)))
            shutil.rmtree(present.folder, ignore_errors=True)  # without a manifest it is the rest of a removed world
            os.replace(self.folder, present.folder)
            sync_path(self.root)
        except OSError as err:
            raise write_error(err, present.folder) from err
        return manifest


def refuse_other_world(present: SourceStore, fingerprint: str) -> None:
    """Raise DatasetError unless the landed world has this fingerprint: one home holds one world."""
    world = present.manifest()
    if world.fingerprint != fingerprint:
        raise DatasetError(
            f"{present.root} already holds another world ({world.kind} {world.name}, {world.rows} payments "
            f"from {world.start}); one home holds one world.",
            remedy="Set FRAUD_HOME to a new folder, or remove this one.",
        )


def _tree(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)
        yield Path(parent)
