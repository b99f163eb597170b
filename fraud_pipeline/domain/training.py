"""Fitting the classifier and the anomaly detector.

Knows rows and parameters, nothing of days, files or trackers. XGBoost and scikit-learn are imported inside functions:
the decision path imports `domain` and must not load them. Two fits with the same rows, recipe, seed and threads give
the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fraud_pipeline.domain.learning_data import LearningData
from fraud_pipeline.domain.sampling import (
    Imbalance,
    check_learnable,
    class_weights,
    fill_missing,
    smote,
    training_medians,
)
from fraud_pipeline.errors import TrainingDataError

ClassifierKind = Literal["xgboost", "random_forest"]

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done (0 to 1)."""

BOOSTING_DEFAULTS: Mapping[str, Any] = {
    "objective": "binary:logistic",
    # Version 3 would start from the base rate: at 1 % fraud the first trees then see hardly any curvature and average
    # precision suffers.
    "base_score": 0.5,
    "tree_method": "hist",
    "max_bin": 1024,  # 256 quantile bins put all of the top 0.4 % of an amount into one
    "eta": 0.05,
    "max_depth": 5,
    "min_child_weight": 5.0,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "reg_lambda": 2.0,
    "rounds": 600,
    "patience": 50,
}
"""XGBoost's own names, and `rounds` and `patience` for how long to boost. Tuned on the handbook's data and on
simulated worlds.
"""

FOREST_DEFAULTS: Mapping[str, Any] = {
    "n_estimators": 200,
    "max_depth": 14,
    "min_samples_leaf": 5,
    "max_features": "sqrt",
    "max_samples": 0.5,
}

DETECTOR_DEFAULTS: Mapping[str, Any] = {"n_estimators": 100, "max_samples": 256}
"""Liu, Ting & Zhou 2008: 256 rows a tree isolate best, more of them mask the anomalies with each other."""

DETECTOR_ROWS = 100_000
"""Rows drawn before the trees draw theirs: 100 trees of 256 rows see a quarter of them at most."""

_OURS = ("rounds", "patience")


