"""A whole exchange over a connection within one time: libraries' own timeouts are of a single read or write."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Final, Self

_AGAIN_S: Final = 0.2
"""A socket in the middle of TLS's handshake cannot be cut: it is tried again until the exchange has ended."""


class Deadline:
    """While it is entered, what `held` returns is shut down once the time is over; `over` says that it was."""

    def __init__(self, timeout_s: float, held: Callable[[], socket.socket | None]) -> None:
        self._timeout_s, self._held = timeout_s, held
        self._over, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="notice-deadline", daemon=True)

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        wait_s = self._timeout_s
        while not self._ended.wait(wait_s):
            self._over.set()
            wait_s = _AGAIN_S
            held = self._held()
            try:
                if held is not None:
                    held.shutdown(socket.SHUT_RDWR)  # wakes whoever reads; closing alone would not
            except OSError:
                continue  # just closed, or in its handshake
