"""A name for this process among all scorers: the same one after a restart, and never two processes' at once."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fraud_pipeline.adapters.stream.process_lock import ProcessLock
from fraud_pipeline.errors import Busy

MAX_SLOTS: Final = 256


class InstanceSlot:
    """The first number that no other process of this home holds; it is free again when the process ends, however it does."""

    def __init__(self, home: Path, role: str) -> None:
        self._folder = home / role
        self._lock: ProcessLock | None = None
        self.name = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_SLOTS):
            lock = ProcessLock(self._folder / f"{number}.lock")
            if not lock.take():
                continue
            self._lock, self.name = lock, f"{socket.gethostname()}-{number}"
            return self
        raise Busy(f"{MAX_SLOTS} scorers run on {self._folder} already.", remedy="Use another FRAUD_HOME for more.")

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.release()
