"""Topics in one SQLite file: partitions, offsets without gaps, receipt times, and the places that readers have reached.

Every append is one transaction, whole or not at all, and is seen by every process at once. WAL with `synchronous=NORMAL`: what
was committed survives the death of a process; a power cut may cost the newest, and never leaves half of one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Self

import orjson

from fraud_pipeline.adapters.kafka.envelope import Headers
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.stream.event_log import Output
from fraud_pipeline.errors import Busy, DependencyError, IntegrityError, NotFound

BUSY_TIMEOUT_S: Final = 10.0
"""For others' transactions, which take milliseconds; a full disk's take seconds."""
CACHE_KB: Final = 16_384
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL DEFAULT 0,
    newest_us INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, number)
);
CREATE TABLE IF NOT EXISTS positions (
    reader TEXT NOT NULL, partition_id INTEGER NOT NULL, next_offset INTEGER NOT NULL, PRIMARY KEY (reader, partition_id)
) WITHOUT ROWID;
"""
_MILLISECOND_US: Final = 1_000


class Stored(NamedTuple):
    """A message as it stands in the file."""

    offset: int
    received_us: int
    key: bytes | None
    value: bytes | None
    headers: bytes | None


class Appended(NamedTuple):
    """Where a message stands now."""

    partition: int
    offset: int


class _Partition(NamedTuple):
    identity: int
    next_offset: int
    newest_us: int


