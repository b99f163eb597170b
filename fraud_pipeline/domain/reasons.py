"""Risk factors: from the inputs that raised a score to short codes that an analyst and a caller can act on.

A code is given only where the input's contribution raised the score *and* its value fits the code's words: that a payment
came from the usual device may raise a score a little, and is no `new_device`. `docs/reasons.md` is written from this table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle_facts import Usual
from fraud_pipeline.domain.feature_spec import FEATURES, PRIOR_RATE
from fraud_pipeline.domain.model_input import CODE_SUFFIX
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX

UNEXPLAINED: Final = "unusual_combination"
"""Given where no single value tells: a REVIEW or a BLOCK never comes without a risk factor."""
ANOMALOUS: Final = "anomalous_pattern"
ANOMALOUS_FROM: Final = 0.6
"""Of the anomaly score: about 0.5 is usual, and the paper calls values close to 1 anomalies."""
ATTRIBUTE_CODE: Final = "attribute_"
SHARE_NOTED: Final = 0.02
"""A contribution below this share of all that raised the score explains nothing."""
MAX_RISK_FACTORS: Final = 6

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0
AIRLINER_KMH: Final = 900.0
TWICE_PRIOR: Final = 2 * PRIOR_RATE
"""A share of fraud from here on is more than what is assumed where nothing is known."""


class Fit(Enum):
    """How a value must lie for a code's words to be true."""

    AT_LEAST = "at least {}"
    AT_MOST = "at most {}"
    HIGH = "above the 90 % quantile of the reference sample"
    LOW = "below the 10 % quantile of the reference sample"
    MISSING = "missing"
    KNOWN = "not missing"
    ANY = "any value"


@dataclass(frozen=True, slots=True)
class Rule:
    """Input `name` gives `code` where its value fits; `bound` belongs to AT_LEAST and AT_MOST."""

    name: str
    code: str
    fit: Fit
    bound: float = math.nan

    def words(self) -> str:
        """The condition for people."""
        return self.fit.value.format(f"{self.bound:,.4g}" if self.bound < 1e6 else f"{self.bound:,.0f}")


CODES: Final[dict[str, str]] = {
    "high_amount": "The amount is high: for everyone, or for this customer",
    "low_amount": "The amount is very small, as in tests of a stolen card",
    "round_amount": "The amount is in whole units of the currency",
    "unusual_amount_for_merchant": "The amount is far above what is usual at the merchant",
    "velocity_burst": "Many payments in a short time, or hardly any time between two",
    "high_activity": "More payments in a week or a month than is usual",
    "spending_burst": "Much money in an hour or a day",
    "high_spending": "Much money in a week or a month",
    "spending_shift": "The customer's recent payments are larger than the older ones",
    "new_customer": "First seen a short time ago, or never before",
    "dormant_customer": "The customer's first payment after a long time",
    "new_merchant": "The customer has not paid at this merchant before",
    "repeated_merchant": "Paid at the same merchant minutes ago",
    "many_merchants": "Payments at many merchants within a day",
    "multiple_countries": "Payments from several countries within a day",
    "multiple_devices": "Payments from several devices within a day",
    "new_device": "Not the customer's last known device",
    "country_changed": "Not the country of the customer's last payment",
    "unusual_country": "Not the country where the customer usually pays",
    "far_from_home": "Far from the customer's last known place",
    "impossible_travel": "Farther from the last payment than an airliner flies in the time between",
    "risky_merchant": "Frauds are known at this merchant",
    "merchant_burst": "More payments at the merchant than is usual",
    "quiet_merchant": "Hardly any payment at the merchant before",
    "expensive_merchant": "Payments at the merchant are large",
    "risky_category": "The merchant's category carries more fraud than others",
    "risky_country": "The country carries more fraud than others",
    "risky_channel": "The channel carries more fraud than others",
    "shared_device": "Several customers pay from this device",
    "device_burst": "Many payments from this device within a day",
    "unusual_hour": "At night, when few people pay",
    "weekend": "On a weekend",
    f"{ATTRIBUTE_CODE}NAME": "The payment's own attribute NAME raised the score",
    ANOMALOUS: f"Unlike other payments: the anomaly score is at least {ANOMALOUS_FROM}",
    UNEXPLAINED: "No single value tells: it is the combination",
}


def _velocity_rules() -> list[Rule]:
    rules = []
    for window in ("1h", "24h", "7d", "30d"):
        short = window in ("1h", "24h")
        rules.append(Rule(f"customer_count_{window}", "velocity_burst" if short else "high_activity", Fit.HIGH))
        rules += [
            Rule(f"customer_amount_{what}_{window}", "spending_burst" if short else "high_spending", Fit.HIGH)
            for what in ("sum", "mean", "max")
        ]
    return [*rules, Rule("customer_count_30d", "new_customer", Fit.AT_MOST, 0.0)]


