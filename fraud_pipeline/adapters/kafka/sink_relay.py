"""Recorded labels, produced exactly once to the very partition of their payment.

The ledger's labels without a place in their log are the outbox; one producer with a stable transactional id sends them. A
new relay first fences the one before it, which settles whatever that one had under way, and then sends to a partition only
when the sink has read all that stood in it at that moment: a label that still has no place then is not in the log. So
nothing needs to be marked between sending and reading back, and whoever dies at any point leaves neither a gap nor a
repeat. What it cannot mend: a label is sent late while the sink is behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException

from fraud_pipeline.adapters.kafka.messages import Message, Place, label_message
from fraud_pipeline.adapters.ledger_outbox import UnsentLabel
from fraud_pipeline.errors import Busy, DependencyError, FraudError

LABEL_ID: Final = "label-id"
"""Header with the label's number in the ledger, for people who look into the log."""
SEND: Final = 500
"""Labels of one Kafka transaction: a few ms."""
IN_FLIGHT: Final = 5_000
"""Sent and not read back: the sink reads them within a second, or is far behind."""
TRANSACTION_S: Final = 10.0
"""Long for a transaction of 500 labels, short for whoever waits behind the open transaction of a relay that was killed."""
_FENCED: Final = frozenset({
    KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH,
})  # fmt: skip
_log: Final = logging.getLogger(__name__)


class Outbox(Protocol):
    """What the relay asks of the ledger."""

    def unsent(self, writers: Collection[str], *, limit: int) -> Sequence[UnsentLabel]: ...
    def placed(self, label_ids: Collection[int]) -> set[int]: ...
    def positions(self) -> Mapping[tuple[str, int], int]: ...


class LabelProducer(Protocol):
    """A transactional producer; it raises KafkaException."""

    def init_transactions(self, timeout: float) -> None: ...
    def begin_transaction(self) -> None: ...
    def produce(self, topic: str, *, partition: int, key: bytes, value: bytes, headers: Any) -> None: ...
    def commit_transaction(self, timeout: float) -> None: ...


class RelayFenced(Exception):
    """Another process relays the labels by now."""


class LabelRelay:
    """`ends` gives the end of every partition of `topic` as it is now, open transactions included. One thread at a time."""

    def __init__(
        self,
        outbox: Outbox,
        topic: str,
        *,
        producer: Callable[[], LabelProducer],
        ends: Callable[[], Mapping[int, int]],
    ) -> None:
        self._outbox = outbox
        self._topic = topic
        self._make, self._read_ends = producer, ends
        self._producer: LabelProducer | None = None
        self._ends: dict[int, int] = {}
        self._sent: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Labels that were sent and not read back yet."""
        return len(self._sent)

    def step(self) -> int:
        """Send what can be sent now; returns how many labels. Raises RelayFenced, DependencyError, Busy.

        After a failure the next step begins anew: with a new producer, and with what the log holds then.
        """
        try:
            producer = self._producer or self._begin()
            found = self._sendable()
            if found:
                self._send(producer, found)
        except KafkaException as err:
            self._producer = None
            raise self._translated(err) from err
        except (DependencyError, Busy):
            raise
        except BaseException:
            self._producer = None
            raise
        return len(found)

    def _begin(self) -> LabelProducer:
        producer = self._make()
        producer.init_transactions(TRANSACTION_S)
        self._ends = dict(self._read_ends())
        self._sent = set()
        self._producer = producer
        _log.info("Labels are relayed from here on, to %d partitions of %s.", len(self._ends), self._topic)
        return producer

    def _sendable(self) -> list[UnsentLabel]:
        """Labels whose logs the sink has read far enough, which were not sent by this relay."""
        at = self._outbox.positions()
        ready = [partition for partition, end in self._ends.items() if at.get((self._topic, partition), 0) >= end]
        if not ready:
            return []
        if self._sent:
            self._sent -= self._outbox.placed(self._sent)
        if len(self._sent) >= IN_FLIGHT:
            return []
        writers = [Place(self._topic, partition, 0).writer for partition in ready]
        found = self._outbox.unsent(writers, limit=len(self._sent) + SEND)
        return [label for label in found if label.label_id not in self._sent]

    def _send(self, producer: LabelProducer, found: Sequence[UnsentLabel]) -> None:
        producer.begin_transaction()
        for unsent in found:
            message: Message = label_message(unsent.change, unsent.label)
            producer.produce(
                self._topic,
                partition=_partition(unsent.writer),
                key=message.key,
                value=message.value,
                headers=[*message.headers, (LABEL_ID, str(unsent.label_id).encode())],
            )
        producer.commit_transaction(TRANSACTION_S)
        self._sent.update(unsent.label_id for unsent in found)

    def _translated(self, err: KafkaException) -> Exception:
        error = err.args[0]
        if error.code() in _FENCED:
            return RelayFenced()
        failure: FraudError = DependencyError(
            f"Labels could not be sent to {self._topic}: {error.str()}.",
            remedy="They stay in the ledger and are sent when the broker answers.",
        )
        return failure


def _partition(writer: str) -> int:
    return int(writer.rpartition("[")[2][:-1])
