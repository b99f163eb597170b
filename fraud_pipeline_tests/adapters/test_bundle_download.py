"""A bundle from a real MLflow server, without MLflow on this side."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fraud_pipeline.adapters.bundle_download import download_bundle
from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.model_slot import fetcher, local_bundle
from fraud_pipeline.errors import BundleError, DependencyError, NotFound
from fraud_pipeline.health_check import Unhealthy, check_http
from fraud_pipeline_tests.bundles import write_bundle

START_S = 180.0
"""MLflow imports for seconds on a free machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    """An MLflow server as compose runs it, on SQLite; and where its artifacts are."""
    folder, port = Path(tempfile.mkdtemp(prefix="mlflow-server-")), free_port()
    line = [
        "mlflow",
        "server",
        "--host=127.0.0.1",
        f"--port={port}",
        "--workers=1",
        f"--artifacts-destination={folder}/files",
    ]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": programs,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # as compose has it
    children: list[psutil.Process] = []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
        children += psutil.Process(process.pid).children(recursive=True)
        yield f"http://127.0.0.1:{port}", folder / "files"
    finally:
        process.kill()
        process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        check_http(url)
    except Unhealthy:
        time.sleep(0.2)
        return False
    return True


def test_a_promoted_bundle_is_fetched_whole_and_verified(server: tuple[str, Path], tmp_path: Path) -> None:
    address, artifacts = server
    made = write_bundle(tmp_path / "made")
    registry = ModelRegistry.open(address, artifact_root=tmp_path / "unused", cache_dir=tmp_path / "cache")
    version = registry.register(made)

    found = download_bundle(address, version.version, version.fingerprint, into=tmp_path / "bundles")
    assert found == local_bundle(tmp_path / "bundles", version.version, version.fingerprint)
    assert {path.name for path in found.rglob("*")} == {path.name for path in made.rglob("*")}
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [found.name], "nothing half made is left"

    look = (
        "import sys; from pathlib import Path; from fraud_pipeline.adapters.model_slot import fetcher\n"
        f"path = fetcher(Path({str(tmp_path / 'slot')!r}), {address!r}, Path('unused'))({version.version}, {version.fingerprint!r})\n"
        "print(path.name, 'mlflow' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [found.name, "False"]

    with pytest.raises(BundleError, match="are not those that were promoted"):
        download_bundle(address, version.version, "0" * 64, into=tmp_path / "other")
    with pytest.raises(NotFound, match="has no version 99"):
        download_bundle(address, 99, version.fingerprint, into=tmp_path / "other")
    victim = next(path for path in artifacts.rglob("bundle.json"))
    victim.write_text("{}")
    with pytest.raises(BundleError):
        download_bundle(address, version.version, version.fingerprint, into=tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(DependencyError, match=f"The MLflow server at 127.0.0.1:{port} does not answer"):
        fetcher(tmp_path, f"http://127.0.0.1:{port}", tmp_path)(1, "a" * 64)
