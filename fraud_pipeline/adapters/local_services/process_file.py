"""Which process a folder's server is, for whoever comes later: its number, when it began, and its port."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

NAME: Final = "server.json"


class ProcessFile:
    """The state file in a server's folder; a port without a process is a server that was stopped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    @property
    def port(self) -> int:
        """The port it listens on, or did last; 0 where it has never been started."""
        return int(self._read().get("port", 0))

    def process(self) -> Any:
        """The `psutil.Process`, if it still is that one (numbers of processes are used again) and runs; else None."""
        state = self._read()
        if "pid" not in state:
            return None
        import psutil

        try:
            process = psutil.Process(state["pid"])
            if process.create_time() == state["created"] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            pass
        return None

    def remember(self, pid: int, port: int) -> None:
        """A process was started."""
        import psutil

        self._write({"pid": pid, "created": psutil.Process(pid).create_time(), "port": port})

    def forget_process(self, port: int) -> None:
        """The process is gone; its port is kept for the next start."""
        if self._path.parent.exists():
            self._write({"port": port})

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text()))
        except FileNotFoundError:
            return {}

    def _write(self, state: dict[str, Any]) -> None:
        new = self._path.with_name(f"{NAME}.new")
        new.write_text(json.dumps(state))
        os.replace(new, self._path)
