"""Trained XGBoost, random forest and Isolation Forest models as TreeEnsemble arrays.

NaN costs nothing when serving: a forest trained on median-filled values sends NaN at each node the way that the median
would go, which is the same as filling it in.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.tree_ensemble import TreeEnsemble

if TYPE_CHECKING:
    import xgboost
    from sklearn.ensemble import IsolationForest, RandomForestClassifier

_LEAF = -1


def xgboost_trees(
    booster: xgboost.Booster, *, n_trees: int | None = None, medians: NDArray[np.floating[Any]] | None = None
) -> TreeEnsemble:
    """The first `n_trees` trees (default all) of a `binary:logistic` booster; the score is the margin (log-odds).

    `medians` [F] where missing values were filled in its training (SMOTE); else NaN goes the way that XGBoost learned.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    if (objective := learner["objective"]["name"]) != "binary:logistic":
        raise ValueError(f"a booster with objective {objective} gives no log-odds: train with binary:logistic")
    if (kind := learner["gradient_booster"]["name"]) != "gbtree":
        raise ValueError(f"booster {kind} is not supported: train with gbtree")
    trees = [_xgboost_tree(tree, medians) for tree in learner["gradient_booster"]["model"]["trees"][:n_trees]]
    # XGBoost keeps the base as a probability, in brackets since version 3.1, and turns it to log-odds in float32.
    probability = np.float32(learner["learner_model_param"]["base_score"].strip("[]"))
    base = float(-np.log(np.float32(1) / probability - np.float32(1)))
    return _joined(trees, base=base, or_equal=False)


def random_forest_trees(forest: RandomForestClassifier, *, medians: NDArray[np.floating[Any]]) -> TreeEnsemble:
    """A two-class forest; the score is the mean probability of class 1. `medians` [F] filled NaN in its training."""
    if list(forest.classes_) != [0, 1]:
        raise ValueError(f"a forest of classes {list(forest.classes_)} does not tell fraud (1) from the rest (0)")
    trees = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        class_weights = tree.value[:, 0, :]
        share = class_weights[:, 1] / class_weights.sum(axis=1)
        trees.append(_sklearn_tree(tree, share / len(forest.estimators_), medians))
    return _joined(trees, base=0.0, or_equal=True)


def isolation_forest_trees(forest: IsolationForest, *, medians: NDArray[np.floating[Any]]) -> TreeEnsemble:
    """The score is the mean path length over its expectation, d; the anomaly score is 2 ** -d.

    Liu, Ting, Zhou, "Isolation Forest", 2008, equations 1 and 2, as scikit-learn's `score_samples` computes them.
    """
    expected = float(_average_path_length(np.array([forest.max_samples_]))[0]) * len(forest.estimators_)
    trees = []
    for estimator, columns in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = estimator.tree_
        lengths = _depths(tree) + _average_path_length(tree.n_node_samples)
        # A forest of single rows isolates nothing: scikit-learn calls everything average then.
        values = lengths / expected if expected else np.full(len(lengths), 1.0 / len(forest.estimators_))
        trees.append(_sklearn_tree(tree, values, medians, columns=np.asarray(columns)))
    return _joined(trees, base=0.0, or_equal=True)


def _xgboost_tree(tree: dict[str, Any], medians: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """One tree of the JSON model; node means as XGBoost's approximate contributions take them, weighted by hessian."""
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    levels = _levels(left, right)
    values = np.array(tree["split_conditions"], dtype=np.float64)  # at a leaf, what it adds
    weights = np.array(tree["sum_hessian"], dtype=np.float64)
    for level in reversed(levels):
        inner = level[left[level] != _LEAF]
        a, b = left[inner], right[inner]
        values[inner] = (values[a] * weights[a] + values[b] * weights[b]) / weights[inner]
    features = np.array(tree["split_indices"])
    thresholds = np.array(tree["split_conditions"], dtype=np.float32)
    defaults = np.array(tree["default_left"], dtype=bool)
    if medians is not None:
        defaults = np.asarray(medians, dtype=np.float32)[features] < thresholds
    return _numbered(np.concatenate(levels), left, features, thresholds, defaults, values, weights)


def _sklearn_tree(
    tree: Any, values: NDArray[Any], medians: NDArray[Any], *, columns: NDArray[Any] | None = None
) -> dict[str, NDArray[Any]]:
    """One scikit-learn tree.

    Inputs are float32, thresholds float64: rounding a threshold down to float32 keeps `x <= threshold` exact for every x.
    """
    leaf = tree.children_left == _LEAF
    feature = np.where(leaf, 0, tree.feature)
    if columns is not None:
        feature = columns[feature]
    nearest = tree.threshold.astype(np.float32)
    threshold = np.where(nearest > tree.threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    defaults = np.asarray(medians, dtype=np.float32)[feature] <= threshold
    order = np.concatenate(_levels(tree.children_left, tree.children_right))
    covers = tree.weighted_n_node_samples
    return _numbered(order, tree.children_left, feature, threshold, defaults, values, covers)


def _levels(left: NDArray[Any], right: NDArray[Any]) -> list[NDArray[Any]]:
    """The reachable nodes of a tree by depth, siblings side by side."""
    levels = [np.zeros(1, dtype=np.int64)]
    while len(inner := levels[-1][left[levels[-1]] != _LEAF]):
        levels.append(np.column_stack([left[inner], right[inner]]).ravel())
    return levels


def _numbered(
    order: NDArray[Any],
    left: NDArray[Any],
    feature: NDArray[Any],
    threshold: NDArray[Any],
    default_left: NDArray[Any],
    value: NDArray[Any],
    cover: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    """The columns of one tree, its nodes in this order."""
    place = np.zeros(len(left), dtype=np.int64)
    place[order] = np.arange(len(order))
    leaf = left[order] == _LEAF
    return {
        "feature": np.where(leaf, _LEAF, feature[order]),
        "threshold": np.where(leaf, 0, threshold[order]),
        "child": np.where(leaf, 0, place[left[order]]),
        "default_left": default_left[order] & ~leaf,
        "value": value[order],
        "cover": cover[order],
    }


def _joined(trees: list[dict[str, NDArray[Any]]], *, base: float, or_equal: bool) -> TreeEnsemble:
    sizes = np.array([len(tree["feature"]) for tree in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for tree, root in zip(trees, roots, strict=True):
        tree["child"] = np.where(tree["feature"] == _LEAF, 0, tree["child"] + root)
    dtypes = {"threshold": np.float32, "default_left": np.bool_, "value": np.float64, "cover": np.float32}
    columns: dict[str, Any] = {
        name: np.concatenate([tree[name] for tree in trees]).astype(dtypes.get(name, np.int32)) for name in trees[0]
    }
    return TreeEnsemble(**columns, roots=roots.astype(np.int32), base=base, or_equal=or_equal)


def _depths(tree: Any) -> NDArray[np.float64]:
    """Steps from the root to each node."""
    depths = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        if tree.children_left[node] != _LEAF:
            depths[tree.children_left[node]] = depths[tree.children_right[node]] = depths[node] + 1
    return depths


def _average_path_length(rows: NDArray[Any]) -> NDArray[np.float64]:
    """The expected path length of an isolation tree over so many rows (equation 1 of the paper)."""
    n = np.asarray(rows, dtype=np.float64)
    many = np.maximum(n, 3)  # the formula's own domain; fewer rows are set below
    expected = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, expected))
