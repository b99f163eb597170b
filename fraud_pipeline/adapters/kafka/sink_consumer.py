"""The sink's consumer: it reads on where the ledger says, and never where the group's offsets say.

A partition that is assigned is read only after `settle` has asked the ledger; after any failure `let_go` and `settle` make
sure that what is read next is what the ledger lacks. Kafka's group only shares the partitions out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_pipeline.adapters.ledger_sink_rows import Move
from fraud_pipeline.adapters.ledger_sink_rows import TopicPartition as Partition
from fraud_pipeline.errors import DependencyError, FraudError, StateError

BATCH_MESSAGES: Final = 5_000
"""One database transaction: 0.2 s of PostgreSQL's time here; larger ones gain little and hold locks longer."""
BATCH_WAIT_S: Final = 0.25
"""How long a batch gathers while little comes: analysts do not notice, and the database has few commits."""
WATERMARK_TIMEOUT_S: Final = 5.0
"""A broker answers in milliseconds; a leader election takes seconds."""
SETTINGS: Final[dict[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # a position that the log does not have is a loss, and must be said
    "enable.partition.eof": True,  # an end says which offset it is, also where only markers stand before it
    "partition.assignment.strategy": "range",
}
USUAL: Final[dict[str, Any]] = {
    "queued.max.messages.kbytes": 32_768,  # a second's messages
    "fetch.wait.max.ms": 100,
    "session.timeout.ms": 10_000,  # a killed sink's partitions are another's after this; 45 s by default
}
"""Where nothing else was configured."""
_log: Final = logging.getLogger(__name__)

Begin = Callable[[Mapping[Partition, int]], dict[Partition, int]]
Skip = Callable[[Partition, int], None]


class SinkConsumer:
    """`begin` is the ledger's: from first offsets to the next ones to read. `skip` is None, or may pass over what is lost."""

    def __init__(self, config: Mapping[str, Any], topics: Sequence[str], begin: Begin, *, skip: Skip | None) -> None:
        self._consumer = Consumer({**USUAL, **config, **SETTINGS, "error_cb": self._note}, logger=_log)
        self._topics = list(topics)
        self._begin, self._skip = begin, skip
        self._next: dict[Partition, int] = {}
        self._settled = True
        self.assigned: tuple[Partition, ...] = ()
        self.rebalances = 0

    def start(self) -> None:
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    @property
    def is_settled(self) -> bool:
        """Whether what was assigned is being read; where not, `settle` comes first, and no write may be under way."""
        return self._settled

    def settle(self) -> None:
        """Read on from where the ledger is in what was assigned.

        Raises DependencyError where the ledger or the broker does not answer, StateError for a gap.
        """
        self._next = self._positions(self.assigned)
        self._consumer.assign([TopicPartition(*each, offset) for each, offset in self._next.items()])
        self._settled = True

    def take(self, limit: int = BATCH_MESSAGES) -> tuple[list[Message], dict[Partition, Move]]:
        """The next messages, and how far they bring each partition; the caller writes both, in turn, or lets go."""
        before = self.rebalances
        received = self._consumer.consume(limit, BATCH_WAIT_S)
        if self.rebalances != before:
            return [], {}  # they may be of partitions that are another's now; what is ours is read again
        messages, reached = [], dict(self._next)
        for message in received:
            each = (str(message.topic()), int(message.partition() or 0))
            error, offset = message.error(), int(message.offset() or 0)
            if each not in reached:
                continue
            if error is None:
                messages.append(message)
                reached[each] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[each] = max(reached[each], offset)
            else:
                self._fail(error, each)
        moves = {each: Move(self._next[each], to) for each, to in reached.items() if to > self._next[each]}
        self._next = reached
        return messages, moves

    def let_go(self) -> None:
        """Forget what was taken and not written; `settle` goes on from where the ledger is."""
        self._settled = False
        self._next = {}
        self._consumer.assign([])

    def wait(self, seconds: float) -> None:
        """Stay a member of the group while nothing can be read."""
        message = self._consumer.poll(seconds)
        if message is not None and message.error() is not None:
            _log.warning("Kafka: %s", message.error())

    def lags(self) -> dict[Partition, int]:
        """Messages behind the end of each partition, as far as the client knows the end."""
        lags = {}
        for each, at in list(self._next.items()):
            marks = self._consumer.get_watermark_offsets(TopicPartition(*each), cached=True)
            if marks is not None and marks[1] >= 0:
                lags[each] = max(0, marks[1] - at)
        return lags

    def close(self) -> None:
        self._consumer.close()

    def _positions(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        marks = {each: self._watermarks(each) for each in partitions}
        positions = self._begin({each: low for each, (low, _) in marks.items()})
        for each, (low, high) in marks.items():
            if positions[each] < low:
                self._pass_over(each, positions[each], low)
                positions[each] = low
            elif positions[each] > high:
                raise StateError(
                    f"The ledger has read {_name(each)} up to offset {positions[each] - 1}, and it ends at {high - 1}.",
                    remedy="The topic was made anew: use another FRAUD_TOPIC_PREFIX, or an empty ledger.",
                )
        return positions

    def _pass_over(self, each: Partition, at: int, low: int) -> None:
        lost = (
            f"Offsets {at} to {low - 1} of {_name(each)} are gone: Kafka's retention passed before the sink read them."
        )
        if self._skip is None:
            raise StateError(
                lost,
                remedy="Bring them back if you can, and raise the topic's retention; `fraud sink --skip-lost` goes on without.",
            )
        _log.error("%s Going on at %d, as --skip-lost says.", lost, low)
        self._skip(each, low)

    def _watermarks(self, each: Partition) -> tuple[int, int]:
        try:
            marks = self._consumer.get_watermark_offsets(TopicPartition(*each), timeout=WATERMARK_TIMEOUT_S)
        except KafkaException as err:
            raise _away(err.args[0], each) from err
        if marks is None:
            raise _away("no answer", each)
        return marks

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign([])  # nothing is fetched before the ledger was asked
        self._changed(tuple(sorted((each.topic, each.partition) for each in partitions)))
        _log.info("Assigned: %s", ", ".join(_name(each) for each in self.assigned) or "nothing")

    def _on_revoke(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        consumer.unassign()
        self._changed(())

    def _changed(self, assigned: tuple[Partition, ...]) -> None:
        self.assigned = assigned
        self.rebalances += 1
        self._next, self._settled = {}, False

    def _fail(self, error: KafkaError, each: Partition) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self.let_go()  # `settle` says what is lost
            return
        if error.retriable() or error.code() in _PASSING:
            raise _away(error, each)
        raise DependencyError(
            f"{_name(each)} cannot be read: {error.str()}.",
            remedy="Check that it exists and that this user may read it.",
        )

    def _note(self, error: KafkaError) -> None:
        _log.warning("Kafka: %s", error.str())


_PASSING: Final = frozenset({
    KafkaError._MAX_POLL_EXCEEDED, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
})  # fmt: skip


def _name(each: Partition) -> str:
    return f"{each[0]}[{each[1]}]"


def _away(error: object, each: Partition) -> FraudError:
    return DependencyError(
        f"The broker of {_name(each)} does not answer: {error}.",
        remedy="Start it (`fraud services up kafka`), or correct FRAUD_KAFKA_BOOTSTRAP_SERVERS.",
    )
