"""What Prometheus reads: the live route's counts in the exposition format, beside what BentoML measures itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fraud_pipeline.adapters.live_metrics import Histogram
from fraud_pipeline.live_runtime import LiveRuntime, ReplicaCounts, utc_now

_PREFIX: Final = "fraud_"


class LiveCollector(Collector):
    """Reads a runtime when it is asked; the request path only counts."""

    def __init__(self, runtime: LiveRuntime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """Every metric, whatever state the service is in."""
        yield from self._decisions()
        yield from self._latencies()
        yield from self._stores()
        yield from self._models()
        counts = self._runtime.replica_counts()
        if counts is not None:
            yield from _replica(counts)

    def _decisions(self) -> Iterator[Metric]:
        metrics = self._runtime.metrics
        decided = CounterMetricFamily(
            _PREFIX + "decisions", "Decisions by verdict and model version.", labels=["decision", "model_version"]
        )
        for (verdict, version), count in sorted(metrics.decisions.items()):
            decided.add_metric([verdict, version], count)
        yield decided
        yield _counter("repeated_transactions", "Payments that were answered from the ledger.", metrics.repeats)
        yield _counter("id_conflicts", "Ids sent again with other content.", metrics.conflicts)
        yield _counter("degraded_decisions", "Decisions that had to do without something.", metrics.degraded)
        yield _counter("unknown_fields", "Fields of requests that the contract does not have.", metrics.unknown_fields)
        yield _counter("labels_recorded", "Label changes recorded by this service.", metrics.labels)
        yield _counter("shadow_decisions", "Decisions of the model that did not answer.", metrics.shadow_decisions)
        yield _counter("shadow_dropped", "Shadow decisions that were left out or lost.", metrics.shadow_dropped)

    def _latencies(self) -> Iterator[Metric]:
        metrics = self._runtime.metrics
        yield _histogram(
            "score_latency_seconds", "From a request's body to its durable answer.", [([], metrics.stages["total"])], []
        )
        yield _histogram(
            "score_stage_seconds",
            "Seconds per payment by stage; commit is the wait for the group's commit.",
            [([stage], histogram) for stage, histogram in metrics.stages.items() if stage != "total"],
            ["stage"],
        )
        yield _histogram("score", "Calibrated probabilities of fraud.", [([], metrics.scores)], [])

    def _stores(self) -> Iterator[Metric]:
        runtime, scorer = self._runtime, self._runtime.scorer
        commits = None if scorer is None else scorer.commits
        yield _counter("store_errors", "Failed commits to the ledger.", 0 if commits is None else commits.store_errors)
        yield _counter("state_rebuilds", "Times that the state was built anew from the log.", runtime.metrics.rebuilds)
        yield _gauge(
            "journal_entries", "Decisions that wait for the ledger.", 0 if commits is None else commits.journalled
        )
        yield _gauge("in_flight", "Payments that wait for their commit.", 0 if scorer is None else scorer.gate.inside)
        if scorer is None or scorer.live is None:
            return
        counts = scorer.live.state.counts()
        yield _counter("late_events", "Payments older than their customer's newest.", counts.late_events)
        yield _gauge("state_customers", "Customers that the state knows.", counts.customers)
        yield _gauge("state_bytes", "Memory of the feature state.", counts.bytes)
        if counts.watermark is not None:
            age = (utc_now() - counts.watermark).total_seconds()
            yield _gauge("state_age_seconds", "Since the newest payment that the state has taken in.", age)

    def _models(self) -> Iterator[Metric]:
        runtime, models = self._runtime, self._runtime.models
        yield _gauge("ready", "1 where a payment would be decided now.", 0 if runtime.problems else 1)
        yield _counter("model_swaps", "Models that were swapped in.", 0 if models is None else models.swaps)
        refused = CounterMetricFamily(
            _PREFIX + "model_refusals", "Versions that could not be served, tries again included.", labels=["role"]
        )
        for role, count in ({"champion": 0, "challenger": 0} if models is None else models.refusals).items():
            refused.add_metric([role], count)
        yield refused
        champion = None if models is None else models.champion
        if champion is not None:
            age = (utc_now() - champion.bundle.facts.lineage.as_of).total_seconds()
            yield _gauge("model_age_seconds", "Since the moment that the champion was trained for.", age)
            yield _gauge("model_version", "The champion's version.", champion.promotion.version)
        challenger = None if models is None else models.challenger
        challenging = None if challenger is None else challenger.appointment.version
        yield _gauge("challenger_version", "The challenger's version; 0 where there is none.", challenging or 0)


def exposition(runtime: LiveRuntime) -> str:
    """The metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LiveCollector(runtime))
    return generate_latest(registry).decode()


def _replica(counts: ReplicaCounts) -> Iterator[Metric]:
    yield _gauge("replica_log_away", "1 where the log does not confirm what is relayed.", int(counts.log_away))
    yield _counter("replica_relayed", "Payments that the log has confirmed.", counts.relayed)
    yield _gauge("replica_in_flight", "Payments that were sent and are not confirmed.", counts.in_flight)
    yield _counter("replica_relay_errors", "Failed attempts to relay.", counts.relay_errors)
    yield _gauge("replica_own_payments", "Own payments that the state view does not show yet.", counts.own_payments)
    yield _counter(
        "replica_own_forgotten", "Own payments that were forgotten before the view showed them.", counts.forgotten
    )
    yield _counter("replica_overtaken", "Decisions given up: another replica had answered the id.", counts.overtaken)
    yield _counter("replica_unsettled", "Answers given without their claim, while the view was away.", counts.unsettled)
    yield _counter("state_view_errors", "Failed reads of the state view.", counts.view_errors)
    yield _counter("state_view_damaged", "Records of the view that could not be read.", counts.damaged)
    closed = GaugeMetricFamily(
        _PREFIX + "shared_closed_minute", "The newest minute (since 1970) that a writer has closed.", labels=["writer"]
    )
    for writer, minute in sorted(counts.closed.items()):
        closed.add_metric([writer], minute)
    yield closed


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, meaning, value=value)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, meaning, value=value)


def _histogram(
    name: str, meaning: str, series: Iterable[tuple[Sequence[str], Histogram]], labels: Sequence[str]
) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, meaning, labels=labels)
    for values, histogram in series:
        buckets, total = [], 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        family.add_metric(values, buckets=buckets, sum_value=histogram.sum)
    return family
