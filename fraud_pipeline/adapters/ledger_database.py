"""The database under the ledger: its engine, its transactions, its migrations, and its failures as our errors.

Knows no table but Alembic's own. SQLite and PostgreSQL differ only here.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from fraud_pipeline.adapters.ledger_schema import SCHEMA_VERSION
from fraud_pipeline.errors import Busy, DependencyError, FraudError, IntegrityError, SettingsError

BUSY_TIMEOUT_MS: Final = 10_000
"""How long a SQLite writer waits for another; ours hold the lock for milliseconds, a migration for a second."""
CONNECT_TIMEOUT_S: Final = 5
"""PostgreSQL on a working network answers in milliseconds; waiting longer hides that it is down."""
MIGRATION_LOCK: Final = 0x6672617564_00
"""PostgreSQL's advisory lock for migrating: one process at a time."""
LABEL_LOCK: Final = MIGRATION_LOCK + 1
"""And the one that keeps a label from being recorded just while its transaction arrives: each would miss the other."""


class LedgerDatabase:
    """An engine with `reading` and `writing` transactions. Threads may share it."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.engine = _create_engine(self.url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"

    @property
    def address(self) -> str:
        """The address as people may see it: without the password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end.

        In SQLite it takes the write lock at once: a reader that turns into a writer would fail where another wrote in
        between.
        """
        with self._translated(), self.engine.execution_options(fraud_begin="IMMEDIATE").begin() as connection:
            yield connection

    def lock_labels(self, connection: Connection, *, exclusive: bool) -> None:
        """Hold until the end of the transaction. SQLite has one writer at a time and needs no lock."""
        if not self.is_sqlite:
            shared = "" if exclusive else "_shared"
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock{shared}(:key)"), {"key": LABEL_LOCK})

    def migrate(self) -> None:
        """Bring the schema to this code's version; nothing happens where it is there already."""
        with self.reading() as connection:
            if _schema_version(connection) == SCHEMA_VERSION:
                return
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            upgrade(connection, address=self.address)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as err:
            translated = self.translate(err.orig or err, disconnected=err.connection_invalidated)
            if translated is None:
                raise
            raise translated from err

    def translate(self, err: BaseException, *, disconnected: bool = False) -> FraudError | None:
        """Our error for what the driver says, or None where the statement is to blame."""
        text = (str(err).strip() or repr(err)).splitlines()[0]
        if "database is locked" in text:
            return Busy(
                f"The ledger {self.address} is locked by another process for more than {BUSY_TIMEOUT_MS // 1000} s.",
                remedy="Stop that process, or use PostgreSQL (FRAUD_LEDGER_URL) for more than one writer.",
            )
        if isinstance(err, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
            return IntegrityError(
                f"The ledger {self.address} is damaged: {text}.",
                remedy="Restore it from a backup; move the damaged file away first.",
            )
        driver = self.engine.dialect.loaded_dbapi
        if isinstance(err, driver.OperationalError | driver.InterfaceError) or disconnected:
            return DependencyError(
                f"The ledger {self.address} does not answer: {text}.",
                remedy="Check the disk and the file's permissions."
                if self.is_sqlite
                else "Start PostgreSQL, or correct FRAUD_LEDGER_URL.",
            )
        return None


def parse_url(url: str) -> URL:
    """The address with its driver. SettingsError for what is neither a SQLite file nor PostgreSQL."""
    remedy = "FRAUD_LEDGER_URL is sqlite:///path/to/ledger.db or postgresql://user:password@host/database."
    try:
        parsed = make_url(url)
        family = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as err:
        raise SettingsError("The ledger's address cannot be read.", remedy=remedy) from err
    if family in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if family != "sqlite":
        raise SettingsError(f"The ledger cannot live in {family!r}.", remedy=remedy)
    if parsed.database in (None, "", ":memory:"):
        raise SettingsError("The ledger needs a file: a SQLite database in memory forgets.", remedy=remedy)
    return parsed


def upgrade(connection: Connection, *, address: str) -> None:
    """Run the migrations that the database lacks, in the connection's own transaction.

    Raises IntegrityError where the database is ahead of this code.
    """
    from alembic import command  # only a start that migrates pays for Alembic
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    found = _schema_version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise IntegrityError(
            f"The ledger {address} has schema {found}, which is newer than this code's {SCHEMA_VERSION}.",
            remedy="Use the newer version of fraud_pipeline, or restore a backup made before its upgrade.",
        )
    command.upgrade(config, "head")


def alembic_config(connection: Connection | None = None) -> Any:
    """Alembic's configuration in code: nothing to find at run time but this package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _schema_version(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _create_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            pool_pre_ping=True,  # a restarted server costs one round trip, not one failed request
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, json_serializer=_to_json, json_deserializer=orjson.loads)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _to_json(value: object) -> str:
    # PostgreSQL refuses NaN in JSON, SQLite would keep it: refuse it in both.
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late, and never before DDL
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")  # safe against the process dying; a power cut may take the last commits
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """SQLite does not wait while several who open a new file switch it at once: it says at once that it is locked."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1e3
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as err:
            if "locked" not in str(err) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("fraud_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
