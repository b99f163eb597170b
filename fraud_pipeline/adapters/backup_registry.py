"""MLflow's database and artifacts into a folder, and back, whichever kind either side is.

In the folder the database is an SQLite file of MLflow's own, and artifacts lie by experiment. Locations that the database names are
of its place; they are written anew for the place that it is restored to. MLflow must be of the same version on both sides.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url

from fraud_pipeline.adapters.table_copy import copy_tables, snapshot
from fraud_pipeline.errors import DependencyError, InputError

DATABASE: Final = "mlflow.db"
ARTIFACTS: Final = "artifacts"
LOCATED: Final = {
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
"""Columns that begin with the artifact location of an experiment."""
PROXIED: Final = "mlflow-artifacts:/"
"""Where an MLflow server that passes artifacts through keeps an experiment's, followed by its number."""
DEFAULT_EXPERIMENT: Final = "0"
"""MLflow makes it by itself wherever it starts; nothing of ours is in it."""


class RegistryPlace:
    """One MLflow: where clients reach it, its database, and where it keeps artifacts.

    `tracking_uri` is a server's or the database's own; `artifact_root` is for the latter.
    """

    def __init__(self, tracking_uri: str, database_url: str, *, artifact_root: Path) -> None:
        self.tracking_uri = tracking_uri
        self.is_server = tracking_uri.startswith(("http://", "https://"))
        self._url = make_url(database_url)
        self._root = artifact_root.absolute()

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path:
        """Of an SQLite."""
        return Path(str(self._url.database))

    def exists(self) -> bool:
        """Whether there is anything to back up."""
        return not self.is_sqlite or self.file.exists()

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        engine = sa.create_engine(self._url, poolclass=sa.NullPool)
        try:
            yield engine
        except sa.exc.OperationalError as err:
            reason = str(err.orig or err).strip().splitlines()[0]
            shown = self._url.render_as_string(hide_password=True)
            raise DependencyError(
                f"MLflow's database {shown} does not answer: {reason}.",
                remedy="Start it, or name it: --mlflow DATABASE, on the server of FRAUD_LEDGER_URL.",
            ) from err
        finally:
            engine.dispose()

    def location(self, experiment_id: str) -> str:
        """Where a new experiment's artifacts are."""
        return f"{PROXIED}{experiment_id}" if self.is_server else self._root.as_uri()

    def upgrade(self) -> None:
        """Make the tables, or bring them to this MLflow's version."""
        from mlflow.db import upgrade

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        if self.is_sqlite:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        upgrade.callback(self._url.render_as_string(hide_password=False))


def back_up_registry(place: RegistryPlace, folder: Path) -> dict[str, int]:
    """Write the database and the artifacts into the folder; returns how many experiments and runs.

    The database comes first: what it names is there then, and an artifact that came later is one too many, not one too few.
    """
    target = RegistryPlace("", f"sqlite:///{folder / DATABASE}", artifact_root=folder / ARTIFACTS)
    if place.is_sqlite:
        with (
            contextlib.closing(sqlite3.connect(place.file)) as old,
            contextlib.closing(sqlite3.connect(target.file)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
    else:
        target.upgrade()
        with place.engine() as source, target.engine() as sink, source.connect() as reading, sink.begin() as writing:
            snapshot(reading)
            _copy(reading, writing)
    with target.engine() as engine, engine.connect() as connection:
        experiments = len(_locations(connection))
        runs = connection.execute(sa.text("SELECT run_uuid, experiment_id, artifact_uri FROM runs")).all()
    for run_id, experiment, uri in runs:
        _download(place, str(uri), folder / ARTIFACTS / str(experiment) / str(run_id))
    return {"experiments": experiments, "runs": len(runs)}


def refuse_filled(place: RegistryPlace) -> None:
    """InputError where there are runs or models already."""
    if not place.exists():
        return
    with place.engine() as engine, engine.connect() as connection:
        there = set(sa.inspect(connection).get_table_names())
        for table in ("runs", "registered_models"):
            if table in there and connection.execute(sa.text(f"SELECT 1 FROM {table} LIMIT 1")).first():
                raise InputError(
                    f"MLflow at {place.tracking_uri} has {table.replace('_', ' ')} already.",
                    remedy="Restore into an empty database and home, or remove what is there yourself.",
                )


def restore_registry(place: RegistryPlace, folder: Path) -> None:
    """Fill an empty MLflow with what a folder holds; its database in one transaction, then the artifacts."""
    kept = RegistryPlace("", f"sqlite:///{folder / DATABASE}", artifact_root=folder / ARTIFACTS)
    place.upgrade()
    with kept.engine() as source, place.engine() as sink, source.connect() as reading, sink.begin() as writing:
        moves = {str(e): (str(at), place.location(str(e))) for e, at in _locations(reading)}
        _copy(reading, writing)
        _relocate(writing, moves)
        runs = writing.execute(sa.text("SELECT run_uuid, experiment_id, artifact_uri FROM runs")).all()
    for run_id, experiment, uri in runs:
        _upload(place, folder / ARTIFACTS / str(experiment) / str(run_id), str(uri))


def _locations(connection: Connection) -> list[Any]:
    return list(connection.execute(sa.text("SELECT experiment_id, artifact_location FROM experiments")).all())


def _copy(source: Connection, target: Connection) -> None:
    """All tables that both have, but Alembic's; what MLflow itself put into a new database goes first."""
    metadata = sa.MetaData()
    there = set(sa.inspect(target).get_table_names())
    wanted = [name for name in sa.inspect(source).get_table_names() if name in there and name != "alembic_version"]
    metadata.reflect(target, only=wanted)
    for table in reversed(metadata.sorted_tables):
        target.execute(sa.delete(table))
    copy_tables(source, target, metadata)


def _relocate(connection: Connection, moves: dict[str, tuple[str, str]]) -> None:
    """Write every location anew. Experiments share no prefix with another's, or share the very same root."""
    for experiment, (old, new) in moves.items():
        connection.execute(
            sa.text("UPDATE experiments SET artifact_location = :new WHERE experiment_id = :experiment"),
            {"new": new, "experiment": int(experiment)},
        )
        runs = "SELECT run_uuid FROM runs WHERE experiment_id = :experiment"
        for table, columns in LOCATED.items():
            key = {"runs": "run_uuid", "model_versions": "run_id", "logged_models": "source_run_id"}[table]
            for column in columns:
                connection.execute(
                    sa.text(
                        f"UPDATE {table} SET {column} = :new || substr({column}, :after) "
                        f"WHERE {key} IN ({runs}) AND substr({column}, 1, :length) = :old"
                    ),
                    {"new": new, "old": old, "after": len(old) + 1, "length": len(old), "experiment": int(experiment)},
                )


def _download(place: RegistryPlace, uri: str, into: Path) -> None:
    if uri.startswith("file://") or ("://" not in uri and not uri.startswith(PROXIED)):
        source = Path(uri.removeprefix("file://"))
        if source.is_dir():
            shutil.copytree(source, into, dirs_exist_ok=True)
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(uri, tracking_uri=place.tracking_uri or None)
    if repository.list_artifacts():
        into.mkdir(parents=True, exist_ok=True)
        repository.download_artifacts("", str(into))


def _upload(place: RegistryPlace, source: Path, uri: str) -> None:
    if not source.is_dir():
        return
    if uri.startswith("file://"):
        shutil.copytree(source, Path(uri.removeprefix("file://")), dirs_exist_ok=True)
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(uri, tracking_uri=place.tracking_uri or None).log_artifacts(str(source))
