"""What a REST replica has decided and the log has not confirmed: a local SQLite file, in the order of the decisions.

It is the queue of the relay and what a restart goes on from. A file belongs to one process at a time, by a lock that ends
with the process; files of replicas that are no more are taken over by one that starts. Knows nothing of Kafka's clients.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from fraud_pipeline.adapters.local_journal import JournalFull
from fraud_pipeline.errors import Busy, DependencyError

MOST_REPLICAS: Final = 1_000
"""Of one home: a name is tried after the other, and beyond it something else is wrong."""
AT_ONCE: Final = 500
log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Row:
    """A decided payment as it goes into the log: the message's key and value, and the value of its decision."""

    transaction_id: str
    key: bytes
    value: bytes
    decision: bytes
    position: int = 0


class ReplicaJournal:
    """`limit` rows at most. Threads may share it."""

    def __init__(self, path: Path, *, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._count = 0
        self._released = 0

    @classmethod
    def open_in(cls, folder: Path, *, limit: int) -> ReplicaJournal:
        """The first file in the folder that no living process holds, with what dead ones left in others."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(MOST_REPLICAS):
            journal = cls(folder / f"journal-{number}.db", limit=limit)
            if journal.take():
                journal.adopt(sorted(folder.glob("journal-*.db")))
                return journal
        raise Busy(f"{MOST_REPLICAS:,} journals in {folder} are in use.", remedy="End replicas that nobody needs.")

    def take(self) -> bool:
        """Lock and open the file; False where another process has it."""
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._lock = handle
        counted = "SELECT count(*), coalesce(max(position), 0) FROM rows WHERE refused IS NULL"
        self._count, self._released = self._done(lambda c: c.execute(counted).fetchone())
        return True

    def adopt(self, paths: Iterable[Path]) -> int:
        """Take over the rows of files that nobody holds; returns how many."""
        adopted = 0
        for path in paths:
            other = ReplicaJournal(path, limit=self._limit)
            if path == self.path or not other.take():
                continue
            try:
                while rows := other.after(0, AT_ONCE):
                    self.release(self._insert(rows))
                    other.remove([row.position for row in rows])
                    adopted += len(rows)
            finally:
                other.close()
        if adopted:
            log.warning("%d decisions that other replicas left in their journals are relayed by this one", adopted)
        return adopted

    def __len__(self) -> int:
        return self._count

    def append(self, rows: Sequence[Row]) -> int:
        """Keep rows, all or none; they are relayed when they are released. Returns the last one's position.

        JournalFull beyond the limit, DependencyError where the disk refuses.
        """
        if self._count + len(rows) > self._limit:
            raise JournalFull(
                f"The journal {self.path} holds {self._count:,} decisions, and {self._limit:,} are allowed.",
                remedy="Bring the broker back; FRAUD_JOURNAL_LIMIT is the bound.",
            )
        return self._insert(rows)

    def release(self, through: int) -> None:
        """Let rows be relayed, up to and with this position."""
        self._released = through

    def after(self, position: int, count: int) -> list[Row]:
        """The oldest released rows after a position."""
        query = (
            "SELECT transaction_id, key, value, decision, position FROM rows "
            "WHERE position > ? AND position <= ? AND refused IS NULL ORDER BY position LIMIT ?"
        )
        bounds = (position, self._released, count)
        return [Row(*found) for found in self._done(lambda c: c.execute(query, bounds).fetchall())]

    def remove(self, positions: Sequence[int]) -> None:
        """Forget rows that the log has."""
        marks = [(position,) for position in positions]
        self._done(lambda c: c.executemany("DELETE FROM rows WHERE position = ?", marks))
        self._count -= len(positions)

    def remove_ids(self, transaction_ids: Sequence[str]) -> None:
        """Forget rows that are not to be relayed."""
        ids = [(transaction_id,) for transaction_id in transaction_ids]
        self._count -= self._done(lambda c: c.executemany("DELETE FROM rows WHERE transaction_id = ?", ids).rowcount)

    def refuse(self, position: int, reason: str) -> None:
        """Keep a row aside that the log will never take: it is for people to look at."""
        self._done(lambda c: c.execute("UPDATE rows SET refused = ? WHERE position = ?", (reason, position)))
        self._count -= 1

    def refused(self) -> int:
        """How many rows were kept aside."""
        return self._done(lambda c: int(c.execute("SELECT count(*) FROM rows WHERE refused IS NOT NULL").fetchone()[0]))

    def close(self) -> None:
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _insert(self, rows: Sequence[Row]) -> int:
        """An id that is there already stays as it is: the rows of a file that was half taken over."""
        content = [(row.transaction_id, row.key, row.value, row.decision) for row in rows]
        statement = "INSERT OR IGNORE INTO rows (transaction_id, key, value, decision) VALUES (?, ?, ?, ?)"

        def insert(connection: sqlite3.Connection) -> tuple[int, int]:
            count = connection.executemany(statement, content).rowcount
            return count, connection.execute("SELECT max(position) FROM rows").fetchone()[0]

        count, last = self._done(insert)
        self._count += count
        return last

    def _done(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._mutex:
            try:
                with self._opened() as connection:  # one transaction
                    return work(connection)
            except (sqlite3.Error, OSError) as err:
                raise DependencyError(
                    f"The journal {self.path} cannot be used: {err}.",
                    remedy="Check the disk and the folder's permissions.",
                ) from err

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self.path, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")  # safe against the process dying, as the ledger's
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS rows (position INTEGER PRIMARY KEY AUTOINCREMENT, "
                "transaction_id TEXT NOT NULL UNIQUE, key BLOB NOT NULL, value BLOB NOT NULL, "
                "decision BLOB NOT NULL, refused TEXT)"
            )
        return self._connection
