"""The handlers that only look: stored decisions, explanations, payments, the model, health, drift."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from fraud_pipeline.adapters.dagster_runs import DagsterRuns
from fraud_pipeline.adapters.explanation_page import exact_explanation, waterfall_png
from fraud_pipeline.adapters.ledger_records import DecisionRecord, RecordedTransaction
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.exact_explanation import ExactExplanation
from fraud_pipeline.domain.promotion import Challenger, Promotion
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import FraudError, InputError, NotFound
from fraud_pipeline.live_runtime import LiveRuntime
from serving.answers import json_bytes, json_response
from serving.model_answers import challenger_health, challenger_model, previous_model, refused_model, served_model
from serving.problems import Problem
from serving.scoring import runtime_of, stored_past

MOST_RECENT: Final = 200
PNG: Final = "image/png"
_DRAWING: Final = asyncio.Semaphore(1)
"""matplotlib holds the interpreter for most of a picture's 0.3 s: two at once would only hold payments up for longer."""


async def stored_decision(request: Request) -> Response:
    """The decision as it was."""
    runtime, identity = runtime_of(request), request.path_params["transaction_id"]
    found = await asyncio.to_thread(runtime.open_ledger().decision, identity)
    if found is None:
        raise NotFound(f"There is no decision about {_shown(identity)}.", remedy="POST /score decides.")
    return json_bytes(found.payload.encode())


async def transaction(request: Request) -> Response:
    """A recorded payment, live or of the history."""
    runtime, identity = runtime_of(request), request.path_params["transaction_id"]
    found = await asyncio.to_thread(runtime.open_ledger().transaction, identity)
    if found is not None:
        return json_response({**as_dict(found.transaction), "received_at": found.received_at, "writer": found.writer})
    past = await stored_past(runtime, identity)
    return json_response({**as_dict(past.transaction), "received_at": None, "writer": "history"})


async def recent(request: Request) -> Response:
    """A customer's newest live payments with what was decided."""
    runtime, customer_id = runtime_of(request), request.path_params["customer_id"]
    limit = _limit(request.query_params.get("limit", "20"))
    found = await asyncio.to_thread(lambda: runtime.open_ledger().recent(customer_id, limit=limit))
    return json_response({"customer_id": customer_id, "transactions": [_with_decision(*each) for each in found]})


async def model(request: Request) -> Response:
    """What decides, since when and why."""
    models = runtime_of(request).models
    if models is None or models.champion is None:
        raise Problem(503, detail=" ".join(runtime_of(request).problems), headers={"Retry-After": "5"})
    return json_response(
        {
            **served_model(models.champion),
            "previous": previous_model(models.previous),
            "refused": refused_model(models.refused),
            "challenger": challenger_model(models),
            "refused_challenger": refused_model(models.refused_challenger),
        }
    )


async def health(request: Request) -> Response:
    """Each thing that the service needs: whether it answers, how quickly, what to do. 503 where a payment is not decided."""
    runtime = runtime_of(request)
    ledger = await asyncio.to_thread(_checked, lambda: runtime.open_ledger().ping())
    models, scorer, problems = runtime.models, runtime.scorer, runtime.problems
    champion = None if models is None else models.champion
    commits = None if scorer is None else scorer.commits
    answer = {
        "status": "unavailable" if problems else ("degraded" if _is_degraded(runtime) else "ok"),
        "problems": list(problems),
        "started_at": runtime.started_at,
        "dependencies": {
            "ledger": {**ledger, "address": None if runtime.ledger is None else runtime.ledger.address},
            "model": {
                "status": "ok" if champion is not None else "missing",
                "version": None if champion is None else champion.bundle.version,
                "refused": None if models is None else refused_model(models.refused),
                "remedy": "" if champion is not None else "Train and promote one: `fraud run`.",
            },
            "challenger": challenger_health(runtime),
            "state": _state(runtime),
            **await asyncio.to_thread(runtime.more_health),
            "journal": {
                "entries": 0 if commits is None else commits.journalled,
                "last_error": "" if commits is None else commits.last_error,
            },
        },
    }
    return json_response(answer, status=503 if problems else 200)


async def explain(request: Request) -> Response:
    """Why a payment was decided as it was: exact Shapley values of the logged vector, as JSON or as a waterfall."""
    runtime, identity = runtime_of(request), request.path_params["transaction_id"]
    record = await asyncio.to_thread(runtime.open_ledger().decision, identity)
    if record is None:
        raise NotFound(f"There is no decision about {_shown(identity)}.", remedy="POST /score decides.")
    explanation = await asyncio.to_thread(_explained, runtime, record)
    if PNG in request.headers.get("accept", ""):
        async with _DRAWING:
            return Response(await asyncio.to_thread(waterfall_png, explanation), media_type=PNG)
    return json_response({"transaction_id": identity, "decision": record.decision, **explanation.as_dict()})


