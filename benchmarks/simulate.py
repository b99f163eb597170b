"""Payments a second of the simulation, one process: a large world, the demo's, and the demo's landed as Parquet.

Bar: 200,000 a second for the simulation with all its columns, ids included.

    python -m benchmarks.simulate [--customers 20000] [--days 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.domain.simulation import WorldConfig, simulate

END: Final = date(2026, 3, 1)


def main() -> None:
    """Simulate, land, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    result = run(customers=options.customers, days=options.days)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>24}  {value:,}")


def run(*, customers: int, days: int) -> dict[str, Any]:
    """Rows and rows a second of each case."""
    large = timed(WorldConfig(end=END, customers=customers, merchants=max(10, customers * 2 // 5), days=days))
    demo = timed(WorldConfig(end=END))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        world = land_world(WorldConfig(end=END), home=Path(folder))
        landed_s = time.perf_counter() - began
    return {
        "rows": large[0],
        "rows_per_s": round(large[0] / large[1]),
        "demo_rows": demo[0],
        "demo_rows_per_s": round(demo[0] / demo[1]),
        "demo_landed_rows_per_s": round(world.rows / landed_s),
    }


def timed(config: WorldConfig) -> tuple[int, float]:
    """Payments and seconds of making every day of a world, its people included."""
    began = time.perf_counter()
    rows = sum(len(day) for day in simulate(config))
    return rows, time.perf_counter() - began


if __name__ == "__main__":
    main()
