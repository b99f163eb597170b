"""The stack on this machine: the compose file's services as processes and servers of one home, brought up in order, looked at, ended."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fraud_pipeline.adapters.database_server import DatabaseServer
from fraud_pipeline.adapters.local_services.catalogue import KINDS
from fraud_pipeline.adapters.local_services.ports import HOST, accepts, free_port
from fraud_pipeline.adapters.local_services.server import LocalServer
from fraud_pipeline.adapters.stack.compose_file import ComposeFile, ComposeService
from fraud_pipeline.adapters.stack.stack_process import StackProcess
from fraud_pipeline.adapters.stack.topology import SERVERS, Topology
from fraud_pipeline.errors import Busy, DependencyError, InputError

START_S: Final = 300.0
"""Longest start of one service: seconds on a free machine; eight Python processes starting at once on two busy cores take minutes."""
ONE_SHOT_S: Final = 600.0
"""Longest migration; a large ledger's may rewrite a table."""
LOOK_S: Final = 1.0
"""Between two rounds of health checks, each of which is a process."""
CLIENT: Final = "dagster-code"
"""The service whose settings a person's own commands need to work on the stack."""

State = Literal["stopped", "starting or ill", "healthy", "done"]
Progress = Callable[[str, str], None]
"""Called with a service and what became of it."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service as it is now."""

    service: str
    state: State
    address: str | None
    pid: int | None
    log: Path | None


