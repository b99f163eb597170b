"""A scoring service that decides nothing: for tests of what talks to one. It answers on loopback, from a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class FakeService:
    """Approves everything. `stall_s` holds up the first request and all behind it; `refuse_every` answers each n-th with 503."""

    def __init__(self, *, stall_s: float = 0.0, refuse_every: int = 0) -> None:
        self.payments: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""
        self._stall_s, self._refuse_every = stall_s, refuse_every
        self._requests = 0

    async def score(self, request: web.Request) -> web.Response:
        if await self._refuses(request):
            return web.json_response({"status": 503, "title": "Not now"}, status=503)
        return web.json_response(self._decided(await request.json()))

    async def score_batch(self, request: web.Request) -> web.Response:
        results: list[dict[str, Any]] = [{"decision": self._decided(p)} for p in (await request.json())["transactions"]]
        if self._refuse_every:
            results[0] = {"error": {"status": 422, "title": "broken"}}
        return web.json_response({"results": results})

    async def _refuses(self, request: web.Request) -> bool:
        self._requests += 1
        self.keys.append(request.headers.get("Authorization"))
        if self._stall_s and self._requests == 1:
            await asyncio.sleep(self._stall_s)
        return bool(self._refuse_every) and self._requests % self._refuse_every == 0

    def _decided(self, payment: dict[str, Any]) -> dict[str, Any]:
        self.payments.append(payment)
        return {"transaction_id": payment["transaction_id"], "decision": "APPROVE", "model_version": "1"}

    @contextmanager
    def running(self) -> Iterator[FakeService]:
        """Serve until the end of the block."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        application = web.Application(client_max_size=2**26)
        application.add_routes([web.post("/score", self.score), web.post("/score_batch", self.score_batch)])
        runner = web.AppRunner(application)
        try:
            self.url = asyncio.run_coroutine_threadsafe(_start(runner), loop).result(10)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


async def _start(runner: web.AppRunner) -> str:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
