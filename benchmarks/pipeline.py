"""From nothing to a promoted champion: `python -m benchmarks.pipeline [--rows N] [--json]`.

One `fraud run` in an empty home and a fresh process, as `make demo` does it, in a world of about that many payments over
120 days: everything from importing the libraries to the reports is in the seconds. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

DAYS: Final = 120
RATE: Final = 1.7
"""Payments a customer makes a day in the default world."""


def main() -> None:
    """Run, measure, print; the JSON object comes last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    customers = max(1, round(1.06 * options.rows / (DAYS * RATE)))  # some stop paying: about so many rows in the end
    world = {"CUSTOMERS": customers, "MERCHANTS": max(10, customers // 2), "DAYS": DAYS, "RATE": RATE}
    with tempfile.TemporaryDirectory(prefix="fraud-benchmark-") as folder:
        report, seconds = _run(Path(folder) / "home", {f"FRAUD_{name}": str(value) for name, value in world.items()})
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    result = {
        "rows": report["rows"]["transactions"],
        "seconds": round(seconds, 1),
        "peak_gib": round(peak_kib / 2**20, 2),
        "promoted": report["promoted"],
        "stages": report["seconds"],
    }
    if not options.json:
        print(
            f"{result['rows']:,} payments: {seconds:.1f} s, {result['peak_gib']} GiB at the most; promoted: {report['promoted']}"
        )
        for stage, spent in report["seconds"].items():
            print(f"  {stage:<24} {spent:>7.1f} s")
    print(json.dumps(result))


def _run(home: Path, world: dict[str, str]) -> tuple[dict[str, dict[str, float]], float]:
    """One `fraud run --json` in a home of its own; what it reported and how long it took."""
    environment = {**os.environ, **world, "FRAUD_HOME": str(home)}
    started = time.perf_counter()
    command = [sys.executable, "-m", "fraud_pipeline.cli", "run", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1):
        raise SystemExit(f"`fraud run` ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]), seconds


if __name__ == "__main__":
    main()
