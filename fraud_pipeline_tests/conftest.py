"""What every test starts from: no settings of the person who runs it, a home of its own, telemetry off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fraud_pipeline import telemetry
from fraud_pipeline_tests.servers import kafka, postgres, valkey  # noqa: F401 - fixtures of every test

telemetry.disable()
# As the command line sets it: two workers' OpenMP threads that spin on the same two cores take many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED_DATA = Path(os.environ.get("FRAUD_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without FRAUD_* of the shell and without a developer's .env; FRAUD_HOME is a folder that only this test knows."""
    for name in [name for name in os.environ if name.startswith(("FRAUD_", "DAGSTER_HOME", "MLFLOW_TRACKING_URI"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FRAUD_HOME", str(tmp_path_factory.getbasetemp() / "home-not-given"))
    from fraud_pipeline.settings import Settings

    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty FRAUD_HOME."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("FRAUD_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data files; skips where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no shared data at {SHARED_DATA} (FRAUD_SHARED_DATA names another folder)")
    return SHARED_DATA
