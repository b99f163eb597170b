from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from fraud_pipeline.domain.evaluation import EvaluationSettings
from fraud_pipeline.domain.experiment import (
    ExperimentSettings,
    judge_classifier,
    period_rows,
    run_experiment,
    train_classifiers,
    training_rows,
)
from fraud_pipeline.domain.learning_data import US_PER_DAY
from fraud_pipeline.domain.splits import midnight_us, split_data
from fraud_pipeline.domain.training import Recipe
from fraud_pipeline.errors import TrainingDataError
from fraud_pipeline_tests.domain.learning_worlds import payments

START = date(2026, 1, 1)
AS_OF = START + timedelta(days=70)
SETTINGS = ExperimentSettings(
    recipe=Recipe(params={"rounds": 40, "patience": 10, "eta": 0.2, "max_depth": 3}),
    evaluation=EvaluationSettings(replicates=100, slice_replicates=20, budget=0.05),
    threads=1,
)


@pytest.fixture(scope="module")
def world():
    return payments(start=START, days=70, per_day=150, fraud_rate=0.1, label_delay_days=3)


@pytest.fixture(scope="module")
def result(world):
    return run_experiment(world, split_data(world, as_of=AS_OF), settings=SETTINGS)


def test_a_training_ends_in_a_judged_candidate(result, world):
    judgement = result.judgement
    assert judgement.evaluation["roc_auc"].value > 0.85
    assert judgement.evaluation["expected_over_observed"].value == pytest.approx(1, abs=0.35)
    assert len(judgement.test) == len(judgement.raw) == judgement.evaluation.rows
    assert result.classifiers.served.n_trees == result.classifiers.evaluation.n_trees
    assert result.detectors.test_roc_auc > 0.5
    split = split_data(world, as_of=AS_OF)
    assert np.array_equal(result.reference.event_time, world.event_time[split.reference.mask(world.event_time)])


def test_the_same_seed_gives_the_same_candidate(result, world):
    again = run_experiment(world, split_data(world, as_of=AS_OF), settings=SETTINGS)
    assert again.judgement.served_thresholds == result.judgement.served_thresholds
    assert again.judgement.evaluation.as_dict() == result.judgement.evaluation.as_dict()


def test_nothing_learned_after_the_moment_changes_the_candidate(result, world):
    """Later payments, later labels and later corrections: none of them moves a score."""
    longer = payments(start=START, days=70, per_day=150, fraud_rate=0.1, label_delay_days=3)
    late = longer.event_time >= midnight_us(AS_OF - timedelta(days=7))
    flipped = replace(
        longer, is_fraud=np.where(late, ~longer.is_fraud, longer.is_fraud), labelled=longer.labelled | late
    )
    flipped = replace(flipped, label_known_at=np.where(late, midnight_us(AS_OF) + 1, longer.label_known_at))
    split = split_data(flipped, as_of=AS_OF)
    assert split == split_data(world, as_of=AS_OF)
    pair = train_classifiers(flipped, split, settings=SETTINGS)
    scores = result.classifiers.served.raw_score(world.features)
    assert np.array_equal(pair.served.raw_score(world.features), scores)


def test_the_evaluation_model_knows_only_labels_known_when_validation_begins(world):
    slow = replace(
        world, label_known_at=np.where(world.is_fraud, world.event_time + 20 * US_PER_DAY, world.label_known_at)
    )
    split = split_data(world, as_of=AS_OF)
    rows = training_rows(slow, split, control_share=0.01)
    unknown = rows.event_time + 20 * US_PER_DAY > midnight_us(split.validation.start)
    assert not rows.is_fraud[unknown].any()
    assert rows.is_fraud[~unknown].any()
    as_of_now = period_rows(slow, split, split.train, control_share=0.01)
    assert as_of_now.is_fraud.sum() > rows.is_fraud.sum()


def test_blocked_payments_without_a_label_take_no_part(world):
    split = split_data(world, as_of=AS_OF)
    blocked = world.is_fraud & (np.arange(len(world)) % 2 == 0)
    hidden = replace(world, blocked=blocked, is_fraud=world.is_fraud & ~blocked, labelled=world.labelled & ~blocked)
    rows = period_rows(hidden, split, split.test, control_share=0.01)
    inside = split.test.mask(world.event_time)
    assert len(rows) == inside.sum() - (blocked & inside).sum()


def test_shuffled_labels_make_a_model_that_the_numbers_condemn(world):
    shuffled = np.random.default_rng(0).permutation(world.is_fraud)
    nonsense = replace(
        world,
        is_fraud=shuffled,
        labelled=shuffled,
        label_known_at=np.where(shuffled, world.event_time + US_PER_DAY, world.label_known_at),
    )
    split = split_data(world, as_of=AS_OF)
    pair = train_classifiers(nonsense, split, settings=SETTINGS)
    judgement = judge_classifier(world, split, pair.evaluation, settings=SETTINGS)
    assert judgement.evaluation["roc_auc"].value < 0.65


def test_a_search_is_part_of_the_training_when_asked_for(world):
    split = split_data(world, as_of=AS_OF)
    pair = train_classifiers(world, split, settings=replace(SETTINGS, search_trials=2))
    assert len(pair.trials) == 2
    assert pair.evaluation.recipe.params["max_depth"] in {trial["max_depth"] for trial in pair.trials}


def test_a_history_without_known_fraud_is_refused(world):
    innocent = replace(world, is_fraud=np.zeros(len(world), dtype=bool), labelled=np.zeros(len(world), dtype=bool))
    with pytest.raises(TrainingDataError, match=r"holds 0 known frauds|0 of 100 frauds"):
        split_data(innocent, as_of=AS_OF)
    with pytest.raises(TrainingDataError, match="training period are legitimate"):
        train_classifiers(innocent, split_data(world, as_of=AS_OF), settings=SETTINGS)