RULES: Final[tuple[Rule, ...]] = (
    Rule("amount", "high_amount", Fit.HIGH),
    Rule("amount", "low_amount", Fit.LOW),
    Rule("amount_log", "high_amount", Fit.HIGH),
    Rule("amount_log", "low_amount", Fit.LOW),
    Rule("amount_is_round", "round_amount", Fit.AT_LEAST, 1.0),
    Rule("amount_zscore_30d", "high_amount", Fit.AT_LEAST, 2.0),
    Rule("amount_to_customer_mean_30d", "high_amount", Fit.AT_LEAST, 2.0),
    Rule("amount_to_customer_mean_30d", "low_amount", Fit.AT_MOST, 0.1),
    Rule("amount_to_customer_mean_30d", "new_customer", Fit.MISSING),
    Rule("amount_to_merchant_mean_30d", "unusual_amount_for_merchant", Fit.AT_LEAST, 3.0),
    *_velocity_rules(),
    Rule("seconds_since_customer_last", "velocity_burst", Fit.AT_MOST, 5 * MINUTE_S),
    Rule("seconds_since_customer_last", "dormant_customer", Fit.AT_LEAST, 14 * DAY_S),
    Rule("seconds_since_customer_last", "new_customer", Fit.MISSING),
    Rule("seconds_since_same_merchant", "new_merchant", Fit.MISSING),
    Rule("seconds_since_same_merchant", "repeated_merchant", Fit.AT_MOST, 10 * MINUTE_S),
    Rule("customer_age_seconds", "new_customer", Fit.MISSING),
    Rule("customer_age_seconds", "new_customer", Fit.AT_MOST, 3 * DAY_S),
    Rule("customer_merchants_24h", "many_merchants", Fit.AT_LEAST, 4.0),
    Rule("customer_countries_24h", "multiple_countries", Fit.AT_LEAST, 2.0),
    Rule("customer_devices_24h", "multiple_devices", Fit.AT_LEAST, 2.0),
    Rule("first_time_at_merchant", "new_merchant", Fit.AT_LEAST, 1.0),
    Rule("device_changed", "new_device", Fit.AT_LEAST, 1.0),
    Rule("country_changed", "country_changed", Fit.AT_LEAST, 1.0),
    Rule("unusual_country", "unusual_country", Fit.AT_LEAST, 1.0),
    Rule("distance_from_last_km", "far_from_home", Fit.AT_LEAST, 100.0),
    Rule("speed_from_last_kmh", "impossible_travel", Fit.AT_LEAST, AIRLINER_KMH),
    *(
        Rule(f"amount_to_habit_{against}", "high_amount", Fit.AT_LEAST, bound)
        for against, bound in (("mean", 2.0), ("max", 1.0))
    ),
    *(
        Rule(f"recent_{what}_to_habit_{against}", "spending_shift", Fit.AT_LEAST, 1.5)
        for what in ("mean", "max")
        for against in ("mean", "max")
    ),
    *(Rule(f"merchant_count_{window}", "merchant_burst", Fit.HIGH) for window in ("24h", "7d", "30d")),
    *(Rule(f"merchant_count_{window}", "quiet_merchant", Fit.AT_MOST, 1.0) for window in ("24h", "7d", "30d")),
    *(Rule(f"merchant_amount_mean_{window}", "expensive_merchant", Fit.HIGH) for window in ("24h", "7d", "30d")),
    *(
        Rule(f"merchant_fraud_share_{window}", "risky_merchant", Fit.AT_LEAST, TWICE_PRIOR)
        for window in ("24h", "7d", "30d")
    ),
    Rule("merchant_seconds_since_first_fraud", "risky_merchant", Fit.KNOWN),
    Rule("merchant_seconds_since_last_fraud", "risky_merchant", Fit.KNOWN),
    Rule("merchant_matured_since_fraud", "risky_merchant", Fit.KNOWN),
    *(
        Rule(f"{what}_fraud_share_30d", f"risky_{what}", Fit.AT_LEAST, TWICE_PRIOR)
        for what in ("category", "country", "channel")
    ),
    Rule("device_customers_7d", "shared_device", Fit.AT_LEAST, 2.0),
    Rule("device_count_24h", "device_burst", Fit.HIGH),
    Rule("hour", "unusual_hour", Fit.AT_MOST, 5.0),
    Rule("hour", "unusual_hour", Fit.AT_LEAST, 23.0),
    Rule("day_of_week", "weekend", Fit.AT_LEAST, 5.0),
    Rule("is_weekend", "weekend", Fit.AT_LEAST, 1.0),
    Rule("is_night", "unusual_hour", Fit.AT_LEAST, 1.0),
    Rule(f"merchant_category{CODE_SUFFIX}", "risky_category", Fit.ANY),
    Rule(f"channel{CODE_SUFFIX}", "risky_channel", Fit.ANY),
    Rule(f"country{CODE_SUFFIX}", "risky_country", Fit.ANY),
)

