"""What calibrated probabilities promise, against what labels drawn from them say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_pipeline.domain.calibration import Platt
from fraud_pipeline.domain.performance_estimate import estimate_performance, expected_average_precision
from fraud_pipeline.domain.thresholds import thresholds_at

LIMITS = thresholds_at(Platt(1.0, 0.0), review=0.12, block=0.7)


def scored(rows: int, seed: int, *, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw scores, the probabilities that they stand for, and customers."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(-6 + shift, 2, rows)
    return raw, 1 / (1 + np.exp(-raw)), rng.integers(0, 300, rows)


def outcome(raw: np.ndarray, probability: np.ndarray, seed: int) -> dict[str, float]:
    fraud = np.random.default_rng(seed).random(len(raw)) < probability
    alert = raw >= LIMITS.review
    return {
        "precision": fraud[alert].mean(), "recall": fraud[alert].sum() / fraud.sum(),
        "frauds_among_alerts": (fraud & alert).mean(), "frauds": fraud.mean(), "alert_share": alert.mean(),
        "pr_auc": average_precision_score(fraud, raw),
    }  # fmt: skip


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_with_right_probabilities_the_estimate_is_what_labels_say(shift: float):
    raw, probability, customer = scored(60_000, 1, shift=shift)
    found = estimate_performance(raw, probability, customer, thresholds=LIMITS)
    truth = [outcome(raw, probability, seed) for seed in range(30)]
    for name, tolerance in (
        ("precision", 0.01), ("recall", 0.01), ("frauds", 0.0005), ("frauds_among_alerts", 0.0005), ("pr_auc", 0.01),
    ):  # fmt: skip
        assert found[name].value == pytest.approx(np.mean([each[name] for each in truth]), abs=tolerance), name
    assert found.alerts == int((raw >= LIMITS.review).sum())
    assert found["alert_share"].value == pytest.approx(found.alerts / found.rows)


def test_the_interval_holds_what_labels_say_in_nineteen_of_twenty_worlds():
    raw, probability, customer = scored(20_000, 2)
    found = estimate_performance(raw, probability, customer, thresholds=LIMITS)
    for name in ("precision", "recall", "frauds"):
        inside = []
        for seed in range(200):
            again, p, _ = scored(20_000, 100 + seed)
            inside.append(found[name].low <= outcome(again, p, seed)[name] <= found[name].high)
        assert 0.88 <= np.mean(inside) <= 1.0, name


def test_more_fraud_than_the_scores_know_of_is_not_noticed():
    """The known limit of the method: a fraud of a new kind has low scores, and the promise stays as it was."""
    raw, probability, customer = scored(20_000, 3)
    calm = estimate_performance(raw, probability, customer, thresholds=LIMITS)
    fraud = np.random.default_rng(0).random(len(raw)) < probability + 0.02
    alert = raw >= LIMITS.review
    assert fraud[alert].sum() / fraud.sum() < calm["recall"].low


def test_without_alerts_ratios_are_not_defined_and_nothing_raises():
    raw, probability, customer = scored(500, 4)
    found = estimate_performance(
        raw, probability, customer, thresholds=thresholds_at(Platt(1.0, -90.0), review=0.5, block=0.7)
    )
    assert math.isnan(found["precision"].value)
    assert (found.alerts, found["recall"].value) == (0, 0.0)
    assert json.dumps(found.as_dict())


def test_average_precision_of_certainty_is_that_of_the_labels():
    rng = np.random.default_rng(5)
    certain = (rng.random(400) < 0.1).astype(float)
    raw = rng.normal(size=400) + 2 * certain
    assert expected_average_precision(raw, certain) == pytest.approx(average_precision_score(certain, raw))
    assert math.isnan(expected_average_precision(raw, np.zeros(400)))
