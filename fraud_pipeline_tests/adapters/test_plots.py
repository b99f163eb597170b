import struct
import subprocess
import sys
from datetime import date

import numpy as np
import pytest

from fraud_pipeline.adapters.plots import (
    evaluation_plots,
    feature_importance,
    score_distributions,
    value_against_threshold,
)
from fraud_pipeline.domain.evaluation import EvaluationSettings, evaluate
from fraud_pipeline.domain.thresholds import NEVER, Costs, Thresholds, choose_thresholds, value_curve
from fraud_pipeline_tests.domain.learning_worlds import payments

COSTS = Costs()


@pytest.fixture(scope="module")
def judged():
    data = payments(start=date(2026, 1, 1), days=20, per_day=300, fraud_rate=0.02)
    raw = np.random.default_rng(0).normal(-4, 1.2, len(data)) + 4.0 * data.is_fraud
    p = 1 / (1 + np.exp(-raw))
    thresholds = choose_thresholds(raw, p, is_fraud=data.is_fraud, amount=data.amount, costs=COSTS, budget=0.02)
    settings = EvaluationSettings(budget=0.02, replicates=20, slice_replicates=10)
    return evaluate(data, raw, p, thresholds=thresholds, costs=COSTS, settings=settings), thresholds


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_every_plot_is_a_png_of_a_readable_size(judged):
    evaluation, thresholds = judged
    importance = {f"a_rather_long_feature_name_{i}": 1 / (i + 1) for i in range(62)}
    drawn = evaluation_plots(evaluation, thresholds=thresholds, importance=importance, budget=0.02)
    assert list(drawn) == [
        "precision_recall", "gain", "score_distributions", "calibration", "value", "decisions", "importance",
    ]  # fmt: skip
    for name, png in drawn.items():
        width, height = size(png)
        assert 700 <= width <= 800, name
        assert 200 <= height <= 700, name
        assert 5_000 < len(png) < 100_000, name


def test_the_same_numbers_draw_the_same_picture(judged):
    evaluation, thresholds = judged
    first, again = (score_distributions(evaluation.curves, thresholds=thresholds) for _ in range(2))
    assert first == again


def test_odd_numbers_are_drawn_too():
    data = payments(start=date(2026, 1, 1), days=5, per_day=50, fraud_rate=0.1)
    raw = np.zeros(len(data))
    never = Thresholds(review=NEVER, block=NEVER, review_probability=1, block_probability=1)
    settings = EvaluationSettings(replicates=5, slice_replicates=5)
    constant = evaluate(data, raw, raw + 0.1, thresholds=never, costs=COSTS, settings=settings)
    for png in evaluation_plots(constant, thresholds=never, importance={"amount": 1.0}, budget=0.005).values():
        size(png)
    size(feature_importance({}))
    curve = value_curve(raw, is_fraud=data.is_fraud, amount=data.amount, costs=COSTS)
    size(value_against_threshold(curve, budget=0.005))


def test_importing_it_loads_no_matplotlib():
    code = "import fraud_pipeline.adapters.plots, sys; sys.exit(any(m.startswith('matplotlib') for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)
