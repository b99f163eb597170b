"""The real daemon on an embedded home: what was missed while it was off is made up for without anybody asking."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.dagster_home import prepare_dagster_home
from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.defs.automation import ingest_days
from fraud_pipeline.defs.partitions import range_tags
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
DAYS, OFF = 7, 3
CAUGHT_UP_S = 420.0
"""The code location loads in 15 s and a run starts in 10 on free cores; several test processes share them."""
ENDED_S = 20.0
LOOKED_AT_EVERY_S = 0.5


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A world that ended at the last midnight, whose last three days nobody has materialized."""
    end = datetime.now(UTC).date()
    land_world(WorldConfig(end=end, customers=60, merchants=20, days=DAYS, rate=2, fraud_rate=0.05), home=tmp_path)
    settings = Settings(home=tmp_path, sensor_interval_s=2)
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_dagster_home(settings)))
    first, last = end - timedelta(days=DAYS), end - timedelta(days=OFF + 1)
    with dg.DagsterInstance.get() as instance:
        job = load_definitions(settings).resolve_job_def(ingest_days.name)
        assert job.execute_in_process(instance=instance, tags=range_tags(first, last)).success
    return settings


@contextmanager
def daemon(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon of `fraud dev`, in a process group of its own."""
    environment = os.environ | {"FRAUD_HOME": str(settings.home), "FRAUD_SENSOR_INTERVAL_S": "2"}
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "fraud_pipeline.definitions"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(ENDED_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(ENDED_S)


def features(settings: Settings) -> list[date]:
    return DatasetStore(settings.home).days("features")


def unfinished(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    return [run for run in instance.get_runs() if not run.is_finished]


@pytest.mark.timeout(CAUGHT_UP_S + 180)
def test_three_days_without_a_daemon_are_made_up_for(home: Settings, tmp_path: Path) -> None:
    end = datetime.now(UTC).date()
    missed = days_between(end - timedelta(days=OFF), end)
    before = features(home)
    assert len(before) == DAYS - OFF
    log = tmp_path / "daemon.log"
    with dg.DagsterInstance.get() as instance, daemon(home, log) as process:
        deadline = time.monotonic() + CAUGHT_UP_S
        while not set(missed) <= set(features(home)) or unfinished(instance):
            assert process.poll() is None, log.read_text(errors="replace")[-3_000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3_000:]
            time.sleep(LOOKED_AT_EVERY_S)  # another process works
        runs = [run for run in instance.get_runs() if run.job_name != ingest_days.name]
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        for run in runs:  # all missed days at once, not one after the other
            assert run.tags["dagster/asset_partition_range_start"] == str(missed[0])
            assert run.tags["dagster/asset_partition_range_end"] == str(missed[-1])
            assert run.tags["dagster/priority"] == "1"
        for name in ("transactions", "labels", "features", "feature_state"):
            made = instance.get_materialized_partitions(dg.AssetKey(name))
            assert {str(day) for day in [*before, *missed]} <= made or name == "feature_state"
    store = DatasetStore(home.home)
    assert all(store.manifest("transactions", day).verdict == "passed" for day in missed)
