from __future__ import annotations

from dataclasses import replace

import numpy as np

from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.input_translation import InputTranslation
from fraud_pipeline.domain.model_input import InputAssembler, ModelInput
from fraud_pipeline.domain.transaction import Transaction, parse_transaction

OLD = ModelInput.of(FEATURES, attributes=("ip_risk",), codes={"channel": ("online", "pos"), "country": ("DE", "FR")})
NEW = ModelInput.of(
    FEATURES, attributes=("age", "ip_risk"), codes={"country": ("AT", "DE", "FR"), "channel": ("atm", "online", "pos")}
)


def payment(**fields: object) -> Transaction:
    told = {
        "transaction_id": "t", "event_time": "2026-03-01T12:00:00Z", "customer_id": "c", "merchant_id": "m", "amount": 5,
        "attributes": {"ip_risk": 0.25, "age": 40}, **fields,
    }  # fmt: skip
    return parse_transaction(told)


def test_a_vector_recorded_for_one_bundle_becomes_the_vector_that_another_would_have_read():
    payments = [payment(country="FR", channel="pos"), payment(country="AT", channel="atm"), payment(attributes={})]
    computed = np.random.default_rng(1).random((len(payments), len(FEATURES)), dtype=np.float32)
    recorded = InputAssembler(NEW).vectors(computed, payments)
    translation = InputTranslation.between(NEW, OLD)
    assert translation is not None
    np.testing.assert_array_equal(translation.apply(recorded), InputAssembler(OLD).vectors(computed, payments))


def test_the_same_inputs_stay_as_they_are():
    translation = InputTranslation.between(NEW, ModelInput.from_dict(NEW.as_dict()))
    assert translation is not None
    vectors = np.random.default_rng(2).random((4, len(NEW.names)), dtype=np.float32)
    assert translation.apply(vectors) is vectors


def test_what_was_not_recorded_cannot_be_read():
    changed = replace(OLD, computed=((OLD.computed[0][0], "another definition"), *OLD.computed[1:]))
    assert InputTranslation.between(OLD, changed) is None
    assert InputTranslation.between(OLD, NEW) is None, "an attribute that the old one does not have"
    assert InputTranslation.between(replace(OLD, codes={}), OLD) is None
    fewer = replace(OLD, computed=OLD.computed[:5], attributes=(), codes={})
    translation = InputTranslation.between(OLD, fewer)
    assert translation is not None
    vectors = np.arange(2 * len(OLD.names), dtype=np.float32).reshape(2, -1)
    np.testing.assert_array_equal(translation.apply(vectors), vectors[:, :5])
