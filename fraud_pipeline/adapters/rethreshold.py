"""New thresholds for a registered model, without training: chosen, judged and registered as a training's are.

Both forms get them: the evaluation model's are chosen on its validation period and judged on its test period, the served
model's on both. Models, calibrators and reference stay as they are, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fraud_pipeline.adapters.candidate import EVALUATION_BUNDLE, Opponent, decision_p99_ms
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.registered_version import RegisteredVersion
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.evaluation import EvaluationSettings, evaluate
from fraud_pipeline.domain.gates import GateSettings, judge
from fraud_pipeline.domain.learning_data import LearningData, eligible
from fraud_pipeline.domain.net_value import ValueComparison, compare_net_value
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.domain.splits import DayRange
from fraud_pipeline.domain.thresholds import Costs, Thresholds, choose_thresholds
from fraud_pipeline.errors import DatasetError


@dataclass(frozen=True)
class ThresholdPolicy:
    """What thresholds are chosen by, and what a candidate with them is judged by."""

    costs: Costs
    evaluation: EvaluationSettings
    limits: GateSettings
    control_share: float


@dataclass(frozen=True)
class _Scored:
    """Out-of-time payments and the evaluation model's scores of them."""

    rows: LearningData
    raw: np.ndarray

    def during(self, period: DayRange) -> _Scored:
        chosen = period.mask(self.rows.event_time)
        return _Scored(self.rows.rows(chosen), self.raw[chosen])


def rethreshold(
    registry: ModelRegistry,
    served: ModelBundle,
    evaluation: ModelBundle,
    *,
    opponent: Opponent | None,
    builder: TrainingSetBuilder,
    policy: ThresholdPolicy,
    created_at: datetime,
    root: Path,
) -> RegisteredVersion:
    """Register `served` with thresholds chosen by `policy`, judged by the gates; whether they passed stands in its verdict.

    `evaluation` is the evaluation model's bundle. Raises DatasetError where its days are no longer stored.
    """
    validation, test = _period(served, "validation"), _period(served, "test")
    scored = _score(evaluation, DayRange(validation.start, test.end), served, builder, policy.control_share)
    judged = scored.during(test)
    chosen = _choose(evaluation, scored.during(validation), policy)
    numbers = evaluate(
        judged.rows,
        judged.raw,
        evaluation.facts.calibrator.apply(judged.raw),
        thresholds=chosen,
        costs=policy.costs,
        settings=policy.evaluation,
    )
    metrics: Mapping[str, Any] = {**evaluation.facts.metrics, "evaluation": numbers.as_dict()}
    new_evaluation = _with(evaluation, chosen, root, created_at, metrics)
    metrics = {**served.facts.metrics, "evaluation": numbers.as_dict(), EVALUATION_BUNDLE: new_evaluation.fingerprint}
    bundle = _with(served, _choose(served, scored, policy), root, created_at, metrics)
    sample = served.reference().values
    results = judge(
        numbers.metrics,
        _compare(judged, chosen, opponent, test, builder, served, policy),
        max_score_difference=float(np.abs(bundle.score(sample).raw - served.score(sample).raw).max(initial=0.0)),
        decision_ms=decision_p99_ms(bundle, sample),
        settings=policy.limits,
    )
    version = registry.register(bundle.path, tags={"derived_from": served.fingerprint})
    evidence = GateEvidence.of(
        results, fingerprint=version.fingerprint, against_version=None if opponent is None else opponent.version
    )
    registry.record_gates(version.version, evidence)
    return registry.version(version.version)


def _choose(bundle: ModelBundle, scored: _Scored, policy: ThresholdPolicy) -> Thresholds:
    """The best thresholds on these payments, their probabilities as this bundle's calibrator says them."""
    return choose_thresholds(
        scored.raw,
        bundle.facts.calibrator.apply(scored.raw),
        is_fraud=scored.rows.is_fraud,
        amount=scored.rows.amount,
        costs=policy.costs,
        budget=policy.evaluation.budget,
        weight=scored.rows.weight,
    )


def _compare(
    judged: _Scored,
    chosen: Thresholds,
    opponent: Opponent | None,
    test: DayRange,
    builder: TrainingSetBuilder,
    served: ModelBundle,
    policy: ThresholdPolicy,
) -> ValueComparison | None:
    """Net value against the champion on the test period, at today's costs."""
    if opponent is None:
        return None
    champion = opponent.on(test)
    theirs = _score(champion, test, served, builder, policy.control_share)
    return compare_net_value(
        judged.rows,
        (judged.raw, chosen),
        (theirs.raw, champion.thresholds),
        costs=policy.costs,
        replicates=policy.evaluation.replicates,
        seed=policy.evaluation.seed,
    )


def _score(
    model: ModelBundle, period: DayRange, of: ModelBundle, builder: TrainingSetBuilder, control_share: float
) -> _Scored:
    """A model's scores of the payments of a period, with the labels that were known when `of` was trained."""
    as_of = of.facts.lineage.as_of.date()
    days = [day for day in builder.usable_days(period.end) if day >= period.start]
    if not days:
        raise DatasetError(
            f"The days of {period}, on which thresholds are chosen, are not stored here.",
            remedy="Choose thresholds in the home that trained the model, or train a new one: `fraud run`.",
        )
    rows = eligible(
        builder.rows(days, as_of=as_of, model_input=model.facts.model_input).data, control_share=control_share
    )
    return _Scored(rows, model.score(np.ascontiguousarray(rows.features)).raw.astype(np.float64))


def _with(
    bundle: ModelBundle, thresholds: Thresholds, root: Path, created_at: datetime, metrics: Mapping[str, Any]
) -> ModelBundle:
    return ModelBundle.load(bundle.with_thresholds(thresholds, root, created_at=created_at, metrics=metrics))


def _period(bundle: ModelBundle, name: str) -> DayRange:
    first, last = bundle.facts.lineage.periods[name]
    return DayRange(date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1))
