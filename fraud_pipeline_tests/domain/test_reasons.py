"""Risk factors are given only where the contribution raised the score and the value fits the code's words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.domain.bundle_facts import Usual
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.model_input import CODE_SUFFIX, CODED_FIELDS
from fraud_pipeline.domain.reasons import (
    ATTRIBUTE_CODE,
    CODES,
    MAX_RISK_FACTORS,
    RULES,
    SILENT,
    Fit,
    RiskTable,
    reasons_page,
    rising_contributions,
)

NAN = math.nan


def factors(
    named: dict[str, tuple[float, float]], *, low: float = NAN, high: float = NAN, anomaly: float = 0.4
) -> tuple[str, ...]:
    """Risk factors of inputs given as name: (value, contribution); `low` and `high` are usual for all of them."""
    n = len(named)
    table = RiskTable.of(tuple(named), Usual((low,) * n, (NAN,) * n, (high,) * n))
    values, contributions = zip(*named.values(), strict=True)
    rising = rising_contributions(np.array([*contributions, 99.0]))
    return table.risk_factors(np.array(values, dtype=np.float32), rising, anomaly_score=anomaly)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("amount_zscore_30d", 2.0, "high_amount"),
        ("amount_to_habit_mean", 7.5, "high_amount"),
        ("first_time_at_merchant", 1.0, "new_merchant"),
        ("seconds_since_same_merchant", NAN, "new_merchant"),
        ("seconds_since_same_merchant", 60.0, "repeated_merchant"),
        ("is_night", 1.0, "unusual_hour"),
        ("hour", 3.0, "unusual_hour"),
        ("hour", 23.0, "unusual_hour"),
        ("device_changed", 1.0, "new_device"),
        ("distance_from_last_km", 4_000.0, "far_from_home"),
        ("speed_from_last_kmh", 5_000.0, "impossible_travel"),
        ("seconds_since_customer_last", 20.0, "velocity_burst"),
        ("seconds_since_customer_last", 40 * 86_400.0, "dormant_customer"),
        ("merchant_fraud_share_7d", 0.2, "risky_merchant"),
        ("merchant_seconds_since_last_fraud", 3_600.0, "risky_merchant"),
        ("device_customers_7d", 5.0, "shared_device"),
        ("unusual_country", 1.0, "unusual_country"),
        ("country_fraud_share_30d", 0.05, "risky_country"),
        ("channel_code", 2.0, "risky_channel"),
        ("merchant_category_code", NAN, "risky_category"),
        ("attributes.ip_risk", 0.9, "attribute_ip_risk"),
    ],
)
def test_a_value_that_fits_and_raised_the_score_gives_its_code(name: str, value: float, code: str) -> None:
    assert factors({name: (value, 0.5)}) == (code,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amount_zscore_30d", 1.99),
        ("first_time_at_merchant", 0.0),
        ("device_changed", 0.0),
        ("device_changed", NAN),
        ("hour", 14.0),
        ("distance_from_last_km", 3.0),
        ("speed_from_last_kmh", NAN),
        ("seconds_since_customer_last", 86_400.0),
        ("merchant_fraud_share_7d", 0.004),
        ("merchant_seconds_since_last_fraud", NAN),
        ("device_customers_7d", 1.0),
        ("is_business_hours", 1.0),
    ],
)
def test_a_value_that_does_not_fit_the_words_gives_no_code_however_much_it_raised_the_score(
    name: str, value: float
) -> None:
    assert factors({name: (value, 5.0)}) == ("unusual_combination",)


def test_what_lowered_the_score_gives_no_code() -> None:
    assert factors({"is_night": (1.0, -0.5), "device_changed": (1.0, 0.1)}) == ("new_device",)


def test_codes_come_strongest_first_each_once() -> None:
    found = factors({
        "amount_zscore_30d": (3.0, 0.4),
        "device_changed": (1.0, 0.9),
        "amount_to_customer_mean_30d": (5.0, 1.2),
        "is_night": (1.0, 0.6),
    })  # fmt: skip
    assert found == ("high_amount", "new_device", "unusual_hour")


def test_high_and_low_are_measured_against_the_reference_and_the_usual_value_is_neither() -> None:
    assert factors({"amount": (501.0, 1.0)}, low=2.0, high=500.0) == ("high_amount",)
    assert factors({"amount": (1.0, 1.0)}, low=2.0, high=500.0) == ("low_amount",)
    for usual in (2.0, 80.0, 500.0):
        assert factors({"amount": (usual, 1.0)}, low=2.0, high=500.0) == ("unusual_combination",)
    assert factors({"customer_count_1h": (1.0, 1.0)}, high=0.0) == ("velocity_burst",)


def test_small_contributions_are_noise() -> None:
    assert factors({"is_night": (1.0, 0.019), "device_changed": (1.0, 0.981)}) == ("new_device",)
    assert factors({"is_night": (1.0, 0.021), "device_changed": (1.0, 0.979)}) == ("new_device", "unusual_hour")


def test_there_are_at_most_six() -> None:
    names = ("is_night", "device_changed", "unusual_country", "first_time_at_merchant", "is_weekend", "country_changed")
    named = dict.fromkeys(names, (1.0, 1.0))
    found = factors({**named, "amount_is_round": (1.0, 0.9)}, anomaly=0.9)
    assert set(found) == {"unusual_hour", "new_device", "unusual_country", "new_merchant", "weekend", "country_changed"}
    assert len(found) == MAX_RISK_FACTORS


def test_an_anomaly_is_told_last() -> None:
    assert factors({"is_night": (1.0, 1.0)}, anomaly=0.61) == ("unusual_hour", "anomalous_pattern")
    assert factors({"is_night": (0.0, -1.0)}, anomaly=0.61) == ("anomalous_pattern",)


def test_every_feature_is_in_the_table_and_nothing_else() -> None:
    inputs = {rule.name for rule in RULES}
    assert inputs | SILENT == {*FEATURE_NAMES, *(name + CODE_SUFFIX for name in CODED_FIELDS)}
    assert inputs & SILENT == set()


def test_every_code_is_explained_and_every_explained_code_is_given() -> None:
    given = {rule.code for rule in RULES} | {f"{ATTRIBUTE_CODE}NAME", "unusual_combination", "anomalous_pattern"}
    assert given == set(CODES)
    for rule in RULES:
        assert math.isnan(rule.bound) == (rule.fit not in (Fit.AT_LEAST, Fit.AT_MOST)), rule


def test_the_page_in_docs_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "reasons.md"
    assert page.read_text() == reasons_page(), "write it again with `make docs`"
