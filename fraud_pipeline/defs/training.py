"""From days of features to trained models. Nothing here starts by itself: the weekly schedule or the drift sensor does."""

import json
import os
from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg

from fraud_pipeline import policies
from fraud_pipeline.adapters.day_plots import periods
from fraud_pipeline.adapters.model_store import ModelStore
from fraud_pipeline.adapters.plots import feature_importance
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.adapters.training_store import TrainingSet, TrainingStore
from fraud_pipeline.defs.automation import TRAINING_POOL
from fraud_pipeline.defs.pages import OWNERS, plots, table
from fraud_pipeline.defs.partitions import EVERY_DAY
from fraud_pipeline.defs.patience import patient
from fraud_pipeline.domain.experiment import ExperimentSettings, train_classifiers, train_detectors
from fraud_pipeline.domain.training import Recipe
from fraud_pipeline.settings import Settings

ROWS_PER_THREAD = 50_000


class TrainingSetConfig(dg.Config):
    """`as_of` (YYYY-MM-DD): what was known at that midnight; empty for the newest day.

    `shuffle_labels` is a fire drill: the model learns from labels dealt at random, and the gates must stop it.
    """

    as_of: str = ""
    shuffle_labels: bool = False


@dg.asset(
    group_name="training", pool=TRAINING_POOL, kinds={"numpy"}, owners=OWNERS, code_version="1",
    deps=[dg.AssetDep(name, partition_mapping=EVERY_DAY) for name in ("features", "labels")],
)  # fmt: skip
@patient
def training_set(
    context: dg.AssetExecutionContext, config: TrainingSetConfig, builder: dg.ResourceParam[TrainingSetBuilder],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """All payments before a moment with what was known by then, in three periods: training, validation, test.

    Between training and validation lies a gap as long as a label needs to mature, and the newest days are left out for the
    same reason. Nothing that was learned later is in it.
    """
    as_of = date.fromisoformat(config.as_of) if config.as_of else builder.default_as_of()
    shuffle_seed = settings.seed if config.shuffle_labels else None
    made = builder.build(as_of, limits=period_limits(settings), shuffle_seed=shuffle_seed)
    split, data = made.split, made.data
    spans = {"training": split.train, "validation": split.validation, "test": split.test}
    days, frauds = data.frauds_by_day()
    by_day = {day.astype(object): float(count) for day, count in zip(days, frauds, strict=True)}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.fingerprint),
        metadata={
            "dagster/row_count": len(data),
            "fingerprint": made.fingerprint,
            "as of": str(as_of),
            "known frauds": int(data.is_fraud.sum()),
            "inputs": len(data.feature_names),
            "labels shuffled (drill)": config.shuffle_labels,
            "periods": table([_period(name, span, made) for name, span in spans.items()]),
            "plots": plots(
                {
                    "known frauds by day and period": periods(
                        {name: (s.start, s.end) for name, s in spans.items()}, by_day, title="Known frauds a day"
                    )
                }
            ),
        },
    )


