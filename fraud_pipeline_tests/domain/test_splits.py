from datetime import date, timedelta

import numpy as np
import pytest

from fraud_pipeline.domain.splits import DayRange, midnight_us, plan_split, split_data
from fraud_pipeline.errors import TrainingDataError
from fraud_pipeline_tests.domain.learning_worlds import payments

FIRST = date(2026, 1, 1)


def history(days, frauds_a_day):
    return np.arange(np.datetime64(FIRST), np.datetime64(FIRST) + days), np.full(days, frauds_a_day)


def test_the_demo_history_gets_weeks_a_gap_and_a_warm_up():
    as_of = FIRST + timedelta(days=120)
    split = plan_split(*history(120, 25), as_of=as_of)
    assert split.test == DayRange(as_of - timedelta(days=14), as_of - timedelta(days=7))
    assert split.validation == DayRange(as_of - timedelta(days=21), as_of - timedelta(days=14))
    assert split.train.end == split.validation.start - timedelta(days=7)
    assert split.train.start == FIRST + timedelta(days=30)
    assert split.warm_up_days == 30
    assert split.refit == DayRange(split.train.start, split.test.end)
    assert split.out_of_time == DayRange(split.validation.start, split.test.end)
    assert split.reference.days == 7
    assert split.reference.end == split.test.end


def test_periods_grow_until_each_holds_enough_frauds():
    split = plan_split(*history(200, 10), as_of=FIRST + timedelta(days=200))
    assert split.test.days == 10
    assert split.validation.days == 10


def test_only_the_poor_period_grows():
    days, frauds = history(120, 20)
    frauds[-14:-7] = 10  # the newest mature week
    split = plan_split(days, frauds, as_of=FIRST + timedelta(days=120))
    assert split.test.days == 9
    assert split.validation.days == 7


def test_the_warm_up_shrinks_before_anything_fails():
    split = plan_split(*history(60, 20), as_of=FIRST + timedelta(days=60))
    assert split.train.end == FIRST + timedelta(days=32)
    assert split.warm_up_days == 16
    tight = plan_split(*history(36, 20), as_of=FIRST + timedelta(days=36))
    assert tight.warm_up_days == 1
    assert tight.train.days == 7


def test_the_warm_up_gives_way_to_frauds():
    days, frauds = history(80, 20)
    frauds[10:60] = 1
    split = plan_split(days, frauds, as_of=FIRST + timedelta(days=80))
    assert split.warm_up_days < 10
    found = frauds[(days >= np.datetime64(split.train.start)) & (days < np.datetime64(split.train.end))].sum()
    assert found >= 100


def test_too_short_a_history_says_how_many_days_are_missing():
    with pytest.raises(TrainingDataError, match=r"5 more days of history .* for training .*there are 23 mature days"):
        plan_split(*history(30, 20), as_of=FIRST + timedelta(days=30))


def test_a_short_history_with_rare_frauds_estimates_the_days():
    with pytest.raises(TrainingDataError, match=r"17 more days .* for test \(66 of 100 frauds in 33 days\)"):
        plan_split(*history(40, 2), as_of=FIRST + timedelta(days=40), longest_days=60)


def test_too_few_frauds_in_a_long_history_says_how_many_are_missing():
    with pytest.raises(
        TrainingDataError, match=r"test period holds 28 known frauds in its longest 28 days.*72 are missing"
    ):
        plan_split(*history(300, 1), as_of=FIRST + timedelta(days=300), longest_days=28)


def test_a_history_without_fraud_is_refused():
    with pytest.raises(TrainingDataError, match="holds 0 known frauds"):
        plan_split(*history(300, 0), as_of=FIRST + timedelta(days=300))


def test_a_moment_before_the_history_is_refused():
    with pytest.raises(TrainingDataError, match="no payment before 2025-12-25"):
        plan_split(*history(30, 20), as_of=FIRST)


def test_days_after_the_moment_do_not_count():
    longer, shorter = history(150, 25), history(120, 25)
    as_of = FIRST + timedelta(days=120)
    assert plan_split(*longer, as_of=as_of) == plan_split(*shorter, as_of=as_of)


def test_a_moment_long_after_the_history_tests_on_its_last_days():
    split = plan_split(*history(120, 25), as_of=FIRST + timedelta(days=500))
    assert split.test.end == FIRST + timedelta(days=120)


def test_a_range_takes_its_first_microsecond_and_not_its_end():
    span = DayRange(FIRST, FIRST + timedelta(days=1))
    start = midnight_us(FIRST)
    times = np.array([start - 1, start, start + 86_400_000_000 - 1, start + 86_400_000_000])
    assert span.mask(times).tolist() == [False, True, True, False]
    assert str(span) == "2026-01-01 to 2026-01-01 (1 days)"


def test_the_split_of_data_counts_only_labels_known_by_then():
    data = payments(start=FIRST, days=80, per_day=200, fraud_rate=0.1, label_delay_days=20)
    early = split_data(data, as_of=FIRST + timedelta(days=80), frauds_needed=50)
    assert early.test.days > 7  # at A-M a label of 20 days has not come yet for the newest 13 days
    assert early.as_dict()["test"] == {"start": str(early.test.start), "end": str(early.test.end)}
