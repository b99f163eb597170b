"""Errors as RFC 9457 problem details: the one shape of every answer that is not a success.

Says what our own errors say to people, and nothing of an unexpected one: no traceback, no text of a library, no payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fraud_pipeline.errors import (
    Busy,
    ConflictingTransaction,
    DependencyError,
    FraudError,
    InputError,
    IntegrityError,
    InvalidTransaction,
    NotFound,
    PromotionRefused,
)

MEDIA_TYPE: Final = "application/problem+json"
BLANK: Final = "about:blank"
URN: Final = "urn:fraud-pipeline:"
RETRY_BUSY_S: Final = 1
"""Locks here are held for milliseconds to a second."""
RETRY_AWAY_S: Final = 5
"""A restarted database or webserver is back within seconds; asking more often only adds load."""
_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's names, which Python has from 3.13 on."""
_STATUSES: Final = frozenset(int(status) for status in HTTPStatus)
# The first that fits counts: a class stands before those it is derived from.
_KINDS: Final[tuple[tuple[type[FraudError], int, str, str, int], ...]] = (
    (InvalidTransaction, 422, "invalid-transaction", "The transaction breaks the contract", 0),
    (NotFound, 404, "not-found", "Not found", 0),
    (InputError, 422, "invalid-input", "The input cannot be used", 0),
    (Busy, 503, "busy", "Somebody else holds what this needs", RETRY_BUSY_S),
    (DependencyError, 503, "dependency-unavailable", "A system that this needs does not answer", RETRY_AWAY_S),
    (ConflictingTransaction, 409, "conflicting-transaction", "The id is taken by a payment with other content", 0),
    (PromotionRefused, 409, "promotion-refused", "The promotion is refused", 0),
    (IntegrityError, 500, "integrity", "What is stored is not what was written", 0),
    (FraudError, 500, "error", "The request failed", 0),
)


class Problem(Exception):
    """An answer other than a success. `extra` holds further members, such as `errors`; `headers` go with the response."""

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        *,
        type: str = BLANK,  # noqa: A002 the member's name
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.title = title or status_title(status)
        self.detail = detail
        self.type = type
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
        super().__init__(f"{status} {self.title}")

    def as_dict(self) -> dict[str, Any]:
        """The members of the problem document, in a fixed order; without those that say nothing."""
        members = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail, **self.extra}
        return {name: value for name, value in members.items() if value not in ("", None)}


def status_title(status: int) -> str:
    """The name of an HTTP status."""
    return _TITLES.get(status) or _phrase(status)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in _STATUSES else "Error"


def problem_for(error: Exception) -> Problem:
    """What an error is to the caller; every error has an answer, and one that we do not know says only that."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, FraudError):
        return _of_ours(error)
    if isinstance(error, HTTPException):
        problem = Problem(error.status_code, detail=error.detail, headers=error.headers)
        if problem.detail in (problem.title, _phrase(problem.status)):
            problem.detail = ""  # Starlette repeats the status's name where nobody said more
        return problem
    if isinstance(error, TimeoutError):
        return Problem(
            503, detail="The request took longer than it may (FRAUD_REQUEST_TIMEOUT_S).", headers=_retry(RETRY_BUSY_S)
        )
    return Problem(500, detail="An unexpected error, which is ours; the service's log says more.")


def problem_response(problem: Problem) -> Response:
    """The response, with its headers."""
    return Response(
        to_bytes(problem.as_dict()), status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


def to_bytes(members: Mapping[str, Any]) -> bytes:
    """JSON of a problem; what UTF-8 cannot hold (a lone surrogate that a caller sent) becomes `?`."""
    try:
        return orjson.dumps(members)
    except TypeError:
        return orjson.dumps(_clean(members))


def _of_ours(error: FraudError) -> Problem:
    _, status, slug, title, retry = next(kind for kind in _KINDS if isinstance(error, kind[0]))
    extra: dict[str, Any] = {"remedy": error.remedy or None}
    detail = error.message
    if isinstance(error, InvalidTransaction):
        extra["errors"] = [{"field": v.field, "value": v.value, "reason": v.reason} for v in error.violations]
        detail = f"Broken: {', '.join(dict.fromkeys(v.field for v in error.violations))}."
    if isinstance(error, ConflictingTransaction):
        extra["errors"] = [{"field": name, "reason": "differs from what is recorded"} for name in error.fields]
    return Problem(status, title, detail, type=URN + slug, headers=_retry(retry), extra=extra)


def _retry(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)} if seconds else {}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_clean(str(name)): _clean(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(member) for member in value]
    return value
