"""What `sparkov` and `ulb` share: train before a moment, test after it, print AUC and average precision."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.imported import ImportedWorld
from benchmarks.learner import fit_and_score
from fraud_pipeline.domain.ranking import average_precision, roc_auc


def main(
    description: str | None,
    *,
    read: Callable[[Path], ImportedWorld],
    split_at: Callable[[ImportedWorld], int],
    params: Mapping[str, Any],
) -> None:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="the data file (Parquet or CSV)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    arguments = parser.parse_args()
    started = time.perf_counter()
    world = read(arguments.data)
    result = run(world, split_at(world), params=params, seed=arguments.seed)
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(f"trained on {result['train_rows']:,} payments with {result['train_frauds']:,} frauds")
    print(f"tested on  {result['test_rows']:,} payments with {result['test_frauds']:,} frauds")
    print(f"AUC {result['auc']:.4f}   average precision {result['ap']:.4f}")
    if arguments.json:
        print(json.dumps(result))


def run(world: ImportedWorld, row: int, *, params: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Rows before `row` train, the others test. Both in event order, so nothing later is learned from."""
    fraud = world.is_fraud
    raw = fit_and_score(world.features[:row], fraud[:row], world.features[row:], params=params, seed=seed)
    one = np.ones(len(raw))
    return {
        "auc": roc_auc(raw, fraud[row:], one),
        "ap": average_precision(raw, fraud[row:], one),
        "train_rows": row,
        "train_frauds": int(fraud[:row].sum()),
        "test_rows": len(fraud) - row,
        "test_frauds": int(fraud[row:].sum()),
    }
