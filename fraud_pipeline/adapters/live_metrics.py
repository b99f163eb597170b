"""Counts and times of the live route, cheap enough to be taken at every payment. Knows nothing of who reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

LATENCY_BOUNDS_S: Final = (
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
SCORE_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)
STAGES: Final = ("parse", "features", "model", "commit", "total")


class Histogram:
    """Counts by upper bound, as Prometheus has them (the last one is beyond all bounds), and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_all(self, values: Sequence[float]) -> None:
        """`observe` of each."""
        counts = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts)).tolist()
        self.counts = [before + more for before, more in zip(self.counts, counts, strict=True)]
        self.sum += sum(values)


class LiveMetrics:
    """What the scorer counts; plain attributes, changed by one thread."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str]] = Counter()
        """By (decision, model version)."""
        self.repeats = 0
        self.conflicts = 0
        self.labels = 0
        self.shadow_decisions = 0
        self.shadow_dropped = 0
        self.degraded = 0
        self.rebuilds = 0
        self.unknown_fields = 0
        self.stages = {stage: Histogram(LATENCY_BOUNDS_S) for stage in STAGES}
        self.scores = Histogram(SCORE_BOUNDS)
