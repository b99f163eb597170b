"""What Prometheus reads of the sink. Each sink has a registry of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fraud_pipeline.adapters.ledger_sink_rows import TopicPartition, Written

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SinkMetrics:
    """Counters and gauges; any thread may change them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self.rows = Counter("fraud_sink_rows", "Rows that were new, by table.", ["table"], registry=registry)
        self.repeats = Counter("fraud_sink_repeats", "Rows that were there already.", ["table"], registry=registry)
        self.conflicts = Counter(
            "fraud_sink_conflicts", "Ids that came again with other content; the first one stayed.", registry=registry
        )
        self.bad = Counter(
            "fraud_sink_bad_messages", "Messages that could not be read.", ["topic", "code"], registry=registry
        )
        self.lag = Gauge(
            "fraud_sink_lag", "Messages behind the end of the partition.", ["topic", "partition"], registry=registry
        )
        self.commit = Histogram(
            "fraud_sink_commit_seconds", "One batch's database transaction.", buckets=_SECONDS, registry=registry
        )
        self.errors = Counter("fraud_sink_errors", "Times that a system did not answer.", ["system"], registry=registry)
        self.positions_lost = Counter(
            "fraud_sink_positions_lost", "Batches dropped since another sink had moved on.", registry=registry
        )
        self.rebalances = Gauge("fraud_sink_rebalances", "Changes of what is assigned, so far.", registry=registry)
        self.released = Counter(
            "fraud_sink_labels_released", "Labels that had waited for their payment.", registry=registry
        )
        self.labels_sent = Counter(
            "fraud_sink_labels_sent", "Label changes produced to their payment's log.", registry=registry
        )
        self.labels_unsent = Gauge(
            "fraud_sink_labels_unplaced", "Recorded labels without their place in a log yet.", registry=registry
        )
        self.labels_waiting = Gauge(
            "fraud_sink_labels_waiting", "Labels that wait for a payment that is unknown.", registry=registry
        )
        self.deleted = Counter(
            "fraud_sink_deleted_rows", "Rows that the retention deleted.", ["table"], registry=registry
        )

    def wrote(self, written: Written, *, seconds: float) -> None:
        """A batch is in the ledger."""
        self.commit.observe(seconds)
        for table, count in written.rows.items():
            self.rows.labels(table).inc(count)
        for table, count in written.repeats.items():
            self.repeats.labels(table).inc(count)
        self.conflicts.inc(len(written.conflicts))
        self.released.inc(written.released)

    def set_lags(self, lags: Mapping[TopicPartition, int]) -> None:
        """Only what is assigned to this sink: another's partitions are another's to report."""
        self.lag.clear()
        for (topic, partition), count in lags.items():
            self.lag.labels(topic, str(partition)).set(count)
