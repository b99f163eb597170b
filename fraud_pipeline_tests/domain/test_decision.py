"""One payment to one Decision: verdicts, reasons, the control share, and the same bits again."""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide, decide_on, in_control_share
from fraud_pipeline.domain.explanation import Reason
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.thresholds import NEVER, thresholds_at
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline_tests.bundles import MADE_AT, PLATT, computed, loaded_bundle, payments

NOON = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
DECIDED_AT = NOON + timedelta(milliseconds=250)
USUAL = computed(amount=24.0, amount_log=3.2, hour=14, is_night=0, first_time_at_merchant=0, device_changed=0)
STOLEN = computed(amount=900.0, amount_log=6.8, hour=2, is_night=1, first_time_at_merchant=1, device_changed=0)

GOLDEN_DRAW = [34, 68, 145, 359, 390, 476, 565, 598, 641, 730, 747, 786, 869, 937]


class Remembered:
    """A state in which the next payment's features are known."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector

    def read(self, transaction: Transaction) -> np.ndarray:
        assert transaction.customer_id == "c-1"
        return self.vector


def payment(transaction_id: str = "t-1", **fields: object) -> Transaction:
    given = {"attributes": {"ip_risk": 0.9}, "channel": "online", "country": "DE", **fields}
    return Transaction(transaction_id, NOON, "c-1", "m-1", 2_400, **given)  # type: ignore[arg-type]


def decided(
    vector: np.ndarray, transaction_id: str = "t-1", *, bundle: ModelBundle | None = None, **options: object
) -> Decision:
    arguments = {"decided_at": DECIDED_AT, "control_share": 0.0, **options}
    return decide(Remembered(vector), bundle or loaded_bundle(), payment(transaction_id), **arguments)  # type: ignore[arg-type]


def same_but_for_time(one: Decision, other: Decision) -> bool:
    return dataclasses.replace(one, decided_at=DECIDED_AT, processing_time_ms=0.0) == dataclasses.replace(
        other, decided_at=DECIDED_AT, processing_time_ms=0.0
    )


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """The same models with thresholds under which many payments are alerted."""
    wanted = thresholds_at(PLATT, review=0.02, block=0.05)
    return ModelBundle.load(
        loaded_bundle().with_thresholds(wanted, tmp_path_factory.mktemp("strict"), created_at=MADE_AT)
    )


def test_a_usual_payment_passes_without_reasons() -> None:
    decision = decided(USUAL)
    assert decision.decision == "APPROVE"
    assert decision.fraud_probability < 0.05
    assert (decision.reasons, decision.risk_factors, decision.control, decision.degraded) == ((), (), False, ())


def test_a_large_payment_at_night_at_a_new_merchant_is_blocked_and_says_why() -> None:
    decision = decided(STOLEN)
    assert decision.decision == "BLOCK"
    assert decision.fraud_probability > 0.6
    assert decision.risk_factors[0] in {"new_merchant", "unusual_hour", "high_amount"}
    assert {"new_merchant", "unusual_hour", "high_amount"} <= set(decision.risk_factors)
    contributions = [reason.contribution for reason in decision.reasons]
    assert contributions == sorted(contributions, reverse=True)
    assert min(contributions) > 0
    assert {r.feature: r.value for r in decision.reasons}["first_time_at_merchant"] == 1.0


def test_a_decision_names_its_bundle_its_inputs_and_the_payment() -> None:
    decision, bundle = decided(USUAL, degraded=("shared_state_lag",)), loaded_bundle()
    assert (decision.model_version, decision.feature_schema) == ("7", bundle.feature_schema)
    assert (decision.transaction_id, decision.event_time, decision.decided_at) == ("t-1", NOON, DECIDED_AT)
    assert decision.degraded == ("shared_state_lag",)
    np.testing.assert_array_equal(decision.vector[: len(FEATURES)], USUAL)
    np.testing.assert_array_equal(decision.vector[len(FEATURES) :], np.array([0.9, 1.0, 0.0], dtype=np.float32))


def test_thresholds_include_the_score_itself() -> None:
    bundle = loaded_bundle()
    raw = decided(USUAL).raw_score
    above = float(np.nextafter(raw, np.inf))
    for review, block, expected in (
        (raw, above, "REVIEW"), (raw, raw, "BLOCK"), (above, above, "APPROVE"), (raw, NEVER, "REVIEW"),
    ):  # fmt: skip
        thresholds = dataclasses.replace(bundle.thresholds, review=review, block=block)
        moved = object.__new__(ModelBundle)
        moved.__dict__.update(bundle.__dict__, facts=dataclasses.replace(bundle.facts, thresholds=thresholds))
        assert decided(USUAL, bundle=moved).decision == expected


def test_processing_time_is_measured_by_the_clock_given() -> None:
    ticks = itertools.count(1_000_000_000, 2_500_000)
    assert decided(USUAL, clock=lambda: next(ticks)).processing_time_ms == 2.5
    assert 0 < decided(USUAL).processing_time_ms < 1_000


def test_the_control_share_lets_blocks_through_as_marked_reviews_by_their_id_alone(strict: ModelBundle) -> None:
    ids = [f"t-{i}" for i in range(400)]
    drawn = [i for i in ids if in_control_share(i, 0.1)]
    assert 20 < len(drawn) < 60
    for transaction_id in ids:
        decision = decided(STOLEN, transaction_id, bundle=strict, control_share=0.1)
        expected = ("REVIEW", True) if transaction_id in drawn else ("BLOCK", False)
        assert (decision.decision, decision.control) == expected
        assert decision.risk_factors
    assert {i for i in ids if in_control_share(i, 0.01)} <= set(drawn)
    assert not any(in_control_share(i, 0.0) for i in ids)
    assert all(in_control_share(i, 1.0) for i in ids)


def test_the_control_draw_is_the_same_in_every_version_of_the_code() -> None:
    assert [i for i in range(1_000) if in_control_share(f"t-{i}", 0.01)] == GOLDEN_DRAW


def test_only_blocks_are_let_through() -> None:
    assert decided(USUAL, control_share=1.0).control is False
    assert decided(STOLEN, control_share=1.0).decision == "REVIEW"


def test_a_decision_is_made_again_from_what_it_kept_bit_for_bit(strict: ModelBundle) -> None:
    values = payments()[0][:300]
    again = ModelBundle.load(strict.path)
    verdicts = set()
    for row in values:
        first = decided(row[: len(FEATURES)], bundle=strict, control_share=0.3)
        second = decide_on(
            first.vector,
            again,
            transaction_id=first.transaction_id,
            event_time=first.event_time,
            decided_at=DECIDED_AT + timedelta(days=9),
            control_share=0.3,
        )
        assert same_but_for_time(first, second)
        assert second.decided_at != first.decided_at
        verdicts.add(first.decision)
    assert verdicts >= {"APPROVE", "BLOCK"}


def test_json_holds_the_answer_and_comes_back_with_the_features_beside_it() -> None:
    decision = decided(STOLEN)
    stored = json.loads(decision.to_json())
    assert list(stored) == [
        "transaction_id", "event_time", "decided_at", "fraud_probability", "anomaly_score", "raw_score", "decision",
        "risk_factors", "reasons", "model_version", "feature_schema", "processing_time_ms", "control", "degraded",
    ]  # fmt: skip
    assert (stored["event_time"], stored["decided_at"]) == ("2026-03-02T12:30:00Z", "2026-03-02T12:30:00.250000Z")
    assert set(stored["reasons"][0]) == {"feature", "value", "contribution"}
    assert Decision.from_json(decision.to_json(), features=decision.features) == decision


def test_a_missing_value_among_the_reasons_is_null() -> None:
    reasons = (Reason("speed_from_last_kmh", None, 0.5), Reason("amount", 24.5, 0.25))
    decision = dataclasses.replace(decided(STOLEN), reasons=reasons)
    assert [r["value"] for r in json.loads(decision.to_json())["reasons"]] == [None, 24.5]
    assert Decision.from_json(decision.to_json(), features=decision.features).reasons == reasons
    assert b"NaN" not in decision.to_json()


def test_times_of_other_zones_are_told_in_utc() -> None:
    paris = timezone(timedelta(hours=2))
    decision = dataclasses.replace(decided(USUAL), event_time=NOON.astimezone(paris))
    assert json.loads(decision.to_json())["event_time"] == "2026-03-02T12:30:00Z"


def test_deciding_leaves_the_real_state_as_it_was() -> None:
    state = FeatureState.empty()
    state.update(payment("t-0"))
    later = dataclasses.replace(payment("t-1"), event_time=NOON + timedelta(hours=1))
    first = decide(state, loaded_bundle(), later, decided_at=DECIDED_AT)
    second = decide(state, loaded_bundle(), later, decided_at=DECIDED_AT)
    assert same_but_for_time(first, second)
    place = loaded_bundle().input_names.index("customer_count_24h")
    assert first.vector[place] == 1.0
    state.update(later)
    after = dataclasses.replace(payment("t-2"), event_time=NOON + timedelta(hours=2))
    assert decide(state, loaded_bundle(), after, decided_at=DECIDED_AT).vector[place] == 2.0
