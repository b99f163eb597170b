"""The dead letters: which there are, one with its bytes, and back into the log, each once.

A topic cannot be changed, so a letter that was produced again gets a note behind it in its own partition, in one Kafka
transaction with the message: who asks a second time is refused. Prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from fraud_pipeline.adapters.kafka.envelope import (
    DEAD,
    REQUEUED_FROM,
    TYPE,
    Place,
    header_text,
    last_header,
    original_headers,
)
from fraud_pipeline.errors import Busy, DependencyError, FraudError, InputError, NotFound

SILENT_S: Final = 20.0
"""A broker that sends nothing for so long, not even that a partition is at its end, is away."""
POLL_S: Final = 0.5
COMMIT_S: Final = 30.0
NOTED: Final = DEAD + "requeued"
"""The header of a note: the letter that was produced again."""
UNKNOWN: Final = "unknown"
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})

Config = dict[str, Any]
Trouble = Callable[[Any, str], FraudError]
"""Makes our error of the client's: dependency_error(settings, err, doing)."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `place` is its own, `source` that of the message it was; `headers` are the original ones.

    `requeued` says that it was produced again, `earlier` that it is such a message, and from which letter it was made.
    """

    place: Place
    code: str
    error: str
    source: str
    at: str
    size: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    requeued: bool = False
    earlier: str | None = None


class DeadLetters:
    """The letters of one topic. Connects when it is asked, not before.

    `consumer` and `producer` are librdkafka configurations; the consumer's group is never used to remember a place.
    """

    def __init__(self, topic: str, *, consumer: Config, producer: Config, trouble: Trouble) -> None:
        self.topic = topic
        own = {"enable.auto.commit": False, "enable.partition.eof": True, "isolation.level": "read_committed"}
        self._consumer = {**consumer, **own, "auto.offset.reset": "earliest"}
        self._producer = {**producer, "transactional.id": f"{topic}-requeue", "retry.backoff.ms": 10}
        self._trouble = trouble

    def all(self) -> list[DeadLetter]:
        """All letters without their values, by the time they came. Raises NotFound without the topic."""
        with self._reader() as consumer:
            letters, noted = {}, set()
            for message in self._all(consumer):
                note = header_text(message.headers(), NOTED)
                if note is not None:
                    noted.add(note)
                else:
                    letter = _letter(message)
                    letters[str(letter.place)] = replace(letter, value=None)
        marked = [replace(letter, requeued=True) if place in noted else letter for place, letter in letters.items()]
        return sorted(marked, key=lambda letter: (letter.at, str(letter.place)))

    def find(self, place: Place) -> DeadLetter:
        """One letter, whole. Raises NotFound."""
        with self._reader() as consumer:
            return self._at(consumer, place)

    def requeue(
        self,
        places: list[Place],
        *,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        again: bool = False,
    ) -> list[DeadLetter]:
        """Produce letters to `topic` again, all or none: their own bytes, key and headers, and where from.

        `value` and `key` replace those of the letter. Without `again` a letter that was requeued is refused (InputError).
        An unchanged key goes to the partition that the message came from, whatever partitioner its sender had.
        """
        producer = Producer(self._producer)
        try:
            producer.init_transactions(COMMIT_S)  # whoever else is at it is fenced: from here on nobody adds a note
            known = {str(letter.place): letter for letter in self.all()}
            with self._reader() as consumer:
                letters = [self._to_requeue(known, consumer, place, again=again) for place in places]
            partitions = len(producer.list_topics(topic, timeout=SILENT_S).topics[topic].partitions)
            producer.begin_transaction()
            for letter in letters:
                self._send(producer, letter, topic, partitions, value, key)
            producer.commit_transaction(COMMIT_S)
        except KafkaException as err:
            if err.args[0].code() in _FENCED:
                raise Busy(f"Another requeue of {self.topic} came in between; nothing was requeued here.") from err
            with suppress(KafkaException):  # none was open, or the broker is away and will end it
                producer.abort_transaction(COMMIT_S)
            raise self._trouble(err, f"requeue dead letters of {self.topic}") from err
        return letters

    def _to_requeue(self, known: dict[str, DeadLetter], consumer: Consumer, place: Place, *, again: bool) -> DeadLetter:
        if str(place) not in known:
            raise NotFound(f"There is no dead letter at {place}.", remedy="`fraud dlq list` shows those there are.")
        if known[str(place)].requeued and not again:
            raise InputError(
                f"The dead letter at {place} was requeued already.",
                remedy="Look at what became of it first; --again requeues it once more.",
            )
        return self._at(consumer, place)

    def _send(
        self,
        producer: Producer,
        letter: DeadLetter,
        topic: str,
        partitions: int,
        value: bytes | None,
        key: bytes | None,
    ) -> None:
        """The message, and the note behind its letter; both count when the transaction commits."""
        headers: Any = [header for header in letter.headers if header[0] != REQUEUED_FROM]
        headers.append((REQUEUED_FROM, str(letter.place).encode()))
        options: dict[str, Any] = {}
        if key is None and (partition := _partition_of(letter.source, topic)) is not None and partition < partitions:
            options["partition"] = partition
        sent_key = letter.key if key is None else key
        _produce(producer, topic, letter.value if value is None else value, sent_key, headers=headers, **options)
        note: Any = [(TYPE, b"requeued"), (NOTED, str(letter.place).encode())]
        _produce(producer, self.topic, b"", letter.key, headers=note, partition=letter.place.partition)

    def _reader(self) -> _Open:
        return _Open(self._consumer)

    def _all(self, consumer: Consumer) -> Iterator[Any]:
        """Every message from the first to the one that is the last now."""
        partitions = self._partitions(consumer)
        consumer.assign([TopicPartition(self.topic, partition, OFFSET_BEGINNING) for partition in partitions])
        yield from self._until_ends(consumer, len(partitions))

    def _partitions(self, consumer: Consumer) -> list[int]:
        try:
            there = consumer.list_topics(self.topic, timeout=SILENT_S).topics[self.topic]
        except KafkaException as err:
            raise self._trouble(err, f"read {self.topic}") from err
        if there.error is not None:
            raise NotFound(f"The broker has no topic {self.topic}.", remedy="`fraud topics create` makes it.")
        return sorted(there.partitions)

    def _until_ends(self, consumer: Consumer, partitions: int) -> Iterator[Any]:
        ended: set[int] = set()
        heard = time.monotonic()
        while len(ended) < partitions:
            message = consumer.poll(POLL_S)
            if message is None:
                if time.monotonic() > heard + SILENT_S:
                    raise DependencyError(
                        f"The broker sent nothing of {self.topic} for {SILENT_S:.0f} s.",
                        remedy="Look at its log, and try again.",
                    )
                continue
            heard = time.monotonic()
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(int(message.partition() or 0))
            else:
                raise self._trouble(KafkaException(error), f"read {self.topic}")

    def _at(self, consumer: Consumer, place: Place) -> DeadLetter:
        if place.topic != self.topic or place.partition not in self._partitions(consumer):
            raise NotFound(f"There is no {place.writer} among the dead letters of {self.topic}.")
        consumer.assign([TopicPartition(self.topic, place.partition, place.offset)])
        for message in self._until_ends(consumer, 1):
            if message.offset() == place.offset and header_text(message.headers(), NOTED) is None:
                return _letter(message)
            break  # it begins at the place, or behind it where the place is gone
        raise NotFound(f"There is no dead letter at {place}.", remedy="`fraud dlq list` shows those there are.")


class _Open:
    """A consumer that is closed when the block is left."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consumer: Consumer | None = None

    def __enter__(self) -> Consumer:
        self._consumer = Consumer(self._config)
        return self._consumer

    def __exit__(self, *_error: object) -> None:
        if self._consumer is not None:
            self._consumer.close()


