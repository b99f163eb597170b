"""Our batches leave in Dagster's SQLite what its own loop leaves."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_pipeline.dagster_home import prepare_dagster_home
from fraud_pipeline.defs.event_storage import BatchingSqliteEventLogStorage
from fraud_pipeline.settings import Settings

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-09")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), tags={"kept": "yes"})
def payments(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    for key in context.partition_keys:
        context.add_asset_metadata({"day": key}, partition_key=key)
    return dg.MaterializeResult()


@dg.asset_check(asset=payments)
def there_are_payments() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def stored(home: Path) -> dict[str, Any]:
    """What the index and the run's own file hold, without ids of runs and times."""
    found: dict[str, Any] = {}
    for shard in sorted((home / "history" / "runs").glob("*.db")):
        connection = sqlite3.connect(shard)
        rows = connection.execute("select dagster_event_type, step_key, asset_key, partition from event_logs")
        name = "index" if shard.stem == "index" else "run"
        found[name] = sorted(map(str, rows.fetchall()))
        if name == "index":
            tags = connection.execute("select asset_key, key from asset_event_tags")
            found["tags"] = sorted(map(str, tags.fetchall()))
            (newest,) = connection.execute("select last_materialization from asset_keys").fetchone()
            entry = json.loads(newest)["event_log_entry"]["dagster_event"]
            found["newest"] = entry["event_specific_data"]["materialization"]["partition"]
        connection.close()
    return found


def materialize(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, batch: int
) -> tuple[dict[str, Any], dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", str(batch))
    instance = dg.DagsterInstance.from_config(str(prepare_dagster_home(Settings(home=home))))
    assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
    tags = {"dagster/asset_partition_range_start": "2026-01-01", "dagster/asset_partition_range_end": "2026-01-08"}
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    result = dg.materialize([payments, there_are_payments], instance=instance, tags=tags, run_config=quiet)
    assert result.success
    return stored(home / "dagster"), instance


def test_batches_store_what_single_events_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batched, instance = materialize(tmp_path / "batched", monkeypatch, batch=1_000)
    single, _ = materialize(tmp_path / "single", monkeypatch, batch=0)
    assert batched == single
    assert batched["newest"] == "2026-01-08"
    assert len(instance.get_materialized_partitions(dg.AssetKey("payments"))) == 8
    event = instance.get_latest_materialization_event(dg.AssetKey("payments"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["day"].value == "2026-01-08"
