"""What Prometheus reads of a stream's scorer: its counts in the exposition format, on a port of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fraud_pipeline.adapters.live_metrics import Histogram
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics

Models = Callable[[], ModelSlot | None]
_PREFIX: Final = "fraud_scorer_"
_COUNTERS: Final = (
    ("records", "records", "Records that were read and committed."),
    ("repeated_transactions", "repeats", "Payments that were decided before: nothing was written for them."),
    ("passed_on", "passed_on", "Decisions of replicas that were passed on."),
    ("labels", "labels", "Label changes taken in."),
    ("late_events", "late_events", "Payments older than their customer's newest."),
    ("misplaced_transactions", "misplaced", "Payments on another partition than their customer's key belongs to."),
    ("shadow_decisions", "shadow_decisions", "Decisions of the model that did not decide."),
    ("rebalances", "rebalances", "Times that partitions came to this scorer."),
    ("aborted_batches", "aborted", "Batches that were taken back and done again."),
    ("batches_decided_ahead", "decided_ahead", "Batches decided before the one before them was known to stay."),
    ("replayed_events", "replayed_events", "Records that were replayed into states."),
    ("checkpoints", "checkpoints", "Checkpoints kept."),
    ("minute_closings", "closings", "Closings of minutes that were published."),
)
_GAUGES: Final = (("blocked_seconds", "blocked_s", "How long payments have been waiting for other writers' minutes."),)


class StreamCollector(Collector):
    """Reads the metrics when it is asked; the scorer only counts."""

    def __init__(self, metrics: StreamMetrics, models: Models) -> None:
        self._metrics = metrics
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Every metric, whatever state the scorer is in."""
        metrics = self._metrics
        yield _labelled(
            "decisions", "Decisions by verdict and model version.", ("decision", "model_version"), metrics.decisions
        )
        for name, field, text in _COUNTERS:
            yield CounterMetricFamily(_PREFIX + name, text, value=getattr(metrics, field))
        for name, field, text in _GAUGES:
            yield GaugeMetricFamily(_PREFIX + name, text, value=getattr(metrics, field))
        codes = {(code,): count for code, count in metrics.dead_letters.items()}
        yield _labelled("dead_letters", "Messages sent to the dead letters, by code.", ("code",), codes)
        reasons = {(reason,): count for reason, count in metrics.degraded.items()}
        yield _labelled("degraded_decisions", "Decisions that had to do without something.", ("lacked",), reasons)
        lag = GaugeMetricFamily(_PREFIX + "lag", "Records behind the end of the partition.", labels=["partition"])
        for partition, count in sorted(dict(metrics.lag).items()):
            lag.add_metric([str(partition)], count)
        yield lag
        yield _histogram("batch_records", "Records of one transaction.", [([], metrics.batches)], [])
        yield _histogram("score", "Calibrated probabilities of fraud.", [([], metrics.scores)], [])
        yield _histogram(
            "stage_seconds", "Seconds by stage: parse, features and model of a record; poll and commit of a batch.",
            [([stage], histogram) for stage, histogram in metrics.stages.items()], ["stage"],
        )  # fmt: skip
        yield from self._model()

    def _model(self) -> Iterator[Metric]:
        models = self._models()
        champion = None if models is None else models.champion
        served = GaugeMetricFamily(_PREFIX + "model_version", "The version that decides.", labels=["model_version"])
        if champion is not None:
            served.add_metric([champion.bundle.version], 1)
        yield served


def stream_registry(metrics: StreamMetrics, models: Models) -> CollectorRegistry:
    """The metrics as Prometheus' client serves them."""
    registry = CollectorRegistry()
    registry.register(StreamCollector(metrics, models))
    return registry


def _labelled(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for values, count in sorted(dict(counts).items()):
        family.add_metric(list(values), count)
    return family


def _histogram(
    name: str, text: str, found: Iterable[tuple[list[str], Histogram]], labels: list[str]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(_PREFIX + name, text, labels=labels)
    for values, histogram in found:
        buckets, total = [], 0
        for bound, count in zip((*map(str, histogram.bounds), "+Inf"), list(histogram.counts), strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(values, buckets, histogram.sum)
    return family
