"""The authorisation matrix, and everything else that stands between a request and the application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fraud_pipeline.adapters.api_keys import SCOPES, ApiKey, Scope, hash_secret
from fraud_pipeline.adapters.cached_keys import CachedKeys
from fraud_pipeline.errors import DependencyError
from fraud_pipeline.settings import Settings
from serving.problems import Problem
from serving.routes import ROUTES, RouteSpec, match
from serving.security import SecurityMiddleware

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "s" * 43
LOOPBACK = "127.0.0.1"
ELSEWHERE = "203.0.113.7"
ALLOWED = {
    "score": {"score"},
    "label": {"label"},
    "read": {"read"},
    "admin": {"score", "label", "read", "admin"},
}
ROUTE_IDS = [f"{route.method} {route.path}" for route in ROUTES]


def key_id(name: str) -> str:
    return name.encode().hex()[:12].ljust(12, "0")


def made(name: str, *scopes: Scope, revoked: bool = False) -> ApiKey:
    return ApiKey(key_id(name), name, scopes, NOW, NOW if revoked else None, hash_secret(SECRET))


def plain(name: str, secret: str = SECRET) -> str:
    return f"fp_{key_id(name)}_{secret}"


EVERY_KIND = [*(made(scope, scope) for scope in SCOPES), made("gone", "admin", revoked=True)]


def cached(keys: Iterable[ApiKey]) -> CachedKeys:
    found = CachedKeys(lambda: keys)
    found.refresh()
    return found


async def handler(request: Request) -> JSONResponse:
    caller = request.scope.get("state", {}).get("api_key")
    return JSONResponse({"caller": None if caller is None else caller.name}, headers={"X-Handled": "yes"})


def application() -> Starlette:
    """The routes as the service has them, each answering who asked."""
    routes = [Route(route.path, handler, methods=[route.method]) for route in ROUTES]
    return Starlette(routes=[*routes, Route("/docs.json", handler)])


def service(
    keys: Iterable[ApiKey] | CachedKeys = EVERY_KIND, *, clock: Any = None, **settings: Any
) -> SecurityMiddleware:
    held = keys if isinstance(keys, CachedKeys) else cached(keys)
    extra = {} if clock is None else {"monotonic": clock}
    return SecurityMiddleware(application(), keys=held, settings=Settings(**settings), **extra)


def ask(
    app: Any, method: str, path: str, *, client: str = ELSEWHERE, base: str = "http://127.0.0.1:3001", **headers: str
) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(client, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url=base) as session:
            return await session.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return asyncio.run(send())


def a_path(route: RouteSpec) -> str:
    return route.path.replace("{transaction_id}", "t-1").replace("{customer_id}", "c-1")


CALLERS: dict[str, tuple[dict[str, str], int | None]] = {
    "no key": ({}, 401),
    "no key but another scheme": ({"Authorization": "Basic Zm9vOmJhcg=="}, 401),
    "an empty key": ({"X_API_Key": ""}, 401),
    "a key of other form": ({"X_API_Key": "letmein"}, 401),
    "an unknown key": ({"X_API_Key": plain("nobody")}, 401),
    "a wrong secret": ({"Authorization": "Bearer " + plain("admin", "x" * 43)}, 401),
    "a revoked key": ({"X_API_Key": plain("gone")}, 401),
    **{scope: ({"X_API_Key": plain(scope)}, None) for scope in SCOPES},
}


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("client", [LOOPBACK, ELSEWHERE])
def test_the_authorisation_matrix(route: RouteSpec, caller: str, client: str) -> None:
    headers, refused = CALLERS[caller]
    wanted = refused or (200 if route.scope in ALLOWED[caller] else 403)
    if route.scope is None:
        wanted = 200
    answer = ask(service(), route.method, a_path(route), client=client, **headers)
    assert answer.status_code == wanted
    assert ("X-Handled" in answer.headers) == (wanted == 200)
    if wanted == 200:
        assert answer.json()["caller"] == (None if route.scope is None else caller)
    else:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == wanted


def test_the_routes_are_those_of_the_contract() -> None:
    assert {f"{r.method} {r.path}": r.scope for r in ROUTES} == {
        "GET /livez": None,
        "GET /readyz": None,
        "GET /openapi.json": None,
        "POST /score": "score",
        "POST /score_batch": "score",
        "GET /score/{transaction_id}": "read",
        "GET /explain/{transaction_id}": "read",
        "POST /labels": "label",
        "GET /transactions/{transaction_id}": "read",
        "GET /customers/{customer_id}/recent": "read",
        "GET /model": "read",
        "GET /health": "read",
        "GET /metrics": "read",
        "GET /drift/status": "read",
        "GET /drift/stats": "read",
        "POST /drift/run": "admin",
        "GET /drift/report": "read",
    }


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_is_taken_from_either_header(scheme: str) -> None:
    assert ask(service(), "POST", "/score", Authorization=f"{scheme} {plain('score')}").status_code == 200
    assert ask(service(), "POST", "/score", X_API_Key=plain("score")).status_code == 200


def test_refusals_say_how_to_ask() -> None:
    nobody = ask(service(), "POST", "/score")
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="fraud-pipeline"'
    assert nobody.json() == {
        "type": "urn:fraud-pipeline:unauthenticated",
        "title": "Unauthorized",
        "status": 401,
        "detail": "An API key is needed.",
        "remedy": "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; `fraud keys create` makes one.",
    }
    wrong = ask(service(), "POST", "/score", X_API_Key=plain("nobody"))
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="fraud-pipeline", error="invalid_token"'
    lacking = ask(service(), "POST", "/score", X_API_Key=plain("read"))
    assert lacking.headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="score"')
    assert lacking.json()["detail"] == f"The key {key_id('read')} lacks the scope score."


# Open only on loopback, while no key was ever made


@pytest.mark.parametrize("client", [LOOPBACK, "127.0.0.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("base", ["http://127.0.0.1:3001", "http://localhost:3001", "http://[::1]:3001"])
def test_without_any_key_this_machine_may_do_everything(client: str, base: str) -> None:
    for route in ROUTES:
        answer = ask(service([]), route.method, a_path(route), client=client, base=base)
        assert (answer.status_code, answer.json()["caller"]) == (200, "loopback" if route.scope else None)


@pytest.mark.parametrize(
    "client", [ELSEWHERE, "10.0.0.4", "::ffff:10.0.0.4", "2001:db8::1", "", "testclient", "localhost"]
)
def test_without_any_key_others_are_refused_and_told_how_to_make_one(client: str) -> None:
    answer = ask(service([]), "POST", "/score", client=client)
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("No API key was made yet, and without one only direct requests")
    assert "`fraud keys create NAME --scope score`" in answer.json()["remedy"]
    assert ask(service([]), "GET", "/livez", client=client).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": LOOPBACK},  # a proxy on this machine speaks for somebody else
        {"Forwarded": "for=127.0.0.1"},
        {"X_Real_IP": "203.0.113.7"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example:3001"},  # a name that a web page's owner made resolve to loopback
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Origin": "https://evil.example"},  # a web page on this machine's browser
        {"Origin": "null"},
    ],
)
def test_without_any_key_a_loopback_address_alone_is_not_enough(headers: dict[str, str]) -> None:
    assert ask(service([]), "POST", "/drift/run", client=LOOPBACK, **headers).status_code == 401


def test_a_page_of_this_very_machine_is_not_of_elsewhere() -> None:
    assert ask(service([]), "GET", "/model", client=LOOPBACK, Origin="http://localhost:8080").status_code == 200


def test_keys_can_be_required_on_loopback_too() -> None:
    answer = ask(service([], require_keys=True), "POST", "/score", client=LOOPBACK)
    assert answer.status_code == 401
    assert "none was made yet" in answer.json()["detail"]


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
def test_metrics_alone_can_be_opened(route: RouteSpec) -> None:
    answer = ask(service(open_metrics=True), route.method, a_path(route))
    assert (answer.status_code == 200) == (route.scope is None or route.path == "/metrics")


def test_revoking_the_last_key_locks_the_service() -> None:
    assert ask(service([made("gone", "admin", revoked=True)]), "POST", "/score", client=LOOPBACK).status_code == 401


def test_a_wrong_key_is_refused_even_where_none_is_needed() -> None:
    assert ask(service([]), "POST", "/score", client=LOOPBACK, X_API_Key="x").status_code == 401


def test_keys_that_were_never_read_are_our_failure_and_open_nothing() -> None:
    def away() -> list[ApiKey]:
        raise DependencyError("The ledger does not answer.")

    keys = CachedKeys(away)
    keys.refresh()
    for headers in ({}, {"X_API_Key": plain("admin")}):
        answer = ask(service(keys), "POST", "/score", client=LOOPBACK, **headers)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert ask(service(keys), "GET", "/livez", client=LOOPBACK).status_code == 200


# Limits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_key_has_its_own_rate() -> None:
    clock = Clock()
    app = service(clock=clock, rate_limit_per_s=4)

    def status(scope: str) -> int:
        return ask(app, "POST", "/score", X_API_Key=plain(scope)).status_code

    assert [status("score") for _ in range(6)] == [200, 200, 200, 200, 429, 429]
    assert [status("admin") for _ in range(4)] == [200] * 4
    clock.now += 0.5
    assert [status("score") for _ in range(3)] == [200, 200, 429]
    clock.now += 3_600
    assert [status("score") for _ in range(5)] == [200] * 4 + [429]


def test_a_slow_rate_says_when_to_come_again() -> None:
    clock = Clock()
    app = service(clock=clock, rate_limit_per_s=0.1)
    assert ask(app, "POST", "/score", X_API_Key=plain("score")).status_code == 200
    clock.now += 2.5
    refused = ask(app, "POST", "/score", X_API_Key=plain("score"))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "8")
    assert refused.json()["type"] == "urn:fraud-pipeline:rate-limited"
    assert refused.json()["detail"].startswith(f"The key {key_id('score')} asks more often than")
    clock.now += 7.5
    assert ask(app, "POST", "/score", X_API_Key=plain("score")).status_code == 200


def test_requests_without_a_key_share_one_rate_and_health_has_none() -> None:
    app = service([], clock=Clock(), rate_limit_per_s=1)
    assert [ask(app, "GET", "/model", client=LOOPBACK).status_code for _ in range(2)] == [200, 429]
    assert {ask(app, "GET", "/readyz", client=LOOPBACK).status_code for _ in range(5)} == {200}


# Headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/livez", {}, 200),
        ("GET", "/model", {"X_API_Key": plain("read")}, 200),
        ("GET", "/model", {}, 401),
        ("GET", "/model", {"X_API_Key": plain("score")}, 403),
        ("GET", "/nothing", {}, 404),
        ("DELETE", "/score", {}, 405),
        ("GET", "/docs.json", {}, 200),
    ],
)
def test_every_response_has_the_security_headers_and_none_of_cors(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = ask(service(), method, path, Origin="https://evil.example", **headers)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_content_policy_fits_what_is_shown() -> None:
    def policy(path: str) -> str:
        return ask(service(), "GET", path, X_API_Key=plain("read")).headers["Content-Security-Policy"]

    assert policy("/model") == "default-src 'none'; frame-ancestors 'none'"
    assert "sandbox allow-scripts" in policy("/drift/report")
    assert "allow-same-origin" not in policy("/drift/report")
    assert "connect-src" not in policy("/drift/report"), "default-src 'none' is all it may connect to"
    assert policy("/docs.json").startswith("default-src 'self'")


def test_what_the_application_says_itself_stays() -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b""})

    app = SecurityMiddleware(own, keys=cached([]), settings=Settings())
    assert ask(app, "GET", "/docs.json").headers.get_list("Cache-Control") == ["max-age=60"]


# No way round


@pytest.mark.parametrize("path", ["/model%0A", "/score/t-1%0A", "/customers/c/recent%0a", "/model%0D", "/model%00"])
def test_a_path_with_control_characters_is_nobodys(path: str) -> None:
    assert ask(service(), "GET", path).status_code == 404
    assert ask(service(), "GET", path, X_API_Key=plain("admin")).status_code == 404


def test_head_needs_what_get_needs() -> None:
    for route in ROUTES:
        if route.method == "GET":
            assert match("HEAD", a_path(route)) == route
            assert ask(service(), "HEAD", a_path(route)).status_code == (401 if route.scope else 200)


def test_a_service_mounted_below_a_path_is_guarded_there() -> None:
    guarded = service()

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await guarded({**scope, "root_path": "/fraud"}, receive, send)

    assert ask(mounted, "GET", "/fraud/model").status_code == 401
    assert ask(mounted, "GET", "/fraud/model", X_API_Key=plain("read")).status_code == 200


WORDS = [part for route in ROUTES for part in route.path.split("/") if part and "{" not in part]
segments = st.sampled_from(
    [*WORDS, "", ".", "..", "x", " ", "%2F", "?", ";", "Score", "\n", "model\n", "\r", "\t", "\x00", "é"]
)


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "get"]), st.lists(segments, max_size=4), st.booleans())
def test_nothing_that_needs_a_scope_is_reached_without_a_key(method: str, parts: list[str], newline: bool) -> None:
    path = "/" + "/".join(parts) + ("\n" if newline else "")
    reached: list[str] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            reached.extend(name.decode() for name, _ in message.get("headers", ()) if name == b"x-handled")

        await application()(scope, receive, watch)

    async def ignore(message: Any) -> None:
        return None

    app = SecurityMiddleware(watched, keys=cached(EVERY_KIND), settings=Settings())
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [],
        "query_string": b"",
        "client": (LOOPBACK, 1),
    }
    asyncio.run(app(scope, ignore, ignore))  # type: ignore[arg-type]  # nothing is received
    route = match(method, path)
    assert not reached or path == "/docs.json" or (route is not None and route.scope is None)


def test_a_web_socket_is_closed() -> None:
    sent: list[Any] = []

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await service()({"type": "websocket", "path": "/score", "headers": []}, receive, send)

    asyncio.run(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_refusals_are_logged_by_id_and_never_with_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="serving.security")
    for headers in ({"X_API_Key": plain("nobody")}, {"Authorization": "Bearer " + plain("read")}):
        ask(service(), "POST", "/score", **headers)
    assert [record.getMessage() for record in caplog.records] == [
        f"refused score with 401 to {ELSEWHERE}: The API key is wrong or revoked.",
        f"refused score with 403 to {ELSEWHERE}: The key {key_id('read')} lacks the scope score.",
    ]
    assert SECRET not in caplog.text


def test_a_problem_that_the_middleware_raises_is_no_crash() -> None:
    with pytest.raises(Problem, match="401 Unauthorized"):
        service()._admit({"headers": [], "client": None}, "score")
