"""The log of a scorer in Kafka: read_committed in, one transaction out, offsets inside it (KIP-98, KIP-447).

A partition that is assigned is paused until the scorer has recovered its state and says from where to read. Fencing is
the group's: a transaction's offsets carry the member's generation, so one who lost a partition cannot commit for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import orjson
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from fraud_pipeline.adapters.kafka.connection import (
    KafkaSettings,
    admin,
    consumer_config,
    dependency_error,
    producer_config,
)
from fraud_pipeline.adapters.kafka.replay_reader import REFUSED, replayed
from fraud_pipeline.adapters.stream.event_log import (
    Fenced,
    LogLost,
    LogRecord,
    Output,
    SharedMessage,
    TransactionAborted,
)
from fraud_pipeline.errors import DependencyError, FraudError, InputError, StateError

SESSION_TIMEOUT_MS: Final = 6_000
"""How long a silent member keeps its partitions: a broker's own least by default, and what a killed scorer costs its payments."""
MAX_POLL_INTERVAL_MS: Final = 300_000
"""A recovery replays within one poll: 30 million records at 100,000/s."""
TRANSACTION_TIMEOUT_MS: Final = 10_000
"""A killed member's open transaction holds back its successor, and all who read committed, for so long; ours take 10 ms."""
REQUEST_TIMEOUT_S: Final = 10.0
"""For a question to the broker: a leader election takes seconds."""
COMMIT_TIMEOUT_S: Final = 60.0
"""For the end of a transaction, asked again and again: a broker that restarts is back within it."""
STUCK_S: Final = 1.5 * REQUEST_TIMEOUT_S
"""A request that has not come back long after its limit never will: librdkafka forgets the limit of a transaction's offsets, and
where their coordinator was thrown away while the broker was gone, the request too (its issues 5456 and 5511, open in 2.16)."""
STABLE_TIMEOUT_S: Final = 2 * TRANSACTION_TIMEOUT_MS / 1_000
"""For a predecessor's transaction to end: the broker aborts it after its timeout."""
ANY_PARTITION: Final = -1
"""Leaves it to the partitioner."""
IN_TURN: Final = 2
"""Producers that make transactions by turns. While the markers of one are being written its producer may not begin another, and
asks again for 20 ms (measured on Kafka 4.4); meanwhile the other one goes ahead. Never do both have one open."""
MOST_MISSED: Final = 10_000
"""Places between where a partition was to be read on and where the client began, that are read at once; more do not belong into
memory, and no marks of transactions are so many."""
SHARED_BATCH: Final = 1_000
_CONSUMER: Final[dict[str, Any]] = {
    "enable.partition.eof": True,
    "auto.offset.reset": "error",  # a place that the log does not have is a gap, and stops the writer
    "fetch.wait.max.ms": 20,  # also how long an idle partition's end takes to be told
    "fetch.message.max.bytes": 4_194_304,
    "queued.min.messages": 20_000,
}
_GROUP: Final[dict[str, Any]] = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": 1_000,
    "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
}
_PRODUCER: Final[dict[str, Any]] = {
    "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
    # A transaction is flushed when it is committed: waiting for more to come would only delay that.
    "linger.ms": 1,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    # What a new transaction asks while the last one's markers are being written is refused, and asked again after this.
    "retry.backoff.ms": 5,
    "retry.backoff.max.ms": 100,
    "queue.buffering.max.messages": 200_000,
    # When no broker answers, librdkafka begins anew from the bootstrap servers, and the offsets of a transaction that was open
    # are never sent: send_offsets_to_transaction hangs for good, whatever its timeout (its issues 5511, 5456; seen with 2.16).
    "metadata.recovery.strategy": "none",
}
_log: Final = logging.getLogger(__name__)


