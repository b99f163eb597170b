import os
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from fraud_pipeline.dagster_home import COMMAND_LINE_CONFIG, prepare_dagster_home
from fraud_pipeline.settings import Settings

PRODUCTION = Path(__file__).resolve().parent.parent / "dagster.yaml"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAGSTER_EVENT_BATCH_SIZE", "OMP_WAIT_POLICY", "DAGSTER_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)


def test_everything_lies_under_the_home_and_nothing_reports_to_its_makers(tmp_path: Path) -> None:
    home = prepare_dagster_home(Settings(home=tmp_path / "a home, with 'odd' characters"))
    written = yaml.safe_load((home / "dagster.yaml").read_text())
    assert written["telemetry"] == {"enabled": False}
    folders = [part["config"]["base_dir"] for part in written.values() if "config" in part]
    assert len(folders) == 5
    assert all(Path(folder).is_relative_to(home) for folder in folders)
    in_process = yaml.safe_load((home / COMMAND_LINE_CONFIG).read_text())
    assert in_process.pop("compute_logs")["class"] == "NoOpComputeLogManager"
    assert in_process == {name: part for name, part in written.items() if name != "compute_logs"}
    assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "yes"
    assert int(os.environ["DAGSTER_EVENT_BATCH_SIZE"]) > 0


def test_one_run_trains_at_a_time_and_freshness_is_shown(tmp_path: Path) -> None:
    written = yaml.safe_load((prepare_dagster_home(Settings(home=tmp_path)) / "dagster.yaml").read_text())
    for each in (written, yaml.safe_load(PRODUCTION.read_text())):
        assert each["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1}
        assert each["freshness"] == {"enabled": True}
        assert each["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert written["concurrency"]["runs"]["max_concurrent_runs"] == 1


def test_it_is_written_once_and_mended_where_it_was_changed(tmp_path: Path) -> None:
    path = prepare_dagster_home(Settings(home=tmp_path)) / "dagster.yaml"
    written = path.stat().st_mtime_ns
    prepare_dagster_home(Settings(home=tmp_path))
    assert path.stat().st_mtime_ns == written
    path.write_text("telemetry: {enabled: true}")
    prepare_dagster_home(Settings(home=tmp_path))
    assert yaml.safe_load(path.read_text())["telemetry"] == {"enabled": False}


def test_what_a_person_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_dagster_home(Settings(home=tmp_path))
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_production_keeps_its_history_in_postgresql_and_reports_nothing() -> None:
    production = yaml.safe_load(PRODUCTION.read_text())
    assert production["telemetry"] == {"enabled": False}
    assert production["storage"]["postgres"] == {"postgres_url": {"env": "FRAUD_DAGSTER_STORAGE_URL"}}


def test_a_named_postgresql_keeps_the_runs_and_its_password_stands_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "postgresql+psycopg2://fraud:secret@db:5432/dagster"
    monkeypatch.setenv("FRAUD_DAGSTER_STORAGE_URL", address)
    home = prepare_dagster_home(Settings(home=tmp_path, dagster_storage_url=address))
    for name in ("dagster.yaml", COMMAND_LINE_CONFIG):
        text = (home / name).read_text()
        written = yaml.safe_load(text)
        assert written["storage"] == {"postgres": {"postgres_url": {"env": "FRAUD_DAGSTER_STORAGE_URL"}}}
        assert not {"run_storage", "event_log_storage", "schedule_storage"} & set(written)
        assert "secret" not in text
