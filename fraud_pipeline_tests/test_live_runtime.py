from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from fraud_pipeline import live_runtime
from fraud_pipeline.adapters import group_commit, live_scorer, model_slot
from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.adapters.live_scorer import LiveScorer
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.adapters.local_journal import LocalJournal
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import DependencyError
from fraud_pipeline.live_runtime import LiveRuntime
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.live_rig import said
from fraud_pipeline_tests.serving.home import HISTORY_END, live_payments, made_bundle, promote_bundle, serving_home

DEADLINE_S = 30.0
PAYMENTS = live_payments(60)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return serving_home(tmp_path / "home")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (live_runtime, "RETRY_S", 0.03), (live_runtime, "LABEL_FEED_S", 0.05), (model_slot, "POLL_S", 0.03),
        (group_commit, "PROBE_S", 0.03), (live_scorer, "REBUILD_RETRY_S", 0.03),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 60)

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[LiveRuntime]:
    runtime = LiveRuntime(settings)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[LiveRuntime]:
    """Up, and with the history's labels in its log."""
    async with started(settings) as runtime:
        await until(lambda: not runtime.problems)
        await until(lambda: runtime._fed_until is not None)
        yield runtime


async def score(runtime: LiveRuntime, payment: Transaction) -> bytes:
    return await runtime.ready_scorer().score(payment, received_at=payment.event_time)


def decides(runtime: LiveRuntime) -> str | None:
    champion = runtime.models and runtime.models.champion
    return champion.bundle.version if champion else None


def states_of(settings: Settings, ledger: Ledger) -> LiveStateStore:
    return LiveStateStore(settings.home, CheckpointStore(settings.checkpoint_url), ledger)


def replayed(settings: Settings, ledger: Ledger) -> bytes:
    """The state by replay of the whole log, without any checkpoint."""
    states = states_of(settings, ledger)
    live = states.base()
    states.replay(live)
    return live.state.snapshot()


def state_of(runtime: LiveRuntime) -> bytes:
    scorer = runtime.ready_scorer()
    assert isinstance(scorer, LiveScorer)
    return scorer.state.snapshot()


def checkpoints(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.home.glob("checkpoints/live/local/*/*/*.state"))


def test_it_comes_up_decides_and_stops(settings: Settings):
    async def work() -> None:
        threads = threading.active_count()
        runtime = LiveRuntime(settings)
        assert runtime.problems == ("The service is starting.",)
        with pytest.raises(DependencyError, match="The service is starting"):
            runtime.ready_scorer()
        with pytest.raises(DependencyError, match="The service is starting"):
            runtime.open_ledger()
        async with running(settings) as runtime:
            answer = await score(runtime, PAYMENTS[0])
            assert said(answer, "model_version") == "1"
            assert runtime.open_ledger().decision("live-0") is not None
            assert state_of(runtime) == replayed(settings, runtime.open_ledger())
        assert runtime.scorer is None
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {"group-commit", "model-watch", "shadow", "api-keys"}, threads

    run(work)


def test_it_comes_up_when_the_ledger_can_be_read(settings: Settings):
    ledger = settings.home / "ledger.db"
    aside = ledger.rename(ledger.with_name("aside.db"))
    ledger.write_bytes(b"no database, and long enough to be looked at" * 100)

    async def work() -> None:
        async with started(settings) as runtime:
            await until(lambda: "damaged" in runtime.problem)
            with pytest.raises(DependencyError, match=r"ledger.* is damaged"):
                runtime.ready_scorer()
            with pytest.raises(DependencyError, match="damaged"):
                await runtime.record_labels([])
            aside.replace(ledger)
            await until(lambda: not runtime.problems)
            await score(runtime, PAYMENTS[0])

    run(work)


def test_it_comes_up_when_the_folder_of_the_ledger_can_be_made(settings: Settings):
    blocked = settings.home / "elsewhere"
    blocked.write_text("a file where a folder should be")
    moved = settings.model_copy(update={"ledger_url": f"sqlite:///{blocked / 'ledger.db'}"})

    async def work() -> None:
        async with started(moved) as runtime:
            await until(lambda: "elsewhere" in runtime.problem)
            blocked.unlink()
            await until(lambda: runtime.problems == ("There is no champion yet.",))

    run(work)


