"""Histories for the parity proof, simulated and stored."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore, SourceStore
from fraud_pipeline.adapters.parity_source import check_parity, simulated_history, stored_history
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.domain.simulation import WorldConfig
from fraud_pipeline.errors import InputError, NotFound


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    land_world(WorldConfig(end=date(2025, 3, 1), customers=40, merchants=20, days=40, fraud_rate=0.05), home=folder)
    return folder


def test_a_simulated_history_has_the_rows_asked_for_and_some_of_them_late() -> None:
    history = simulated_history(6_000)
    assert len(history.events) == 6_000
    assert len(history.labels) > 5
    late = np.maximum.accumulate(history.events.time) > history.events.time
    assert 0.002 < late.mean() < 0.05
    assert history.labels.known_at.max() <= history.events.time.max()


def test_the_same_rows_are_made_every_time() -> None:
    one, two = simulated_history(500), simulated_history(500)
    np.testing.assert_array_equal(one.events.time, two.events.time)
    np.testing.assert_array_equal(one.events.amount, two.events.amount)


@pytest.mark.parametrize("mutate", ["ulp", "drop_event", "drop_label"])
def test_parity_of_a_simulated_world_holds_and_each_mutation_breaks_it(mutate: str) -> None:
    name, report = check_parity(rows=5_000, time_zone="Europe/Brussels")
    assert report.equal
    assert report.rows == 5_000
    assert report.online_seconds is not None
    assert name.startswith("simulated world of 29 customers")
    _, harmed = check_parity(rows=5_000, mutate=mutate)  # type: ignore[arg-type]
    assert harmed.differing_values > 0


def test_a_landed_world_is_read_whole_or_in_part(home: Path) -> None:
    world = SourceStore(home).manifest()
    whole = stored_history(home)
    assert len(whole.events) == world.rows
    assert 0 < len(whole.labels) < world.labels  # those known after the end stand behind the log
    part = stored_history(home / "source", rows=300)
    np.testing.assert_array_equal(part.events.time, whole.events.time[:300])
    assert len(stored_history(home, rows=10**9).events) == world.rows
    _, report = check_parity(data=home)
    assert report.equal
    assert report.rows == world.rows


def test_materialized_days_come_before_the_landed_world(home: Path, tmp_path: Path) -> None:
    source, store = SourceStore(home), DatasetStore(tmp_path)
    day = source.manifest().start
    for dataset in ("transactions", "labels"):
        store.write_day(dataset, day, source.read_day(dataset, day))
    history = stored_history(tmp_path)
    assert len(history.events) == source.read_day("transactions", day).num_rows
    assert history.name == f"the materialized days of {tmp_path}"


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="neither materialized days nor a landed world"):
        check_parity(data=tmp_path)


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        check_parity(rows=0)
