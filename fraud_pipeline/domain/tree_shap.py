"""Exact (path-dependent) tree SHAP of one row: what each feature adds to its score, as Shapley values.

The value of a set of features is the mean score where only they are known: at a node that asks about another feature both
ways are taken, each by its share of the training rows (the cover). S. Lundberg et al., "From local explanations to global
understanding with explainable AI for trees", 2020; XGBoost's `pred_contribs` are the same values.

Their algorithm 2 grows and shrinks a list of path weights. Here the same sum is the integral of the multilinear extension
(G. Owen, 1972): along one path to a leaf of value v, on which feature i has z_i (the share of cover that stays on the path)
and o_i (1 where the row's value stays on it, else 0), feature i adds

    v * (o_i - z_i) * integral over t in 0..1 of the product over j != i of (t * o_j + (1 - t) * z_j)

a polynomial in t, which Gauss-Legendre integrates exactly with half as many points as the path has features. It needs one
pass down and one up each tree, and no difference of like numbers (P. Yu et al., "Linear TreeShap", 2022, do alike).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fraud_pipeline.domain import kernel_cache as _cache  # noqa: F401  # sets the cache folder before the first njit
from fraud_pipeline.domain.tree_ensemble import TreeEnsemble

_NONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class TreeShap:
    """A TreeEnsemble made ready. `bias` is the mean score over the training rows, by cover.

    Per node of the ensemble, of the step from its parent: `above` the node that ended the step before it on the path that
    asked about the same feature (-1: none), `ratio` the share of the parent's cover, `share` the product of the ratios of
    all steps about the feature so far. `points` and `weights` integrate over 0..1.
    """

    trees: TreeEnsemble
    above: NDArray[np.int32]
    ratio: NDArray[np.float64]
    share: NDArray[np.float64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: float

    @classmethod
    def of(cls, trees: TreeEnsemble) -> TreeShap:
        """Raises ValueError for trees without covers."""
        if trees.cover is None:
            raise ValueError("trees: exact contributions need the covers of their nodes, which these lack")
        parent = np.full(trees.n_nodes, _NONE, dtype=np.int32)
        ratio = np.ones(trees.n_nodes)
        inner = np.flatnonzero(trees.feature >= 0)
        left, right = trees.child[inner], trees.child[inner] + 1
        cover = trees.cover.astype(np.float64)
        # Both sides' sum rather than the node's own cover, which XGBoost rounds: the shares must sum to 1.
        both = cover[left] + cover[right]
        known = both > 0
        for child in (left, right):
            parent[child] = inner
            ratio[child] = np.where(known, cover[child] / np.where(known, both, 1.0), 0.5)
        above, share, on_path = _steps(trees.feature, parent, ratio)
        points, weights = np.polynomial.legendre.leggauss(max(1, (int(on_path.max()) + 1) // 2))
        bias = trees.base + float(_mean_scores(trees.feature, trees.child, trees.value, ratio)[trees.roots].sum())
        return cls(trees, above, ratio, share, (points + 1) / 2, weights / 2, bias)


@njit(cache=True, nogil=True)
def _steps(feature, parent, ratio):  # type: ignore[no-untyped-def]
    """`above`, `share`, and how many features the path to each node has asked about."""
    above = np.full(len(feature), _NONE, dtype=np.int32)
    share = np.ones(len(feature))
    on_path = np.zeros(len(feature), dtype=np.int32)
    for node in range(len(feature)):
        before = parent[node]
        if before == _NONE:
            continue
        asked = feature[before]
        step = before
        while parent[step] != _NONE and feature[parent[step]] != asked:
            step = parent[step]
        if parent[step] != _NONE:
            above[node] = step
            share[node] = share[step] * ratio[node]
            on_path[node] = on_path[before]
        else:
            share[node] = ratio[node]
            on_path[node] = on_path[before] + 1
    return above, share, on_path


@njit(cache=True, nogil=True)
def _mean_scores(feature, child, value, ratio):  # type: ignore[no-untyped-def]
    """Of each node, the mean of its leaves by cover; in float64, where XGBoost's own are float32."""
    means = value.copy()
    for node in range(len(feature) - 1, -1, -1):
        if feature[node] >= 0:
            left = child[node]
            means[node] = ratio[left] * means[left] + ratio[left + 1] * means[left + 1]
    return means


