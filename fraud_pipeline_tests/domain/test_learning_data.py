from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from fraud_pipeline.domain.learning_data import NEVER_KNOWN, LabelVersions, eligible, labels_as_of
from fraud_pipeline.errors import TrainingDataError
from fraud_pipeline_tests.domain.learning_worlds import payments

START = date(2026, 1, 1)


def four_payments(**changes):
    data = payments(start=START, days=1, per_day=4, fraud_rate=0.0)
    return replace(data, **{name: np.array(values) for name, values in changes.items()})


def test_the_newest_label_known_by_the_moment_holds():
    ids = np.array(["a", "b", "a", "a"])
    fraud = np.array([True, True, False, True])
    known_at = np.array([10, 50, 20, 30])
    for as_of, expected in [
        (9, {}),
        (10, {"a": True}),
        (25, {"a": False}),
        (49, {"a": True}),
        (50, {"a": True, "b": True}),
    ]:
        found = labels_as_of(ids, fraud, known_at, as_of=as_of)
        assert dict(zip(found[0], found[1], strict=True)) == expected


def test_of_two_versions_known_at_once_the_one_recorded_last_holds():
    ids, fraud, known_at = np.array(["a", "a"]), np.array([True, False]), np.array([5, 5])
    assert labels_as_of(ids, fraud, known_at, as_of=5)[1].tolist() == [False]


def test_a_correction_is_not_there_before_it_was_made():
    versions = LabelVersions(np.array([1, 1, 3]), np.array([True, False, True]), np.array([100, 200, 300]))
    data = replace(four_payments(), label_versions=versions)
    assert data.as_known_at(99).is_fraud.tolist() == [False] * 4
    assert data.as_known_at(150).is_fraud.tolist() == [False, True, False, False]
    later = data.as_known_at(250)
    assert later.is_fraud.tolist() == [False] * 4
    assert later.labelled.tolist() == [False, True, False, False]
    assert later.label_known_at.tolist() == [NEVER_KNOWN, 200, NEVER_KNOWN, NEVER_KNOWN]


def test_going_back_works_without_versions_too():
    data = four_payments(
        is_fraud=[True, False, True, False], labelled=[True, True, True, False], label_known_at=[5, 6, 7, NEVER_KNOWN]
    )
    then = data.as_known_at(6)
    assert then.is_fraud.tolist() == [True, False, False, False]
    assert then.labelled.tolist() == [True, True, False, False]
    assert then.as_known_at(7).is_fraud.tolist() == [True, False, True, False]


def test_versions_follow_their_rows_through_a_selection():
    versions = LabelVersions(np.array([0, 3, 2]), np.array([True, True, True]), np.array([1, 2, 3]))
    part = replace(four_payments(), label_versions=versions).rows(np.array([False, False, True, True]))
    assert part.as_known_at(2).is_fraud.tolist() == [False, True]
    assert part.as_known_at(3).is_fraud.tolist() == [True, True]
    assert len(part.rows(slice(1, 2))) == 1
    assert part.rows(slice(1, 2)).transaction_id.tolist() == ["3"]


def test_blocked_payments_count_only_with_a_label_or_as_the_control_share():
    data = four_payments(
        blocked=[True, True, False, False], labelled=[False, True, False, False], control=[False, False, True, False]
    )
    kept = eligible(data, control_share=0.01)
    assert kept.transaction_id.tolist() == ["1", "2", "3"]
    assert kept.weight.tolist() == pytest.approx([1.0, 100.0, 1.0])


def test_the_control_share_restores_the_base_rate():
    rng = np.random.default_rng(0)
    n, share = 200_000, 0.25
    data = payments(start=START, days=10, per_day=n // 10, features=1)
    fraud = rng.random(n) < 0.02
    would_block = np.where(fraud, rng.random(n) < 0.6, rng.random(n) < 0.01)
    control = would_block & (rng.random(n) < share)
    blocked = would_block & ~control
    data = replace(data, is_fraud=fraud & ~blocked, labelled=fraud & ~blocked, blocked=blocked, control=control)
    kept = eligible(data, control_share=share)
    rate = np.average(kept.is_fraud, weights=kept.weight)
    assert rate == pytest.approx(0.02, rel=0.08)
    assert data.is_fraud.mean() < 0.012


def test_without_decisions_everything_counts():
    data = four_payments()
    assert eligible(data, control_share=0.0) is data


def test_a_control_payment_needs_the_share_it_was_drawn_with():
    with pytest.raises(TrainingDataError, match="1 payments are marked"):
        eligible(four_payments(control=[True, False, False, False]), control_share=0.0)


def test_frauds_are_counted_by_day_with_empty_days_between():
    data = payments(start=START, days=3, per_day=50)
    data = data.rows(data.day != np.unique(data.day)[1])
    days, frauds = data.frauds_by_day()
    assert days.astype(str).tolist() == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert frauds[1] == 0
    assert frauds.sum() == data.is_fraud.sum()


def test_arrays_of_another_length_are_named():
    data = four_payments()
    with pytest.raises(TrainingDataError, match="weight has 3 entries for 4 payments"):
        replace(data, weight=np.ones(3, dtype=np.float32))
    with pytest.raises(TrainingDataError, match="6 names"):
        replace(data, features=data.features[:, :5])
