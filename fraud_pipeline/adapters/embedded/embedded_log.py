"""The log of a scorer in one file: what a batch makes and how far it came are one SQLite transaction.

One process reads all partitions; a second one is refused. What is committed is seen at once and in order, so a predecessor
leaves nothing open.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from fraud_pipeline.adapters.embedded.stream_file import Stored, StreamFile, read_headers
from fraud_pipeline.adapters.stream.event_log import LogRecord, Output, SharedMessage, TransactionAborted
from fraud_pipeline.adapters.stream.process_lock import ProcessLock
from fraud_pipeline.errors import Busy, StateError

LOOK_EVERY_S: Final = 0.002
"""Between two looks for new records while there are none: one takes 20 µs, and a payment waits 1 ms on average."""
REPLAY_BATCH: Final = 10_000
SHARED_BATCH: Final = 1_000


class EmbeddedLog:
    """`group` names the position that successive scorers go on from."""

    def __init__(self, path: Path, *, topic: str, shared_topic: str, group: str) -> None:
        self.topic = topic
        self._shared_topic = shared_topic
        self._group = group
        self._file = StreamFile(path)
        self._written = StreamFile(path)  # batches are written in a thread of their own
        self._lock = ProcessLock(path.with_name(f"{path.name}.{group}.lock"))
        self._assigned: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._ends: list[int] = []
        self._held: set[int] = set()
        self._heard: dict[int, int] = {}

    def partition_count(self) -> int:
        return self._file.partition_count(self.topic)

    def start(self) -> None:
        """Busy where another process scores this file."""
        if not self._lock.take():
            raise Busy(
                f"Another process scores {self._file.path}; a file has one scorer.",
                remedy="For several, run Kafka: `fraud services up kafka`, and FRAUD_KAFKA_BOOTSTRAP_SERVERS.",
            )

    def assigned(self) -> Mapping[int, int]:
        return dict(self._assigned)

    def position(self, partition: int) -> int | None:
        return self._file.position(self._group, self.topic, partition)

    def begins_at(self, partition: int) -> int:
        return self._file.begins_at(self.topic, partition)

    def read_from(self, partition: int, offset: int) -> None:
        low, high = self.begins_at(partition), self._file.ends(self.topic)[partition]
        if not low <= offset <= high:
            raise StateError(
                f"{self.topic}[{partition}] holds the offsets {low} to {high - 1}, and its group stands at {offset}.",
                remedy=f"{self._file.path} was changed from outside: restore it, or begin anew with another FRAUD_HOME.",
            )
        self._next[partition] = offset

    def poll(self, limit: int, timeout_s: float) -> Sequence[LogRecord]:
        if self._lock.is_held and not self._assigned:
            self._assigned = dict.fromkeys(range(self.partition_count()), 1)
        deadline = time.monotonic() + timeout_s
        while True:
            self._ends = self._file.ends(self.topic)
            records = self._read(limit)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            time.sleep(min(left, LOOK_EVERY_S))

    def _read(self, limit: int) -> list[LogRecord]:
        """A share of each partition that has something, and what is left of it for who has more."""
        ready = [each for each, at in self._next.items() if at < self._ends[each] and each not in self._held]
        ready.sort(key=lambda each: self._ends[each] - self._next[each])
        records: list[LogRecord] = []
        for place, partition in enumerate(ready):
            share = (limit - len(records)) // (len(ready) - place)
            found = self._file.read(self.topic, partition, self._next[partition], share) if share > 0 else []
            if found:
                self._next[partition] = found[-1].offset + 1
                records += [record_of(partition, stored) for stored in found]
        return records

    def hold(self, partition: int, held: bool) -> None:
        (self._held.add if held else self._held.discard)(partition)

    def at_end(self, partition: int) -> bool:
        return partition in self._next and bool(self._ends) and self._next[partition] >= self._ends[partition]

    def end(self, partition: int) -> int:
        return self._ends[partition] if self._ends else 0

    def replay(self, partition: int, first: int, until: int) -> Iterator[Sequence[LogRecord]]:
        while first < until:
            found = self._file.read(self.topic, partition, first, min(REPLAY_BATCH, until - first))
            found = [stored for stored in found if stored.offset < until]
            if not found or found[0].offset != first:
                raise StateError(
                    f"{self.topic}[{partition}]@{first} is not in {self._file.path}, and up to {until} was decided.",
                    remedy="The file was changed from outside: restore it, or begin anew with another FRAUD_HOME.",
                )
            yield [record_of(partition, stored) for stored in found]
            first = found[-1].offset + 1

    def shared(self, partition: int, first: int) -> None:
        self._heard[partition] = first

    def hear(self, *, end_of: int | None = None) -> Sequence[SharedMessage]:
        """What stands there is committed, and whoever was before us has ended: all of it is always to be had."""
        found: list[SharedMessage] = []
        for partition, end in enumerate(self._file.ends(self._shared_topic) if self._heard else []):
            while partition in self._heard and self._heard[partition] < end:
                stored = self._file.read(self._shared_topic, partition, self._heard[partition], SHARED_BATCH)
                if not stored:
                    raise StateError(f"{self._shared_topic}[{partition}]@{self._heard[partition]} is not in the log.")
                found += [SharedMessage(partition, each.offset, orjson.loads(each.value or b"{}")) for each in stored]
                self._heard[partition] = stored[-1].offset + 1
                if end_of is None:
                    break
        return found

    def membership(self) -> object:
        return None  # the file's lock says who writes

    def commit(
        self,
        outputs: Sequence[Output],
        positions: Mapping[int, int],
        membership: object = None,  # noqa: ARG002
    ) -> None:
        """DependencyError where the disk is full or gone: the process should end, and nothing of the batch happened."""
        places = {(self.topic, partition): offset for partition, offset in positions.items()}
        try:
            self._written.append(outputs, reader=self._group, positions=places)
        except Busy as err:
            raise TransactionAborted(err.message, remedy=err.remedy) from err

    def close(self) -> None:
        self._file.close()
        self._written.close()
        self._lock.release()


def record_of(partition: int, stored: Stored) -> LogRecord:
    """A message as the scorer reads it."""
    return LogRecord(
        partition, stored.offset, stored.received_us, stored.key, stored.value, read_headers(stored.headers)
    )
