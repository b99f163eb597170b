"""A name for this process among all scorers: the same one after a restart, and never two processes' at once."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from fraud_pipeline.errors import Busy

MAX_SLOTS: Final = 256


class InstanceSlot:
    """The first number that no other process of this home holds; it is free again when the process ends, however it does."""

    def __init__(self, home: Path, role: str) -> None:
        self._folder = home / role
        self._file: IO[bytes] | None = None
        self.name = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_SLOTS):
            file = (self._folder / f"{number}.lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            self._file, self.name = file, f"{socket.gethostname()}-{number}"
            return self
        raise Busy(f"{MAX_SLOTS} scorers run on {self._folder} already.", remedy="Use another FRAUD_HOME for more.")

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
