"""Days of data through their assets and checks, on a small world."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.defs.ingestion import transactions
from fraud_pipeline.defs.partitions import days_of_run, range_tags
from fraud_pipeline.defs.resources import resources_for
from fraud_pipeline.errors import NotFound
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.worlds import WORLD_END, land_small_world

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
FIRST = WORLD_END - timedelta(days=6)


class DealtDays:
    """A source of days that tests may spoil."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.spoilt: dict[date, Any] = {}

    def transactions(self, day: date) -> pa.Table:
        table = self.real.transactions(day)
        return self.spoilt[day](table) if day in self.spoilt else table

    def labels(self, day: date) -> pa.Table:
        return self.real.labels(day)


class World:
    """A home with a small world, its graph, and a way to run days through it."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        land_small_world(home, days=6)
        self.settings = Settings(home=home)
        self.resources = resources_for(self.settings)
        self.source = self.resources["source"] = DealtDays(self.resources["source"])
        self.store: DatasetStore = self.resources["store"]
        self.instance = instance
        self.definitions = load_definitions(self.settings, resources=self.resources)

    def run(self, first: date, last: date, *, only: Sequence[str] | None = None) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def("ingest_days").execute_in_process(
            instance=self.instance, tags=range_tags(first, last), run_config=QUIET,
            raise_on_error=False, asset_selection=None if only is None else [dg.AssetKey(name) for name in only],
        )  # fmt: skip

    def metadata(self, asset: str, day: date) -> dict[str, Any]:
        newest = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[str(day)]), limit=1
        )
        materialization = newest.records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}

    def check(self, asset: str, name: str) -> Any:
        record = self.instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(dg.AssetKey(asset), name))
        assert record is not None
        assert record.event is not None
        assert record.event.dagster_event is not None
        return record.event.dagster_event.event_specific_data


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


def negative_amounts(table: pa.Table) -> pa.Table:
    column = table.schema.get_field_index("amount_minor")
    return table.set_column(column, "amount_minor", pa.array([-1] * table.num_rows, pa.int64()))


def test_a_range_is_one_run_with_each_day_recorded(world: World) -> None:
    result = world.run(FIRST, WORLD_END - timedelta(days=1))
    assert result.success
    for asset in ("transactions", "labels", "features", "feature_state"):
        assert len(world.instance.get_materialized_partitions(dg.AssetKey(asset))) == 6, asset
    first, last = (world.metadata("transactions", day) for day in (FIRST, WORLD_END - timedelta(days=1)))
    assert first["dagster/row_count"] == world.store.manifest("transactions", FIRST).rows > 50
    assert first["customers"] <= 60
    assert "plots" not in first
    assert last["plots"].startswith("![payments a day](data:image/png;base64,")
    assert world.metadata("feature_state", WORLD_END - timedelta(days=1))["payments"] == sum(
        world.store.manifest("transactions", day).rows for day in world.store.days("transactions")
    )
    assert {world.store.manifest("transactions", day).verdict for day in world.store.days("transactions")} == {"passed"}
    assert {world.store.manifest("features", day).verdict for day in world.store.days("features")} == {"passed"}


def test_a_bad_day_is_left_out_and_the_others_go_on(world: World) -> None:
    bad = FIRST + timedelta(days=2)
    world.source.spoilt[bad] = negative_amounts
    assert world.run(FIRST, WORLD_END - timedelta(days=1)).success
    assert world.store.manifest("transactions", bad).verdict == "failed"
    assert any("amounts_are_in_range" in failure for failure in world.store.manifest("transactions", bad).failures)
    assert bad not in world.store.days("features")
    assert len(world.store.days("features")) == 5
    assert world.metadata("features", bad)["dagster/row_count"] == 0
    assert "failed" in world.metadata("features", bad)["stopped"]
    every = world.check("transactions", "every_day_is_valid")
    assert not every.passed
    assert every.severity == dg.AssetCheckSeverity.WARN
    assert str(bad) in every.metadata["failures"].value
    assert "| transaction_id |" in every.metadata["rows: amounts_are_in_range"].value
    assert world.check("transactions", "valid_days_exist").passed


def test_a_run_without_a_valid_day_stops_before_the_features(world: World) -> None:
    world.source.spoilt[FIRST] = negative_amounts
    result = world.run(FIRST, FIRST)
    assert not result.success
    blocking = world.check("transactions", "valid_days_exist")
    assert not blocking.passed
    assert blocking.severity == dg.AssetCheckSeverity.ERROR
    assert world.store.days("features") == []
    assert not world.instance.get_materialized_partitions(dg.AssetKey("features"))


def test_features_alone_do_not_pass_a_failed_day_by(world: World) -> None:
    world.source.spoilt[FIRST] = negative_amounts
    world.run(FIRST, FIRST)
    result = world.run(FIRST, FIRST, only=["features"])
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "passed their checks" in failure.step_failure_data.error_display_string
    assert world.store.days("features") == []


def test_a_mended_day_is_taken_in(world: World) -> None:
    bad = FIRST + timedelta(days=2)
    world.source.spoilt[bad] = negative_amounts
    world.run(FIRST, WORLD_END - timedelta(days=1))
    world.source.spoilt.clear()
    good = world.source.transactions(bad)
    world.store.write_day("transactions", bad, good, replace=True)
    assert world.run(bad, WORLD_END - timedelta(days=1)).success
    assert len(world.store.days("features")) == 6
    assert world.resources["feature_store"].stale_days(world.store.days("transactions")) == []


def test_a_closed_day_is_never_rewritten(world: World) -> None:
    world.run(FIRST, FIRST)
    world.source.spoilt[FIRST] = negative_amounts
    result = world.run(FIRST, FIRST, only=["transactions"])
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "is closed with other content" in failure.step_failure_data.error_display_string
    assert world.store.manifest("transactions", FIRST).verdict == "passed"


def test_a_day_without_payments_passes_and_has_no_features(world: World) -> None:
    world.source.spoilt[FIRST] = lambda table: table.slice(0, 0)
    assert world.run(FIRST, FIRST + timedelta(days=1)).success
    assert world.store.manifest("features", FIRST).rows == 0
    assert world.store.manifest("features", FIRST + timedelta(days=1)).rows > 0


def test_a_day_with_too_few_payments_warns(world: World) -> None:
    newest = WORLD_END - timedelta(days=1)
    world.source.spoilt[newest] = lambda table: table.slice(0, 3)
    assert world.run(FIRST, newest).success
    volume = world.check("transactions", "volume_is_like_recent_days")
    assert not volume.passed
    assert volume.severity == dg.AssetCheckSeverity.WARN
    assert str(newest) in volume.metadata["days"].value
    assert newest in world.store.days("features")


def test_a_check_judges_the_days_of_its_run_or_else_all() -> None:
    stored = [date(2026, 1, 1), date(2026, 1, 2)]
    one = dg.DagsterRun(job_name="j", run_id="1", tags={"dagster/partition": "2026-01-05"})
    several = dg.DagsterRun(job_name="j", run_id="2", tags=range_tags(date(2026, 1, 4), date(2026, 1, 6)))
    assert days_of_run(one, stored=stored) == [date(2026, 1, 5)]
    assert days_of_run(several, stored=stored) == [date(2026, 1, 4), date(2026, 1, 5), date(2026, 1, 6)]
    assert days_of_run(dg.DagsterRun(job_name="j", run_id="3"), stored=stored) == stored


def test_an_empty_home_names_the_remedy(tmp_path: Path) -> None:
    resources = resources_for(Settings(home=tmp_path))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_asset_context(partition_key="2026-01-01", instance=instance) as context,
        pytest.raises(NotFound, match="fraud simulate"),
    ):
        transactions(context, store=resources["store"], source=resources["source"])
