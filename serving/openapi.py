"""The OpenAPI 3.1 document of the service: every route, what it takes, what it answers, which key it needs.

Schemathesis is run against it in the tests, so it says what is true and nothing more. Knows no handler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from serving import openapi_examples as examples
from serving import openapi_state_examples as states
from serving.openapi_answers import answer_schemas, ref
from serving.openapi_operations import OPERATIONS, Operation
from serving.openapi_schemas import (
    PRINTABLE,
    batch_schema,
    label_batch_schema,
    label_schema,
    reference_schema,
    transaction_id_schema,
    transaction_schema,
)
from serving.problems import MEDIA_TYPE, status_title
from serving.routes import ROUTES, RouteSpec

OPENAPI_VERSION: Final = "3.1.0"
RETRIED: Final = (429, 503)
"""Statuses that come with Retry-After."""
CHALLENGED: Final = (401, 403)
"""Statuses that come with WWW-Authenticate."""
SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"apiKey": []}, {}]
"""Either form of a key; none on loopback while no key was made."""
DESCRIPTION: Final = """\
Decides payments: APPROVE, REVIEW or BLOCK, with reasons, in milliseconds.

**Keys.** `Authorization: Bearer KEY` or `X-API-Key: KEY`; keys have the scopes `score`, `label`, `read`, `admin`. While no
key was made, the service answers on loopback without one.

**Idempotency.** The `transaction_id` is the key: the same transaction again is answered with the stored decision, byte for
byte; the same id with other content is 409.

**Errors** are `application/problem+json` (RFC 9457); a 422 names every broken field at once.

**Bodies** are JSON in UTF-8, plain or with `Content-Encoding: gzip`. Names that stand twice in an
object are refused, and so is nesting of more than 16 levels.
"""
PROBLEMS: Final[Mapping[int, str]] = {
    401: "No key, or one that is not valid.",
    403: "The key lacks the scope.",
    404: "There is no such thing.",
    405: "The route has no such method.",
    409: "The id is taken by a transaction with other content; the fields are named.",
    413: "The body or the batch is too large.",
    415: "The body is not JSON, or its Content-Encoding is another than gzip.",
    422: "Broken rules, or no strict JSON; every field is named.",
    429: "Too many requests for this key.",
    500: "An error of the service.",
    503: "Not now: a dependency is away, no model is loaded, or the request took too long.",
}


def openapi_document(*, currency: str = "USD", now: datetime | None = None) -> dict[str, Any]:
    """The document; JSON-able. `now` (default the clock's) is when its example payments happen."""
    now = now or datetime.now(UTC)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation = OPERATIONS[route.name]
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, operation, now)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Fraud scoring",
            "version": _version(),
            "summary": "Payment-fraud decisions with reasons.",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This service."}],
        "tags": _tags(),
        "paths": paths,
        "components": {
            "schemas": {**_requests(currency), **answer_schemas()},
            "responses": {f"Problem{status}": _problem_response(status) for status in PROBLEMS},
            "headers": {"RetryAfter": _retry_after(), "Challenge": _challenge()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Made with `fraud keys create`."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _requests(currency: str) -> dict[str, Any]:
    return {
        "Transaction": transaction_schema(currency),
        "TransactionReference": reference_schema(),
        "ScoreRequest": {"anyOf": [ref("Transaction"), ref("TransactionReference")]},
        "BatchRequest": batch_schema(),
        "Label": label_schema(),
        "LabelBatch": label_batch_schema(),
        "LabelRequest": {"anyOf": [ref("Label"), ref("LabelBatch")]},
    }


def _operation(route: RouteSpec, operation: Operation, now: datetime) -> dict[str, Any]:
    scope = f"Scope: `{route.scope}`." if route.scope else "Open to everyone."
    described: dict[str, Any] = {
        "operationId": route.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": f"{operation.description}\n\n{scope}".strip(),
        "security": SECURITY if route.scope else [],
    }
    if parameters := [*_path_parameters(route.path), *operation.parameters]:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": ref(operation.body), "examples": _named(operation.sent(now))}},
        }
    described["responses"] = {
        str(operation.success): {"description": operation.answer, "content": dict(operation.content(now))},
        **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in _statuses(route, operation)},
    }
    if operation.unavailable:
        shown = {
            "application/json": {
                "schema": ref(operation.schema),
                "examples": _named({"away": states.unavailable(now)}),
            }
        }
        described["responses"]["503"] = {"description": "A payment would not be decided now.", "content": shown}
    return described


def _statuses(route: RouteSpec, operation: Operation) -> Iterable[int]:
    """Every other status that can occur."""
    found = {405, 500, 503, *operation.statuses}
    if route.scope:
        found |= {401, 403, 429}
    if operation.body:
        found |= {413, 415, 422}
    return sorted(found)


def _path_parameters(path: str) -> list[dict[str, Any]]:
    schemas = {
        "transaction_id": transaction_id_schema(),
        "customer_id": {"type": "string", "minLength": 1, "pattern": PRINTABLE, "description": "The customer."},
    }
    sample = {"transaction_id": examples.CODE, "customer_id": "C0000042"}
    return [
        {"name": name, "in": "path", "required": True, "schema": schemas[name], "example": sample[name]}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in values.items()}


def _problem_response(status: int) -> dict[str, Any]:
    shown = examples.problem(status, status_title(status), PROBLEMS[status])
    response: dict[str, Any] = {
        "description": PROBLEMS[status],
        "content": {
            MEDIA_TYPE: {
                "schema": ref("Problem"),
                "examples": _named({"problem": examples.broken_fields() if status == 422 else shown}),
            }
        },
    }
    if status in RETRIED:
        response["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    if status in CHALLENGED:
        response["headers"] = {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}}
    return response


def _challenge() -> dict[str, Any]:
    return {
        "description": "What kind of key is wanted (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="fraud-pipeline"',
    }


def _retry_after() -> dict[str, Any]:
    return {
        "description": "Seconds to wait before the next try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
        "example": 1,
    }


def _tags() -> list[dict[str, str]]:
    return [
        {"name": "decisions", "description": "Deciding payments and looking decisions up."},
        {"name": "labels", "description": "What was learned about payments."},
        {"name": "model", "description": "The model that decides, and whether its world has changed."},
        {"name": "operation", "description": "Health, metrics and this document."},
    ]


def _version() -> str:
    try:
        return version("fraud-pipeline")
    except PackageNotFoundError:  # a bento holds the package as files
        return "0"
