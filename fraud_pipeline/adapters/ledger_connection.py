"""A driver's connection of our own, outside SQLAlchemy's pool: for what happens at every payment.

It is opened when it is first used and again after it broke. One thread at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from fraud_pipeline.adapters.ledger_database import LedgerDatabase

Result = TypeVar("Result")


class DriverConnection:
    """`opened` is called with each new connection, before anything else runs on it."""

    def __init__(self, database: LedgerDatabase, opened: Callable[[Any], None] = lambda _: None) -> None:
        self._database = database
        self._opened = opened
        self._pooled: Any = None
        self.driver: Any = database.engine.dialect.loaded_dbapi
        self.dialect = database.engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in one transaction, committed at the end. Failures as the ledger's own errors.

        The driver's IntegrityError goes through as it is: a constraint was broken, the connection is sound.
        """
        with self._translated():
            cursor = self._connection().cursor()
            try:
                if self.dialect == "sqlite":
                    cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.connection.commit()
            except BaseException as err:
                self._give_up(err)
                raise
            cursor.close()

    def rows(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """What a query gives, in a transaction of its own; a connection that had broken meanwhile is opened anew, once."""
        fresh = self._pooled is None
        try:
            return self._rows(statement, parameters)
        except Exception:
            if fresh or self._pooled is not None:
                raise
        return self._rows(statement, parameters)

    def close(self) -> None:
        if self._pooled is not None:
            pooled, self._pooled = self._pooled, None
            with contextlib.suppress(Exception):  # it may be broken, and nobody needs it any more
                pooled.detach()
                pooled.close()

    def _rows(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._translated():
            connection = self._connection()
            try:
                found: list[tuple[Any, ...]] = connection.cursor().execute(statement, parameters).fetchall()
                if self.dialect != "sqlite":
                    connection.rollback()  # ends the read transaction that the driver began
            except BaseException as err:
                self._give_up(err)
                raise
        return found

    def _connection(self) -> Any:
        if self._pooled is None:
            pooled = self._database.engine.raw_connection()
            try:
                self._opened(pooled.driver_connection)
            except BaseException:
                pooled.close()
                raise
            self._pooled = pooled
        return self._pooled.driver_connection

    def _give_up(self, err: BaseException) -> None:
        """Roll back; where that is not possible, or the connection is to blame, forget it."""
        if self._pooled is None:
            return
        try:
            self._pooled.driver_connection.rollback()
        except self.driver.Error:
            self.close()
            return
        if isinstance(err, self.driver.Error) and not isinstance(err, self.driver.IntegrityError):
            self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as err:  # from opening a connection
            raise self._database.translate(err.orig or err) or err from err
        except self.driver.IntegrityError:
            raise
        except self.driver.Error as err:
            raise self._database.translate(err) or err from err
