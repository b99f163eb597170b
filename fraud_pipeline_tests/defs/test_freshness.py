"""Freshness is shown where data go on now, and raises no alarm in a home of the past."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.defs.freshness import FRESH_ASSETS, is_live
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.worlds import WORLD_END, stored_world

TODAY = datetime.now(UTC).date()


def fresh_assets(settings: Settings) -> set[str]:
    graph = load_definitions(settings).resolve_asset_graph()
    return {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy is not None}


def land(home: Path, *, end: date) -> Settings:
    land_world(WorldConfig(end=end, customers=20, merchants=10, days=3), home=home)
    return Settings(home=home)


@pytest.mark.parametrize("servers", ["", "nowhere:9092"])
def test_what_is_made_daily_has_a_policy_while_its_data_go_on(tmp_path: Path, servers: str) -> None:
    settings = land(tmp_path, end=TODAY).model_copy(update={"kafka_bootstrap_servers": servers})
    assert fresh_assets(settings) == FRESH_ASSETS
    policy = load_definitions(settings).resolve_asset_graph().get(dg.AssetKey("features")).freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert policy.warn_window is not None
    assert timedelta(hours=24) < policy.warn_window.to_timedelta() < policy.fail_window.to_timedelta()


@pytest.mark.parametrize("servers", ["", "nowhere:9092"])
def test_a_home_of_the_past_has_none(tmp_path: Path, servers: str) -> None:
    settings = land(tmp_path, end=TODAY - timedelta(days=80)).model_copy(update={"kafka_bootstrap_servers": servers})
    assert fresh_assets(settings) == set()


def test_newer_served_days_make_an_old_history_go_on(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    assert not is_live(tmp_path, today=WORLD_END + timedelta(days=30))
    store.write_day("transactions", WORLD_END + timedelta(days=25), store.read_day("transactions", days[0]))
    assert is_live(tmp_path, today=WORLD_END + timedelta(days=30))
    assert not is_live(tmp_path / "nothing", today=WORLD_END)
