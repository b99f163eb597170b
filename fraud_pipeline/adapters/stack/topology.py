"""What a service of the compose file is on this machine: its command, settings and health check with loopback's addresses.

Four things differ between a container and a process here, and nothing else: `service:port` is a port of loopback (what is published
there may be another one), `0.0.0.0` is loopback, a mounted folder lies under the home, and `/app` is the project's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.local_services.ports import HOST
from fraud_pipeline.adapters.stack.compose_file import ComposeFile, ComposeService
from fraud_pipeline.errors import InputError

SERVERS: Final = {"postgres": "postgres", "kafka": "kafka", "valkey": "redis"}
"""Services that are servers of `fraud services`, under their names there: not run by the file's own command."""
APPLICATION: Final = "/app"
"""Where the images have the project."""
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 it is what gets replaced
VOLUMES: Final = {"home": ".", "checkpoints": "checkpoints", "mlflow": "mlartifacts"}
"""Named volumes of our processes, as folders of the home."""


@dataclass(frozen=True, slots=True)
class LocalProcess:
    """One service as a process of this machine."""

    service: ComposeService
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: tuple[str, ...]
    port: int


class Topology:
    """`ports` has a local port for every service that listens."""

    def __init__(self, compose: ComposeFile, home: Path, ports: Mapping[str, int]) -> None:
        self._compose = compose
        self._home = home
        self._ports = ports
        self._listening = [one for one in compose.services.values() if one.port]
        if len({one.port for one in self._listening}) != len(self._listening):
            raise InputError(f"{compose.path}: two services listen on the same port, which are one machine's here.")

    def process(self, name: str) -> LocalProcess:
        """A service that is not one of SERVERS."""
        service = self._compose.service(name)
        environment = {key: self._setting(service, key, value) for key, value in service.environment.items()}
        health = service.health[1:] if service.health[:1] == ("CMD",) else service.health
        return LocalProcess(
            service,
            tuple(self._own(service, word) for word in service.command),
            environment,
            tuple(self._own(service, word) for word in health),
            self._ports.get(name, 0),
        )

    def _setting(self, service: ComposeService, name: str, value: str) -> str:
        """HOST and PORT variables name another service's parts one by one."""
        if name.endswith("_HOST") and value in self._compose.services:
            return HOST
        if name.endswith("_PORT"):
            for other in self._listening:
                if str(other.port) == value:
                    return str(self._ports[other.name])
        return self._own(service, value)

    def _own(self, service: ComposeService, text: str) -> str:
        """Addresses of others and of itself, folders; each replaced once, since a local port may be another's in the file."""
        known = {
            f"{HOST}:{one.published}": f"{HOST}:{self._ports[one.name]}" for one in self._listening if one.published
        }
        known |= {f"{one.name}:{one.port}": f"{HOST}:{self._ports[one.name]}" for one in self._listening}
        mine = {str(service.port): str(self._ports[service.name])} if service.port else {}
        parts = "|".join(re.escape(each) for each in (*known, *mine))
        text = re.sub(rf"(?<![\w.-])(?:{parts})(?![\w.])", lambda m: known.get(m[0]) or mine[m[0]], text)
        text = text.replace(EVERYWHERE, HOST)
        folders = self._folders(service)
        paths = "|".join(map(re.escape, folders))  # at once: a home may lie below one of them
        return re.sub(rf"(?<![\w./-])(?:{paths})(?=/|$)|(?<=://)(?:{paths})(?=/|$)", lambda m: str(folders[m[0]]), text)

    def _folders(self, service: ComposeService) -> dict[str, Path]:
        """The longest path first."""
        found = {APPLICATION: self._compose.path.parent.absolute()}
        for path, volume in service.folders.items():
            if volume in VOLUMES:
                found[path] = self._home / VOLUMES[volume]
            elif volume == path:
                found[path] = self._home / "stack" / "tmp"
        return dict(sorted(found.items(), key=lambda item: -len(item[0])))
