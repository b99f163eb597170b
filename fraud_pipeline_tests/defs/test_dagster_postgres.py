"""Production's dagster.yaml on a real PostgreSQL: what several processes write and read there."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.tags import GRPC_INFO_TAG

from fraud_pipeline.adapters.database_server import DatabaseServer
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.defs.instance_storage import migrate_storage
from fraud_pipeline.defs.lost_runs import REASON, report_lost_runs

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0
"""Longest wait for another process's event: it takes a second on a free machine."""
NOON = 1_800_000_000.0
"""Any moment."""


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    """An address of an empty database, with the driver that Dagster needs."""
    DatabaseServer(postgres.address).create_missing("dagster")
    return postgres.address.rsplit("/", 1)[0].replace("+psycopg:", "+psycopg2:") + "/dagster"


@pytest.fixture
def production(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the very file of the project."""
    home = tmp_path / "dagster-home"
    home.mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("FRAUD_DAGSTER_STORAGE_URL", database)
    monkeypatch.setenv("DAGSTER_FILES_DIR", str(tmp_path / "files"))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    return home


@pytest.fixture
def instance(production: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as found:
        yield found


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-03-01"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def counted(context: dg.AssetExecutionContext) -> None:
    """Metadata for each day of a range, as our days have it."""
    for day in context.partition_keys:
        context.add_asset_metadata({"day": day}, partition_key=day)


def materialize(instance: dg.DagsterInstance, first: str, last: str) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return dg.materialize([counted], instance=instance, tags=tags)


def test_migrating_makes_the_tables_and_may_be_done_again(production: Path) -> None:
    migrate_storage()
    migrate_storage()
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert type(instance.schedule_storage).__name__ == "PostgresScheduleStorage"
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert instance.telemetry_enabled is False


def test_a_run_of_a_range_of_days_is_stored_and_read_by_another_process(instance: dg.DagsterInstance) -> None:
    result = materialize(instance, "2026-01-01", "2026-01-31")
    assert result.success
    look = (
        "import dagster as dg\n"
        "with dg.DagsterInstance.get() as instance:\n"
        f"    run = instance.get_run_by_id({result.run_id!r})\n"
        "    days = instance.get_materialized_partitions(dg.AssetKey('counted'))\n"
        f"    events = len(instance.all_logs({result.run_id!r}))\n"
        "    print(run.status.value, len(days), max(days), events)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    status, days, newest, events = said.stdout.split()
    assert (status, days, newest) == ("SUCCESS", "31", "2026-01-31")
    assert int(events) == len(instance.all_logs(result.run_id))
    event = instance.get_latest_materialization_event(dg.AssetKey("counted"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["day"].value == "2026-01-31"


def test_the_event_log_is_watched_across_instances(instance: dg.DagsterInstance) -> None:
    """The webserver sees what a run in another process writes."""
    seen: list[str] = []
    came = threading.Event()
    run_id = dg.DagsterRun(job_name="watched").run_id

    def watch(entry: Any, _cursor: str) -> None:
        seen.append(str(entry.dagster_event.message))
        came.set()

    instance.watch_event_logs(run_id, None, watch)
    with dg.DagsterInstance.get() as other:
        run = dg.DagsterRun(job_name="watched", run_id=run_id)
        other.add_run(run)
        other.report_engine_event("halfway", run)
        assert came.wait(WAIT_S)
    instance.end_watch_event_logs(run_id, watch)
    assert seen[0] == "halfway"


@pytest.mark.parametrize("kind", [InstigatorType.SENSOR, InstigatorType.SCHEDULE])
def test_sensors_and_schedules_keep_their_state_and_ticks(instance: dg.DagsterInstance, kind: InstigatorType) -> None:
    """Which is what a daemon that was killed goes on from."""
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="fraud_pipeline.definitions")
    location = InProcessCodeLocationOrigin(loadable_target_origin=target, location_name="fraud_pipeline")
    origin = RemoteInstigatorOrigin(
        repository_origin=RemoteRepositoryOrigin(code_location_origin=location, repository_name="__repository__"),
        instigator_name=f"watcher of {kind.value}",
    )
    data: SensorInstigatorData | ScheduleInstigatorData = ScheduleInstigatorData("0 4 * * 1", start_timestamp=NOON)
    if kind == InstigatorType.SENSOR:
        data = SensorInstigatorData(cursor="17", last_run_key="episode:1")
    instance.add_instigator_state(InstigatorState(origin, kind, InstigatorStatus.RUNNING, data))
    selector_id = origin.get_selector().get_id()
    tick = instance.create_tick(
        TickData(origin.get_id(), origin.instigator_name, kind, TickStatus.STARTED, NOON, selector_id=selector_id)
    )
    instance.update_tick(tick.with_status(TickStatus.SKIPPED, skip_reason="waits for more labels"))

    with dg.DagsterInstance.get() as later:
        state = later.get_instigator_state(origin.get_id(), selector_id)
        assert state is not None
        assert state.status == InstigatorStatus.RUNNING
        assert state.instigator_data == data
        (read,) = later.get_ticks(origin.get_id(), selector_id)
        assert (read.status, read.skip_reason) == (TickStatus.SKIPPED, "waits for more labels")


def test_many_who_open_an_empty_database_at_once_all_succeed(
    postgres: PostgresServer, production: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webserver and a daemon that were started without a migration."""
    DatabaseServer(postgres.address).create_missing("dagster_fresh")
    address = os.environ["FRAUD_DAGSTER_STORAGE_URL"] + "_fresh"
    monkeypatch.setenv("FRAUD_DAGSTER_STORAGE_URL", address)
    look = "import dagster as dg\nwith dg.DagsterInstance.get() as i: print(i.get_runs_count())"
    many = [
        subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in many:
        out, err = one.communicate(timeout=WAIT_S)
        assert (one.returncode, out.strip()) == (0, "0"), err


def test_a_code_server_that_starts_reports_the_runs_that_its_last_one_took_with_it(
    instance: dg.DagsterInstance,
) -> None:
    def started(port: int | None) -> dg.DagsterRun:
        tags = {} if port is None else {GRPC_INFO_TAG: f'{{"host": "dagster-code", "port": {port}}}'}
        return instance.create_run_for_job(
            dg.define_asset_job("count", [counted]).resolve(
                asset_graph=dg.Definitions([counted]).resolve_asset_graph()
            ),
            status=dg.DagsterRunStatus.STARTED,
            tags=tags,
        )

    mine, others, in_a_terminal = started(4000), started(4001), started(None)
    assert report_lost_runs(4000) == [mine.run_id]
    statuses = {run.run_id: run.status for run in instance.get_runs()}
    assert statuses[mine.run_id] == dg.DagsterRunStatus.FAILURE
    assert statuses[others.run_id] == statuses[in_a_terminal.run_id] == dg.DagsterRunStatus.STARTED
    assert any(
        REASON in entry.user_message or REASON in str(entry.dagster_event) for entry in instance.all_logs(mine.run_id)
    )
    assert report_lost_runs(4000) == []
