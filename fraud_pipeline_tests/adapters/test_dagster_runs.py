"""A job started over HTTP: with a real webserver, and with what else may answer at its address."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline.adapters.dagster_runs import CODE_LOCATION, MONITOR, REQUESTED_BY, DagsterRuns
from fraud_pipeline.errors import DependencyError

ROOT = Path(__file__).resolve().parents[2]
GRAPH = """
import dagster as dg

@dg.op
def look():
    pass

@dg.job
def monitor():
    look()

@dg.definitions
def defs():
    return dg.Definitions(jobs=[monitor])
"""
START_S = 90
"""It takes 5 s on two free cores."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real one, serving a graph of one job under the names that ours has."""
    folder = tmp_path_factory.mktemp("dagster")
    (folder / "graph.py").write_text(GRAPH)
    source = {"python_file": {"relative_path": "graph.py", "location_name": CODE_LOCATION}}
    (folder / "workspace.yaml").write_text(json.dumps({"load_from": [source]}))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    port = free_port()
    line = [sys.executable, "-m", "dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            line, cwd=folder, env={**os.environ, "DAGSTER_HOME": str(folder)}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{port}/server_info"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            threading.Event().wait(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, query: str) -> Any:
    request = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())["data"]


def test_a_real_webserver_takes_the_run(webserver: str) -> None:
    started = DagsterRuns(f"{webserver}/", timeout_s=60).start(requested_by="ops (0a1b2c3d4e5f)")
    assert started.status in ("QUEUED", "STARTING", "STARTED")
    assert started.url == f"{webserver}/runs/{started.run_id}"
    found = ask(
        webserver,
        f'{{ runOrError(runId: "{started.run_id}") {{ ... on Run {{ jobName tags {{ key value }} }} }} }}',
    )["runOrError"]
    assert found["jobName"] == "monitor"
    assert {"key": REQUESTED_BY, "value": "ops (0a1b2c3d4e5f)"} in found["tags"]


def test_a_real_webserver_without_the_job_is_explained(webserver: str) -> None:
    with pytest.raises(DependencyError, match="did not start nonsense: Could not find Pipeline") as caught:
        DagsterRuns(webserver, timeout_s=60).start("nonsense", requested_by="ops")
    assert f"code location {CODE_LOCATION}" in caught.value.remedy


def test_the_names_are_those_of_the_project() -> None:
    from fraud_pipeline.defs.automation import monitor

    assert monitor.name == MONITOR
    assert f"location_name: {CODE_LOCATION}\n" in (ROOT / "workspace.yaml").read_text()


# What else may answer


@contextmanager
def server(body: bytes, *, status: int = 200, wait: threading.Event | None = None) -> Iterator[str]:
    """Something at an address that answers every POST alike, after `wait` where it is given."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if wait is not None:
                wait.wait(30)
            with suppress(ConnectionError):  # who asked may be gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    held = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    held.daemon_threads = True
    thread = threading.Thread(target=held.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{held.server_port}"
    finally:
        held.shutdown()
        held.server_close()
        thread.join(10)


def launched(kind: str, **fields: Any) -> bytes:
    return json.dumps({"data": {"launchRun": {"__typename": kind, **fields}}}).encode()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"<html>a proxy</html>", 200, "does not answer: what answers is no Dagster webserver"),
        (b"", 502, "does not answer: it answered 502 to GraphQL"),
        (b"[]", 200, "did not start monitor: an answer of another form"),
        (b'{"errors": [{"message": "Unknown type"}]}', 200, "did not start monitor: Unknown type"),
        (launched("UnauthorizedError", message="User does not have permission"), 200, "User does not have permission."),
        (
            launched("PythonError", message="ImportError: x\n  stack of lines"),
            200,
            "did not start monitor: ImportError: x.",
        ),
        (
            launched("RunConfigValidationInvalid", errors=[{"message": "Missing field"}, {"message": "Bad value"}]),
            200,
            "did not start monitor: Missing field; Bad value.",
        ),
        (launched("InvalidSubsetError", message=""), 200, "did not start monitor: InvalidSubsetError."),
    ],
)
def test_an_answer_that_is_no_run_is_our_dependencys_fault(body: bytes, status: int, words: str) -> None:
    with server(body, status=status) as url, pytest.raises(DependencyError) as caught:
        DagsterRuns(url).start(requested_by="ops")
    assert words in caught.value.message
    assert "make dev" in caught.value.remedy


def test_nothing_at_the_address_says_how_to_start_it() -> None:
    with pytest.raises(DependencyError, match=r"does not answer: .*refused") as caught:
        DagsterRuns(f"http://127.0.0.1:{free_port()}").start(requested_by="ops")
    assert caught.value.remedy == "Start it (`make dev`), or set FRAUD_DAGSTER_URL to where it is."


def test_silence_is_not_taken_for_a_refusal() -> None:
    release = threading.Event()
    with server(b"{}", wait=release) as url:
        with pytest.raises(
            DependencyError, match=r"did not answer within 0\.2 s: the run may have been started"
        ) as caught:
            DagsterRuns(url, timeout_s=0.2).start(requested_by="ops")
        release.set()
    assert caught.value.remedy == f"Look at {url}/runs before asking again."


@pytest.mark.parametrize(
    ("url", "words"),
    [("", "No Dagster is configured"), ("file:///etc/passwd", "not of http"), ("nonsense", "not of http")],
)
def test_an_address_that_is_none_is_named(url: str, words: str) -> None:
    with pytest.raises(DependencyError, match=words):
        DagsterRuns(url).start(requested_by="ops")


def test_a_proxy_of_the_environment_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with server(launched("LaunchRunSuccess", run={"runId": "r-1", "status": "QUEUED"})) as url:
        assert DagsterRuns(url).start(requested_by="ops").run_id == "r-1"
