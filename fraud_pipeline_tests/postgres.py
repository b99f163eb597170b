"""What a PostgreSQL server does to its clients, for tests."""

from __future__ import annotations

import sqlalchemy as sa


def end_sessions(ledger_url: str) -> None:
    """Have the server end every other connection to this database."""
    engine = sa.create_engine(sa.make_url(ledger_url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    engine.dispose()
