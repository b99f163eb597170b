"""Lands a simulated world in a home: days of the simulation in, Parquet under `source/` out.

Knows the source store and the simulation; nothing of Dagster or the command line. The clock is an argument.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TRANSACTION_SCHEMA, TRUTH_SCHEMA
from fraud_pipeline.adapters.source_store import SourceStore, SourceWriter, WorldManifest, refuse_other_world
from fraud_pipeline.domain.simulation import SimulatedDay, World, WorldConfig
from fraud_pipeline.errors import InputError

Progress = Callable[[int, int], None]
"""Called with days done and days in all."""


def world_fingerprint(config: WorldConfig) -> str:
    """Names a world by its parameters: equal ones give equal worlds."""
    text = json.dumps(config.parameters(), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def settled_config(config: WorldConfig, *, home: Path) -> WorldConfig:
    """`config` with the end of the world that already stands in `home`, where all else is equal.

    For a caller who was given no end and chose last midnight: making the same world again tomorrow changes nothing.
    """
    present = SourceStore(home)
    if not present.exists():
        return config
    world = present.manifest()
    try:
        settled = replace(config, end=world.end)
    except InputError:
        return config
    return settled if world.fingerprint == world_fingerprint(settled) else config


def land_world(
    config: WorldConfig, *, home: Path, created_at: datetime | None = None, progress: Progress | None = None
) -> WorldManifest:
    """Simulate a world and write it under `home/source`, whole or not at all.

    The world that is already there is left as it is. Raises DatasetError where `home` holds another one, Busy while
    another process lands one, DependencyError where the disk refuses.
    """
    fingerprint = world_fingerprint(config)
    present = SourceStore(home)
    if present.exists():
        refuse_other_world(present, fingerprint)
        return present.manifest()
    with SourceWriter(home) as writer:
        rows, frauds, labels = _write_days(World(config), writer, progress)
        return writer.complete(
            WorldManifest(
                kind="simulation",
                name=f"simulated world, seed {config.seed}",
                start=config.start,
                end=config.end,
                rows=rows,
                frauds=frauds,
                labels=labels,
                parameters=config.parameters(),
                fingerprint=fingerprint,
                currency=config.currency,
                created_at=created_at,
            )
        )


def _write_days(world: World, writer: SourceWriter, progress: Progress | None) -> tuple[int, int, int]:
    """Write every day while the next one is made; labels wait until no later day can add to the day they become known.

    One thread does all the writing, in order, and at most one day waits for it.
    """
    rows = frauds = labels = 0
    waiting: dict[date, list[pa.Table]] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="world-writer") as thread:
        written: Future[None] = thread.submit(lambda: None)
        for done, day in enumerate(world.days(), start=1):
            written.result()
            written = thread.submit(_write_day, writer, day, waiting)
            rows += len(day)
            frauds += len(day.truth["is_fraud"])
            labels += len(day.labels["is_fraud"])
            if progress is not None:
                progress(done, world.config.days)
        written.result()
    _write_labels(writer, waiting, upto=max(waiting, default=world.config.end))
    return rows, frauds, labels


def _write_day(writer: SourceWriter, day: SimulatedDay, waiting: dict[date, list[pa.Table]]) -> None:
    writer.write_day("transactions", day.day, arrow_table(day.transactions, TRANSACTION_SCHEMA))
    writer.write_day("truth", day.day, arrow_table(day.truth, TRUTH_SCHEMA))
    for known_on, table in _by_day_known(arrow_table(day.labels, LABEL_SCHEMA)):
        waiting.setdefault(known_on, []).append(table)
    _write_labels(writer, waiting, upto=day.day)


def _write_labels(writer: SourceWriter, waiting: dict[date, list[pa.Table]], *, upto: date) -> None:
    for known_on in sorted(day for day in waiting if day <= upto):
        table = pa.concat_tables(waiting.pop(known_on))
        writer.write_day(
            "labels", known_on, table.sort_by([("known_at", "ascending"), ("transaction_id", "ascending")])
        )


def _by_day_known(labels: pa.Table) -> list[tuple[date, pa.Table]]:
    labels = labels.sort_by("known_at")
    number = labels["known_at"].to_numpy().astype("datetime64[D]").astype(np.int64)
    days, starts, counts = np.unique(number, return_index=True, return_counts=True)
    return [
        (date(1970, 1, 1) + timedelta(days=int(n)), labels.slice(start, count))
        for n, start, count in zip(days, starts, counts, strict=True)
    ]


def arrow_table(columns: Mapping[str, NDArray[Any]], schema: pa.Schema) -> pa.Table:
    """Simulated columns as Arrow: empty strings and NaN become null, as do columns that the simulation does not know."""
    rows = len(columns["transaction_id"])
    arrays = [
        _arrow_array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _arrow_array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return _arrow_strings(values)
    if pa.types.is_timestamp(kind):
        return pa.array(values.astype(np.int64)).cast(kind)
    return pa.array(values, kind, from_pandas=True)


def _arrow_strings(values: NDArray[np.bytes_]) -> pa.Array:
    """Numpy's byte strings as Arrow's, empty ones as null. Ids fill their width, so that their bytes need no conversion."""
    rows, width = len(values), values.dtype.itemsize
    text = values.view(np.uint8).reshape(rows, width)
    present = text[:, 0] != 0
    complete = bool(present.all())
    letters = text if complete else text[present]
    if not letters.all():
        return pa.array(values, pa.binary(), mask=None if complete else ~present).cast(pa.string())
    ends = np.zeros(rows + 1, np.int32)
    np.cumsum(present, out=ends[1:])
    bitmap = None if complete else pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.StringArray.from_buffers(rows, pa.py_buffer(ends * np.int32(width)), pa.py_buffer(letters), bitmap)
