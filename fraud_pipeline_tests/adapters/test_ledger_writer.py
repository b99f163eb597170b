from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.decided_payments import DecidedPayments
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerIdsTaken, LedgerWriter
from fraud_pipeline.domain.decision import Explained
from fraud_pipeline.domain.decision_batch import decide_many
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.errors import Busy, DependencyError
from fraud_pipeline_tests.bundles import loaded_bundle
from fraud_pipeline_tests.bundles import payments as model_inputs
from fraud_pipeline_tests.entries import T0, decided, entry, label, log_of, payment, rich_payment
from fraud_pipeline_tests.postgres import end_sessions

HOLD = """
import sys
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
ledger = Ledger.open(sys.argv[1])
writer = LedgerWriter.open(ledger.database)
print("owner", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def writer(ledger: Ledger) -> Iterator[LedgerWriter]:
    opened = LedgerWriter.open(ledger.database)
    yield opened
    opened.close()


def within(seconds: float, attempt: Callable[[], LedgerWriter]) -> LedgerWriter:
    """The owner, as soon as the database has noticed that the one before is gone."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except Busy:
            if time.monotonic() > deadline:
                raise


def test_what_is_appended_reads_back_equal_through_the_ledger(ledger: Ledger, writer: LedgerWriter):
    rich = LedgerEntry(rich_payment(1), T0, decision=decided(1, "BLOCK"))
    bare = LedgerEntry(payment(2), T0)
    assert writer.append([rich, bare]) == 1
    found = {r.transaction.transaction_id: r for r in ledger.transactions(["t1", "t2"])}
    assert found["t1"].transaction == rich.transaction
    assert found["t2"].transaction == bare.transaction
    assert (found["t1"].writer, found["t1"].sequence, found["t1"].received_at) == ("local", 1, T0)
    assert ledger.decision("t1") == rich.decision
    assert ledger.decision("t2") is None


def test_a_batch_by_column_writes_the_rows_of_its_entries(tmp_path: Path):
    payments = [rich_payment(number) if number % 3 else payment(number) for number in range(40)]
    batch = decide_many(
        model_inputs()[0][:40, : len(FEATURES)], loaded_bundle(), payments, decided_at=T0 + timedelta(microseconds=7)
    )
    batch.verdicts[3], batch.alerts[3] = "BLOCK", Explained()
    decided_payments = DecidedPayments(batch, T0)
    rows = []
    ways: list[list[Sequence[LedgerEntry]]] = [
        [decided_payments],
        [list(decided_payments)],
        [decided_payments[:9], decided_payments[9:]],
    ]
    for number, groups in enumerate(ways):
        with Ledger.open(f"sqlite:///{tmp_path / f'{number}.db'}") as ledger:
            writer = LedgerWriter.open(ledger.database)
            assert writer.append(*groups) == 1
            writer.close()
            with ledger.database.reading() as connection:
                rows.append(
                    [
                        connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY transaction_id").all()
                        for table in ("transactions", "decisions", "alerts")
                    ]
                )
    assert rows[0] == rows[1] == rows[2]
    assert [len(table) for table in rows[0][:2]] == [40, 40]
    assert "t3" in {row[0] for row in rows[0][2]}


def test_both_ways_of_appending_write_the_same_rows(ledger: Ledger, writer: LedgerWriter):
    writer.append([LedgerEntry(rich_payment(1), T0, decision=decided(1, "REVIEW"))])
    ledger.append([LedgerEntry(rich_payment(2), T0, decision=decided(2, "REVIEW"))])
    with ledger.database.reading() as connection:
        for table, own in (
            (
                "transactions",
                {"transaction_id", "event_time", "customer_id", "merchant_id", "amount_minor", "sequence"},
            ),
            ("decisions", {"transaction_id", "decided_at", "payload", "features", "fraud_probability"}),
            ("alerts", {"transaction_id", "created_at", "fraud_probability"}),
        ):
            rows = connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY transaction_id").mappings().all()
            one, other = ({k: v for k, v in row.items() if k not in own} for row in rows)
            assert one == other


def test_a_review_and_a_block_raise_alerts_and_an_approval_none(ledger: Ledger, writer: LedgerWriter):
    writer.append([entry(1, "APPROVE"), entry(2, "REVIEW"), entry(3, "BLOCK")])
    assert [(a.transaction_id, a.decision, a.fraud_probability, a.closed_at) for a in ledger.open_alerts()] == [
        ("t3", "BLOCK", 0.03, None),
        ("t2", "REVIEW", 0.02, None),
    ]


