"""`fraud stack` with small processes of its own: brought up in order and by health, twice, and down with nothing left."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.adapters.stack.compose_file import read_compose
from fraud_pipeline.adapters.stack.stack import Stack, variables_of
from fraud_pipeline.cli import run
from fraud_pipeline.errors import Busy, DependencyError, InputError

Capture = pytest.CaptureFixture[str]

STACK = """
services:
  migrate:
    image: x
    command: [python, -c, "import pathlib; p = pathlib.Path('/data/ran'); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"]
    volumes: ["home:/data"]
  dagster-code:
    image: x
    command: [python, -m, http.server, --bind, 0.0.0.0, "7100"]
    environment: {FRAUD_HOME: /data, OTHER: "http://web:7200/x", DAGSTER_CODE_PORT: "7100"}
    depends_on: {migrate: {condition: service_completed_successfully}}
    expose: ["7100"]
    volumes: ["home:/data"]
    healthcheck: {test: [CMD, python, -m, fraud_pipeline.health_check, http, "http://127.0.0.1:7100/"], interval: 1s, timeout: 5s}
  web:
    image: x
    command: [python, -m, http.server, --bind, 0.0.0.0, "7200"]
    depends_on: {dagster-code: {condition: service_healthy}}
    expose: ["7200"]
    healthcheck: {test: [CMD, python, -m, fraud_pipeline.health_check, http, "http://127.0.0.1:7200/"], interval: 1s, timeout: 5s}
  demo:
    image: x
    profiles: [demo]
    command: [python, -c, "import threading; threading.Event().wait()"]
    depends_on: {migrate: {condition: service_completed_successfully}}
  broken:
    image: x
    profiles: [never]
    command: [python, -c, "raise SystemExit('no ledger here')"]
    healthcheck: {test: [CMD, python, -c, "raise SystemExit(1)"], interval: 1s, timeout: 5s}
"""


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Iterator[Path]:
    """A folder with a compose file; what was started in it is ended."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(STACK)
    yield file
    stack = Stack(read_compose(file, {}), home)
    stack.down()


def ran(home: Path) -> int:
    return len((home / "ran").read_text())


