"""A seeded search over a small space of boosting parameters, judged on the validation period only.

It needs no store and no service: the same rows, seed and trials find the same parameters. The test period stays
unseen, so that the gates still judge what the search has not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fraud_pipeline.domain.learning_data import LearningData
from fraud_pipeline.domain.training import Progress, Recipe, fit_classifier
from fraud_pipeline.errors import TrainingDataError


@dataclass(frozen=True)
class SearchResult:
    """The best recipe, its average precision on the validation period, and every trial (parameters and `pr_auc`)."""

    recipe: Recipe
    pr_auc: float
    trials: tuple[Mapping[str, Any], ...]


def search(
    train: LearningData,
    validation: LearningData,
    *,
    recipe: Recipe,
    trials: int,
    seed: int,
    threads: int,
    progress: Progress | None = None,
) -> SearchResult:
    """Try `recipe` itself and `trials` - 1 others by Optuna's TPE; the best on `validation` by average precision."""
    import optuna

    from fraud_pipeline.domain.ranking import average_precision

    if trials < 1:
        raise TrainingDataError(f"A search needs at least one trial, not {trials}.", remedy="Set FRAUD_SEARCH_TRIALS.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    resolved = recipe.resolved()
    study.enqueue_trial({name: resolved[name] for name in _SPACES[recipe.kind]})

    def objective(trial: optuna.Trial) -> float:
        params = {name: suggest(trial, name) for name, suggest in _SPACES[recipe.kind].items()}
        fitted = fit_classifier(
            train, validation, recipe=replace(recipe, params={**recipe.params, **params}), seed=seed, threads=threads
        )
        if progress is not None:
            progress("searching", (trial.number + 1) / trials)
        return average_precision(fitted.raw_score(validation.features), validation.is_fraud, validation.weight)

    study.optimize(objective, n_trials=trials, n_jobs=1)
    tried = tuple({**trial.params, "pr_auc": trial.value} for trial in study.trials)
    best = replace(recipe, params={**recipe.params, **study.best_params})
    return SearchResult(best, float(study.best_value), tried)


_SPACES: Mapping[str, Mapping[str, Any]] = {
    "xgboost": {
        "max_depth": lambda trial, name: trial.suggest_int(name, 3, 7),
        "min_child_weight": lambda trial, name: trial.suggest_float(name, 1.0, 30.0, log=True),
        "subsample": lambda trial, name: trial.suggest_float(name, 0.5, 1.0),
        "colsample_bytree": lambda trial, name: trial.suggest_float(name, 0.3, 1.0),
        "reg_lambda": lambda trial, name: trial.suggest_float(name, 0.5, 30.0, log=True),
    },
    "random_forest": {
        "max_depth": lambda trial, name: trial.suggest_int(name, 6, 20),
        "min_samples_leaf": lambda trial, name: trial.suggest_int(name, 2, 50, log=True),
    },
}
