"""From fitted models to a judged candidate: two bundles, a comparison with the champion, gate results.

Two bundles are written, as two models are fitted: the evaluation model's, against which a later candidate may have to be
compared, and the served one, which is what is registered. Knows nothing of Dagster or of settings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.bundle_export import build_bundle, served_difference
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.parquet_files import whole_file
from fraud_pipeline.adapters.plots import evaluation_plots
from fraud_pipeline.adapters.registered_version import RegisteredVersion
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.adapters.training_store import TrainingSet
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_facts import Lineage
from fraud_pipeline.domain.decision import decide_on
from fraud_pipeline.domain.experiment import (
    ClassifierPair,
    ExperimentSettings,
    Judgement,
    judge_classifier,
    period_rows,
)
from fraud_pipeline.domain.gates import GateResult, GateSettings, champion_form, judge
from fraud_pipeline.domain.net_value import ValueComparison, compare_net_value
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.domain.splits import DayRange
from fraud_pipeline.domain.training import TrainedClassifier, TrainedDetector
from fraud_pipeline.errors import TrainingDataError

CANDIDATE = "candidate"
"""MLflow's alias of the version that was judged last."""
EVALUATION_BUNDLE = "evaluation_bundle"
"""Under this name a served bundle's numbers hold its evaluation model's fingerprint, and its MLflow run the bundle."""
TIMED_DECISIONS = 1_000
"""Enough for a p99 that does not hang on one of them; takes a fifth of a second."""


@dataclass(frozen=True)
class Candidate:
    """A candidate as it is served, its evaluation model as a bundle of its own, and how the latter did on the test period."""

    bundle: ModelBundle
    evaluation_bundle: ModelBundle
    judgement: Judgement
    served_difference: float
    decision_p99_ms: float


@dataclass(frozen=True)
class Opponent:
    """The champion that a candidate is compared with. `evaluation` is its evaluation model, where it can still be had."""

    version: int
    served: ModelBundle
    evaluation: ModelBundle | None = None

    def on(self, test: DayRange) -> ModelBundle:
        """The form that has not seen the test period; the served one where there is no other (which favours the champion)."""
        fitted_through = date.fromisoformat(self.served.facts.lineage.periods["training"][1]) + timedelta(days=1)
        fair = champion_form(fitted_through, test.start) == "served" or self.evaluation is None
        return self.served if fair or self.evaluation is None else self.evaluation


def build_candidate(
    training_set: TrainingSet,
    pair: ClassifierPair,
    detector: TrainedDetector,
    *,
    settings: ExperimentSettings,
    code_version: str,
    created_at: datetime,
    root: Path,
) -> Candidate:
    """Calibrate, choose thresholds, evaluate, and write both bundles under `root`."""
    data, split = training_set.data, training_set.split
    judgement = judge_classifier(data, split, pair.evaluation, settings=settings)
    reference = period_rows(data, split, split.reference, control_share=settings.control_share)

    def write(
        model: TrainedClassifier, learned_from: DayRange, metrics: Mapping[str, Any], *, served: bool
    ) -> ModelBundle:
        path = build_bundle(
            model,
            detector,
            model_input=training_set.model_input,
            calibrator=judgement.served_calibrator if served else judgement.evaluation_calibrator,
            thresholds=judgement.served_thresholds if served else judgement.evaluation_thresholds,
            reference_values=reference.features,
            reference_is_fraud=reference.is_fraud,
            lineage=_lineage(training_set, learned_from, pair, settings, code_version),
            metrics=metrics,
            created_at=created_at,
            root=root,
        )
        return ModelBundle.load(path)

    numbers = {"evaluation": judgement.evaluation.as_dict()}
    evaluation_bundle = write(pair.evaluation, split.train, numbers, served=False)
    bundle = write(pair.served, split.refit, {**numbers, EVALUATION_BUNDLE: evaluation_bundle.fingerprint}, served=True)
    return Candidate(
        bundle=bundle,
        evaluation_bundle=evaluation_bundle,
        judgement=judgement,
        served_difference=served_difference(pair.served, bundle, reference.features),
        decision_p99_ms=decision_p99_ms(bundle, reference.features),
    )


