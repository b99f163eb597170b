"""Examples of the OpenAPI document: the model, health and drift."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from serving.openapi_examples import SCHEMA, VERSION, moment


def model(now: datetime) -> dict[str, Any]:
    """A champion."""
    return {
        "model_version": VERSION,
        "fingerprint": "d14ac2669c903f08",
        "kind": "xgboost",
        "trees": 412,
        "feature_schema": SCHEMA,
        "features": ["amount", "amount_log", "amount_is_round"],
        "thresholds": {"review": 0.4, "block": 2.1, "of": "raw_score"},
        "metrics": {"served": {"metrics": {"pr_auc": {"value": 0.71, "low": 0.66, "high": 0.76}}}},
        "trained_as_of": moment(now),
        "periods": {"training": ["2026-01-01", "2026-03-31"]},
        "promoted_at": moment(now),
        "promoted_by": "jordan",
        "promotion": "promotion",
        "reason": "weekly",
        "loaded_at": moment(now),
        "age_days": 1.5,
        "previous": {"model_version": "2", "loaded_at": moment(now)},
        "refused": None,
        "challenger": None,
        "refused_challenger": None,
    }


def health(now: datetime) -> dict[str, Any]:
    """All is well."""
    return {
        "status": "ok",
        "problems": [],
        "started_at": moment(now),
        "dependencies": {
            "ledger": {"status": "ok", "latency_ms": 0.3, "address": "sqlite:////home/jordan/.fraud/ledger.db"},
            "model": {"status": "ok", "version": VERSION, "refused": None, "remedy": ""},
            "challenger": {"status": "none", "version": None, "refused": None, "remedy": ""},
            "state": {"status": "ok", "events": 244_000, "customers": 1_400, "bytes": 41_000_000},
            "journal": {"entries": 0, "last_error": ""},
        },
    }


def unavailable(now: datetime) -> dict[str, Any]:
    """Before the first training."""
    problem = "There is no champion yet."
    missing = {"status": "missing", "version": None, "refused": None, "remedy": "Train and promote one: `fraud run`."}
    well = health(now)
    return {
        **well,
        "status": "unavailable",
        "problems": [problem],
        "dependencies": {**well["dependencies"], "model": missing},
    }


def drift_status(now: datetime) -> dict[str, Any]:
    """A stable week."""
    return {
        "timestamp": moment(now),
        "status": "stable",
        "reasons": ["1 of 48 features drifted: hour"],
        "dataset_drift_detected": False,
        "dataset_drift_share": 0.021,
        "num_features_checked": 48,
        "num_features_drifted": 1,
        "reference_rows": 5_000,
        "current_rows": 5_000,
        "drifted_features": ["hour"],
        "feature_details": [
            {
                "feature": "hour",
                "drift_detected": True,
                "drift_score": 0.12,
                "stattest": "wasserstein",
                "reference_mean": 13.1,
                "current_mean": 12.2,
            }
        ],
    }


def drift_run() -> dict[str, Any]:
    """A started run."""
    run_id = "3f1c9a52-6a0e-4d8a-9c55-0b7f4f0a7e11"
    return {"run_id": run_id, "status": "QUEUED", "url": f"http://127.0.0.1:3000/runs/{run_id}"}


def drift_stats(now: datetime) -> dict[str, Any]:
    """One stable report."""
    return {
        "reports": 1,
        "by_status": {"stable": 1},
        "drift_detected": 0,
        "first_timestamp": moment(now),
        "last_timestamp": moment(now),
        "mean_drift_share": 0.021,
        "max_drift_share": 0.021,
        "most_drifted_features": [{"feature": "hour", "reports": 1}],
        "history": [{"timestamp": moment(now), "status": "stable", "dataset_drift_share": 0.021}],
        "open_episode": None,
        "episodes": [],
    }
