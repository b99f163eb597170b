from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_database import LedgerDatabase, alembic_config
from fraud_pipeline.adapters.ledger_schema import SCHEMA_VERSION, metadata
from fraud_pipeline.errors import IntegrityError


def test_the_migrations_make_exactly_the_tables_of_the_code(ledger_url: str):
    Ledger.open(ledger_url).close()
    database = LedgerDatabase(ledger_url)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        # compare_metadata looks at neither check constraints nor foreign keys' targets in SQLite.
        inspector = sa.inspect(connection)
        for table in metadata.tables.values():
            checks = {c["name"] for c in inspector.get_check_constraints(table.name)}
            assert checks == {c.name for c in table.constraints if isinstance(c, sa.CheckConstraint)}, table.name
    database.close()


def test_the_schema_version_in_the_code_is_the_newest_migration():
    script = ScriptDirectory.from_config(alembic_config())
    assert script.get_heads() == [SCHEMA_VERSION]


def test_a_schema_newer_than_the_code_is_refused_and_left_alone(ledger_url: str):
    Ledger.open(ledger_url).close()
    database = LedgerDatabase(ledger_url)
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(IntegrityError, match="schema 9999, which is newer than this code's") as caught:
        Ledger.open(ledger_url)
    assert "restore a backup" in caught.value.remedy
    with database.reading() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    database.close()


def test_a_migration_that_dies_half_way_leaves_nothing(ledger_url: str):
    database = LedgerDatabase(ledger_url)
    with database.writing() as connection:  # a table of the same name stops the third table's migration
        connection.exec_driver_sql("CREATE TABLE decisions (stray INTEGER)")
    with pytest.raises(Exception, match="already exists"):
        Ledger.open(ledger_url)
    with database.reading() as connection:
        assert sa.inspect(connection).get_table_names() == ["decisions"]
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE decisions")
    Ledger.open(ledger_url).close()
    database.close()


def test_many_who_open_a_new_ledger_at_once_all_find_it_migrated(ledger_url: str):
    ledgers: list[Ledger] = []
    start = threading.Barrier(4)

    def open_ledger() -> None:
        start.wait()
        ledgers.append(Ledger.open(ledger_url))

    threads = [threading.Thread(target=open_ledger) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(ledgers) == 4
    for ledger in ledgers:
        assert ledger.promotions() == []
        ledger.close()


def test_sqlite_is_set_up_for_one_writer_and_many_readers(tmp_path):
    with (
        Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger,
        ledger._database.reading() as connection,
    ):
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 10_000}


def test_opening_a_migrated_ledger_loads_no_alembic(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url).close()
    program = (
        "import sys; from fraud_pipeline.adapters.ledger import Ledger; "
        f"Ledger.open({url!r}).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
