"""The stack as compose runs it: a copy of docker-compose.yml with an environment of its own, and hands to reach into it."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fraud_pipeline_tests.stack_test.commands import StackTestFailed, run, until
from fraud_pipeline_tests.stack_test.engine import Engine, compose_command
from fraud_pipeline_tests.stack_test.images import ROOT, TAG, image

PROJECT: Final = "fraud-stack-test"
UP_S: Final = 1800.0
"""Eleven containers, most of which import for seconds, on two cores that others use too; 90 s where nothing else runs."""
DOWN_S: Final = 300.0
COMMAND_S: Final = 120.0
ANSWER_S: Final = 30.0
LOG_LINES: Final = 40
ONE_SHOT: Final = "migrate"
DONE: Final = "exited 0"


class Stack:
    """One compose project on one engine."""

    def __init__(self, engine: Engine, folder: Path, settings: Mapping[str, str]) -> None:
        compose = compose_command()
        assert compose is not None  # the engine's installation has seen to it
        self._engine = engine
        self._compose = (*compose, "--project-name", PROJECT)
        self.folder = folder
        self.ports = {name: _free_port() for name in ("REST", "DAGSTER", "MLFLOW")}
        self._settings = dict(settings)
        self.key = ""

    def prepare(self) -> None:
        """The compose file as it is, beside an .env of this test."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docker-compose.yml", self.folder)
        lines = {
            "POSTGRES_PASSWORD": secrets.token_hex(16), "IMAGE_TAG": TAG,
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()}, **self._settings,
        }  # fmt: skip
        env = self.folder / ".env"
        env.touch(mode=0o600)
        env.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def compose(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        return run(
            (*self._compose, *arguments),
            timeout_s=timeout_s,
            environment=self._engine.environment,
            cwd=str(self.folder),
        )

    def up(self) -> str:
        """All services, and wait until each is healthy; a service that others wait for may come late on a busy machine."""
        deadline = time.monotonic() + UP_S
        while True:
            try:
                self.compose("up", "-d", "--no-build", timeout_s=UP_S)
                break
            except StackTestFailed:
                if time.monotonic() > deadline or self._migration_failed():
                    raise
        until(lambda: not self.unhealthy(), "all services to be healthy", timeout_s=UP_S, logs_of=sorted(self.states()))
        return f"{len(self.states())} containers"

    def _migration_failed(self) -> bool:
        state = self.states().get(ONE_SHOT, "")
        return state.startswith("exited") and state != DONE

    def unhealthy(self) -> dict[str, str]:
        """Service -> state, of all that are not as they should be: healthy, or for the one-shot done."""
        due = {name: DONE if name == ONE_SHOT else "healthy" for name in self.states()}
        return {name: state for name, state in self.states().items() if state != due[name]}

    def states(self) -> dict[str, str]:
        """Service -> healthy, unhealthy, starting, running, exited N ..."""
        names = self._engine.docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"
        ).split()
        found: dict[str, str] = {}
        for container in json.loads(self._engine.docker("inspect", *names)) if names else []:
            state = container["State"]
            health = state.get("Health", {}).get("Status")
            shown = f"exited {state['ExitCode']}" if state["Status"] == "exited" else health or state["Status"]
            found[container["Config"]["Labels"]["com.docker.compose.service"]] = shown
        return found

    def nothing_ended(self) -> str:
        """StackTestFailed where Docker had to start a container again that had ended by itself."""
        names = self._engine.docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
        ended = {
            container["Config"]["Labels"]["com.docker.compose.service"]: container["RestartCount"]
            for container in json.loads(self._engine.docker("inspect", *names))
            if container["RestartCount"] or container["State"]["OOMKilled"]
        }
        if ended:
            raise StackTestFailed(
                f"ended by themselves or for lack of memory, and were started again: {ended}", logs_of=list(ended)
            )
        return f"{len(names)} containers run as they were started"

    def down(self, *, volumes: bool = False) -> None:
        self.compose("down", *(("--volumes", "--remove-orphans") if volumes else ()), timeout_s=DOWN_S)

    def remove_images(self) -> None:
        for target in ("stream", "service", "mlflow", "pipeline"):
            self._engine.docker("rmi", "--force", image(target), timeout_s=DOWN_S)

    def logs(self, service: str) -> str:
        return self.compose("logs", "--no-color", f"--tail={LOG_LINES}", service)

    # Hands

    def execute(self, service: str, *command: str, timeout_s: float = COMMAND_S, **environment: str) -> str:
        """A command in a running container; its standard output."""
        given = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        return self.compose("exec", "-T", *given, service, *command, timeout_s=timeout_s)

    def fraud(self, service: str, *command: str, timeout_s: float = COMMAND_S, **environment: str) -> Any:
        """A `fraud` command's result."""
        said = self.execute(service, "fraud", *command, "--json", timeout_s=timeout_s, **environment)
        return json.loads(said)

    def sql(self, query: str, database: str = "ledger") -> list[list[str]]:
        """Rows of a query, as text."""
        said = self.execute(
            "postgres",
            "psql",
            "-h",
            "/var/run/postgresql",
            "-U",
            "fraud",
            "-d",
            database,
            "-tA",
            "-F",
            "\t",
            "-c",
            query,
        )
        return [line.split("\t") for line in said.splitlines() if line]

    def number(self, query: str, database: str = "ledger") -> int:
        return int(self.sql(query, database)[0][0])

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON. StackTestFailed for any other status than 2xx."""
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        return _ask(f"http://127.0.0.1:{self.ports['REST']}{path}", method, headers, body)

    def dagster(self, query: str, **variables: Any) -> Any:
        """What Dagster's webserver answers to a GraphQL query."""
        body = {"query": query, "variables": variables}
        answer = _ask(
            f"http://127.0.0.1:{self.ports['DAGSTER']}/graphql", "POST", {"Content-Type": "application/json"}, body
        )
        if answer.get("errors"):
            raise StackTestFailed(f"GraphQL: {answer['errors']}", logs_of=("dagster-webserver",))
        return answer["data"]

    def metrics(self, service: str, port: int) -> str:
        """What a container that publishes no port shows to its neighbours."""
        program = f"import urllib.request as u; print(u.urlopen('http://{service}:{port}/metrics', timeout=10).read().decode())"
        return self.execute("dagster-code", "python", "-c", program)


def _ask(url: str, method: str, headers: Mapping[str, str], body: Any) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            said, kind = answer.read(), answer.headers.get_content_type()
    except urllib.error.HTTPError as err:
        raise StackTestFailed(f"{method} {url}: {err.code} {err.read()[:600].decode(errors='replace')}") from err
    except OSError as err:
        raise StackTestFailed(f"{method} {url}: {err}") from err
    return json.loads(said) if said and "json" in kind else said.decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
