"""What a scorer of a stream counts, cheap enough to be taken at every batch. Knows nothing of who reads it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from fraud_pipeline.adapters.live_metrics import LATENCY_BOUNDS_S, SCORE_BOUNDS, Histogram

BATCH_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
STAGES: Final = ("poll", "parse", "features", "model", "commit")


class StreamMetrics:
    """Plain attributes, changed by the scorer's thread."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str]] = Counter()
        """By (decision, model version)."""
        self.dead_letters: Counter[str] = Counter()
        """By code."""
        self.degraded: Counter[str] = Counter()
        """By what they lacked."""
        self.records = 0
        self.repeats = 0
        self.passed_on = 0
        self.labels = 0
        self.late_events = 0
        self.misplaced = 0
        self.shadow_decisions = 0
        self.rebalances = 0
        self.aborted = 0
        self.decided_ahead = 0
        self.replayed_events = 0
        self.checkpoints = 0
        self.closings = 0
        self.lag: dict[int, int] = {}
        self.blocked_s = 0.0
        self.scores = Histogram(SCORE_BOUNDS)
        self.batches = Histogram(BATCH_BOUNDS)
        self.stages = {stage: Histogram(LATENCY_BOUNDS_S) for stage in STAGES}
