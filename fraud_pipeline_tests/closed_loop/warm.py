"""A history with a champion, made once by the graph's own jobs on PostgreSQL, and kept for the next run.

`python -m fraud_pipeline_tests.closed_loop.warm WORLD` does the work, in a process of its own: training takes memory.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline_tests.closed_loop.plan import ENDED_DAYS_AGO, Warm

CACHE: Final = "FRAUD_CLOSED_LOOP_CACHE"
PARTS: Final = ("home", "dagster", "postgres")
MAKING_S: Final = 900.0
"""Two minutes on a free machine."""
ROOT: Final = Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """Below a folder that others may enter: as root, PostgreSQL is someone else."""
    folder = Path(os.environ.get(CACHE) or Path(tempfile.gettempdir()) / f"fraud-closed-loop-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return folder


def kept(warm: Warm, *, today: date) -> tuple[Path, date] | None:
    """The newest kept history whose live days are not too old by now, and where it ends."""
    for back in range(ENDED_DAYS_AGO, ENDED_DAYS_AGO + 3):
        end = today - timedelta(days=back)
        folder = cache_folder() / warm.name(end)
        if (folder / "warm.json").exists():
            return folder, end
    return None


def make(warm: Warm, *, today: date) -> tuple[Path, date]:
    """Make it and keep it."""
    end = today - timedelta(days=ENDED_DAYS_AGO)
    target = cache_folder() / warm.name(end)
    folder = Path(tempfile.mkdtemp(prefix=".making-", dir=cache_folder()))
    folder.chmod(0o755)
    server = PostgresServer(folder / "postgres", ends_with_parent=True)
    try:
        server.start()
        make_databases(server.address)
        environment = {**plain_environment(), **addresses(folder, server.address), **warm.settings}
        command = [sys.executable, "-m", __name__, json.dumps({**vars(warm), "end": end.isoformat()})]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=MAKING_S
        )
        if done.returncode:
            raise AssertionError(f"no champion to begin with: {(done.stdout + done.stderr)[-4_000:]}")
        server.stop()
        (folder / "warm.json").write_text(done.stdout.splitlines()[-1])
        shutil.rmtree(target, ignore_errors=True)
        os.replace(folder, target)
        _move_paths(target / "home", before=folder / "home")
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return target, end


def copy(source: Path, target: Path) -> None:
    """A copy to run on; owners are kept, since PostgreSQL's files are another account's."""
    for part in PARTS:
        subprocess.run(["cp", "-a", str(source / part), str(target / part)], check=True)
    _move_paths(target / "home", before=source / "home")


def _move_paths(home: Path, *, before: Path) -> None:
    """MLflow's file store knows its artifacts by absolute paths."""
    columns = (
        ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"),
        ("model_versions", "storage_location"),
    )  # fmt: skip
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        for table, column in columns:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(before), str(home)))
        database.commit()


def plain_environment() -> dict[str, str]:
    """This process's, without what an installation on this machine may have set."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("FRAUD_", "DAGSTER_"))}


def addresses(folder: Path, postgres: str) -> dict[str, str]:
    """Where home, ledger and Dagster's storage are: one PostgreSQL, a database each, as in compose."""
    dagster = folder / "dagster"
    dagster.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", dagster)
    server = postgres.removeprefix("postgresql+psycopg://").rpartition("/")[0]
    return {
        "FRAUD_HOME": str(folder / "home"),
        "FRAUD_LEDGER_URL": f"postgresql+psycopg://{server}/ledger",
        "DAGSTER_HOME": str(dagster),
        "DAGSTER_FILES_DIR": str(dagster / "files"),
        "FRAUD_DAGSTER_STORAGE_URL": f"postgresql+psycopg2://{server}/dagster",
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def make_databases(postgres: str) -> None:
    """`ledger` and `dagster` beside the server's own."""
    import sqlalchemy as sa

    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            for name in ("ledger", "dagster"):
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
    finally:
        engine.dispose()


def main(world: Mapping[str, object]) -> None:
    """Land the world, materialize its days and train its first champion, by the graph's own jobs."""
    end = date.fromisoformat(str(world["end"]))
    warm = Warm(**{name: value for name, value in world.items() if name != "end"})  # type: ignore[arg-type]
    import dagster as dg

    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.adapters.world_source import land_world
    from fraud_pipeline.definitions import load_definitions
    from fraud_pipeline.defs.automation import TRAINING
    from fraud_pipeline.defs.partitions import range_tags
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    config = warm.world(end)
    land_world(config, home=settings.home, created_at=datetime.now(UTC))
    definitions, instance = load_definitions(settings), dg.DagsterInstance.get()
    tags = range_tags(config.start, end - timedelta(days=1))
    definitions.resolve_job_def("ingest_days").execute_in_process(instance=instance, tags=tags)
    job = definitions.resolve_job_def("retrain")
    config_of_day = {"ops": {"training_set": {"config": {"as_of": end.isoformat()}}}}
    keys = sorted(TRAINING.resolve(definitions.resolve_asset_graph()))
    job.execute_in_process(instance=instance, run_config=config_of_day, asset_selection=keys)
    with Ledger.open(settings.ledger_url) as ledger:
        champion = ledger.current_promotion()
    assert champion is not None
    print(json.dumps({"champion": champion.version, "end": end.isoformat()}))  # noqa: T201 read by `make`


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
