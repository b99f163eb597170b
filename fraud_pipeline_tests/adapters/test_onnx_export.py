"""The served form of each model against the library that trained it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import xgboost
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from fraud_pipeline.adapters.bundle_export import classifier_trees
from fraud_pipeline.adapters.onnx_export import to_onnx
from fraud_pipeline.adapters.tree_export import isolation_forest_trees, random_forest_trees, xgboost_trees
from fraud_pipeline.domain.scoring import Scorer
from fraud_pipeline.domain.tree_ensemble import TreeEnsemble
from fraud_pipeline_tests.bundles import MODEL_INPUT, PLATT, boosted, detector, forest, medians, payments

WIDTH = len(MODEL_INPUT.names)


def scored(classifier: TreeEnsemble, detector_trees: TreeEnsemble | None = None, width: int = WIDTH) -> Scorer:
    model = to_onnx(classifier, n_features=width)
    return Scorer(model, model if detector_trees is None else to_onnx(detector_trees, n_features=width), PLATT)


@pytest.mark.parametrize("base_score", [0.5, 0.013])
def test_xgboost_margins_are_those_of_the_booster_missing_values_included(base_score: float) -> None:
    values, _ = payments()
    model = boosted(base_score=base_score)
    raw = scored(classifier_trees(model)).score(values).raw
    assert np.isnan(values).mean() > 0.05
    np.testing.assert_allclose(raw, model.raw_score(values), rtol=0, atol=1e-5)
    assert raw.std() > 1


def test_values_exactly_on_a_split_go_the_same_way() -> None:
    values = np.repeat(np.arange(8, dtype=np.float32), 40)[:, None]
    is_fraud = (values[:, 0] >= 3) & (values[:, 0] != 6)
    booster = xgboost.train(
        {"objective": "binary:logistic", "base_score": 0.5}, xgboost.DMatrix(values, is_fraud), num_boost_round=3
    )
    trees = xgboost_trees(booster)
    splits = np.unique(trees.threshold[trees.feature >= 0])
    probes = np.concatenate([splits, np.nextafter(splits, -np.inf), np.nextafter(splits, np.inf)])[:, None].astype(
        np.float32
    )
    raw = scored(trees, width=1).score(probes).raw
    np.testing.assert_array_equal(raw, booster.predict(xgboost.DMatrix(probes), output_margin=True))


def test_forest_values_exactly_on_a_split_go_the_same_way() -> None:
    rng = np.random.default_rng(0)
    values = (rng.integers(0, 50, (400, 2)) / 7).astype(np.float32)  # splits half-way are no float32
    model = RandomForestClassifier(5, random_state=0).fit(values, rng.integers(0, 2, 400))
    trees = random_forest_trees(model, medians=np.zeros(2))
    splits = np.unique(np.concatenate([e.tree_.threshold for e in model.estimators_]))
    nearest = splits.astype(np.float32)
    probes = np.unique(
        np.concatenate([nearest, np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))])
    )
    grid = np.stack(np.meshgrid(probes[::5], probes[::5]), axis=-1).reshape(-1, 2)
    raw = scored(trees, width=2).score(grid).raw
    np.testing.assert_allclose(raw, model.predict_proba(grid)[:, 1], rtol=0, atol=1e-6)


def test_a_booster_cut_at_its_best_round_is_served_cut() -> None:
    values, _ = payments()
    booster = boosted().model
    raw = scored(xgboost_trees(booster, n_trees=10)).score(values).raw
    np.testing.assert_allclose(
        raw, booster.predict(xgboost.DMatrix(values), output_margin=True, iteration_range=(0, 10)), rtol=0, atol=1e-5
    )


def test_a_forest_fills_missing_values_with_the_medians_it_was_trained_on() -> None:
    values, _ = payments()
    model = forest()
    raw = scored(classifier_trees(model)).score(values).raw
    np.testing.assert_allclose(raw, model.raw_score(values), rtol=0, atol=1e-6)


def test_a_booster_trained_on_filled_values_is_served_as_if_they_were_filled() -> None:
    values, _ = payments()
    model = dataclasses.replace(boosted(), medians=medians())
    raw = scored(classifier_trees(model)).score(values).raw
    np.testing.assert_allclose(raw, model.raw_score(values), rtol=0, atol=1e-5)
    assert np.abs(raw - boosted().raw_score(values)).max() > 0.1


@pytest.mark.parametrize("max_features", [1.0, 0.4])
def test_anomaly_scores_are_those_of_scikit_learn(max_features: float) -> None:
    values, _ = payments()
    filled = np.where(np.isnan(values), medians(), values)
    model = IsolationForest(n_estimators=30, max_features=max_features, random_state=1).fit(filled)
    trees = isolation_forest_trees(model, medians=medians())
    scores = scored(trees, trees).score(values).anomaly
    np.testing.assert_allclose(scores, -model.score_samples(filled), rtol=0, atol=1e-5)
    assert 0 < scores.min() < scores.max() < 1


def test_an_isolation_forest_of_single_rows_finds_everything_average() -> None:
    model = IsolationForest(n_estimators=3, max_samples=1, random_state=1).fit(np.ones((4, 1)))
    trees = isolation_forest_trees(model, medians=np.zeros(1))
    probe = np.array([[5.0]], dtype=np.float32)
    np.testing.assert_allclose(
        scored(trees, trees, width=1).score(probe).anomaly, -model.score_samples(probe), atol=1e-6
    )


def test_each_model_is_one_node() -> None:
    for trees in (classifier_trees(boosted()), isolation_forest_trees(detector().forest, medians=medians())):
        graph = onnx.load_from_string(to_onnx(trees, n_features=WIDTH)).graph
        assert [node.op_type for node in graph.node] == ["TreeEnsembleRegressor"]


def test_the_same_trees_give_the_same_bytes() -> None:
    assert to_onnx(classifier_trees(boosted()), n_features=WIDTH) == to_onnx(
        classifier_trees(boosted()), n_features=WIDTH
    )


def test_models_that_give_no_fraud_score_are_refused() -> None:
    values = np.ones((4, 1))
    regression = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(values, [0, 1, 0, 1]), 1)
    with pytest.raises(ValueError, match="reg:squarederror"):
        xgboost_trees(regression)
    three = RandomForestClassifier(2).fit(np.arange(6)[:, None], [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match="classes"):
        random_forest_trees(three, medians=np.zeros(1))