@njit(cache=True, nogil=True)
def _shapley_values(trees, steps, integral, row, out):  # type: ignore[no-untyped-def]
    """Add the contributions of one row to `out`, one per feature."""
    roots, feature = trees[0], trees[1]
    largest = 0
    for tree in range(len(roots)):
        end = roots[tree + 1] if tree + 1 < len(roots) else len(feature)
        largest = max(largest, end - roots[tree])
    product = np.empty((largest, len(integral[0])))
    stays = np.ones(largest, dtype=np.bool_)
    for tree in range(len(roots)):
        end = roots[tree + 1] if tree + 1 < len(roots) else len(feature)
        _down(trees, steps, integral[0], roots[tree], end, row, stays, product)
        _up(trees, steps, integral, roots[tree], end, stays, product, out)


@njit(cache=True, nogil=True)
def _down(trees, steps, points, first, end, row, stays, product):  # type: ignore[no-untyped-def]
    """Per node of a tree, `product` over the features of its path, and `stays`.

    That is whether the row's value stays on the path in every step about the feature that its parent asks about.
    """
    _, feature, threshold, child, default_left, or_equal, _ = trees
    above, ratio, share = steps
    product[0, :] = 1.0
    for node in range(first, end):
        if feature[node] < 0:
            continue
        value = row[feature[node]]
        left = value < threshold[node] or (or_equal and value == threshold[node])
        if np.isnan(value):
            left = default_left[node]
        for below in range(child[node], child[node] + 2):
            before = above[below]
            followed = before == _NONE or stays[before - first]
            z, z_before = share[below], 1.0 if before == _NONE else share[before]
            stays[below - first] = followed and left == (below == child[node])
            for q in range(len(points)):
                t = points[q]
                if followed:
                    factor = (1.0 - t) * z + (t if stays[below - first] else 0.0)
                    factor /= t + (1.0 - t) * z_before
                else:
                    factor = ratio[below]
                product[below - first, q] = product[node - first, q] * factor


@njit(cache=True, nogil=True)
def _up(trees, steps, integral, first, end, stays, product, out):  # type: ignore[no-untyped-def]
    """Sum leaves times their product upwards, in `product`, and what each step adds to its feature, in `out`."""
    _, feature, _, child, _, _, leaf_value = trees
    above, _, share = steps
    points, weights = integral
    for node in range(end - 1, first - 1, -1):
        here = node - first
        is_leaf = feature[node] < 0
        for q in range(len(points)):  # by element: numba makes temporary arrays of whole rows
            product[here, q] = product[here, q] * leaf_value[node] if is_leaf else 0.0
        if is_leaf:
            continue
        for below in range(child[node], child[node] + 2):
            before = above[below]
            for q in range(len(points)):
                product[here, q] += product[below - first, q]
            if before != _NONE and not stays[before - first]:
                continue  # off the path already: this step takes nothing more away
            z, z_before = share[below], 1.0 if before == _NONE else share[before]
            added = 0.0
            for q in range(len(points)):
                t = points[q]
                # (o - z) over the factor with this step, less the same without it
                with_it = (1.0 - z) / (t + (1.0 - t) * z) if stays[below - first] else -1.0 / (1.0 - t)
                without = (1.0 - z_before) / (t + (1.0 - t) * z_before)
                added += weights[q] * product[below - first, q] * (with_it - without)
            out[feature[node]] += added


def exact_contributions(shap: TreeShap, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each of the F features of one row [F] adds to its score, and last the bias: [F + 1], their sum is the score."""
    trees, out = shap.trees, np.zeros(len(row) + 1)
    _shapley_values(
        (trees.roots, trees.feature, trees.threshold, trees.child, trees.default_left, trees.or_equal, trees.value),
        (shap.above, shap.ratio, shap.share),
        (shap.points, shap.weights),
        np.ascontiguousarray(row, dtype=np.float32),
        out,
    )
    out[-1] = shap.bias
    return out