def test_a_second_one_says_why_it_waits_and_takes_over(settings: Settings):
    async def work() -> None:
        async with started(settings) as first:
            await until(lambda: not first.problems)
            answer = await score(first, PAYMENTS[0])
            async with started(settings) as second:
                await until(lambda: "already has its one writer" in second.problem)
                assert "Stop the other process first" in second.problem
                await score(first, PAYMENTS[1])
                await first.stop()
                await until(lambda: not second.problems)
                assert await score(second, PAYMENTS[0]) == answer
                await score(second, PAYMENTS[2])
                assert state_of(second) == replayed(settings, second.open_ledger())

    run(work)


def test_without_a_champion_it_waits_for_one(settings: Settings):
    for path in settings.home.glob("ledger.db*"):
        path.unlink()

    async def work() -> None:
        async with started(settings) as runtime:
            await until(lambda: runtime.problems == ("There is no champion yet.",))
            with pytest.raises(DependencyError, match="There is no champion yet"):
                runtime.ready_scorer()
            promote_bundle(settings, made_bundle(), 1)
            await until(lambda: not runtime.problems)
            await score(runtime, PAYMENTS[0])

    run(work)


def test_a_champion_that_is_not_to_be_had_is_named_and_a_promotion_helps(settings: Settings):
    for path in (settings.bundles_dir).glob("*/classifier.onnx"):
        path.write_bytes(b"damaged")

    async def work() -> None:
        async with started(settings) as runtime:
            await until(lambda: bool(runtime.problems) and runtime.problems[0].startswith("Version 1 is refused: "))
            promote_bundle(settings, made_bundle(0.1), 2)
            await until(lambda: not runtime.problems)
            assert said(await score(runtime, PAYMENTS[0]), "model_version") == "2"

    run(work)


def test_a_promotion_decides_the_next_payment_without_a_failed_one(settings: Settings):
    async def work() -> None:
        async with running(settings) as runtime:
            versions = []
            for payment in PAYMENTS:
                if payment is PAYMENTS[5]:
                    promoting = asyncio.create_task(asyncio.to_thread(promote_bundle, settings, made_bundle(0.1), 2))
                versions.append(said(await score(runtime, payment), "model_version"))
                if payment is PAYMENTS[40]:
                    await promoting
                    await until(lambda: decides(runtime) == "2")
            assert versions[:5] == ["1"] * 5
            assert versions[41:] == ["2"] * 19
            assert versions == sorted(versions)  # type: ignore[type-var]

    run(work)


@pytest.mark.parametrize("policy", ["journal", "refuse"])
@pytest.mark.parametrize("limit", [100, 3])
def test_what_a_killed_process_left_in_the_journal_is_in_the_log_before_anything_else(
    settings: Settings, policy: str, limit: int
):
    left = LocalJournal(settings.home / "journal.db", limit=100)
    left.append([_journalled(payment) for payment in PAYMENTS[:7]])
    left.close()
    settings = settings.model_copy(update={"degraded_policy": policy, "journal_limit": limit})

    async def work() -> None:
        async with running(settings) as runtime:
            log = [e.transaction for e in runtime.open_ledger().read_log() if e.transaction is not None]
            assert log == PAYMENTS[:7]
            assert await score(runtime, PAYMENTS[3]) == b'{"transaction_id":"live-3","degraded":["ledger"]}'
            await score(runtime, PAYMENTS[7])
            assert state_of(runtime) == replayed(settings, runtime.open_ledger())
            assert runtime._journal is not None
            assert len(runtime._journal) == 0

    run(work)


def _journalled(payment: Transaction) -> LedgerEntry:
    payload = f'{{"transaction_id":"{payment.transaction_id}","degraded":["ledger"]}}'
    record = DecisionRecord(payment.transaction_id, HISTORY_END, "APPROVE", 0.01, "1", payload, b"")
    return LedgerEntry(payment, payment.event_time, decision=record)


def test_the_checkpoint_of_a_stop_is_where_the_next_start_goes_on(settings: Settings):
    async def work() -> None:
        async with running(settings) as runtime:
            for payment in PAYMENTS[:20]:
                await score(runtime, payment)
            before = state_of(runtime)
            place = runtime.open_ledger().last_sequence()
        assert checkpoints(settings) == [f"{place:016d}.state"]
        with Ledger.open(settings.ledger_url) as ledger, ledger.database.writing() as connection:
            assert states_of(settings, ledger).recover().state.snapshot() == before
            connection.exec_driver_sql(
                "DELETE FROM transactions WHERE transaction_id = 'live-0'"
            )  # no replay gets past it
        async with running(settings) as runtime:
            assert state_of(runtime) == before
            await score(runtime, PAYMENTS[20])
        assert checkpoints(settings) == [f"{place:016d}.state", f"{place + 1:016d}.state"]

    run(work)


