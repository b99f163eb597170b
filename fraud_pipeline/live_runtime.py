"""The scoring service without HTTP: the adapters of the live route, put together as the settings say, started and stopped.

It comes up by itself: where the ledger is away, another process owns the log, or there is no champion yet, it says so in
`problems` and tries again. Nothing is opened before `start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fraud_pipeline.adapters.api_keys import ApiKey, KeyStore
from fraud_pipeline.adapters.cached_keys import CachedKeys
from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.drift_results import DriftResults
from fraud_pipeline.adapters.group_commit import GroupCommit
from fraud_pipeline.adapters.history_labels import HistoryLabels
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import RecordedLabels
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.adapters.live_decisions import LEDGER_AWAY, DecisionMaker
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.live_scorer import LiveScorer
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.adapters.local_journal import LocalJournal
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher
from fraud_pipeline.adapters.shadow import ShadowScorer
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.adapters.tick_commit import TickCommit
from fraud_pipeline.domain.feature_batch import warm
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline.errors import DependencyError, FraudError
from fraud_pipeline.settings import Settings

if TYPE_CHECKING:
    from fraud_pipeline.adapters.replica_scorer import ReplicaScorer

RETRY_S: Final = 1.0
"""How soon another attempt to come up follows a failed one."""
LABEL_FEED_S: Final = 60.0
"""How often labels of the landed history are looked for whose time has come."""
CHECKPOINT_EVERY: Final = 50_000
"""Places in the log after which a checkpoint is made in the background: half a second of replay."""
CHECKPOINT_CHECK_S: Final = 30.0
RENEW_S: Final = 86_400.0
"""How often customers and merchants that are past their horizon leave the live state."""
MAX_FED_LABELS: Final = 1_000
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """What a replica on the log counts beside what every runtime does."""

    log_away: bool
    relayed: int
    in_flight: int
    relay_errors: int
    own_payments: int
    forgotten: int
    overtaken: int
    unsettled: int
    view_errors: int
    damaged: int
    closed: Mapping[str, int]


class LiveRuntime:
    """`start` returns at once; `scorer` is there when `problems` is empty."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_at = utc_now()
        self.metrics = LiveMetrics()
        self.keys = CachedKeys(self._load_keys)
        self.ledger: Ledger | None = None
        self.models: ModelSlot | None = None
        self.scorer: LiveScorer | ReplicaScorer | None = None
        self.shadow: ShadowScorer | None = None
        self.history = HistoryLabels(SourceStore(settings.home))
        self.problem = "The service is starting."
        self._writer: LedgerWriter | None = None
        self._journal: LocalJournal | None = None
        self._states: LiveStateStore | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._opening: asyncio.Future[None] | None = None
        self._drift: DriftResults | None = None
        self._checkpointed = 0
        self._fed_until: datetime | None = None

    # Life

    async def start(self) -> None:
        """Begin to come up, in the background."""
        self._tasks.append(asyncio.create_task(self._come_up()))

    async def stop(self) -> None:
        """Commit what is in flight, keep the state as a checkpoint, close everything."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._opening is not None:
            await asyncio.gather(
                self._opening, return_exceptions=True
            )  # a thread goes on: what it opens is closed below
        if self.scorer is not None:
            live = await self.scorer.close()
            if live is not None and self._states is not None and live.sequence > self._checkpointed:
                try:
                    await asyncio.to_thread(self._states.keep, live)
                except FraudError as err:
                    log.warning("no checkpoint at the end: %s", err.message)
        await asyncio.to_thread(self._close)
        await asyncio.to_thread(self.keys.close)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why a payment would not be decided now; empty where it would."""
        found = [self.problem] if self.problem else []
        if not self.problem and self.scorer is not None and self.scorer.gate.problem:
            found.append(self.scorer.gate.problem)
        if not self.problem and self.models is not None and self.models.champion is None:
            refused = self.models.refused
            found.append(
                f"Version {refused.version} is refused: {refused.reason}" if refused else "There is no champion yet."
            )
        return tuple(found)

    @property
    def lacking(self) -> tuple[str, ...]:
        """What decisions have to do without now."""
        journalled = 0 if self.scorer is None else (self.scorer.commits and self.scorer.commits.journalled)
        return (LEDGER_AWAY,) if journalled else ()

    def more_health(self) -> dict[str, Any]:
        """Dependencies that only some runtimes have."""
        return {}

    def replica_counts(self) -> ReplicaCounts | None:
        """What a replica counts; None where this is none."""
        return None

    def ready_scorer(self) -> LiveScorer | ReplicaScorer:
        """The scorer; DependencyError, with the reasons, where it cannot decide."""
        problems = self.problems
        if problems or self.scorer is None:
            raise DependencyError(" ".join(problems), remedy="`GET /health` says more; `fraud run` makes a champion.")
        return self.scorer

    def open_ledger(self) -> Ledger:
        """The ledger; DependencyError while it was not reached even once."""
        if self.ledger is None:
            raise DependencyError(self.problem or "The ledger is not open.", remedy="`GET /health` says more.")
        return self.ledger

    def drift_results(self) -> DriftResults:
        """The drift reports of this home, with what was read of them already."""
        if self._drift is None:
            self._drift = DriftResults(self.settings.reports_dir, self.open_ledger())
        return self._drift

    async def record_labels(self, labels: Sequence[Label]) -> RecordedLabels:
        """Record labels, of live payments and of the landed history's."""
        scorer, ledger = self.scorer, self.ledger
        if scorer is None or ledger is None or self.problem:
            raise DependencyError(self.problem, remedy="`GET /health` says more.")

        def adopt() -> None:
            known = {t.transaction.transaction_id for t in ledger.transactions([x.transaction_id for x in labels])}
            past = self.history.payments({x.transaction_id for x in labels} - known)
            if past:
                ledger.adopt(past)

        return await scorer.record_labels(labels, first=adopt)

    # Within

    async def _come_up(self) -> None:
        while True:
            try:
                self._opening = asyncio.ensure_future(asyncio.to_thread(self._open))
                await asyncio.shield(self._opening)
                await self._start_scorer()
                break
            except Exception as err:  # whatever it is, it is told, and what caused it may pass
                reason = str(err) if isinstance(err, FraudError) else f"{type(err).__name__}: {err}"
                if reason != self.problem:
                    log.warning("the service cannot start yet: %s", reason, exc_info=not isinstance(err, FraudError))
                self.problem = reason
                await asyncio.to_thread(self._close)
            await asyncio.sleep(RETRY_S)
        gc.collect()
        gc.freeze()  # what is there now stays: looking through all of it again and again would hold payments up for 0.1 s
        self.problem = ""
        if self.scorer is not None and self.scorer.live is not None:
            log.info("the service decides; its state stands at place %d of the log", self.scorer.live.sequence)
        if not self.settings.require_keys and not self.keys.any_made():
            log.warning(
                "no API key was ever made: everybody on this machine may ask, nobody else (`fraud keys create`)"
            )
        self._tasks += [asyncio.create_task(work) for work in self._chores()]

    def _chores(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on beside deciding."""
        return self._feed_labels(), self._keep_checkpoints()

    def _open(self) -> None:
        """Everything but the state: the ledger, its ownership, what a killed process left in the journal, the models."""
        settings = self.settings
        self.ledger = Ledger.open(settings.ledger_url)
        self.keys.refresh()
        self._writer = LedgerWriter.open(self.ledger.database)
        warm()
        path = settings.home / "journal.db"
        self._journal = LocalJournal(path, limit=settings.journal_limit)
        if entries := self._journal.first(len(self._journal)):
            self.ledger.append([entry for _, entry in entries])
            self._journal.remove_through(entries[-1][0])
            log.warning("%d decisions that an earlier process left in the journal are in the ledger now", len(entries))
        fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        self.models = ModelSlot(self.ledger, fetch, now=utc_now, challenger_share=settings.challenger_share)
        self.models.refresh()
        self._states = LiveStateStore(
            settings.home, CheckpointStore(settings.checkpoint_url), self.ledger, time_zone=settings.time_zone
        )

    async def _start_scorer(self) -> None:
        assert self.ledger is not None and self.models is not None and self._writer is not None  # noqa: PT018
        assert self._states is not None
        loop, settings = asyncio.get_running_loop(), self.settings
        self.shadow = ShadowScorer(
            self.ledger, self.models, self.metrics, control_share=settings.control_share, now=utc_now
        )
        decisions = DecisionMaker(
            self.models, self.metrics, control_share=settings.control_share, now=utc_now, shadow=self.shadow.offer
        )
        states = self._states
        scorer = LiveScorer(
            self.ledger,
            decisions,
            self.metrics,
            recover=lambda: states.recover(self._recovering),
            replay=states.replay,
        )

        def replayed(disputed: bool) -> None:
            loop.call_soon_threadsafe(scorer.journal_replayed, disputed)

        commits = GroupCommit(
            self.ledger,
            self._writer,
            journal=self._journal if settings.degraded_policy == "journal" else None,
            replayed=replayed,
        )
        await scorer.start(TickCommit(commits, self._writer))
        self.scorer = scorer
        self._checkpointed = scorer.live.kept_at if scorer.live is not None else 0
        self.models.watch()
        self.shadow.start()
        self.keys.start()

    def _recovering(self, done: int, places: int) -> None:
        if self.problem:
            self.problem = f"The state is being recovered: {done:,} of {places:,} places of the log."

    def _close(self) -> None:
        for part in (self.shadow, self.models, self._writer, self._journal, self.ledger):
            if part is not None:
                part.close()
        self.shadow = self.models = self._writer = self._journal = self._drift = self.ledger = self.scorer = None

    def _load_keys(self) -> Iterable[ApiKey]:
        return KeyStore(self.open_ledger().database).list()

    async def _feed_labels(self) -> None:
        """Record the history's labels when they become known."""
        while True:
            now = utc_now()
            try:
                due = await asyncio.to_thread(self.history.due, after=self._fed_until, until=now)
                for start in range(0, len(due), MAX_FED_LABELS):
                    await self.record_labels(due[start : start + MAX_FED_LABELS])
                self._fed_until = now
            except FraudError as err:
                log.warning("labels of the history wait: %s", err.message)
            except Exception:  # it is tried again, and the service goes on
                log.exception("labels of the history wait")
            await asyncio.sleep(LABEL_FEED_S)

    async def _keep_checkpoints(self) -> None:
        """Have checkpoints made as the log grows, and the state renewed once a day."""
        renewed = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(CHECKPOINT_CHECK_S)
            try:
                place = await asyncio.to_thread(self.open_ledger().last_sequence)
                if place - self._checkpointed >= CHECKPOINT_EVERY:
                    await self._make_checkpoint(place)
                if asyncio.get_running_loop().time() - renewed >= RENEW_S:
                    renewed = asyncio.get_running_loop().time()
                    await self._make_checkpoint(place)
                    scorer = self.ready_scorer()
                    if isinstance(scorer, LiveScorer):
                        await scorer.renew()
            except FraudError as err:
                log.warning("checkpoints wait: %s", err.message)
            except Exception:  # it is tried again, and the service goes on
                log.exception("checkpoints wait")

    async def _make_checkpoint(self, place: int) -> None:
        """In a process of its own, which replays the log: nothing here is held up for it."""
        settings = self.settings
        addresses = {
            "FRAUD_HOME": str(settings.home),
            "FRAUD_LEDGER_URL": settings.ledger_url,
            "FRAUD_CHECKPOINT_URL": settings.checkpoint_url,
            "FRAUD_TIME_ZONE": settings.time_zone,
        }
        maker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fraud_pipeline.cli", "state", "checkpoint", "--json", env={**os.environ, **addresses},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, said = await maker.communicate()
        except asyncio.CancelledError:  # the service stops, and keeps one of its own
            maker.kill()
            await maker.wait()
            raise
        if maker.returncode:
            log.warning("no checkpoint at place %d: %s", place, said.decode(errors="replace").strip()[-500:])
        else:
            self._checkpointed = place
