"""Exact explanations: they add up to the served score, name every input, and say values as people do."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from fraud_pipeline.domain.exact_explanation import ExactExplanation, explain_exactly, value_text
from fraud_pipeline.domain.feature_spec import FEATURES, INDEX
from fraud_pipeline.errors import BundleError, SchemaMismatch
from fraud_pipeline_tests.bundles import MODEL_INPUT, loaded_bundle, payments


def explained(vector: np.ndarray, added: np.ndarray | None = None) -> ExactExplanation:
    """With all of the score above 0.25 given to the first input, or as `added` says."""
    bundle = loaded_bundle()
    if added is None:
        added = np.zeros(len(vector) + 1)
        added[-1] = 0.25
        added[0] = float(bundle.score(vector.reshape(1, -1)).raw[0]) - 0.25
    return explain_exactly(bundle, vector, contributions=added)


def vector_of(**named: float) -> np.ndarray:
    """A payment's vector, with other values for these inputs."""
    vector = payments()[0][3].copy()
    for name, value in named.items():
        vector[MODEL_INPUT.names.index(name)] = value
    return vector


def test_base_value_contributions_and_rounding_add_up_to_the_served_score() -> None:
    explanation = explained(vector_of())
    total = explanation.base_value + sum(c.contribution for c in explanation.contributions) + explanation.rounding
    assert total == pytest.approx(explanation.raw_score, abs=1e-12)
    scores = loaded_bundle().score(vector_of().reshape(1, -1))
    assert (explanation.raw_score, explanation.fraud_probability) == (
        float(scores.raw[0]),
        float(scores.probability[0]),
    )
    assert (explanation.model_version, explanation.score_unit) == ("7", "log-odds")
    thresholds = loaded_bundle().thresholds
    assert (explanation.review, explanation.block) == (thresholds.review, thresholds.block)


def test_the_order_is_by_absolute_effect_and_by_place_where_effects_are_equal() -> None:
    raw = float(loaded_bundle().score(vector_of().reshape(1, -1)).raw[0])
    added = np.zeros(len(MODEL_INPUT.names) + 1)
    added[[4, 2, 7]] = 0.5, -3.0, -0.5
    added[-1] = raw - added.sum()
    contributions = explained(vector_of(), added).contributions
    assert [c.feature for c in contributions[:5]] == [MODEL_INPUT.names[place] for place in (2, 4, 7, 0, 1)]
    assert sorted(c.feature for c in contributions) == sorted(MODEL_INPUT.names)


def test_contributions_that_miss_the_score_are_refused() -> None:
    with pytest.raises(BundleError, match=r"under version 7 miss its score by -?\d"):
        explained(vector_of(), np.full(len(MODEL_INPUT.names) + 1, 1.0))


def test_a_vector_of_other_inputs_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="64 inputs, and version 7 reads 65"):
        explained(vector_of()[1:], np.zeros(66))


def test_inputs_say_what_they_mean_with_codes_as_words() -> None:
    vector = vector_of(
        amount=137.99, is_night=1, hour=4, seconds_since_customer_last=math.nan, channel_code=1, country_code=math.nan,
        **{"attributes.ip_risk": 0.25},
    )  # fmt: skip
    found = {c.feature: c for c in explained(vector).contributions}
    amount, channel, country = found["amount"], found["channel_code"], found["country_code"]
    assert (amount.value, amount.text, amount.unit) == (137.99, "137.99", "currency")
    assert amount.meaning == FEATURES[INDEX["amount"]].meaning
    assert (found["is_night"].text, found["hour"].text) == ("yes", "04:00")
    assert (channel.value, channel.text, channel.meaning) == (1.0, "online", "The channel, by the bundle's code")
    assert (country.value, country.text) == (None, "missing")
    assert country.meaning.endswith("(missing: none given, or one not seen in training)")
    assert found["attributes.ip_risk"].meaning == "The payment's own attribute ip_risk"
    last = found["seconds_since_customer_last"]
    assert (last.value, last.text) == (None, "missing")
    assert last.meaning == "Time since the customer's last payment (missing: the customer's first payment)"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (math.nan, "flag", "missing"),
        (0.0, "flag", "no"),
        (5.0, "day", "Saturday"),
        (17.0, "hour", "17:00"),
        (42.0, "s", "42 s"),
        (90.0, "s", "1.5 min"),
        (7_200.0, "s", "2 h"),
        (1_123_200.0, "s", "13 d"),
        (0.0123, "share", "1.23%"),
        (1_234.5, "currency", "1,234.50"),
        (3.14159, "ratio", "3.142 ×"),
        (12_345.6, "km/h", "12,346 km/h"),
        (3.0, "payments", "3"),
        (-1.5, "standard deviations", "-1.5"),
        (1e30, "", "1.000e+30"),
    ],
)
def test_values_are_said_with_their_units(value: float, unit: str, text: str) -> None:
    assert value_text(value, unit) == text


def test_every_features_value_can_be_said() -> None:
    for feature in FEATURES:
        for value in (math.nan, 0.0, 1.0, -3.5, 1e9, 3.4e38):
            assert value_text(value, feature.unit)


def test_it_is_json() -> None:
    explanation = explained(vector_of(channel_code=math.nan))
    stored = json.loads(json.dumps(explanation.as_dict(), allow_nan=False))
    assert stored["method"] == "tree_path_dependent_shap"
    assert stored["contributions"][0].keys() == {"feature", "value", "text", "contribution", "meaning", "unit"}
    assert stored["raw_score"] == explanation.raw_score
    assert len(stored["contributions"]) == len(MODEL_INPUT.names)


def test_a_threshold_that_no_score_reaches_is_none() -> None:
    bundle = loaded_bundle()
    never = dataclasses.replace(bundle.thresholds, block=float(np.finfo(np.float32).max))
    vector = vector_of()
    added = np.zeros(len(vector) + 1)
    added[-1] = bundle.score(vector.reshape(1, -1)).raw[0]
    other = type(bundle)(
        path=bundle.path, fingerprint=bundle.fingerprint, version="8", scorer=bundle.scorer, walk=bundle.walk,
        facts=dataclasses.replace(bundle.facts, thresholds=never), features=FEATURES,
    )  # fmt: skip
    explanation = explain_exactly(other, vector, contributions=added)
    assert (explanation.review, explanation.block) == (never.review, None)
