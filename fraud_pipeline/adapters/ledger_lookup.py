"""What the ledger knows of a payment's id, asked at every payment: the quick way to read.

Answers are those of `Ledger.transaction` and `Ledger.decision`. One thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.ledger_connection import DriverConnection
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import decisions, moment_of, transactions
from fraud_pipeline.adapters.ledger_transactions import CHUNK, CONTENT
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import FraudError

SLOW_S: Final = 0.2
"""A database that is down says so at once; a network that swallows packets takes seconds to say nothing."""
PAUSE_S: Final = 2.0
_WIDTH: Final = len(CONTENT)


class LedgerLookup:
    """A reading connection of its own, opened when it is first used."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._connection = DriverConnection(database)
        self._sqlite = database.is_sqlite
        mark = "?" if self._sqlite else "%s"
        known = ", ".join(f"t.{name}" for name in CONTENT)
        self._one = (
            f"SELECT {known}, d.payload FROM {transactions.name} t LEFT JOIN {decisions.name} d "  # our own names
            f"ON d.transaction_id = t.transaction_id AND d.role = 'decided' WHERE t.transaction_id = {mark}"
        )
        self._mark = mark
        self._failure: FraudError | None = None
        self._ask_again_at = 0.0

    def find(self, transaction_id: str) -> tuple[Transaction, str | None] | None:
        """The recorded payment and its stored answer (None where it was recorded without one); None for an unknown id."""
        rows = self._rows(self._one, (transaction_id,))
        return self._found(rows[0]) if rows else None

    def known(self, transaction_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are recorded."""
        found: set[str] = set()
        for start in range(0, len(transaction_ids), CHUNK):
            ids = tuple(transaction_ids[start : start + CHUNK])
            marks = ", ".join([self._mark] * len(ids))
            query = f"SELECT transaction_id FROM {transactions.name} WHERE transaction_id IN ({marks})"
            found.update(row[0] for row in self._rows(query, ids))
        return found

    def close(self) -> None:
        self._connection.close()

    def _rows(self, query: str, parameters: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """Ask, unless the last answer was a failure that took long: who asks is an event loop with others waiting."""
        started = time.monotonic()
        if self._failure is not None and started < self._ask_again_at:
            raise self._failure
        try:
            rows = self._connection.rows(query, parameters)
        except FraudError as err:
            slow = time.monotonic() - started > SLOW_S
            self._failure, self._ask_again_at = err, time.monotonic() + (PAUSE_S if slow else 0.0)
            raise
        self._failure = None
        return rows

    def _found(self, row: tuple[Any, ...]) -> tuple[Transaction, str | None]:
        content = list(row[:_WIDTH])
        if self._sqlite:
            content[1] = moment_of(content[1])
        else:
            content[1] = content[1].astimezone(UTC)
        attributes = content[-1]
        content[-1] = orjson.loads(attributes) if isinstance(attributes, str | bytes) else attributes
        return Transaction(*content), row[_WIDTH]
