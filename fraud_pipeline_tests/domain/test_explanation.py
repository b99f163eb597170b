"""Contributions become reasons: largest first, missing values told, the sum kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fraud_pipeline.domain.explanation import MAX_REASONS, Reason, explain, strongest_reasons
from fraud_pipeline.domain.reasons import rising_contributions
from fraud_pipeline_tests.bundles import loaded_bundle, payments


def reasons_of(names: Sequence[str], values: list[float], contributions: list[float]) -> tuple[Reason, ...]:
    return strongest_reasons(names, np.array(values, dtype=np.float32), rising_contributions(np.array(contributions)))


def test_reasons_are_what_raised_the_score_largest_first_and_ties_by_place() -> None:
    names = ("a", "b", "c", "d", "e")
    reasons = reasons_of(names, [1.0, 2.0, float("nan"), 4.0, 5.0], [0.2, -3.0, 0.7, 0.2, 0.0, 9.0])
    assert reasons == (Reason("c", None, 0.7), Reason("a", 1.0, 0.2), Reason("d", 4.0, 0.2))


def test_values_are_told_to_as_many_digits_as_a_float32_holds() -> None:
    (reason,) = reasons_of(("amount",), [137.99], [0.14044069599524, 0.0])
    assert (reason.value, reason.contribution) == (137.99, 0.1404407)


def test_there_are_no_more_reasons_than_an_analyst_reads() -> None:
    names = tuple("abcdefghijklmnop")
    assert len(reasons_of(names, [0.0] * 16, [1.0] * 17)) == MAX_REASONS
    assert reasons_of(names, [0.0] * 16, [-1.0] * 17) == ()


@pytest.mark.parametrize("kind", ["xgboost", "random_forest"])
def test_an_explanation_of_all_inputs_adds_up_to_the_score(kind: str) -> None:
    bundle, vector = loaded_bundle(kind), payments()[0][3]
    explanation = explain(bundle, vector)
    assert sorted(r.feature for r in explanation.reasons) == sorted(bundle.input_names)
    total = explanation.bias + sum(r.contribution for r in explanation.reasons)
    assert total == pytest.approx(explanation.raw, abs=1e-4)
    sizes = [abs(r.contribution) for r in explanation.reasons]
    assert sizes == sorted(sizes, reverse=True)
    by_name = {r.feature: r.value for r in explanation.reasons}
    for name, value in zip(bundle.input_names, vector, strict=True):
        assert by_name[name] is None if np.isnan(value) else np.float32(by_name[name]) == pytest.approx(value, rel=1e-6)