class Stack:
    """The stack of one home. `ports` are those that a person chose; all are kept for the next time."""

    def __init__(
        self,
        compose: ComposeFile,
        home: Path,
        *,
        ports: Mapping[str, int] | None = None,
        ends_with_parent: bool = False,
    ) -> None:
        self.compose = compose
        self._home = home
        self._folder = home / "stack"
        self._ends_with_parent = ends_with_parent
        self._ports = self._chosen_ports(dict(ports or {}))
        self._topology = Topology(compose, home, self._ports)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that make a person's own commands use the stack."""
        found = self._topology.process(CLIENT).environment
        return {name: value for name, value in found.items() if name.startswith(("FRAUD_", "DAGSTER_"))}

    def up(
        self, names: Sequence[str] = (), *, profiles: Sequence[str] = (), progress: Progress = lambda *_: None
    ) -> list[str]:
        """Start what does not run, each once what it depends on is healthy; returns the services, in order.

        Raises:
            DependencyError: one did not start, with the end of its log; what runs by then goes on.
        """
        ordered = self.compose.in_order(names, profiles=profiles)
        with self._alone():
            (self._folder / "tmp").mkdir(exist_ok=True)
            self._write_ports()
            pending, starting, ready = list(ordered), dict[str, tuple[StackProcess, float]](), set[str]()
            try:
                while pending or starting:
                    for service in [one for one in pending if {each.name for each in one.depends_on} <= ready]:
                        pending.remove(service)
                        self._begin(service, starting, ready, progress)
                    came = [name for name, (one, since) in starting.items() if self._has_come(one, since)]
                    for name in came:
                        starting.pop(name)[0].let_go()
                        ready.add(name)
                        progress(name, "healthy")
                    if starting and not came:
                        time.sleep(LOOK_S)
            finally:
                for process, _ in starting.values():
                    process.let_go()
        return [service.name for service in ordered]

    def down(self, names: Sequence[str] = (), *, progress: Progress = lambda *_: None) -> list[str]:
        """End the named services, or all, in the opposite order; what they hold and their ports stay."""
        left = {self.compose.service(name).name for name in names} or set(self.compose.services)
        ended = []
        with self._alone():
            while left:
                needed = {one.name for name in left for one in self.compose.service(name).depends_on}
                now = sorted(left - needed)
                with ThreadPoolExecutor(len(now)) as together:  # each may take its grace
                    ran = dict(zip(now, together.map(self._stop, now), strict=True))
                ended += [name for name in now if ran[name]]
                for name in now:
                    progress(name, "stopped" if ran[name] else "did not run")
                left -= set(now)
        return ended

    def status(self) -> list[ServiceStatus]:
        """Every service of the file, in the order of starting."""
        return [self._status(service) for service in self.compose.in_order(self.compose.services)]

    def log_of(self, name: str) -> Path:
        service = self.compose.service(name)
        return self._server(service).log if name in SERVERS else self.process(name).log

    def process(self, name: str) -> StackProcess:
        """A service of our own."""
        return StackProcess(
            self._folder / name,
            self._topology.process(name),
            cwd=self.compose.path.parent.absolute(),
            ends_with_parent=self._ends_with_parent,
        )

    # Within

    def _stop(self, name: str) -> bool:
        if name not in SERVERS:
            return self.process(name).stop()
        server = self._server(self.compose.service(name))
        ran = server.is_running
        server.stop()
        return ran

    def _begin(
        self,
        service: ComposeService,
        starting: dict[str, tuple[StackProcess, float]],
        ready: set[str],
        progress: Progress,
    ) -> None:
        if service.name in SERVERS:
            progress(service.name, "starting")
            self._start_server(service)
            ready.add(service.name)
            progress(service.name, "healthy")
            return
        process = self.process(service.name)
        if service.name in self.compose.one_shots:
            progress(service.name, "running")
            process.run_to_end(ONE_SHOT_S)
            ready.add(service.name)
            progress(service.name, "done")
            return
        if process.pid is None:
            self._refuse_taken(service)
            progress(service.name, "starting")
            process.launch()
        starting[service.name] = (process, time.monotonic())

    def _has_come(self, process: StackProcess, since: float) -> bool:
        if process.pid is None:
            code = process.ended_with
            process.forget()
            raise process.failure("ended" if code is None else f"ended with exit code {code}")
        if process.is_healthy():
            return True
        if time.monotonic() - since > START_S:
            raise process.failure(f"was not healthy after {START_S:g} s; it still runs")
        return False

    def _start_server(self, service: ComposeService) -> None:
        server = self._server(service)
        server.start()
        if service.name == "postgres":  # what the image does with these variables
            address = DatabaseServer(server.address)
            address.create_missing_superuser(service.environment["POSTGRES_USER"])
            address.create_missing(service.environment["POSTGRES_DB"])

    def _server(self, service: ComposeService) -> LocalServer:
        kind = SERVERS[service.name]
        folder = self._home / "services" / kind
        return KINDS[kind](folder, self._ports[service.name], ends_with_parent=self._ends_with_parent)

    def _status(self, service: ComposeService) -> ServiceStatus:
        port = self._ports.get(service.name)
        kept = port if self._ports_file.exists() else 0  # before the first start any free one would do
        address = f"{HOST}:{kept}" if kept else None
        state: State
        if service.name in SERVERS:
            server = self._server(service)
            pid, log = server.pid, server.log
            state = "healthy" if server.answers else "stopped" if pid is None else "starting or ill"
        else:
            process = self.process(service.name)
            pid, log = process.pid, process.log
            state = "stopped" if pid is None else "healthy" if process.is_healthy() else "starting or ill"
            if service.name in self.compose.one_shots and log.exists() and pid is None:
                state = "done"
        return ServiceStatus(service.name, state, address, pid, log if log.exists() else None)

    def _chosen_ports(self, chosen: dict[str, int]) -> dict[str, int]:
        """A port for each that listens: chosen, else the last one, else the one that compose publishes, else a free one."""
        for name in chosen:
            if not self.compose.service(name).port:
                raise InputError(f"Service {name!r} listens on no port.", remedy="--port is for one that does.")
        known = self._known_ports()
        found: dict[str, int] = {}
        for service in self.compose.services.values():
            if not service.port:
                continue
            last = known.get(service.name, 0) or self._servers_port(service)
            port = chosen.get(service.name) or last
            if not port and service.published and not accepts(service.published):
                port = service.published
            if service.name in chosen and port in found.values():
                raise InputError(f"Port {port} is another service's.", remedy="Name one that is free.")
            while not port or port in found.values():
                port = free_port()
            if chosen.get(service.name) and last not in (0, port) and self._runs(service):
                raise Busy(f"{service.name} runs on port {last}, not on {port}.", remedy="`fraud stack down` first.")
            found[service.name] = port
        return found

    def _servers_port(self, service: ComposeService) -> int:
        """Of a server that `fraud services` started in this home."""
        if service.name not in SERVERS:
            return 0
        kind = SERVERS[service.name]
        return KINDS[kind](self._home / "services" / kind).port

    def _runs(self, service: ComposeService) -> bool:
        from fraud_pipeline.adapters.local_services.process_file import ProcessFile

        folder = "services" if service.name in SERVERS else "stack"
        return ProcessFile(self._home / folder / SERVERS.get(service.name, service.name)).process() is not None

    def _refuse_taken(self, service: ComposeService) -> None:
        port = self._ports.get(service.name)
        if port and accepts(port):
            raise DependencyError(
                f"{service.name} cannot listen on {HOST}:{port}: something else does.",
                remedy=f"Name another: --port {service.name}=PORT, or end that.",
            )

    def _known_ports(self) -> dict[str, int]:
        try:
            return {str(name): int(port) for name, port in json.loads(self._ports_file.read_text()).items()}
        except FileNotFoundError:
            return {}

    def _write_ports(self) -> None:
        new = self._ports_file.with_suffix(".new")
        new.write_text(json.dumps(self._ports, indent=1))
        os.replace(new, self._ports_file)

    @property
    def _ports_file(self) -> Path:
        return self._folder / "ports.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "stack.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as err:
                raise Busy(
                    f"Another `fraud stack` works on {self._home}.", remedy="Wait for it: it says what it waits for."
                ) from err
            yield


def variables_of(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What the compose file's variables are filled with: `.env` beside it, and the environment over that."""
    found: dict[str, str] = {}
    file = folder / ".env"
    lines: Iterable[str] = file.read_text(encoding="utf-8").splitlines() if file.exists() else ()
    for line in lines:
        name, separator, value = line.partition("=")
        if separator and not line.lstrip().startswith("#"):
            found[name.strip()] = value.strip().strip("'\"")
    return found | dict(environment)
