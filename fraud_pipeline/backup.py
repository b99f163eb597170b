"""`fraud backup` and `fraud restore`: ledger, registry, checkpoints, and what of the home cannot be made again.

A backup may be taken while everything runs. Checkpoints come first and the ledger after them, each as of one moment: the state may
lag behind the ledger, never be ahead of it, and recovery replays the difference. What the ledger names (bundles, days, reports) is
read after it, so it is there. Kafka's log is not part of it: the ledger holds every payment that its sink has stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import fsspec

from fraud_pipeline.adapters.backup_manifest import NAME, BackupManifest, read_manifest, verify, write_manifest
from fraud_pipeline.adapters.backup_registry import RegistryPlace, back_up_registry, refuse_filled, restore_registry
from fraud_pipeline.adapters.ledger_database import LedgerDatabase, parse_url
from fraud_pipeline.adapters.ledger_schema import SCHEMA_VERSION, metadata
from fraud_pipeline.adapters.table_copy import copy_tables, count_rows, snapshot
from fraud_pipeline.errors import DependencyError, InputError
from fraud_pipeline.settings import Settings

Progress = Callable[[str, int, int], None]
LEDGER: Final = "ledger.db"
REGISTRY: Final = "mlflow"
CHECKPOINTS: Final = "checkpoints"
HOME: Final = "home"
FOLDERS: Final = ("source", "data", "bundles", "reports", "plots")
"""Of the home. The rest is made again (models between two steps, Dagster's own files) or is a server's."""
FILES: Final = ("stream.db", "journal.db")
"""SQLite files of the home: the embedded log, and what a service decided while the ledger was away."""
MARKER: Final = ".restoring"
"""In a home that is being restored: which backup, and what of it is done. Restoring that backup again goes on from there."""
STEPS: Final = 4


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was written or read."""

    address: str
    identity: str
    made_at: str
    files: int
    bytes: int
    ledger: dict[str, int]
    registry: dict[str, int]


def back_up(
    settings: Settings, address: str, *, now: datetime, mlflow: str = "", progress: Progress = lambda *_: None
) -> BackupReport:
    """Write a backup to a folder or an fsspec address that does not exist yet; it is there whole or not at all.

    Raises:
        InputError: something is there already, or MLflow's database cannot be told.
        DependencyError: a database, MLflow or the target does not answer.
    """
    files, path = _target(address)
    if files.exists(path) and files.ls(path):
        raise InputError(f"{address} is not empty.", remedy="Name a folder that is not there yet, one for each backup.")
    place = _registry(settings, mlflow)
    with _staging(files, path) as folder:
        progress("checkpoints", 0, STEPS)
        _fetch_tree(settings.checkpoint_url, folder / CHECKPOINTS)
        progress("ledger", 1, STEPS)
        ledger = _back_up_ledger(settings.ledger_url, folder / LEDGER)
        progress("registry", 2, STEPS)
        registry = {}
        if place.exists():
            (folder / REGISTRY).mkdir()
            registry = back_up_registry(place, folder / REGISTRY)
        progress("home", 3, STEPS)
        _back_up_home(settings.home, folder / HOME)
        facts = {
            "made_at": now.isoformat(), "version": version("fraud-pipeline"), "ledger_schema": SCHEMA_VERSION,
            "ledger": ledger, "registry": registry, "time_zone": settings.time_zone, "currency": settings.currency,
        }  # fmt: skip
        manifest = write_manifest(folder, facts)
        _publish(folder, files, path)
    return _report(address, manifest)


def restore(
    settings: Settings, address: str, *, mlflow: str = "", progress: Progress = lambda *_: None
) -> BackupReport:
    """Fill an empty ledger, registry, checkpoint store and home with a backup, SQLite or PostgreSQL on either side.

    Everything is verified before anything is written. After a kill, restoring the same backup goes on.

    Raises:
        NotFound: there is no backup.
        IntegrityError: it is damaged.
        InputError: the target holds something already.
    """
    place = _registry(settings, mlflow)
    with _fetched(address) as folder:
        manifest = read_manifest(folder)
        progress("verifying", 0, STEPS + 1)
        verify(folder, manifest)
        done = _begun(settings.home, manifest)
        if done is None:
            _refuse_filled(settings, place)
            done = []
            _mark(settings.home, manifest, done)
        steps: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("home", lambda: _restore_home(folder / HOME, settings.home)),
            ("checkpoints", lambda: _put_tree(folder / CHECKPOINTS, settings.checkpoint_url)),
            ("registry", lambda: _restore_registry(place, folder / REGISTRY)),
            ("ledger", lambda: _restore_ledger(folder / LEDGER, settings.ledger_url)),
        )
        for number, (name, step) in enumerate(steps, 1):
            if name not in done:
                progress(name, number, STEPS + 1)
                step()
                done.append(name)
                _mark(settings.home, manifest, done)
        (settings.home / MARKER).unlink()
    return _report(address, manifest)


