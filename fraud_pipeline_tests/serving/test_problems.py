from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.exceptions import HTTPException

from fraud_pipeline import errors
from fraud_pipeline.domain.transaction import parse_transaction
from fraud_pipeline.errors import (
    BundleError,
    Busy,
    ConflictingTransaction,
    DatasetError,
    DependencyError,
    FraudError,
    InputError,
    IntegrityError,
    InvalidTransaction,
    MalformedJson,
    MappingError,
    NotFound,
    PromotionRefused,
    SchemaMismatch,
    SettingsError,
    StateError,
    TrainingDataError,
    Violation,
)
from serving.problems import Problem, problem_for, problem_response, to_bytes

ROOT = Path(__file__).resolve().parents[2]
STATUSES: dict[type[FraudError], tuple[int, str]] = {
    FraudError: (500, "error"),
    InputError: (422, "invalid-input"),
    InvalidTransaction: (422, "invalid-transaction"),
    MalformedJson: (422, "invalid-input"),
    MappingError: (422, "invalid-input"),
    DatasetError: (422, "invalid-input"),
    TrainingDataError: (422, "invalid-input"),
    SettingsError: (422, "invalid-input"),
    NotFound: (404, "not-found"),
    IntegrityError: (500, "integrity"),
    BundleError: (500, "integrity"),
    SchemaMismatch: (500, "integrity"),
    StateError: (500, "integrity"),
    DependencyError: (503, "dependency-unavailable"),
    Busy: (503, "busy"),
    PromotionRefused: (409, "promotion-refused"),
    ConflictingTransaction: (409, "conflicting-transaction"),
}


def every_error(root: type[FraudError] = FraudError) -> set[type[FraudError]]:
    return {root}.union(*(every_error(kind) for kind in root.__subclasses__() if kind.__module__ == errors.__name__))


def made(kind: type[FraudError]) -> FraudError:
    if issubclass(kind, InvalidTransaction):
        return kind((Violation("amount", "-1", "is negative"),))
    if issubclass(kind, MalformedJson):
        return kind("Not JSON.", ())
    if issubclass(kind, ConflictingTransaction):
        return kind("t-1", ("amount", "currency"))
    return kind("The ledger is away.", remedy="Start it.")


@pytest.mark.parametrize("kind", sorted(every_error(), key=str))
def test_every_error_of_ours_has_its_status_and_type(kind: type[FraudError]) -> None:
    status, slug = STATUSES[kind]
    problem = problem_for(made(kind))
    assert (problem.status, problem.type) == (status, f"urn:fraud-pipeline:{slug}")
    assert ("Retry-After" in problem.headers) == (status == 503)


def test_an_error_of_ours_says_what_it_says_to_people() -> None:
    assert problem_for(NotFound("There is no payment t-1.", remedy="Send it first.")).as_dict() == {
        "type": "urn:fraud-pipeline:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no payment t-1.",
        "remedy": "Send it first.",
    }
    assert "remedy" not in problem_for(NotFound("There is none.")).as_dict()


def test_a_broken_transaction_names_every_field_once_in_the_detail_and_each_rule_in_errors() -> None:
    with pytest.raises(InvalidTransaction) as caught:
        parse_transaction({"transaction_id": "t 1", "amount": "1.234", "latitude": 91, "customer_id": "c"})
    told = problem_for(caught.value).as_dict()
    assert told["status"] == 422
    fields = [error["field"] for error in told["errors"]]
    assert {"transaction_id", "event_time", "merchant_id", "amount", "latitude"} <= set(fields)
    assert {"field": "transaction_id", "value": "'t 1'"}.items() <= told["errors"][0].items()
    assert told["detail"] == f"Broken: {', '.join(dict.fromkeys(fields))}."
    assert told["remedy"] == "Correct the named fields and send it again."


def test_a_conflict_names_the_fields_and_not_what_is_recorded() -> None:
    told = problem_for(ConflictingTransaction("t-1", ("amount", "currency"))).as_dict()
    assert told["detail"] == "Transaction t-1 is recorded with another amount, currency."
    assert told["errors"] == [
        {"field": "amount", "reason": "differs from what is recorded"},
        {"field": "currency", "reason": "differs from what is recorded"},
    ]


def test_a_problem_stays_what_it_is() -> None:
    problem = Problem(409, detail="amount differs", extra={"fields": ["amount"]})
    assert problem_for(problem) is problem
    assert problem.as_dict() == {
        "type": "about:blank", "title": "Conflict", "status": 409, "detail": "amount differs", "fields": ["amount"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "members", "headers"),
    [
        (HTTPException(404), {"title": "Not Found", "status": 404}, {}),
        (
            HTTPException(405, headers={"Allow": "GET"}),
            {"title": "Method Not Allowed", "status": 405},
            {"Allow": "GET"},
        ),
        (
            HTTPException(413, "Over 5,000."),
            {"title": "Content Too Large", "status": 413, "detail": "Over 5,000."},
            {},
        ),
        (HTTPException(422), {"title": "Unprocessable Content", "status": 422}, {}),
    ],
)
def test_starlettes_own_errors_have_the_same_shape(
    error: HTTPException, members: dict[str, Any], headers: dict[str, str]
) -> None:
    problem = problem_for(error)
    assert problem.as_dict() == {"type": "about:blank", **members}
    assert problem.headers == headers


def test_a_timeout_may_be_tried_again() -> None:
    problem = problem_for(TimeoutError())
    assert (problem.status, problem.headers) == (503, {"Retry-After": "1"})


def test_an_unexpected_error_gives_nothing_away() -> None:
    told = to_bytes(problem_for(KeyError("customer 4111111111111111")).as_dict())
    assert orjson.loads(told)["status"] == 500
    assert b"4111" not in told
    assert b"KeyError" not in told


def test_the_response_is_problem_json_with_its_headers() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    response = problem_response(problem_for(Busy("Somebody trains.", remedy="Wait.")))
    asyncio.run(response({"type": "http"}, receive, send))
    assert sent[0]["status"] == 503
    headers = dict(sent[0]["headers"])
    assert (headers[b"content-type"], headers[b"retry-after"]) == (b"application/problem+json", b"1")
    assert orjson.loads(sent[1]["body"])["detail"] == "Somebody trains."


def test_what_utf_8_cannot_hold_is_answered_all_the_same() -> None:
    told = to_bytes({"detail": "a\ud800", "errors": [{"field": "attributes.\udfff", "n": 1}], "\ud800": None})
    assert orjson.loads(told) == {"detail": "a?", "errors": [{"field": "attributes.?", "n": 1}], "?": None}


def test_an_unknown_status_has_a_title_too() -> None:
    assert Problem(599).title == "Error"


def test_importing_security_and_problems_loads_nothing_of_the_pipeline() -> None:
    heavy = {
        "dagster",
        "mlflow",
        "pandas",
        "sklearn",
        "xgboost",
        "matplotlib",
        "evidently",
        "alembic",
        "bentoml",
        "numba",
    }
    modules = "serving.security, serving.problems, fraud_pipeline.adapters.drift_results, fraud_pipeline.adapters.dagster_runs"
    program = f"import sys, {modules}; print(*({heavy!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    assert answer.stdout.split() == []
