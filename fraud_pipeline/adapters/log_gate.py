"""Who may write into the log: payments side by side, or one thing that must stand alone in it. One event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fraud_pipeline.errors import DependencyError

_REMEDY = "Try again in a moment; GET /health says what is missing."


class LogGate:
    """Open for payments unless someone is `alone` or it is shut with a `problem`."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self._held = False
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._turn = asyncio.Lock()
        self._inside = 0

    async def admitted(self) -> None:
        """Return when a payment may be decided, without a pause after it. DependencyError where the gate is shut."""
        while self.problem or self._held:
            if self.problem:
                raise DependencyError(self.problem, remedy=_REMEDY)
            await self._changed.wait()

    def entered(self, count: int) -> None:
        """So many payments are on their way into the log."""
        self._inside += count
        self._idle.clear()

    def left(self, count: int) -> None:
        """They have arrived, or failed."""
        self._inside -= count
        if not self._inside:
            self._idle.set()

    @property
    def inside(self) -> int:
        return self._inside

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold payments back, wait for those inside, and let them in again afterwards. DependencyError where it is shut."""
        async with self._turn:
            if self.problem:
                raise DependencyError(self.problem, remedy=_REMEDY)
            self._held = True
            self._changed.clear()
            try:
                await self._idle.wait()
                if self.problem:
                    raise DependencyError(self.problem, remedy=_REMEDY)
                yield
            finally:
                self._held = False
                self._changed.set()

    async def drained(self) -> None:
        """Return when nothing is on its way and nobody is alone."""
        async with self._turn:
            await self._idle.wait()

    def shut(self, problem: str) -> None:
        """Refuse from now on, and say why; who waits is refused too."""
        self.problem = problem
        self._changed.set()

    def reopen(self) -> None:
        """Let payments in, as soon as nobody is alone."""
        self.problem = ""
        if self._held:
            self._changed.clear()
        else:
            self._changed.set()
