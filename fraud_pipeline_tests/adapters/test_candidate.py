"""Whom a candidate is compared with, and on which days the champion may be judged."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from fraud_pipeline.adapters.candidate import Opponent
from fraud_pipeline.adapters.champion_watch import learned_through, mature_days_since
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.splits import DayRange
from fraud_pipeline_tests.bundles import lineage, loaded_bundle, write_bundle

LAST_LEARNED = date(2026, 2, 20)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """A champion that learned from February up to LAST_LEARNED."""
    periods = {**lineage().periods, "training": ("2026-02-01", LAST_LEARNED.isoformat())}
    return ModelBundle.load(write_bundle(tmp_path_factory.mktemp("champion"), lineage=lineage(periods=periods)))


def week_from(start: date) -> DayRange:
    return DayRange(start, start + timedelta(days=7))


def test_the_champion_as_served_meets_a_candidate_on_days_that_it_has_not_learned_from(champion: ModelBundle) -> None:
    evaluation = loaded_bundle()
    opponent = Opponent(1, champion, evaluation)
    assert opponent.on(week_from(LAST_LEARNED + timedelta(days=1))) is champion
    assert opponent.on(week_from(LAST_LEARNED)) is evaluation, "the served model has seen that day's answers"


def test_without_its_evaluation_model_the_champion_is_judged_as_served(champion: ModelBundle) -> None:
    assert Opponent(1, champion).on(week_from(LAST_LEARNED)) is champion


def test_mature_days_since_begin_after_what_was_learned_and_end_before_what_is_too_young(champion: ModelBundle) -> None:
    as_of = LAST_LEARNED + timedelta(days=12)
    days = mature_days_since(champion, as_of=as_of, maturity_days=7)
    assert learned_through(champion) == LAST_LEARNED
    assert days == [LAST_LEARNED + timedelta(days=i) for i in (1, 2, 3, 4)]
    assert max(days) + timedelta(days=8) == as_of, "a label needs seven whole days"


def test_mature_days_are_the_newest_few_and_none_right_after_training(champion: ModelBundle) -> None:
    much_later = LAST_LEARNED + timedelta(days=200)
    days = mature_days_since(champion, as_of=much_later, maturity_days=7, at_most=5)
    assert days == [much_later - timedelta(days=i) for i in (12, 11, 10, 9, 8)]
    assert mature_days_since(champion, as_of=LAST_LEARNED + timedelta(days=3), maturity_days=7) == []
