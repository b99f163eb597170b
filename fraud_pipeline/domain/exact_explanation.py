"""An exact explanation of one score: tree SHAP contributions with what each input means, in people's words.

`explanation.py` gives the quick path attributions that go with each decision; this is for whoever asks about one payment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle import WALK_TOLERANCE, ModelBundle
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.model_input import CODE_SUFFIX, ModelInput
from fraud_pipeline.domain.thresholds import NEVER
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX
from fraud_pipeline.errors import BundleError, SchemaMismatch

METHOD: Final = "tree_path_dependent_shap"
SCORE_UNITS: Final = {"xgboost": "log-odds", "random_forest": "probability"}
MISSING: Final = "missing"
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TIMES: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
_FEATURES: Final = {feature.name: feature for feature in FEATURES}


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one input added to the raw score.

    `value` is None where it is missing; `text` says it to people (a code's word, a time in hours); `unit` is that of `value`.
    """

    feature: str
    value: float | None
    text: str
    contribution: float
    meaning: str
    unit: str


@dataclass(frozen=True, slots=True)
class ExactExplanation:
    """`raw_score` = `base_value` + all contributions + `rounding`.

    `base_value` is the mean score over the training payments, each weighing what it did in growing the trees (XGBoost: its
    hessian); contributions hold every input, the largest effect first.
    `rounding` is what the served model's float32 sum differs by from the float64 sum of the same trees, about 1e-6.
    `review` and `block` are the thresholds of the raw score, None where no score reaches one.
    """

    model_version: str
    score_unit: str
    base_value: float
    raw_score: float
    rounding: float
    fraud_probability: float
    review: float | None
    block: float | None
    contributions: tuple[Contribution, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"method": METHOD, **asdict(self), "contributions": [asdict(each) for each in self.contributions]}


def explain_exactly(
    bundle: ModelBundle, vector: NDArray[np.float32], *, contributions: NDArray[np.float64]
) -> ExactExplanation:
    """From an input vector [F'] and its tree SHAP contributions [F' + 1], the bias last.

    Raises SchemaMismatch for a vector of other inputs, BundleError where the contributions are not those of its score.
    """
    check_inputs(bundle, vector)
    scores = bundle.score(vector.reshape(1, -1))
    raw, added = float(scores.raw[0]), contributions.tolist()
    rounding = raw - math.fsum(added)
    if not abs(rounding) <= WALK_TOLERANCE * max(1.0, abs(raw)):
        raise BundleError(
            f"The contributions under version {bundle.version} miss its score by {rounding:.2g}.",
            remedy="Fetch the version again from the registry.",
        )
    model_input, values = bundle.facts.model_input, vector.tolist()
    order = sorted(range(len(values)), key=lambda place: (-abs(added[place]), place))
    return ExactExplanation(
        model_version=bundle.version,
        score_unit=SCORE_UNITS.get(bundle.facts.kind, bundle.facts.kind),
        base_value=added[-1],
        raw_score=raw,
        rounding=rounding,
        fraud_probability=float(scores.probability[0]),
        review=_reachable(bundle.thresholds.review),
        block=_reachable(bundle.thresholds.block),
        contributions=tuple(
            _contribution(model_input, bundle.input_names[place], values[place], added[place]) for place in order
        ),
    )


def check_inputs(bundle: ModelBundle, vector: NDArray[np.float32]) -> None:
    """Raises SchemaMismatch where this is no input vector [F'] of the bundle: compiled code reads past a short one."""
    width = len(bundle.input_names)
    if vector.shape != (width,):
        raise SchemaMismatch(
            f"The vector has {vector.size} inputs, and version {bundle.version} reads {width}.",
            remedy="Explain a decision under the bundle that made it.",
        )


def value_text(value: float, unit: str) -> str:
    """A computed feature's value with its unit, as a person says it; "missing" for NaN."""
    return MISSING if math.isnan(value) else _WORDS.get(unit, _digits)(value)


def _contribution(model_input: ModelInput, name: str, value: float, added: float) -> Contribution:
    """For people, values have the digits that a float32 holds for sure; contributions keep all, so that they add up."""
    missing = math.isnan(value)
    meaning, unit, text = f"The payment's own attribute {name.removeprefix(ATTRIBUTE_PREFIX)}", "", _digits(value)
    field = name.removesuffix(CODE_SUFFIX)
    if (feature := _FEATURES.get(name)) is not None:
        meaning, unit, text = feature.meaning, feature.unit, value_text(value, feature.unit)
        if missing and feature.missing != "never":
            meaning = f"{meaning} (missing: {feature.missing})"
    elif not name.startswith(ATTRIBUTE_PREFIX) and field in model_input.codes:
        words = model_input.codes[field]
        meaning, unit = f"The {field.replace('_', ' ')}, by the bundle's code", "code"
        text = MISSING if missing else (words[int(value)] if value in range(len(words)) else text)
        if missing:
            meaning = f"{meaning} (missing: none given, or one not seen in training)"
    return Contribution(name, None if missing else float(f"{value:.7g}"), text, added, meaning, unit)


def _digits(value: float) -> str:
    """Four digits that matter; whole numbers in full, with thousands."""
    if math.isnan(value):
        return MISSING
    if abs(value) >= 1_000 or value == round(value):
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3e}"
    return f"{value:.4g}"


def _duration(seconds: float) -> str:
    size, name = next(((size, name) for size, name in _TIMES if abs(seconds) >= size), (1.0, "s"))
    return f"{seconds / size:,.3g} {name}"


def _day(value: float) -> str:
    return _DAYS[int(value)] if value in range(len(_DAYS)) else _digits(value)


def _hour(value: float) -> str:
    return f"{int(value):02d}:00" if value in range(24) else _digits(value)


def _reachable(threshold: float) -> float | None:
    return threshold if math.isfinite(threshold) and abs(threshold) < NEVER else None


_WORDS: Final[dict[str, Callable[[float], str]]] = {
    "flag": lambda value: "yes" if value else "no",
    "day": _day,
    "hour": _hour,
    "s": _duration,
    "share": "{:.2%}".format,
    "currency": "{:,.2f}".format,
    "ratio": lambda value: f"{_digits(value)} ×",
    "km": lambda value: f"{_digits(value)} km",
    "km/h": lambda value: f"{_digits(value)} km/h",
}
"""By unit of a feature."""
