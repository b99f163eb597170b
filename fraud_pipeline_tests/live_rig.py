"""The live writer over a real SQLite ledger that can be taken away, and the proof that its state is the log's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import orjson
import sqlalchemy as sa

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.group_commit import GroupCommit
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.adapters.live_decisions import DecisionMaker
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.live_scorer import LiveScorer
from fraud_pipeline.adapters.live_state import LiveState, LiveStateStore, advance
from fraud_pipeline.adapters.local_journal import LocalJournal
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher
from fraud_pipeline.adapters.tick_commit import TickCommit
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.serving.home import HISTORY_END

DEADLINE_S = 30.0
KNOWN_AT = HISTORY_END + timedelta(hours=3)
AWAY_TABLES = ("transactions", "writers")


class LiveRig:
    """`async with LiveRig(settings) as rig`: a scorer that takes payments. `at_once`: commits in the loop where that goes."""

    def __init__(
        self, settings: Settings, *, policy: str = "journal", at_once: bool = True, journal_limit: int = 10_000
    ) -> None:
        self.settings = settings
        self.metrics = LiveMetrics()
        self.kept: LiveState | None = None
        self._policy = policy
        self._at_once = at_once
        self._journal_limit = journal_limit
        self._closed = False

    async def __aenter__(self) -> Self:
        settings = self.settings
        self.ledger = Ledger.open(settings.ledger_url)
        self.writer = LedgerWriter.open(self.ledger.database)
        self.journal = LocalJournal(settings.home / "journal.db", limit=self._journal_limit)
        fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        self.models = ModelSlot(self.ledger, fetch, now=_now)
        self.models.refresh()
        self.states = LiveStateStore(settings.home, CheckpointStore(settings.checkpoint_url), self.ledger)
        decisions = DecisionMaker(self.models, self.metrics, control_share=0.01, now=_now)
        self.scorer = LiveScorer(
            self.ledger, decisions, self.metrics, recover=self.states.recover, replay=self.states.replay
        )
        loop = asyncio.get_running_loop()

        def replayed(disputed: bool) -> None:
            loop.call_soon_threadsafe(self.scorer.journal_replayed, disputed)

        journal = self.journal if self._policy == "journal" else None
        self.commits = GroupCommit(self.ledger, self.writer, journal=journal, replayed=replayed)
        await self.scorer.start(TickCommit(self.commits, self.writer) if self._at_once else self.commits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As the service stops; `kept` is what it would keep as a checkpoint."""
        if self._closed:
            return
        self._closed = True
        try:
            self.kept = await self.scorer.close()
        finally:
            self.writer.close()
            self.journal.close()
            self.ledger.close()

    async def score(self, payment: Transaction) -> bytes:
        return await self.scorer.score(payment, received_at=payment.event_time)

    def take_away(self) -> None:
        """From now on every payment's read and write of the ledger fails."""
        self._rename("", "_away")

    def bring_back(self) -> None:
        self._rename("_away", "")

    async def settled(self) -> None:
        """Wait until the ledger has the journal and the gate is open."""
        await self.until(
            lambda: (
                not self.scorer.gate.problem
                and not self.commits.journalled
                and not self.scorer._payments.any_journalled
            )
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that another task or thread brings about."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.scorer.gate.problem
            await asyncio.sleep(0.001)

    async def check(self) -> None:
        """State equal to a replay of the log, vectors equal to those the replay reads, one decision each."""
        await self.settled()
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        replayed, read = self.states.base(), list[tuple[str, bytes]]()
        champion = self.models.champion
        assert champion is not None
        until = self.ledger.last_sequence()
        for page in self.ledger.log_pages(LOCAL_WRITER, until=until, extra=("transaction_id",)):
            ids = page.events["transaction_id"].to_pylist()
            rows = advance(replayed, page, "UTC")
            read += [(identity, row.tobytes()) for identity, row in zip(ids, rows, strict=True)]
        assert self.scorer.state.snapshot() == replayed.state.snapshot()
        width = len(read[0][1]) if read else 0
        undecided = 0
        for identity, row in read:
            record = self.ledger.decision(identity)
            undecided += record is None
            if record is not None and not self.metrics.rebuilds:
                assert record.features[:width] == row, identity
        self.undecided = undecided

    def answer_of(self, identity: str) -> bytes:
        """The stored answer."""
        record = self.ledger.decision(identity)
        assert record is not None
        return record.payload.encode()

    def _rename(self, before: str, after: str) -> None:
        """A database of its own: SQLAlchemy's pool must not hold a connection that waits."""
        engine = sa.create_engine(self.settings.ledger_url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for table in AWAY_TABLES:
                connection.exec_driver_sql(f"ALTER TABLE {table}{before} RENAME TO {table}{after}")
        engine.dispose()


def said(answer: bytes, name: str) -> object:
    """A field of an answer."""
    return orjson.loads(answer)[name]


def run(work: Callable[[], Awaitable[None]], *, within: float = 60) -> None:
    """In an event loop of its own, for a bounded time."""

    async def bounded() -> None:
        await asyncio.wait_for(work(), within)

    asyncio.run(bounded())


async def turns(count: int = 5) -> None:
    """Let everyone else go on for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


def label(payment: Transaction, *, is_fraud: bool = True, author: str = "ann") -> Label:
    """What somebody says of a payment three hours after the history."""
    return Label(payment.transaction_id, is_fraud, "analyst", author, KNOWN_AT)


def _now() -> datetime:
    return HISTORY_END
