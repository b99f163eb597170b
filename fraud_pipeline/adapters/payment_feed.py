"""Payments in the order of their times, encoded and with the labels that they will get: a world that goes on, or a history.

Knows the simulation, the landed world and JSON; nothing of who takes the payments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from math import isnan
from typing import Any, Final, cast

import numpy as np
import orjson
import pyarrow as pa

from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.simulation import SimulatedDay, World, WorldConfig
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX, Label, LabelSource
from fraud_pipeline.errors import InputError

CHUNK: Final = 4_096
"""Payments encoded at a time: some 20 ms of work, so that a stop is not kept waiting."""
LIVE_DAYS: Final = 30
"""Days after a world's end that a live feed tells over and over; each is made when it is needed."""
KEPT_ROWS: Final = 250_000
"""Encoded payments that are kept for the next turn, some 100 MB: making a small world's days costs more than sending them."""
LONGEST_ID: Final = 64
_TEXTS: Final = (
    "transaction_id", "customer_id", "merchant_id", "currency", "merchant_category", "channel", "country", "device_id",
)  # fmt: skip
_PLACES: Final = ("latitude", "longitude")
_COLUMNS: Final = ("event_time", *_TEXTS, "amount_minor", *_PLACES)


@dataclass(frozen=True, slots=True)
class LabelToCome:
    """A label that becomes known so many microseconds after its payment."""

    transaction_id: str
    after_us: int
    is_fraud: bool
    source: str
    author: str

    def at(self, moment_us: int) -> Label:
        """The label, known at that moment (microseconds since 1970)."""
        known_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)
        return Label(self.transaction_id, self.is_fraud, cast("LabelSource", self.source), self.author, known_at)


Labels = Mapping[str, Sequence[LabelToCome]]
"""Labels to come by the transaction ids of the history."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Payments as the contract has them in JSON, by row; `timed` where the values hold their event times.

    `moments` are microseconds since 1970. `frauds` are rows; `labels` by row.
    """

    moments: list[int]
    keys: list[bytes]
    values: list[bytes]
    frauds: frozenset[int]
    labels: Mapping[int, Sequence[LabelToCome]]
    timed: bool

    def __len__(self) -> int:
        return len(self.values)


def stamped(value: bytes, moment: str) -> bytes:
    """An untimed value with its event time (RFC 3339)."""
    return b'{"event_time":"%b",%b' % (moment.encode(), value[1:])


def live_feed(config: WorldConfig, *, since: date, run: str) -> Iterator[Chunk]:
    """The world's payments after its end without times, endlessly; every id begins with `run` and is new."""
    first, told, rows = f"{run}-0.", list[Chunk](), 0
    for chunk in _days_to_come(config, since, first):
        rows += len(chunk)
        if rows <= KEPT_ROWS:
            told.append(chunk)
        yield chunk
    for turn in count(1):
        if rows <= KEPT_ROWS:
            yield from (_told_again(chunk, first, f"{run}-{turn}.") for chunk in told)
        else:
            told.clear()
            yield from _days_to_come(config, since, f"{run}-{turn}.")


def _days_to_come(config: WorldConfig, since: date, prefix: str) -> Iterator[Chunk]:
    world = World(config)
    for day in range(LIVE_DAYS):
        yield from _of_world(world.day(since + timedelta(days=day)), timed=False, prefix=prefix)


def _told_again(chunk: Chunk, before: str, prefix: str) -> Chunk:
    """The same payments under other ids."""
    old, new = (b'"transaction_id":"' + text.encode() for text in (before, prefix))
    labels = {
        row: [replace(label, transaction_id=prefix + label.transaction_id.removeprefix(before)) for label in known]
        for row, known in chunk.labels.items()
    }
    return replace(chunk, values=[value.replace(old, new, 1) for value in chunk.values], labels=labels)


def world_feed(config: WorldConfig, *, shift: timedelta = timedelta(0), prefix: str = "") -> Iterator[Chunk]:
    """A simulated history with its own times, moved by `shift`."""
    for day in World(config).days():
        yield from _of_world(day, timed=True, shift=shift, prefix=prefix)


def landed_feed(
    store: SourceStore, *, timed: bool, shift: timedelta = timedelta(0), prefix: str = ""
) -> Iterator[Chunk]:
    """The landed world of a home, day by day. All of its labels are held in memory."""
    manifest = store.manifest()
    labels = _landed_labels(store)
    names = [*_COLUMNS, *(f"{ATTRIBUTE_PREFIX}{name}" for name in manifest.attributes)]
    labelled = {identity for identity, known in labels.items() if known[-1].is_fraud}
    for day in store.days("transactions"):
        table = store.read_day("transactions", day, names)
        frauds = labelled
        if store.has_dataset("truth"):
            frauds = set(store.read_day("truth", day)["transaction_id"].to_pylist())
        for start in range(0, table.num_rows, CHUNK):
            part = table.slice(start, CHUNK)
            moments = part["event_time"].cast(pa.int64()).to_numpy()
            columns = {name: _listed(part[name]) for name in names[1:]}
            yield _chunk(columns, moments, frauds, labels, timed=timed, shift=shift, prefix=prefix)


