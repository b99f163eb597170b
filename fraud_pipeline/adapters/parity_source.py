"""Histories for the parity proof: a simulated world of a wanted size, or what a home holds.

Knows the simulation and the stores; the comparison itself is `domain/parity.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from fraud_pipeline.adapters.dataset_store import LABEL_SCHEMA, TRANSACTION_SCHEMA, DatasetStore, SourceStore
from fraud_pipeline.adapters.world_source import arrow_table
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.parity import Mutation, ParityReport, Progress, run_parity
from fraud_pipeline.domain.simulation import World, WorldConfig
from fraud_pipeline.errors import InputError, NotFound

DEFAULT_ROWS: Final = 1_000_000
_WORLD_END: Final = date(2026, 1, 1)
"""Any fixed day: the same rows are compared whenever the proof is run."""
_WORLD_DAYS: Final = 100
"""Longer than every window and than the 90 days after which an entity is forgotten."""
_RATE: Final = 1.7
LATE_SHARE: Final = 0.01
"""Payments that arrive after younger ones: history is tidy, a served log is not."""
_LATEST_S: Final = 3_600.0

_EVENT_COLUMNS: Final = (
    "event_time", "customer_id", "merchant_id", "amount_minor", "merchant_category", "channel", "country", "device_id",
    "latitude", "longitude",
)  # fmt: skip
_LABEL_COLUMNS: Final = (
    "known_at", "event_time", "change", "merchant_id", "merchant_category", "country", "channel",
)  # fmt: skip


@dataclass(frozen=True)
class History:
    """Payments in log order and the labels that became known until the last of them."""

    events: EventColumns
    labels: LabelColumns
    name: str


def check_parity(
    *,
    rows: int | None = None,
    data: Path | None = None,
    mutate: Mutation | None = None,
    time_zone: str = "UTC",
    progress: Progress | None = None,
) -> tuple[str, ParityReport]:
    """What `fraud parity` runs: the name of the history that was used, and the report with its seconds.

    `rows` limits stored data (by default all of it) and sizes a simulated world (by default a million payments).
    """
    if rows is not None and rows < 1:
        raise InputError(f"rows is {rows}; it must be at least 1.")
    if data is None:
        history = simulated_history(DEFAULT_ROWS if rows is None else rows, time_zone=time_zone)
    else:
        history = stored_history(data, rows=rows, time_zone=time_zone)
    report = run_parity(history.events, history.labels, mutate=mutate, progress=progress, clock=time.perf_counter)
    return history.name, report


def simulated_history(rows: int, *, time_zone: str = "UTC", seed: int = 42, late_share: float = LATE_SHARE) -> History:
    """`rows` payments of a simulated world of about 100 days, `late_share` of them up to an hour late in the log."""
    customers = max(25, round(rows / (_RATE * _WORLD_DAYS)))
    config = WorldConfig(
        end=_WORLD_END, days=_WORLD_DAYS, customers=customers, merchants=max(20, customers // 3), rate=_RATE, seed=seed
    )
    world, day, made = World(config), config.start, 0
    payments, labels = [], []
    while made < rows:
        simulated = world.day(day)
        payments.append(arrow_table(simulated.transactions, TRANSACTION_SCHEMA).select(_EVENT_COLUMNS))
        labels.append(arrow_table(simulated.labels, LABEL_SCHEMA).select(_LABEL_COLUMNS))
        made, day = made + len(simulated), day + timedelta(days=1)
    events = EventColumns.from_table(pa.concat_tables(payments).slice(0, rows), time_zone=time_zone)
    events = events.take(_served_order(events, late_share, seed))
    name = f"simulated world of {customers:,} customers, seed {seed}, {late_share:.0%} of payments late"
    return History(events, _known(LabelColumns.from_table(pa.concat_tables(labels)), events), name)


def _served_order(events: EventColumns, late_share: float, seed: int) -> np.ndarray:
    """Row numbers by time of arrival: some payments arrive up to an hour after they were made."""
    rng = np.random.default_rng(seed)
    delay_us = rng.random(len(events)) * _LATEST_S * 1e6 * (rng.random(len(events)) < late_share)
    return np.argsort(events.time + delay_us.astype(np.int64), kind="stable")


def stored_history(folder: Path, *, rows: int | None = None, time_zone: str = "UTC") -> History:
    """The first `rows` payments (all by default) that a home holds: its materialized days, else its landed world.

    `folder` is the home, or the `data` or `source` folder in it. Raises NotFound where there is neither.
    """
    home = folder.parent if folder.name in {"data", "source"} else folder
    store, source = DatasetStore(home), SourceStore(home)
    read: Callable[[str, date, Sequence[str]], pa.Table]
    days, label_days, read = store.days("transactions"), store.days("labels"), store.read_day
    name = f"the materialized days of {home}"
    if not days and source.exists():
        days, label_days, read = source.days("transactions"), source.days("labels"), source.read_day
        name = f"the landed world of {home}"
    if not days:
        raise NotFound(
            f"{folder} holds neither materialized days nor a landed world.",
            remedy="Give the home (FRAUD_HOME) of a `fraud simulate`, `fraud import` or `fraud run`.",
        )
    payments = _days_until(rows, days, lambda day: read("transactions", day, _EVENT_COLUMNS))
    events = EventColumns.from_table(payments, time_zone=time_zone)
    tables = [read("labels", day, _LABEL_COLUMNS) for day in label_days]
    labels = LabelColumns.from_table(pa.concat_tables(tables)) if tables else LabelColumns.empty()
    return History(events, _known(labels, events), name)


def _days_until(rows: int | None, days: list[date], read: Callable[[date], pa.Table]) -> pa.Table:
    tables: list[pa.Table] = []
    held = 0
    for day in days:
        tables.append(read(day))
        held += tables[-1].num_rows
        if rows is not None and held >= rows:
            break
    table = pa.concat_tables(tables)
    return table if rows is None else table.slice(0, rows)


def _known(labels: LabelColumns, events: EventColumns) -> LabelColumns:
    """Only labels known by the newest payment: later ones stand behind the end of the log."""
    newest = events.time.max() if len(events) else np.iinfo(np.int64).min
    return labels.take(labels.known_at <= newest)
