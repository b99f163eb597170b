"""Small trained models and bundles for tests: made once per process, on payments whose frauds follow a known rule."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import xgboost
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from fraud_pipeline.adapters.bundle_export import build_bundle
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_facts import Lineage
from fraud_pipeline.domain.calibration import Isotonic, Platt
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, FEATURES, INDEX
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.training import Recipe, TrainedClassifier, TrainedDetector

MADE_AT = datetime(2026, 3, 1, tzinfo=UTC)
MODEL_INPUT = ModelInput.of(
    attributes=("ip_risk",), codes={"channel": ("pos", "online", "atm"), "country": ("DE", "FR", "US")}
)
PLATT = Platt(1.1, -0.4)
ISOTONIC = Isotonic((-6.0, -1.5, 0.25, 3.0), (0.001, 0.01, 0.4, 0.93))


@cache
def payments(rows: int = 4_000, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Model inputs float32 [rows, F'] and frauds bool [rows].

    Large first payments at a merchant at night are fraud, and large ones from new devices; one in twelve values is missing.
    """
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 1.0, size=(rows, len(MODEL_INPUT.names))).astype(np.float32)
    values[:, INDEX["amount"]] = np.round(rng.lognormal(3.5, 1.2, rows), 2)
    values[:, INDEX["amount_log"]] = np.log1p(values[:, INDEX["amount"]])
    values[:, INDEX["hour"]] = rng.integers(0, 24, rows)
    values[:, INDEX["is_night"]] = values[:, INDEX["hour"]] < 6
    for flag in ("first_time_at_merchant", "device_changed", "unusual_country", "amount_is_round"):
        values[:, INDEX[flag]] = rng.random(rows) < 0.2
    values[:, len(FEATURES)] = rng.random(rows)
    values[:, len(FEATURES) + 1 :] = rng.integers(0, 3, (rows, 2))
    large = values[:, INDEX["amount"]] > 60
    is_fraud = large & (values[:, INDEX["first_time_at_merchant"]] == 1) & (values[:, INDEX["is_night"]] == 1)
    is_fraud |= large & (values[:, INDEX["device_changed"]] == 1) & (values[:, len(FEATURES)] > 0.7)
    is_fraud ^= rng.random(rows) < 0.005
    keep = [INDEX["amount"], INDEX["hour"], INDEX["is_night"], INDEX["first_time_at_merchant"]]
    missing = rng.random(values.shape) < 1 / 12
    missing[:, keep] = False
    values[missing] = np.nan
    return values, is_fraud


def medians() -> np.ndarray:
    return np.nanmedian(payments()[0], axis=0)


@cache
def boosted(trees: int = 60, depth: int = 4, base_score: float = 0.5) -> TrainedClassifier:
    values, is_fraud = payments()
    params = {
        "objective": "binary:logistic",
        "max_depth": depth,
        "eta": 0.2,
        "base_score": base_score,
        "nthread": 1,
        "seed": 3,
    }
    booster = xgboost.train(params, xgboost.DMatrix(values, is_fraud), trees)
    return TrainedClassifier(Recipe("xgboost"), booster, trees, MODEL_INPUT.names, None)


@cache
def forest(trees: int = 20) -> TrainedClassifier:
    values, is_fraud = payments()
    filled = np.where(np.isnan(values), medians(), values)
    model = RandomForestClassifier(trees, min_samples_leaf=3, random_state=5, class_weight="balanced")
    return TrainedClassifier(
        Recipe("random_forest"), model.fit(filled, is_fraud.astype(int)), trees, MODEL_INPUT.names, medians()
    )


@cache
def detector(trees: int = 40) -> TrainedDetector:
    values, _ = payments()
    filled = np.where(np.isnan(values), medians(), values)
    return TrainedDetector(
        IsolationForest(n_estimators=trees, random_state=5).fit(filled), MODEL_INPUT.names, medians()
    )


def lineage(**changes: object) -> Lineage:
    facts = {
        "data_fingerprint": "d" * 16,
        "code_version": "0.1.0+abc",
        "as_of": datetime(2026, 2, 25, tzinfo=UTC),
        "seed": 11,
        "rows": 4_000,
        "frauds": 120,
        "periods": {"training": ("2025-11-01", "2026-02-18"), "reference": ("2026-02-12", "2026-02-18")},
        "params": {"kind": "xgboost", "params": {"eta": 0.2, "rounds": 60}},
    }
    return Lineage(**{**facts, **changes})  # type: ignore[arg-type]


METRICS = {
    "evaluation": {
        "rows": 1_000,
        "frauds": 31,
        "metrics": {
            "pr_auc": {"value": 0.71, "low": 0.6, "high": 0.8},
            "recall_at_budget": {"value": 0.5, "low": float("nan"), "high": float("nan")},
        },
        "slices": {"channel": {"pos": {"rows": 700, "frauds": 9, "metrics": {"pr_auc": {"value": 0.66}}}}},
    },
    "served": {"metrics": {"pr_auc": {"value": 0.73, "low": 0.62, "high": 0.81}}},
}


def write_bundle(root: Path, kind: str = "xgboost", *, calibrator: Platt | Isotonic = PLATT, **changes: object) -> Path:
    """A bundle under `root`; `changes` replace arguments of `build_bundle`."""
    values, is_fraud = payments()
    arguments: dict[str, object] = {
        "model_input": MODEL_INPUT,
        "calibrator": calibrator,
        "thresholds": thresholds_at(calibrator, review=0.2, block=0.6),
        "reference_values": values[:500],
        "reference_is_fraud": is_fraud[:500],
        "lineage": lineage(),
        "metrics": METRICS,
        "created_at": MADE_AT,
        "root": root,
        **changes,
    }
    classifier = boosted() if kind == "xgboost" else forest()
    return build_bundle(classifier, detector(), **arguments)  # type: ignore[arg-type]


@cache
def loaded_bundle(kind: str = "xgboost") -> ModelBundle:
    """A loaded bundle whose directory is left alone by tests."""
    return ModelBundle.load(write_bundle(Path(tempfile.mkdtemp(prefix="bundle-")), kind), version="7")


def computed(**named: float) -> np.ndarray:
    """Computed features float32 [len(FEATURES)], NaN but for those named."""
    vector = np.full(len(FEATURE_NAMES), np.nan, dtype=np.float32)
    for name, value in named.items():
        vector[INDEX[name]] = value
    return vector