def _landed_labels(store: SourceStore) -> dict[str, list[LabelToCome]]:
    found: dict[str, list[LabelToCome]] = {}
    names = ["transaction_id", "known_at", "event_time", "is_fraud", "source", "author"]
    for day in store.days("labels"):
        table = store.read_day("labels", day, names)
        delays = (
            table["known_at"].cast(pa.int64()).to_numpy() - table["event_time"].cast(pa.int64()).to_numpy()
        ).tolist()
        rest = (table[name].to_pylist() for name in ("transaction_id", "is_fraud", "source", "author"))
        for after_us, identity, is_fraud, source, author in zip(delays, *rest, strict=True):
            found.setdefault(identity, []).append(LabelToCome(identity, after_us, is_fraud, source, author))
    return found


def _of_world(day: SimulatedDay, *, timed: bool, shift: timedelta = timedelta(0), prefix: str = "") -> Iterator[Chunk]:
    known = day.labels
    delays = (known["known_at"] - known["event_time"]).astype("timedelta64[us]").astype(np.int64).tolist()
    rest = (known[name].astype(str).tolist() for name in ("transaction_id", "source", "author"))
    labels = {
        identity: [LabelToCome(identity, after_us, True, source, author)]
        for after_us, identity, source, author in zip(delays, *rest, strict=True)
    }
    frauds = set(day.truth["transaction_id"].astype(str).tolist())
    moments = day.transactions["event_time"].astype("datetime64[us]").astype(np.int64)
    for start in range(0, len(day), CHUNK):
        rows = slice(start, start + CHUNK)
        columns: dict[str, list[Any]] = {}
        for name in _TEXTS:
            columns[name] = [text or None for text in day.transactions[name][rows].astype(str).tolist()]
        columns["amount_minor"] = day.transactions["amount_minor"][rows].tolist()
        for name in _PLACES:
            columns[name] = [None if isnan(value) else value for value in day.transactions[name][rows].tolist()]
        yield _chunk(columns, moments[rows], frauds, labels, timed=timed, shift=shift, prefix=prefix)


def _listed(column: pa.ChunkedArray) -> list[Any]:
    listed: list[Any] = column.to_pylist()
    return listed


def _chunk(
    columns: dict[str, list[Any]], moments: np.ndarray, frauds: set[str], labels: Labels, *,
    timed: bool, shift: timedelta, prefix: str,
) -> Chunk:  # fmt: skip
    moments = moments + shift // timedelta(microseconds=1)
    ids = columns["transaction_id"]
    rows = {row: labels[identity] for row, identity in enumerate(ids) if identity in labels}
    fraudulent = frozenset(row for row, identity in enumerate(ids) if identity in frauds)
    if prefix:
        columns["transaction_id"] = [_renamed(prefix, identity) for identity in ids]
        rows = {
            row: [replace(label, transaction_id=prefix + label.transaction_id) for label in known]
            for row, known in rows.items()
        }
    columns["amount"] = [minor / 100 for minor in columns.pop("amount_minor")]
    keys = [customer.encode() for customer in columns["customer_id"]]
    if timed:
        stamps = np.datetime_as_string(moments.astype("datetime64[us]"), unit="us").tolist()
        columns = {"event_time": [stamp + "Z" for stamp in stamps], **columns}
    return Chunk(moments.tolist(), keys, _encoded(columns), fraudulent, rows, timed)


def _renamed(prefix: str, identity: str) -> str:
    if len(prefix) + len(identity) > LONGEST_ID:
        raise InputError(
            f"The id {identity} behind the prefix {prefix!r} would be longer than {LONGEST_ID} characters.",
            remedy="Choose a shorter --id-prefix.",
        )
    return prefix + identity


def _encoded(columns: dict[str, list[Any]]) -> list[bytes]:
    """Each row as a JSON object, without what is missing."""
    names = list(columns)
    attributes = [name for name in names if name.startswith(ATTRIBUTE_PREFIX)]
    dumps = orjson.dumps
    values = []
    for row in zip(*columns.values(), strict=True):
        payment = dict(zip(names, row, strict=True))
        if None in row:
            payment = {name: value for name, value in payment.items() if value is not None}
        if attributes:
            given = {name.removeprefix(ATTRIBUTE_PREFIX): payment.pop(name) for name in attributes if name in payment}
            if given:
                payment["attributes"] = given
        values.append(dumps(payment))
    return values
