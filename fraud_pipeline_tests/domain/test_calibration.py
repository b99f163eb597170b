import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from fraud_pipeline.domain.calibration import Isotonic, Platt, calibrator_from_dict, fit_calibrator
from fraud_pipeline.errors import BundleError, TrainingDataError


def scored(n, seed=0, slope=0.7, intercept=-4.0):
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 2, n)
    return raw, rng.random(n) < 1 / (1 + np.exp(-(slope * raw + intercept)))


def test_platt_finds_the_sigmoid_that_made_the_frauds():
    raw, fraud = scored(20_000)
    fitted = fit_calibrator(raw, fraud)
    assert isinstance(fitted, Platt)
    reference = LogisticRegression(C=1e9).fit(raw[:, None], fraud)
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], rel=0.02)
    assert fitted.intercept == pytest.approx(reference.intercept_[0], rel=0.01)


def test_platt_promises_as_many_frauds_as_there_are():
    raw, fraud = scored(20_000, seed=3)
    weight = np.random.default_rng(1).uniform(0.5, 3, len(raw))
    promised = (fit_calibrator(raw * 50 + 900, fraud, weight).apply(raw * 50 + 900) * weight).sum()
    assert promised == pytest.approx((weight * fraud).sum(), rel=0.01)


def test_many_frauds_are_calibrated_by_isotonic_regression_as_scikit_learn_does_it():
    raw, fraud = scored(40_000, intercept=-2.0)
    weight = np.random.default_rng(1).uniform(0.5, 3, len(raw))
    fitted = fit_calibrator(raw, fraud, weight)
    assert isinstance(fitted, Isotonic)
    reference = IsotonicRegression(out_of_bounds="clip").fit(raw, fraud, sample_weight=weight).predict(raw)
    assert np.abs(fitted.apply(raw) - reference).max() < 1e-4
    assert 0 < fitted.apply(np.array([-1e9]))[0] < 1e-3
    assert fitted.apply(np.array([1e9]))[0] < 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 50), st.sampled_from([3_000, 20_000]))
def test_a_higher_score_never_has_a_lower_probability(seed, n):
    raw, fraud = scored(n, seed=seed, intercept=-2.0)
    probability = fit_calibrator(np.round(raw, 1), fraud).apply(np.linspace(-20, 20, 500))
    assert (np.diff(probability) >= 0).all()
    assert ((probability > 0) & (probability < 1)).all()


def test_a_score_that_ranks_the_wrong_way_gives_everyone_the_base_rate():
    raw, fraud = scored(10_000)
    probability = fit_calibrator(-raw, fraud).apply(raw)
    assert np.ptp(probability) == 0
    assert probability[0] == pytest.approx(fraud.mean(), rel=1e-6)


def test_a_constant_score_gives_the_base_rate():
    _, fraud = scored(30_000, intercept=-2.0)
    fitted = fit_calibrator(np.full(len(fraud), 3.0), fraud)
    assert fitted.apply(np.array([3.0, 9.0])) == pytest.approx([fraud.mean()] * 2)


def test_scores_that_separate_perfectly_stay_finite():
    raw = np.r_[np.zeros(500), np.ones(20)]
    probability = fit_calibrator(raw, raw == 1).apply(raw)
    assert np.isfinite(probability).all()
    assert probability[-1] > 0.9
    assert probability[0] < 0.1


@pytest.mark.parametrize("n", [5_000, 60_000])
def test_the_score_of_a_probability_is_found_again(n):
    raw, fraud = scored(n, intercept=-2.0)
    fitted = fit_calibrator(raw, fraud)
    for wanted in (0.05, 0.3, 0.5):
        threshold = fitted.raw_at(wanted)
        assert fitted.apply(np.array([threshold + 1e-6]))[0] >= wanted
        assert fitted.apply(np.array([threshold - 1e-6]))[0] <= wanted + 1e-6


def test_a_probability_that_no_score_reaches_is_at_infinity():
    assert Isotonic((0.0, 1.0), (0.1, 0.6)).raw_at(0.7) == np.inf
    assert Isotonic((0.0, 1.0), (0.1, 0.6)).raw_at(0.05) == -np.inf
    assert Platt(0.0, -4.0).raw_at(0.5) == np.inf


@pytest.mark.parametrize("n", [3_000, 60_000])
def test_it_travels_as_json(n):
    raw, fraud = scored(n, intercept=-2.0)
    fitted = fit_calibrator(raw, fraud)
    again = calibrator_from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert np.array_equal(again.apply(raw), fitted.apply(raw))


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"kind": "spline"},
        {"kind": "platt", "slope": 1.0},
        {"kind": "platt", "slope": -1.0, "intercept": 0.0},
        {"kind": "platt", "slope": "nan", "intercept": 0.0},
        {"kind": "isotonic", "raw": [0, 1], "probability": [0.5]},
        {"kind": "isotonic", "raw": [0, 1], "probability": [0.5, 0.1]},
        {"kind": "isotonic", "raw": [], "probability": []},
    ],
)
def test_what_is_no_calibrator_is_refused(stored):
    with pytest.raises(BundleError):
        calibrator_from_dict(stored)


def test_one_class_cannot_be_calibrated():
    with pytest.raises(TrainingDataError, match="0 frauds among 10"):
        fit_calibrator(np.arange(10.0), np.zeros(10, dtype=bool))
    with pytest.raises(TrainingDataError, match="not finite"):
        fit_calibrator(np.array([0.0, np.nan]), np.array([True, False]))
