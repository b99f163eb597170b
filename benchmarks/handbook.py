"""The handbook's protocol on our features: `python -m benchmarks.handbook --data FILE [--train-days 7|28] [--json]`.

Protocol of *Reproducible Machine Learning for Credit Card Fraud Detection* (Le Borgne, Siblini, Lebichot, Bontempi; ULB / Worldline):
train on one week, skip 7 days, test on one week, four folds. Of each test week, customers with a known fraud are left out: one in the
training week, and for test day d one on day d-8 or before. More training days reach further back; test weeks and the customers left out
stay the same, so that the numbers can be compared. Card precision@k takes 2 % of the customers, at most the handbook's 100.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.imported import ImportedWorld, read_world
from benchmarks.learner import HANDBOOK, MORE_DATA, fit_and_score
from fraud_pipeline.domain.ranking import CardDays, average_precision, roc_auc

TRAINING_WEEKS = (date(2018, 8, 15), date(2018, 8, 8), date(2018, 8, 1), date(2018, 7, 25))
DELAY_DAYS = TEST_DAYS = WEEK = 7
CARDS_SHARE, MOST_CARDS = 0.02, 100


def main() -> None:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="the handbook's table, all customers or some (Parquet or CSV)"
    )
    parser.add_argument("--train-days", type=int, default=WEEK, help="7 (the protocol) or more [7]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    arguments = parser.parse_args()
    started = time.perf_counter()
    result = run(read_world(arguments.data, "handbook"), train_days=arguments.train_days, seed=arguments.seed)
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(f"{'training from':14}{'payments':>10}{'frauds':>8}{'tested':>9}{'frauds':>8}{'AUC':>9}{'AP':>8}{'CP':>8}")
    for fold in result["folds"]:
        print(
            f"{fold['start']:14}{fold['train_rows']:>10,}{fold['train_frauds']:>8}{fold['test_rows']:>9,}"
            f"{fold['test_frauds']:>8}{fold['auc']:>9.4f}{fold['ap']:>8.4f}{fold['cp']:>8.4f}"
        )
    print(f"{'mean':49}{result['auc']:>9.4f}{result['ap']:>8.4f}{result['cp']:>8.4f}  (CP@{result['k']})")
    if arguments.json:
        print(json.dumps(result))


def run(world: ImportedWorld, *, train_days: int = WEEK, seed: int = 0) -> dict[str, Any]:
    """AUC, average precision and card precision of each fold and on average."""
    cards = min(MOST_CARDS, max(1, round(CARDS_SHARE * len(np.unique(world.customer)))))
    folds = [_fold(world, start, train_days=train_days, cards=cards, seed=seed) for start in TRAINING_WEEKS]
    means = {name: float(np.mean([fold[name] for fold in folds])) for name in ("auc", "ap", "cp")}
    return {**means, "k": cards, "train_days": train_days, "folds": folds}


def split(world: ImportedWorld, start: date, *, train_days: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(training, test) rows of the fold whose training week begins on `start`."""
    day = world.day
    week = (start - date(1970, 1, 1)).days
    end = week + WEEK
    train = (day >= end - train_days) & (day < end)
    test = np.zeros(len(day), dtype=bool)
    known = np.isin(world.customer, world.customer[world.is_fraud & (day >= week) & (day < end)])
    for test_day in range(end + DELAY_DAYS, end + DELAY_DAYS + TEST_DAYS):
        learned = world.is_fraud & (day == test_day - DELAY_DAYS - 1)
        known |= np.isin(world.customer, world.customer[learned])
        test |= (day == test_day) & ~known
    return train, test


def _fold(world: ImportedWorld, start: date, *, train_days: int, cards: int, seed: int) -> dict[str, Any]:
    train, test = split(world, start, train_days=train_days)
    fraud = world.is_fraud
    raw = fit_and_score(
        world.features[train],
        fraud[train],
        world.features[test],
        params=HANDBOOK if train_days <= WEEK else {**HANDBOOK, **MORE_DATA},
        seed=seed,
    )
    one = np.ones(len(raw))
    return {
        "start": str(start - timedelta(days=train_days - WEEK)),
        "train_rows": int(train.sum()),
        "train_frauds": int(fraud[train].sum()),
        "test_rows": int(test.sum()),
        "test_frauds": int(fraud[test].sum()),
        "auc": roc_auc(raw, fraud[test], one),
        "ap": average_precision(raw, fraud[test], one),
        "cp": CardDays.of(raw, fraud[test], world.customer[test], world.day[test]).precision(cards),
    }


if __name__ == "__main__":
    main()
