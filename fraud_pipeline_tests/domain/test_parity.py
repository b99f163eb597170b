"""The parity proof proves: no difference where there is none, and every harm is found and named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fraud_pipeline.domain.column_events import label_changes_of, transactions_of
from fraud_pipeline.domain.feature_columns import LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.parity import Mutation, run_parity
from fraud_pipeline.errors import InputError
from fraud_pipeline_tests.domain.histories import (
    START,
    change_of,
    event_columns,
    label_change_of,
    label_columns,
    transaction_of,
)
from fraud_pipeline_tests.domain.oracle import DAY, HOUR, Payment

PAYMENTS = [
    Payment(
        START + i * 7 * HOUR - (i % 11 == 0) * DAY, f"c{i % 5}", f"m{i % 3}", 100 + 37 * i, country="BE", device="d"
    )
    for i in range(200)
]
CHANGES = [change_of(PAYMENTS[i], PAYMENTS[i].time + 8 * DAY) for i in (20, 60, 90, 150)]
EVENTS, LABELS = event_columns(PAYMENTS), label_columns(CHANGES)


def test_batch_and_online_agree_over_a_restore_in_the_middle() -> None:
    report = run_parity(EVENTS, LABELS)
    assert (report.rows, report.labels, report.features) == (200, 4, len(FEATURE_NAMES))
    assert report.compared_values == 200 * len(FEATURE_NAMES)
    assert (report.differing_values, report.first_difference, report.differing_by_feature) == (0, None, {})
    assert report.snapshot_row == 100
    assert report.snapshot_bytes > 1_000
    assert report.equal
    assert report.batch_seconds is None


def test_one_ulp_in_one_value_is_one_difference_and_is_named() -> None:
    report = run_parity(EVENTS, LABELS, mutate="ulp")
    assert report.differing_values == 1
    assert not report.equal
    first = report.first_difference
    assert first is not None
    assert (first.row, first.feature, first.customer_id) == (100, "amount", "c0")
    assert abs(int(first.batch_bits, 16) - int(first.online_bits, 16)) == 1


@pytest.mark.parametrize("mutate", ["drop_event", "drop_label"])
def test_a_dropped_event_or_label_is_found_near_the_middle(mutate: Mutation) -> None:
    report = run_parity(EVENTS, LABELS, mutate=mutate)
    assert report.differing_values > 0
    assert not report.states_equal
    assert not report.equal
    assert report.first_difference is not None
    assert 50 < report.first_difference.row < 180


def test_a_mutation_without_anything_to_harm_says_so() -> None:
    alone = event_columns([Payment(START + i * HOUR, f"c{i}") for i in range(5)])
    with pytest.raises(InputError, match="drop_event: no customer pays twice"):
        run_parity(alone, LabelColumns.empty(), mutate="drop_event")
    with pytest.raises(InputError, match="drop_label: no fraud label is read"):
        run_parity(alone, LabelColumns.empty(), mutate="drop_label")


def test_nothing_to_compare_is_not_a_success() -> None:
    with pytest.raises(InputError, match="no payment to compare"):
        run_parity(event_columns([]), LabelColumns.empty())


def test_the_report_is_json_with_the_agreed_keys() -> None:
    ticks = iter([10.0, 11.5, 14.0])
    content = run_parity(EVENTS, LABELS, mutate="drop_label", clock=lambda: next(ticks)).to_json()
    assert {"rows", "features", "compared_values", "differing_values", "first_difference"} <= set(content)
    assert (content["batch_seconds"], content["online_seconds"]) == (1.5, 2.5)
    assert json.loads(json.dumps(content, allow_nan=False))["mutation"] == "drop_label"


def test_progress_ends_at_all_rows() -> None:
    seen: list[tuple[int, int]] = []
    run_parity(EVENTS, LABELS, progress=lambda done, rows: seen.append((done, rows)))
    assert seen == [(200, 200)]


def test_columns_turn_back_into_the_events_they_were_made_from() -> None:
    payments = [
        Payment(START + 1, "a", "m1", 0, "food", "pos", "FR", "d", 1.5, -2.25),
        Payment(START - 1, "b"),
        Payment(START, "a", "m1", 10**9, "food", "pos", None, "d"),
    ]
    made = list(transactions_of(event_columns(payments)))
    assert [t.event_time for t in made] == [transaction_of(p, 0).event_time for p in payments]
    for transaction, payment in zip(made, payments, strict=True):
        expected = transaction_of(payment, 0)
        assert transaction == replace(expected, transaction_id=transaction.transaction_id)
    assert [t.transaction_id for t in made] == ["0", "1", "2"]
    (change,) = label_changes_of(label_columns(CHANGES[:1]))
    expected_change = label_change_of(CHANGES[0])
    for name in ("change", "known_at", "event_time", "merchant_id", "merchant_category", "channel", "country"):
        assert getattr(change, name) == getattr(expected_change, name)


def test_many_rows_are_compared_in_portions() -> None:
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(0, 30 * DAY, 9_000)) + START
    payments = [Payment(int(t), f"c{i % 70}", f"m{i % 9}") for i, t in enumerate(times)]
    seen: list[int] = []
    report = run_parity(event_columns(payments), LabelColumns.empty(), progress=lambda done, _: seen.append(done))
    assert seen == [8_192, 9_000]
    assert report.equal
