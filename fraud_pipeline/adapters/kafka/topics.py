"""The topics: their names, how each must be made, and what is wrong with those that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
PARTITIONS: Final = 6
"""Shared evenly by 1, 2, 3 or 6 scorers, of which each decides over 15,000 payments a second. The count decides where a
customer's payments are, so a later change costs a rebuild of all state: rather too many than too few, but every partition
that a transaction writes to is a marker to write when it commits."""
LABEL_PARTITIONS: Final = 3
"""Labels are one in a hundred payments; more than three sinks have nothing to share."""
DEAD_LETTER_PARTITIONS: Final = 1
"""So that they are listed in the order in which they came; they are rare."""
LOG_DAYS: Final = 14
"""Twice the 7 days in which a repeated id is known: a writer without any checkpoint finds them all in the log. Longer than a
sink may be down over holidays; older payments are in the ledger."""
DEAD_LETTER_DAYS: Final = 90
"""The age up to which a payment is taken: after that requeueing a letter is of no use."""
DEAD_LETTER_BYTES: Final = 1_114_124
"""What a broker takes of a payment by default (1,048,588), and 64 kB for the headers that a dead letter has besides."""
SAFE_REPLICAS: Final = 3
"""From so many on, two must have a write before it counts, and one may be away."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics of one installation."""

    prefix: str = ""

    @property
    def transactions(self) -> str:
        """Payments and the changes of their labels, by customer: the log that all state is made of."""
        return f"{self.prefix}transactions"

    @property
    def decisions(self) -> str:
        return f"{self.prefix}decisions"

    @property
    def alerts(self) -> str:
        return f"{self.prefix}alerts"

    @property
    def shared_state(self) -> str:
        """What each writer adds to merchants, devices and the like, minute by minute."""
        return f"{self.prefix}shared-state"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}transactions.dlq"

    @property
    def labels(self) -> str:
        """The inbox for labels from outside."""
        return f"{self.prefix}labels"


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """How a topic is made. What `must` says has to hold; the rest of `config` is a proposal."""

    name: str
    partitions: int
    config: dict[str, str]
    must: tuple[str, ...] = ()


def plans(topics: Topics, *, partitions: int, replicas: int = 1) -> tuple[TopicPlan, ...]:
    """Every topic. None is compacted: each message adds to those before it, and the newest of a key replaces none."""
    kept = {"cleanup.policy": "delete", "retention.ms": str(LOG_DAYS * DAY_MS)}
    if replicas >= SAFE_REPLICAS:
        kept["min.insync.replicas"] = "2"
    must = ("cleanup.policy",)
    return (
        TopicPlan(
            topics.transactions,
            partitions,
            # The moment of receipt, from the broker: a replay judges a payment's age by it as the first reading did.
            {**kept, "message.timestamp.type": "LogAppendTime"},
            (*must, "message.timestamp.type"),
        ),
        # Partition by partition as the payments: a decision's place follows from its payment's.
        TopicPlan(topics.decisions, partitions, kept, must),
        TopicPlan(topics.alerts, partitions, kept, must),
        TopicPlan(topics.shared_state, partitions, kept, must),
        TopicPlan(topics.labels, LABEL_PARTITIONS, kept, must),
        TopicPlan(
            topics.dead_letters,
            DEAD_LETTER_PARTITIONS,
            {**kept, "retention.ms": str(DEAD_LETTER_DAYS * DAY_MS), "max.message.bytes": str(DEAD_LETTER_BYTES)},
            must,
        ),
    )
