"""The HTTP application: routes to handlers, bodies to typed values, errors to problems. What it calls knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fraud_pipeline.live_runtime import LiveRuntime
from serving import information, scoring
from serving.answers import json_response
from serving.openapi import openapi_document
from serving.problems import problem_for, problem_response
from serving.routes import ROUTES

Handler = Callable[[Request], Awaitable[Response]]
BENTOML_ROUTES: Final = ("livez", "readyz", "metrics")
"""Answered by BentoML itself, with what the service tells it."""
BATCHES: Final = frozenset({"score_batch", "labels"})
BATCH_PATIENCE: Final = 6
"""A batch of thousands may take so many times as long as one payment before it is given up."""
log = logging.getLogger(__name__)


def build_app(runtime: LiveRuntime) -> Starlette:
    """The application around a runtime, which it starts and stops with itself."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await runtime.start()
        try:
            yield
        finally:
            await runtime.stop()

    handlers: dict[str, Handler] = {**scoring.HANDLERS, **information.HANDLERS, "openapi": _openapi}
    routes = [
        Route(
            route.path,
            _timed(handlers[route.name], BATCH_PATIENCE if route.name in BATCHES else 1),
            methods=[route.method],
            name=route.name,
        )
        for route in sorted(ROUTES, key=lambda each: each.name != "score")  # the busiest first
        if route.name not in BENTOML_ROUTES
    ]
    routes.append(Route("/docs.json", _openapi, methods=["GET"], name="docs"))  # what BentoML's page at / shows
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _problem, Exception: _problem},
    )
    app.state.runtime = runtime
    return app


def _timed(handler: Handler, patience: float) -> Handler:
    """The handler with the time limit, its errors as problems."""

    async def answer(request: Request) -> Response:
        runtime: LiveRuntime = request.app.state.runtime
        try:
            async with asyncio.timeout(runtime.settings.request_timeout_s * patience):
                return await handler(request)
        except Exception as err:  # noqa: BLE001  # the boundary: every error has an answer
            return await _problem(request, err)

    return answer


async def _problem(request: Request, err: Exception) -> Response:
    problem = problem_for(err)
    if problem.status == 500:
        log.error("%s %s failed", request.method, request.url.path, exc_info=err)
    return problem_response(problem)


async def _openapi(request: Request) -> Response:
    runtime: LiveRuntime = request.app.state.runtime
    return json_response(openapi_document(currency=runtime.settings.currency))
