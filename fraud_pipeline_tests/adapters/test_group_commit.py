from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fraud_pipeline.adapters import group_commit
from fraud_pipeline.adapters.group_commit import Group, GroupCommit, Outcome
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import Appended, LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.adapters.local_journal import JournalFull, LocalJournal
from fraud_pipeline.errors import Busy, DependencyError
from fraud_pipeline_tests.entries import decided, entry, label, log_of

DEADLINE_S = 20.0


class Switch:
    """The ledger's cable: `away` is what every use of it raises."""

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.groups: list[int] = []
        self.hold = threading.Event()
        self.hold.set()

    def check(self) -> None:
        self.hold.wait(DEADLINE_S)
        if self.away is not None:
            raise self.away


class FailingWriter(LedgerWriter):
    """The real owner behind a switch."""

    switch: Switch

    def append(self, *groups: Sequence[LedgerEntry]) -> int:
        self.switch.check()
        first = super().append(*groups)
        self.switch.groups.append(sum(map(len, groups)))
        return first

    def confirm(self) -> None:
        self.switch.check()
        super().confirm()


class FailingLedger(Ledger):
    """The real ledger behind a switch."""

    switch: Switch

    def append(self, entries: Sequence[LedgerEntry], *, writer: str = "local") -> Appended:
        self.switch.check()
        return super().append(entries, writer=writer)


class Bench:
    """A commit thread over a real ledger, and what became of each group."""

    def __init__(self, folder: Path, url: str, *, journal_limit: int | None) -> None:
        self.switch = Switch()
        self.ledger = FailingLedger.open(url)
        assert isinstance(self.ledger, FailingLedger)
        self.ledger.switch = self.switch
        writer = LedgerWriter.open(self.ledger.database)
        assert isinstance(writer, LedgerWriter)
        writer.__class__ = FailingWriter
        assert isinstance(writer, FailingWriter)
        writer.switch = self.switch
        self.writer = writer
        self.journal = None if journal_limit is None else LocalJournal(folder / "journal.db", limit=journal_limit)
        self.outcomes: dict[str, Outcome] = {}
        self.order: list[str] = []
        self.replayed: list[bool] = []
        self._changed = threading.Condition()
        self.commits = GroupCommit(self.ledger, writer, journal=self.journal, replayed=self._note_replayed)

    def submit(self, *entries: LedgerEntry) -> None:
        first = entries[0].transaction.transaction_id

        def degraded() -> list[LedgerEntry]:
            return [
                replace(each, decision=replace(each.decision, payload=each.decision.payload + " degraded"))
                for each in entries
                if each.decision is not None
            ]

        self.commits.submit(Group(entries, lambda _, outcome: self._note(first, outcome), degraded))

    def outcome(self, first: str) -> Outcome:
        """What became of the group that begins with this id."""
        self._wait(lambda: first in self.outcomes)
        return self.outcomes[first]

    def wait_for_replay(self, times: int = 1) -> None:
        self._wait(lambda: len(self.replayed) >= times)

    def close(self) -> None:
        self.switch.hold.set()
        self.commits.close()
        self.writer.close()
        self.ledger.close()
        if self.journal is not None:
            self.journal.close()

    def _note(self, first: str, outcome: Outcome) -> None:
        with self._changed:
            self.outcomes[first] = outcome
            self.order.append(first)
            self._changed.notify_all()

    def _note_replayed(self, disputed: bool) -> None:
        with self._changed:
            self.replayed.append(disputed)
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S)


@contextmanager
def bench(folder: Path, *, journal_limit: int | None = 100) -> Iterator[Bench]:
    made = Bench(folder, f"sqlite:///{folder / 'ledger.db'}", journal_limit=journal_limit)
    made.commits.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PROBE_S", 0.02)


AWAY = DependencyError("no route to the ledger")


@pytest.mark.parametrize("journal_limit", [None, 100])
def test_a_group_is_durable_in_the_ledger_when_it_is_answered(
    ledger_url: str, tmp_path: Path, journal_limit: int | None
):
    made = Bench(tmp_path, ledger_url, journal_limit=journal_limit)
    made.commits.start()
    made.submit(entry(1), entry(2, "BLOCK"))
    assert made.outcome("t1") == Outcome("ledger")
    with Ledger.open(ledger_url) as another:
        assert log_of(another) == ["t1", "t2"]
        assert another.decision("t2") == decided(2, "BLOCK")
    made.close()


