"""Memory of the live state: `python -m benchmarks.state_memory [--customers N] [--events 60] [--json]`.

Customers with so many payments each over 30 days, at merchants and on devices of their own, taken in by portions as a replay
does. Bytes per customer and per kept event, of the state's arrays, of the whole process and of a checkpoint; the figures for
a million customers are these times what is missing to a million.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from typing import Any, Final

import numpy as np

from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, Ids, LabelColumns
from fraud_pipeline.domain.feature_state import FeatureState

DAYS: Final = 30
PORTION: Final = 500_000
MERCHANTS_PER_CUSTOMER: Final = 0.1
START_US: Final = 1_767_225_600_000_000  # 2026-01-01
DAY_US: Final = 86_400_000_000


def main() -> None:
    """Fill a state, print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=60, help="payments of each customer")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    before = _resident()
    started = time.perf_counter()
    state = filled(options.customers, options.events)
    seconds = time.perf_counter() - started
    gc.collect()
    kept, counts = options.customers * options.events, state.counts()
    used = int(state.arrays.allocator[0]) * 8 + state.arrays.customers.nbytes + state.arrays.entities.nbytes
    result: dict[str, Any] = {
        "customers": counts.customers,
        "events_kept": kept,
        "array_bytes": counts.bytes,
        "array_bytes_per_customer": round(counts.bytes / options.customers),
        "array_bytes_per_event": round(counts.bytes / kept, 1),
        "used_bytes_per_event": round(used / kept, 1),
        "resident_bytes_per_customer": round((_resident() - before) / options.customers),
        "checkpoint_bytes_per_event": round(len(state.snapshot()) / kept, 1),
        "gib_per_million_customers": round(counts.bytes / options.customers * 1e6 / 2**30, 2),
        "events_per_s": round(kept / seconds),
    }
    if not options.json:
        for name, value in result.items():
            print(f"{name:>32}  {value:,}")
    print(json.dumps(result))


def filled(customers: int, events: int) -> FeatureState:
    """A state after `events` payments of each of `customers` within DAYS."""
    rng = np.random.default_rng(1)
    merchants = max(10, int(customers * MERCHANTS_PER_CUSTOMER))
    names = tuple(f"C{number:08d}" for number in range(customers))
    shops = tuple(f"M{number:07d}" for number in range(merchants))
    devices = tuple(f"D{number:08d}" for number in range(customers))
    state = FeatureState.empty()
    total = customers * events
    for first in range(0, total, PORTION):
        count = min(PORTION, total - first)
        who = rng.integers(0, customers, count).astype(np.int32)
        where = (who.astype(np.int64) * 7 + rng.integers(0, 8, count)) % merchants
        time_us = START_US + (first + np.arange(count)) * (DAYS * DAY_US) // total
        columns = EventColumns(
            time=time_us, amount=rng.integers(100, 20_000, count), latitude=np.full(count, 50.0),
            longitude=np.full(count, 8.0), utc_offset_s=np.zeros(count, np.int32), customer=Ids(who, names),
            merchant=Ids(where.astype(np.int32), shops), category=Ids((where % 12).astype(np.int32), shops[:12]),
            country=Ids(np.zeros(count, np.int32), ("US",)), channel=Ids((who % 4).astype(np.int32), ("pos", "online", "atm", "transfer")),
            device=Ids(who, devices),
        )  # fmt: skip
        compute_features(columns, LabelColumns.empty(), state=state)
    return state


def _resident() -> int:
    """The most that the process ever had in memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
