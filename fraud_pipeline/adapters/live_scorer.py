"""The one writer `local` at work: decides payments one after the other, has them committed in groups, answers what is durable.

All methods run in one event loop. A payment is read, decided and taken into the state without a pause in between, so the
order of decisions is the order of the log, and a replay of the log makes the same state and the same vectors. What must stand
alone in the log (labels, and payments that a label waits for) holds the others back while it is committed. Where a commit
fails after all, the state is ahead of the log and is built anew from it. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

from fraud_pipeline.adapters.group_commit import Group, GroupCommit, Outcome
from fraud_pipeline.adapters.known_payments import ON_ITS_WAY, Known, KnownPayments
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_lookup import LedgerLookup
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER, DecisionRecord, RecordedLabels, ReleasedLabel
from fraud_pipeline.adapters.ledger_transactions import differing_fields
from fraud_pipeline.adapters.live_decisions import LEDGER_AWAY, Computed, DecisionMaker, Made
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.live_state import LiveState
from fraud_pipeline.adapters.log_gate import LogGate
from fraud_pipeline.adapters.tick_commit import TickCommit
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import Busy, ConflictingTransaction, DependencyError, FraudError

BATCH_CHUNK: Final = 256
"""Payments of a batch that are decided before others get their turn: about 6 ms, and one INSERT's worth."""
MAX_IN_FLIGHT: Final = 20_000
"""Payments that wait for their commit; beyond it the ledger is too slow for what comes, and callers are told."""
REBUILD_RETRY_S: Final = 1.0
log = logging.getLogger(__name__)

Commits = GroupCommit | TickCommit
Result = TypeVar("Result")


