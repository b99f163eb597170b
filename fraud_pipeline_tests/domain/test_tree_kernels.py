"""Compiled path attributions against XGBoost's own and against the definition, walked slowly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xgboost

from fraud_pipeline.adapters.bundle_export import classifier_trees
from fraud_pipeline.domain.tree_ensemble import TreeEnsemble
from fraud_pipeline.domain.tree_kernels import Walk, path_contributions
from fraud_pipeline_tests.bundles import boosted, forest, medians, payments


def contributions(trees: TreeEnsemble, values: np.ndarray) -> np.ndarray:
    walk = Walk.of(trees)
    return np.array([path_contributions(walk, row) for row in values])


@pytest.mark.parametrize(("trees", "depth", "base_score"), [(60, 4, 0.5), (150, 6, 0.02)])
def test_contributions_are_xgboosts_approximate_ones_bias_and_missing_values_included(
    trees: int, depth: int, base_score: float
) -> None:
    values = payments()[0][:400]
    model = boosted(trees, depth, base_score)
    expected = model.model.predict(xgboost.DMatrix(values), pred_contribs=True, approx_contribs=True)
    found = contributions(classifier_trees(model), values)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_row_of_nothing_but_missing_values_follows_the_default_directions() -> None:
    model = boosted()
    nothing = np.full((1, len(model.feature_names)), np.nan, dtype=np.float32)
    expected = model.model.predict(xgboost.DMatrix(nothing), pred_contribs=True, approx_contribs=True)
    np.testing.assert_allclose(contributions(classifier_trees(model), nothing), expected, rtol=0, atol=1e-4)


def slow_forest_contributions(row: np.ndarray) -> np.ndarray:
    """Saabas over scikit-learn's trees: the change of the node's fraud share, by the feature asked."""
    model, out = forest().model, np.zeros(len(row) + 1)
    filled = np.where(np.isnan(row), medians(), row).astype(np.float32)
    for estimator in model.estimators_:
        tree = estimator.tree_
        share = tree.value[:, 0, 1] / tree.value[:, 0, :].sum(axis=1) / len(model.estimators_)
        node = 0
        out[-1] += share[0]
        while tree.children_left[node] != -1:
            asked = tree.feature[node]
            side = tree.children_left if filled[asked] <= tree.threshold[node] else tree.children_right
            out[asked] += share[side[node]] - share[node]
            node = side[node]
    return out


def test_forest_contributions_are_the_steps_of_the_node_means_and_sum_to_the_score() -> None:
    values = payments()[0][:100]
    found = contributions(classifier_trees(forest()), values)
    np.testing.assert_allclose(found, [slow_forest_contributions(row) for row in values], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), forest().raw_score(values), rtol=0, atol=1e-5)


def test_arrays_come_back_as_they_were() -> None:
    trees = classifier_trees(boosted())
    again = TreeEnsemble.from_arrays(trees.arrays())
    for name, array in trees.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    assert (again.n_trees, again.or_equal) == (60, False)


def test_trees_that_would_walk_in_circles_or_outside_are_refused() -> None:
    trees = classifier_trees(boosted())
    inner = int(np.flatnonzero(trees.feature >= 0)[1])
    for child in (inner, trees.n_nodes - 1, -5):
        wrong = trees.child.copy()
        wrong[inner] = child
        with pytest.raises(ValueError, match="child"):
            dataclasses.replace(trees, child=wrong)
    with pytest.raises(ValueError, match="roots"):
        dataclasses.replace(trees, roots=trees.roots[1:])
    with pytest.raises(ValueError, match="threshold"):
        dataclasses.replace(trees, threshold=trees.threshold.astype(np.float64))
