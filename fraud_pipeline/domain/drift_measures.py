"""How far apart two samples of one number are: PSI, Kolmogorov-Smirnov, Wasserstein, Jensen-Shannon, missing rates.

Pure numpy. NaN is a missing value: it counts in the missing rates and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, exp, sqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
StatTest = Literal["wasserstein", "jensenshannon"]

MOST_DISTINCT: Final = 20
"""With no more values than this in the reference a number is a code or a count: compared value by value, not by size."""
BINS: Final = 10
"""Quantile bins of the reference, the usual number for PSI (Siddiqi 2006, Credit Risk Scorecards)."""
NEARLY_CONSTANT: Final = 0.9
"""A flag that is the same in nine of ten payments may well become the same in all: nobody travels, say."""
EMPTY_BIN: Final = 0.5
"""Payments that an empty bin is given, so that one stray value does not make PSI infinite."""
LARGEST: Final = 1e6
"""Stands for infinitely far apart (any move away from a constant), which JSON cannot say."""


@dataclass(frozen=True, slots=True)
class Measures:
    """One number in two samples. Distances are 0 where a sample has no value; means are NaN there.

    `stattest` is the distance that suits it: "wasserstein" for sizes, "jensenshannon" for codes, counts and flags of at
    most 20 values; `score` is that distance. `ks_p` is small where chance alone does not explain the difference.

    What a broken source does: `outside` is the share of present values where the reference's range makes none possible,
    `unseen` the share of codes that the reference never had, `constant_p` how probable it is that all present values are
    one and the same by chance (1 where they are not, or where the reference is nearly constant too).
    """

    stattest: StatTest
    psi: float
    ks: float
    ks_p: float
    wasserstein: float
    jensen_shannon: float
    reference_mean: float
    current_mean: float
    reference_missing: float
    current_missing: float
    missing_p: float
    outside: float = 0.0
    unseen: float = 0.0
    constant_p: float = 1.0

    @property
    def score(self) -> float:
        return self.wasserstein if self.stattest == "wasserstein" else self.jensen_shannon

    @property
    def missing_rise(self) -> float:
        return self.current_missing - self.reference_missing


def measure(
    reference: NDArray[np.floating], current: NDArray[np.floating], *, rows_per_entity: float = 1.0
) -> Measures:
    """Compare two samples (1-dimensional, NaN where missing, neither empty).

    `rows_per_entity` is how many rows repeat each other (a customer's payments share its habits): the p-values take that
    many for one.
    """
    before, now = _present(reference), _present(current)
    gone = (len(reference) - len(before), len(current) - len(now))
    missing = (gone[0] / len(reference), gone[1] / len(current))
    p = proportions_differ((gone[0], len(reference)), (gone[1], len(current)), cluster=rows_per_entity)
    if not len(before) or not len(now):
        means = (before.mean() if len(before) else np.nan, now.mean() if len(now) else np.nan)
        return Measures("wasserstein", 0.0, 0.0, 1.0, 0.0, 0.0, float(means[0]), float(means[1]), *missing, p)
    discrete = _has_few_values(before)
    shares = _shares_by_value(before, now) if discrete else _shares_by_quantile(before, now)
    ks = _ks_statistic(before, now)
    return Measures(
        stattest="jensenshannon" if discrete else "wasserstein",
        psi=_psi(*shares, len(before), len(now)),
        ks=ks,
        ks_p=_ks_p(ks, len(before) / rows_per_entity, len(now) / rows_per_entity),
        wasserstein=_normed_wasserstein(before, now),
        jensen_shannon=_jensen_shannon(*shares),
        reference_mean=float(before.mean()),
        current_mean=float(now.mean()),
        reference_missing=missing[0],
        current_missing=missing[1],
        missing_p=p,
        outside=_outside(before, now),
        unseen=float(np.mean(~np.isin(now, before))) if discrete else 0.0,
        constant_p=_constant_p(before, now, rows_per_entity=rows_per_entity),
    )


def proportions_differ(one: tuple[int, int], other: tuple[int, int], *, cluster: float = 1.0) -> float:
    """Two-sided p-value of the z-test for two proportions, each (count, of); 1 where nothing can be said.

    `cluster` is how many counts come together: the variance is that many times the one of independent ones.
    """
    (k, n), (j, m) = one, other
    if not n or not m:
        return 1.0
    pooled = (k + j) / (n + m)
    variance = pooled * (1 - pooled) * (1 / n + 1 / m) * cluster
    if variance <= 0:
        return 1.0
    return erfc(abs(k / n - j / m) / sqrt(2 * variance))


def _present(sample: NDArray[np.floating]) -> Floats:
    values = np.asarray(sample, dtype=np.float64)
    return np.sort(values[np.isfinite(values)])


def _outside(before: Floats, now: Floats) -> float:
    """Share of `now` that lies further outside the range of `before` than that range is wide, or below zero where it never was."""
    span = before[-1] - before[0]
    if span <= 0:
        return 0.0
    floor = 0.0 if before[0] >= 0 else before[0] - span
    return float(np.mean((now < floor) | (now > before[-1] + span)))


def _constant_p(before: Floats, now: Floats, *, rows_per_entity: float) -> float:
    if now[0] != now[-1]:
        return 1.0
    share = float(np.mean(before == now[0]))
    return 1.0 if share >= NEARLY_CONSTANT else share ** (len(now) / rows_per_entity)


def _has_few_values(ordered: Floats) -> bool:
    return bool(1 + np.count_nonzero(np.diff(ordered)) <= MOST_DISTINCT)


def _shares_by_value(before: Floats, now: Floats) -> tuple[Floats, Floats]:
    values = np.unique(np.concatenate([before, now]))
    if len(values) > 4 * MOST_DISTINCT:  # codes have turned into sizes: neighbours are counted together
        values = np.unique(np.quantile(values, np.linspace(0, 1, 4 * MOST_DISTINCT)))
    return _shares(before, values), _shares(now, values)


def _shares(ordered: Floats, values: Floats) -> Floats:
    """Shares of the sample in (values[i-1], values[i]]; the values hold the largest of both samples."""
    upto = np.searchsorted(ordered, values, side="right")
    return np.diff(upto, prepend=0) / len(ordered)


def _shares_by_quantile(before: Floats, now: Floats) -> tuple[Floats, Floats]:
    inner = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1]))
    edges = np.append(inner, max(before[-1], now[-1], inner[-1]))
    return _shares(before, np.unique(edges)), _shares(now, np.unique(edges))


def _psi(before: Floats, now: Floats, n: int, m: int) -> float:
    """Population stability index: sum of (q - p) ln(q / p)."""
    p, q = np.maximum(before, EMPTY_BIN / n), np.maximum(now, EMPTY_BIN / m)
    return float(np.sum((q - p) * np.log(q / p)))


def _jensen_shannon(p: Floats, q: Floats) -> float:
    """Distance (the root of the divergence) with natural logarithms, 0 to 0.83: as SciPy and Evidently measure it."""
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log(p / middle), 0.0).sum()
        right = np.where(q > 0, q * np.log(q / middle), 0.0).sum()
    return sqrt(max(0.0, (left + right) / 2))


def _steps(before: Floats, now: Floats) -> tuple[Floats, Floats]:
    """All values in order, and the difference of the two distribution functions at each."""
    values = np.concatenate([before, now])
    values.sort()
    return values, np.searchsorted(before, values, side="right") / len(before) - np.searchsorted(
        now, values, side="right"
    ) / len(now)


def _ks_statistic(before: Floats, now: Floats) -> float:
    return float(np.abs(_steps(before, now)[1]).max())


def _ks_p(statistic: float, n: float, m: float) -> float:
    """Asymptotic p-value (Stephens 1970; Numerical Recipes 14.3); on the safe side for numbers with ties."""
    root = sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * statistic
    if x < 0.2:  # the series converges too slowly where it is 1 to 13 digits anyway
        return 1.0
    terms = [(-1) ** (k - 1) * exp(-2 * (k * x) ** 2) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * sum(terms)))


def _normed_wasserstein(before: Floats, now: Floats) -> float:
    """The area between the distribution functions in standard deviations of the reference, as Evidently norms it."""
    values, difference = _steps(before, now)
    area = float(np.sum(np.abs(difference[:-1]) * np.diff(values)))
    deviation = float(before.std())
    if deviation <= 1e-12 * max(1.0, abs(float(before.mean()))):
        return 0.0 if area == 0 else LARGEST
    return min(area / deviation, LARGEST)