SILENT: Final = frozenset({"is_business_hours"})
"""Features that give no code: that a payment came in business hours tells an analyst nothing."""


class Rising(NamedTuple):
    """The inputs that raised a score, by place, the strongest first (ties by place), and the sum of what they added."""

    places: list[int]
    contributions: list[float]
    total: float


def rising_contributions(contributions: NDArray[np.float64]) -> Rising:
    """From the contributions [F' + 1] of all inputs; the last, the bias, is nobody's doing."""
    added = contributions[:-1]
    order = np.argsort(-added, kind="stable")[: int(np.count_nonzero(added > 0))]
    strongest_first = added[order].tolist()
    return Rising(order.tolist(), strongest_first, sum(strongest_first))


@dataclass(frozen=True, slots=True)
class _Interval:
    """A rule made ready: `low <= value <= high`, or the value is missing."""

    code: str
    low: float
    high: float
    missing: bool


@dataclass(frozen=True, slots=True)
class RiskTable:
    """The rules of each input of one bundle, by its place."""

    rules: tuple[tuple[_Interval, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str], usual: Usual) -> RiskTable:
        """The table for these inputs, with what is usual for them as the bounds of HIGH and LOW."""
        return cls(tuple(_intervals(name, usual.low[place], usual.high[place]) for place, name in enumerate(names)))

    def risk_factors(self, values: NDArray[np.float32], rising: Rising, *, anomaly_score: float) -> tuple[str, ...]:
        """Codes, strongest first, from the input vector [F'] and what raised its score."""
        noted = SHARE_NOTED * rising.total
        codes: dict[str, None] = {}
        for place, contribution in zip(rising.places, rising.contributions, strict=True):
            if contribution < noted or len(codes) == MAX_RISK_FACTORS:
                break
            value = float(values[place])
            for rule in self.rules[place]:
                if rule.missing if value != value else rule.low <= value <= rule.high:  # noqa: PLR0124  # NaN
                    codes[rule.code] = None
                    break
        if anomaly_score >= ANOMALOUS_FROM and len(codes) < MAX_RISK_FACTORS:
            codes[ANOMALOUS] = None
        return tuple(codes) or (UNEXPLAINED,)


def _intervals(name: str, low: float, high: float) -> tuple[_Interval, ...]:
    if name.startswith(ATTRIBUTE_PREFIX):
        return (_Interval(ATTRIBUTE_CODE + name.removeprefix(ATTRIBUTE_PREFIX), -math.inf, math.inf, missing=True),)
    made = []
    for rule in RULES:
        if rule.name != name:
            continue
        bounds = {
            Fit.AT_LEAST: (rule.bound, math.inf),
            Fit.AT_MOST: (-math.inf, rule.bound),
            # Above and below, not at: where nine of ten payments have the same value, that value is not high.
            Fit.HIGH: (math.nextafter(high, math.inf), math.inf),
            Fit.LOW: (-math.inf, math.nextafter(low, -math.inf)),
            Fit.KNOWN: (-math.inf, math.inf),
            Fit.ANY: (-math.inf, math.inf),
            Fit.MISSING: (math.inf, -math.inf),
        }[rule.fit]
        made.append(_Interval(rule.code, *bounds, missing=rule.fit in (Fit.MISSING, Fit.ANY)))
    return tuple(made)


def reasons_page() -> str:
    """`docs/reasons.md`."""
    meanings = {feature.name: feature.meaning for feature in FEATURES}
    lines = [
        "# Risk factors",
        "",
        "<!-- Written by `make docs`; edit the table in fraud_pipeline/domain/reasons.py. -->",
        "",
        "A REVIEW or a BLOCK carries `reasons` (input, value, what it added to the raw score) and `risk_factors`: codes made",
        f"from them, strongest first, at most {MAX_RISK_FACTORS}. A code is given where its input raised the score by at",
        f"least {SHARE_NOTED:.0%} of all that raised it, and its value fits. Of several rules for one input the first that",
        "fits counts.",
        "",
        "| code | what it says |",
        "|---|---|",
        *(f"| `{code}` | {words} |" for code, words in CODES.items()),
        "",
        "## Rules",
        "",
        "| input | its value is | code | the input means |",
        "|---|---|---|---|",
    ]
    for rule in RULES:
        meaning = meanings.get(
            rule.name, f"The bundle's code for the {rule.name.removesuffix(CODE_SUFFIX).replace('_', ' ')}"
        )
        lines.append(f"| `{rule.name}` | {rule.words()} | `{rule.code}` | {meaning} |")
    lines += [
        f"| `{ATTRIBUTE_PREFIX}NAME` | any value | `{ATTRIBUTE_CODE}NAME` | The payment's own attribute |",
        "",
        f"No code comes from {', '.join(f'`{name}`' for name in sorted(SILENT))}.",
        "",
    ]
    return "\n".join(lines)
