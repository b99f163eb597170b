"""The processes of production on loopback, with the addresses and settings that the compose file gives them."""

from __future__ import annotations

import shutil
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import psutil
import sqlalchemy as sa

from fraud_pipeline.adapters.kafka import topic_admin
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.adapters.process_ending import kill_with_children
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.closed_loop.plan import Plan
from fraud_pipeline_tests.closed_loop.warm import addresses, plain_environment
from fraud_pipeline_tests.faults.members import Member, Supervisor, until
from fraud_pipeline_tests.service_process import FRAUD_SERVICE, bentoml_command, free_port

ROLES: Final = ("daemon", "code", "webserver", "service", "scorer", "sink")
WORKSPACE: Final = Path("deploy", "workspace.yaml")
WORKER: Final = "multiprocessing.spawn"
"""What a run's process has on its command line."""
ANSWER_S: Final = 5.0
START_S: Final = 600.0
"""Ten processes that import for seconds each, on two cores that others use too."""


class Role(Member):
    """A process that works when `asked` says so, and whose children end with it."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, folder: Path, ready: str = "\0",
        asked: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        # In a session of its own, as a container would be: what one does on a busy machine does not count against the others.
        own = [found, *command] if (found := shutil.which("setsid")) else [*command]
        super().__init__(name, own, environment, folder=folder, ready=ready)
        self._asked = asked

    @property
    def is_ready(self) -> bool:
        return self.pid is not None and (self._asked() if self._asked is not None else super().is_ready)

    def kill(self) -> None:
        """SIGKILL, and its children too: a service's worker and a code server's runs are in sessions of their own."""
        if (pid := self.pid) is not None:
            kill_with_children(pid)
        self.wait()


class Stack:
    """`open` starts it all on a copy of a warm home, `close` ends it all, whatever state it is in."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.kafka = KafkaServer(folder / "kafka", ends_with_parent=True)
        self.valkey = ValkeyServer(folder / "valkey", ends_with_parent=True)
        self.postgres = PostgresServer(folder / "postgres", ends_with_parent=True)
        self.supervisor = Supervisor()
        # For as long as the servers: the system ends them with the very thread that started them.
        self._starters = ThreadPoolExecutor(3, thread_name_prefix="starter")
        self.roles: dict[str, Role] = {}
        self.topics = Topics("")
        self.ports = {name: free_port() for name in ("service", "scorer", "sink", "code", "webserver")}
        self.environment: dict[str, str] = {}
        self.settings: Settings

    def open(self) -> None:
        servers = (self.postgres, self.kafka, self.valkey)
        list(self._starters.map(lambda server: server.start(), servers))
        self.environment = self._environment()
        own = {
            name.removeprefix("FRAUD_").lower(): value
            for name, value in self.environment.items()
            if name.startswith("FRAUD_")
        }
        self.settings = Settings(**cast(Any, own))
        topic_admin.create(self.settings, self.topics, partitions=self.plan.partitions)
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        for name, (command, asked) in self._commands().items():
            role = Role(name, command, self._own_environment(name), folder=logs, asked=asked)
            self.roles[name] = role
            self.supervisor.add(role)
        until(
            lambda: all(each.is_ready for each in self.roles.values()), "the start of all processes", patience_s=START_S
        )

    def close(self) -> None:
        self.supervisor.close()
        for server in (self.kafka, self.valkey, self.postgres):
            server.kill()
        self._starters.shutdown()

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['service']}"

    @property
    def webserver_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['webserver']}"

    def rows(self, query: str, database: str = "ledger") -> list[Any]:
        """What a query of ours gives."""
        engine = sa.create_engine(
            self.settings.ledger_url if database == "ledger" else self.environment["FRAUD_DAGSTER_STORAGE_URL"],
            poolclass=sa.NullPool,
        )
        try:
            with engine.connect() as connection:
                return list(connection.exec_driver_sql(query))
        finally:
            engine.dispose()

    def cli(self, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
        """A `fraud` command on this stack, and its environment."""
        return (sys.executable, "-m", "fraud_pipeline.cli", *arguments), self._own_environment("person")

    def start_second_daemon(self) -> None:
        """Beside the first one, as somebody might who scales what must not be scaled."""
        command, _ = self._commands()["daemon"]
        self.supervisor.add(Role("daemon-2", command, self._own_environment("daemon-2"), folder=self.folder / "logs"))

    def run_workers(self) -> list[psutil.Process]:
        """The processes of runs: the code server's, made by multiprocessing."""
        pid = self.roles["code"].pid
        below = psutil.Process(pid).children(recursive=True) if pid is not None else []
        return [each for each in below if any(WORKER in part for part in each.cmdline())]

    # Within

    def _commands(self) -> dict[str, tuple[Sequence[str], Callable[[], bool]]]:
        ports, python = self.ports, sys.executable
        code = (python, "-m", "fraud_pipeline.code_server", "--port", str(ports["code"]))
        service = (bentoml_command(), "serve", FRAUD_SERVICE, "--host", "127.0.0.1", "--port", str(ports["service"]))
        commands: dict[str, tuple[Sequence[str], Callable[[], bool]]] = {
            "scorer": ((python, "-m", "streaming.scorer", "--log"), lambda: self._says("scorer")),
            "sink": ((python, "-m", "streaming.sink"), lambda: self._says("sink")),
            "service": (service, lambda: answers(f"{self.service_url}/readyz")),
            "code": (code, lambda: accepts(ports["code"])),
            "daemon": ((python, "-m", "dagster._daemon", "run", "-w", str(WORKSPACE)), self._daemon_beats),
        }
        if self.plan.webserver or self.plan.kill == "webserver":
            webserver = (python, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(ports["webserver"]))
            commands["webserver"] = (
                (*webserver, "-w", str(WORKSPACE)), lambda: answers(f"{self.webserver_url}/server_info"),
            )  # fmt: skip
        return commands

    def _says(self, name: str) -> bool:
        ready = {"scorer": "the scorer reads", "sink": "Sink from"}[name]
        said = self.roles[name].said(400).rpartition("--- start")[2]
        return ready in said

    def _daemon_beats(self) -> bool:
        """The sensors' daemon has a heartbeat of this run."""
        try:
            found = self.rows("SELECT count(*) FROM daemon_heartbeats WHERE daemon_type = 'SENSOR'", "dagster")
        except sa.exc.SQLAlchemyError:
            return False
        return bool(found[0][0])

    def _environment(self) -> dict[str, str]:
        """What compose gives to all: addresses, and what this world goes by."""
        return {
            **plain_environment(), **addresses(self.folder, self.postgres.address), **self.plan.warm.settings,
            "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "BENTOML_DO_NOT_TRACK": "True",
            "FRAUD_KAFKA_BOOTSTRAP_SERVERS": self.kafka.address, "FRAUD_STATE_VIEW_URL": self.valkey.address,
            "DAGSTER_CODE_HOST": "127.0.0.1", "DAGSTER_CODE_PORT": str(self.ports["code"]),
            "FRAUD_SENSOR_INTERVAL_S": str(self.plan.sensor_interval_s),
            "FRAUD_REST_PORT": str(self.ports["service"]),
            "FRAUD_SCORER_METRICS_PORT": str(self.ports["scorer"]), "FRAUD_SINK_METRICS_PORT": str(self.ports["sink"]),
            "FRAUD_DAGSTER_URL": self.webserver_url if "webserver" in self.roles else "",
        }  # fmt: skip

    def _own_environment(self, name: str) -> dict[str, str]:
        own = {"scorer": {"FRAUD_SCORER_INSTANCE": "scorer-0"}}.get(name, {})
        return {**self.environment, "FRAUD_KAFKA_CLIENT_ID": name, **own}


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def accepts(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(ANSWER_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0