def test_a_start_that_had_to_replay_counts_from_its_checkpoint_not_from_the_logs_end(settings: Settings):
    """Else a process that is killed again and again leaves ever more to replay."""

    async def work() -> None:
        async with running(settings) as runtime:
            for payment in PAYMENTS[:7]:
                await score(runtime, payment)
            place = runtime.open_ledger().last_sequence()
        for path in settings.home.glob("checkpoints/live/local/*/*/*.state"):
            path.unlink()  # as after a kill: the log is there, no checkpoint is
        async with running(settings):
            assert checkpoints(settings) == []
        assert checkpoints(settings) == [f"{place:016d}.state"]

    run(work)


def test_a_stop_with_nothing_new_keeps_no_further_checkpoint(settings: Settings):
    async def work() -> None:
        for _ in range(2):
            async with running(settings):
                pass

    run(work)
    assert len(checkpoints(settings)) == 1


def test_a_gap_in_the_log_is_said_and_nothing_is_decided(settings: Settings):
    with Ledger.open(settings.ledger_url) as ledger:
        ledger.append([LedgerEntry(payment, payment.event_time) for payment in PAYMENTS[:5]])
        with ledger.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM transactions WHERE sequence = 3")

    async def work() -> None:
        async with started(settings) as runtime:
            await until(lambda: "has 4 of the 5 places" in runtime.problem)
            await until(lambda: runtime.scorer is None and "places" in runtime.problem)
            for _ in range(5):
                await asyncio.sleep(live_runtime.RETRY_S)
            commits = [thread for thread in threading.enumerate() if thread.name == "group-commit"]
            assert len(commits) <= 1

    run(work)


def test_labels_of_the_landed_history_are_fed_once(settings: Settings):
    history = LiveRuntime(settings).history
    due = history.due(after=None, until=HISTORY_END + timedelta(days=30))
    assert len(due) > 5

    async def work() -> None:
        for _ in range(2):
            async with running(settings) as runtime:
                ledger = runtime.open_ledger()
                known = ledger.labels_known(HISTORY_END - timedelta(days=1), HISTORY_END + timedelta(days=30))
                assert sorted((label.known_at, label.transaction_id) for label, _ in known) == [
                    (label.known_at, label.transaction_id) for label in due
                ]
                assert ledger.last_sequence() == len(due)
                assert len(ledger.waiting_ids()) == 0
                assert state_of(runtime) == replayed(settings, ledger)

    run(work)


def test_a_payment_of_the_history_can_be_labelled_and_an_unknown_one_waits(settings: Settings):
    async def work() -> None:
        async with running(settings) as runtime:
            source = SourceStore(settings.home)
            past = source.read_day("transactions", source.days("transactions")[-3]).to_pylist()[0]["transaction_id"]
            known_at = HISTORY_END + timedelta(days=40)
            labels = [Label(past, True, "analyst", "ann", known_at), Label("live-0", True, "analyst", "ann", known_at)]
            recorded = await runtime.record_labels(labels)
            assert [each.change.transaction_id for each in recorded.released] == [past]
            assert recorded.waiting == ("live-0",)
            await score(runtime, PAYMENTS[0])
            assert runtime.open_ledger().waiting_ids() == set()
            assert state_of(runtime) == replayed(settings, runtime.open_ledger())

    run(work)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_stop_while_it_starts_leaves_the_ledger_to_others(settings: Settings, turns: int):
    async def work() -> None:
        runtime = LiveRuntime(settings)
        await runtime.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await runtime.stop()
        with Ledger.open(settings.ledger_url) as ledger:
            LedgerWriter.open(ledger.database).close()

    run(work)


def test_a_stop_without_its_ledger_ends_all_the_same(settings: Settings):
    async def work() -> None:
        async with running(settings) as runtime:
            await score(runtime, PAYMENTS[0])
            with runtime.open_ledger().database.writing() as connection:
                connection.exec_driver_sql("ALTER TABLE writers RENAME TO elsewhere")
        assert checkpoints(settings) == []
        with Ledger.open(settings.ledger_url) as ledger:
            with ledger.database.writing() as connection:
                connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO writers")
            LedgerWriter.open(ledger.database).close()

    run(work)