# The ledger


def _back_up_ledger(url: str, file: Path) -> dict[str, int]:
    source, target = LedgerDatabase(url), LedgerDatabase(f"sqlite:///{file}")
    try:
        source.migrate()
        target.migrate()
        with source.reading() as reading, target.writing() as writing:
            snapshot(reading)
            rows = copy_tables(reading, writing, metadata)
    finally:
        source.close()
        target.close()
    _close_file(file)
    return rows


def _restore_ledger(file: Path, url: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fraud-restore-") as folder:
        copied = Path(folder, LEDGER)
        shutil.copyfile(file, copied)
        source, target = LedgerDatabase(f"sqlite:///{copied}"), LedgerDatabase(url)
        try:
            source.migrate()  # a backup of an older version
            target.migrate()
            with source.reading() as reading, target.writing() as writing:
                if not any(count_rows(writing, metadata).values()):  # else a kill came right after the commit
                    copy_tables(reading, writing, metadata)
        finally:
            source.close()
            target.close()


def _close_file(path: Path) -> None:
    """One file, with nothing beside it that a copy would miss."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")


# The registry


def _registry(settings: Settings, database: str) -> RegistryPlace:
    """`database` is a name on the ledger's server, or an address."""
    uri = settings.mlflow_tracking_uri
    url = uri
    if uri.startswith(("http://", "https://")):
        ledger = parse_url(settings.ledger_url)
        if "://" in database:
            url = database
        elif ledger.get_backend_name() == "postgresql":
            named = ledger.set(drivername="postgresql+psycopg2", database=database or "mlflow")
            url = named.render_as_string(hide_password=False)
        else:
            raise InputError(
                f"Which database the MLflow server at {uri} uses cannot be told.",
                remedy="Name it: --mlflow postgresql+psycopg2://user:password@host:5432/mlflow.",
            )
    return RegistryPlace(uri, url, artifact_root=settings.artifacts_dir)


def _restore_registry(place: RegistryPlace, folder: Path) -> None:
    """May be done twice: its database is one transaction that begins with emptying it, and artifacts are written over."""
    if folder.exists():
        restore_registry(place, folder)


# Files


def _back_up_home(home: Path, folder: Path) -> None:
    folder.mkdir()
    for name in FOLDERS:
        _copy_tree(home / name, folder / name)
    for name in FILES:
        if (home / name).exists():
            with (
                contextlib.closing(sqlite3.connect(home / name)) as old,
                contextlib.closing(sqlite3.connect(folder / name)) as new,
            ):
                old.backup(new)
            _close_file(folder / name)


def _restore_home(folder: Path, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        _copy_tree(folder / name, home / name)
    for name in FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, home / name)


def _copy_tree(source: Path, target: Path) -> None:
    """Every file but those that are just being written (their names begin with a dot) or go away meanwhile."""
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path, target / inside)