def test_what_waits_is_committed_together_and_in_its_order(tmp_path: Path):
    with bench(tmp_path) as made:
        made.switch.hold.clear()
        made.submit(entry(0))
        for number in range(1, 30):
            made.submit(entry(2 * number), entry(2 * number + 1))
        made.switch.hold.set()
        made.outcome("t58")
        assert made.order == ["t0", *(f"t{2 * number}" for number in range(1, 30))]
        assert log_of(made.ledger) == ["t0", *(f"t{number}" for number in range(2, 60))]
        assert len(made.switch.groups) <= 3


def test_a_transaction_is_not_longer_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(group_commit, "MAX_GROUP", 10)
    with bench(tmp_path) as made:
        made.switch.hold.clear()
        for number in range(0, 60, 4):
            made.submit(*(entry(number + i) for i in range(4)))
        made.switch.hold.set()
        made.outcome("t56")
        assert max(made.switch.groups) <= 12
        assert log_of(made.ledger) == [f"t{number}" for number in range(60)]


def test_refusing_tells_each_group_and_goes_on_when_the_ledger_answers(tmp_path: Path):
    with bench(tmp_path, journal_limit=None) as made:
        made.switch.away = AWAY
        made.submit(entry(1))
        outcome = made.outcome("t1")
        assert isinstance(outcome.error, DependencyError)
        assert str(outcome.error) == "The ledger is away: no route to the ledger Try again in a moment."
        assert (made.commits.store_errors, made.commits.last_error) == (1, "no route to the ledger")
        made.switch.away = None
        made.submit(entry(2))
        assert made.outcome("t2") == Outcome("ledger")
        assert made.commits.last_error == ""
        assert log_of(made.ledger) == ["t2"]


@pytest.mark.parametrize("away", [AWAY, Busy("another process owns it")])
def test_the_journal_keeps_what_the_ledger_cannot_and_gives_it_back_in_order(tmp_path: Path, away: Exception):
    with bench(tmp_path) as made:
        made.submit(entry(1))
        made.outcome("t1")
        made.switch.away = away
        made.submit(entry(2), entry(3))
        assert made.outcome("t2") == Outcome("journal")
        made.submit(entry(4))
        assert made.outcome("t4") == Outcome("journal")
        assert made.commits.journalled == 3
        assert made.commits.last_error == str(away)
        made.switch.away = None
        made.wait_for_replay()
        assert made.replayed == [False]
        assert (made.commits.journalled, made.commits.last_error) == (0, "")
        assert made.journal is not None
        assert len(made.journal) == 0
        assert log_of(made.ledger) == ["t1", "t2", "t3", "t4"]
        kept = made.ledger.decision("t3")
        assert kept is not None
        assert kept.payload == decided(3).payload + " degraded"


def test_new_groups_never_overtake_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(group_commit, "REPLAY_AT_ONCE", 2)
    with bench(tmp_path) as made:
        made.switch.away = AWAY
        for number in range(5):
            made.submit(entry(number))
        made.outcome("t4")
        made.switch.away = None
        number = 5
        while not made.replayed:
            made.submit(entry(number))
            made.outcome(f"t{number}")
            number += 1
        made.submit(entry(number))
        assert made.outcome(f"t{number}") == Outcome("ledger")
        assert log_of(made.ledger) == [f"t{each}" for each in range(number + 1)]


def test_a_ledger_that_goes_away_again_during_the_replay_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(group_commit, "REPLAY_AT_ONCE", 1)
    with bench(tmp_path) as made:
        made.switch.away = AWAY
        for number in range(4):
            made.submit(entry(number))
        made.outcome("t3")
        made.switch.hold.clear()
        made.switch.away = None
        made.switch.hold.set()
        for _ in range(20):
            made.switch.away = None if made.switch.away else AWAY
            time.sleep(0)
        made.switch.away = None
        made.wait_for_replay()
        assert made.replayed == [False]
        assert log_of(made.ledger) == ["t0", "t1", "t2", "t3"]