async def drift_status(request: Request) -> Response:
    """The newest drift report's numbers."""
    return json_response(await asyncio.to_thread(runtime_of(request).drift_results().status))


async def drift_stats(request: Request) -> Response:
    """The reports and episodes so far."""
    return json_response(await asyncio.to_thread(runtime_of(request).drift_results().stats))


async def drift_run(request: Request) -> Response:
    """Have Dagster look for drift now."""
    runs = DagsterRuns(runtime_of(request).settings.dagster_url)
    caller = getattr(request.state, "api_key", None)
    started = await asyncio.to_thread(runs.start, requested_by=getattr(caller, "name", "unknown"))
    return json_response(asdict(started), status=202)


async def drift_report(request: Request) -> Response:
    """The newest report's page, or the one that `report` names."""
    named = request.query_params.get("report")
    path = await asyncio.to_thread(runtime_of(request).drift_results().report_path, named)
    return HTMLResponse(await asyncio.to_thread(path.read_bytes))


HANDLERS: Final = {
    "stored_decision": stored_decision,
    "transaction": transaction,
    "recent": recent,
    "model": model,
    "health": health,
    "explain": explain,
    "drift_status": drift_status,
    "drift_stats": drift_stats,
    "drift_run": drift_run,
    "drift_report": drift_report,
}


def _explained(runtime: LiveRuntime, record: DecisionRecord) -> ExactExplanation:
    vector = np.frombuffer(record.features, dtype="<f4")
    return exact_explanation(_deciding_bundle(runtime, record.model_version), vector)


def _deciding_bundle(runtime: LiveRuntime, version: str) -> ModelBundle:
    """The bundle that decided: loaded already, or fetched by its version."""
    models = runtime.models
    served = () if models is None else (models.champion, models.previous, models.challenger)
    for each in served:
        if each is not None and each.bundle.version == version:
            return each.bundle
    ledger = runtime.open_ledger()
    known: list[Challenger | Promotion] = [*ledger.challengers(), *ledger.promotions()]
    fingerprint = {str(row.version): row.fingerprint for row in known}.get(version)
    if models is None or fingerprint is None:
        raise NotFound(
            f"The model of version {version[:40]} is not at hand.", remedy="`fraud explain` may still have it."
        )
    return ModelBundle.load(models.fetch(int(version), fingerprint), version=version)


def as_dict(payment: Transaction) -> dict[str, Any]:
    """A payment as the contract has it: an amount with two decimals."""
    fields = {name: getattr(payment, name) for name in Transaction.__dataclass_fields__ if name != "amount_minor"}
    amount = f"{payment.amount_minor // 100}.{payment.amount_minor % 100:02d}"
    return {**fields, "amount": amount, "attributes": dict(payment.attributes)}


def _with_decision(payment: RecordedTransaction, record: DecisionRecord | None) -> dict[str, Any]:
    decided = (
        {}
        if record is None
        else {
            "decision": record.decision,
            "fraud_probability": record.fraud_probability,
            "model_version": record.model_version,
        }
    )
    return {**as_dict(payment.transaction), "received_at": payment.received_at, **decided}


def _state(runtime: LiveRuntime) -> dict[str, Any]:
    scorer = runtime.scorer
    if scorer is None or scorer.live is None:
        return {"status": "missing", "remedy": "It is recovered from the ledger; `problems` says how far."}
    counts = scorer.live.state.counts()
    return {
        "status": "ok" if not scorer.gate.problem else "rebuilding",
        "history": scorer.live.history,
        "events": counts.events,
        "labels": counts.labels,
        "late_events": counts.late_events,
        "customers": counts.customers,
        "watermark": counts.watermark,
        "bytes": counts.bytes,
    }


def _is_degraded(runtime: LiveRuntime) -> bool:
    models = runtime.models
    refused = models is not None and (models.refused is not None or models.refused_challenger is not None)
    return refused or bool(runtime.lacking)


def _checked(probe: Callable[[], None]) -> dict[str, Any]:
    """A dependency's state: whether it answers, its latency, what to do."""
    started = time.perf_counter()
    try:
        probe()
    except FraudError as err:
        return {"status": "away", "error": err.message, "remedy": err.remedy}
    return {"status": "ok", "latency_ms": round((time.perf_counter() - started) * 1e3, 3)}


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_RECENT:
        raise InputError(f"limit is {text[:20]!r}; it must be from 1 to {MOST_RECENT}.")
    return int(text)


def _shown(identity: str) -> str:
    return ascii(identity)[1:-1][:80]
