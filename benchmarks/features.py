"""Batch features on one core, beside pandas, Polars and DuckDB: `python -m benchmarks.features [--rows N] [--json]`.

A peer computes the features that it can express. Its `ratio` is on features that both compute: against pandas and Polars ours
are all that read the payment and its customer's own history (more than theirs), against DuckDB, which can also express the
merchants' windows, all of the features. `ratio_all` is ours for all features over the peer's for its few. Values are compared.
Compilation, the making of the world and the peers' own input form are not timed, nor is the first run of each: memory that
the process has never touched costs a virtual machine a fault in its host, up to 8 µs for 4 KiB, which is no one's arithmetic.
All run on one core with one thread, and the seconds are the process's CPU seconds: what else runs on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import ctypes
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

from benchmarks.feature_peers import agreement, peers_of  # noqa: E402
from benchmarks.own_history import own_history_features  # noqa: E402
from fraud_pipeline.adapters.parity_source import History, simulated_history  # noqa: E402
from fraud_pipeline.domain.feature_batch import compute_features  # noqa: E402
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES  # noqa: E402

PEER_ROWS: Final = 250_000
"""The peers take minutes for a million rows."""
AGREEMENT: Final = 0.999
"""Share of a feature's values that must agree: pandas' and Polars' running sums drift, and their deviations more so."""


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""The parameters of glibc's `mallopt`."""


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
    keep_freed_memory()
    say(f"{len(FEATURE_NAMES)} features on one core; {options.rows:,} rows, peers on {options.peer_rows:,}")
    small = simulated_history(1_000, late_share=0.0)
    rate(small, 1)  # compiles, or loads what was compiled
    own_rate(small, 1)
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


def keep_freed_memory() -> None:
    """Have what is freed stay with this process (glibc only), so that a run finds the memory of the run before."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def rate(history: History, repeat: int) -> float:
    """Rows per CPU second of `compute_features`, all features, labels included; median of `repeat` after a first."""
    return _rate(lambda: compute_features(history.events, history.labels), len(history.events), repeat)


def own_rate(history: History, repeat: int) -> float:
    """The same of the payment's and its customer's own features alone."""
    return _rate(lambda: own_history_features(history.events), len(history.events), repeat)


def _rate(compute: Callable[[], object], rows: int, repeat: int) -> float:
    seconds = []
    for _ in range(1 + repeat):
        gc.collect()
        start = time.process_time()
        compute()
        seconds.append(time.process_time() - start)
    return rows / float(np.median(seconds[1:]))


def against_peers(history: History, repeat: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Each peer's rate on its features, the ratios of ours to it, and how far the values agree."""
    everything, own = rate(history, repeat), own_rate(history, repeat)
    matrix = compute_features(history.events, history.labels).values
    say(f"  ours on {len(history.events):,} rows: {everything:,.0f} rows/s; own history alone {own:,.0f} rows/s")
    found = {}
    for name, (version, compute) in peers_of(history.events).items():
        values = compute()
        peer = _rate(compute, len(history.events), repeat)
        shared = {n for n in values if n.startswith(("merchant_", "amount_to_merchant"))}
        ratio = (everything if shared else own) / peer
        disagreeing = {n: a for n, a in agreement(matrix, values).items() if a < AGREEMENT}
        found[name] = {
            "version": version,
            "features": len(values),
            "rows_per_s": round(peer),
            "ratio": round(ratio, 1),
            "ratio_all": round(everything / peer, 1),
            "disagreeing_features": disagreeing,
        }
        say(f"  {name} {version}: {peer:,.0f} rows/s for {len(values)} features; ours is {ratio:.1f} x that")
        if disagreeing:
            say(f"    values that do not agree: {disagreeing}")
    return found


if __name__ == "__main__":
    main()
