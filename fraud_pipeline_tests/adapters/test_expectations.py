"""Bad days are found, named with their rows, and do not take good days with them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fraud_pipeline.adapters.data_profiles import day_profile, feature_profile, feature_range
from fraud_pipeline.adapters.dataset_schemas import TIMESTAMP, conform
from fraud_pipeline.adapters.expectation_suites import days_suite, features_suite, transactions_suite
from fraud_pipeline.adapters.expectations import DayVerdict, validate_days, validate_features, validate_transactions
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, FEATURES, INDEX
from fraud_pipeline.errors import DatasetError

DAYS = [date(2026, 1, 5) + timedelta(days=i) for i in range(3)]
PER_DAY = 30


def transactions(**changes):
    """Three good days of 30 payments; `changes` are {column: {row: value}}."""
    count = PER_DAY * len(DAYS)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    columns: dict[str, Any] = {
        "transaction_id": [f"t{i}" for i in range(count)],
        "event_time": [start + timedelta(days=i // PER_DAY, minutes=i % PER_DAY) for i in range(count)],
        "customer_id": [f"c{i % 7}" for i in range(count)],
        "merchant_id": ["m"] * count,
        "amount_minor": [i * 100 for i in range(count)],
        "currency": ["USD"] * count,
        "merchant_category": ["food"] * count,
        "channel": ["pos", "online"] * (count // 2),
        "country": ["DE", None] * (count // 2),
        "device_id": [None, "d"] * (count // 2),
        "latitude": [1.5, None] * (count // 2),
        "longitude": [1.5, None] * (count // 2),
        "attributes.risk": [0.5, None] * (count // 2),
    }
    for name, values in changes.items():
        for row, value in values.items():
            columns[name.replace("__", ".")][row] = value
    columns["event_time"] = pa.array(columns["event_time"], TIMESTAMP)
    return conform("transactions", pa.table(columns))


def failed(verdicts):
    return {(v.day, f.expectation, f.unexpected_count, f.severity) for v in verdicts for f in v.failures}


class TestTransactions:
    def test_good_days_pass(self):
        verdicts = validate_transactions(transactions(), days=DAYS)
        assert verdicts == [DayVerdict(day) for day in DAYS]
        assert {(v.passed, v.severity, v.verdict) for v in verdicts} == {(True, None, "passed")}

    @pytest.mark.parametrize(
        ("changes", "claim"),
        [
            ({"transaction_id": {31: None}}, "transaction_id_is_never_null"),
            ({"customer_id": {31: None}}, "customer_id_is_never_null"),
            ({"amount_minor": {31: None}}, "amount_minor_is_never_null"),
            ({"channel": {31: None}}, "channel_is_never_null"),
            ({"transaction_id": {31: "a b"}}, "transaction_ids_are_well_formed"),
            ({"customer_id": {31: ""}}, "customer_id_has_1_to_64_characters"),
            ({"merchant_id": {31: "x" * 65}}, "merchant_id_has_1_to_64_characters"),
            ({"merchant_category": {31: "x" * 33}}, "merchant_category_has_1_to_32_characters"),
            ({"device_id": {31: ""}}, "device_id_has_1_to_64_characters"),
            ({"amount_minor": {31: -1}}, "amounts_are_in_range"),
            ({"amount_minor": {31: 1_000_000_001}}, "amounts_are_in_range"),
            ({"currency": {31: "EUR"}}, "amounts_are_in_one_currency"),
            ({"channel": {31: "phone"}}, "channels_are_known"),
            ({"country": {31: "XX"}}, "countries_are_iso_codes"),
            ({"latitude": {32: 91.0}}, "latitudes_are_on_earth"),
            ({"longitude": {32: -math.inf}}, "longitudes_are_on_earth"),
            ({"latitude": {31: 1.0}}, "places_have_both_degrees"),
            ({"attributes__risk": {31: math.inf}}, "risk_is_finite"),
        ],
    )
    def test_a_bad_value_blocks_its_day_alone(self, changes, claim):
        verdicts = validate_transactions(transactions(**changes), days=DAYS)
        assert failed(verdicts) == {(DAYS[1], claim, 1, "error")}
        assert [v.passed for v in verdicts] == [True, False, True]
        assert (verdicts[1].severity, verdicts[1].verdict) == ("error", "failed")

    def test_failures_show_the_offending_rows_and_say_how_many(self):
        bad = dict.fromkeys(range(25), "phone")
        first, *_ = validate_transactions(transactions(channel=bad, amount_minor={3: -7}), days=DAYS)
        by_claim = {failure.expectation: failure for failure in first.failures}
        channels = by_claim["channels_are_known"]
        assert str(channels) == "channels_are_known: 25 of 30 payments, such as 'phone'"
        assert channels.rows.column("transaction_id").to_pylist() == [f"t{i}" for i in range(20)]
        assert channels.rows.column("channel").to_pylist() == ["phone"] * 20
        amounts = by_claim["amounts_are_in_range"]
        assert (amounts.column, amounts.observed) == ("amount_minor", "1 of 30 payments, such as -7")
        assert amounts.rows.to_pylist() == [
            {
                "transaction_id": "t3",
                "event_time": datetime(2026, 1, 5, 0, 3, tzinfo=UTC),
                "customer_id": "c3",
                "merchant_id": "m",
                "amount_minor": -7,
            }
        ]

    def test_an_id_on_two_days_blocks_both(self):
        verdicts = validate_transactions(transactions(transaction_id={3: "same", 70: "same"}), days=DAYS)
        assert failed(verdicts) == {
            (DAYS[0], "transaction_ids_are_unique", 1, "error"),
            (DAYS[2], "transaction_ids_are_unique", 1, "error"),
        }

    def test_missing_columns_block_every_day(self):
        verdicts = validate_transactions(transactions().drop_columns(["channel", "currency"]), days=DAYS)
        assert {str(f) for v in verdicts for f in v.failures} == {
            "columns_are_those_of_the_contract: the columns currency, channel are missing"
        }
        assert not any(v.passed for v in verdicts)

    def test_rows_are_filed_by_count_where_counts_are_given(self):
        table = transactions(amount_minor={29: -1})
        verdicts = validate_transactions(table, days={DAYS[0]: 29, DAYS[1]: 31, DAYS[2]: 30})
        assert failed(verdicts) == {
            (DAYS[1], "amounts_are_in_range", 1, "error")
        }  # paid on the first, filed on the second
        with pytest.raises(DatasetError, match="89 rows, the table has 90"):
            validate_transactions(table, days={DAYS[0]: 89})

    def test_payments_filed_long_after_their_day_block_it(self):
        old = datetime(2025, 10, 1, tzinfo=UTC)
        verdicts = validate_transactions(transactions(event_time={0: old}), days=dict.fromkeys(DAYS, PER_DAY))
        assert failed(verdicts) == {(DAYS[0], "payments_belong_to_their_day", 1, "error")}

    def test_a_payment_of_none_of_the_days_is_an_error(self):
        with pytest.raises(DatasetError, match="A payment of 2026-01-07 is in none"):
            validate_transactions(transactions(), days=DAYS[:2])

    def test_an_empty_day_passes(self):
        table = transactions().slice(0, PER_DAY)
        assert all(v.passed for v in validate_transactions(table, days=DAYS))
        assert all(v.passed for v in validate_transactions(table.slice(0, 0), days=DAYS))


def values(rows=40):
    """Feature values in range: 0 or 1 each."""
    return (np.arange(rows * len(FEATURE_NAMES)).reshape(rows, -1) % 2).astype(np.float32)


def profile(day, **changes):
    data = values()
    for name, value in changes.items():
        data[3, INDEX[name]] = value
    return feature_profile(day, FEATURE_NAMES, data)


class TestFeatures:
    def test_a_profile_says_what_is_there(self):
        data = np.array([[1, np.nan, 2], [3, np.nan, np.inf], [np.nan, np.nan, -np.inf]], np.float32)
        a, b, c = feature_profile(DAYS[0], ["a", "b", "c"], data).to_dict("records")
        assert (a["minimum"], a["maximum"], a["mean"], a["infinite"]) == (1, 3, 2, 0)
        assert (a["null_share"], b["null_share"], c["null_share"]) == (pytest.approx(1 / 3), 1, 0)
        assert all(math.isnan(b[name]) for name in ("minimum", "maximum", "mean"))
        assert (c["minimum"], c["maximum"], c["mean"], c["infinite"]) == (2, 2, 2, 2)
        assert feature_profile(DAYS[0], ["a"], np.empty((0, 1), np.float32)).loc[0, "rows"] == 0

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("amount", (0, 10_000_000)),
            ("hour", (0, 23)),
            ("day_of_week", (0, 6)),
            ("is_night", (0, 1)),
            ("customer_count_1h", (0, math.inf)),
            ("merchant_fraud_share_7d", (0, 1)),
            ("device_customers_7d", (0, 64)),
            ("amount_zscore_30d", (-math.inf, math.inf)),
            ("customer_age_seconds", (0, 31 * 86_400)),
        ],
    )
    def test_ranges_follow_the_unit(self, name, expected):
        assert feature_range(FEATURES[INDEX[name]]) == expected

    def test_good_days_pass(self):
        assert validate_features(pd.concat([profile(day) for day in DAYS])) == [DayVerdict(day) for day in DAYS]

    def test_what_may_be_missing_may_be_missing_everywhere(self):
        data = values()
        data[:, INDEX["device_count_24h"]] = np.nan
        assert validate_features(feature_profile(DAYS[0], FEATURE_NAMES, data)) == [DayVerdict(DAYS[0])]

    @pytest.mark.parametrize(
        ("changes", "claim"),
        [
            ({"customer_count_1h": -1}, "features_are_not_below_their_range"),
            ({"hour": 24}, "features_are_not_above_their_range"),
            ({"merchant_fraud_share_7d": 1.5}, "features_are_not_above_their_range"),
            ({"amount_to_customer_mean_30d": np.inf}, "features_are_finite"),
            ({"hour": np.nan}, "features_are_missing_only_where_they_may"),
        ],
    )
    def test_a_bad_feature_blocks_its_day_and_is_named(self, changes, claim):
        verdicts = validate_features(pd.concat([profile(DAYS[0]), profile(DAYS[1], **changes), profile(DAYS[2])]))
        assert failed(verdicts) == {(DAYS[1], claim, 1, "error")}
        (failure,) = verdicts[1].failures
        assert failure.observed == f"1 of {len(FEATURE_NAMES)} features, such as {next(iter(changes))}"
        assert failure.rows.column("feature").to_pylist() == list(changes)

    def test_a_feature_that_is_not_there_or_there_twice_blocks(self):
        short, twice = profile(DAYS[0]).iloc[1:], pd.concat([profile(DAYS[1]), profile(DAYS[1]).iloc[:1]])
        verdicts = validate_features(pd.concat([short, twice, profile(DAYS[2])]))
        assert {(day, claim) for day, claim, _, _ in failed(verdicts)} == {
            (DAYS[0], "all_features_are_there"),
            (DAYS[1], "features_are_there_once"),
        }


class TestDays:
    def test_usual_days_pass(self):
        rows = {DAYS[0] + timedelta(days=i): 100 + i for i in range(40)}
        frauds = dict.fromkeys(rows, 1)
        verdicts = validate_days(rows, judged=list(rows), as_of=max(rows) + timedelta(days=1), frauds=frauds)
        assert verdicts == [DayVerdict(day) for day in rows]

    def test_unusual_days_are_warned_of_and_pass(self):
        days = [DAYS[0] + timedelta(days=i) for i in range(40)]
        rows = dict.fromkeys(days, 100) | {days[30]: 20, days[39]: 400}
        verdicts = validate_days(rows, judged=days[-15:], as_of=days[-1] + timedelta(days=3), frauds={})
        volume = {v.day for v in verdicts for f in v.failures if f.expectation == "volume_is_like_recent_days"}
        assert volume == {days[30], days[39]}
        assert {d for d, claim, _, _ in failed(verdicts) if claim == "newest_day_is_fresh"} == {days[39]}
        without_labels = {d for d, c, _, _ in failed(verdicts) if c == "label_rate_of_mature_days_is_plausible"}
        assert without_labels == set(days[27:35])  # before, there are no four weeks; after, they are not mature
        assert {(v.passed, v.severity) for v in verdicts if v.failures} == {(True, "warning")}
        assert [str(f) for f in verdicts[-1].failures] == [
            "volume_is_like_recent_days: volume_ratio is 4",
            "newest_day_is_fresh: days_behind is 2",
        ]

    def test_the_first_days_have_nothing_to_be_compared_with(self):
        table = day_profile({DAYS[0]: 5, DAYS[1]: 500}, judged=DAYS[:2], as_of=DAYS[2])
        assert table["volume_ratio"].isna().all()
        assert table["label_rate"].isna().all()
        assert table["days_behind"].tolist()[1] == 0

    def test_too_many_labels_are_warned_of(self):
        days = [DAYS[0] + timedelta(days=i) for i in range(28)]
        rows, frauds = dict.fromkeys(days, 100), dict.fromkeys(days, 20)
        verdicts = validate_days(rows, judged=days, as_of=days[-1] + timedelta(days=8), frauds=frauds)
        assert [f.observed for v in verdicts for f in v.failures if f.column == "label_rate"] == ["label_rate is 0.2"]


def test_every_expectation_states_a_claim_of_its_own():
    for suite in (transactions_suite(attributes=["risk"]), features_suite(), days_suite()):
        claims = [expectation.meta["claim"] for expectation in suite.expectations]
        assert len(set(claims)) == len(claims) > 2
    assert {e.severity for e in days_suite().expectations} == {"warning"}
    assert {e.severity for e in transactions_suite().expectations} == {"critical"}
