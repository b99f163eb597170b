"""A replica's own payments: when they leave, and which records are too old then."""

from __future__ import annotations

from dataclasses import replace

from fraud_pipeline.adapters.own_events import OwnEvents
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline_tests.adapters.test_replica_scorer import PAYMENT

WRITER = "transactions[0]"


def test_a_payment_leaves_with_the_view_and_a_record_that_was_read_before_that_is_too_old():
    own, state = OwnEvents(), FeatureState.empty()
    own.add(PAYMENT, WRITER)
    later = replace(PAYMENT, transaction_id="later")
    own.add(later, WRITER)
    own.confirmed(PAYMENT.transaction_id, WRITER, 7, 0.0)
    assert own.missing(PAYMENT.customer_id, {WRITER: 8}, state) == [later]
    assert own.missing(PAYMENT.customer_id, {WRITER: 7}, state) == [PAYMENT, later]
    assert not own.lacks(WRITER, 7)
    own.passed({WRITER: 8})
    assert own.lacks(WRITER, 7)
    assert not own.lacks(WRITER, 8)
    assert not own.lacks("transactions[1]", 0)
    assert own.missing(PAYMENT.customer_id, {WRITER: 8}, state) == [later]
