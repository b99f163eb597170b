"""One of many REST replicas on the Kafka log: decides from views of the state, keeps the decision, answers, relays it.

An answer is given when it is in the local journal and its id is claimed in the state view; the log gets it from the journal.
What a replica has to do without, it says in the decision (`state_view`, `shared_state_lag`, `log`, `ledger`), and decides.
All methods run in one event loop. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol, cast

from fraud_pipeline.adapters.answered_here import AnsweredHere, Deciding
from fraud_pipeline.adapters.claims import Claim
from fraud_pipeline.adapters.kafka.messages import read_decision, read_log_message
from fraud_pipeline.adapters.known_payments import Known
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, RecordedLabels
from fraud_pipeline.adapters.ledger_transactions import differing_fields
from fraud_pipeline.adapters.live_decisions import Computed, DecisionMaker
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.live_state import LiveState
from fraud_pipeline.adapters.log_gate import LogGate
from fraud_pipeline.adapters.own_events import OwnEvents
from fraud_pipeline.adapters.replica_commit import Decided, ReplicaCommit
from fraud_pipeline.adapters.replica_deciding import Relaying, ReplicaDeciding
from fraud_pipeline.adapters.replica_features import ReplicaFeatures
from fraud_pipeline.adapters.replica_journal import Row
from fraud_pipeline.adapters.replica_ledger import ReplicaLedger
from fraud_pipeline.adapters.state_view_reader import Asked, Seen
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import Busy, ConflictingTransaction, DependencyError, FraudError

MAX_IN_FLIGHT: Final = 20_000
"""Payments that wait for their answer; beyond it callers are told."""
BATCH_CHUNK: Final = 200
"""Payments of a batch that are read from the view at once and decided before others get their turn."""
CLAIM_WAIT_S: Final = 2.0
"""How long a payment waits for the answer that another replica is making; that takes milliseconds."""
CLAIM_LOOK_S: Final = 0.01
log = logging.getLogger(__name__)


class ViewReader(Protocol):
    """What this needs of the state view's reader."""

    last_error: str
    errors: int

    async def read(self, asked: Sequence[Asked]) -> list[Seen]: ...
    async def claim_of(self, transaction_id: str) -> Claim | None: ...
    async def reaches(self) -> dict[str, int]: ...
    async def close(self) -> None: ...


