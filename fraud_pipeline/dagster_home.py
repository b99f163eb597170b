"""The embedded home's own Dagster configuration: SQLite under the home (or the PostgreSQL that is named), one process, no telemetry.

The `dagster.yaml` at the top of the project is production's; one file cannot serve both, since two storages are invalid.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from fraud_pipeline import telemetry
from fraud_pipeline.settings import Settings

STORAGE_VARIABLE: Final = "FRAUD_DAGSTER_STORAGE_URL"
_TEMPLATE = """\
# Written by fraud_pipeline.dagster_home at every start: changes here are lost.
telemetry:
  enabled: false
nux:
  enabled: false  # no sign-up window over the first page
{storage_of_runs}
{compute_logs}
local_artifact_storage:
  module: dagster._core.storage.root
  class: LocalArtifactStorage
  config: {{base_dir: {storage}}}
# SQLite has one writer, and a training takes all cores: one run after the other, days and reports before a training that waits.
concurrency:
  runs:
    max_concurrent_runs: 1
  pools:
    granularity: run
    default_limit: 1  # the pool "training": one of them at a time, also where more runs may go on at once
run_monitoring:
  enabled: true
  start_timeout_seconds: 300
# A run whose process was lost, or that found no database when it began. Steps try again by themselves (defs/patience.py).
run_retries:
  enabled: true
  max_retries: 1
  retry_on_asset_or_op_failure: false
freshness:
  enabled: true
"""
_SQLITE = """\
run_storage:
  module: dagster._core.storage.runs
  class: SqliteRunStorage
  config: {{base_dir: {history}}}
schedule_storage:
  module: dagster._core.storage.schedules
  class: SqliteScheduleStorage
  config: {{base_dir: {schedules}}}
event_log_storage:
  module: fraud_pipeline.defs.event_storage
  class: BatchingSqliteEventLogStorage
  config: {{base_dir: {history_runs}}}"""
_POSTGRES = f"storage: {{postgres: {{postgres_url: {{env: {STORAGE_VARIABLE}}}}}}}"
"""The address is read from the environment, so that no password stands in a file."""
_COMPUTE_LOGS = """\
compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config: {{base_dir: {logs}}}"""
_NO_COMPUTE_LOGS = """\
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager"""
COMMAND_LINE_CONFIG = "fraud-run.yaml"
"""The same storage for a run inside `fraud run`, whose progress on the terminal is not caught into a file."""
ENVIRONMENT = {
    "DAGSTER_EVENT_BATCH_SIZE": "1000",  # see `defs.event_storage`
    # OpenMP's threads (XGBoost's, scikit-learn's) spin while they wait for each other: with other work on the same cores a
    # fit of 6 s took 400. Passive waiting costs nothing measurable on free cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Set where they are not, for this process and its children, before the libraries that read them are loaded."""


def prepare_dagster_home(settings: Settings) -> Path:
    """Write the embedded `dagster.yaml` where it is not there or has changed, and return DAGSTER_HOME.

    Also sets ENVIRONMENT and switches telemetry off.
    """
    telemetry.disable()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    names = ("history", "schedules", "history/runs", "logs", "storage")
    folders = {name.replace("/", "_"): json.dumps(str(home / name)) for name in names}
    storage = _SQLITE.format(**folders)
    if settings.dagster_storage_url:
        os.environ[STORAGE_VARIABLE] = settings.dagster_storage_url  # it may stand in `.env`
        storage = _POSTGRES
    for name, compute_logs in (("dagster.yaml", _COMPUTE_LOGS), (COMMAND_LINE_CONFIG, _NO_COMPUTE_LOGS)):
        logs = compute_logs.format(**folders)
        _write(home / name, _TEMPLATE.format(storage=folders["storage"], storage_of_runs=storage, compute_logs=logs))
    return home


def _write(path: Path, content: str) -> None:
    """Write where it is not there or has changed."""
    if path.exists() and path.read_text() == content:
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(content)
    os.replace(temporary, path)
