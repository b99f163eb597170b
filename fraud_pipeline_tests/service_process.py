"""A BentoML service in a process of its own, for tests and benchmarks: started on a free loopback port, ended by its id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.process_ending import kill_with_children

ROOT: Final = Path(__file__).resolve().parent.parent
FRAUD_SERVICE: Final = "serving.service:FraudScoringService"
START_S: Final = 120.0
"""Imports, the checkpoint and its replay, warming; the kernels are compiled already."""
STOP_S: Final = 30.0
"""A clean stop writes a checkpoint."""


@dataclass(slots=True)
class ServiceProcess:
    """A running service. `log` holds what it and its workers said."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, characters: int = 4_000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:]

    def stop(self) -> int:
        """End it cleanly, or by force where it does not end in time; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it and its worker at once, as `kill -9` does."""
        kill_with_children(self.process.pid)
        return self.process.wait()


def start_service(
    log: Path,
    *,
    service: str = FRAUD_SERVICE,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    folder: Path = ROOT,
    deadline_s: float = START_S,
) -> ServiceProcess:
    """Start `bentoml serve` in a folder and wait until `/readyz` says 200.

    `environment` is added to this process's. Raises TimeoutError or ChildProcessError with the end of the log.
    """
    port = port or free_port()
    own = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                bentoml_command(),
                "serve",
                service,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **own, **(environment or {})},
            start_new_session=True,
        )
    running = ServiceProcess(process, f"http://127.0.0.1:{port}", log)
    try:
        _wait_until_ready(running, deadline_s)
    except BaseException:
        running.kill()
        raise
    return running


@contextmanager
def service_running(
    log: Path, *, service: str = FRAUD_SERVICE, environment: Mapping[str, str] | None = None
) -> Iterator[ServiceProcess]:
    """`start_service`, and a clean stop at the end."""
    running = start_service(log, service=service, environment=environment)
    try:
        yield running
    finally:
        running.stop()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bentoml_command() -> str:
    """The `bentoml` beside this interpreter, or the one on the path."""
    beside = Path(sys.executable).with_name("bentoml")
    found = str(beside) if beside.exists() else shutil.which("bentoml")
    if found is None:
        raise FileNotFoundError("bentoml is not installed: pip install 'fraud-pipeline[serving]'")
    return found


def _wait_until_ready(running: ServiceProcess, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise ChildProcessError(f"The service ended with {running.process.returncode}:\n{running.said()}")
        if _is_ready(running.url):
            return
        time.sleep(0.05)
    raise TimeoutError(f"The service was not ready after {deadline_s:g} s:\n{running.said()}")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # nobody listens yet, or a 503 (an HTTPError is an OSError)
        return False
