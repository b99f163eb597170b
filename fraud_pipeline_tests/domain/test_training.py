import pickle
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from fraud_pipeline.domain.hyperparameter_search import search
from fraud_pipeline.domain.training import Recipe, fit_classifier, fit_detector, refit
from fraud_pipeline.errors import TrainingDataError
from fraud_pipeline_tests.domain.learning_worlds import payments

START = date(2026, 1, 1)
QUICK = {"rounds": 60, "patience": 10, "eta": 0.2, "max_depth": 3}
FOREST = {"n_estimators": 20, "max_depth": 6}


@pytest.fixture(scope="module")
def world():
    data = payments(start=START, days=40, per_day=100, seed=1)
    return data.rows(slice(0, 2_000)), data.rows(slice(2_000, 3_000)), data.rows(slice(3_000, 4_000))


def recipes():
    return [
        Recipe("xgboost", params=QUICK),
        Recipe("xgboost", imbalance="weight", params=QUICK),
        Recipe("xgboost", imbalance="smote", params=QUICK),
        Recipe("random_forest", params=FOREST),
        Recipe("random_forest", imbalance="smote", params=FOREST),
    ]


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: f"{recipe.kind}-{recipe.imbalance}")
def test_every_recipe_learns_repeats_itself_and_survives_pickling(world, recipe):
    train, validation, test = world
    fitted, again = (fit_classifier(train, validation, recipe=recipe, seed=3, threads=1) for _ in range(2))
    raw = fitted.raw_score(test.features)
    assert roc_auc_score(test.is_fraud, raw) > 0.8
    assert np.array_equal(raw, again.raw_score(test.features))
    assert np.array_equal(raw, pickle.loads(pickle.dumps(fitted)).raw_score(test.features))
    importance = fitted.importance()
    assert next(iter(importance)) == "f0"
    assert sum(importance.values()) == pytest.approx(1)
    assert list(importance.values()) == sorted(importance.values(), reverse=True)


def test_boosting_stops_where_validation_no_longer_improves(world):
    train, validation, _ = world
    fitted = fit_classifier(train, validation, recipe=Recipe(params={**QUICK, "rounds": 300}), seed=0, threads=1)
    curve = fitted.learning_curve["logloss"]
    assert fitted.n_trees == int(np.argmin(curve)) + 1
    assert fitted.n_trees < len(curve) < 300
    assert fitted.model.num_boosted_rounds() == fitted.n_trees


def test_the_refit_has_the_same_recipe_and_tree_count(world):
    train, validation, test = world
    fitted = fit_classifier(train, validation, recipe=Recipe(params=QUICK), seed=0, threads=1)
    served = refit(fitted, validation, seed=0, threads=1)
    assert served.n_trees == fitted.n_trees
    assert served.recipe.params["max_depth"] == 3
    assert not np.array_equal(served.raw_score(test.features), fitted.raw_score(test.features))
    forest = fit_classifier(train, None, recipe=Recipe("random_forest", params=FOREST), seed=0, threads=1)
    assert refit(forest, validation, seed=0, threads=1).n_trees == 20


def test_raw_scores_are_log_odds_before_the_trees_say_anything():
    data = payments(start=START, days=5, per_day=100, fraud_rate=0.02)
    fitted = fit_classifier(data, None, recipe=Recipe(params={**QUICK, "rounds": 1, "eta": 1e-6}), seed=0, threads=1)
    assert np.abs(fitted.raw_score(data.features)).max() < 1e-4  # base_score 0.5, not the base rate


def test_rows_of_weight_zero_teach_nothing(world):
    train, _, test = world
    nonsense = replace(train, is_fraud=~train.is_fraud, weight=np.zeros(len(train), dtype=np.float32))
    both = replace(
        train,
        **{
            name: np.concatenate([getattr(train, name), getattr(nonsense, name)])
            for name in (
                "transaction_id", "event_time", "customer", "amount", "channel", "country", "category", "features", "is_fraud",
                "label_known_at", "blocked", "labelled", "control", "weight", "kind",
            )
        },
    )  # fmt: skip
    fitted = fit_classifier(both, None, recipe=Recipe(params={**QUICK, "rounds": 20}), seed=0, threads=1)
    assert roc_auc_score(test.is_fraud, fitted.raw_score(test.features)) > 0.85


def test_a_column_without_values_does_no_harm(world):
    train, validation, test = world
    empty = np.full(len(train), np.nan, dtype=np.float32)

    def without(data):
        features = data.features.copy()
        features[:, 3] = empty[: len(data)]
        return replace(data, features=features)

    for recipe in (Recipe(params=QUICK), Recipe("random_forest", params=FOREST)):
        fitted = fit_classifier(without(train), without(validation), recipe=recipe, seed=0, threads=1)
        assert fitted.importance()["f3"] == 0
        assert np.isfinite(fitted.raw_score(without(test).features)).all()
    assert np.isfinite(fit_detector(without(train), seed=0, threads=1).anomaly_score(without(test).features)).all()


def test_one_class_or_an_infinite_value_is_refused(world):
    train, validation, _ = world
    innocent = train.rows(~train.is_fraud)
    with pytest.raises(TrainingDataError, match="training period are legitimate"):
        fit_classifier(innocent, validation, recipe=Recipe(), seed=0, threads=1)
    with pytest.raises(TrainingDataError, match="validation period are legitimate"):
        fit_classifier(train, validation.rows(~validation.is_fraud), recipe=Recipe(), seed=0, threads=1)
    features = train.features.copy()
    features[5, 2] = np.inf
    with pytest.raises(TrainingDataError, match="Infinite values in: f2"):
        fit_classifier(replace(train, features=features), None, recipe=Recipe(), seed=0, threads=1)


def test_anomaly_scores_are_the_papers(world):
    train, _, test = world
    detector = fit_detector(train, seed=4, threads=2)
    scores = detector.anomaly_score(test.features)
    assert ((scores > 0) & (scores < 1)).all()
    filled = np.where(np.isnan(train.features), detector.medians, train.features)
    reference = IsolationForest(n_estimators=100, max_samples=256, random_state=4).fit(filled)
    assert np.array_equal(
        scores, -reference.score_samples(np.where(np.isnan(test.features), detector.medians, test.features))
    )
    far = np.full((1, 6), 9.0, dtype=np.float32)
    assert detector.anomaly_score(far)[0] > scores.max()


def test_progress_is_told(world):
    train, _, _ = world
    told = []
    fit_classifier(
        train,
        None,
        recipe=Recipe(params={**QUICK, "rounds": 25}),
        seed=0,
        threads=1,
        progress=lambda *said: told.append(said),
    )
    assert told == [("boosting", 0.4), ("boosting", 0.8), ("boosting", 1.0)]


def test_the_search_tries_the_recipe_itself_first_and_repeats_itself(world):
    train, validation, _ = world
    recipe = Recipe(params={**QUICK, "rounds": 15})
    first, again = (search(train, validation, recipe=recipe, trials=3, seed=5, threads=1) for _ in range(2))
    assert first == again
    assert len(first.trials) == 3
    assert first.trials[0]["max_depth"] == 3
    assert first.pr_auc == max(trial["pr_auc"] for trial in first.trials)
    best = fit_classifier(train, validation, recipe=first.recipe, seed=5, threads=1)
    assert best.learning_curve["aucpr"][best.n_trees - 1] == pytest.approx(first.pr_auc, abs=0.01)
    with pytest.raises(TrainingDataError, match="at least one trial"):
        search(train, validation, recipe=recipe, trials=0, seed=5, threads=1)