def test_places_run_on_between_groups_labels_and_the_ledgers_own_appends(ledger: Ledger, writer: LedgerWriter):
    assert writer.append([entry(1), entry(2)]) == 1
    assert [r.sequence for r in ledger.record_labels([label(1)]).released] == [3]
    assert writer.append([entry(3)]) == 4
    ledger.append([entry(4)])
    ledger.record_labels([label(1, is_fraud=False, days=4), label(9)])
    assert writer.append([entry(5), entry(6)]) == 7
    assert log_of(ledger) == ["t1", "t2", "t1+1", "t3", "t4", "t1-1", "t5", "t6"]
    assert ledger.last_sequence() == 8


@pytest.mark.parametrize("taken", [[entry(2), entry(1), entry(3)], [entry(4), entry(4)]])
def test_a_group_with_a_taken_id_leaves_nothing(ledger: Ledger, writer: LedgerWriter, taken: list[LedgerEntry]):
    writer.append([entry(1)])
    with pytest.raises(LedgerIdsTaken):
        writer.append(taken)
    assert log_of(ledger) == ["t1"]
    assert ledger.decision(taken[0].transaction.transaction_id) is None
    assert writer.append([entry(5)]) == 2


def test_a_second_owner_is_refused_until_the_first_gives_up(ledger: Ledger, writer: LedgerWriter, ledger_url: str):
    with Ledger.open(ledger_url) as second:
        with pytest.raises(Busy, match=r"already has its one writer.*Stop the other process first"):
            LedgerWriter.open(second.database)
        writer.append([entry(1)])
        writer.close()
        successor = within(10, lambda: LedgerWriter.open(second.database))
        assert successor.append([entry(2)]) == 2
        successor.close()


def test_a_killed_owner_is_succeeded(ledger: Ledger, ledger_url: str):
    command = [sys.executable, "-c", HOLD, ledger_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"owner\n"
        shown = str(owner.pid) if ledger_url.startswith("sqlite") else "another process"
        with pytest.raises(Busy, match=shown):
            LedgerWriter.open(ledger.database)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    successor = within(10, lambda: LedgerWriter.open(ledger.database))
    assert successor.append([entry(1)]) == 1
    successor.close()


def test_a_connection_that_the_server_ended_is_opened_anew_and_owned(postgres_url: str):
    with Ledger.open(postgres_url) as ledger, Ledger.open(postgres_url) as second:
        writer = LedgerWriter.open(ledger.database)
        writer.append([entry(1)])
        end_sessions(postgres_url)
        with pytest.raises(DependencyError, match="does not answer"):
            writer.append([entry(2)])
        assert writer.append([entry(2)]) == 2
        with pytest.raises(Busy):
            LedgerWriter.open(second.database)
        assert log_of(ledger) == ["t1", "t2"]
        writer.close()


def test_an_owner_that_was_succeeded_meanwhile_writes_no_more(postgres_url: str):
    with Ledger.open(postgres_url) as ledger, Ledger.open(postgres_url) as second:
        first = LedgerWriter.open(ledger.database)
        first.append([entry(1)])
        end_sessions(postgres_url)
        successor = within(10, lambda: LedgerWriter.open(second.database))
        with pytest.raises(DependencyError):
            first.append([entry(2)])
        with pytest.raises(Busy, match="already has its one writer"):
            first.append([entry(2)])
        with pytest.raises(Busy):
            first.confirm()
        assert successor.append([entry(3)]) == 2
        assert log_of(ledger) == ["t1", "t3"]
        first.close()
        successor.close()


def test_an_owner_confirms_that_it_still_is_one_on_a_new_connection_where_need_be(ledger_url: str):
    with Ledger.open(ledger_url) as ledger:
        writer = LedgerWriter.open(ledger.database)
        writer.confirm()
        if not ledger_url.startswith("sqlite"):
            end_sessions(ledger_url)
            writer.confirm()
        assert writer.append([entry(1)]) == 1
        writer.close()


def test_a_full_disk_is_a_dependency_error_and_the_next_group_is_written(tmp_path: Path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        writer = LedgerWriter.open(ledger.database)
        writer.append([entry(1)])
        connection = writer._connection._connection()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")  # of this connection alone
        with pytest.raises(DependencyError, match="full"):
            writer.append([entry(number) for number in range(2, 2_000)])
        assert writer.append([entry(2)]) == 2
        assert log_of(ledger) == ["t1", "t2"]
        writer.close()


def test_a_ledger_whose_tables_are_gone_says_so(ledger: Ledger, writer: LedgerWriter):
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE writers RENAME TO elsewhere")
    with pytest.raises((DependencyError, writer._connection.driver.Error), match="writers"):
        writer.append([entry(1)])
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO writers")
    assert writer.append([entry(1)]) == 1


def test_another_process_that_holds_the_database_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        writer = LedgerWriter.open(ledger.database)
        writer._connection._connection().execute("PRAGMA busy_timeout=50")
        with ledger.database.writing(), pytest.raises(Busy, match="locked by another process"):
            writer.append([entry(1)])
        assert writer.append([entry(1)]) == 1
        writer.close()
