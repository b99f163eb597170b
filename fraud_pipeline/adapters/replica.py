"""A REST replica put together: view, journal, commits, relay and scorer, started and stopped in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.relay import Confirmed, Producer, Relay
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_decisions import DecisionMaker
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.own_events import OwnEvents
from fraud_pipeline.adapters.replica_commit import Claims, ReplicaCommit
from fraud_pipeline.adapters.replica_features import ReplicaFeatures, SharedFeatures
from fraud_pipeline.adapters.replica_journal import ReplicaJournal
from fraud_pipeline.adapters.replica_scorer import ReplicaScorer, ViewReader

MOST_CUSTOMERS: Final = 100_000
"""Whose writers are remembered: asked thrice a payment, and worked out in 20 us."""


class Replica:
    """`scorer` decides once `start` has returned. `partitions` is the number that the topic has."""

    def __init__(
        self,
        ledger: Ledger,
        decisions: DecisionMaker,
        metrics: LiveMetrics,
        *,
        view: Claims,
        reader: ViewReader,
        shared: SharedFeatures,
        producer: Callable[[], Producer],
        topic: str,
        partitions: int,
        journals: Path,
        journal_limit: int,
        currency: str,
        time_zone: str = "UTC",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writer_of = lru_cache(MOST_CUSTOMERS)(self._writer_of)
        """Whose log a customer's payments go to."""
        self.journal = ReplicaJournal.open_in(journals, limit=journal_limit)
        self.own = OwnEvents()
        self.reader = reader
        self.relay = Relay(self.journal, topic, producer=producer, confirmed=self._confirmed, clock=clock)
        self.commits = ReplicaCommit(self.journal, view, wake=self.relay.wake, clock=clock)
        self.features = ReplicaFeatures(self.own, shared, writer_of=self.writer_of, time_zone=time_zone)
        self.scorer = ReplicaScorer(
            ledger, decisions, metrics, view=reader, features=self.features, own=self.own, commits=self.commits,
            relay=self.relay, writer_of=self.writer_of, now=clock,
        )  # fmt: skip
        self._topic = topic
        self._partitions = partitions
        self._journals = journals
        self._currency = currency
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def writers(self) -> list[str]:
        """All there are."""
        return [f"{self._topic}[{partition}]" for partition in range(self._partitions)]

    @property
    def view_error(self) -> str:
        """Why the state view could not be read when it was last asked."""
        return self.reader.last_error

    def _writer_of(self, customer_id: str) -> str:
        return f"{self._topic}[{partition_of(customer_id.encode(), self._partitions)}]"

    async def start(self) -> None:
        """Take over what the journal holds, let payments in, and relay."""
        self._loop = asyncio.get_running_loop()
        left = await asyncio.to_thread(self.journal.after, 0, len(self.journal))
        await self.scorer.start(left, currency=self._currency)
        self.relay.start()

    async def close(self) -> None:
        """Answer what is on its way, relay for a moment, and leave the rest to the journal."""
        await self.scorer.close()
        await asyncio.to_thread(self.close_log)

    def close_log(self) -> None:
        """Relay for a moment what the scorer, which is closed, has left."""
        self.relay.close()
        self.journal.close()

    def health(self) -> dict[str, Any]:
        """What people want to know of a replica."""
        return {
            "log": {
                "status": "away" if self.relay.late else "ok",
                "topic": self._topic,
                "partitions": self._partitions,
                "journalled": len(self.journal),
                "in_flight": self.relay.in_flight,
                "relayed": self.relay.relayed,
                "kept_aside": self.journal.refused(),
                "last_error": self.relay.last_error,
                "remedy": "Decisions wait in the journal: is the broker up? FRAUD_KAFKA_BOOTSTRAP_SERVERS."
                if self.relay.late
                else "",
            },
            "own_payments": {
                "not_in_view": len(self.own),
                "forgotten": self.own.forgotten,
                "overtaken": self.scorer.overtaken,
                "unsettled": self.commits.unsettled,
            },
        }

    def _confirmed(self, confirmed: Sequence[Confirmed]) -> None:
        """In the relay's thread."""

        def tell() -> None:
            for each in confirmed:
                self.scorer.confirmed(each.transaction_id, each.writer, each.offset)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(tell)
