"""The handlers that write: payments and labels in, decisions out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.payment_lookup import StoredPayment, find_payment
from fraud_pipeline.domain.label import parse_label
from fraud_pipeline.domain.transaction import Label, Transaction, parse_transaction, unknown_fields
from fraud_pipeline.domain.transaction_batch import parse_transactions
from fraud_pipeline.errors import FraudError, InvalidTransaction, NotFound, Violation
from fraud_pipeline.live_runtime import LiveRuntime, utc_now
from serving.answers import json_bytes, json_response
from serving.payloads import json_object
from serving.problems import URN, Problem, problem_for

MAX_BATCH: Final = 5_000
PARSED_AT_ONCE: Final = 1_024
"""About 5 ms, then others get their turn."""


def runtime_of(request: Request) -> LiveRuntime:
    """The runtime behind the application."""
    return cast("LiveRuntime", request.app.state.runtime)


async def score(request: Request) -> Response:
    """Decide one payment, or answer again what was decided."""
    runtime, started = runtime_of(request), time.perf_counter()
    received_at = utc_now()
    payload = await json_object(request, max_bytes=runtime.settings.max_body_bytes)
    if payload.keys() == {"transaction_id"}:
        return json_bytes(await _decided(runtime, payload["transaction_id"]))
    transaction = _transaction(runtime, payload, received_at)
    stages = runtime.metrics.stages
    stages["parse"].observe(time.perf_counter() - started)
    answer = await runtime.ready_scorer().score(transaction, received_at=received_at)
    stages["total"].observe(time.perf_counter() - started)
    return json_bytes(answer)


async def score_batch(request: Request) -> Response:
    """Decide many payments in the order of their event times; a bad one spoils no other."""
    runtime, received_at = runtime_of(request), utc_now()
    payload = await json_object(request, max_bytes=runtime.settings.max_body_bytes)
    items = _list(payload, "transactions")
    scorer = runtime.ready_scorer()
    results: list[bytes] = [b""] * len(items)
    transactions: list[Transaction] = []
    places: list[int] = []
    async with scorer.batches:
        for start in range(0, len(items), PARSED_AT_ONCE):
            parsed = parse_transactions(
                items[start : start + PARSED_AT_ONCE], currency=runtime.settings.currency, received_at=received_at
            )
            runtime.metrics.unknown_fields += parsed.unknown_fields
            for place, item in enumerate(parsed.items, start):
                if isinstance(item, Transaction):
                    transactions.append(item)
                    places.append(place)
                else:
                    results[place] = _failed(item)
            await asyncio.sleep(0)
    answers = await scorer.score_many(transactions, received_at=received_at)
    for place, answer in zip(places, answers, strict=True):
        results[place] = b'{"decision":' + answer + b"}" if isinstance(answer, bytes) else _failed(answer)
    return json_bytes(b'{"results":[' + b",".join(results) + b"]}")


async def labels(request: Request) -> Response:
    """Record one label or many; those that are valid count, each of the others has its problem."""
    runtime, known_at = runtime_of(request), utc_now()
    payload = await json_object(request, max_bytes=runtime.settings.max_body_bytes)
    many = "labels" in payload
    items = _list(payload, "labels") if many else [payload]
    author = getattr(request.state, "api_key", None)
    valid: list[Label] = []
    errors: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        try:
            valid.append(_label(item, known_at, default_author=getattr(author, "name", "") or "unknown"))
        except InvalidTransaction as err:
            problem = _label_problem(err)
            if not many:
                raise problem from err
            errors.append({"index": index, "problem": problem.as_dict()})
    recorded = await runtime.record_labels(valid) if valid else None
    return json_response(
        {
            "recorded": 0 if recorded is None else len(recorded.released) + len(recorded.waiting),
            "waiting": [] if recorded is None else list(recorded.waiting),
            "repeated": 0 if recorded is None else len(recorded.repeats),
            "changes": []
            if recorded is None
            else [{"transaction_id": c.transaction_id, "change": c.change} for c in recorded.changes],
            "errors": errors,
        }
    )


HANDLERS: Final = {"score": score, "score_batch": score_batch, "labels": labels}


async def _decided(runtime: LiveRuntime, transaction_id: object) -> bytes:
    """The stored decision of a recorded payment, or one now where it has none."""
    scorer = runtime.ready_scorer()
    identity = transaction_id if isinstance(transaction_id, str) else ""
    found = await scorer.stored(identity) if identity else None
    if found is not None:
        return found[1] if found[1] is not None else await scorer.decide_recorded(found[0])
    past = await stored_past(runtime, identity)
    await _adopted(runtime, past.transaction)
    return await scorer.decide_recorded(past.transaction, past.computed)


async def stored_past(runtime: LiveRuntime, transaction_id: str) -> StoredPayment:
    """A payment of the history with its features; NotFound where nobody knows the id."""
    if not transaction_id:
        raise NotFound("There is no payment without an id.", remedy="Send the whole transaction.")
    try:
        return await asyncio.to_thread(find_payment, DatasetStore(runtime.settings.home), transaction_id)
    except NotFound as err:
        raise NotFound(
            f"There is no payment {ascii(transaction_id)[1:-1][:80]}.",
            remedy="Send the whole transaction to have it decided.",
        ) from err


async def _adopted(runtime: LiveRuntime, transaction: Transaction) -> None:
    await asyncio.to_thread(runtime.open_ledger().adopt, [transaction])


def _transaction(runtime: LiveRuntime, item: Any, received_at: datetime) -> Transaction:
    if not isinstance(item, Mapping):
        raise InvalidTransaction((Violation("", ascii(item)[:80], "must be an object"),))
    unknown = unknown_fields(item)
    if unknown:
        runtime.metrics.unknown_fields += len(unknown)
    return parse_transaction(item, currency=runtime.settings.currency, received_at=received_at)


def _label(item: Any, known_at: datetime, *, default_author: str) -> Label:
    if not isinstance(item, Mapping):
        raise InvalidTransaction((Violation("", ascii(item)[:80], "must be an object"),))
    return parse_label(item, known_at=known_at, default_author=default_author)


def _label_problem(err: InvalidTransaction) -> Problem:
    problem = problem_for(err)
    problem.title, problem.type = "The label breaks the contract", URN + "invalid-label"
    return problem


def _list(payload: Mapping[str, Any], name: str) -> Sequence[Any]:
    items = payload.get(name)
    if not isinstance(items, list):
        raise Problem(
            422, detail=f"{name} must be a list.", type=URN + "invalid-input",
            extra={"errors": [{"field": name, "value": ascii(items)[:80], "reason": "must be a list"}]},
        )  # fmt: skip
    if len(items) > MAX_BATCH:
        raise Problem(
            413, detail=f"{len(items):,} {name}; at most {MAX_BATCH:,} at once.", type=URN + "batch-too-large"
        )
    return items


def _failed(err: FraudError) -> bytes:
    return orjson.dumps({"error": problem_for(err).as_dict()})
