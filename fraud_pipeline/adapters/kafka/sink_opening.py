"""A sink put together: its consumer, its relay with a transactional producer, its dead letters, over one ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol

from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its stub forgets the second

from fraud_pipeline.adapters.kafka.messages import dead_letter
from fraud_pipeline.adapters.kafka.sink_consumer import SinkConsumer
from fraud_pipeline.adapters.kafka.sink_messages import BadReceived, Kind, SinkReader
from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.kafka.sink_relay import TRANSACTION_S, LabelProducer, LabelRelay
from fraud_pipeline.adapters.kafka.sink_service import Sink
from fraud_pipeline.adapters.kafka.sink_side import SinkSide, deletions
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_sink import LedgerSink
from fraud_pipeline.errors import DependencyError

GROUP: Final = "fraud-sink"
"""The consumer group, with the topics' prefix before it."""
ASK_S: Final = 10.0
"""For a question to the broker that it answers from memory; an election takes seconds."""


class TopicNames(Protocol):
    """The topics' whole names."""

    @property
    def transactions(self) -> str: ...
    @property
    def decisions(self) -> str: ...
    @property
    def alerts(self) -> str: ...
    @property
    def labels(self) -> str: ...
    @property
    def shared_state(self) -> str: ...
    @property
    def dead_letters(self) -> str: ...


def open_sink(
    ledger: Ledger,
    topics: TopicNames,
    *,
    consumer: Mapping[str, Any],
    producer: Mapping[str, Any],
    currency: str,
    retention_days: int,
    skip_lost: bool,
    metrics: SinkMetrics,
    now: Callable[[], datetime],
) -> Sink:
    """`consumer` and `producer` are librdkafka's configurations, with the group and without a transactional id."""
    kinds: dict[str, Kind] = {
        topics.transactions: "transactions",
        topics.decisions: "decisions",
        topics.alerts: "alerts",
        topics.labels: "labels",
        topics.shared_state: "shared_state",
    }
    writes, outbox = LedgerSink(ledger.database), LedgerOutbox(ledger.database)
    side = SinkSide(
        lambda: LabelRelay(
            outbox,
            topics.transactions,
            producer=partial(_relay_producer, producer, topics.transactions),
            ends=partial(_ends, producer, topics.transactions),
        ),
        outbox,
        metrics,
        deletions=partial(deletions, ledger.database, days=retention_days, topic=topics.transactions, now=now),
    )
    return Sink(
        SinkConsumer(
            consumer,
            sorted(kinds),
            writes.begin,
            skip=(lambda each, to: writes.skip(each, to=to)) if skip_lost else None,
        ),
        SinkReader(kinds, currency=currency, now=now),
        writes,
        metrics,
        refuse=InboxDeadLetters(producer, topics.dead_letters, now=now),
        side=side,
        first=(topics.transactions, 0),
    )


class InboxDeadLetters:
    """Bad messages of the inbox as dead letters, at least once: they are there before the position moves on."""

    def __init__(self, config: Mapping[str, Any], topic: str, *, now: Callable[[], datetime]) -> None:
        self._config, self._topic, self._now = config, topic, now
        self._producer: Producer | None = None

    def __call__(self, bad: Sequence[BadReceived]) -> None:
        if self._producer is None:
            self._producer = Producer({**self._config, "enable.idempotence": True, "linger.ms": 5})
        for each in bad:
            message = each.message
            letter = dead_letter(
                message.key(), message.value(), message.headers(), source=each.place, error=each.error, at=self._now()
            )
            self._producer.produce(self._topic, key=letter.key, value=letter.value, headers=list(letter.headers))
        if self._producer.flush(ASK_S):
            self._producer.purge()
            raise DependencyError(
                f"The broker of {self._topic} did not take {len(bad)} dead letters.", remedy="They are sent again."
            )


def _relay_producer(config: Mapping[str, Any], topic: str) -> LabelProducer:
    milliseconds = int(TRANSACTION_S * 1_000)
    own = {
        "transactional.id": f"{topic}-label-relay",  # the same in every process: the newest fences the others
        "transaction.timeout.ms": milliseconds,
        "message.timeout.ms": milliseconds,
        "linger.ms": 5,
    }
    return Producer({**config, **own})


def _ends(config: Mapping[str, Any], topic: str) -> dict[int, int]:
    """The offset after the last message of every partition, of open transactions too."""
    admin = AdminClient(dict(config))
    try:
        found = admin.list_topics(topic, timeout=ASK_S).topics[topic]
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(topic, partition): latest for partition in found.partitions}
        answers = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ASK_S)
        return {each.partition: answer.result(timeout=ASK_S).offset for each, answer in answers.items()}
    except (KafkaException, TimeoutError) as err:
        raise DependencyError(
            f"The ends of {topic} are not to be had: {err}.", remedy="Labels are relayed when the broker answers."
        ) from err
