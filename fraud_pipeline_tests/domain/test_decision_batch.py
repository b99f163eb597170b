"""Many payments decided by column are decided as one by one, to the bit and to the byte."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, Explained, decide_on
from fraud_pipeline.domain.decision_batch import DecisionBatch, _answers, decide_many
from fraud_pipeline.domain.explanation import Reason
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline_tests.bundles import MADE_AT, PLATT, loaded_bundle, payments

NOON = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
DECIDED_AT = NOON + timedelta(milliseconds=250)
COUNT = 300


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """The same models with thresholds under which many payments are alerted."""
    wanted = thresholds_at(PLATT, review=0.02, block=0.05)
    return ModelBundle.load(
        loaded_bundle().with_thresholds(wanted, tmp_path_factory.mktemp("strict"), created_at=MADE_AT)
    )


def vectors(count: int = COUNT) -> np.ndarray:
    return np.ascontiguousarray(payments()[0][:count, : len(FEATURES)])


def payment(number: int) -> Transaction:
    country = ("DE", "FR", None)[number % 3]
    return Transaction(
        f"t-{number}", NOON + timedelta(microseconds=number), f"c-{number % 7}", "m", 100, country=country
    )


def batch_of(bundle: ModelBundle, count: int = COUNT, **options: object) -> DecisionBatch:
    given = {"decided_at": DECIDED_AT, "control_share": 0.2, "clock": iter(range(10**9)).__next__, **options}
    return decide_many(vectors(count), bundle, [payment(number) for number in range(count)], **given)  # type: ignore[arg-type]


def test_many_at_once_are_decided_as_one_by_one(strict: ModelBundle) -> None:
    together = batch_of(strict, degraded=("ledger",))
    for row, transaction, decision in zip(vectors(), together.transactions, together, strict=True):
        alone = decide_on(
            strict.inputs.vector(row, transaction), strict, transaction_id=transaction.transaction_id,
            event_time=transaction.event_time, decided_at=DECIDED_AT, control_share=0.2, degraded=("ledger",),
        )  # fmt: skip
        assert dataclasses.replace(alone, processing_time_ms=decision.processing_time_ms) == decision
        assert decision.processing_time_ms > 0
    assert {(d.decision, d.control) for d in together} == {
        ("APPROVE", False), ("REVIEW", False), ("REVIEW", True), ("BLOCK", False),
    }  # fmt: skip


def test_its_answers_are_the_json_of_its_decisions(strict: ModelBundle) -> None:
    batch = batch_of(strict)
    assert batch.answers == [decision.to_json() for decision in batch]
    assert list(batch.alerts) == [place for place, d in enumerate(batch) if d.decision != "APPROVE"]


NUMBERS = st.floats(allow_nan=True, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 1e-7, 1e16, 5e-324, 0.1])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["a,b", '"', "\\", ","])
TIMES = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXTS, TIMES, NUMBERS, NUMBERS, NUMBERS, st.booleans()), min_size=1, max_size=4),
    version=TEXTS,
    degraded=st.lists(TEXTS, max_size=2),
    why=st.tuples(TEXTS, st.none() | NUMBERS.filter(lambda number: not math.isnan(number)), NUMBERS),
)
def test_answers_are_the_json_of_decisions_whatever_these_hold(
    rows: list, version: str, degraded: list, why: tuple
) -> None:
    said = Explained(reasons=(Reason(*why),), risk_factors=(version,), control=True)
    batch = DecisionBatch(
        transactions=[Transaction(row[0], row[1], "c", "m", 1) for row in rows],
        verdicts=["BLOCK" if row[5] else "APPROVE" for row in rows],
        probabilities=[row[2] for row in rows],
        anomalies=[row[3] for row in rows],
        raw_scores=[row[4] for row in rows],
        features=[b""] * len(rows),
        decided_at=[DECIDED_AT] * len(rows),
        model_versions=[version] * len(rows),
        feature_schemas=["s"] * len(rows),
        processing_times_ms=[0.25] * len(rows),
        alerts={place: said for place, row in enumerate(rows) if row[5]},
        degraded=tuple(degraded),
    )
    assert _answers(batch, [row[0] for row in rows]) == [decision.to_json() for decision in batch]


def test_batches_of_two_models_are_merged_in_the_order_of_the_payments(strict: ModelBundle) -> None:
    whole = batch_of(strict)
    places = [list(range(0, COUNT, 2)), list(range(1, COUNT, 2))]
    parts = [
        decide_many(
            vectors()[chosen], strict, [whole.transactions[place] for place in chosen], decided_at=DECIDED_AT,
            control_share=0.2, clock=iter(range(10**9)).__next__,
        )
        for chosen in places
    ]  # fmt: skip
    merged = DecisionBatch.merged(list(zip(parts, places, strict=True)))

    def timeless(batch: DecisionBatch) -> list[Decision]:
        return [dataclasses.replace(decision, processing_time_ms=0.0) for decision in batch]

    assert timeless(merged) == timeless(whole)
    assert merged.answers == [decision.to_json() for decision in merged]
    assert list(merged.alerts) == list(whole.alerts)


def test_it_is_a_sequence_of_decisions(strict: ModelBundle) -> None:
    batch = batch_of(strict, 5)
    assert len(batch) == 5
    assert batch[-1] == batch[4] == list(batch)[4]
    assert batch[1:3] == [batch[1], batch[2]]
    with pytest.raises(IndexError):
        batch[5]


def test_of_nothing_nothing_is_decided(strict: ModelBundle) -> None:
    batch = decide_many(vectors()[:0], strict, [], decided_at=DECIDED_AT)
    assert (list(batch), batch.answers, batch.alerts) == ([], [], {})
