from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from fraud_pipeline.adapters import tick_commit
from fraud_pipeline.adapters.group_commit import Group, GroupCommit, Outcome
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.adapters.local_journal import LocalJournal
from fraud_pipeline.adapters.tick_commit import TickCommit
from fraud_pipeline.errors import Busy
from fraud_pipeline_tests.entries import entry, log_of


class CountingWriter(LedgerWriter):
    """The real owner; `trouble` is what its next commit in the loop raises."""

    at_once: list[int]
    by_thread: list[int]
    trouble: Exception | None

    def append_at_once(self, *groups: Sequence[LedgerEntry]) -> int:
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        self.at_once.append(sum(map(len, groups)))
        return super().append_at_once(*groups)

    def append(self, *groups: Sequence[LedgerEntry]) -> int:
        self.by_thread.append(sum(map(len, groups)))
        return super().append(*groups)


class Bench:
    """Commits of both ways over a real ledger."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
        writer = LedgerWriter.open(self.ledger.database)
        writer.__class__ = CountingWriter
        assert isinstance(writer, CountingWriter)
        writer.at_once, writer.by_thread, writer.trouble = [], [], None
        self.writer = writer
        self.journal = LocalJournal(folder / "journal.db", limit=100)
        self.commits = TickCommit(GroupCommit(self.ledger, writer, journal=self.journal), writer)
        self.commits.start()

    def submit(self, *entries: LedgerEntry) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()

        def done(_: Group, outcome: Outcome) -> None:
            loop.call_soon_threadsafe(future.set_result, outcome)

        self.commits.submit(Group(entries, done, lambda: entries))
        return future

    async def idle(self) -> None:
        """Return when the thread has settled everything."""
        for _ in range(10_000):
            if not self.commits._commits.waiting:
                return
            await asyncio.sleep(0.001)
        raise TimeoutError

    async def close(self) -> list[str]:
        """The log as it is left."""
        await asyncio.to_thread(self.commits.close)
        log = log_of(self.ledger)
        self.writer.close()
        self.journal.close()
        self.ledger.close()
        return log


def test_what_comes_in_one_turn_is_committed_together_at_its_end(tmp_path: Path):
    async def work() -> None:
        bench = Bench(tmp_path)
        groups = [bench.submit(entry(2 * number), entry(2 * number + 1)) for number in range(10)]
        assert bench.ledger.last_sequence() == 0
        assert await asyncio.gather(*groups) == [Outcome("ledger")] * 10
        assert await bench.submit(entry(20)) == Outcome("ledger")
        assert (bench.writer.at_once, bench.writer.by_thread) == ([20, 1], [])
        assert await bench.close() == [f"t{number}" for number in range(21)]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_large_turn_is_the_threads_and_nobody_overtakes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tick_commit, "MAX_ROWS", 8)

    async def work() -> None:
        bench = Bench(tmp_path)
        groups = [bench.submit(*(entry(number) for number in range(20)))]
        await asyncio.sleep(0)
        groups += [bench.submit(entry(number)) for number in range(20, 30)]
        await asyncio.gather(*groups)
        assert sum(bench.writer.by_thread) >= 20
        assert await bench.close() == [f"t{number}" for number in range(30)]

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("trouble", [Busy("another process writes"), ZeroDivisionError("what is this")])
def test_what_does_not_go_at_once_goes_the_long_way_in_its_order(tmp_path: Path, trouble: Exception):
    async def work() -> None:
        bench = Bench(tmp_path)
        bench.writer.trouble = trouble
        groups = [bench.submit(entry(number)) for number in range(3)]
        await asyncio.sleep(0)
        groups += [bench.submit(entry(number)) for number in range(3, 6)]
        assert await asyncio.gather(*groups) == [Outcome("ledger")] * 6
        assert bench.writer.at_once == []
        await bench.idle()
        await bench.submit(entry(6))
        assert bench.writer.at_once == [1]
        assert await bench.close() == [f"t{number}" for number in range(7)]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_another_process_that_writes_for_long_holds_up_no_turn(tmp_path: Path):
    async def work() -> None:
        bench = Bench(tmp_path)
        await bench.submit(entry(0))
        loop = asyncio.get_running_loop()
        with bench.ledger.database.writing():
            waiting = bench.submit(entry(1))
            started = loop.time()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert loop.time() - started < 5  # SQLite's own patience is 10 s
            assert not waiting.done()
        assert await waiting == Outcome("ledger")
        assert await bench.close() == ["t0", "t1"]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_taken_id_is_sorted_out_and_the_others_are_kept(tmp_path: Path):
    async def work() -> None:
        bench = Bench(tmp_path)
        bench.ledger.append([entry(1)])
        outcomes = await asyncio.gather(*(bench.submit(entry(number)) for number in range(3)))
        assert outcomes == [Outcome(), Outcome(disputed=True), Outcome()]
        assert await bench.close() == ["t1", "t0", "t2"]

    asyncio.run(asyncio.wait_for(work(), 30))


def test_while_the_journal_holds_anything_everything_goes_behind_it(tmp_path: Path):
    left = LocalJournal(tmp_path / "journal.db", limit=100)
    left.append([entry(0), entry(1)])
    left.close()

    async def work() -> None:
        bench = Bench(tmp_path)
        assert bench.commits.journalled == 2
        assert await bench.submit(entry(2)) == Outcome("ledger")
        assert await bench.submit(entry(3)) == Outcome("ledger")
        assert (await bench.close())[:3] == ["t0", "t1", "t2"]

    asyncio.run(asyncio.wait_for(work(), 30))
