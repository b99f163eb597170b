"""From a model's raw score to a probability of fraud.

Platt's sigmoid where frauds are few, isotonic regression where there are many. What is fitted is a handful of
numbers: it is applied with numpy alone and travels as JSON. Ranks and thresholds use the raw score, so that the ties
of isotonic steps decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_pipeline.errors import BundleError, TrainingDataError

FRAUDS_FOR_ISOTONIC = 1_000
"""Below, isotonic steps follow the noise of single frauds (Niculescu-Mizil & Caruana 2005 put the crossing near 1,000
cases).
"""

_NEWTON_STEPS = 50
_CONVERGED = 1e-10


@dataclass(frozen=True)
class Platt:
    """p = 1 / (1 + exp(-(slope * raw + intercept))), slope >= 0."""

    slope: float
    intercept: float

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Probability of fraud for each raw score, float64, rising with the score."""
        z = self.slope * np.asarray(raw, dtype=np.float64) + self.intercept
        small = np.exp(-np.abs(z))  # exp of a negative number cannot overflow
        return np.where(z >= 0, 1.0, small) / (1.0 + small)

    def raw_at(self, probability: float) -> float:
        """The raw score from which on the probability is at least `probability` (0 < p < 1); inf where no score
        reaches it.
        """
        wanted = float(np.log(probability / (1.0 - probability))) - self.intercept
        if self.slope == 0:
            return -np.inf if wanted <= 0 else np.inf
        return wanted / self.slope

    def as_dict(self) -> dict[str, object]:
        return {"kind": "platt", "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True)
class Isotonic:
    """Straight lines between knots (`raw`, `probability`), both rising; level outside them."""

    raw: tuple[float, ...]
    probability: tuple[float, ...]

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Probability of fraud for each raw score, float64, never falling with the score."""
        return np.interp(np.asarray(raw, dtype=np.float64), self.raw, self.probability)

    def raw_at(self, probability: float) -> float:
        """The lowest raw score whose probability is at least `probability`; inf where no score reaches it."""
        knots = np.asarray(self.probability)
        after = int(np.searchsorted(knots, probability, side="left"))
        if after == len(knots):
            return np.inf
        if after == 0:
            return -np.inf
        share = (probability - knots[after - 1]) / (knots[after] - knots[after - 1])
        return self.raw[after - 1] + share * (self.raw[after] - self.raw[after - 1])

    def as_dict(self) -> dict[str, object]:
        return {"kind": "isotonic", "raw": list(self.raw), "probability": list(self.probability)}


Calibrator = Platt | Isotonic


def calibrator_from_dict(stored: dict[str, object]) -> Calibrator:
    """The inverse of `as_dict`; BundleError where it is neither kind, or does not rise."""
    try:
        if stored["kind"] == "platt":
            platt = Platt(float(stored["slope"]), float(stored["intercept"]))  # type: ignore[arg-type]
            if platt.slope >= 0 and np.isfinite([platt.slope, platt.intercept]).all():
                return platt
        elif stored["kind"] == "isotonic":
            raw, probability = tuple(map(float, stored["raw"])), tuple(map(float, stored["probability"]))  # type: ignore[call-overload]
            if len(raw) == len(probability) > 0 and (np.diff(raw) > 0).all() and (np.diff(probability) >= 0).all():
                return Isotonic(raw, probability)
    except (KeyError, TypeError, ValueError) as err:
        raise BundleError(
            f"The stored calibrator cannot be read: {err!r}.", remedy="Restore the bundle from the registry."
        ) from err
    raise BundleError("The stored calibrator is not a rising function.", remedy="Restore the bundle from the registry.")


def fit_calibrator(raw: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray | None = None) -> Calibrator:
    """Platt below 1,000 frauds, isotonic from there on; fit it on scores of payments that the model did not learn
    from.
    """
    raw = np.asarray(raw, dtype=np.float64)
    y = np.asarray(is_fraud, dtype=bool)
    w = np.ones(len(raw)) if weight is None else np.asarray(weight, dtype=np.float64)
    frauds = int(y.sum())
    if frauds in (0, len(y)):
        raise TrainingDataError(
            f"Calibration needs frauds and legitimate payments; there are {frauds} frauds among {len(y)} payments.",
            remedy="Use a longer validation period, or check that its labels arrived.",
        )
    if not np.isfinite(raw).all():
        raise TrainingDataError(
            "A raw score is not finite.", remedy="Look for infinite features in the validation period."
        )
    if frauds < FRAUDS_FOR_ISOTONIC or raw.min() == raw.max():
        return _fit_platt(raw, y, w)
    return _fit_isotonic(raw, y, w)


def _fit_platt(raw: np.ndarray, y: np.ndarray, w: np.ndarray) -> Platt:
    """Newton's method on the weighted log loss with Platt's (1999) softened targets, on standardized scores."""
    positive, negative = float(w[y].sum()), float(w[~y].sum())
    target = np.where(y, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    base = float(np.log(positive / negative))
    centre, spread = float(np.average(raw, weights=w)), float(raw.std())
    if spread == 0:
        return Platt(0.0, base)
    x = (raw - centre) / spread
    a, b = 1.0, base
    for _ in range(_NEWTON_STEPS):
        p = Platt(a, b).apply(x) if a >= 0 else 1.0 - Platt(-a, -b).apply(x)
        residual = w * (p - target)
        curve = w * np.maximum(p * (1.0 - p), 1e-12)
        gradient = np.array([np.dot(residual, x), residual.sum()])
        cross = float(np.dot(curve, x))
        hessian = np.array([[np.dot(curve, x * x) + 1e-9, cross], [cross, curve.sum() + 1e-9]])
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 5.0 / float(np.abs(step).max() + 1e-300))  # a far start must not leap over the optimum
        a, b = a - float(step[0]), b - float(step[1])
        if np.abs(step).max() < _CONVERGED:
            break
    if a <= 0:  # a score that ranks the wrong way says nothing: everyone gets the base rate
        return Platt(0.0, base)
    return Platt(a / spread, b - a * centre / spread)


def _fit_isotonic(raw: np.ndarray, y: np.ndarray, w: np.ndarray) -> Isotonic:
    """scikit-learn's weighted PAVA, kept away from 0 and 1 by what so many payments can show (Laplace)."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(raw, y.astype(np.float64), sample_weight=w)
    edge = 1.0 / (float(w.sum()) + 2.0)
    probability = np.clip(fitted.y_thresholds_, edge, 1.0 - edge)
    return Isotonic(tuple(fitted.X_thresholds_.astype(float).tolist()), tuple(probability.astype(float).tolist()))