class ReplicaScorer:
    """Use `start` first and `close` last. `writer_of` says whose log a customer's payments go to."""

    live: LiveState | None = None
    """A replica holds no state of its own."""

    def __init__(
        self,
        ledger: Ledger,
        decisions: DecisionMaker,
        metrics: LiveMetrics,
        *,
        view: ViewReader,
        features: ReplicaFeatures,
        own: OwnEvents,
        commits: ReplicaCommit,
        relay: Relaying,
        writer_of: Callable[[str], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = metrics
        self.gate = LogGate("The replica is starting.")
        self.commits = commits
        self.batches = asyncio.Lock()
        """Batches take turns, as at the one writer. Single payments go in between."""
        self.overtaken = 0
        """Decisions that were given up: another replica had answered the id."""
        self._ledger = ledger
        self._decisions = decisions
        self._view = view
        self._features = features
        self._own = own
        self._writer_of = writer_of
        self._now = now
        self._payments = ReplicaLedger(ledger.database)
        self._deciding: dict[str, Deciding] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answered = AnsweredHere()
        self._token = secrets.token_hex(8).encode()
        self._maker = ReplicaDeciding(
            decisions, metrics, features=features, own=own, commits=commits, relay=relay, writer_of=writer_of,
            arrived=self._arrived,
        )  # fmt: skip
        self._sweeping: asyncio.Task[None] | None = None

    # Life

    async def start(self, left: Sequence[Row], *, currency: str) -> None:
        """Take over what the journal holds, and let payments in."""
        for row in left:
            headers = [("type", b"transaction")]
            event = read_log_message(row.key, row.value, headers, currency=currency, received_at=datetime.now(UTC))
            payment = cast("Transaction", event)
            self._own.add(payment, self._writer_of(payment.customer_id), again=True)
            self._answered.add(payment, read_decision(row.decision)[0].to_json())
        self.commits.start()
        self._sweeping = asyncio.create_task(self._maker.follow(self._view, self._now))
        self.gate.reopen()

    async def close(self) -> LiveState | None:
        """Answer what is on its way; nothing is to be kept but the journal, so None."""
        self.gate.shut("The service is stopping.")
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self.gate.drained()
        await asyncio.to_thread(self.commits.close)
        await self._view.close()
        await asyncio.to_thread(self._payments.close)
        return None

    def confirmed(self, transaction_id: str, writer: str, offset: int) -> None:
        """The log has a payment: the journal does not hold it any more."""
        self._answered.confirmed(transaction_id)
        self._own.confirmed(transaction_id, writer, offset, self._now())

    @property
    def journalled(self) -> int:
        """Payments that the log has not confirmed."""
        return self._answered.journalled

    # Payments

    async def score(self, transaction: Transaction, *, received_at: datetime) -> bytes:
        """The decision's JSON, once it is durable. The same payment again gets the same bytes, at whatever replica.

        Raises ConflictingTransaction, DependencyError where there is no champion, Busy where too many wait or the id is
        being decided elsewhere, JournalFull.
        """
        return await asyncio.shield((await self._answers([transaction], received_at))[0])

    async def score_many(
        self, transactions: Sequence[Transaction], *, received_at: datetime
    ) -> list[bytes | FraudError]:
        """`score` of each, decided in the order of event times (equal ones as given); answers in the order given."""
        order = sorted(range(len(transactions)), key=lambda place: transactions[place].event_time)
        found: list[bytes | FraudError] = [b""] * len(transactions)
        async with self.batches:
            for start in range(0, len(order), BATCH_CHUNK):
                chunk = order[start : start + BATCH_CHUNK]
                answers = await self._answers([transactions[place] for place in chunk], received_at)
                for place, answer in zip(chunk, answers, strict=True):
                    try:
                        found[place] = await asyncio.shield(answer)
                    except FraudError as err:
                        found[place] = err
        return found

    async def stored(self, transaction_id: str) -> Known | None:
        """A recorded payment and its answer (None where it has none); None for an unknown id."""
        deciding = self._deciding.get(transaction_id)
        if deciding is not None:
            return deciding.transaction, await asyncio.shield(deciding.answer)
        return self._answered.find(transaction_id) or (await self._payments.find([transaction_id])).get(transaction_id)

    async def decide_recorded(self, transaction: Transaction, computed: Computed | None = None) -> bytes:
        """The answer to a payment that is recorded without a decision: from its features, or else from the view of now."""
        await self._admitted()
        if computed is None:
            computed, _ = self._features.read(transaction, (await self._seen([transaction], [None]))[0])
        decision = self._decisions.aside(transaction, computed)
        answer = decision.to_json()
        await asyncio.to_thread(self._ledger.record_decisions, [DecisionRecord.of(decision, answer=answer)])
        stored = await asyncio.to_thread(self._ledger.decision, transaction.transaction_id)
        return answer if stored is None else stored.payload.encode()

    async def record_labels(
        self, labels: Sequence[Label], *, first: Callable[[], object] = lambda: None
    ) -> RecordedLabels:
        """Record labels in the ledger; the sink brings their changes into the log of their payments."""
        await self._admitted()
        await asyncio.to_thread(first)
        recorded = await asyncio.to_thread(self._ledger.record_labels, labels)
        self.metrics.labels += len(recorded.released)
        return recorded

    # Within

    async def _admitted(self) -> None:
        await self.gate.admitted()
        if self.gate.inside >= MAX_IN_FLIGHT:
            raise Busy(f"{self.gate.inside:,} payments wait for their answer.", remedy="Send more slowly.")

    async def _answers(self, transactions: Sequence[Transaction], received_at: datetime) -> list[asyncio.Future[bytes]]:
        """The answers that some payments will have. What was begun goes on where the caller has gone."""
        await self._admitted()
        self._decisions.require_model()
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[bytes]] = []
        fresh: list[Deciding] = []
        for transaction in transactions:
            deciding = self._deciding.get(transaction.transaction_id)
            known = self._answered.find(transaction.transaction_id)
            if deciding is not None:
                answers.append(asyncio.ensure_future(self._same(transaction, deciding)))
            elif known is not None:
                answers.append(asyncio.ensure_future(self._again(transaction, known)))
            else:
                deciding = Deciding(transaction, loop.create_future(), received_at, self._token)
                answers.append(deciding.answer)
                fresh.append(deciding)
                self._deciding[transaction.transaction_id] = deciding
                self.gate.entered(1)
                deciding.answer.add_done_callback(partial(self._left, deciding))
        if fresh:
            self._begin(self._decide(fresh), fresh)
        return answers

    def _begin(self, work: Coroutine[Any, Any, None], fresh: Sequence[Deciding]) -> None:
        """Let it go on by itself; whatever goes wrong is the answer of those that have none."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = Busy("The service is stopping.") if task.cancelled() else task.exception()
            for each in fresh if error is not None else ():
                each.fail(cast("BaseException", error))

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _left(self, deciding: Deciding, answer: asyncio.Future[bytes]) -> None:
        answer.exception()  # looked at, even where nobody waits for it any more
        del self._deciding[deciding.transaction.transaction_id]
        self.gate.left(1)

    async def _same(self, transaction: Transaction, deciding: Deciding) -> bytes:
        self._refuse_other(transaction, differing_fields(deciding.transaction, transaction))
        self.metrics.repeats += 1
        return await asyncio.shield(deciding.answer)

    async def _again(self, transaction: Transaction, known: Known) -> bytes:
        self._refuse_other(transaction, differing_fields(known[0], transaction))
        self.metrics.repeats += 1
        return known[1] if known[1] is not None else await self.decide_recorded(transaction)

    def _refuse_other(self, transaction: Transaction, different: tuple[str, ...]) -> None:
        if different:
            self.metrics.conflicts += 1
            raise ConflictingTransaction(transaction.transaction_id, different)

    async def _decide(self, fresh: Sequence[Deciding]) -> None:
        """Look each id up everywhere, and decide those that nobody has."""
        payments = [each.transaction for each in fresh]
        claims = [each.held for each in fresh]
        seen, recorded = await asyncio.gather(self._seen(payments, claims), self._recorded(payments))
        seen = await self._current(fresh, seen)
        unknown: list[tuple[Deciding, Seen | None]] = []
        for each, view in zip(fresh, seen, strict=True):
            known = None if recorded is None else recorded.get(each.transaction.transaction_id)
            if view is not None and view.claim is not None:
                self._begin(self._answered_elsewhere(each, view.claim), [each])
            elif known is not None:
                self._begin(self._recorded_before(each, known), [each])
            else:
                unknown.append((each, view))
        if unknown:
            self._maker.decide(unknown, ledger_away=recorded is None)

    async def _seen(self, payments: Sequence[Transaction], claims: Sequence[Claim | None]) -> list[Seen | None]:
        """What the view says of each; None while it is away."""
        asked = [
            Asked(payment.customer_id, self._writer_of(payment.customer_id), payment.transaction_id, claim)
            for payment, claim in zip(payments, claims, strict=True)
        ]
        try:
            return list(await self._view.read(asked))
        except DependencyError:
            return [None] * len(payments)

    async def _current(self, fresh: Sequence[Deciding], seen: list[Seen | None]) -> list[Seen | None]:
        """The same, but read again where it is too old by now: own payments that it lacks may have left since.

        A view that is behind what it once showed came back with an old snapshot: it counts as not whole.
        """
        old = [place for place, view in enumerate(seen) if view is not None and self._is_old(fresh[place], view)]
        if old:
            again = await self._seen([fresh[place].transaction for place in old], [fresh[place].held for place in old])
            for place, view in zip(old, again, strict=True):
                behind = view is not None and self._is_old(fresh[place], view)
                seen[place] = replace(view, reach=None) if view is not None and behind else view
        return seen

    def _is_old(self, deciding: Deciding, view: Seen) -> bool:
        return self._own.lacks(self._writer_of(deciding.transaction.customer_id), view.reach)

    async def _recorded(self, payments: Sequence[Transaction]) -> dict[str, Known] | None:
        """Those that the ledger has; None while it is away."""
        try:
            return await self._payments.find([payment.transaction_id for payment in payments])
        except FraudError:
            return None

    async def _answered_elsewhere(self, deciding: Deciding, claim: Claim | None) -> None:
        """Wait for the answer of who claimed the id; decide where the claim has ended without one."""
        transaction, deadline = deciding.transaction, self._now() + CLAIM_WAIT_S
        while claim is not None:
            self._refuse_other(transaction, claim.differing(transaction))
            if claim.answer is not None:
                self.metrics.repeats += 1
                deciding.succeed(claim.answer)
                return
            if self._now() > deadline:
                raise Busy(
                    f"Payment {transaction.transaction_id} is being decided by another replica.",
                    remedy="Send it again in a moment.",
                )
            await asyncio.sleep(CLAIM_LOOK_S)
            claim = await self._view.claim_of(transaction.transaction_id)
        await self._decide([deciding])

    async def _recorded_before(self, deciding: Deciding, known: Known) -> None:
        """The ledger has the id: its answer, which the claim gets too."""
        answer = await self._again(deciding.transaction, known)
        claim = Claim(deciding.held.fingerprint, b"", answer)
        self.commits.submit(Decided(deciding.transaction.transaction_id, None, deciding.held, claim, lambda *_: None))
        deciding.succeed(answer)

    def _arrived(self, deciding: Deciding, answer: bytes, error: Exception | None, other: Claim | None) -> None:
        """A payment's fate is known."""
        if error is None and other is None:
            self._answered.add(deciding.transaction, answer)
            deciding.succeed(answer)
            return
        self._own.drop(deciding.transaction.transaction_id)
        if error is not None:
            deciding.fail(error)
        elif other is not None:
            self.overtaken += 1
            self._begin(self._answered_elsewhere(deciding, other), [deciding])