class StreamFile:
    """One connection to the file, for one thread at a time. Nothing is opened before it is used."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._known: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def create(self, topics: Mapping[str, int]) -> None:
        """Make the topics that are not there, with so many partitions; those that are there stay as they are."""
        if all(self._partitions(topic) for topic in topics):
            return
        with self._writing() as connection:
            for topic, count in topics.items():
                if connection.execute("SELECT 1 FROM partitions WHERE topic = ?", (topic,)).fetchone():
                    continue
                for number in range(count):
                    made = connection.execute("INSERT INTO partitions (topic, number) VALUES (?, ?)", (topic, number))
                    connection.execute(
                        f"CREATE TABLE log_{made.lastrowid} (place INTEGER PRIMARY KEY, received_us INTEGER NOT NULL, "
                        "key BLOB, value BLOB, headers BLOB)"
                    )  # fmt: skip

    def partition_count(self, topic: str) -> int:
        """NotFound without the topic."""
        return len(self._identities(topic))

    def append(
        self, outputs: Sequence[Output], *, reader: str = "", positions: Mapping[tuple[str, int], int] | None = None
    ) -> list[Appended]:
        """Write messages, and how far `reader` is in (topic, partition), in one transaction; where each message stands.

        Raises Busy, DependencyError and NotFound; then nothing of it happened.
        """
        with self._writing() as connection:
            ends: dict[int, _Partition] = {}
            rows: dict[int, list[Stored]] = {}
            places = [self._place(connection, output, ends, rows) for output in outputs]
            for identity, each in rows.items():
                connection.executemany(f"INSERT INTO log_{identity} VALUES (?, ?, ?, ?, ?)", each)
            connection.executemany(
                "UPDATE partitions SET next_offset = ?, newest_us = ? WHERE id = ?",
                [(end.next_offset, end.newest_us, identity) for identity, end in ends.items()],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                [(reader, self._identities(topic)[part], at) for (topic, part), at in (positions or {}).items()],
            )
        return places

    def position(self, reader: str, topic: str, partition: int) -> int | None:
        """How far a reader is; None where it has not begun."""
        query = "SELECT next_offset FROM positions WHERE reader = ? AND partition_id = ?"
        found = self._one(query, (reader, self._identities(topic)[partition]))
        return None if found is None else found[0]

    def ends(self, topic: str) -> list[int]:
        """The place after the newest message of each partition."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT next_offset FROM partitions WHERE topic = ? ORDER BY number", (topic,)
            ).fetchall()
        return [row[0] for row in rows]

    def begins_at(self, topic: str, partition: int) -> int:
        """The oldest place that is held; the end where none is."""
        identity = self._identities(topic)[partition]
        found = self._one(f"SELECT min(place) FROM log_{identity}", ())
        oldest = None if found is None else found[0]
        return self.ends(topic)[partition] if oldest is None else int(oldest)

    def read(self, topic: str, partition: int, first: int, limit: int) -> list[Stored]:
        """Messages from a place on, at most `limit`."""
        identity = self._identities(topic)[partition]
        with self._reading() as connection:
            found = connection.execute(
                f"SELECT place, received_us, key, value, headers FROM log_{identity} WHERE place >= ? ORDER BY place LIMIT ?",
                (first, limit),
            ).fetchall()
        return [Stored(*row) for row in found]

    # Within

    def _place(
        self, connection: sqlite3.Connection, output: Output, ends: dict[int, _Partition], rows: dict[int, list[Stored]]
    ) -> Appended:
        """Put one message at the end of its partition, in the transaction's own account of it."""
        topic, number, key, value, headers = output
        identities = self._identities(topic)
        if number is None:
            number = partition_of(key or b"", len(identities))
        if not 0 <= number < len(identities):
            raise NotFound(f"{self.path} has {len(identities)} partitions of {topic}, and no {topic}[{number}].")
        identity = identities[number]
        end = ends.get(identity)
        if end is None:
            query = "SELECT id, next_offset, newest_us FROM partitions WHERE id = ?"
            end = _Partition(*connection.execute(query, (identity,)).fetchone())
        received = max(end.newest_us, int(self._now() * 1_000) * _MILLISECOND_US)  # as a broker stamps: never backwards
        row = Stored(end.next_offset, received, key, value, encoded_headers(headers))
        rows.setdefault(identity, []).append(row)
        ends[identity] = _Partition(identity, end.next_offset + 1, received)
        return Appended(number, end.next_offset)

    def _identities(self, topic: str) -> list[int]:
        found = self._known.get(topic) or self._partitions(topic)
        if not found:
            raise NotFound(
                f"{self.path} has no topic {topic}.",
                remedy="`fraud topics create` makes the topics, and so does `fraud produce`.",
            )
        return found

    def _partitions(self, topic: str) -> list[int]:
        with self._reading() as connection:
            rows = connection.execute("SELECT id FROM partitions WHERE topic = ? ORDER BY number", (topic,)).fetchall()
        if rows:
            self._known[topic] = [row[0] for row in rows]
        return self._known.get(topic, [])

    def _one(self, query: str, values: tuple[object, ...]) -> tuple[int, ...] | None:
        with self._reading() as connection:
            found: tuple[int, ...] | None = connection.execute(query, values).fetchone()
        return found

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._open()
        except sqlite3.Error as err:
            raise self._trouble(err) from err

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as err:
            raise self._trouble(err) from err

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as err:
                raise DependencyError(f"The log {self.path} cannot be made: {err.strerror}.") from err
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{CACHE_KB}"):
                    connection.execute(f"PRAGMA {pragma}")
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _trouble(self, err: sqlite3.Error) -> Busy | DependencyError | IntegrityError:
        text = str(err)
        if "locked" in text:
            return Busy(
                f"The log {self.path} is locked by another process for more than {BUSY_TIMEOUT_S:.0f} s.",
                remedy="End that process, or run Kafka for more traffic than one file takes.",
            )
        if "malformed" in text or "not a database" in text:
            return IntegrityError(
                f"The log {self.path} is damaged: {text}.", remedy="Restore it, or begin anew with another FRAUD_HOME."
            )
        return DependencyError(
            f"The log {self.path} cannot be used: {text}.", remedy="Check the disk and the permissions."
        )


def encoded_headers(headers: Headers) -> bytes | None:
    """Headers as one value of a row: their bytes, whatever they are, as the characters of the same numbers."""
    if headers is None:
        return None
    return orjson.dumps([(name, None if value is None else value.decode("latin-1")) for name, value in headers])


@lru_cache(maxsize=256)
def _read_headers(stored: bytes) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, None if value is None else value.encode("latin-1")) for name, value in orjson.loads(stored))


def read_headers(stored: bytes | None) -> Headers:
    """The reverse: a list, as a broker's client gives it."""
    return None if stored is None else list(_read_headers(stored))
