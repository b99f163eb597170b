"""Vectors for the models: one by one and many at once, and what happens when bundle and code disagree."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.model_input import InputAssembler, ModelInput, required_columns
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import SchemaMismatch

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SOME = FEATURES[3:7]
INPUT = ModelInput.of(
    SOME, attributes=("ip_risk", "avs"), codes={"country": ("DE", "FR"), "merchant_category": ("food",)}
)


def payment(**fields: object) -> Transaction:
    return Transaction("t", NOON, "c", "m", 100, **fields)  # type: ignore[arg-type]


def test_names_are_features_then_attributes_then_codes() -> None:
    names = tuple(f.name for f in SOME)
    assert INPUT.names == (*names, "attributes.ip_risk", "attributes.avs", "country_code", "merchant_category_code")


def test_a_vector_holds_what_the_payment_has_and_nan_for_the_rest() -> None:
    computed = np.arange(len(FEATURES), dtype=np.float32)
    vector = InputAssembler(INPUT).vector(computed, payment(attributes={"avs": 0.25, "other": 9.0}, country="FR"))
    np.testing.assert_array_equal(vector, np.array([3, 4, 5, 6, np.nan, 0.25, 1, np.nan], dtype=np.float32))
    assert vector.dtype == np.float32


def test_a_matrix_has_the_bits_of_its_vectors() -> None:
    rng = np.random.default_rng(0)
    computed = rng.normal(size=(40, len(FEATURES))).astype(np.float32)
    computed[rng.random(computed.shape) < 0.1] = np.nan
    countries = [None if i % 5 == 0 else ("DE", "FR", "US")[i % 3] for i in range(40)]
    categories = ["food" if i % 2 else "fuel" for i in range(40)]
    risk = rng.random(40)
    risk[7] = np.nan
    payments = [
        payment(
            country=country, merchant_category=category, attributes={} if np.isnan(value) else {"ip_risk": float(value)}
        )
        for country, category, value in zip(countries, categories, risk, strict=True)
    ]
    assembler = InputAssembler(INPUT)
    matrix = assembler.matrix(
        computed, attributes={"ip_risk": risk}, fields={"country": countries, "merchant_category": categories}
    )
    vectors = np.array([assembler.vector(row, each) for row, each in zip(computed, payments, strict=True)])
    assert matrix.tobytes() == vectors.tobytes()
    assert np.isnan(matrix[:, 5]).all()


def test_code_with_more_features_in_another_order_still_feeds_an_old_bundle() -> None:
    newer = (dataclasses.replace(FEATURES[0], name="brand_new"), *reversed(FEATURES))
    computed = np.array([-1.0, *range(len(FEATURES) - 1, -1, -1)], dtype=np.float32)
    vector = InputAssembler(INPUT, newer).vector(computed, payment())
    np.testing.assert_array_equal(vector[:4], [3, 4, 5, 6])


def test_a_feature_that_the_code_lacks_is_named() -> None:
    with pytest.raises(
        SchemaMismatch, match=rf"needs feature {SOME[1].name}, which this code does not compute"
    ) as raised:
        required_columns(INPUT, [f for f in FEATURES if f.name != SOME[1].name])
    assert "Promote" in raised.value.remedy


def test_a_feature_that_the_code_defines_otherwise_is_named() -> None:
    changed = [dataclasses.replace(f, revision=9) if f.name == SOME[2].name else f for f in FEATURES]
    with pytest.raises(SchemaMismatch, match=rf"computes feature {SOME[2].name} differently"):
        InputAssembler(INPUT, changed)


def test_many_missing_features_are_counted_rather_than_all_named() -> None:
    with pytest.raises(SchemaMismatch, match=r"amount, .* and 57 more"):
        required_columns(ModelInput.of(), ())


def test_it_comes_back_from_its_dict_and_its_hash_tells_inputs_apart() -> None:
    again = ModelInput.from_dict(INPUT.as_dict())
    assert again == INPUT
    assert again.schema_hash == INPUT.schema_hash
    others = [
        dataclasses.replace(INPUT, attributes=("avs", "ip_risk")),
        dataclasses.replace(INPUT, codes={"country": ("FR", "DE"), "merchant_category": ("food",)}),
        dataclasses.replace(INPUT, computed=(*INPUT.computed[:-1], (SOME[-1].name, "changed"))),
    ]
    assert len({INPUT.schema_hash, *(other.schema_hash for other in others)}) == 4


def test_codes_of_other_fields_and_names_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="customer_id"):
        ModelInput.of(codes={"customer_id": ("a",)})
    with pytest.raises(ValueError, match="twice"):
        ModelInput.of(attributes=("a", "a"))
