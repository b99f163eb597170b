"""The oracle itself, against values worked out by hand: a judge that nobody checks is an opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline_tests.domain.oracle import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Applied,
    Change,
    Payment,
    apply_log,
    features_of,
    log_of,
    view_of,
)

T0 = 20_000 * DAY  # 2024-10-04, a Friday, midnight UTC


def last(payments: Sequence[Payment], changes: Sequence[Change] = (), time_zone: str = "UTC") -> dict[str, float]:
    """Features of the last payment, with a prior of 10 payments at 1 % fraud."""
    applied = apply_log(log_of(payments, changes))
    at = max(i for i, entry in enumerate(applied) if isinstance(entry, Applied))
    return features_of(view_of(applied[:at], payments[-1], prior_strength=10, prior_rate=0.01, time_zone=time_zone))


def pay(after: int, amount_minor: int = 1_000, customer: str = "c", **fields: object) -> Payment:
    return Payment(T0 + after, customer, amount_minor=amount_minor, **fields)  # type: ignore[arg-type]


def test_the_oracle_computes_every_feature_of_the_spec_and_no_other() -> None:
    assert set(last([pay(0)])) == set(FEATURE_NAMES)


def test_a_customers_first_payment_knows_only_itself() -> None:
    features = last([pay(10 * HOUR, 1_250, device="d", country="BE")])
    assert features["amount"] == 12.5
    assert features["amount_log"] == pytest.approx(2.602690)
    assert features["amount_is_round"] == 0.0
    assert features["customer_count_30d"] == features["customer_amount_sum_30d"] == 0.0
    assert features["merchant_count_30d"] == features["device_count_24h"] == features["device_customers_7d"] == 0.0
    assert features["first_time_at_merchant"] == 1.0
    assert features["merchant_fraud_share_7d"] == features["country_fraud_share_30d"] == 0.01
    assert (features["hour"], features["day_of_week"], features["is_business_hours"]) == (10.0, 4.0, 1.0)
    unknown = {name for name, value in features.items() if math.isnan(value)}
    assert unknown >= {"amount_zscore_30d", "customer_amount_mean_1h", "seconds_since_customer_last", "device_changed"}
    assert unknown >= {"merchant_amount_mean_30d", "merchant_matured_since_fraud", "amount_to_habit_mean"}


def test_a_window_is_open_at_its_old_end() -> None:
    on_border = last([pay(0), pay(1), pay(HOUR)])
    assert (on_border["customer_count_1h"], on_border["customer_count_24h"]) == (1.0, 2.0)
    assert last([pay(0), pay(30 * DAY)])["customer_count_30d"] == 0.0
    assert last([pay(0), pay(30 * DAY - 1)])["customer_count_30d"] == 1.0


def test_velocity_and_amounts_of_three_payments() -> None:
    features = last([pay(0, 1_000), pay(HOUR, 2_000), pay(2 * HOUR, 6_000), pay(2 * HOUR + MINUTE, 9_000)])
    assert features["customer_amount_sum_24h"] == 90.0
    assert features["customer_amount_mean_24h"] == 30.0
    assert features["customer_amount_max_24h"] == 60.0
    assert features["customer_amount_sum_1h"] == 60.0
    # mean 30, deviations -20, -10, 30: variance 1400/3
    assert features["amount_zscore_30d"] == pytest.approx(60 / math.sqrt(1_400 / 3))
    assert features["amount_to_customer_mean_30d"] == 3.0
    assert features["seconds_since_customer_last"] == 60.0
    assert features["customer_age_seconds"] == 7_260.0


def test_equal_amounts_have_no_deviation_even_where_decimals_round() -> None:
    assert math.isnan(last([pay(0, 10), pay(1, 10), pay(2, 10), pay(3, 500)])["amount_zscore_30d"])


def test_a_mean_of_zero_makes_no_ratio() -> None:
    assert math.isnan(last([pay(0, 0), pay(1, 500)])["amount_to_customer_mean_30d"])


def test_a_late_payment_is_read_at_the_customers_newest_time_but_keeps_its_hour() -> None:
    features = last([pay(2 * HOUR), pay(HOUR - 1)])
    assert features["seconds_since_customer_last"] == 0.0
    assert features["customer_count_1h"] == 1.0
    assert features["hour"] == 0.0


def test_a_customer_is_forgotten_after_90_days_and_not_before() -> None:
    assert last([pay(0), pay(90 * DAY)])["seconds_since_customer_last"] == 90 * 86_400.0
    assert math.isnan(last([pay(0), pay(90 * DAY + 1)])["seconds_since_customer_last"])


def test_a_merchant_is_forgotten_after_90_days_while_the_customer_goes_on() -> None:
    visits = [pay(0, merchant="a"), pay(60 * DAY, merchant="b")]
    assert last([*visits, pay(90 * DAY, merchant="a")])["seconds_since_same_merchant"] == 90 * 86_400.0
    forgotten = last([*visits, pay(90 * DAY + 1, merchant="a")])
    assert math.isnan(forgotten["seconds_since_same_merchant"])
    assert forgotten["first_time_at_merchant"] == 1.0
    assert forgotten["customer_age_seconds"] == 30 * 86_400.0


def test_behaviour_compares_with_the_newest_known_value() -> None:
    features = last(
        [
            pay(0, country="BE", device="phone"),
            pay(1, country="FR", device="phone"),
            pay(2, merchant="m1"),
            pay(3, country="BE", device="laptop"),
        ]
    )
    assert (features["country_changed"], features["device_changed"]) == (1.0, 1.0)
    assert features["unusual_country"] == 1.0  # BE and FR once each: the later one is usual
    assert (features["customer_countries_24h"], features["customer_devices_24h"]) == (2.0, 1.0)
    assert features["customer_merchants_24h"] == 2.0


def test_distance_and_speed_from_the_last_known_place() -> None:
    north = [pay(0, latitude=50.0, longitude=4.0), pay(HOUR), pay(2 * HOUR, latitude=51.0, longitude=4.0)]
    features = last(north)
    assert features["distance_from_last_km"] == pytest.approx(111.195, abs=1e-3)  # one degree of a meridian
    assert features["speed_from_last_kmh"] == pytest.approx(111.195 / 2, abs=1e-3)
    at_once = last([north[0], pay(SECOND, latitude=51.0, longitude=4.0)])
    assert at_once["speed_from_last_kmh"] == pytest.approx(111.195 * 60, abs=0.1)


def test_habit_days_are_closed_utc_days() -> None:
    history = [pay(0, 1_000), pay(50 * DAY, 3_000), pay(59 * DAY, 8_000), pay(59 * DAY + 1, 4_000)]
    features = last([*history, pay(60 * DAY + 5, 10_000)])  # habit: days 0 to 49; recent: days 50 to 59
    assert features["amount_to_habit_mean"] == features["amount_to_habit_max"] == 10.0
    assert features["recent_mean_to_habit_mean"] == 5.0
    assert features["recent_max_to_habit_mean"] == 8.0
    features = last([*history, pay(61 * DAY, 10_000)])  # day 0 is past, day 50 has become habit
    assert features["amount_to_habit_mean"] == pytest.approx(100 / 30)
    assert features["recent_mean_to_habit_max"] == 2.0


@pytest.mark.parametrize(("wait", "seen"), [(3 * MINUTE - 1, 0.0), (3 * MINUTE, 1.0)])
def test_a_shared_minute_is_readable_two_minutes_after_its_end(wait: int, seen: float) -> None:
    features = last([pay(0, customer="a", device="d"), pay(wait, customer="b", device="d")])
    assert features["merchant_count_24h"] == features["device_count_24h"] == seen
    assert features["device_customers_7d"] == seen


def test_old_ends_of_shared_windows_are_cut_at_the_hour() -> None:
    # last readable minute ends at 24:58 -> hc = 24, so hours 0 to 24 count
    assert last([pay(0, customer="a"), pay(25 * HOUR, customer="b")])["merchant_count_24h"] == 1.0
    # it ends at 25:00 -> hc = 25, so hour 0 is out
    assert last([pay(0, customer="a"), pay(25 * HOUR + 2 * MINUTE, customer="b")])["merchant_count_24h"] == 0.0


def test_an_event_behind_the_watermark_counts_in_the_oldest_open_minute() -> None:
    log = log_of([pay(HOUR), pay(0, customer="late")], [])
    minutes = [entry.minute for entry in apply_log(log)]
    assert minutes == [(T0 + HOUR) // MINUTE, (T0 + HOUR) // MINUTE - 1]


def test_a_far_late_payment_reads_shared_state_as_of_ten_minutes_before_the_watermark() -> None:
    payments = [pay(0, customer="a"), pay(HOUR, customer="b"), pay(MINUTE, customer="c")]
    assert last(payments)["merchant_count_24h"] == 1.0  # at its own time it would have read nothing


def test_the_fraud_share_counts_matured_payments_and_known_labels() -> None:
    frauds = [pay(hour * HOUR, customer=f"c{hour}", country="BE") for hour in range(4)]
    label = Change(T0 + 7 * DAY, T0 + HOUR, country="BE")
    # hc = 7 d + 10 h: hours 10 - 24 .. 10 are matured for 24h; the label of hour 1 has He = 7 d + 1 h < hc
    reader = pay(7 * DAY + 10 * HOUR + 2 * MINUTE, customer="r", country="BE")
    features = last([*frauds, reader], [label])
    assert features["merchant_fraud_share_24h"] == pytest.approx(1.1 / 14)
    assert features["country_fraud_share_30d"] == pytest.approx(1.1 / 14)
    corrected = last([*frauds, reader], [label, Change(T0 + 8 * DAY - 20 * HOUR, T0 + HOUR, -1, country="BE")])
    assert corrected["merchant_fraud_share_24h"] == pytest.approx(0.1 / 14)
    alone = last([*frauds, reader], [Change(T0 + 7 * DAY, T0 + HOUR, -1, country="BE")])
    assert alone["merchant_fraud_share_24h"] == pytest.approx(0.1 / 14)  # never below 0 frauds


def test_an_early_label_counts_from_the_hour_in_which_its_payment_matured() -> None:
    label = Change(T0 + DAY, T0 + 30 * MINUTE)
    before = last([pay(30 * MINUTE, customer="a"), pay(7 * DAY + HOUR, customer="b")], [label])
    after = last([pay(30 * MINUTE, customer="a"), pay(7 * DAY + HOUR + 2 * MINUTE, customer="b")], [label])
    assert before["merchant_fraud_share_30d"] == pytest.approx(0.1 / 10)
    assert after["merchant_fraud_share_30d"] == pytest.approx(1.1 / 11)


def test_recency_of_fraud_labels_and_recovery_of_the_merchant() -> None:
    payments = [pay(hour * HOUR, customer=f"c{hour}") for hour in range(5)]
    labels = [Change(T0 + 2 * DAY + 30 * SECOND, T0 + HOUR), Change(T0 + 3 * DAY, T0 + 2 * HOUR)]
    features = last([*payments, pay(8 * DAY, customer="r")], labels)
    assert features["merchant_seconds_since_first_fraud"] == 6 * 86_400.0 - 60
    assert features["merchant_seconds_since_last_fraud"] == 5 * 86_400.0 - 60
    assert features["merchant_matured_since_fraud"] == 2.0  # hours 3 and 4
    assert math.isnan(last([*payments, pay(40 * DAY)], labels)["merchant_matured_since_fraud"])


def test_a_label_takes_its_place_before_the_first_payment_at_or_after_it() -> None:
    payments = [pay(0), pay(10), pay(10), pay(20)]
    changes = [Change(T0 + 10, T0), Change(T0 + 21, T0), Change(T0, T0)]
    kinds = ["c" if isinstance(entry, Change) else "p" for entry in log_of(payments, changes)]
    assert "".join(kinds) == "cpcpppc"


def test_the_calendar_follows_the_zone() -> None:
    saturday_morning_in_auckland = last([pay(17 * HOUR)], time_zone="Pacific/Auckland")  # UTC+13 in October
    assert saturday_morning_in_auckland["hour"] == 6.0
    assert saturday_morning_in_auckland["day_of_week"] == 5.0
    assert saturday_morning_in_auckland["is_weekend"] == 1.0
    assert last([pay(17 * HOUR - 1)], time_zone="Pacific/Auckland")["is_night"] == 1.0
