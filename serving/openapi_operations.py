"""What each route does, takes and answers, in words and examples; `openapi` makes the document from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from serving import openapi_examples as examples
from serving import openapi_state_examples as states
from serving.openapi_answers import ref

Examples = Callable[[datetime], Mapping[str, Any]]
MAX_RECENT: Final = 200


def _nothing(_now: datetime) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. `body` and `schema` name components; `sent` and `received` are examples by name.

    `statuses` are those beyond what every route of its kind can answer; `media` are further types of the answer.
    `unavailable`: its 503 has the body of its 200.
    """

    tag: str
    summary: str
    description: str
    answer: str
    schema: str = ""
    body: str = ""
    sent: Examples = _nothing
    received: Examples = _nothing
    statuses: tuple[int, ...] = ()
    parameters: tuple[Mapping[str, Any], ...] = ()
    media: Mapping[str, Any] | None = None
    success: int = 200
    unavailable: bool = False

    def content(self, now: datetime) -> Mapping[str, Any]:
        """The answer's media types."""
        named = {name: {"value": value} for name, value in self.received(now).items()}
        plain = {"application/json": {"schema": ref(self.schema), "examples": named}} if self.schema else {}
        return {**plain, **(self.media or {})}


def _media(media_type: str, example: str, schema: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    return {media_type: {"schema": dict(schema or {"type": "string"}), "example": example}}


LIMIT: Final = {
    "name": "limit",
    "in": "query",
    "required": False,
    "description": "How many, at most.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_RECENT, "default": 20},
    "example": 5,
}
DRIFT_REPORT: Final = {
    "name": "report",
    "in": "query",
    "required": False,
    "description": "An earlier report by its name: its day and the champion's version.",
    "schema": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}-version-\d+$"},
    "example": "2026-03-08-version-3",
}
PNG: Final = {"image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}}}
OPERATIONS: Final[Mapping[str, Operation]] = {
    "livez": Operation(
        "operation", "Is the process alive?", "", "It is.", media=_media("text/plain", ""),
    ),
    "readyz": Operation(
        "operation", "Is a champion loaded and warm?", "503 until it is.", "It is.", media=_media("text/plain", ""),
    ),
    "openapi": Operation(
        "operation", "This document", "", "OpenAPI 3.1.",
        media={"application/json": {"schema": {"type": "object", "required": ["openapi", "paths"]}}},
    ),
    "score": Operation(
        "decisions", "Decide one payment",
        "The transaction whole, or by the id alone of one that is recorded already. Answered once and kept: the same "
        "transaction again gets the same bytes, after a restart too.",
        "The decision.", schema="Decision", body="ScoreRequest", statuses=(404, 409),
        sent=lambda now: {
            "usual_purchase": examples.transaction(now),
            "far_away_at_night": examples.suspicious(now),
            "by_id_alone": {"transaction_id": examples.CODE},
        },
        received=lambda now: {"approved": examples.approval(now), "blocked": examples.block(now)},
    ),
    "score_batch": Operation(
        "decisions", "Decide many payments",
        "Up to 5,000, each like a body of `POST /score`. They are decided in event order and answered in the order given; one "
        "that is broken gets an error and spoils no other.",
        "A result for each.", schema="BatchResult", body="BatchRequest",
        sent=lambda now: {"two": {"transactions": [examples.transaction(now), examples.suspicious(now)]}},
        received=lambda now: {"one_broken": {"results": [{"decision": examples.approval(now)}, {"error": examples.broken_fields()}]}},
    ),
    "stored_decision": Operation(
        "decisions", "A decision as it was", "The bytes that were answered.", "The decision.",
        schema="Decision", statuses=(404,), received=lambda now: {"blocked": examples.block(now)},
    ),
    "explain": Operation(
        "decisions", "Why a payment got its score",
        "Exact tree SHAP of the logged input under the model that decided. `Accept: image/png` gives a waterfall plot.",
        "Contributions that add up to the raw score.", schema="Explanation", statuses=(404,),
        media=PNG, received=lambda _: {"blocked": examples.explanation()},
    ),
    "labels": Operation(
        "labels", "Say what was fraud and what was not",
        "One label or up to 5,000. They are kept for ever, corrected by later ones, and feed the features; a label for a "
        "transaction that has not been seen waits for it. A repeat changes nothing.",
        "What became of them.", schema="LabelResult", body="LabelRequest",
        sent=lambda _: {"chargeback": examples.label(), "two": {"labels": [examples.label(), examples.cleared()]}},
        received=lambda _: {"recorded": examples.label_result()},
    ),
    "transaction": Operation(
        "decisions", "A recorded transaction", "", "The transaction as it was recorded.",
        schema="RecordedTransaction", statuses=(404,), received=lambda now: {"usual": examples.recorded(now)},
    ),
    "recent": Operation(
        "decisions", "A customer's newest transactions", "", "Newest first.", schema="Recent",
        statuses=(404, 422), parameters=(LIMIT,), received=lambda now: {"one": examples.recent(now)},
    ),
    "model": Operation(
        "model", "The model that decides", "Version, schema, metrics, thresholds; promoted when and by whom.", "The model.",
        schema="Model", received=lambda now: {"champion": states.model(now)},
    ),
    "health": Operation(
        "operation", "Every dependency", "With its latency and what to do; 503 with the same body where no payment would be decided.",
        "The state of each.", schema="Health", received=lambda now: {"well": states.health(now)}, unavailable=True,
    ),
    "metrics": Operation(
        "operation", "Prometheus metrics", "", "The text format.",
        media=_media("text/plain", 'fraud_decisions_total{decision="APPROVE",model_version="3"} 1024.0\n'),
    ),
    "drift_status": Operation(
        "model", "Has the world changed?", "The newest drift report in figures.", "The verdict.", schema="DriftStatus",
        statuses=(404,), received=lambda now: {"stable": states.drift_status(now)},
    ),
    "drift_stats": Operation(
        "model", "Drift over time", "", "Figures of the newest reports.", schema="DriftStats", statuses=(404,),
        received=lambda now: {"one_report": states.drift_stats(now)},
    ),
    "drift_run": Operation(
        "model", "Judge drift now", "Starts the Dagster job; 503 with the reason where no Dagster answers.",
        "The run that was started.", schema="DriftRun", success=202, received=lambda _: {"started": states.drift_run()},
    ),
    "drift_report": Operation(
        "model", "The newest drift report as a page, or an earlier one", "", "HTML.", statuses=(404,),
        parameters=(DRIFT_REPORT,), media=_media("text/html", "<!doctype html><title>Drift</title>"),
    ),
}  # fmt: skip
