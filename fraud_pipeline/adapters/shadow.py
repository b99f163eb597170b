"""The challenger beside the champion: each payment is decided by both, from the same features, the second time after it was answered.

Whoever did not decide (the challenger, or in its A/B share the champion) decides here; that decision is kept beside the other
and answers nobody. Where this cannot keep up it leaves payments out, and counts them. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.decision_batch import decide_many
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import FraudError

MOST_WAITING: Final = 20_000
AT_ONCE: Final = 100
"""One commit: some milliseconds in which SQLite's only write lock is not the answers'."""
GATHER_S: Final = 1.0
"""Nobody waits for a shadow decision, and each commit of theirs may hold up one of the answers'."""
SLICE: Final = 8
PAUSE_S: Final = 0.000_5
"""After so many decisions the interpreter is left to the answers, which would else wait 5 ms for each turn."""
log = logging.getLogger(__name__)

Offered = tuple[Transaction, npt.NDArray[np.float32], ModelBundle]


class ShadowScorer:
    """`offer` is called at each decision and costs nothing where there is no challenger."""

    def __init__(
        self,
        ledger: Ledger,
        models: ModelSlot,
        metrics: LiveMetrics,
        *,
        control_share: float,
        now: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._models = models
        self._metrics = metrics
        self._control_share = control_share
        self._now = now
        self._queue: queue.SimpleQueue[Offered | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Decide what waits, and end."""
        if self._thread.ident is not None:
            self._queue.put(None)
            self._closing.set()
            self._thread.join()

    def offer(
        self,
        transactions: Sequence[Transaction],
        rows: npt.NDArray[np.float32] | Sequence[npt.NDArray[np.float32]],
        versions: Sequence[str],
    ) -> None:
        """Have whoever did not decide these payments (`versions` did, from the features `rows`) decide them too."""
        if self._models.challenger is None:
            return
        for transaction, computed, version in zip(transactions, rows, versions, strict=True):
            other = self._models.counterpart(version)
            if other is None:
                continue
            if self._queue.qsize() >= MOST_WAITING:
                self._metrics.shadow_dropped += 1
            else:
                self._queue.put((transaction, computed, other))

    def _run(self) -> None:
        while True:
            waiting = self._gathered()
            offered = [each for each in waiting if each is not None]
            if offered:
                try:
                    self._decide(offered)
                except FraudError as err:
                    self._metrics.shadow_dropped += len(offered)
                    log.warning("%d shadow decisions are lost: %s", len(offered), err.message)
                except Exception:
                    self._metrics.shadow_dropped += len(offered)
                    log.exception("%d shadow decisions are lost", len(offered))
            if len(offered) < len(waiting):
                return

    def _gathered(self) -> list[Offered | None]:
        """What came within GATHER_S, at most AT_ONCE; the last one is None at the end."""
        waiting = [self._queue.get()]
        if waiting[0] is not None and self._queue.qsize() < AT_ONCE:
            self._closing.wait(GATHER_S)
        while waiting[-1] is not None and len(waiting) < AT_ONCE and not self._queue.empty():
            waiting.append(self._queue.get())
        return waiting

    def _decide(self, offered: list[Offered]) -> None:
        decisions: list[Decision] = []
        for bundle in {id(bundle): bundle for _, _, bundle in offered}.values():
            mine = [(payment, computed) for payment, computed, other in offered if other is bundle]
            for start in range(0, len(mine), SLICE):
                chosen = mine[start : start + SLICE]
                decisions += decide_many(
                    np.stack([computed for _, computed in chosen]), bundle, [payment for payment, _ in chosen],
                    decided_at=self._now(), control_share=self._control_share,
                )  # fmt: skip
                self._closing.wait(PAUSE_S)
        self._ledger.record_decisions([DecisionRecord.of(decision, role="shadow") for decision in decisions])
        self._metrics.shadow_decisions += len(decisions)
