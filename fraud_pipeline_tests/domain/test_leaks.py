"""Nothing leaks backwards: whatever happens later in the log, no earlier feature moves a bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_spec import INDEX
from fraud_pipeline_tests.domain.histories import START, History, change_of, event_columns, histories, label_columns
from fraud_pipeline_tests.domain.oracle import DAY, HOUR, MINUTE, Change, Payment

quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
LABEL_FEATURES = [i for name, i in INDEX.items() if "fraud" in name]


def features(payments: list[Payment], changes: list[Change]) -> np.ndarray:
    return compute_features(event_columns(payments), label_columns(changes)).values


def assert_same_bits(before: np.ndarray, after: np.ndarray) -> None:
    np.testing.assert_array_equal(before.view(np.uint32), after.view(np.uint32))


@quick
@given(histories(longest=30), histories(longest=10), st.data())
def test_another_future_changes_no_earlier_feature(history: History, future: History, data: st.DataObject) -> None:
    """Keep the log up to a payment; everything after it, payments and labels, is replaced by another history."""
    assume(history.payments)
    keep = data.draw(st.integers(1, len(history.payments)))
    now = max(p.time for p in history.payments[:keep])
    known = [c for c in history.changes if c.known_at <= now]
    unknown = [c for c in future.changes if c.known_at > now]
    before = features(history.payments, history.changes)[:keep]
    after = features(history.payments[:keep] + future.payments, known + unknown)[:keep]
    assert_same_bits(before, after)


@quick
@given(histories(longest=30, late=False), st.data())
def test_a_label_has_no_effect_before_it_is_known(history: History, data: st.DataObject) -> None:
    assume(history.payments)
    about = data.draw(st.sampled_from(history.payments))
    at = data.draw(st.sampled_from(history.payments)).time + data.draw(st.sampled_from([-1, 0, 1, MINUTE]))
    label = change_of(about, at, data.draw(st.sampled_from([1, -1])))
    earlier = [i for i, p in enumerate(history.payments) if p.time <= at]
    without = features(history.payments, history.changes)
    with_it = features(history.payments, [*history.changes, label])
    assert_same_bits(without[earlier], with_it[earlier])
    others = [i for i in range(without.shape[1]) if i not in LABEL_FEATURES]
    assert_same_bits(without[:, others], with_it[:, others])


@quick
@given(histories(longest=30, late=False), st.data())
def test_changing_one_payment_changes_nothing_before_it(history: History, data: st.DataObject) -> None:
    assume(history.payments)
    at = data.draw(st.integers(0, len(history.payments) - 1))
    payments = list(history.payments)
    payments[at] = Payment(payments[at].time, "b", "m1", 123_456, country="FR", device="d1")
    before, after = features(history.payments, history.changes), features(payments, history.changes)
    assert_same_bits(before[:at], after[:at])


@quick
@given(histories(longest=20, late=False))
def test_a_payment_does_not_see_itself(history: History) -> None:
    """Of all customer and shared aggregates: the last payment's amount moves only the features that are about an amount."""
    assume(history.payments)
    payments = list(history.payments)
    last = payments[-1]
    payments[-1] = Payment(
        last.time, last.customer, last.merchant, last.amount_minor + 1, last.category, last.channel,
        last.country, last.device, last.latitude, last.longitude,
    )  # fmt: skip
    before, after = features(history.payments, history.changes)[-1], features(payments, history.changes)[-1]
    aggregates = [i for name, i in INDEX.items() if not name.startswith("amount")]
    assert_same_bits(before[aggregates], after[aggregates])


@pytest.mark.parametrize(
    ("wait", "known"), [(0, False), (1, False), (3 * MINUTE - 1, False), (3 * MINUTE, True), (DAY, True)]
)
def test_a_label_is_read_once_its_minute_is_readable_and_not_before(wait: int, known: bool) -> None:
    """The control of the tests above: the label does have an effect, three minutes after the start of its minute."""
    paid = Payment(START, "a")
    at = START + 8 * DAY + 5 * HOUR
    reader = Payment(at + wait, "b")
    without, with_it = features([paid, reader], []), features([paid, reader], [change_of(paid, at)])
    assert (without[1].tobytes() != with_it[1].tobytes()) is known
    assert np.isnan(with_it[1, INDEX["merchant_seconds_since_last_fraud"]]) != known
