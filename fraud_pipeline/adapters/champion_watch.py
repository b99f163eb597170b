"""How the champion does on recent days: a sample of what it reads, its scores, and what its alerts came to.

Knows nothing of Dagster; the verdicts are `domain.drift`'s and `domain.evaluation`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.drift_report import ReportSample
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.drift import DriftLimits, DriftVerdict, Outcomes, judge
from fraud_pipeline.domain.evaluation import Evaluation, EvaluationSettings, evaluate
from fraud_pipeline.domain.learning_data import LearningData, eligible
from fraud_pipeline.domain.thresholds import Costs

CURRENT_DAYS = 7
"""A whole week, like the reference, so that the same weekdays are compared."""
MAX_ROWS = 10_000
"""Of the current sample: as many as a bundle's reference."""
LEAST_FRAUDS = 10
"""Fewer known frauds say nothing about recall."""


@dataclass(frozen=True)
class RecentDays:
    """Payments of some days as the champion reads them, its raw scores, and the days."""

    data: LearningData
    raw: npt.NDArray[np.float64]
    first: date
    last: date


def recent_days(
    builder: TrainingSetBuilder,
    champion: ModelBundle,
    days: Sequence[date],
    *,
    as_of: date,
    control_share: float | None = None,
) -> RecentDays | None:
    """Score the champion on the usable ones of `days` with labels known by `as_of`; None where there is no payment.

    With `control_share` only payments whose outcome counts (`learning_data.eligible`).
    """
    wanted = set(days)
    usable = [day for day in builder.usable_days(as_of) if day in wanted]
    if not usable:
        return None
    data = builder.rows(usable, as_of=as_of, model_input=champion.facts.model_input).data
    if control_share is not None:
        data = eligible(data, control_share=control_share)
    if not len(data):
        return None
    raw = champion.score(np.ascontiguousarray(data.features)).raw.astype(np.float64)
    return RecentDays(data, raw, usable[0], usable[-1])


def learned_through(champion: ModelBundle) -> date:
    """The last day that the served champion learned from."""
    return date.fromisoformat(champion.facts.lineage.periods["training"][1])


def mature_days_since(champion: ModelBundle, *, as_of: date, maturity_days: int, at_most: int = 28) -> list[date]:
    """The newest days whose labels are mature and that the champion has not learned from."""
    end = as_of - timedelta(days=maturity_days)
    first = max(learned_through(champion) + timedelta(days=1), end - timedelta(days=at_most))
    return [first + timedelta(days=i) for i in range(max(0, (end - first).days))]


def judge_drift(
    champion: ModelBundle,
    current: RecentDays,
    *,
    mature: RecentDays | None,
    seed: int,
    limits: DriftLimits | None = None,
) -> tuple[DriftVerdict, dict[str, ReportSample]]:
    """Compare the current week with the champion's reference; also returns both samples for a report.

    The samples are by the names that `drift_report.render` gives them.
    """
    reference = champion.reference()
    chosen = np.arange(len(current.data))
    if len(chosen) > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MAX_ROWS, replace=False))
    before = {name: reference.values[:, place] for place, name in enumerate(champion.input_names)}
    now = {name: current.data.features[chosen, place] for place, name in enumerate(champion.input_names)}
    verdict = judge(
        before,
        now,
        limits=limits,
        predictions=(reference.raw, current.raw[chosen]),
        outcomes=_outcomes(champion, mature),
        customers=len(np.unique(current.data.customer[chosen])),
    )
    samples = {
        "reference": ReportSample(before, reference.raw, reference.is_fraud),
        "current": ReportSample(now, current.raw[chosen]),  # its labels are not mature
    }
    return verdict, samples


def evaluate_champion(
    champion: ModelBundle, recent: RecentDays, *, costs: Costs, budget: float, seed: int
) -> Evaluation | None:
    """The champion's metrics on days it has not learned from; None where too few frauds are known."""
    if int(recent.data.is_fraud.sum()) < LEAST_FRAUDS:
        return None
    probability = champion.facts.calibrator.apply(recent.raw)
    settings = EvaluationSettings(budget=budget, seed=seed)
    return evaluate(
        recent.data, recent.raw, probability, thresholds=champion.thresholds, costs=costs, settings=settings
    )


def _outcomes(champion: ModelBundle, mature: RecentDays | None) -> tuple[Outcomes, Outcomes] | None:
    """What alerts came to: on the evaluation model's test period, and on mature days since."""
    evaluation = champion.facts.metrics.get("evaluation", {})
    confusion: Mapping[str, float] | None = evaluation.get("confusion")
    if mature is None or confusion is None or int(mature.data.is_fraud.sum()) < LEAST_FRAUDS:
        return None
    caught = confusion["reviewed_fraud"] + confusion["blocked_fraud"]
    false = confusion["reviewed_legitimate"] + confusion["blocked_legitimate"]
    before = Outcomes(int(evaluation["rows"]), int(evaluation["frauds"]), round(caught + false), round(caught))
    alert, _ = champion.thresholds.decide(mature.raw)
    fraud = mature.data.is_fraud
    return before, Outcomes(len(mature.data), int(fraud.sum()), int(alert.sum()), int((alert & fraud).sum()))
