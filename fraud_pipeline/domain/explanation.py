"""Why a payment got its score: each input's value and what it added to the raw score, strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.reasons import Rising, rising_contributions

MAX_REASONS: Final = 8
"""As many as an analyst reads; `explain` gives all."""
_SHOWN: Final = "%.7g"
"""All digits that a float32 holds for sure."""


class Reason(NamedTuple):
    """One input: its value, None where it is missing, and what it added to the raw score.

    In the raw score's unit: log-odds for XGBoost, probability for a random forest.
    """

    feature: str
    value: float | None
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """`raw` = `bias` + the sum of all contributions (to rounding); `reasons` holds every input, the largest effect first."""

    raw: float
    bias: float
    reasons: tuple[Reason, ...]
    risk_factors: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "raw": self.raw,
            "bias": self.bias,
            "reasons": [reason._asdict() for reason in self.reasons],
            "risk_factors": list(self.risk_factors),
        }


def strongest_reasons(
    names: Sequence[str], values: NDArray[np.float32], rising: Rising, *, limit: int = MAX_REASONS
) -> tuple[Reason, ...]:
    """What raised the score of an input vector [F'] most, at most `limit`."""
    strongest = zip(rising.places[:limit], rising.contributions, strict=False)
    return tuple(_reason(names[place], float(values[place]), contribution) for place, contribution in strongest)


def explain(bundle: ModelBundle, vector: NDArray[np.float32]) -> Explanation:
    """Everything that made the raw score of one input vector [F']."""
    scores = bundle.score(vector.reshape(1, -1))
    contributions = bundle.contributions(vector)
    added, values = contributions.tolist(), vector.tolist()
    order = sorted(range(len(values)), key=lambda place: -abs(added[place]))
    return Explanation(
        raw=float(scores.raw[0]),
        bias=added[-1],
        reasons=tuple(_reason(bundle.input_names[place], values[place], added[place]) for place in order),
        risk_factors=bundle.risk_table.risk_factors(
            vector, rising_contributions(contributions), anomaly_score=float(scores.anomaly[0])
        ),
    )


def _reason(name: str, value: float, contribution: float) -> Reason:
    """For people: 137.99, where the float32 says 137.99000549316406."""
    shown = None if value != value else float(_SHOWN % value)  # noqa: PLR0124  # NaN is missing
    return Reason(name, shown, float(_SHOWN % contribution))
