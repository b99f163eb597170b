"""Everything that must be in place before the stack's processes start: databases, schemas, topics. `fraud migrate`.

Any number may run at once: one does it under a lock, the others wait and find it done. Running it again changes nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.engine import make_url

from fraud_pipeline.adapters.database_server import DatabaseServer
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.dagster_home import STORAGE_VARIABLE
from fraud_pipeline.errors import InputError
from fraud_pipeline.settings import Settings

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is in place now."""

    name: str
    state: Literal["made", "right"]
    detail: str = ""


def migrate(settings: Settings, *, mlflow: str = "", progress: Progress = lambda _: None) -> list[Step]:
    """Make and upgrade what the settings name; and MLflow's database, where `mlflow` names it on the ledger's server.

    Raises:
        DependencyError: a server does not answer.
        InputError: a database may not be made by this user, or a topic is there and cannot be used.
    """
    on_server = _is_postgres(settings.ledger_url)
    if mlflow and not on_server:
        raise InputError(f"Database {mlflow!r} needs a server.", remedy="Set FRAUD_LEDGER_URL to a PostgreSQL.")
    with _alone(settings):
        steps = []
        progress("databases")
        if on_server:
            ledger = DatabaseServer(settings.ledger_url)
            steps += [_database(ledger, name) for name in (str(ledger.url.database), mlflow) if name]
        if settings.dagster_storage_url:
            storage = DatabaseServer(settings.dagster_storage_url)
            steps.append(_database(storage, str(storage.url.database)))
        progress("ledger")
        steps.append(_ledger(settings))
        if settings.dagster_storage_url:
            progress("Dagster's storage")
            steps.append(_dagster(settings))
        if mlflow:
            progress("MLflow's database")
            steps.append(_mlflow(settings, mlflow))
        if settings.kafka_bootstrap_servers:
            progress("topics")
            steps += _topics(settings)
    return steps


def _database(server: DatabaseServer, name: str) -> Step:
    return Step(f"database {name}", "made" if server.create_missing(name) else "right", server.address)


def _ledger(settings: Settings) -> Step:
    with Ledger.open(settings.ledger_url) as ledger:  # which migrates, under a lock of its own
        from fraud_pipeline.adapters.ledger_schema import SCHEMA_VERSION

        return Step("ledger", "right", f"schema {SCHEMA_VERSION} in {ledger.address}")


def _dagster(settings: Settings) -> Step:
    os.environ[STORAGE_VARIABLE] = settings.dagster_storage_url  # it may stand in `.env`
    from fraud_pipeline.defs.instance_storage import migrate_storage

    migrate_storage()
    return Step("dagster", "right", "storage is of this Dagster's version")


def _mlflow(settings: Settings, database: str) -> Step:
    """What `mlflow db upgrade ADDRESS` does, without the password on a command line."""
    from mlflow.db import upgrade

    url = make_url(settings.ledger_url).set(drivername="postgresql+psycopg2", database=database)
    upgrade.callback(url.render_as_string(hide_password=False))
    return Step("mlflow", "right", "database is of this MLflow's version")


def _topics(settings: Settings) -> list[Step]:
    from fraud_pipeline.adapters.kafka.topic_admin import create, faults
    from fraud_pipeline.adapters.kafka.topics import Topics

    states = create(settings, Topics(settings.topic_prefix))
    if broken := faults(states):
        raise InputError(
            f"Topics that cannot be used: {'; '.join(map(str, broken))}.",
            remedy="`fraud topics verify` says what to do about each.",
        )
    return [
        Step(f"topic {one.topic}", "made" if one.state == "made" else "right", f"{one.partitions} partitions")
        for one in states
    ]


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One at a time: by the database server where there is one, else by a file in the home."""
    if _is_postgres(settings.ledger_url):
        with DatabaseServer(settings.ledger_url).alone():
            yield
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_postgres(address: str) -> bool:
    return make_url(address).get_backend_name() in ("postgresql", "postgres")
