"""What the daemon asks for by itself, tick by tick."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.worlds import WORLD_END, land_small_world

DAILY = ("transactions", "labels", "features", "feature_state")
ALL = (
    *DAILY,
    "training_set",
    "candidate_bundle",
    "champion_bundle",
    "drift_report",
    "performance_report",
    "parity_report",
)


class Daemon:
    """Evaluates the conditions of a home's graph against an instance in memory."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.definitions = load_definitions(Settings(home=home))
        self.instance = instance
        self.cursor: Any = None

    def tick(self) -> dict[str, list[date]]:
        """The days asked for by asset; [] for an asset that has none and was asked for as a whole."""
        result = dg.evaluate_automation_conditions(defs=self.definitions, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked: dict[str, list[date]] = {}
        for name in ALL:
            if name in DAILY:
                days = sorted(
                    date.fromisoformat(str(key)) for key in result.get_requested_partitions(dg.AssetKey(name))
                )
                if days:
                    asked[name] = days
            elif result.get_num_requested(dg.AssetKey(name)):
                asked[name] = []
        return asked

    def materialized(self, *names: str, days: list[date] | None = None) -> None:
        for name in names:
            for day in days if days is not None else [None]:
                partition = None if day is None else str(day)
                self.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=name, partition=partition))

    def checked(self, asset: str, *, passed: bool) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(asset), check_name="valid_days_exist", passed=passed, blocking=True
            )
        )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    world = land_small_world(tmp_path, days=40)
    # As if the world had ended just now: a history of long ago has its last days after its end, with its last labels.
    assert world.end == WORLD_END
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(tmp_path, instance)


def last_days(daemon: Daemon, count: int) -> list[date]:
    graph = daemon.definitions.resolve_asset_graph()
    days = graph.get(dg.AssetKey("features")).partitions_def
    assert days is not None
    last = date.fromisoformat(str(days.get_last_partition_key()))
    return days_between(last - timedelta(days=count - 1), last + timedelta(days=1))


def test_missing_days_of_the_last_thirty_are_asked_for(daemon: Daemon) -> None:
    asked = daemon.tick()
    assert asked["transactions"] == asked["labels"] == last_days(daemon, 30)


def test_what_comes_after_waits_for_the_checks_and_then_takes_all_missing_days_at_once(daemon: Daemon) -> None:
    days = last_days(daemon, 30)
    daemon.materialized("transactions", "labels", days=days)
    assert "features" not in daemon.tick()
    daemon.checked("transactions", passed=False)
    assert "features" not in daemon.tick()
    daemon.checked("transactions", passed=True)
    asked = daemon.tick()
    assert asked["features"] == days


def test_days_with_the_daemon_off_are_made_up_for(daemon: Daemon) -> None:
    days = last_days(daemon, 30)
    daemon.checked("transactions", passed=True)
    daemon.checked("features", passed=True)
    daemon.materialized("transactions", "labels", days=days)
    daemon.materialized("features", "feature_state", days=days[:-3])
    asked = daemon.tick()
    assert asked["features"] == days[-3:]
    assert asked["feature_state"] == days[-3:]
    assert daemon.tick().get("transactions") is None


def test_training_never_starts_by_itself(daemon: Daemon) -> None:
    days = last_days(daemon, 30)
    daemon.checked("transactions", passed=True)
    daemon.checked("features", passed=True)
    daemon.materialized(*DAILY, days=days)
    for _ in range(3):
        assert not {"training_set", "candidate_bundle", "champion_bundle"} & set(daemon.tick())


def test_reports_follow_new_days_once_there_is_a_champion(daemon: Daemon) -> None:
    days = last_days(daemon, 30)
    daemon.tick()
    daemon.materialized(*DAILY, days=days[:-1])
    assert "drift_report" not in daemon.tick()
    daemon.materialized("champion_bundle")
    assert {"drift_report", "performance_report"} <= set(daemon.tick())
    daemon.materialized("drift_report", "performance_report", "parity_report")
    assert "drift_report" not in daemon.tick()
    daemon.materialized("features", days=days[-1:])
    assert "drift_report" in daemon.tick()