def moment_of(letter: DeadLetter) -> datetime | None:
    """When it became a dead letter; None where its header says nothing that is a time."""
    try:
        return datetime.fromisoformat(letter.at)
    except ValueError:
        return None


def _produce(producer: Producer, topic: str, value: bytes | None, key: bytes | None, **options: Any) -> None:
    """Hand one over; a full queue is waited for."""
    while True:
        try:
            producer.produce(topic, value, key, **options)
        except BufferError:
            producer.poll(POLL_S)
        else:
            return


def _letter(message: Any) -> DeadLetter:
    headers = message.headers() or []
    value = message.value()

    def said(name: str) -> str:
        return header_text(headers, DEAD + name) or ""

    return DeadLetter(
        place=Place(message.topic(), message.partition(), message.offset()),
        code=said("code") or UNKNOWN,
        error=said("error"),
        source=said("source"),
        at=said("at"),
        size=0 if value is None else len(value),
        key=message.key(),
        value=value,
        headers=tuple(original_headers(headers)),
        earlier=None if last_header(headers, REQUEUED_FROM) is None else header_text(headers, REQUEUED_FROM),
    )


def _partition_of(source: str, topic: str) -> int | None:
    try:
        place = Place.parse(source)
    except InputError:
        return None
    return place.partition if place.topic == topic else None