@dataclass(frozen=True)
class Recipe:
    """How a classifier is made, apart from its rows: JSON-able, kept in the bundle, repeated by the refit."""

    kind: ClassifierKind = "xgboost"
    imbalance: Imbalance = "none"
    params: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of BOOSTING_DEFAULTS or FOREST_DEFAULTS."""

    def resolved(self) -> dict[str, Any]:
        """All parameters, defaults included."""
        defaults = BOOSTING_DEFAULTS if self.kind == "xgboost" else FOREST_DEFAULTS
        return {**defaults, **self.params}

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "imbalance": self.imbalance, "params": self.resolved()}


@dataclass(frozen=True)
class TrainedClassifier:
    """A fitted model: an xgboost.Booster cut at `n_trees`, or a scikit-learn forest.

    Where `medians` is there (a forest, or SMOTE), missing values are replaced by it before scoring; else the trees
    know what to do with NaN.
    """

    recipe: Recipe
    model: Any
    n_trees: int
    feature_names: tuple[str, ...]
    medians: np.ndarray | None
    learning_curve: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Validation metric by round; empty for a refit and for a forest."""

    @property
    def kind(self) -> ClassifierKind:
        return self.recipe.kind

    def raw_score(self, features: np.ndarray) -> np.ndarray:
        """float64 [n]: log-odds for XGBoost, the share of trees' votes for a forest; larger is more suspect."""
        known = features if self.medians is None else fill_missing(features, self.medians)
        if self.kind == "xgboost":
            return np.asarray(self.model.inplace_predict(known, predict_type="margin"), dtype=np.float64)
        return np.asarray(self.model.predict_proba(known)[:, 1], dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Share of the total gain (XGBoost) or impurity decrease (forest) by feature, largest first; the shares add
        up to 1.
        """
        if self.kind == "xgboost":
            gains = self.model.get_score(importance_type="total_gain")
            raw = np.array([gains.get(f"f{column}", 0.0) for column in range(len(self.feature_names))])
        else:
            raw = np.asarray(self.model.feature_importances_)
        shares = raw / max(raw.sum(), 1e-300)
        return {self.feature_names[column]: float(shares[column]) for column in np.argsort(-shares, kind="stable")}


@dataclass(frozen=True)
class TrainedDetector:
    """A scikit-learn Isolation Forest and the medians it was fitted on."""

    forest: Any
    feature_names: tuple[str, ...]
    medians: np.ndarray

    def anomaly_score(self, features: np.ndarray) -> np.ndarray:
        """float64 [n] in (0, 1): the paper's s(x, n) = 2^(-E[h(x)] / c(n)); larger is stranger, about 0.5 is usual."""
        return np.asarray(-self.forest.score_samples(fill_missing(features, self.medians)), dtype=np.float64)


def fit_classifier(
    train: LearningData,
    validation: LearningData | None,
    *,
    recipe: Recipe,
    seed: int,
    threads: int,
    progress: Progress | None = None,
) -> TrainedClassifier:
    """Fit on `train`; XGBoost stops where the log loss on `validation` no longer falls, or without one after `rounds`.

    Log loss, since average precision jumps with each of a hundred frauds and would stop anywhere. Both hold only rows
    that may be learned from (`learning_data.eligible`), with the labels that were known at the time.
    """
    check_learnable(train.features, train.is_fraud, train.feature_names, period="training")
    if validation is not None:
        check_learnable(validation.features, validation.is_fraud, validation.feature_names, period="validation")
    features, is_fraud, weight, medians = _prepare(train, recipe, seed)
    if recipe.kind == "random_forest":
        forest = _fit_forest(features, is_fraud, weight, recipe.resolved(), seed=seed, threads=threads)
        return TrainedClassifier(recipe, forest, len(forest.estimators_), train.feature_names, medians)
    if validation is not None and medians is not None:
        validation = replace(validation, features=fill_missing(validation.features, medians))
    booster, curve = _boost(
        features, is_fraud, weight, validation, recipe.resolved(), seed=seed, threads=threads, progress=progress
    )
    return TrainedClassifier(recipe, booster, booster.num_boosted_rounds(), train.feature_names, medians, curve)


def refit(
    classifier: TrainedClassifier, data: LearningData, *, seed: int, threads: int, progress: Progress | None = None
) -> TrainedClassifier:
    """The same recipe and tree count on other (more recent) rows: what is registered and served."""
    params = {**classifier.recipe.params, **({"rounds": classifier.n_trees} if classifier.kind == "xgboost" else {})}
    recipe = replace(classifier.recipe, params=params)
    return fit_classifier(data, None, recipe=recipe, seed=seed, threads=threads, progress=progress)


def fit_detector(
    train: LearningData, *, seed: int, threads: int, params: Mapping[str, Any] | None = None
) -> TrainedDetector:
    """An Isolation Forest on the features alone: it needs no label and so also sees what no label has shown yet."""
    from sklearn.ensemble import IsolationForest

    if not len(train):
        raise TrainingDataError(
            "There is no payment to fit the anomaly detector on.", remedy="Choose an as-of date inside the history."
        )
    features = train.features
    if len(features) > DETECTOR_ROWS:
        features = features[np.sort(np.random.default_rng(seed).choice(len(features), DETECTOR_ROWS, replace=False))]
    medians = training_medians(features)
    forest = IsolationForest(**{**DETECTOR_DEFAULTS, **(params or {})}, random_state=seed, n_jobs=threads)
    forest.fit(fill_missing(features, medians))
    return TrainedDetector(forest, train.feature_names, medians)


def _prepare(
    train: LearningData, recipe: Recipe, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """(features, is_fraud, weight, medians or None) as the learner gets them."""
    features, is_fraud, weight = train.features, train.is_fraud, train.weight
    needs_medians = recipe.kind == "random_forest" or recipe.imbalance == "smote"
    medians = training_medians(features) if needs_medians else None
    if medians is not None:
        features = fill_missing(features, medians)
    if recipe.imbalance == "weight":
        weight = class_weights(is_fraud, weight)
    elif recipe.imbalance == "smote":
        features, is_fraud, weight = smote(features, is_fraud, weight, seed=seed)
    return features, is_fraud, weight, medians


def _fit_forest(
    features: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray, params: dict[str, Any], *, seed: int, threads: int
) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(**params, random_state=seed, n_jobs=threads)
    forest.fit(features, is_fraud, sample_weight=weight)
    # Threads add up the trees' votes in the order in which they finish, which moves the last bits of a score.
    return forest.set_params(n_jobs=1)


def _boost(
    features: np.ndarray,
    is_fraud: np.ndarray,
    weight: np.ndarray,
    validation: LearningData | None,
    params: dict[str, Any],
    *,
    seed: int,
    threads: int,
    progress: Progress | None,
) -> tuple[Any, dict[str, tuple[float, ...]]]:
    """(booster cut at its best round, validation metrics by round)."""
    import xgboost as xgb

    settings = {name: value for name, value in params.items() if name not in _OURS}
    settings |= {"seed": seed, "nthread": threads, "verbosity": 0, "eval_metric": ["aucpr", "logloss"]}
    matrix = xgb.QuantileDMatrix(features, is_fraud, weight=weight, max_bin=params["max_bin"], nthread=threads)
    callbacks = [] if progress is None else [_reporter(progress, params["rounds"])]
    if validation is None:
        return xgb.train(settings, matrix, num_boost_round=params["rounds"], callbacks=callbacks), {}
    # Not a QuantileDMatrix as well: scoring a round from its bins takes several times as long as from the values.
    unseen = xgb.DMatrix(validation.features, validation.is_fraud, weight=validation.weight, nthread=threads)
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgb.train(
        settings,
        matrix,
        num_boost_round=params["rounds"],
        evals=[(unseen, "validation")],
        early_stopping_rounds=params["patience"],
        evals_result=history,
        verbose_eval=False,
        callbacks=callbacks,
    )
    curves = {name: tuple(values) for name, values in history["validation"].items()}
    return booster[: booster.best_iteration + 1], curves


def _reporter(progress: Progress, rounds: int) -> Any:
    import xgboost as xgb

    class Reporter(xgb.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
            if epoch % 10 == 9 or epoch + 1 == rounds:
                progress("boosting", (epoch + 1) / rounds)
            return False

    return Reporter()
