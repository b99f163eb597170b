"""How the champion does on recent days: a sample of what it read, its scores, and what its alerts came to.

Knows nothing of Dagster; the verdicts are `domain.drift`'s and `domain.evaluation`'s.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.drift_report import ReportSample
from fraud_pipeline.adapters.labelled_rows import labelled_rows
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.sampled_days import SampleCounts, read_sample
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.domain.bundle import ModelBundle, Reference
from fraud_pipeline.domain.drift import DriftLimits, DriftVerdict, Outcomes, Window, judge, nothing_came
from fraud_pipeline.domain.evaluation import Evaluation, EvaluationSettings, evaluate
from fraud_pipeline.domain.learning_data import LearningData, eligible
from fraud_pipeline.domain.performance_estimate import Estimate, estimate_performance
from fraud_pipeline.domain.splits import midnight_us
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.errors import BundleError, DatasetError

CURRENT_DAYS = 7
"""A whole week, like the reference."""
MAX_ROWS = 10_000
"""Of the current sample: as many as a bundle's reference."""
MATURE_ROWS = 200_000
"""Of the payments whose outcome is judged: at 1 % fraud 2,000 frauds, whose recall is known to two points."""
LEAST_FRAUDS = 10
"""Fewer known frauds say nothing about recall."""


@dataclass(frozen=True)
class RecentDays:
    """A sample of some days as the champion met them, its raw scores, the day of each payment, and the days."""

    data: LearningData
    raw: npt.NDArray[np.float64]
    day: npt.NDArray[np.int64]
    first: date
    last: date
    counts: SampleCounts


def recent_days(
    builder: TrainingSetBuilder,
    champion: ModelBundle,
    days: Sequence[date],
    *,
    as_of: date,
    ledger: Ledger,
    control_share: float | None = None,
    at_most: int = MATURE_ROWS,
) -> RecentDays | None:
    """A sample of the usable ones of `days` with labels known by `as_of`; None where there is no payment.

    With `control_share` only payments whose outcome counts (`learning_data.eligible`).
    """
    wanted = set(days)
    usable = [day for day in builder.usable_days(as_of) if day in wanted]
    sample = read_sample(builder.store, champion, usable, ledger=ledger, at_most=at_most) if usable else None
    if sample is None:
        return None
    rows = labelled_rows(
        builder.store, sample.payments, sample.vectors, champion.input_names, as_of=as_of,
        blocked=sample.blocked, control=sample.control,
    )  # fmt: skip
    data = rows.as_known_at(midnight_us(as_of) - 1)
    raw, day = sample.raw, sample.day
    if control_share is not None:
        kept = ~data.blocked | data.labelled | data.control
        data, raw, day = eligible(data, control_share=control_share), raw[kept], day[kept]
    if not len(data):
        return None
    return RecentDays(data, raw, day, usable[0], usable[-1], sample.counts)


def learned_through(champion: ModelBundle) -> date:
    """The last day that the served champion learned from."""
    return date.fromisoformat(champion.facts.lineage.periods["training"][1])


def mature_days_since(champion: ModelBundle, *, as_of: date, maturity_days: int, at_most: int = 28) -> list[date]:
    """The newest days whose labels are mature and that the champion has not learned from."""
    end = as_of - timedelta(days=maturity_days)
    first = max(learned_through(champion) + timedelta(days=1), end - timedelta(days=at_most))
    return [first + timedelta(days=i) for i in range(max(0, (end - first).days))]


def unlabelled_days(champion: ModelBundle, *, as_of: date, maturity_days: int) -> list[date]:
    """The newest days, whose labels are not mature yet and that the champion has not learned from."""
    first = max(learned_through(champion) + timedelta(days=1), as_of - timedelta(days=maturity_days))
    return [first + timedelta(days=i) for i in range(max(0, (as_of - first).days))]


def current_week(
    builder: TrainingSetBuilder, champion: ModelBundle, *, as_of: date, ledger: Ledger
) -> RecentDays | DriftVerdict:
    """The sample of the week before `as_of`; the verdict itself where its days are there and hold not one payment.

    Raises DatasetError where the week has no day with features: then the pipeline is behind, not the world.
    """
    days = [as_of - timedelta(days=back) for back in range(CURRENT_DAYS, 0, -1)]
    found = recent_days(builder, champion, days, as_of=as_of, ledger=ledger, at_most=MAX_ROWS)
    if found is not None:
        return found
    usable = [day for day in builder.usable_days(as_of) if day in days]
    if not usable:
        raise DatasetError(
            f"No day of the week before {as_of} has features.", remedy="Materialize its days first: `fraud run`."
        )
    reference_rows = len(champion_reference(champion).raw)
    return nothing_came(first=usable[0], last=usable[-1], reference_rows=reference_rows)


def champion_reference(champion: ModelBundle) -> Reference:
    """What drift is measured against. BundleError where the bundle has none that can be used."""
    remedy = "Promote a version that has one, or train a new one: `fraud run`."
    try:
        reference = champion.reference()
        width = np.shape(reference.values)[1]
    except (TypeError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as err:
        raise BundleError(
            f"The drift reference of version {champion.version} cannot be read: {err}.", remedy=remedy
        ) from err
    if not len(reference.raw) or width != len(champion.input_names):
        raise BundleError(f"Version {champion.version} has no drift reference of its inputs.", remedy=remedy)
    return reference


def judge_drift(
    champion: ModelBundle,
    current: RecentDays | DriftVerdict,
    *,
    mature: RecentDays | None,
    limits: DriftLimits | None = None,
) -> tuple[DriftVerdict, dict[str, ReportSample]]:
    """Compare the current week with the champion's reference; also returns both samples for a report.

    The samples are by the names that `drift_report.render` gives them. A verdict that is known already is passed on.
    """
    reference = champion_reference(champion)
    before = {name: reference.values[:, place] for place, name in enumerate(champion.input_names)}
    held = ReportSample(before, reference.raw, reference.is_fraud)
    if isinstance(current, DriftVerdict):
        return current, {"reference": held, "current": ReportSample({name: held.columns[name][:0] for name in before})}
    now = {name: current.data.features[:, place] for place, name in enumerate(champion.input_names)}
    verdict = judge(
        before,
        now,
        limits=limits,
        predictions=(reference.raw, current.raw),
        outcomes=_outcomes(champion, mature),
        window=Window(current.day, current.data.customer),
    )
    return verdict, {"reference": held, "current": ReportSample(now, current.raw)}  # its labels are not mature


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


def expect_of(champion: ModelBundle, recent: RecentDays, *, seed: int) -> Estimate:
    """What the champion's calibrated probabilities promise of these payments; no label is looked at."""
    probability = champion.facts.calibrator.apply(recent.raw)
    return estimate_performance(
        recent.raw, probability, recent.data.customer, thresholds=champion.thresholds, seed=seed
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
