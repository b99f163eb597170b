"""Exact contributions against XGBoost's own, against Shapley's definition over all subsets, and their sum against the score."""

from __future__ import annotations

import dataclasses
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from fraud_pipeline.adapters.bundle_export import classifier_trees
from fraud_pipeline.adapters.tree_export import isolation_forest_trees
from fraud_pipeline.domain.tree_ensemble import TreeEnsemble
from fraud_pipeline.domain.tree_shap import TreeShap, exact_contributions
from fraud_pipeline_tests.bundles import boosted, forest, medians, payments


def contributions(trees: TreeEnsemble, values: np.ndarray) -> np.ndarray:
    shap = TreeShap.of(trees)
    return np.array([exact_contributions(shap, row) for row in values])


def goes_left(trees: TreeEnsemble, node: int, row: np.ndarray) -> bool:
    value, threshold = row[trees.feature[node]], trees.threshold[node]
    if np.isnan(value):
        return bool(trees.default_left[node])
    return bool(value <= threshold if trees.or_equal else value < threshold)


def mean_where_known(trees: TreeEnsemble, node: int, row: np.ndarray, known: frozenset[int]) -> float:
    """The mean of the leaves that are reached where only these features are known; unknown ones divide by cover."""
    if trees.feature[node] < 0:
        return float(trees.value[node])
    assert trees.cover is not None
    left, right = int(trees.child[node]), int(trees.child[node]) + 1
    if int(trees.feature[node]) in known:
        return mean_where_known(trees, left if goes_left(trees, node, row) else right, row, known)
    covers = float(trees.cover[left]), float(trees.cover[right])
    share = covers[0] / sum(covers) if sum(covers) > 0 else 0.5
    return share * mean_where_known(trees, left, row, known) + (1 - share) * mean_where_known(trees, right, row, known)


def shapley(trees: TreeEnsemble, row: np.ndarray) -> np.ndarray:
    """Shapley values by their definition, over all subsets of the features, and last the bias."""
    width = len(row)
    worth = {
        frozenset(known): trees.base + sum(mean_where_known(trees, int(r), row, frozenset(known)) for r in trees.roots)
        for size in range(width + 1)
        for known in itertools.combinations(range(width), size)
    }
    out = np.zeros(width + 1)
    for feature in range(width):
        for known, mean in worth.items():
            if feature not in known:
                out[feature] += (worth[known | {feature}] - mean) / (width * math.comb(width - 1, len(known)))
    out[-1] = worth[frozenset()]
    return out


@st.composite
def ensembles(draw: st.DrawFn, *, features: int, max_depth: int) -> TreeEnsemble:
    """A few random trees that ask about the same features again and again, with covers that may be 0."""
    nodes: list[tuple[int, float, int, bool, float, float]] = []
    roots = []
    for _ in range(draw(st.integers(1, 3))):
        roots.append(len(nodes))
        level, start = 1, len(nodes)
        for depth in range(max_depth + 1):
            splits = [depth < max_depth and draw(st.integers(0, 3)) > 0 for _ in range(level)]
            below = start + level
            for split in splits:
                asked = draw(st.integers(0, features - 1)) if split else -1
                threshold = draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0])) if split else 0.0
                default_left, child = split and draw(st.booleans()), below if split else 0
                leaf, passed = draw(st.floats(-2, 2, width=32)), draw(st.sampled_from([0.0, 0.25, 1.0, 7.0, 1e6]))
                nodes.append((asked, threshold, child, default_left, leaf, passed))
                below += 2 if split else 0
            start, level = start + level, 2 * sum(splits)
            if not level:
                break
    columns = [np.array(column) for column in zip(*nodes, strict=True)]
    return TreeEnsemble(
        feature=columns[0].astype(np.int32), threshold=columns[1].astype(np.float32), child=columns[2].astype(np.int32),
        default_left=columns[3].astype(bool), value=columns[4].astype(np.float64), cover=columns[5].astype(np.float32),
        roots=np.array(roots, dtype=np.int32), base=draw(st.floats(-5, 5)), or_equal=draw(st.booleans()),
    )  # fmt: skip


def rows(features: int) -> st.SearchStrategy[np.ndarray]:
    values = st.sampled_from([-2.0, -1.0, 0.0, 0.2, 0.5, 0.7, 1.0, 3.0, math.nan])
    return st.lists(values, min_size=features, max_size=features).map(lambda row: np.array(row, dtype=np.float32))


def score(trees: TreeEnsemble, row: np.ndarray) -> float:
    return trees.base + sum(mean_where_known(trees, int(r), row, frozenset(range(len(row)))) for r in trees.roots)


@settings(deadline=None, max_examples=200)
@given(ensembles(features=4, max_depth=5), rows(4))
def test_contributions_are_the_shapley_values_over_all_subsets_of_features(
    trees: TreeEnsemble, row: np.ndarray
) -> None:
    np.testing.assert_allclose(contributions(trees, row[None])[0], shapley(trees, row), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=200)
