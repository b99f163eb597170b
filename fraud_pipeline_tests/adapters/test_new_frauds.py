"""New frauds since the champion learned, counted from the stored days of a small world."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.new_frauds import NewFrauds
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline_tests.worlds import WORLD_END, stored_world

DAYS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DatasetStore:
    return stored_world(tmp_path_factory.mktemp("home"), days=DAYS)[0]


def champion(learned_through: date | None) -> Promotion:
    window = "" if learned_through is None else f"2026-01-01..{learned_through}"
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    return Promotion(1, 0, "promotion", 1, f"f{window}", None, "test", "", moment, {"training_window": window})


def known_one_by_one(store: DatasetStore, first: date, end: date, as_of: date) -> int:
    """The slow way: the newest version known by then of each label of a payment of [first, end)."""
    midnight = [datetime.combine(day, time.min, UTC) for day in (first, end, as_of)]
    newest: dict[str, bool] = {}
    rows = [row for day in store.days("labels") for row in store.read_day("labels", day).to_pylist()]
    for row in sorted(rows, key=lambda row: row["known_at"]):
        if midnight[0] <= row["event_time"] < midnight[1] and row["known_at"] <= midnight[2]:
            newest[row["transaction_id"]] = row["is_fraud"]
    return sum(newest.values())


@pytest.mark.parametrize("since", [2, 5, 9])
def test_they_are_the_frauds_of_mature_days_that_the_champion_has_not_learned_from(store: DatasetStore, since: int):
    learned = WORLD_END - timedelta(days=DAYS - since)
    found = NewFrauds(store, maturity_days=7).since(champion(learned), as_of=WORLD_END)
    assert found is not None
    first, end = learned + timedelta(days=1), WORLD_END - timedelta(days=7)
    assert (found.since, found.days) == (first, (end - first).days)
    assert found.frauds == known_one_by_one(store, first, end, WORLD_END) > 0


def test_a_champion_that_has_just_learned_has_no_new_labels(store: DatasetStore):
    found = NewFrauds(store, maturity_days=7).since(champion(WORLD_END - timedelta(days=7)), as_of=WORLD_END)
    assert found is not None
    assert (found.frauds, found.days) == (0, 0)


def test_a_champion_of_long_ago_is_looked_at_over_the_newest_days_only(store: DatasetStore):
    found = NewFrauds(store, maturity_days=7).since(champion(date(2024, 1, 1)), as_of=WORLD_END)
    assert found is not None
    assert found.since == WORLD_END - timedelta(days=7 + 28)
    assert found.days == DAYS - 7


def test_where_nobody_wrote_what_it_learned_nothing_is_said(store: DatasetStore):
    assert NewFrauds(store, maturity_days=7).since(champion(None), as_of=WORLD_END) is None


def test_it_counts_anew_for_another_day(store: DatasetStore):
    counts = NewFrauds(store, maturity_days=7)
    since = champion(WORLD_END - timedelta(days=DAYS - 2))
    earlier = counts.since(since, as_of=WORLD_END - timedelta(days=5))
    later = counts.since(since, as_of=WORLD_END)
    assert earlier is not None
    assert later is not None
    assert earlier.frauds < later.frauds
    assert counts.since(since, as_of=WORLD_END) is later, "the same question is answered from memory"


def test_an_empty_home_has_none(tmp_path: Path):
    found = NewFrauds(DatasetStore(tmp_path), maturity_days=7).since(champion(WORLD_END), as_of=WORLD_END)
    assert found is not None
    assert (found.frauds, found.days) == (0, 0)
