"""A lock on a file that one process holds: free again when that process ends, however it does.

A forked child (a checkpoint's writer) does not hold it, so that it may outlive a killed parent without standing in the way
of the parent's successor.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path
from typing import IO


class ProcessLock:
    """The file is made where it is not there, and stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        mine = weakref.ref(self)

        def in_child() -> None:
            lock = mine()
            if lock is not None:
                lock.release()  # of the child's copy alone: the lock stays while the parent has its own open

        os.register_at_fork(after_in_child=in_child)

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def take(self) -> bool:
        """Whether it is ours now; False where another one holds it."""
        file = self.path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
