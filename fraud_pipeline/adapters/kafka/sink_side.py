"""What one of the sinks does beside its loop, in a thread of its own: relaying labels, and deleting what is old."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.kafka.sink_relay import LabelRelay, RelayFenced
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_retention import delete_before
from fraud_pipeline.errors import Busy, DependencyError, FraudError

EVERY_S: Final = 0.5
"""A label takes hours or weeks to become known; half a second more is nothing, and the question is an index lookup."""
AFTER_FAILURE_S: Final = 5.0
RETENTION_EVERY_S: Final = 600.0
"""Days are kept; ten minutes more do not count, and each time there is little to delete."""
JOIN_S: Final = 3.0
"""A step waits for the broker or the ledger; what is under way when a process ends is settled by the next relay."""
_log: Final = logging.getLogger(__name__)


class SinkSide:
    """`relay` makes a relay, which fences the one before it; `retention` of None keeps everything."""

    def __init__(
        self,
        relay: Callable[[], LabelRelay],
        outbox: LedgerOutbox,
        metrics: SinkMetrics,
        *,
        deletions: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        self._make, self._outbox, self._metrics, self._deletions = relay, outbox, metrics, deletions
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._delete_at = 0.0

    def start(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stopping,), name="sink-side", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=JOIN_S)
            self._thread = None

    def _run(self, stopping: threading.Event) -> None:
        """Its own `stopping`: a thread that was not waited for must not take the next one's."""
        relay = self._make()
        wait_s = 0.0
        failing = False
        while not stopping.wait(wait_s):
            try:
                sent = relay.step()
                self._count(sent)
                self._delete(stopping)
            except RelayFenced:
                _log.warning("Another sink relays the labels by now.")
                return
            except (DependencyError, Busy) as err:
                if not failing:
                    _log.error("%s", err)
                failing, wait_s = True, AFTER_FAILURE_S
            except FraudError as err:
                _log.error("Labels are not relayed any more: %s", err)
                return
            else:
                failing, wait_s = False, 0.0 if sent else EVERY_S

    def _count(self, sent: int) -> None:
        waiting, unplaced = self._outbox.counts()
        self._metrics.labels_sent.inc(sent)
        self._metrics.labels_waiting.set(waiting)
        self._metrics.labels_unsent.set(unplaced)

    def _delete(self, stopping: threading.Event) -> None:
        if time.monotonic() < self._delete_at:
            return
        for table, count in self._deletions():
            self._metrics.deleted.labels(table).inc(count)
            if stopping.is_set():
                return
        self._delete_at = time.monotonic() + RETENTION_EVERY_S


def deletions(
    database: LedgerDatabase, *, days: int, topic: str, now: Callable[[], datetime]
) -> Iterable[tuple[str, int]]:
    """What the retention deletes now, step by step; nothing where `days` is 0."""
    return delete_before(database, now() - timedelta(days=days), topic) if days else ()
