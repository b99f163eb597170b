from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fraud_pipeline.adapters.decision_pairs import paired_decisions
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, DecisionRole, LedgerEntry
from fraud_pipeline.domain.decision import Decision, Verdict
from fraud_pipeline.domain.shadow_comparison import NO_LABEL, VERDICTS
from fraud_pipeline.domain.transaction import Label, Transaction

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def decided(number: int, version: str, verdict: Verdict, probability: float, *, control: bool = False) -> Decision:
    moment = T0 + number * SECOND
    return Decision(
        transaction_id=f"t{number}", event_time=moment - SECOND, decided_at=moment, fraud_probability=probability,
        anomaly_score=0.5, raw_score=probability * 10, decision=verdict, risk_factors=(), reasons=(), model_version=version,
        feature_schema="s", processing_time_ms=0.1, features=b"", control=control,
    )  # fmt: skip


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """Payments 1-3 decided by versions 1 and 2, the second as an answer once; 4 by versions 1 and 3; 5 by version 1 alone."""
    given: list[tuple[Decision, Decision | None]] = [
        (decided(1, "1", "APPROVE", 0.1), decided(1, "2", "REVIEW", 0.4)),
        (decided(2, "2", "BLOCK", 0.9), decided(2, "1", "REVIEW", 0.6)),
        (decided(3, "1", "REVIEW", 0.8, control=True), decided(3, "2", "REVIEW", 0.7)),
        (decided(4, "1", "APPROVE", 0.1), decided(4, "3", "APPROVE", 0.1)),
        (decided(5, "1", "APPROVE", 0.1), None),
    ]

    def record(decision: Decision, role: DecisionRole) -> DecisionRecord:
        return DecisionRecord.of(decision, role=role)

    with Ledger.open(ledger_url) as opened:
        opened.append(
            [
                LedgerEntry(
                    Transaction(d.transaction_id, d.event_time, "c1", "m1", 100), T0, decision=record(d, "decided")
                )
                for d, _ in given
            ]
        )
        opened.record_decisions([record(shadow, "shadow") for _, shadow in given if shadow is not None])
        yield opened


def test_the_payments_that_both_decided_come_as_columns_whoever_answered(ledger: Ledger):
    found = paired_decisions(ledger.database, "1", "2", as_of=T0 + DAY)
    assert [VERDICTS[code] for code in found.left.verdict] == ["APPROVE", "REVIEW", "REVIEW"]
    assert [VERDICTS[code] for code in found.right.verdict] == ["REVIEW", "BLOCK", "REVIEW"]
    assert found.left.probability.tolist() == [0.1, 0.6, 0.8]
    assert found.right.probability.tolist() == [0.4, 0.9, 0.7]
    assert found.right.raw_score.tolist() == [4.0, 9.0, 7.0]
    assert found.left_answered.tolist() == [True, False, True]
    assert found.held.tolist() == [False, True, False]
    assert found.control.tolist() == [False, False, True]
    assert found.label.tolist() == [NO_LABEL] * 3
    assert found.event_time.tolist() == [int(T0.timestamp()) * 1_000_000 + 123456 + n * 1_000_000 for n in range(3)]


def test_the_other_way_round_left_and_right_change_places(ledger: Ledger):
    ours, theirs = (paired_decisions(ledger.database, *versions, as_of=T0) for versions in (("1", "2"), ("2", "1")))
    assert np.array_equal(ours.left.probability, theirs.right.probability)
    assert np.array_equal(ours.left_answered, ~theirs.left_answered)


@pytest.mark.parametrize(
    ("since", "until", "probabilities"),
    [(1, None, [0.1, 0.6, 0.8]), (2, None, [0.6, 0.8]), (None, 3, [0.1, 0.6]), (2, 3, [0.6]), (4, None, [])],
)
def test_a_window_is_of_the_moments_of_decision(
    ledger: Ledger, since: int | None, until: int | None, probabilities: list[float]
):
    window = {
        name: None if number is None else T0 + number * SECOND for name, number in (("since", since), ("until", until))
    }
    found = paired_decisions(ledger.database, "1", "2", as_of=T0, **window)
    assert found.left.probability.tolist() == probabilities


def test_the_newest_label_that_was_known_by_then_counts(ledger: Ledger):
    first = Label("t1", True, "chargeback", "bank", T0 + DAY)
    corrected = replace(first, is_fraud=False, known_at=T0 + 2 * DAY)
    other = Label("t2", True, "analyst", "ann", T0 + DAY)
    ledger.record_labels([first, corrected, other])
    labels = {
        days: paired_decisions(ledger.database, "1", "2", as_of=T0 + days * DAY).label.tolist() for days in (0, 1, 2)
    }
    assert labels == {0: [NO_LABEL] * 3, 1: [1, 1, NO_LABEL], 2: [0, 1, NO_LABEL]}


def test_two_versions_that_never_met_have_no_pairs(ledger: Ledger):
    assert len(paired_decisions(ledger.database, "2", "3", as_of=T0)) == 0