class LiveScorer:
    """Use `start` first and `close` last.

    `recover` makes the state at the log's end, `replay` has one follow the log to there; both run in threads.
    """

    def __init__(
        self,
        ledger: Ledger,
        decisions: DecisionMaker,
        metrics: LiveMetrics,
        *,
        recover: Callable[[], LiveState],
        replay: Callable[[LiveState], object],
    ) -> None:
        self.metrics = metrics
        self.live: LiveState | None = None
        self.gate = LogGate("The state is being recovered.")
        self.commits: Commits | None = None
        self.batches = asyncio.Lock()
        """Batches take turns: mixed, each one's payments would be late after another's. Single payments go in between."""
        self._ledger = ledger
        self._decisions = decisions
        self._recover = recover
        self._replay = replay
        self._payments = KnownPayments(LedgerLookup(ledger.database))
        self._rebuilding: asyncio.Task[None] | None = None
        self._replayed = asyncio.Event()
        self._doubtful = False

    # Life

    async def start(self, commits: Commits) -> None:
        """Recover the state and let payments in. `commits` is to call `journal_replayed` in this loop."""
        self.commits = commits
        commits.start()
        try:
            await self._load()
        except BaseException:
            await asyncio.to_thread(commits.close)
            self._payments.close()
            raise
        self.gate.reopen()

    async def close(self) -> LiveState | None:
        """Let what is on its way be committed; the state at the log's end, None where it stands elsewhere."""
        self.gate.shut("The service is stopping.")
        rebuilding = self._rebuilding
        if rebuilding is not None:
            rebuilding.cancel()
        await self.gate.drained()
        if self.commits is not None:
            await asyncio.to_thread(self.commits.close)
        self._payments.close()
        if self.live is None or self._payments.any_journalled or self._doubtful or rebuilding is not None:
            return None
        try:
            self.live.sequence = await asyncio.to_thread(self._ledger.last_sequence, LOCAL_WRITER)
        except FraudError as err:
            log.warning("where the log ends is not known: %s", err.message)
            return None
        return self.live

    async def renew(self) -> None:
        """Go on with a state recovered from the log, from which what is past its horizon has gone.

        Payments are held back only while it catches up with what came in meanwhile.
        """
        await self.gate.admitted()
        fresh = await asyncio.to_thread(self._recover)
        await _to_the_end(self._follow(fresh))

    def journal_replayed(self, disputed: bool) -> None:
        """The journal is in the ledger; with `disputed`, otherwise than it was decided, and the state follows the ledger."""
        self._payments.journal_replayed()
        self._replayed.set()
        if disputed or self._doubtful:
            self._rebuild("The ledger and the journal disagree; the state is being built anew.")

    # Payments

    async def score(self, transaction: Transaction, *, received_at: datetime) -> bytes:
        """The decision's JSON, once it is durable. The same payment again gets the same bytes.

        Raises ConflictingTransaction, DependencyError where there is no champion, or the ledger is away and the policy is to
        refuse, Busy where too many wait.
        """
        await self._admitted()
        known = self._known(transaction.transaction_id)
        if known is not None:
            return await self._answer_again(transaction, known, received_at)
        if transaction.transaction_id in self._payments.waiting:
            return await _to_the_end(self._score_alone(transaction, received_at))
        made = self._decisions.one(self.state, transaction, received_at, degraded=self._degraded())
        self._submit(made)
        await self._durable(made)
        return made.answers[0]

    async def score_many(
        self, transactions: Sequence[Transaction], *, received_at: datetime
    ) -> list[bytes | FraudError]:
        """`score` of each, decided in the order of event times (equal ones as given); answers in the order given."""
        answers: list[bytes | FraudError] = [b""] * len(transactions)
        order = sorted(range(len(transactions)), key=lambda place: transactions[place].event_time)
        made_at: list[tuple[Made, list[int]]] = []
        async with self.batches:
            for start in range(0, len(order), BATCH_CHUNK):
                await self._admitted()
                chunk = order[start : start + BATCH_CHUNK]
                fresh, others = self._payments.split(transactions, chunk, has_journal=self._has_journal)
                if fresh:
                    made_at.append((self._decide_chunk([transactions[place] for place in fresh], received_at), fresh))
                for place in others:
                    answers[place] = await self._answer_or_error(transactions[place], received_at)
                await asyncio.sleep(0)
        for made, places in made_at:
            found: Sequence[bytes | FraudError]
            try:
                await self._durable(made)
                found = made.answers
            except FraudError as err:
                found = [err] * len(places)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    async def stored(self, transaction_id: str) -> Known | None:
        """A recorded payment and its answer (None where it has none); None for an unknown id."""
        pending = self._payments.on_its_way(transaction_id)
        if pending is not None:
            made, place = pending
            await self._durable(made)
            return made.transactions[place], made.answers[place]
        return self._known(transaction_id)

    async def decide_recorded(self, transaction: Transaction, computed: Computed | None = None) -> bytes:
        """The answer to a payment that is recorded without a decision: from its features, or else from the state of now."""
        await self._admitted()
        decision = self._decisions.aside(transaction, self.state.read(transaction) if computed is None else computed)
        answer = decision.to_json()
        await asyncio.to_thread(self._ledger.record_decisions, [DecisionRecord.of(decision, answer=answer)])
        stored = await asyncio.to_thread(self._ledger.decision, transaction.transaction_id)
        return answer if stored is None else stored.payload.encode()

    # Labels

    async def record_labels(
        self, labels: Sequence[Label], *, first: Callable[[], object] = lambda: None
    ) -> RecordedLabels:
        """Record labels and take their changes in where they stand in the log. `first` runs before, in a thread."""
        await self.gate.admitted()
        return await _to_the_end(self._record_alone(labels, first))

    @property
    def state(self) -> FeatureState:
        """The live state; there is one behind an open gate."""
        assert self.live is not None
        return self.live.state

    # Within

    async def _admitted(self) -> None:
        await self.gate.admitted()
        if self.gate.inside >= MAX_IN_FLIGHT:
            raise Busy(f"{self.gate.inside:,} payments wait for the ledger.", remedy="Send more slowly.")

    def _degraded(self) -> tuple[str, ...]:
        return (LEDGER_AWAY,) if self._payments.any_journalled else ()

    def _known(self, transaction_id: str) -> Known | None:
        return self._payments.find(transaction_id, has_journal=self._has_journal)

    async def _answer_again(self, transaction: Transaction, known: Known, received_at: datetime) -> bytes:
        """The answer that the id has; ConflictingTransaction where that is another payment's."""
        if different := differing_fields(known[0], transaction):
            self.metrics.conflicts += 1
            raise ConflictingTransaction(transaction.transaction_id, different)
        self.metrics.repeats += 1
        if known[1] == ON_ITS_WAY:
            pending = self._payments.on_its_way(transaction.transaction_id)
            if pending is None:  # it has just arrived, or was lost
                return await self.score(transaction, received_at=received_at)
            made, place = pending
            await self._durable(made)
            return made.answers[place]
        return known[1] if known[1] is not None else await self.decide_recorded(transaction)

    async def _answer_or_error(self, transaction: Transaction, received_at: datetime) -> bytes | FraudError:
        try:
            return await self.score(transaction, received_at=received_at)
        except FraudError as err:
            return err

    def _decide_chunk(self, transactions: list[Transaction], received_at: datetime) -> Made:
        self._decisions.require_model()
        try:
            made = self._decisions.many(self.state, transactions, received_at, degraded=self._degraded())
        except BaseException:
            self._rebuild("A batch could not be decided; the state is being built anew.")
            raise
        self._submit(made)
        return made

    def _submit(self, made: Made) -> None:
        """Send decided payments on their way into the log."""
        assert self.commits is not None
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        self._payments.sent(made)
        self.gate.entered(len(made.transactions))

        def done(_: Group, outcome: Outcome) -> None:
            loop.call_soon_threadsafe(self._arrived, made, outcome, started)

        self.commits.submit(Group(made.entries(), done, degraded=made.without_ledger))

    def _arrived(self, made: Made, outcome: Outcome, started: float) -> None:
        """A group's fate is known: back in the event loop."""
        count = len(made.transactions)
        self.metrics.stages["commit"].observe((time.perf_counter() - started) / count, count)
        journalled = outcome.where == "journal" and outcome.error is None
        self._payments.arrived(made, in_journal=journalled)
        self.metrics.degraded += made.degraded_late if journalled else 0
        if outcome.error is not None:
            self._rebuild("The ledger is away; the state is built anew when it answers.")
        elif outcome.disputed:
            self._rebuild("An id was taken meanwhile; the state is being built anew.")
        elif not journalled:
            self._resolve_doubt()
        self.gate.left(count)
        made.outcome.set_result(outcome)

    async def _durable(self, made: Made) -> None:
        """Return when the group is durable; its error where it is not."""
        outcome = await asyncio.shield(made.outcome)
        if outcome.error is not None:
            raise outcome.error
        if outcome.disputed:
            raise Busy("The id was taken meanwhile.", remedy="Send the payment again: it gets the stored answer.")

    async def _score_alone(self, transaction: Transaction, received_at: datetime) -> bytes:
        """A payment that a label waits for: the label follows it in the log before anything else does."""
        async with self.gate.alone():
            self._refuse_without_ledger()
            known = self._known(transaction.transaction_id)
            if known is None:
                made = self._decisions.one(self.state, transaction, received_at, degraded=(), take_in=False)
                with self._fate_known():
                    appended = await asyncio.to_thread(self._ledger.append, made.entries())
                if not appended.recorded:
                    self._rebuild("An id was taken meanwhile; the state is being built anew.")
                    raise Busy(
                        "The id was taken meanwhile.", remedy="Send the payment again: it gets the stored answer."
                    )
                self.state.update(transaction)
                self._payments.waiting.discard(transaction.transaction_id)
                self._take_labels(appended.released)
                self._resolve_doubt()
                return made.answers[0]
        return await self._answer_again(transaction, known, received_at)  # somebody else's request was quicker

    async def _record_alone(self, labels: Sequence[Label], first: Callable[[], object]) -> RecordedLabels:
        await asyncio.to_thread(first)  # it may read for long, and holds nobody up
        async with self.gate.alone():
            self._refuse_without_ledger()
            with self._fate_known():
                recorded = await asyncio.to_thread(self._ledger.record_labels, labels)
            self._take_labels(recorded.released)
            self._payments.waiting.update(recorded.waiting)
            self._resolve_doubt()
        self.metrics.labels += len(recorded.released)
        return recorded

    async def _follow(self, fresh: LiveState) -> None:
        async with self.gate.alone():
            self._refuse_without_ledger()
            await asyncio.to_thread(self._replay, fresh)
            self.live = fresh
            self._doubtful = False

    def _take_labels(self, released: Sequence[ReleasedLabel]) -> None:
        for label in sorted(released, key=lambda each: each.sequence or 0):
            if label.writer == LOCAL_WRITER:
                self.state.apply_label(label.change)

    def _refuse_without_ledger(self) -> None:
        if self._payments.any_journalled:
            raise DependencyError("The ledger is away, and labels need it.", remedy="Try again when it is back.")

    @contextmanager
    def _fate_known(self) -> Iterator[None]:
        """Where a write fails, whether it is in the log: a file's is not; a server may have committed before it was lost."""
        try:
            yield
        except BaseException:
            self._doubtful = self._doubtful or not self._ledger.database.is_sqlite
            raise

    def _resolve_doubt(self) -> None:
        """The ledger answers: if a write's fate is unknown, the state follows the log."""
        if self._doubtful:
            self._rebuild("A write may have reached the ledger; the state is being built anew.")

    def _rebuild(self, problem: str) -> None:
        """Shut the gate and build the state anew from the log, as soon as that answers."""
        if self._rebuilding is None:
            log.warning("%s", problem)
            self.metrics.rebuilds += 1
            self.gate.shut(problem)
            self._rebuilding = asyncio.get_running_loop().create_task(self._build_anew())

    async def _build_anew(self) -> None:
        await self.gate.drained()
        while self._payments.any_journalled:  # the log is whole only with them
            self._replayed.clear()
            await self._replayed.wait()
        while True:
            try:
                await self._load()
                break
            except FraudError as err:
                self.gate.shut(f"The state cannot be built anew: {err.message}")
                await asyncio.sleep(REBUILD_RETRY_S)
        self._rebuilding = None
        self.gate.reopen()

    async def _load(self) -> None:
        self._doubtful = False
        self.live = await asyncio.to_thread(self._recover)
        self._payments.waiting = await asyncio.to_thread(self._ledger.waiting_ids)

    @property
    def _has_journal(self) -> bool:
        return self.commits is not None and self.commits.has_journal


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Go on with it where the caller has gone: what was begun in the log must be taken into the state."""
    return await asyncio.shield(asyncio.ensure_future(work))
