"""Days of a stream: asked for when they have ended in its log, as one range, once."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster import DagsterRunStatus

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_schema import minute_closings, sink_positions
from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.defs.automation import ingest_days
from fraud_pipeline.defs.partitions import RANGE_END, RANGE_START
from fraud_pipeline.defs.resources import resources_for
from fraud_pipeline.defs.served_days import RANGE_TAG, served_days
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.worlds import WORLD_END, feature_store, stored_world

WRITERS = 2


class StreamHome:
    """A home whose history is materialized, and a ledger that a sink fills; the test says how far the writers are."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(home=path, kafka_bootstrap_servers="nowhere:9092")
        self.instance = instance
        self.store, self.days = stored_world(path)
        self.features = feature_store(path, self.store)
        list(self.features.materialize(self.days))
        with Ledger.open(self.settings.ledger_url) as ledger, ledger.database.writing() as connection:
            for partition in range(WRITERS):
                place = {"topic": "transactions", "partition": partition, "first_offset": 0, "next_offset": 100}
                connection.execute(sa.insert(sink_positions).values(place))

    def close(self, writer: int, day: date) -> None:
        """The writer closes the day's last minute."""
        midnight = datetime.combine(day + timedelta(days=1), time(), UTC)
        row = {"minute": int(midnight.timestamp()) // 60 - 1, "sequence": 0, "by_clock": True}
        with Ledger.open(self.settings.ledger_url) as ledger, ledger.database.writing() as connection:
            connection.execute(sa.insert(minute_closings).values(writer=f"transactions[{writer}]", **row))

    def tick(self, settings: Settings | None = None) -> Any:
        chosen = settings or self.settings
        given = {name: resources_for(chosen)[name] for name in ("source", "store", "feature_store", "settings")}
        with dg.build_sensor_context(instance=self.instance, resources=given) as context:
            return served_days(context)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[StreamHome]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield StreamHome(tmp_path, instance)


def span(asked: Any) -> tuple[str, str]:
    assert isinstance(asked, dg.RunRequest), asked
    return asked.tags[RANGE_START], asked.tags[RANGE_END]


def after(days: int) -> date:
    return WORLD_END + timedelta(days=days)


def test_nothing_is_asked_for_until_every_writer_has_ended_a_day(home: StreamHome) -> None:
    assert "No day has ended yet in transactions[0], transactions[1]" in home.tick().skip_message
    home.close(0, after(0))
    assert "No day has ended yet in transactions[1]." in home.tick().skip_message
    home.close(1, after(0))
    asked = home.tick()
    assert span(asked) == (str(after(0)), str(after(0)))
    assert asked.run_key == f"{after(0)}..{after(0)}#1"


def test_days_of_an_outage_are_one_run(home: StreamHome) -> None:
    home.close(0, after(5))
    home.close(1, after(3))
    assert span(home.tick()) == (str(after(0)), str(after(3)))


def test_a_history_that_is_not_there_yet_comes_with_them(home: StreamHome) -> None:
    shutil.rmtree(home.settings.data_dir)
    home.close(0, after(0))
    home.close(1, after(0))
    assert span(home.tick()) == (str(home.days[0]), str(after(0)))


def test_days_whose_features_are_missing_or_stale_are_asked_for_again_and_deleted_ones_are_not(
    home: StreamHome,
) -> None:
    folder = home.settings.data_dir / "transactions"
    for day in home.days[:3]:  # as the retention does
        for dataset in ("transactions", "labels", "features"):
            shutil.rmtree(home.settings.data_dir / dataset / f"day={day}")
    list(home.features.materialize(home.days[3:]))
    assert "All days up to" in home.tick().skip_message
    shutil.rmtree(folder.parent / "features" / f"day={home.days[7]}")
    assert span(home.tick()) == (str(home.days[7]), str(home.days[7]))
    home.store.set_verdict("transactions", home.days[6], "failed")  # a person stops a day: those after it change
    assert span(home.tick()) == (str(home.days[7]), str(home.days[-1]))


def test_while_a_run_brings_days_in_none_is_asked_for_and_a_failed_one_is_tried_again_later(home: StreamHome) -> None:
    home.close(0, after(1))
    home.close(1, after(1))
    asked = home.tick()
    run = home.instance.add_run(
        dg.DagsterRun(job_name=ingest_days.name, tags=dict(asked.tags), status=DagsterRunStatus.STARTED)
    )
    assert f"Run {run.run_id[:8]} brings days in" in home.tick().skip_message
    home.instance.report_run_failed(run)
    assert "has failed, the 1. of its kind; the next begins at" in home.tick().skip_message
    assert run.tags[RANGE_TAG] == f"{after(0)}..{after(1)}"


def test_what_cannot_be_told_is_said_in_the_tick(home: StreamHome) -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    with Ledger.open(home.settings.ledger_url) as ledger:
        ledger.append([LedgerEntry(Transaction("t", now, "c", "m", 1), now)])
    assert "payments that the service took by itself" in home.tick().skip_message


def test_a_home_without_a_stream_goes_by_its_conditions(home: StreamHome, tmp_path: Path) -> None:
    assert "holds no world yet" in home.tick(Settings(home=tmp_path / "other")).skip_message
    assert "follow by their conditions" in home.tick(Settings(home=home.settings.home)).skip_message


def test_without_a_stream_a_mended_day_brings_the_days_after_it_anew(home: StreamHome) -> None:
    plain = Settings(home=home.settings.home)
    assert "none is stale" in home.tick(plain).skip_message
    home.store.set_verdict("transactions", home.days[6], "failed")  # its checks stop it, and not the others
    assert span(home.tick(plain)) == (str(home.days[7]), str(home.days[-1]))
    run = home.instance.add_run(dg.DagsterRun(job_name="anything", status=DagsterRunStatus.STARTED))
    assert f"run {run.run_id[:8]} is under way" in home.tick(plain).skip_message
    home.instance.report_run_failed(run)
    list(home.features.materialize(home.days))
    assert "none is stale" in home.tick(plain).skip_message
    home.store.set_verdict("transactions", home.days[6], "passed")  # mended; its own features are as they were
    assert span(home.tick(plain)) == (str(home.days[7]), str(home.days[-1]))


def test_days_of_a_stream_have_no_condition_and_no_end(home: StreamHome) -> None:
    served, plain = (load_definitions(each) for each in (home.settings, Settings(home=home.settings.home)))
    for name in ("transactions", "labels", "features", "feature_state"):
        spec, other = (each.resolve_asset_graph().get(dg.AssetKey(name)) for each in (served, plain))
        assert spec.automation_condition is None
        assert other.automation_condition is not None
        days = spec.partitions_def
        assert isinstance(days, dg.DailyPartitionsDefinition)
        assert days.end is None
    assert served.resolve_asset_graph().get(dg.AssetKey("drift_report")).automation_condition is not None


def test_how_often_sensors_look_is_a_setting(home: StreamHome) -> None:
    settings = Settings(home=home.settings.home, sensor_interval_s=3)
    sensors = {each.name: each for each in load_definitions(settings).sensors or ()}
    for name in ("served_days", "day_automation", "drift_retrain"):
        assert sensors[name].minimum_interval_seconds == 3