def test_a_replay_that_was_cut_off_after_its_commit_says_that_it_found_its_own_rows(tmp_path: Path):
    with bench(tmp_path) as made:
        made.switch.away = AWAY
        made.submit(entry(1))
        made.outcome("t1")
        Ledger.append(made.ledger, [entry(1)])
        made.switch.away = None
        made.wait_for_replay()
        assert made.replayed == [True]
        assert log_of(made.ledger) == ["t1"]


def test_labels_that_waited_for_a_journalled_payment_make_the_state_follow_the_ledger(tmp_path: Path):
    with bench(tmp_path) as made:
        made.ledger.record_labels([label(1)])
        made.switch.away = AWAY
        made.submit(entry(1))
        made.outcome("t1")
        made.switch.away = None
        made.wait_for_replay()
        assert made.replayed == [True]
        assert log_of(made.ledger) == ["t1", "t1+1"]


def test_an_id_that_somebody_else_wrote_spoils_its_own_group_only(tmp_path: Path):
    with bench(tmp_path) as made:
        made.ledger.append([entry(1)])
        made.switch.hold.clear()
        made.submit(entry(0))
        made.submit(entry(2), entry(3))
        made.submit(entry(1, amount_minor=7), entry(4))
        made.submit(entry(5))
        made.switch.hold.set()
        assert [made.outcome(first) for first in ("t0", "t2", "t1", "t5")] == [
            Outcome("ledger"), Outcome("ledger"), Outcome("ledger", disputed=True), Outcome("ledger"),
        ]  # fmt: skip
        assert log_of(made.ledger) == ["t1", "t0", "t2", "t3", "t4", "t5"]


def test_a_full_journal_refuses_and_keeps_what_it_has(tmp_path: Path):
    with bench(tmp_path, journal_limit=3) as made:
        made.switch.away = AWAY
        made.submit(entry(1), entry(2))
        made.submit(entry(3), entry(4))
        made.submit(entry(5))
        assert made.outcome("t1") == Outcome("journal")
        assert isinstance(made.outcome("t3").error, JournalFull)
        assert made.outcome("t5") == Outcome("journal")
        made.switch.away = None
        made.wait_for_replay()
        assert log_of(made.ledger) == ["t1", "t2", "t5"]


def test_an_error_that_nobody_expected_is_told_and_the_thread_goes_on(tmp_path: Path):
    with bench(tmp_path) as made:
        made.switch.away = ZeroDivisionError("what is this")
        made.submit(entry(1))
        assert isinstance(made.outcome("t1").error, ZeroDivisionError)
        made.switch.away = None
        made.submit(entry(2))
        assert made.outcome("t2") == Outcome("ledger")


@pytest.mark.parametrize("trouble", [ZeroDivisionError("what is this"), DependencyError("still away")])
def test_trouble_while_the_journal_is_replayed_does_not_end_the_thread(tmp_path: Path, trouble: Exception):
    with bench(tmp_path) as made:
        made.switch.away = AWAY
        made.submit(entry(1))
        made.outcome("t1")
        made.switch.away = trouble
        made.submit(entry(2))
        made.outcome("t2")
        made.switch.away = None
        made.wait_for_replay()
        made.submit(entry(3))
        assert made.outcome("t3") == Outcome("ledger")


def test_closing_commits_what_waits(tmp_path: Path):
    made = Bench(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}", journal_limit=None)
    for number in range(50):
        made.submit(entry(number))
    made.commits.start()
    made.commits.close()
    assert [made.outcomes[f"t{number}"] for number in range(50)] == [Outcome("ledger")] * 50
    assert log_of(made.ledger) == [f"t{number}" for number in range(50)]
    made.writer.close()
    made.ledger.close()


def test_what_an_earlier_process_left_in_the_journal_comes_first(tmp_path: Path):
    earlier = LocalJournal(tmp_path / "journal.db", limit=10)
    earlier.append([entry(1), entry(2)])
    earlier.close()
    with bench(tmp_path) as made:
        assert made.commits.journalled == 2
        made.wait_for_replay()
        made.submit(entry(3))
        assert made.outcome("t3") == Outcome("ledger")
        assert log_of(made.ledger) == ["t1", "t2", "t3"]