def test_up_again_and_down(project: Path, home: Path, capsys: Capture) -> None:
    assert run(["stack", "up", "-f", str(project), "--json"]) == 0
    said = capsys.readouterr()
    first = {one["service"]: one for one in json.loads(said.out)["services"]}
    assert {name: one["state"] for name, one in first.items()} == {
        "migrate": "done", "dagster-code": "healthy", "web": "healthy", "demo": "stopped", "broken": "stopped",
    }  # fmt: skip
    lines = said.err.splitlines()
    assert lines.index("migrate: done") < lines.index("dagster-code: starting")
    assert lines.index("dagster-code: healthy") < lines.index("web: starting")
    settings = json.loads(said.out)["settings"]
    assert settings == {"FRAUD_HOME": str(home), "DAGSTER_CODE_PORT": first["dagster-code"]["address"].split(":")[1]}

    assert run(["stack", "up", "-f", str(project), "--profile", "demo", "--json"]) == 0
    again = {one["service"]: one for one in json.loads(capsys.readouterr().out)["services"]}
    assert again["web"]["pid"] == first["web"]["pid"], "what runs is left alone"
    assert again["demo"]["state"] == "healthy"
    assert ran(home) == 2, "a one-shot runs at every start, as compose has it"

    assert run(["stack", "status", "-f", str(project)]) == 0
    assert run(["stack", "logs", "web", "-f", str(project)]) == 0
    assert "GET / HTTP/1.1" in capsys.readouterr().out, "its health check asked"

    pids = [one["pid"] for one in again.values() if one["pid"]]
    assert len(pids) == 3
    assert run(["stack", "down", "-f", str(project), "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["stopped"]) == ["dagster-code", "demo", "web"]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert run(["stack", "down", "-f", str(project), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": []}


def test_ports_are_kept_and_may_be_chosen(project: Path, home: Path) -> None:
    chosen = free_port()
    first = Stack(read_compose(project, {}), home, ports={"web": chosen})
    first.up(["web"])
    addresses = {one.service: one.address for one in first.status()}
    assert addresses["web"] == f"127.0.0.1:{chosen}"
    with pytest.raises(Busy, match="web runs on port"):
        Stack(read_compose(project, {}), home, ports={"web": free_port()})
    first.down()
    second = Stack(read_compose(project, {}), home)
    assert {one.service: one.address for one in second.status()} == addresses
    with pytest.raises(InputError, match="'demo' listens on no port"):
        Stack(read_compose(project, {}), home, ports={"demo": 7300})


def test_what_does_not_start_is_said_with_its_log(project: Path, home: Path) -> None:
    stack = Stack(read_compose(project, {}), home)
    with pytest.raises(DependencyError) as caught:
        stack.up(["broken"])
    assert caught.value.message == "broken ended with exit code 1.\nno ledger here"
    assert "process.log" in caught.value.remedy

    project.write_text(STACK.replace('command: [python, -c, "raise', 'command: [no-such-program, "raise'))
    with pytest.raises(DependencyError, match="needs the program 'no-such-program', which is not installed"):
        Stack(read_compose(project, {}), home).up(["broken"])


def test_a_one_shot_that_fails_keeps_the_others_from_starting(project: Path, home: Path) -> None:
    project.write_text(STACK.replace("p = pathlib.Path('/data/ran')", "raise SystemExit('cannot migrate')"))
    stack = Stack(read_compose(project, {}), home)
    with pytest.raises(DependencyError, match=r"migrate ended with exit code 1\.\ncannot migrate"):
        stack.up()
    assert {one.state for one in stack.status()} <= {"stopped", "done"}


def test_a_taken_port_is_told(project: Path, home: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = int(taken.getsockname()[1])
        stack = Stack(read_compose(project, {}), home, ports={"web": port})
        with pytest.raises(DependencyError, match=f"web cannot listen on 127.0.0.1:{port}: something else does"):
            stack.up(["web"])
    stack.down()
    with pytest.raises(InputError, match=f"Port {port} is another service's"):
        Stack(read_compose(project, {}), home, ports={"dagster-code": port, "web": port})


def test_what_ended_by_itself_is_started_again(project: Path, home: Path) -> None:
    stack = Stack(read_compose(project, {}), home)
    stack.up(["web"])
    (pid,) = [one.pid for one in stack.status() if one.service == "web"]
    assert pid is not None
    process = psutil.Process(pid)
    process.kill()
    process.wait()
    assert [one.state for one in stack.status() if one.service == "web"] == ["stopped"]
    stack.up(["web"])
    assert [one.state for one in stack.status() if one.service == "web"] == ["healthy"]


def test_the_installation_that_runs_it_is_the_one_that_is_run(project: Path, home: Path) -> None:
    programs = Stack(read_compose(project, {}), home).process("web").environment["PATH"].split(":")
    assert programs[0] == str(Path(sys.executable).parent)


def test_variables_come_from_dot_env_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\nA=1\nB='two words'\n\n#C=3\nbroken\n")
    assert variables_of(tmp_path, {"A": "9"}) == {"A": "9", "B": "two words"}
    assert variables_of(tmp_path / "elsewhere", {}) == {}


def test_odd_requests_are_told(project: Path, capsys: Capture) -> None:
    assert run(["stack", "up", "-f", str(project), "--port", "web"]) == 2
    assert "is not NAME=PORT" in capsys.readouterr().err
    assert run(["stack", "up", "-f", str(project), "--only", "weeb"]) == 2
    assert "There is no service 'weeb'" in capsys.readouterr().err
    assert run(["stack", "status", "-f", str(project.with_name("none.yml"))]) == 2
    assert "There is no" in capsys.readouterr().err
