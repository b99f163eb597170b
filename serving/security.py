"""Who may call what: API keys, scopes, rate limits and security headers, as ASGI middleware around the whole service.

Logs ids of keys and names of routes, never a key and never a body. CORS is off: no answer has its headers.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraud_pipeline.adapters.api_keys import ApiKey
from fraud_pipeline.adapters.cached_keys import CachedKeys
from fraud_pipeline.errors import FraudError
from fraud_pipeline.settings import Settings
from serving.loopback import is_direct_and_local
from serving.problems import URN, Problem, problem_for, problem_response
from serving.routes import RouteSpec, match

REALM: Final = 'Bearer realm="fraud-pipeline"'
POLICY_VIOLATION: Final = 1008
"""WebSocket close code; the service speaks none."""
_API_CSP: Final = b"default-src 'none'; frame-ancestors 'none'"
# Evidently's page holds its scripts and fonts in itself; the sandbox gives it an origin of its own, from which it reaches nothing.
_REPORT_CSP: Final = (
    b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    b"font-src data:; frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
)
# BentoML's own pages (Swagger UI), which are not ours to write.
_PAGES_CSP: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"frame-ancestors 'none'"
)
_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
Headers = tuple[tuple[bytes, bytes], ...]
_API_HEADERS: Final[Headers] = (*_ALWAYS, (b"content-security-policy", _API_CSP))
_REPORT_HEADERS: Final[Headers] = (*_ALWAYS, (b"content-security-policy", _REPORT_CSP))
_PAGES_HEADERS: Final[Headers] = (*_ALWAYS, (b"content-security-policy", _PAGES_CSP))
_OURS: Final = frozenset(name for name, _ in _API_HEADERS)
REPORT_ROUTE: Final = "drift_report"
METRICS_ROUTE: Final = "metrics"

logger = logging.getLogger(__name__)


class Caller(NamedTuple):
    """Who asks, for the application: in `scope["state"]["api_key"]` of every request to a route that needs a scope."""

    key_id: str
    name: str


LOCAL: Final = Caller("", "loopback")
"""Somebody on this machine, where no key was ever made."""


class TokenBuckets:
    """A bucket per caller: `rate_per_s` tokens a second, at most a second's worth, one at least."""

    def __init__(self, rate_per_s: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_per_s
        self._most = max(1.0, rate_per_s)
        self._monotonic = monotonic
        self._buckets: dict[str, tuple[float, float]] = {}  # as many as there are keys

    def wait_s(self, caller: str) -> float:
        """Take a token and return 0, or take none and return the seconds until there is one."""
        now = self._monotonic()
        tokens, at = self._buckets.get(caller, (self._most, now))
        tokens = min(self._most, tokens + (now - at) * self._rate)
        if tokens < 1:
            self._buckets[caller] = (tokens, now)
            return (1 - tokens) / self._rate
        self._buckets[caller] = (tokens - 1, now)
        return 0.0


class SecurityMiddleware:
    """Lets a request through to `app`, or answers it with a problem; every response gets the security headers.

    To be the outermost layer, so that the headers are on error pages too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: CachedKeys,
        settings: Settings,
        routes: Callable[[str, str], RouteSpec | None] = match,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._keys = keys
        self._routes = routes
        self._require_keys = settings.require_keys
        self._open = {METRICS_ROUTE} if settings.open_metrics else set()
        rate = settings.rate_limit_per_s
        self._buckets = TokenBuckets(rate, monotonic=monotonic) if rate > 0 else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _path(scope)
        route = self._routes(scope["method"], path)
        extra = _headers_of(route)

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _added(message.get("headers", ()), extra)
            await send(message)

        if not path.isprintable():
            # Starlette's routes end in `$`, which also matches before a newline: "/model\n" would be /model to it, not to us.
            await problem_response(Problem(404))(scope, receive, send_secured)
            return
        if route is not None and route.scope is not None and route.name not in self._open:
            try:
                scope.setdefault("state", {})["api_key"] = self._admit(scope, route.scope)
            except (Problem, FraudError) as err:
                problem = problem_for(err)
                _log(problem, route, scope)
                await problem_response(problem)(scope, receive, send_secured)
                return
        await self._app(scope, receive, send_secured)

    def _admit(self, scope: Scope, needed: str) -> Caller:
        """Who asks. Raises Problem 401, 403 or 429, and DependencyError where keys cannot be read at all."""
        presented = _presented(scope["headers"])
        key: ApiKey | None = None
        if presented is None:
            self._admit_without_key(scope)
        else:
            key = self._keys.verify(presented)
            if key is None:
                raise _unauthenticated("The API key is wrong or revoked.", challenge=f'{REALM}, error="invalid_token"')
        caller = LOCAL if key is None else Caller(key.key_id, key.name)
        wait_s = 0.0 if self._buckets is None else self._buckets.wait_s(caller.key_id)
        if wait_s:
            raise Problem(
                429,
                detail=f"{f'The key {caller.key_id} asks' if key else 'Requests without a key come'} more often than "
                "FRAUD_RATE_LIMIT_PER_S allows.",
                type=URN + "rate-limited",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        if key is not None and not key.allows(needed):
            raise Problem(
                403,
                detail=f"The key {key.key_id} lacks the scope {needed}.",
                type=URN + "scope-missing",
                headers={"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{needed}"'},
                extra={"remedy": f"Make one that has it: `fraud keys create NAME --scope {needed}`."},
            )
        return caller

    def _admit_without_key(self, scope: Scope) -> None:
        if self._keys.any_made():
            raise _unauthenticated("An API key is needed.")
        make_one = "Make one where the service runs: `fraud keys create NAME --scope score`."
        if self._require_keys:
            raise _unauthenticated("An API key is needed (FRAUD_REQUIRE_KEYS), and none was made yet.", remedy=make_one)
        if not is_direct_and_local(scope):
            raise _unauthenticated(
                "No API key was made yet, and without one only direct requests from this machine to a loopback address "
                "are answered.",
                remedy=make_one,
            )


def _unauthenticated(
    detail: str,
    *,
    challenge: str = REALM,
    remedy: str = "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; `fraud keys create` makes one.",
) -> Problem:
    return Problem(
        401,
        detail=detail,
        type=URN + "unauthenticated",
        headers={"WWW-Authenticate": challenge},
        extra={"remedy": remedy},
    )


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that the request shows, None where it shows none; another scheme of Authorization is none."""
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
        if name == b"x-api-key":
            found = value
    return None if found is None else found.strip().decode("latin-1")


def _path(scope: Scope) -> str:
    """The path below where the service is mounted, as Starlette's own routes see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


def _headers_of(route: RouteSpec | None) -> Headers:
    if route is None:
        return _PAGES_HEADERS
    return _REPORT_HEADERS if route.name == REPORT_ROUTE else _API_HEADERS


def _added(headers: Iterable[Any], extra: Headers) -> list[tuple[bytes, bytes]]:
    """What the application has set itself stays."""
    held = list(headers)
    names = {name for name, _ in held}
    if names.isdisjoint(_OURS):
        held += extra
        return held
    return held + [pair for pair in extra if pair[0] not in names]


def _log(problem: Problem, route: RouteSpec, scope: Scope) -> None:
    client = scope.get("client")
    address = client[0] if client else "an unknown address"
    logger.info("refused %s with %s to %s: %s", route.name, problem.status, address, problem.detail)
