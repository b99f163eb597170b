"""What a scorer asks of its log, be it Kafka or a file: partitions to read, and one transaction for all that a batch makes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, overload

from fraud_pipeline.adapters.kafka.envelope import Headers, Message, Place
from fraud_pipeline.errors import FraudError


@dataclass(slots=True)
class LogRecord:
    """One message of `transactions`; `received_us` is when the log took it, µs since 1970 UTC."""

    partition: int
    offset: int
    received_us: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True, eq=False)
class RecordColumns(Sequence[LogRecord]):
    """Records of one partition in their order, by column; a `LogRecord` is made only where one is asked for."""

    partition: int
    offsets: Sequence[int]
    received_us: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    @classmethod
    def of(cls, records: Sequence[LogRecord]) -> RecordColumns:
        """These records of one partition, at least one."""
        if isinstance(records, RecordColumns):
            return records
        return cls(
            records[0].partition, [each.offset for each in records], [each.received_us for each in records],
            [each.key for each in records], [each.value for each in records], [each.headers for each in records],
        )  # fmt: skip

    def before(self, until: int) -> RecordColumns:
        """Those before that place."""
        kept = slice(bisect_left(self.offsets, until))
        return RecordColumns(
            self.partition, self.offsets[kept], self.received_us[kept], self.keys[kept], self.values[kept],
            self.headers[kept],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> LogRecord: ...
    @overload
    def __getitem__(self, place: slice) -> list[LogRecord]: ...
    def __getitem__(self, place: int | slice) -> LogRecord | list[LogRecord]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return LogRecord(
            self.partition, self.offsets[place], self.received_us[place], self.keys[place], self.values[place],
            self.headers[place],
        )  # fmt: skip


class Output(NamedTuple):
    """A message to write; `partition` None leaves it to the key."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]

    @classmethod
    def of(cls, topic: str, partition: int | None, message: Message) -> Output:
        return cls(topic, partition, message.key, message.value, list(message.headers))


class SharedMessage(NamedTuple):
    """One message of `shared-state`, decoded, and its place there."""

    partition: int
    offset: int
    value: Mapping[str, Any]


class TransactionAborted(FraudError):
    """Nothing of the batch happened; it may be done again, by us or, after a rebalance, by another."""


class Fenced(FraudError):
    """Another process has taken this one's place: it must stop at once and write nothing more."""


class LogLost(FraudError):
    """The log went away in the middle, and nobody here knows what became of the batch: the log says, when it is opened anew."""


class EventLog(Protocol):
    """The log as one scorer sees it. Not for several threads."""

    topic: str
    """Name of the topic of payments; a writer is `topic[partition]`."""

    def partition_count(self) -> int:
        """How many partitions there are, ours or not. DependencyError where the log does not answer."""

    def start(self) -> None:
        """Join; partitions are assigned in the course of `poll`."""

    def assigned(self) -> Mapping[int, int]:
        """Our partitions now, each with a number that changes whenever it was ours anew."""

    def position(self, partition: int) -> int | None:
        """The place up to which the group has decided (a successor waits for its predecessor's transaction to end); None for
        none yet.
        """

    def begins_at(self, partition: int) -> int:
        """The oldest place that the log still holds."""

    def read_from(self, partition: int, offset: int) -> None:
        """Deliver records of this partition from this place on; before that, none is."""

    def poll(self, limit: int, timeout_s: float) -> Sequence[LogRecord]:
        """The next records, of each partition in its order; waits so long for the first.

        Only of partitions that `read_from` was called for since they became ours.
        """

    def hold(self, partition: int, held: bool) -> None:
        """Deliver nothing of this partition, or go on."""

    def at_end(self, partition: int) -> bool:
        """Whether all that the log holds of this partition was delivered."""

    def end(self, partition: int) -> int:
        """The place after the newest record, as far as it is known."""

    def replay(self, partition: int, first: int, until: int) -> Iterator[Sequence[LogRecord]]:
        """The records at [first, until), in their order."""

    def shared(self, partition: int, first: int) -> None:
        """Deliver closings of this partition of `shared-state` from this place on."""

    def hear(self, *, end_of: int | None = None) -> Sequence[SharedMessage]:
        """The closings that have come; with `end_of`, all of that partition, also of a transaction that is just ending."""

    def membership(self) -> object:
        """Who we are in the group at this moment, for `commit`; asked by the thread that polls."""

    def commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object = None) -> None:
        """Write all of it and move on, in one transaction. Raises TransactionAborted, Fenced or LogLost.

        May be called from another thread than the rest, one call at a time.
        """

    def close(self) -> None:
        """Leave."""


def writer_of(topic: str, partition: int) -> str:
    """The writer whose log this partition is."""
    return Place(topic, partition, 0).writer
