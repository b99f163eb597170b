"""The one owner of a ledger's writer: it alone appends to that log, in groups, each one database transaction.

Ownership is a lock that the system lets go when the process dies: in PostgreSQL an advisory lock of the very connection
that writes (so whoever loses the connection has lost the lock before it can write again), beside a SQLite file a locked
file. A second process is refused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from fraud_pipeline.adapters.ledger_append import AppendStatements, Row
from fraud_pipeline.adapters.ledger_connection import DriverConnection
from fraud_pipeline.adapters.ledger_database import MIGRATION_LOCK, LedgerDatabase
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER, LedgerEntry
from fraud_pipeline.adapters.ledger_schema import alerts, decisions, transactions
from fraud_pipeline.errors import Busy, DependencyError

WRITER_LOCK: Final = MIGRATION_LOCK + 2
"""PostgreSQL's advisory lock of writer `local`."""
AT_ONCE_MS: Final = 20
"""Other processes hold SQLite's lock for a few ms; longer than this no event loop should stand still."""
CACHE_KIB: Final = 16_384
"""SQLite's 2 MB hold the pages that a thousand customers' payments touch; beyond it each insert takes half as long again."""
CHECKPOINT_PAGES: Final = 4_000
"""Of 4 KiB, four times SQLite's own number: a page that changes in every commit is then copied less often."""
_REMEDY: Final = (
    "Stop the other process first. One process is the only writer of an embedded ledger; more processes share a Kafka log "
    "(FRAUD_KAFKA_BOOTSTRAP_SERVERS)."
)


class LedgerIdsTaken(Exception):
    """An id of the group is in the ledger already; nothing was written."""


class LedgerWriter:
    """Use `LedgerWriter.open`. One thread at a time."""

    def __init__(self, database: LedgerDatabase, writer: str, lock: IO[str] | None) -> None:
        self._writer = writer
        self._lock = lock
        self._address = database.address
        self._statements = AppendStatements.of(database.engine.dialect.name)
        self._connection = DriverConnection(database, self._own if lock is None else _roomy)
        self._at_once = DriverConnection(database, _impatient) if lock is not None else None

    @classmethod
    def open(cls, database: LedgerDatabase, writer: str = LOCAL_WRITER) -> LedgerWriter:
        """Become the owner. Busy where another process is, DependencyError where the ledger does not answer."""
        lock = None
        if database.is_sqlite:
            lock = _locked_file(Path(f"{database.url.database}.{writer}.lock"), database.address)
        owner = cls(database, writer, lock)
        try:
            owner.confirm()
        except BaseException:
            owner.close()
            raise
        return owner

    def append(self, *groups: Sequence[LedgerEntry]) -> int:
        """Append payments with their decisions and alerts; returns the first one's place, the others follow it.

        The ids are new and no label waits for them, as far as the caller knows; where one is not, LedgerIdsTaken.
        Durable when it returns.
        """
        return self._append(self._connection, groups)

    @property
    def can_at_once(self) -> bool:
        """Whether a commit is so quick that an event loop may wait for it: SQLite's is a write to the page cache."""
        return self._at_once is not None

    def append_at_once(self, *groups: Sequence[LedgerEntry]) -> int:
        """`append` that waits for nobody: Busy where another process is writing just now.

        On a connection of its own, so that it may be called in another thread than `append`, though not at the same time.
        """
        assert self._at_once is not None
        return self._append(self._at_once, groups)

    def _append(self, connection: DriverConnection, groups: Sequence[Sequence[LedgerEntry]]) -> int:
        sql, count = self._statements, sum(map(len, groups))
        made = [row for entries in groups for row in sql.decision_rows(entries)]
        alerting = [row for entries in groups for row in sql.alert_rows(entries)]
        payments: list[Row] = []
        try:
            with connection.transaction() as cursor:
                first = self._take_sequences(cursor, count) - count + 1
                for entries in groups:
                    payments += sql.transaction_rows(entries, self._writer, first + len(payments))
                for table, rows in ((transactions, payments), (decisions, made), (alerts, alerting)):
                    if rows:
                        sql.insert(cursor, table, rows)
        except connection.driver.IntegrityError as err:
            raise LedgerIdsTaken(str(err)) from err
        return first

    def confirm(self) -> None:
        """Be the owner, on a new connection where the old one broke. Busy where another process is by now.

        To be called before the log is written to by another connection than the owner's own.
        """
        self._connection.rows("SELECT 1", ())

    def close(self) -> None:
        """Give the ownership up."""
        self._connection.close()
        if self._at_once is not None:
            self._at_once.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_sequences(self, cursor: Any, count: int) -> int:
        """The last of the next `count` places."""
        cursor.execute(self._statements.take_sequences, (count, self._writer))
        taken = cursor.fetchall()
        if taken:
            return int(taken[0][0])
        cursor.execute(self._statements.begin_writer, (self._writer, count))
        return count

    def _own(self, connection: Any) -> None:
        """Take PostgreSQL's lock for this connection's life."""
        cursor = connection.cursor()
        cursor.execute(f"SELECT pg_try_advisory_lock({WRITER_LOCK})")
        owned = cursor.fetchone()[0]
        connection.commit()
        if not owned:
            raise Busy(f"The ledger {self._address} already has its one writer, another process.", remedy=_REMEDY)


def _roomy(connection: Any) -> None:
    """For thousands of rows a second: the ends of all indexes in memory, and moved to the database in larger portions."""
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")


def _impatient(connection: Any) -> None:
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute(f"PRAGMA busy_timeout={AT_ONCE_MS}")


def _locked_file(path: Path, address: str) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as err:
        raise DependencyError(
            f"The lock {path} cannot be opened: {err.strerror}.", remedy="Check the folder's permissions."
        ) from err
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise Busy(f"The ledger {address} already has its one writer, process {owner}.", remedy=_REMEDY) from err
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
