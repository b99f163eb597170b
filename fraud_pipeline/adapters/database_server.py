"""A PostgreSQL server beside its tables: which databases it has, made where they are missing, and one lock for all of them.

Knows no table and nothing of what the databases are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from fraud_pipeline.errors import DependencyError, InputError

MAINTENANCE: Final = "postgres"
"""The database that every server has, for what is not done inside one; locks are per database, so this one has ours."""
CONNECT_TIMEOUT_S: Final = 5
"""A server on a working network answers in milliseconds."""
LOCK: Final = 0x66726175645F6D67
"""PostgreSQL's advisory lock of a migration of everything, held for its whole length."""
_TAKEN: Final = "42P04"
"""SQLSTATE duplicate_database: another process was quicker."""
_UNIQUE: Final = "23505"
"""The same, told by the catalogue's index where both were at it in the same moment."""


class DatabaseServer:
    """The server that an address names; the address's own database need not exist yet."""

    def __init__(self, address: str) -> None:
        self.url: URL = make_url(address).set(drivername="postgresql+psycopg")
        self._maintenance = self.url.set(database=MAINTENANCE)

    @property
    def address(self) -> str:
        """Where it is, without the password."""
        return f"{self.url.host}:{self.url.port or 5432}"

    def create_missing(self, database: str) -> bool:
        """Make a database where there is none of that name; False where there is."""
        with self._connected() as connection:
            known = connection.exec_driver_sql("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).first()
            if known is not None:
                return False
            quoted = connection.dialect.identifier_preparer.quote_identifier(database)
            try:
                connection.exec_driver_sql(f"CREATE DATABASE {quoted}")
            except DBAPIError as err:
                if getattr(err.orig, "sqlstate", "") in (_TAKEN, _UNIQUE):
                    return False
                raise InputError(
                    f"Database {database!r} cannot be made on {self.address}: {_reason(err)}.",
                    remedy="Make it yourself (CREATE DATABASE), or give the user CREATEDB.",
                ) from err
        return True

    def create_missing_superuser(self, name: str) -> None:
        """A user who may do everything and needs no password: for a server of our own on loopback."""
        with self._connected() as connection:
            if connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).first() is None:
                quoted = connection.dialect.identifier_preparer.quote_identifier(name)
                connection.exec_driver_sql(f"CREATE ROLE {quoted} LOGIN SUPERUSER")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock; whoever comes meanwhile waits."""
        with self._connected() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (LOCK,))
            try:
                yield
            finally:
                connection.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (LOCK,))

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        engine = sa.create_engine(
            self._maintenance,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",  # a database is not made inside a transaction
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )
        try:
            connection = engine.connect()
        except DBAPIError as err:
            raise DependencyError(
                f"PostgreSQL at {self.address} does not answer: {_reason(err)}.",
                remedy="Start it, or correct the address and the password in FRAUD_LEDGER_URL and FRAUD_DAGSTER_STORAGE_URL.",
            ) from err
        with connection:
            yield connection


def _reason(err: DBAPIError) -> str:
    return str(err.orig or err).strip().splitlines()[0]
