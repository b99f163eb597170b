from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.local_journal import JournalFull, LocalJournal
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.entries import T0, decided, entry, payment, rich_payment

FILL_AND_DIE = """
import os, sys
from pathlib import Path
from fraud_pipeline.adapters.local_journal import LocalJournal
from fraud_pipeline_tests.entries import entry
journal = LocalJournal(Path(sys.argv[1]), limit=100)
journal.append([entry(1), entry(2)])
journal.append([entry(3)])
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal.db"


def test_entries_come_back_equal_and_in_their_order(path: Path):
    journal = LocalJournal(path, limit=100)
    kept = [
        LedgerEntry(rich_payment(1), T0, decision=decided(1, "BLOCK", ["ledger"])),
        LedgerEntry(payment(2), T0),
        *(entry(number) for number in range(9, 2, -1)),
    ]
    journal.append(kept[:1])
    journal.append(kept[1:])
    assert journal.all() == kept
    assert len(journal) == 9
    assert [each.transaction.transaction_id for _, each in journal.first(2)] == ["t1", "t2"]
    journal.close()
    again = LocalJournal(path, limit=100)
    assert (len(again), again.all()) == (9, kept)
    again.close()


def test_what_was_removed_is_gone_and_positions_stay(path: Path):
    journal = LocalJournal(path, limit=100)
    journal.append([entry(number) for number in range(5)])
    journal.remove_through(journal.first(2)[-1][0])
    assert [each.transaction.transaction_id for _, each in journal.first(9)] == ["t2", "t3", "t4"]
    journal.append([entry(7)])
    journal.remove_through(journal.first(3)[-1][0])
    assert [each.transaction.transaction_id for _, each in journal.first(9)] == ["t7"]
    journal.remove_through(journal.first(1)[-1][0])
    assert (len(journal), journal.all()) == (0, [])
    journal.close()


def test_beyond_the_limit_nothing_of_a_group_is_kept(path: Path):
    journal = LocalJournal(path, limit=3)
    journal.append([entry(1), entry(2)])
    with pytest.raises(JournalFull, match=r"holds 2 decisions, and 3 are allowed.*Bring the ledger back"):
        journal.append([entry(3), entry(4)])
    journal.append([entry(5)])
    assert [each.transaction.transaction_id for each in journal.all()] == ["t1", "t2", "t5"]
    journal.close()


def test_a_smaller_limit_than_what_it_holds_hides_nothing(path: Path):
    journal = LocalJournal(path, limit=10)
    journal.append([entry(number) for number in range(5)])
    journal.close()
    small = LocalJournal(path, limit=2)
    assert len(small.all()) == 5
    with pytest.raises(JournalFull):
        small.append([entry(9)])
    small.close()


def test_looking_into_a_journal_that_is_not_there_makes_none(path: Path):
    journal = LocalJournal(path, limit=10)
    assert (len(journal), journal.first(5), journal.all()) == (0, [], [])
    journal.close()
    assert not path.exists()


def test_a_killed_process_loses_nothing(path: Path):
    done = subprocess.run([sys.executable, "-c", FILL_AND_DIE, str(path)], cwd=Path.cwd(), check=False)
    assert done.returncode == -9
    journal = LocalJournal(path, limit=100)
    assert journal.all() == [entry(1), entry(2), entry(3)]
    journal.close()


def test_threads_share_it(path: Path):
    journal = LocalJournal(path, limit=200)

    def work(start: int) -> None:
        for number in range(start, start + 40):
            journal.append([entry(number)])
            len(journal)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 40, 80, 120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(each.transaction.transaction_id[1:]) for each in journal.all()) == list(range(160))
    journal.close()


def test_a_file_that_is_no_journal_is_a_dependency_error(tmp_path: Path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    journal = LocalJournal(path, limit=10)
    with pytest.raises(DependencyError, match=r"journal\.db cannot be used"):
        len(journal)
    with pytest.raises(DependencyError, match="cannot be used"):
        journal.append([entry(1)])
    journal.close()


def test_a_folder_in_its_place_is_a_dependency_error(tmp_path: Path):
    journal = LocalJournal(tmp_path / "file" / "journal.db", limit=10)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DependencyError, match="cannot be used"):
        journal.append([entry(1)])
    journal.close()
