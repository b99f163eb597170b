"""The public routes and the scope that each needs. Knows no handler: the application and the security layer read it alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One route. `path` is a Starlette path with at most one parameter; `scope` None is open to everyone."""

    method: str
    path: str
    scope: str | None
    name: str


ROUTES: Final = (
    RouteSpec("GET", "/livez", None, "livez"),
    RouteSpec("GET", "/readyz", None, "readyz"),
    RouteSpec("GET", "/openapi.json", None, "openapi"),
    RouteSpec("POST", "/score", "score", "score"),
    RouteSpec("POST", "/score_batch", "score", "score_batch"),
    RouteSpec("GET", "/score/{transaction_id}", "read", "stored_decision"),
    RouteSpec("GET", "/explain/{transaction_id}", "read", "explain"),
    RouteSpec("POST", "/labels", "label", "labels"),
    RouteSpec("GET", "/transactions/{transaction_id}", "read", "transaction"),
    RouteSpec("GET", "/customers/{customer_id}/recent", "read", "recent"),
    RouteSpec("GET", "/model", "read", "model"),
    RouteSpec("GET", "/health", "read", "health"),
    RouteSpec("GET", "/metrics", "read", "metrics"),
    RouteSpec("GET", "/drift/status", "read", "drift_status"),
    RouteSpec("GET", "/drift/stats", "read", "drift_stats"),
    RouteSpec("POST", "/drift/run", "admin", "drift_run"),
    RouteSpec("GET", "/drift/report", "read", "drift_report"),
)


def _exact() -> Mapping[tuple[str, str], RouteSpec]:
    found = {(route.method, route.path): route for route in ROUTES if "{" not in route.path}
    return found | {("HEAD", path): route for (method, path), route in found.items() if method == "GET"}


def _with_parameter() -> Mapping[str, tuple[tuple[str, str, RouteSpec], ...]]:
    """By method: what stands before the parameter, what stands after it, the route."""
    parts = [(route, *_around_parameter(route.path)) for route in ROUTES if "{" in route.path]
    return {
        method: tuple((before, after, route) for route, before, after in parts if route.method in (method, served_as))
        for method, served_as in (("GET", "GET"), ("HEAD", "GET"), ("POST", "POST"))
    }


def _around_parameter(path: str) -> tuple[str, str]:
    before, _, rest = path.partition("{")
    return before, rest.partition("}")[2]


_EXACT: Final = _exact()
_WITH_PARAMETER: Final = _with_parameter()


def match(method: str, path: str) -> RouteSpec | None:
    """The route of a request, or None for what is not ours (and for a wrong method).

    `path` is decoded and without query. HEAD is GET's. A parameter may hold a slash here: a router that splits the path
    elsewhere must not find a way past the scope.
    """
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    for before, after, route in _WITH_PARAMETER.get(method, ()):
        if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
            return route
    return None