def compare_with_champion(
    candidate: Candidate,
    opponent: Opponent,
    training_set: TrainingSet,
    *,
    builder: TrainingSetBuilder,
    settings: ExperimentSettings,
) -> ValueComparison:
    """Net value of both on the candidate's test period, the champion's inputs assembled as it reads them."""
    test, split = candidate.judgement.test, training_set.split
    champion = opponent.on(split.test)
    if champion.facts.model_input == training_set.model_input:
        inputs = test.features
    else:
        days = [day for day in builder.usable_days(split.test.end) if day >= split.test.start]
        rows = builder.rows(days, as_of=split.as_of, model_input=champion.facts.model_input).data
        place = {name: row for row, name in enumerate(rows.transaction_id)}
        inputs = rows.features[[place[name] for name in test.transaction_id]]
    raw = champion.score(np.ascontiguousarray(inputs)).raw.astype(np.float64)
    return compare_net_value(
        test,
        (candidate.judgement.raw, candidate.judgement.evaluation_thresholds),
        (raw, champion.thresholds),
        costs=settings.costs,
        budget=settings.evaluation.budget,
        replicates=settings.evaluation.replicates,
        seed=settings.seed,
    )


def judge_candidate(
    candidate: Candidate, comparison: ValueComparison | None, *, limits: GateSettings
) -> tuple[GateResult, ...]:
    """Every gate's result."""
    return judge(
        candidate.judgement.evaluation.metrics,
        comparison,
        max_score_difference=candidate.served_difference,
        decision_ms=candidate.decision_p99_ms,
        settings=limits,
    )


def register_candidate(
    registry: ModelRegistry,
    candidate: Candidate,
    results: Sequence[GateResult],
    *,
    run_id: str,
    against: Opponent | None,
    tags: Mapping[str, str],
) -> RegisteredVersion:
    """Register a candidate whatever its gates said, with their results, and make it the one that was judged last."""
    version = registry.register(candidate.bundle.path, run_id=run_id, tags=tags)
    against_version = None if against is None else against.version
    evidence = GateEvidence.of(results, fingerprint=version.fingerprint, against_version=against_version)
    registry.record_gates(version.version, evidence)
    registry.set_alias(CANDIDATE, version.version)
    return registry.version(version.version)


def draw_candidate(candidate: Candidate, *, folder: Path, budget: float) -> dict[str, bytes]:
    """The plots of its evaluation by name, kept as PNG files in a folder of `folder` named by the bundle."""
    judgement = candidate.judgement
    pictures = evaluation_plots(
        judgement.evaluation,
        thresholds=judgement.evaluation_thresholds,
        importance=candidate.bundle.facts.importance,
        budget=budget,
    )
    for name, png in pictures.items():
        with whole_file(folder / candidate.bundle.fingerprint[:16] / f"{name}.png", durable=False) as file:
            file.write(png)
    return pictures


def decision_p99_ms(bundle: ModelBundle, vectors: npt.NDArray[np.float32]) -> float:
    """The 99th percentile of one decision from its input vector, in milliseconds, on this machine."""
    if not len(vectors):
        raise TrainingDataError("There is no payment to time a decision on.")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    spent = []
    for vector in np.ascontiguousarray(vectors[:TIMED_DECISIONS], dtype=np.float32):
        started = time.perf_counter_ns()
        decide_on(vector, bundle, transaction_id="timing", event_time=moment, decided_at=moment)
        spent.append(time.perf_counter_ns() - started)
    return float(np.quantile(spent, 0.99)) / 1e6


def _lineage(
    training_set: TrainingSet,
    learned_from: DayRange,
    pair: ClassifierPair,
    settings: ExperimentSettings,
    code_version: str,
) -> Lineage:
    split, data = training_set.split, training_set.data
    inside = learned_from.mask(data.event_time)
    spans = {
        "training": learned_from,
        "reference": split.reference,
        "evaluation_training": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    as_of = split.as_of
    return Lineage(
        data_fingerprint=training_set.fingerprint,
        code_version=code_version,
        as_of=datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC),
        seed=settings.seed,
        rows=int(inside.sum()),
        frauds=int(data.is_fraud[inside].sum()),
        periods={name: (str(span.start), str(span.end - timedelta(days=1))) for name, span in spans.items()},
        params={**pair.evaluation.recipe.as_dict(), "trees": pair.evaluation.n_trees, **training_set.lineage},
    )
