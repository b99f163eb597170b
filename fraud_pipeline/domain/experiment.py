"""One training from rows and periods to a judged candidate: which rows, which labels, which of the two models.

The evaluation model learns from the training period, with the labels known when validation begins; it is calibrated
and gets its thresholds on the validation period, and is judged on the test period. The served model is the same
recipe and tree count refitted through the newest mature day; its calibration and thresholds come from the evaluation
model's scores of validation and test, since its own scores of those days are of rows it has learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fraud_pipeline.domain.calibration import Calibrator, fit_calibrator
from fraud_pipeline.domain.evaluation import Evaluation, EvaluationSettings, evaluate
from fraud_pipeline.domain.hyperparameter_search import search
from fraud_pipeline.domain.learning_data import LearningData, eligible
from fraud_pipeline.domain.ranking import roc_auc
from fraud_pipeline.domain.splits import DayRange, Split, midnight_us
from fraud_pipeline.domain.thresholds import Costs, Thresholds, choose_thresholds
from fraud_pipeline.domain.training import (
    Progress,
    Recipe,
    TrainedClassifier,
    TrainedDetector,
    fit_classifier,
    fit_detector,
    refit,
)


@dataclass(frozen=True)
class ExperimentSettings:
    """What a training needs besides its rows. `search_trials` 0 takes the recipe as it is."""

    recipe: Recipe = field(default_factory=Recipe)
    costs: Costs = field(default_factory=Costs)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    search_trials: int = 0
    control_share: float = 0.01
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class ClassifierPair:
    """The evaluation model, its refit, and every trial of the search where there was one."""

    evaluation: TrainedClassifier
    served: TrainedClassifier
    trials: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class DetectorPair:
    """The detector fitted on the training period, the served one, and how well the first ranks the frauds of the test
    period.
    """

    evaluation: TrainedDetector
    served: TrainedDetector
    test_roc_auc: float


@dataclass(frozen=True)
class Judgement:
    """`calibrator` and `thresholds` of each form, and what the evaluation model did on the test rows (`test`, scored
    `raw`).
    """

    evaluation_calibrator: Calibrator
    evaluation_thresholds: Thresholds
    served_calibrator: Calibrator
    served_thresholds: Thresholds
    evaluation: Evaluation
    test: LearningData
    raw: np.ndarray


@dataclass(frozen=True)
class ExperimentResult:
    """All of a training. `reference` are the rows of the newest 7 mature days: the drift reference is drawn from
    them.
    """

    classifiers: ClassifierPair
    detectors: DetectorPair
    judgement: Judgement
    reference: LearningData


def period_rows(data: LearningData, split: Split, period: DayRange, *, control_share: float) -> LearningData:
    """The payments of a period that may be learned from or judged on, with the labels known as of the training."""
    rows = data.rows(period.mask(data.event_time)).as_known_at(midnight_us(split.as_of))
    return eligible(rows, control_share=control_share)


def training_rows(data: LearningData, split: Split, *, control_share: float) -> LearningData:
    """The evaluation model's rows, with the labels known when its validation begins: a later one is not there for it."""
    rows = data.rows(split.train.mask(data.event_time)).as_known_at(midnight_us(split.validation.start))
    return eligible(rows, control_share=control_share)


def train_classifiers(
    data: LearningData, split: Split, *, settings: ExperimentSettings, progress: Progress | None = None
) -> ClassifierPair:
    """Fit the evaluation model, stopping early on the validation period, and refit it through the newest mature day."""
    train = training_rows(data, split, control_share=settings.control_share)
    validation = period_rows(data, split, split.validation, control_share=settings.control_share)
    recipe = settings.recipe
    trials: tuple[Mapping[str, Any], ...] = ()
    chance: dict[str, Any] = {"seed": settings.seed, "threads": settings.threads, "progress": progress}
    if settings.search_trials:
        found = search(train, validation, recipe=recipe, trials=settings.search_trials, **chance)
        recipe, trials = found.recipe, found.trials
    evaluation = fit_classifier(train, validation, recipe=recipe, **chance)
    del train, validation
    served = refit(evaluation, period_rows(data, split, split.refit, control_share=settings.control_share), **chance)
    return ClassifierPair(evaluation, served, trials)


def train_detectors(data: LearningData, split: Split, *, settings: ExperimentSettings) -> DetectorPair:
    """Fit the anomaly detector on the training period, to be judged, and through the newest mature day, to be served."""
    chance: dict[str, Any] = {"seed": settings.seed, "threads": settings.threads}
    evaluation = fit_detector(training_rows(data, split, control_share=settings.control_share), **chance)
    test = period_rows(data, split, split.test, control_share=settings.control_share)
    auc = roc_auc(evaluation.anomaly_score(test.features), test.is_fraud, test.weight)
    served = fit_detector(period_rows(data, split, split.refit, control_share=settings.control_share), **chance)
    return DetectorPair(evaluation, served, auc)


def judge_classifier(
    data: LearningData, split: Split, classifier: TrainedClassifier, *, settings: ExperimentSettings
) -> Judgement:
    """Calibrate, choose thresholds and evaluate the evaluation model, on scores of days that it did not learn from."""
    rows = period_rows(data, split, split.out_of_time, control_share=settings.control_share)
    raw = classifier.raw_score(rows.features)
    early, late = split.validation.mask(rows.event_time), split.test.mask(rows.event_time)
    calibrator, thresholds = calibrate(rows.rows(early), raw[early], settings=settings)
    test = rows.rows(late)
    evaluation = evaluate(
        test,
        raw[late],
        calibrator.apply(raw[late]),
        thresholds=thresholds,
        costs=settings.costs,
        settings=settings.evaluation,
    )
    return Judgement(
        calibrator,
        thresholds,
        *calibrate(rows, raw, settings=settings),
        evaluation=evaluation,
        test=test,
        raw=raw[late],
    )


def calibrate(rows: LearningData, raw: np.ndarray, *, settings: ExperimentSettings) -> tuple[Calibrator, Thresholds]:
    """Calibrator and thresholds from out-of-time scores of `rows`."""
    calibrator = fit_calibrator(raw, rows.is_fraud, rows.weight)
    thresholds = choose_thresholds(
        raw,
        calibrator.apply(raw),
        is_fraud=rows.is_fraud,
        amount=rows.amount,
        costs=settings.costs,
        budget=settings.evaluation.budget,
        weight=rows.weight,
    )
    return calibrator, thresholds


def run_experiment(
    data: LearningData, split: Split, *, settings: ExperimentSettings, progress: Progress | None = None
) -> ExperimentResult:
    """All steps, one after another; each can be called alone."""
    classifiers = train_classifiers(data, split, settings=settings, progress=progress)
    detectors = train_detectors(data, split, settings=settings)
    judgement = judge_classifier(data, split, classifiers.evaluation, settings=settings)
    reference = period_rows(data, split, split.reference, control_share=settings.control_share)
    return ExperimentResult(classifiers, detectors, judgement, reference)
