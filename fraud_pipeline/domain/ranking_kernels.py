"""Compiled passes over ranked payments, and the draws of the bootstrap by customer.

All of them take arrays that `ranking` has sorted; `copies` says how often each customer was drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fraud_pipeline.domain import kernel_cache as _cache  # noqa: F401  # sets the cache folder before the first njit

Array = NDArray[Any]

# P(X <= k) of a Poisson(1) variable; beyond 8 copies lies a chance of 1e-6.
_POISSON = np.cumsum(np.exp(-1.0) / np.array([1.0, 1, 2, 6, 24, 120, 720, 5040, 40320]))


@njit(cache=True, nogil=True)
def _draw(copies: Array, state: Any) -> Any:
    """Fill `copies` with Poisson(1) draws; splitmix64, so that seeds give the same draws on every platform. Returns
    the new state.
    """
    for c in range(len(copies)):
        state += np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        u = np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)
        k = 0
        while k < len(_POISSON) and u >= _POISSON[k]:
            k += 1
        copies[c] = k
    return state


@njit(cache=True, nogil=True)
def rank_metrics(
    group_end: Array, is_fraud: Array, weight: Array, customer: Array, copies: Array, budget: float
) -> Array:
    """AUC, average precision, recall and precision at the budget in one pass by falling score."""
    total = 0.0
    frauds = 0.0
    for i in range(len(weight)):
        w = weight[i] * copies[customer[i]]
        total += w
        if is_fraud[i]:
            frauds += w
    out = np.full(4, np.nan)
    if frauds <= 0.0 or frauds >= total:
        return out
    limit = budget * total
    tp, fp, caught, auc, ap = 0.0, 0.0, 0.0, 0.0, 0.0
    group_tp, group_fp = 0.0, 0.0
    for i in range(len(weight)):
        w = weight[i] * copies[customer[i]]
        if is_fraud[i]:
            group_tp += w
        else:
            group_fp += w
        if group_end[i]:
            group = group_tp + group_fp
            if group > 0.0:
                room = limit - tp - fp
                if room > 0.0:  # of a tied group that does not fit whole, its mean share
                    caught += group_tp * min(1.0, room / group)
                auc += group_fp * (tp + 0.5 * group_tp)
                tp += group_tp
                fp += group_fp
                ap += group_tp * tp / (tp + fp)
            group_tp, group_fp = 0.0, 0.0
    out[0] = auc / (frauds * (total - frauds))
    out[1] = ap / frauds
    out[2] = caught / frauds
    out[3] = caught / limit
    return out


@njit(cache=True, nogil=True)
def bootstrap_ranks(
    group_end: Array,
    is_fraud: Array,
    weight: Array,
    customer: Array,
    customers: int,
    budget: float,
    replicates: int,
    seed: Any,
) -> Array:
    """`rank_metrics` of each replicate: [replicates, 4]."""
    out = np.empty((replicates, 4))
    copies = np.empty(customers)
    state = seed
    for r in range(replicates):
        state = _draw(copies, state)
        out[r] = rank_metrics(group_end, is_fraud, weight, customer, copies, budget)
    return out


@njit(cache=True, nogil=True)
def bootstrap_columns(columns: Array, replicates: int, seed: Any) -> Array:
    """Sums of `columns` [customers, m] over each replicate's customers: [replicates, m]."""
    customers, m = columns.shape
    out = np.zeros((replicates, m))
    copies = np.empty(customers)
    state = seed
    for r in range(replicates):
        state = _draw(copies, state)
        for c in range(customers):
            if copies[c] > 0.0:
                for j in range(m):
                    out[r, j] += copies[c] * columns[c, j]
    return out


@njit(cache=True, nogil=True)
def card_precision(start: Array, customer: Array, compromised: Array, copies: Array, k: int) -> float:
    """Mean over days of compromised cards among the first k / k; a card found is not ranked again."""
    days = len(start) - 1
    if days < 1:
        return np.nan
    found = np.zeros(len(copies), dtype=np.bool_)
    hits = 0.0
    for d in range(days):
        room = float(k)
        for i in range(start[d], start[d + 1]):
            c = customer[i]
            if room <= 0.0:
                break
            if copies[c] > 0.0 and not found[c]:
                taken = min(copies[c], room)
                room -= taken
                if compromised[i]:
                    hits += taken
                    found[c] = True
    return hits / (k * days)


@njit(cache=True, nogil=True)
def bootstrap_card_precision(
    start: Array, customer: Array, compromised: Array, customers: int, k: int, replicates: int, seed: Any
) -> Array:
    """`card_precision` of each replicate: [replicates]."""
    out = np.empty(replicates)
    copies = np.empty(customers)
    state = seed
    for r in range(replicates):
        state = _draw(copies, state)
        out[r] = card_precision(start, customer, compromised, copies, k)
    return out