class KafkaLog:
    """`instance` names this process among all scorers, the same after a restart: whoever comes back under it fences who was it
    before. Nothing connects before `partition_count` or `start`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        topic: str,
        shared_topic: str,
        group: str,
        instance: str,
        stuck_s: float = STUCK_S,
    ) -> None:
        self.topic = topic
        self._settings = settings
        self._shared_topic = shared_topic
        self._consumer = Consumer({**consumer_config(settings, group=group), **_CONSUMER, **_GROUP}, logger=_log)
        self._shared = Consumer({**consumer_config(settings, group=f"{group}.shared"), **_CONSUMER}, logger=_log)
        self._transactional_id = f"{group}.{instance}"
        self._stuck_s = stuck_s
        self._turns = list(range(IN_TURN))
        self._producers = [self._made_producer(turn) for turn in self._turns]
        self._given_up: list[Producer] = []
        self._group = group
        # Without a member's id and generation: a broker takes a transaction's offsets from such a one unquestioned, whoever
        # owns the partition, and a member that was expelled is one until it has joined again.
        self._nobody = self._consumer.consumer_group_metadata()
        self._admin: AdminClient | None = None
        self._assigned: dict[int, int] = {}
        self._generation = 0
        self._ends: set[int] = set()
        self._reading: set[int] = set()
        self._starts: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._stash: list[LogRecord] = []
        self._heard: dict[int, int] = {}
        self._started = False
        self._writing = threading.Lock()

    def _made_producer(self, turn: int) -> Producer:
        own = {"transactional.id": f"{self._transactional_id}.{turn}"}
        return Producer({**producer_config(self._settings), **_PRODUCER, **own}, logger=_log)

    # Joining and assignment

    def partition_count(self) -> int:
        try:
            metadata = self._producers[0].list_topics(self.topic, timeout=REQUEST_TIMEOUT_S).topics[self.topic]
        except KafkaException as err:
            raise dependency_error(self._settings, err, f"look at {self.topic}") from err
        if metadata.error is not None:
            raise DependencyError(
                f"{self.topic}: {metadata.error.str()}.", remedy="`fraud topics create` makes the topics."
            )
        return len(metadata.partitions)

    def start(self) -> None:
        try:
            for producer in self._producers:
                producer.init_transactions(COMMIT_TIMEOUT_S)
        except KafkaException as err:
            raise dependency_error(self._settings, err, "begin transactions") from err
        self._shared.assign([TopicPartition(self._shared_topic, each, at) for each, at in self._heard.items()])
        self._consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        self._started = True

    def assigned(self) -> Mapping[int, int]:
        return dict(self._assigned)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._generation += 1
        for each in partitions:
            each.offset = (
                0  # any place that need not be asked for: an answer that comes late would win over `read_from`
            )
            self._assigned[each.partition] = self._generation
            self._reading.discard(each.partition)
            self._starts.pop(each.partition, None)
            self._ends.discard(each.partition)
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._assigned.pop(each.partition, None)
            self._reading.discard(each.partition)
            self._starts.pop(each.partition, None)
            self._ends.discard(each.partition)
        with self._writing:  # what is being committed is ours to the end
            consumer.incremental_unassign(partitions)

    # Reading

    def position(self, partition: int) -> int | None:
        deadline = time.monotonic() + STABLE_TIMEOUT_S
        while True:
            try:
                found = self._consumer.committed([TopicPartition(self.topic, partition)], timeout=REQUEST_TIMEOUT_S)[0]
            except KafkaException as err:
                if time.monotonic() > deadline:
                    raise dependency_error(self._settings, err, f"ask where {self._name(partition)} stands") from err
                continue
            if found.error is None:
                return None if found.offset < 0 else int(found.offset)
            if time.monotonic() > deadline:
                raise DependencyError(f"Where {self._name(partition)} stands is not known: {found.error.str()}.")

    def begins_at(self, partition: int) -> int:
        return self._watermarks(partition)[0]

    def ends_at(self, partition: int) -> int:
        """The place after the newest record, asked of the broker; an open transaction's are among them."""
        return self._watermarks(partition)[1]

    def read_from(self, partition: int, offset: int) -> None:
        low, high = self._watermarks(partition)
        if not low <= offset <= high:
            raise StateError(
                f"{self._name(partition)} holds the offsets {low} to {high - 1}, and its group stands at {offset}.",
                remedy="Payments were lost to the topic's retention, or the topic was made anew: see docs/streaming.md, Recovery.",
            )
        place = TopicPartition(self.topic, partition, offset)
        self._consumer.incremental_unassign([place])
        self._consumer.incremental_assign([place])
        self._consumer.resume([place])
        self._reading.add(partition)
        self._starts[partition] = self._next[partition] = offset

    def poll(self, limit: int, timeout_s: float) -> Sequence[LogRecord]:
        received = self._consumer.consume(1, 0.0 if self._stash else timeout_s)
        if received:
            received += self._consumer.consume(max(limit - len(self._stash), 1), 0.0)
        found = self._stash + self._records(received)
        # A partition that went and came back meanwhile is read anew, from where its state will stand.
        found = [record for record in found if record.partition in self._reading]
        self._stash = found[limit:]
        return found[:limit]

    def _records(self, received: Sequence[Message]) -> list[LogRecord]:
        records = []
        for message in received:
            partition, error = message.partition(), message.error()
            if partition in self._reading and partition in self._starts:
                records += self._missed(message, partition)
            if error is not None:
                self._note(error, partition)
            elif partition in self._reading and partition not in self._starts:
                record = record_of(message)
                if record.offset >= self._next[partition]:
                    self._next[partition] = record.offset + 1
                    records.append(record)
                self._ends.discard(partition)
        return records

    def _missed(self, message: Message, partition: int) -> list[LogRecord]:
        """What lies before a partition's first message, from where it was to be read on.

        A client that looks for the partition's end when it is assigned may begin there in spite of a later place, where the
        answer is slow (a scorer on a loaded machine lost 100 payments to it). The marks of transactions are no records.
        """
        error, until, first = message.error(), int(message.offset() or 0), self._starts[partition]
        if (error is not None and error.code() != KafkaError._PARTITION_EOF) or until < first:
            return []
        if until - first > MOST_MISSED:
            _log.warning("%s is read from %d instead of %d; it is assigned anew.", self._name(partition), until, first)
            place = TopicPartition(self.topic, partition, first)
            self._consumer.incremental_unassign([place])
            self._consumer.incremental_assign([place])
            return []
        del self._starts[partition]
        self._next[partition] = until
        found = [record for batch in self.replay(partition, first, until) for record in batch]
        if found:
            _log.warning(
                "%s was read from %d instead of %d; what lies between is read now.", self._name(partition), until, first
            )
        return found

    def _note(self, error: KafkaError, partition: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if partition in self._reading:
                self._ends.add(partition)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            if partition not in self._reading:
                return
            raise StateError(
                f"{self._name(partition or 0)} holds its next place no more: {error.str()}.",
                remedy="Payments were lost to the topic's retention: see docs/streaming.md, Recovery.",
            )
        elif error.fatal():
            raise Fenced(f"The consumer is no member any more: {error.str()}.")
        elif error.code() in REFUSED:
            raise dependency_error(self._settings, KafkaException(error), f"read {self.topic}")
        else:
            _log.warning("Kafka: %s", error.str())

    def hold(self, partition: int, held: bool) -> None:
        if partition in self._reading:
            place = [TopicPartition(self.topic, partition)]
            (self._consumer.pause if held else self._consumer.resume)(place)

    def at_end(self, partition: int) -> bool:
        return partition in self._ends and not any(record.partition == partition for record in self._stash)

    def end(self, partition: int) -> int:
        if partition not in self._assigned:
            return 0
        marks = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
        return max(0, marks[1]) if marks is not None else 0

    def replay(self, partition: int, first: int, until: int) -> Iterator[Sequence[LogRecord]]:
        return replayed(self._settings, self.topic, partition, first, until, group=f"{self._group}.replay")

    # Others' minutes

    def shared(self, partition: int, first: int) -> None:
        self._heard[partition] = first

    def hear(self, *, end_of: int | None = None) -> Sequence[SharedMessage]:
        found: list[SharedMessage] = []
        if end_of is None:
            self._listen(found, 0.0)
            return found
        until, deadline = self._stable_end(end_of), time.monotonic() + REQUEST_TIMEOUT_S
        while self._heard.get(end_of, 0) < until:
            self._listen(found, 0.05)
            if time.monotonic() > deadline:
                raise DependencyError(f"{self._shared_topic}[{end_of}] could not be read up to {until}.")
        return found

    def _listen(self, found: list[SharedMessage], timeout_s: float) -> None:
        received = self._shared.consume(1, timeout_s) if self._heard else []
        if received:  # who waits for many waits all of the time
            received += self._shared.consume(SHARED_BATCH, 0.0)
        for message in received:
            partition, offset, error = int(message.partition() or 0), int(message.offset() or 0), message.error()
            if error is None:
                found.append(SharedMessage(partition, offset, orjson.loads(message.value() or b"{}")))
                self._heard[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._heard[partition] = max(self._heard[partition], offset)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise StateError(
                    f"{self._shared_topic}[{partition}] holds its next place no more: {error.str()}.",
                    remedy="Its retention must reach back to the oldest checkpoint: `fraud topics verify`.",
                )
            else:
                _log.warning("Kafka: %s", error.str())

    def _stable_end(self, partition: int) -> int:
        """The end of the partition's closings, once no transaction on it is open."""
        place, deadline = TopicPartition(self._shared_topic, partition), time.monotonic() + STABLE_TIMEOUT_S
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        while True:
            asked = self._admin = self._admin or admin(self._settings)
            try:
                ends = [
                    asked.list_offsets({place: newest}, isolation_level=level)[place].result(REQUEST_TIMEOUT_S).offset
                    for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED)
                ]
            except KafkaException as err:
                if time.monotonic() > deadline:
                    raise dependency_error(self._settings, err, f"ask where {self._shared_topic} ends") from err
                self._admin = None  # it may know an old leader, from before a restart, and never asks for another
                continue
            if ends[1] >= ends[0] or time.monotonic() > deadline:
                return int(ends[1])
            time.sleep(0.01)

    # Writing

    def membership(self) -> object:
        """Not to be asked while another thread polls: the client lets one thread at a time speak to a consumer, and a
        rebalance's callback within `poll` waits for the transaction at hand.
        """
        return self._consumer.consumer_group_metadata()

    def commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object = None) -> None:
        membership = membership or self.membership()
        with self._writing:
            if membership == self._nobody:
                raise TransactionAborted(f"The scorer is no member of {self._group} at this moment.")
            self._commit(outputs, positions, membership)

    def _commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object) -> None:
        producer = self._producers[0]
        self._producers.append(self._producers.pop(0))
        self._turns.append(self._turns.pop(0))
        asked = False
        try:
            producer.begin_transaction()
            _produce(producer, outputs)
            offsets = [TopicPartition(self.topic, each, offset) for each, offset in positions.items()]
            self._insist(lambda: self._send_offsets(producer, offsets, membership))
            asked = True
            self._insist(lambda: producer.commit_transaction(REQUEST_TIMEOUT_S))
        except KafkaException as err:
            # Once its end was asked for, only the log knows: a broker that died may have kept it and refuse to say so again.
            self._abort(producer, err.args[0], in_doubt=asked)

    def _send_offsets(self, producer: Producer, offsets: list[TopicPartition], membership: object) -> None:
        answer: Future[None] = Future()

        def send() -> None:
            try:
                producer.send_offsets_to_transaction(offsets, membership, REQUEST_TIMEOUT_S)
                answer.set_result(None)
            except BaseException as err:  # noqa: BLE001 raised again where it is waited for
                answer.set_exception(err)

        threading.Thread(target=send, name="offsets", daemon=True).start()
        try:
            answer.result(self._stuck_s)
        except TimeoutError:
            self._replace(producer)
            raise TransactionAborted("The transaction's offsets were not answered; a new producer goes on.") from None

    def _replace(self, producer: Producer) -> None:
        """Another producer under the same id: nothing of the old one's transaction can be committed any more."""
        place = self._producers.index(producer)
        self._given_up.append(producer)  # a call of it never returns
        made = self._producers[place] = self._made_producer(self._turns[place])
        try:
            self._insist(lambda: made.init_transactions(REQUEST_TIMEOUT_S))
        except KafkaException as err:
            raise dependency_error(self._settings, err, "begin transactions anew") from err

    def _insist(self, ask: Any) -> None:
        """Ask again while the broker may yet answer."""
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while True:
            try:
                ask()
                return
            except KafkaException as err:
                error = err.args[0]
                if not error.retriable() or time.monotonic() > deadline:
                    raise

    def _abort(self, producer: Producer, error: KafkaError, *, in_doubt: bool) -> None:
        """Take the transaction back; `in_doubt`: it may have been kept. Raises TransactionAborted, Fenced or LogLost."""
        said = f"The transaction failed: {error.str()}"
        if error.code() in _FENCED:
            raise Fenced(f"{said}: another process is this scorer now.") from KafkaException(error)
        try:
            self._insist(lambda: producer.abort_transaction(REQUEST_TIMEOUT_S))
        except KafkaException as err:
            refused = err.args[0]
            if in_doubt:
                raise LogLost(f"{said}, and could not be taken back: {refused.str()}.") from err
            if refused.code() in _FENCED:
                raise Fenced(f"{said}: another process is this scorer now.") from err
            self._replace(
                producer
            )  # the broker was away for longer than a transaction may take, and has taken it back itself
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:  # it would be again, for ever
            raise InputError(
                f"{said}: a message of {self.topic} is too large for the dead letters.",
                remedy="Raise FRAUD_KAFKA_MESSAGE_MAX_BYTES and the max.message.bytes of the dead letters' topic, and start again.",
            )
        raise TransactionAborted(f"{said}.")

    def close(self) -> None:
        if self._started:
            self._started = False
            self._consumer.close()
            self._shared.close()

    def _watermarks(self, partition: int) -> tuple[int, int]:
        try:
            marks = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=REQUEST_TIMEOUT_S
            )
        except KafkaException as err:
            raise dependency_error(self._settings, err, f"look at {self._name(partition)}") from err
        if marks is None:
            raise DependencyError(f"The broker says nothing of {self._name(partition)}.")
        return int(marks[0]), int(marks[1])

    def _name(self, partition: int) -> str:
        return f"{self.topic}[{partition}]"


_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


def _produce(producer: Producer, outputs: Sequence[Output]) -> None:
    produce: Any = producer.produce
    for topic, partition, key, value, headers in outputs:
        while True:
            try:
                produce(topic, value, key, ANY_PARTITION if partition is None else partition, headers=headers)
                break
            except BufferError:
                producer.poll(0.05)


def record_of(message: Any) -> LogRecord:
    """A message as the scorer reads it. FraudError for one without a time, which no broker of today appends."""
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        raise FraudError(
            f"{message.topic()}[{message.partition()}]@{message.offset()} has no time of its own: it is too old."
        )
    return LogRecord(
        message.partition(), message.offset(), milliseconds * 1_000, message.key(), message.value(), message.headers()
    )
