"""Whether an answer to a fuzz case is right: in words what is wrong with it, or nothing."""

from __future__ import annotations

import json
from typing import Any

from fraud_pipeline_tests.serving.fuzz_bodies import FuzzCase

REFUSALS = frozenset({413, 415, 422})
ALLOWED = {
    "accept": frozenset({200}),
    "refuse": REFUSALS,
    "either": REFUSALS | {200},
    "reference": frozenset({200, 404}),
}
ID_TAKEN = 409


def complaint(case: FuzzCase, status: int, media_type: str, content: bytes) -> str | None:
    """What is wrong with the answer; None where it is right."""
    allowed = case.statuses or ALLOWED[case.expected]
    if case.kind == "mutated" and case.expected != "refuse":
        allowed |= {ID_TAKEN}  # a changed digit makes an id that another body had
    if status not in allowed:
        return f"{status}, not {sorted(allowed)}"
    if status == 200:
        return _complaint_about_decision(content)
    return _complaint_about_problem(case, status, media_type, content)


def _complaint_about_decision(content: bytes) -> str | None:
    answer = _parsed(content)
    decided = isinstance(answer, dict) and answer.get("decision") in ("APPROVE", "REVIEW", "BLOCK")
    return None if decided else f"200 without a decision: {content[:200]!r}"


def _complaint_about_problem(case: FuzzCase, status: int, media_type: str, content: bytes) -> str | None:
    problem = _parsed(content)
    if not media_type.startswith("application/problem+json") or not isinstance(problem, dict):
        return f"{status} as {media_type}, not a problem document"
    if problem.get("status") != status:
        return f"{status} says that it is {problem.get('status')}"
    named = {error.get("field", "") for error in problem.get("errors", [])}
    missing = {field for field in case.broken if not any(n == field or n.startswith(f"{field}.") for n in named)}
    if status == 422 and missing:
        return f"422 does not name {sorted(missing)}, only {sorted(named)}"
    return None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