def _fetch_tree(url: str, folder: Path) -> None:
    files, root = _target(url)
    folder.mkdir()
    try:
        found = files.find(root)
    except FileNotFoundError:
        return
    for path in found:
        inside = path.removeprefix(root).lstrip("/")
        if not any(part.startswith(".") for part in inside.split("/")):
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # an old checkpoint that went meanwhile
                files.get_file(path, str(folder / inside))


def _put_tree(folder: Path, url: str) -> None:
    files, root = _target(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            to = f"{root}/{path.relative_to(folder).as_posix()}"
            files.makedirs(to.rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), to)


# The place of a backup


def _target(address: str) -> tuple[Any, str]:
    try:
        files, path = fsspec.core.url_to_fs(address if "://" in address else str(Path(address).expanduser().absolute()))
    except (ImportError, ValueError) as err:
        raise DependencyError(f"{address} cannot be used: {err}.", remedy="Install what its scheme needs.") from err
    return files, str(path).rstrip("/")


def _is_local(files: Any) -> bool:
    return "file" in (files.protocol if isinstance(files.protocol, tuple) else (files.protocol,))


@contextlib.contextmanager
def _staging(files: Any, path: str) -> Iterator[Path]:
    """Where a backup is put together: beside its place, where that is a folder here, so that renaming is all that is left."""
    beside = Path(path).parent if _is_local(files) else None
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".fraud-backup-", dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, files: Any, path: str) -> None:
    if _is_local(files):
        if Path(path).exists():
            Path(path).rmdir()  # empty, as was seen before
        os.replace(folder, path)
        return
    for each in sorted(folder.rglob("*"), key=lambda one: one.name == NAME):  # the manifest last
        if each.is_file():
            to = f"{path}/{each.relative_to(folder).as_posix()}"
            files.makedirs(to.rpartition("/")[0], exist_ok=True)
            files.put_file(str(each), to)


@contextlib.contextmanager
def _fetched(address: str) -> Iterator[Path]:
    files, path = _target(address)
    if _is_local(files):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="fraud-restore-") as folder:
        _fetch_tree(address, Path(folder) / "backup")
        yield Path(folder) / "backup"


def _report(address: str, manifest: BackupManifest) -> BackupReport:
    facts = manifest.facts
    return BackupReport(
        address, manifest.identity, str(facts["made_at"]), len(manifest.files), manifest.bytes,
        dict(facts["ledger"]), dict(facts["registry"]),
    )  # fmt: skip


# What is there before a restore


def _refuse_filled(settings: Settings, place: RegistryPlace) -> None:
    for name in (*FOLDERS, *FILES):
        if (settings.home / name).exists():
            raise InputError(
                f"The home {settings.home} has {name} already.", remedy="Restore into an empty FRAUD_HOME."
            )
    files, root = _target(settings.checkpoint_url)
    if files.exists(root) and files.find(root):
        raise InputError(f"There are checkpoints at {settings.checkpoint_url}.", remedy="Restore into an empty place.")
    url = parse_url(settings.ledger_url)
    if url.get_backend_name() != "sqlite" or Path(str(url.database)).exists():
        database = LedgerDatabase(settings.ledger_url)
        try:
            database.migrate()
            with database.reading() as connection:
                filled = [name for name, rows in count_rows(connection, metadata).items() if rows]
        finally:
            database.close()
        if filled:
            raise InputError(
                f"The ledger {database.address} has rows already, in {', '.join(filled)}.",
                remedy="Restore into an empty database.",
            )
    refuse_filled(place)


def _begun(home: Path, manifest: BackupManifest) -> list[str] | None:
    """What an earlier restore of this backup into this home did; None where there was none."""
    try:
        state = json.loads((home / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if state["backup"] != manifest.identity:
        raise InputError(
            f"Another backup's restore into {home} was cut off.",
            remedy="Restore that one again, or begin with an empty FRAUD_HOME.",
        )
    return list(state["done"])


def _mark(home: Path, manifest: BackupManifest, done: list[str]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    new = home / f"{MARKER}.new"
    new.write_text(json.dumps({"backup": manifest.identity, "done": done}), encoding="utf-8")
    os.replace(new, home / MARKER)
