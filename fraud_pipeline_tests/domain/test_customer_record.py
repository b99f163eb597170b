"""A customer's own history as bytes: what is read after a load is what was read before it, in whatever state it is loaded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.customer_record import PREFIX, CustomerRecords, last_time_us, load_customers
from fraud_pipeline.domain.feature_customer_record import MERCHANTS_KEPT
from fraud_pipeline.domain.feature_spec import FEATURES, KEPT_EVENTS, SCHEMA_HASH
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError
from fraud_pipeline_tests.domain.histories import History, histories, transaction_of

OWN = [place for place, feature in enumerate(FEATURES) if feature.entity in ("transaction", "customer")]
START = datetime(2026, 3, 1, tzinfo=UTC)
few = settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def own(state: FeatureState, transaction: Transaction) -> list[int]:
    return state.read(transaction)[OWN].view(np.uint32).tolist()


def payment(number: int, *, days: float, merchant: str = "shop", customer: str = "ann") -> Transaction:
    return Transaction(f"t{number}", START + timedelta(days=days), customer, merchant, 100 + number, country="DE")


def elsewhere() -> FeatureState:
    """A state that has met others first: every slot is another one."""
    state = FeatureState.empty()
    for number, name in enumerate(["zoe", "yan", "xia"]):
        state.update(
            Transaction(f"other-{number}", START, name, f"m-other-{number}", 77, country="NZ", device_id=f"d-{number}")
        )
    return state


@few
@given(histories(longest=30), st.data())
def test_own_features_after_a_load_are_those_before_it_wherever_the_log_is_cut(history: History, data: st.DataObject):
    payments = [transaction_of(each, number) for number, each in enumerate(history.payments)]
    cut = data.draw(st.integers(0, len(payments)))
    written_at = data.draw(st.sets(st.integers(0, cut)))
    state = FeatureState.empty()
    records = CustomerRecords(state)
    for number, each in enumerate(payments[:cut]):
        state.update(each)
        if number in written_at:
            records.of([each.customer_id])
    content = list(zip(state.customers, records.of(state.customers), strict=True))
    assert [each for _, each in content] == CustomerRecords(state).of(
        state.customers
    )  # however often it was written before
    other = elsewhere()
    load_customers(other, content)
    for each in payments[cut:]:
        assert own(other, each) == own(state, each)
        other.update(each)
        state.update(each)


@few
@given(histories(longest=20))
def test_a_record_of_a_loaded_customer_says_the_same(history: History):
    state, other = FeatureState.empty(), elsewhere()
    for number, each in enumerate(history.payments):
        state.update(transaction_of(each, number))
    content = list(zip(state.customers, CustomerRecords(state).of(state.customers), strict=True))
    load_customers(other, content)
    third = FeatureState.empty()
    load_customers(third, list(zip(state.customers, CustomerRecords(other).of(state.customers), strict=True)))
    for number, each in enumerate(history.payments):
        probe = transaction_of(each, 1_000 + number)
        assert own(third, probe) == own(state, probe)


def test_more_payments_than_are_kept_between_two_records_lose_no_merchant():
    state = FeatureState.empty()
    records = CustomerRecords(state)
    state.update(payment(0, days=0, merchant="first"))
    records.of(["ann"])
    for number in range(1, KEPT_EVENTS + 200):
        state.update(payment(number, days=1 + number * 1e-4, merchant=f"shop-{number % 1_100}"))
    other = FeatureState.empty()
    load_customers(other, [("ann", records.of(["ann"])[0])])
    for merchant in ("first", "shop-1", "shop-1099", "never"):
        probe = payment(9_999, days=20, merchant=merchant)
        assert own(other, probe) == own(state, probe)
    assert records.merchants_left_out == 0


def test_a_customer_who_began_anew_is_written_without_what_was_forgotten():
    state = FeatureState.empty()
    records = CustomerRecords(state)
    state.update(payment(0, days=0, merchant="old"))
    records.of(["ann"])
    state.update(payment(1, days=91, merchant="new"))
    content = records.of(["ann"])[0]
    assert b"new\0" in content
    assert b"old\0" not in content
    assert last_time_us(content) == microseconds(START + timedelta(days=91))


def test_a_record_is_bounded_and_what_has_no_room_is_counted():
    state = FeatureState.empty()
    records = CustomerRecords(state)
    for number in range(MERCHANTS_KEPT + 100):
        state.update(payment(number, days=number * 1e-4, merchant=f"shop-{number}"))
        if number % 500 == 0:
            records.of(["ann"])
    before = records.merchants_left_out
    content = records.of(["ann"])[0]
    assert content.count(b"shop-") == MERCHANTS_KEPT
    assert b"shop-4195\0" in content  # the newest are kept
    assert records.merchants_left_out - before == 100


def test_a_loaded_customer_replaces_the_one_that_was_there():
    state, other = FeatureState.empty(), elsewhere()
    state.update(payment(0, days=0, merchant="bakery"))
    other.update(payment(1, days=5, merchant="casino", customer="ann"))
    zoe = payment(2, days=6, merchant="m-other-0", customer="zoe")
    before = own(other, zoe)
    load_customers(other, [("ann", CustomerRecords(state).of(["ann"])[0])])
    for merchant in ("bakery", "casino"):
        probe = payment(3, days=6, merchant=merchant)
        assert own(other, probe) == own(state, probe)
    assert own(other, zoe) == before


def test_many_are_loaded_at_once_into_a_state_that_grows():
    state = FeatureState.empty()
    for number in range(6_000):
        state.update(payment(number, days=number * 1e-3, merchant=f"shop-{number % 700}", customer=f"c{number % 900}"))
    other = FeatureState.empty()
    load_customers(other, list(zip(state.customers, CustomerRecords(state).of(state.customers), strict=True)))
    probes = [
        payment(number, days=7, merchant=f"shop-{number % 700}", customer=f"c{number % 900}") for number in range(1_000)
    ]
    assert [own(other, probe) for probe in probes] == [own(state, probe) for probe in probes]


def ann() -> bytes:
    state = FeatureState.empty()
    state.update(payment(0, days=0))
    return CustomerRecords(state).of(["ann"])[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"own1" + b"0" * 12 + ann()[16:],
            rf"customer ann is of schema 000000000000 \(own1\), this code reads {SCHEMA_HASH}",
        ),
        (b"own9" + ann()[4:], r"\(own9\)"),
        (b"", "does not begin with its schema"),
        (b"\xff" * 200, "does not begin with its schema"),
        (ann()[:-8], "customer ann is not whole"),
        (ann()[:-1], "customer ann is not whole"),
        (ann() + b"\0" * 8, "customer ann is not whole"),
        (PREFIX, "customer ann is not whole"),
    ],
)
def test_what_is_not_a_whole_record_of_this_schema_is_refused_and_changes_nothing(content: bytes, reason: str):
    state = elsewhere()
    before = state.snapshot()
    with pytest.raises(StateError, match=reason):
        load_customers(state, [("bob", ann()), ("ann", content)])
    assert state.snapshot() == before
