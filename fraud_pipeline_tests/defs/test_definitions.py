"""The code location as a whole: what is in it, and that every asset's page tells a person what it is."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.defs.partitions import world_span
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.worlds import WORLD_END, land_small_world


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    home = tmp_path_factory.mktemp("home")
    land_small_world(home, days=5)
    return load_definitions(Settings(home=home))


ASSETS = {
    "transactions": set(),
    "labels": set(),
    "features": {"transactions", "labels"},
    "feature_state": {"features", "feature_state"},
    "training_set": {"features", "labels"},
    "xgboost_model": {"training_set"},
    "isolation_forest_model": {"training_set"},
    "candidate_bundle": {"xgboost_model", "isolation_forest_model"},
    "champion_bundle": {"candidate_bundle"},
    "shadow_trial": {"candidate_bundle"},
    "promotion_watch": {"champion_bundle"},
    "drift_report": {"features", "champion_bundle"},
    "performance_report": {"features", "champion_bundle"},
    "parity_report": {"features"},
}
BLOCKING = {
    "transactions": {"valid_days_exist"},
    "features": {"valid_days_exist"},
    "candidate_bundle": {
        "pr_auc_above_floor",
        "recall_at_budget_above_floor",
        "expected_frauds_match_observed",
        "net_value_not_worse_than_champion",
        "served_scores_equal_training_scores",
    },
}
WARNING = {
    "transactions": {"every_day_is_valid", "volume_is_like_recent_days", "newest_day_is_fresh"},
    "labels": {"label_rate_of_mature_days_is_plausible"},
    "features": {"every_day_is_valid"},
    "candidate_bundle": {"decision_within_latency_budget"},
    "drift_report": {"champion_knows_this_world"},
    "parity_report": {"batch_equals_online"},
}


def test_the_assets_and_what_they_are_made_from(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == ASSETS


def test_the_checks_and_which_of_them_block(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for asset in ASSETS:
        keys = graph.get_check_keys_for_assets({dg.AssetKey(asset)})
        blocking = {key.name for key in keys if graph.get(key).blocking}
        assert blocking == BLOCKING.get(asset, set()), asset
        assert {key.name for key in keys} - blocking == WARNING.get(asset, set()), asset


def test_jobs_schedules_and_sensors(definitions: dg.Definitions) -> None:
    assert {job.name for job in definitions.jobs or ()} == {
        "ingest_days", "retrain", "monitor", "repair_aliases", "end_shadow_trial", "retention",
    }  # fmt: skip
    schedules = {s.name: s.cron_schedule for s in definitions.schedules or () if isinstance(s, dg.ScheduleDefinition)}
    assert schedules == {"weekly_retrain": "0 4 * * 1", "daily_retention": "30 3 * * *"}
    assert {s.name for s in definitions.sensors or ()} == {
        "day_automation", "drift_retrain", "drift_retrain_done", "failed_runs", "shadow_period", "watch_promotion",
        "observe_platform", "deliver_notices", "tell_failed_runs", "served_days", "history_labels",
    }  # fmt: skip
    assert all(s.default_status == dg.DefaultSensorStatus.RUNNING for s in definitions.sensors or ())
    assert all(s.default_status == dg.DefaultScheduleStatus.RUNNING for s in definitions.schedules or ())


def test_every_page_says_what_its_asset_is(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        name = key.to_user_string()
        assert len(node.description or "") > 60, name
        assert node.owners == ["team:fraud"], name
        assert node.kinds, name
        assert node.group_name in {"data", "features", "training", "promotion", "monitoring"}, name
        assert node.code_version, name


def test_only_days_and_reports_start_by_themselves(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    automatic = {
        k.to_user_string() for k in graph.get_all_asset_keys() if graph.get(k).automation_condition is not None
    }
    daily = {"transactions", "labels", "features", "feature_state"}
    assert automatic == daily | {"drift_report", "performance_report", "parity_report"}


def test_the_days_are_those_of_the_world(tmp_path: Path) -> None:
    world = land_small_world(tmp_path, days=5)
    graph = load_definitions(Settings(home=tmp_path)).resolve_asset_graph()
    days = graph.get(dg.AssetKey("features")).partitions_def
    assert days is not None
    assert days.get_first_partition_key() == str(world.start)


@pytest.mark.parametrize(
    ("today", "end"),
    [(date(2026, 3, 1), None), (date(2026, 5, 1), None), (date(2026, 8, 1), date(2026, 3, 6))],
    ids=["just made", "live payments continue it", "history: ends with its last label"],
)
def test_a_history_of_long_ago_has_an_end(tmp_path: Path, today: date, end: date | None) -> None:
    land_small_world(tmp_path, days=5)
    start, found = world_span(tmp_path, today=today)
    assert start == date(2026, 2, 24)
    assert (found is None) == (end is None)
    if end is not None and found is not None:
        assert WORLD_END < found <= end


def test_an_empty_home_loads_too(tmp_path: Path) -> None:
    load_definitions(Settings(home=tmp_path)).resolve_asset_graph()


@pytest.mark.parametrize("module", ["fraud_pipeline.pipeline_run", "fraud_pipeline.dagster_home"])
def test_dagster_is_not_imported_before_a_run(module: str) -> None:
    program = f"import sys, {module}; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nothing_of_weight_is_imported_to_load_the_graph() -> None:
    program = (
        "import sys, warnings; warnings.simplefilter('ignore'); import fraud_pipeline.definitions as d; d.defs();"
        "print(*sorted({'mlflow', 'xgboost', 'sklearn', 'evidently', 'great_expectations', 'matplotlib'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
