"""How hard the simulated world is: what simple and full models reach on it, by kind of fraud.

Trained on the first 70 % of the days (after a warm-up of 15), with the labels known by the end of the world; tested on the
last 20 % against the truth. Recall is at alerts on 0.5 % of the payments.

    python -m benchmarks.world_difficulty [--seeds 42 7] [--fraud-rate 0.006] [--json]
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost as xgb
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TRANSACTION_SCHEMA
from fraud_pipeline.adapters.world_source import arrow_table
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.simulation import KIND_NAMES, SimulatedDay, WorldConfig, simulate

END: Final = date(2026, 4, 1)
WARM_UP_DAYS: Final = 15
BUDGET: Final = 0.005
SIMPLE: Final = (
    "amount_zscore_30d", "customer_count_1h", "customer_count_24h", "customer_amount_sum_24h", "first_time_at_merchant",
    "device_changed", "country_changed", "distance_from_last_km", "is_night",
)  # fmt: skip
"""The history features that a first attempt would have."""

Array = np.ndarray[Any, Any]


def main() -> None:
    """Simulate, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 7])
    parser.add_argument("--fraud-rate", type=float, default=WorldConfig(end=END).fraud_rate)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    results = {seed: measure(WorldConfig(end=END, seed=seed, fraud_rate=options.fraud_rate)) for seed in options.seeds}
    if options.json:
        print(json.dumps(results))
        return
    for seed, models in results.items():
        print(f"seed {seed}")
        for name, numbers in models.items():
            print(f"  {name:30}", "  ".join(f"{key} {value:.3g}" for key, value in numbers.items()))


def measure(config: WorldConfig) -> dict[str, dict[str, float]]:
    """AUC, AP, recall and precision at the budget, and recall by kind, of each model."""
    days = list(simulate(config))
    table = pa.concat_tables([arrow_table(d.transactions, TRANSACTION_SCHEMA) for d in days]).combine_chunks()
    labels = known_labels(days, config)
    features = compute_features(EventColumns.from_table(table), LabelColumns.from_table(labels)).values
    frame = table.to_pandas()
    kind = pd.Series(np.concatenate([d.truth["kind"].astype(str) for d in days]), truth_ids(days))
    kinds = frame["transaction_id"].map(kind).fillna("").to_numpy(dtype=str)
    labelled = frame["transaction_id"].isin(set(labels["transaction_id"].to_pylist())).to_numpy()
    day = np.repeat(np.arange(len(days)), [len(d) for d in days])
    train, test = (day >= WARM_UP_DAYS) & (day < 0.7 * len(days)), day >= 0.8 * len(days)
    raw = raw_columns(frame)
    history = filled(features, train)
    simple = np.hstack([raw, history[:, [FEATURE_NAMES.index(name) for name in SIMPLE]]])
    codes = np.stack(
        [frame[c].astype("category").cat.codes for c in ("merchant_category", "channel", "country")], axis=1
    )
    full = np.hstack([features, codes.astype(np.float32)])
    scores = {
        "logistic, raw columns": logistic(raw, labelled, train)[test],
        "logistic, simple features": logistic(simple, labelled, train)[test],
        "logistic, all features": logistic(np.hstack([raw, history]), labelled, train)[test],
        "XGBoost, all features": boosted(full, labelled, train)[test],
    }
    return {name: judged(score, kinds[test]) for name, score in scores.items()}


def known_labels(days: list[SimulatedDay], config: WorldConfig) -> pa.Table:
    """The labels known by the end of the world, in the order in which they became known."""
    table = pa.concat_tables([arrow_table(d.labels, LABEL_SCHEMA) for d in days])
    known = table["known_at"].to_numpy() < np.datetime64(config.end, "us")
    return table.filter(pa.array(known)).sort_by("known_at")


def truth_ids(days: list[SimulatedDay]) -> Array:
    """Ids of all frauds."""
    return np.concatenate([d.truth["transaction_id"].astype(str) for d in days])


def raw_columns(frame: pd.DataFrame) -> Array:
    """What one payment says of itself: amount, time, category, channel, country, and what is missing."""
    amount = frame["amount_minor"] / 100
    numbers = pd.DataFrame(
        {
            "amount": amount,
            "log_amount": np.log1p(amount),
            "no_device": frame["device_id"].isna(),
            "no_place": frame["latitude"].isna(),
        }
    )
    named = {
        "hour": frame["event_time"].dt.hour // 3,
        "weekday": frame["event_time"].dt.dayofweek,
        "category": frame["merchant_category"],
        "channel": frame["channel"],
        "country": frame["country"].fillna("none"),
    }
    dummies = [pd.get_dummies(column, prefix=name) for name, column in named.items()]
    return pd.concat([numbers, *dummies], axis=1).to_numpy(np.float64)


def filled(features: Array, train: Array) -> Array:
    """Features for a linear model: missing ones by the median, the outermost thousandths drawn in."""
    values = np.where(np.isnan(features), np.nanmedian(features[train], axis=0), features).astype(np.float64)
    low, high = np.quantile(values[train], (0.001, 0.999), axis=0)
    return np.clip(values, low, high)


def logistic(values: Array, labelled: Array, train: Array) -> Array:
    """Scores of a logistic regression."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(values[train], labelled[train])
    return model.decision_function(values)


def boosted(values: Array, labelled: Array, train: Array) -> Array:
    """Scores of XGBoost: 200 trees of depth 6, learning rate 0.1."""
    model = xgb.XGBClassifier(n_estimators=200, max_depth=6, learning_rate=0.1, base_score=0.5, max_bin=512, n_jobs=2)
    return model.fit(values[train], labelled[train]).predict_proba(values)[:, 1]


def judged(score: Array, kinds: Array) -> dict[str, float]:
    """The numbers of one model on the test days."""
    is_fraud = kinds != ""
    alerts = np.zeros(len(score), np.bool_)
    alerts[np.argsort(-score, kind="stable")[: int(BUDGET * len(score))]] = True
    found = {kind: float(alerts[kinds == kind].mean()) for kind in KIND_NAMES if (kinds == kind).any()}
    numbers = {
        "auc": roc_auc_score(is_fraud, score),
        "ap": average_precision_score(is_fraud, score),
        "recall": alerts[is_fraud].mean(),
        "precision": is_fraud[alerts].mean(),
        **found,
    }
    return {name: round(float(value), 3) for name, value in numbers.items()}


if __name__ == "__main__":
    main()
