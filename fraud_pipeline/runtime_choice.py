"""Which runtime a scoring service has: chosen by the addresses that the settings name."""

from __future__ import annotations

from fraud_pipeline.live_runtime import LiveRuntime
from fraud_pipeline.settings import Settings


def runtime_for(settings: Settings) -> LiveRuntime:
    """The one writer of its own log; or, where Kafka and a view of the state are named, one of any number of replicas."""
    if settings.kafka_bootstrap_servers and settings.state_view_url:
        from fraud_pipeline.replica_runtime import ReplicaRuntime

        return ReplicaRuntime(settings)
    return LiveRuntime(settings)