@dg.asset(
    group_name="training", pool=TRAINING_POOL, kinds={"xgboost", "mlflow"}, owners=OWNERS, code_version="1",
    deps=["training_set"],
)  # fmt: skip
@patient
def xgboost_model(
    context: dg.AssetExecutionContext, training_sets: dg.ResourceParam[TrainingStore],
    models: dg.ResourceParam[ModelStore], settings: dg.ResourceParam[Settings], mlflow: dg.ResourceParam[Any],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """The classifier, twice: fitted on the training period for the gates to judge, and again for serving.

    The second fit goes through the newest mature day. Where FRAUD_MODEL says so it is a random forest instead.
    """
    chosen = training_sets.read(training_sets.newest())
    experiment = replace(experiment_settings(settings), threads=useful_threads(len(chosen.data)))
    pair = train_classifiers(chosen.data, chosen.split, settings=experiment)
    models.write(chosen.fingerprint, "xgboost_model", pair, options=recipe_options(settings))
    recipe = pair.evaluation.recipe
    parameters = {
        "kind": recipe.kind,
        "imbalance": recipe.imbalance,
        "trees": pair.evaluation.n_trees,
        **recipe.resolved(),
    }
    mlflow.log_params({f"classifier.{name}": value for name, value in parameters.items()})
    mlflow.log_params({"training_set": chosen.fingerprint, "as_of": chosen.split.as_of, "seed": settings.seed})
    return dg.MaterializeResult(
        metadata={
            "training set": chosen.fingerprint,
            "trees": pair.evaluation.n_trees,
            "recipe": table([{"parameter": name, "value": value} for name, value in parameters.items()]),
            "search": table(list(pair.trials)),
            "plots": plots({"feature importance": feature_importance(pair.served.importance())}),
        }
    )


@dg.asset(
    group_name="training",
    pool=TRAINING_POOL,
    kinds={"scikitlearn", "mlflow"},
    owners=OWNERS,
    code_version="1",
    deps=["training_set"],
)
@patient
def isolation_forest_model(
    context: dg.AssetExecutionContext, training_sets: dg.ResourceParam[TrainingStore],
    models: dg.ResourceParam[ModelStore], settings: dg.ResourceParam[Settings], mlflow: dg.ResourceParam[Any],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """The anomaly detector: how unlike the usual a payment is, without asking what was fraud. It also sees what no label
    has shown yet.
    """
    chosen = training_sets.read(training_sets.newest())
    experiment = replace(experiment_settings(settings), threads=useful_threads(len(chosen.data)))
    pair = train_detectors(chosen.data, chosen.split, settings=experiment)
    models.write(chosen.fingerprint, "isolation_forest_model", pair, options=recipe_options(settings))
    forest = pair.served.forest
    mlflow.log_params({"detector.trees": len(forest.estimators_), "detector.sample": forest.max_samples_})
    mlflow.log_metric("detector.test_roc_auc", pair.test_roc_auc)
    return dg.MaterializeResult(
        metadata={
            "training set": chosen.fingerprint,
            "trees": len(forest.estimators_),
            "payments a tree": forest.max_samples_,
            "ROC AUC on the test period": pair.test_roc_auc,
        }
    )


def period_limits(settings: Settings) -> dict[str, int]:
    """The limits of `splits.plan_split`."""
    return {
        "maturity_days": settings.label_maturity_days,
        "shortest_days": settings.min_period_days,
        "longest_days": settings.max_period_days,
        "frauds_needed": settings.min_period_frauds,
    }


def experiment_settings(settings: Settings) -> ExperimentSettings:
    """How this installation trains and judges."""
    return ExperimentSettings(
        recipe=Recipe(kind=settings.model, imbalance=settings.imbalance),
        costs=policies.costs(settings),
        evaluation=policies.evaluation_settings(settings),
        search_trials=settings.search_trials,
        control_share=settings.control_share,
        seed=settings.seed,
        threads=useful_threads(ROWS_PER_THREAD),
    )


def recipe_options(settings: Settings) -> dict[str, Any]:
    """What a fitted model depends on besides its training set."""
    names = ("model", "imbalance", "search_trials", "control_share", "seed")
    return {name: getattr(settings, name) for name in names}


def recipe_tag(settings: Settings) -> str:
    """The recipe and the limits of the gates, as they stand in a version's tags: the same again need not be trained again."""
    judged_by = ("alert_budget", "review_cost", "false_block_cost", "fraud_loss_share")
    limits = {
        name: getattr(settings, name)
        for name in Settings.model_fields
        if name.startswith(("min_", "max_")) or name in judged_by
    }
    return json.dumps({**recipe_options(settings), **limits}, sort_keys=True)


def useful_threads(rows: int) -> int:
    """The cores that this process may use, and no more than there is work for: small fits lose by waiting for each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, rows // ROWS_PER_THREAD))


def _period(name: str, span: Any, made: TrainingSet) -> dict[str, Any]:
    inside = span.mask(made.data.event_time)
    return {
        "period": name,
        "days": str(span),
        "payments": int(inside.sum()),
        "known frauds": int(made.data.is_fraud[inside].sum()),
    }