@given(ensembles(features=12, max_depth=7), rows(12))
def test_contributions_and_bias_sum_to_the_score_of_any_trees(trees: TreeEnsemble, row: np.ndarray) -> None:
    found = contributions(trees, row[None])[0]
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(score(trees, row), abs=1e-11)
    not_asked = sorted(set(range(12)) - set(trees.feature.tolist()))
    assert found[not_asked].tolist() == [0.0] * len(not_asked)


@pytest.mark.parametrize(("trees", "depth", "base_score"), [(50, 1, 0.5), (60, 4, 0.5), (150, 6, 0.02), (30, 12, 0.5)])
def test_contributions_are_xgboosts_bias_and_missing_values_included(trees: int, depth: int, base_score: float) -> None:
    values = payments()[0][:300]
    model = boosted(trees, depth, base_score)
    matrix = xgboost.DMatrix(values)
    found = contributions(classifier_trees(model), values)
    np.testing.assert_allclose(found, model.model.predict(matrix, pred_contribs=True), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), model.model.predict(matrix, output_margin=True), rtol=0, atol=3e-5)


def test_a_row_of_nothing_but_missing_values_is_explained_as_by_xgboost() -> None:
    model = boosted()
    nothing = np.full((1, len(model.feature_names)), np.nan, dtype=np.float32)
    expected = model.model.predict(xgboost.DMatrix(nothing), pred_contribs=True)
    np.testing.assert_allclose(contributions(classifier_trees(model), nothing), expected, rtol=0, atol=1e-5)


def test_they_differ_from_the_path_attributions_where_a_path_asks_two_features() -> None:
    """The negative control: Saabas' walk would not pass the tests above."""
    model, values = boosted(), payments()[0][:50]
    approximate = model.model.predict(xgboost.DMatrix(values), pred_contribs=True, approx_contribs=True)
    assert np.abs(contributions(classifier_trees(model), values) - approximate).max() > 0.1


def test_a_forest_is_explained_from_its_weighted_samples_and_sums_to_its_score() -> None:
    values = payments()[0][:100]
    found = contributions(classifier_trees(forest()), values)
    np.testing.assert_allclose(found.sum(axis=1), forest().raw_score(values), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        found[:, -1], np.mean([t.tree_.value[0, 0, 1] for t in forest().model.estimators_]), atol=1e-7
    )


def test_a_small_forest_has_the_shapley_values_of_its_trees() -> None:
    values = np.where(np.isnan(payments()[0]), medians(), payments()[0])[:500, :5].astype(np.float32)
    model = IsolationForest(n_estimators=5, max_samples=32, random_state=3).fit(values)
    trees = isolation_forest_trees(model, medians=np.median(values, axis=0))
    for row in values[:10]:
        np.testing.assert_allclose(contributions(trees, row[None])[0], shapley(trees, row), rtol=0, atol=1e-12)


def test_covers_are_the_training_rows_that_passed_a_node() -> None:
    trees = classifier_trees(forest())
    assert trees.cover is not None
    inner = np.flatnonzero(trees.feature >= 0)
    np.testing.assert_allclose(
        trees.cover[inner], trees.cover[trees.child[inner]] + trees.cover[trees.child[inner] + 1], rtol=1e-6
    )
    sums = [estimator.tree_.weighted_n_node_samples[0] for estimator in forest().model.estimators_]
    np.testing.assert_allclose(trees.cover[trees.roots], sums, rtol=1e-6)


def test_trees_of_leaves_alone_are_all_bias() -> None:
    leaf = TreeEnsemble(
        feature=np.array([-1, -1], dtype=np.int32), threshold=np.zeros(2, dtype=np.float32),
        child=np.zeros(2, dtype=np.int32), default_left=np.zeros(2, dtype=bool), value=np.array([0.5, -0.2]),
        roots=np.array([0, 1], dtype=np.int32), base=1.0, or_equal=False, cover=np.ones(2, dtype=np.float32),
    )  # fmt: skip
    np.testing.assert_allclose(contributions(leaf, np.zeros((1, 3), dtype=np.float32)), [[0, 0, 0, 1.3]], atol=1e-15)


def test_trees_without_covers_are_refused_and_come_back_without_them() -> None:
    old = dataclasses.replace(classifier_trees(boosted()), cover=None)
    again = TreeEnsemble.from_arrays(old.arrays())
    assert again.cover is None
    with pytest.raises(ValueError, match="need the covers"):
        TreeShap.of(again)


def test_covers_that_are_none_are_refused() -> None:
    trees = classifier_trees(boosted())
    assert trees.cover is not None
    cover: Any = trees.cover
    for wrong in (cover[1:], cover.astype(np.float64), -cover, cover * np.float32(np.nan)):
        with pytest.raises(ValueError, match="cover"):
            dataclasses.replace(trees, cover=wrong)


def test_threads_get_the_same_bits() -> None:
    shap, values = TreeShap.of(classifier_trees(boosted(150, 6, 0.02))), payments()[0][:200]
    expected = [exact_contributions(shap, row).tobytes() for row in values]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: exact_contributions(shap, row).tobytes(), values)) == expected
