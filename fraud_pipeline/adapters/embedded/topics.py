"""The topics of a log in one file: the same names as on a broker."""

from __future__ import annotations

from typing import Final

from fraud_pipeline.adapters.kafka.topics import Topics

EMBEDDED_PARTITIONS: Final = 1
"""One process reads them all, so more would only be more minutes to close."""


def embedded_topics(topics: Topics, partitions: int = EMBEDDED_PARTITIONS) -> dict[str, int]:
    """How many partitions each has: what belongs to a payment's place has as many as the payments."""
    with_payments = (topics.transactions, topics.decisions, topics.alerts, topics.shared_state)
    return {**dict.fromkeys(with_payments, partitions), topics.dead_letters: 1, topics.labels: 1}
