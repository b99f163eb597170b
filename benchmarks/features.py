"""Batch features on one core, beside pandas, Polars and DuckDB: `python -m benchmarks.features [--rows N] [--json]`.

Ours are all features; a peer computes those that it can express, and each ratio is between the rates on the same rows, ours
for all of the features. So a ratio is what a user of the peer would gain, and a low estimate of the rest. Values are
compared before anything is claimed. Compilation, the making of the world and the peers' own input form are not timed.
All run on one core with one thread, and the seconds are the process's CPU seconds: what else runs on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable
from typing import Any, Final

# One core for all: libraries size their pools when they are loaded, so this stands before them.
for _name in (
    "POLARS_MAX_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ARROW_NUM_THREADS",
):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from benchmarks.feature_peers import Values, duckdb_features, pandas_features, polars_features  # noqa: E402
from fraud_pipeline.adapters.parity_source import History, simulated_history  # noqa: E402
from fraud_pipeline.domain.feature_batch import compute_features  # noqa: E402
from fraud_pipeline.domain.feature_columns import EventColumns  # noqa: E402
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, INDEX  # noqa: E402

PEER_ROWS: Final = 250_000
"""The peers take minutes for a million rows."""
AGREEMENT: Final = 0.999
"""Share of a feature's values that must agree: pandas' and Polars' running sums drift, and their deviations more so."""


def main() -> None:
    """Measure, compare, print; the JSON object comes last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=PEER_ROWS)
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours; the median counts")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    say: Callable[[str], None] = (lambda _: None) if options.json else (lambda text: print(text, flush=True))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    say(f"{len(FEATURE_NAMES)} features on one core; {options.rows:,} rows, peers on {options.peer_rows:,}")
    rate(simulated_history(1_000, late_share=0.0), 1)  # compiles, or loads what was compiled
    by_rows = {}
    for rows in sorted({options.rows // 4, options.rows, options.rows * 4}):
        by_rows[rows] = rate(simulated_history(rows, late_share=0.0), options.repeat)
        say(f"  {rows:>10,} rows  {by_rows[rows]:>12,.0f} rows/s")
    peers = against_peers(simulated_history(options.peer_rows, late_share=0.0), options.repeat, say)
    result: dict[str, Any] = {
        "rows": options.rows,
        "features": len(FEATURE_NAMES),
        "rows_per_s": round(by_rows[options.rows]),
        "rows_per_s_by_rows": {str(rows): round(value) for rows, value in by_rows.items()},
        "linearity": round(min(by_rows.values()) / max(by_rows.values()), 3),
        "peer_rows": options.peer_rows,
        **{f"{name}_ratio": peer["ratio"] for name, peer in peers.items()},
        "peers": peers,
    }
    print(json.dumps(result))


def rate(history: History, repeat: int) -> float:
    """Rows per CPU second of `compute_features`, all features, labels included; median of `repeat`."""
    seconds = []
    for _ in range(repeat):
        gc.collect()
        start = time.process_time()
        compute_features(history.events, history.labels)
        seconds.append(time.process_time() - start)
    return len(history.events) / float(np.median(seconds))


def against_peers(history: History, repeat: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Each peer's rate on its features, the ratio of ours to it, and how far the values agree."""
    ours = rate(history, repeat)
    matrix = compute_features(history.events, history.labels).values
    say(f"  ours on {len(history.events):,} rows: {ours:,.0f} rows/s")
    found = {}
    for name, (version, compute) in peers_of(history.events).items():
        start = time.process_time()
        values = compute()
        peer_rate = len(history.events) / (time.process_time() - start)
        disagreeing = {n: a for n, a in agreement(matrix, values).items() if a < AGREEMENT}
        found[name] = {
            "version": version,
            "features": len(values),
            "rows_per_s": round(peer_rate),
            "ratio": round(ours / peer_rate, 1),
            "disagreeing_features": disagreeing,
        }
        say(f"  {name} {version}: {peer_rate:,.0f} rows/s for {len(values)} features, ours is {ours / peer_rate:.1f} x")
        if disagreeing:
            say(f"    values that do not agree: {disagreeing}")
    return found


def peers_of(events: EventColumns) -> dict[str, tuple[str, Callable[[], Values]]]:
    """The peers with the history in their own form; missing codes become nulls."""
    import duckdb
    import pandas as pd
    import polars as pl

    columns = {
        "row": np.arange(len(events)),
        "us": events.time,
        "minor": events.amount,
        "customer": events.customer.codes,
        "merchant": events.merchant.codes,
    }
    nullable = {"country": events.country.codes, "device": events.device.codes}
    pandas_frame = pd.DataFrame(columns).assign(time=events.time.astype("datetime64[us]")).drop(columns="us")
    polars_frame = pl.DataFrame({**columns, **nullable}).with_columns(
        pl.col("us").cast(pl.Datetime("us")).alias("time"),
        *(pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in nullable),
    )
    polars_frame = polars_frame.drop("us")
    connection = duckdb.connect(config={"threads": 1})
    connection.register("given", pd.DataFrame({**columns, **nullable}))
    connection.execute(
        "CREATE TABLE payments AS SELECT * REPLACE (nullif(country, -1) AS country, nullif(device, -1) AS device) FROM given"
    )
    return {
        "pandas": (pd.__version__, lambda: pandas_features(pandas_frame)),
        "polars": (pl.__version__, lambda: polars_features(polars_frame)),
        "duckdb": (duckdb.__version__, lambda: duckdb_features(connection)),
    }


def agreement(ours: npt.NDArray[np.float32], theirs: Values) -> dict[str, float]:
    """By feature, the share of rows where both are missing or within a thousandth (or 0.001) of each other."""
    shares = {}
    for name, values in theirs.items():
        mine = ours[:, INDEX[name]]
        both_missing = np.isnan(mine) & np.isnan(values)
        near = np.isclose(mine, values, rtol=1e-3, atol=1e-3)
        shares[name] = round(float((near | both_missing).mean()), 6)
    return shares


if __name__ == "__main__":
    main()
