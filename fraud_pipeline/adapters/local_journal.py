"""Where decisions wait while the log is away: a local SQLite file, in the order in which they were made.

Bounded, so that an outage fills no disk. Knows nothing of where its entries go later.
"""

from __future__ import annotations

import base64
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import DependencyError

_TRANSACTION: Final = tuple(f.name for f in fields(Transaction))


class JournalFull(DependencyError):
    """The journal holds as many entries as it may."""


class LocalJournal:
    """`limit` entries at most. Threads may share it."""

    def __init__(self, path: Path, *, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._count: int | None = None

    def __len__(self) -> int:
        with self._mutex:
            return self._length()

    def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep entries, all or none. JournalFull beyond the limit, DependencyError where the disk refuses."""
        with self._mutex:
            if self._length() + len(entries) > self._limit:
                raise JournalFull(
                    f"The journal {self.path} holds {self._length():,} decisions, and {self._limit:,} are allowed.",
                    remedy="Bring the ledger back; FRAUD_JOURNAL_LIMIT is the bound.",
                )
            rows = [(orjson.dumps(_as_dict(entry)),) for entry in entries]
            self._execute(lambda c: c.executemany("INSERT INTO entries (entry) VALUES (?)", rows))
            self._count = self._length() + len(entries)

    def first(self, count: int) -> list[tuple[int, LedgerEntry]]:
        """The oldest entries with their positions."""
        with self._mutex:
            if self._length() == 0:
                return []
            query = "SELECT position, entry FROM entries ORDER BY position LIMIT ?"
            found = self._execute(lambda c: c.execute(query, (count,)).fetchall())
        return [(position, _from_dict(orjson.loads(entry))) for position, entry in found]

    def all(self) -> list[LedgerEntry]:
        """Every entry, oldest first."""
        return [entry for _, entry in self.first(len(self))]

    def remove_through(self, position: int) -> None:
        """Forget entries up to and with this position."""
        with self._mutex:
            self._execute(lambda c: c.execute("DELETE FROM entries WHERE position <= ?", (position,)))
            self._count = None

    def close(self) -> None:
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _length(self) -> int:
        if self._count is None:
            if self._connection is None and not self.path.exists():
                self._count = 0
            else:
                self._count = int(self._execute(lambda c: c.execute("SELECT count(*) FROM entries").fetchone()[0]))
        return self._count

    def _execute(self, work: Any) -> Any:
        try:
            with self._opened() as connection:  # one transaction
                return work(connection)
        except (sqlite3.Error, OSError) as err:
            raise DependencyError(
                f"The journal {self.path} cannot be used: {err}.", remedy="Check the disk and the folder's permissions."
            ) from err

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")  # safe against the process dying, as the ledger's
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (position INTEGER PRIMARY KEY, entry BLOB NOT NULL)"
            )
        return self._connection


def _as_dict(entry: LedgerEntry) -> dict[str, Any]:
    transaction = {name: getattr(entry.transaction, name) for name in _TRANSACTION}
    record = entry.decision
    decision = None
    if record is not None:
        decision = {f.name: getattr(record, f.name) for f in fields(DecisionRecord)}
        decision["features"] = base64.b64encode(record.features).decode()
    return {
        "transaction": {**transaction, "attributes": dict(entry.transaction.attributes)},
        "received_at": entry.received_at,
        "decision": decision,
    }


def _from_dict(stored: dict[str, Any]) -> LedgerEntry:
    transaction = Transaction(**{**stored["transaction"], "event_time": _moment(stored["transaction"]["event_time"])})
    decision = stored["decision"]
    record = decision and DecisionRecord(
        **{
            **decision,
            "decided_at": _moment(decision["decided_at"]),
            "features": base64.b64decode(decision["features"]),
        }
    )
    return LedgerEntry(transaction, _moment(stored["received_at"]), decision=record or None)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
