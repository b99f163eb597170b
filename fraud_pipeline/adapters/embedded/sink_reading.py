"""A sink's consumer of a log in one file: it reads on where the ledger says, as the one of a broker does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fraud_pipeline.adapters.embedded.stream_file import Stored, StreamFile, read_headers
from fraud_pipeline.adapters.kafka.envelope import Headers
from fraud_pipeline.adapters.ledger_sink_rows import Move
from fraud_pipeline.adapters.ledger_sink_rows import TopicPartition as Partition
from fraud_pipeline.errors import StateError

BATCH_MESSAGES: Final = 2_000
"""One transaction of the ledger, in the scorer's own process: a tenth of a second."""
BATCH_WAIT_S: Final = 0.25
"""How long it waits while nothing comes; analysts do not notice."""
LOOK_EVERY_S: Final = 0.02
_APPENDED: Final = 2
"""Kafka's number for a time that the log gave."""

Begin = Callable[[Mapping[Partition, int]], dict[Partition, int]]


class EmbeddedMessage:
    """A message with the face that a broker's client gives it (`sink_messages.Received`)."""

    def __init__(self, partition: Partition, stored: Stored) -> None:
        self._partition, self._stored = partition, stored

    def topic(self) -> str:
        return self._partition[0]

    def partition(self) -> int:
        return self._partition[1]

    def offset(self) -> int:
        return self._stored.offset

    def key(self) -> bytes | None:
        return self._stored.key

    def value(self) -> bytes | None:
        return self._stored.value

    def headers(self) -> Headers:
        return read_headers(self._stored.headers)

    def timestamp(self) -> tuple[int, int]:
        return _APPENDED, self._stored.received_us // 1_000


class EmbeddedSinkConsumer:
    """`begin` is the ledger's: from first offsets to the next ones to read. All partitions are ours from the start."""

    def __init__(self, file: StreamFile, topics: Sequence[str], begin: Begin) -> None:
        self._file = file
        self._topics = sorted(topics)
        self._begin = begin
        self._next: dict[Partition, int] = {}
        self._settled = False
        self.assigned: tuple[Partition, ...] = ()
        self.rebalances = 0

    def start(self) -> None:
        """Everything is ours."""
        self.assigned = tuple(
            (topic, number) for topic in self._topics for number in range(self._file.partition_count(topic))
        )
        self.rebalances = 1

    @property
    def is_settled(self) -> bool:
        return self._settled

    def settle(self) -> None:
        """Read on from where the ledger is. StateError where the file holds that place no more."""
        self._next = self._begin({each: self._file.begins_at(*each) for each in self.assigned})
        for (topic, number), at in self._next.items():
            low, high = self._file.begins_at(topic, number), self._file.ends(topic)[number]
            if not low <= at <= high:
                raise StateError(
                    f"The ledger has read {topic}[{number}] up to offset {at - 1}, and {self._file.path} holds {low} to {high - 1}.",
                    remedy="They are not of one world: restore what belongs together, or begin anew with another FRAUD_HOME.",
                )
        self._settled = True

    def take(self, limit: int = BATCH_MESSAGES) -> tuple[list[EmbeddedMessage], dict[Partition, Move]]:
        """The next messages, and how far they bring each partition."""
        deadline = time.monotonic() + BATCH_WAIT_S
        while not (found := self._read(limit)) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        moves: dict[Partition, Move] = {}
        for each in self._next:
            mine = [message.offset() for message in found if (message.topic(), message.partition()) == each]
            if mine:
                moves[each] = Move(self._next[each], mine[-1] + 1)
        self._next |= {each: move.next_offset for each, move in moves.items()}
        return found, moves

    def _read(self, limit: int) -> list[EmbeddedMessage]:
        found: list[EmbeddedMessage] = []
        for each, behind in sorted(self.lags().items(), key=lambda item: item[1]):
            if behind and len(found) < limit:
                stored = self._file.read(*each, self._next[each], limit - len(found))
                found += [EmbeddedMessage(each, one) for one in stored]
        return found

    def let_go(self) -> None:
        """Forget what was taken and not written."""
        self._settled = False
        self._next = {}

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def lags(self) -> dict[Partition, int]:
        """Messages behind the end of each partition."""
        ends = {topic: self._file.ends(topic) for topic in self._topics}
        return {(topic, number): ends[topic][number] - at for (topic, number), at in self._next.items()}

    def close(self) -> None:
        self._file.close()
