"""From payments that nobody has answered, and what the state view says of them, to decisions on their way to be kept.

One event loop; between reading and remembering nothing waits, so that a customer's payments see each other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from fraud_pipeline.adapters.answered_here import Deciding
from fraud_pipeline.adapters.claims import Claim
from fraud_pipeline.adapters.kafka.decision_values import answered_value
from fraud_pipeline.adapters.kafka.messages import transaction_message
from fraud_pipeline.adapters.live_decisions import LEDGER_AWAY, DecisionMaker
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.own_events import OwnEvents
from fraud_pipeline.adapters.replica_commit import Decided, ReplicaCommit
from fraud_pipeline.adapters.replica_features import STATE_VIEW, ReplicaFeatures
from fraud_pipeline.adapters.replica_journal import Row
from fraud_pipeline.adapters.state_view_reader import Seen
from fraud_pipeline.errors import DependencyError

LOG_AWAY: Final = "log"
VIEW_STALE_S: Final = 30.0
"""A view that lacks what the log confirmed so long ago is not being written."""
SWEEP_S: Final = 1.0
log = logging.getLogger(__name__)

Unknown = tuple[Deciding, Seen | None]
"""A payment that nobody has answered, and what the view says of its customer (None: it is away)."""
Fate = Callable[[Deciding, bytes, Exception | None, Claim | None], None]
"""(payment, answer, error, another's answer): what became of a decision, in the event loop."""


class Relaying(Protocol):
    """What this needs of the relay."""

    @property
    def late(self) -> bool: ...


class Reaches(Protocol):
    """What this needs of the state view's reader."""

    async def reaches(self) -> dict[str, int]: ...


class ReplicaDeciding:
    """`arrived` is told of each decision's fate."""

    def __init__(
        self,
        decisions: DecisionMaker,
        metrics: LiveMetrics,
        *,
        features: ReplicaFeatures,
        own: OwnEvents,
        commits: ReplicaCommit,
        relay: Relaying,
        writer_of: Callable[[str], str],
        arrived: Fate,
    ) -> None:
        self._decisions = decisions
        self._metrics = metrics
        self._features = features
        self._own = own
        self._commits = commits
        self._relay = relay
        self._writer_of = writer_of
        self._arrived = arrived
        self._stale = False
        self._fates: deque[tuple[Deciding, bytes, Exception | None, Claim | None, float]] = deque()
        self._told = False

    def decide(self, unknown: Sequence[Unknown], *, ledger_away: bool) -> None:
        """Read, decide, remember, and send on their way. One payment's error is no other's."""
        try:
            self._decide(unknown, ledger_away=ledger_away)
        except Exception as err:  # noqa: BLE001  # nothing is remembered yet
            if len(unknown) == 1:
                unknown[0][0].fail(err)
                return
            for each in unknown:
                self.decide([each], ledger_away=ledger_away)

    async def follow(self, view: Reaches, now: Callable[[], float]) -> None:
        """Until cancelled: forget own payments that the view shows, and notice a view that does not follow the log."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self._own.passed(await view.reaches())
            except DependencyError:
                continue
            except Exception:  # it is tried again, and the service goes on
                log.exception("the state view could not be looked at")
                continue
            oldest = self._own.oldest_known_at()
            self._stale = oldest is not None and now() - oldest > VIEW_STALE_S

    def _decide(self, unknown: Sequence[Unknown], *, ledger_away: bool) -> None:
        started = time.perf_counter()
        fresh = [deciding for deciding, _ in unknown]
        rows, lacking = self._features.read_many([each.transaction for each in fresh], [seen for _, seen in unknown])
        read_at = time.perf_counter()
        common = self._lacking(ledger_away=ledger_away)
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, lacks in enumerate(lacking):
            groups.setdefault(tuple(sorted({*lacks, *common})), []).append(place)
        made: list[tuple[bytes, bytes]] = [(b"", b"")] * len(fresh)
        for degraded, places in groups.items():
            batch = self._decisions.given(
                rows[places], [fresh[place].transaction for place in places], degraded=degraded, started=started,
                read_at=read_at,
            )  # fmt: skip
            for place, answer, features in zip(places, batch.answers, batch.features, strict=True):
                made[place] = answer, features
        going = [self._going(each, answer, features) for each, (answer, features) in zip(fresh, made, strict=True)]
        for each in fresh:
            self._own.add(each.transaction, self._writer_of(each.transaction.customer_id))
        for decided in going:
            self._commits.submit(decided)

    def _going(self, deciding: Deciding, answer: bytes, features: bytes) -> Decided:
        """What is to be kept of a decision."""
        transaction = deciding.transaction
        message = transaction_message(transaction)
        content = answered_value(answer, features, customer_id=transaction.customer_id)
        row = Row(transaction.transaction_id, message.key, message.value, content)
        claim = Claim(deciding.held.fingerprint, b"", answer)
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        done = partial(self._done, loop, deciding, answer, started)
        return Decided(transaction.transaction_id, row, deciding.held, claim, done)

    def _done(
        self, loop: asyncio.AbstractEventLoop, deciding: Deciding, answer: bytes, started: float,
        error: Exception | None, other: Claim | None,
    ) -> None:  # fmt: skip
        """In the committing thread: the loop is woken once for all that are done by then."""
        self._fates.append((deciding, answer, error, other, started))
        if not self._told:
            self._told = True
            loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._told = False
        while self._fates:
            deciding, answer, error, other, started = self._fates.popleft()
            self._metrics.stages["commit"].observe(time.perf_counter() - started)
            self._arrived(deciding, answer, error, other)

    def _lacking(self, *, ledger_away: bool) -> tuple[str, ...]:
        told = {LOG_AWAY: self._relay.late, LEDGER_AWAY: ledger_away, STATE_VIEW: self._stale}
        return tuple(name for name, is_so in told.items() if is_so)
