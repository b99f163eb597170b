"""Batch and online features against the oracle, as float32 bits: random histories on the borders, and the named hard cases.

Equality is exact, except for the four features named in `histories.ONE_ULP`, where one float32 unit in the last place is allowed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_pipeline.adapters.parity_source import simulated_history
from fraud_pipeline.domain.column_events import label_changes_of, transactions_of
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline_tests.domain.histories import (
    BORDERS,
    START,
    History,
    change_from,
    change_of,
    difference,
    event_columns,
    expected,
    histories,
    online_matrix,
    payment_of,
)
from fraud_pipeline_tests.domain.oracle import DAY, HOUR, MINUTE, SECOND, Change, Payment

ZONES = ["UTC", "Europe/Brussels", "America/St_Johns", "Pacific/Auckland"]
random_histories = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def batch_matrix(history: History, time_zone: str = "UTC") -> np.ndarray:
    return compute_features(event_columns(history.payments, time_zone), history.labels).values


def assert_both_agree(history: History, rows: list[int] | None = None, time_zone: str = "UTC") -> None:
    oracle = expected(history, rows=rows, time_zone=time_zone)
    chosen = slice(None) if rows is None else rows
    assert difference(batch_matrix(history, time_zone)[chosen], oracle) == ""
    assert difference(online_matrix(history, time_zone)[chosen], oracle) == ""


@random_histories
@given(histories(served=True), st.sampled_from(ZONES))
def test_batch_equals_the_oracle(history: History, time_zone: str) -> None:
    assert difference(batch_matrix(history, time_zone), expected(history, time_zone=time_zone)) == ""


@random_histories
@given(histories(served=True), st.sampled_from(ZONES))
def test_online_equals_the_oracle(history: History, time_zone: str) -> None:
    assert difference(online_matrix(history, time_zone), expected(history, time_zone=time_zone)) == ""


@random_histories
@given(histories(longest=40, served=True))
def test_batch_equals_online_to_the_last_bit(history: History) -> None:
    batch, online = batch_matrix(history), online_matrix(history)
    np.testing.assert_array_equal(batch.view(np.uint32), online.view(np.uint32))


@random_histories
@given(histories())
def test_no_value_is_infinite_and_every_nan_is_the_canonical_one(history: History) -> None:
    values = batch_matrix(history)
    assert not np.isinf(values).any()
    assert set(values[np.isnan(values)].view(np.uint32).tolist()) <= {0x7FC00000}


def test_an_empty_history_has_no_rows() -> None:
    assert batch_matrix(History([], [])).shape == (0, len(FEATURE_NAMES))
    assert batch_matrix(History([], [Change(START, START - DAY)])).shape == (0, len(FEATURE_NAMES))


@pytest.mark.parametrize("border", [*BORDERS, *(h * HOUR for h in (169, 673, 674, 721, 887, 888, 889)), 31 * DAY])
def test_each_window_border_to_the_microsecond(border: int) -> None:
    """Two payments and a label, then readers just before, on and just after the border, with and without the shared delay."""
    for off in (-1, 0, 1):
        for delay in (0, 2 * MINUTE, 3 * MINUTE):
            first = Payment(START + 17 * MINUTE + 30 * SECOND, "a", device="d", country="BE", amount_minor=700)
            second = Payment(first.time + SECOND, "b", device="d", country="FR", amount_minor=1_300)
            at = first.time + border + delay + off
            readers = [Payment(at, who, device="d", country="BE") for who in ("a", "b", "new")]
            hour_at = -(-at // HOUR) * HOUR + 2 * MINUTE + off
            readers += [Payment(hour_at, who, device="d", country="BE") for who in ("a", "new")]
            assert_both_agree(History([first, second, *readers], [change_of(first, first.time + HOUR)]))


@pytest.mark.parametrize("maturing", [-1, 0, 1])
def test_label_borders_to_the_microsecond(maturing: int) -> None:
    """A label a microsecond before, at and after maturity, and readers around the hour in which it starts to count."""
    paid = [Payment(START + hour * HOUR, f"c{hour}") for hour in range(3)]
    labels = [change_of(paid[1], paid[1].time + 7 * DAY + maturing), change_of(paid[2], paid[2].time + DAY)]
    border = paid[1].time + 7 * DAY
    steps = [0, MINUTE, 2 * MINUTE, 3 * MINUTE, HOUR, HOUR + 2 * MINUTE, 2 * HOUR + 2 * MINUTE, 24 * HOUR + 2 * MINUTE]
    readers = [Payment(border + step + off, f"r{step}{off}") for step in steps for off in (-1, 0, 1)]
    assert_both_agree(History([*paid, *readers], labels))


def test_a_correction_takes_the_fraud_back_and_never_goes_below_zero() -> None:
    paid = [Payment(START + i * MINUTE, f"c{i}") for i in range(5)]
    at = START + 8 * DAY
    changes = [
        change_of(paid[0], at, 1),
        change_of(paid[0], at + 20 * HOUR, -1),
        change_of(paid[1], at - DAY, -1),
        change_of(paid[2], at, 0),
    ]
    readers = [Payment(at + step * HOUR, f"r{step}") for step in range(0, 60, 3)]
    assert_both_agree(History([*paid, *readers], changes))


def test_labels_in_any_order_and_far_late_ones() -> None:
    paid = [Payment(START + i * HOUR, "c", merchant=f"m{i % 2}") for i in range(30)]
    delays = [30 * DAY, 7 * DAY, 9 * DAY, 8 * DAY, 28 * DAY, 29 * DAY, -DAY, 0]
    changes = [change_of(paid[i], paid[i].time + delay) for i, delay in enumerate(delays)]
    changes.append(Change(START + 40 * DAY, START - 300 * DAY))  # of a payment long before this history
    readers = [Payment(START + step * DAY, "r", merchant=f"m{step % 2}") for step in range(5, 70)]
    assert_both_agree(History([*paid, *readers], changes))


def test_a_label_that_arrives_behind_the_watermark_counts_in_the_oldest_open_minute() -> None:
    """Served order: the log has moved on by 28 days when a label from long ago comes in, and again at a border of it."""
    first = Payment(START, "a", country="BE")
    ahead = Payment(START + 36 * DAY + 17 * SECOND, "b", country="BE")
    steps = [*range(1, 8), 60, 61, 62, 63, 64, 28 * 1440, 28 * 1440 + 61, 28 * 1440 + 64]
    readers = [Payment(ahead.time + step * MINUTE, f"r{step}", country="BE") for step in steps]
    for known_at in (START + 8 * DAY, ahead.time, ahead.time - MINUTE, ahead.time - MINUTE - 18 * SECOND):
        assert_both_agree(History([first, ahead, *readers], [change_of(first, known_at)], [2]))


@pytest.mark.parametrize(
    "late_by", [0, 1, 60 * SECOND, 120 * SECOND, 600 * SECOND, 600 * SECOND + 1, HOUR, 3 * DAY, 40 * DAY]
)
def test_late_events_of_the_customer_and_of_others(late_by: int) -> None:
    payments = [
        Payment(START + 41 * DAY, "a", device="d"),
        Payment(START + 41 * DAY + 5 * MINUTE, "b", device="d"),
        Payment(START + 41 * DAY + 5 * MINUTE - late_by, "a", device="d"),
        Payment(START + 41 * DAY + 5 * MINUTE - late_by, "new", device="d"),
        Payment(START + 41 * DAY + 8 * MINUTE, "a", device="d"),
        Payment(START + 41 * DAY + 8 * MINUTE, "r", device="d"),
        Payment(START + 42 * DAY, "r", device="d"),
    ]
    assert_both_agree(History(payments, []))


def test_ties_keep_their_log_order() -> None:
    countries = ["BE", "FR", None, "FR", "BE", "LU"]
    payments = [Payment(START, "a", country=c, device=c, amount_minor=100 * i) for i, c in enumerate(countries)]
    assert_both_agree(History(payments, [change_of(payments[0], START)]))


def test_an_idle_customer_is_forgotten_at_the_same_microsecond_everywhere() -> None:
    for idle in (90 * DAY - 1, 90 * DAY, 90 * DAY + 1, 200 * DAY):
        place = {"latitude": 50.0, "longitude": 4.0, "country": "BE", "device": "d"}
        payments = [Payment(START + step, "a", **place) for step in (0, HOUR, HOUR + idle, HOUR + idle + 1)]  # type: ignore[arg-type]
        others = [Payment(START + HOUR + idle + 2, "b")]
        assert_both_agree(History(payments + others, []))


def test_more_customers_than_a_device_counts() -> None:
    """70 customers share a device: 64 is as many as it counts, and a crowd within the unread minutes hides nobody."""
    crowd = [Payment(START + i * SECOND, f"c{i}", device="d") for i in range(70)]
    again = [Payment(START + 10 * MINUTE + i, f"c{i}", device="d") for i in range(3)]
    rush = [Payment(START + 20 * MINUTE + i, f"n{i}", device="d") for i in range(100)]
    later = [Payment(START + 7 * DAY + step * MINUTE, "r", device="d") for step in (0, 30, 59, 61, 62, 63, 70, 90, 130)]
    assert_both_agree(History([*crowd, *again, *rush, *later], []))


def test_a_customer_seen_again_in_an_unread_minute_is_still_counted_from_before() -> None:
    first = Payment(START, "a", device="d")
    again = Payment(START + HOUR, "a", device="d")
    assert_both_agree(History([first, again, Payment(START + HOUR + MINUTE, "b", device="d")], []))


def test_a_customer_with_more_events_than_are_kept() -> None:
    """10,000 payments in 20 days: the newest 1,024 are kept, while day buckets and merchants go on counting."""
    rng = np.random.default_rng(3)
    times = np.sort(rng.integers(0, 20 * DAY, 10_000)) + START
    amounts = rng.integers(1, 500_000, 10_000)
    payments = [
        Payment(int(t), "a", f"m{a % 40}", int(a), country="BE" if a % 3 else "FR", device=f"d{a % 7}")
        for t, a in zip(times, amounts, strict=True)
    ]
    payments += [Payment(START + day * DAY, "a", country="FR") for day in (21, 32, 49, 75, 81)]
    rows = [0, 1, 1_023, 1_024, 1_025, 5_000, 9_999, *range(10_000, 10_005)]
    assert_both_agree(History(payments, []), rows)


def test_a_simulated_world_at_sampled_rows() -> None:
    """Thousands of payments of many merchants and devices over 100 days: what small histories never make grow or move."""
    world = simulated_history(4_000, late_share=0.02)
    payments = [payment_of(transaction) for transaction in transactions_of(world.events)]
    changes = [change_from(label) for label in label_changes_of(world.labels)]
    rows = sorted(np.random.default_rng(1).choice(4_000, 40, replace=False).tolist())
    assert_both_agree(History(payments, changes), rows)


def test_constant_amounts_have_no_zscore() -> None:
    payments = [Payment(START + i, "a", amount_minor=10) for i in range(3)] + [
        Payment(START + 5, "a", amount_minor=500)
    ]
    assert_both_agree(History(payments, []))


def test_the_hour_repeats_and_is_skipped_when_clocks_change() -> None:
    spring, autumn = 1_743_296_400 * SECOND, 1_761_440_400 * SECOND  # 2025-03-30 and 2025-10-26, 01:00 UTC
    payments = [Payment(at + step, "a") for at in (spring, autumn) for step in (-HOUR, -1, 0, 1, HOUR - 1, HOUR)]
    assert_both_agree(History(payments, []), time_zone="Europe/Brussels")
