"""One version of the registered model, as the tags of MLflow tell it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

from fraud_pipeline.domain.promotion import GateEvidence

Verdict = Literal["passed", "failed", "unjudged"]


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version: its content's fingerprint, what the gates said of it, and the evaluation model's metrics.

    `metrics` are by name: value and 95 % interval, or a bare number. `source` is MLflow's artifact address.
    """

    version: int
    fingerprint: str
    verdict: Verdict
    reason: str
    gates: GateEvidence | None
    metrics: Mapping[str, Any]
    aliases: tuple[str, ...]
    run_id: str
    created_at: datetime
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, version: Any, *, aliases: tuple[str, ...]) -> RegisteredVersion:
        """From MLflow's ModelVersion. A version that somebody registered by hand lacks our tags and stays "unjudged"."""
        tags = dict(version.tags)
        return cls(
            version=int(version.version),
            fingerprint=tags.get("fingerprint", ""),
            verdict=cast(Verdict, tags.get("verdict", "unjudged")),
            reason=tags.get("reason", ""),
            gates=_evidence(tags.get("gates")),
            metrics=_json_object(tags.get("metrics")),
            aliases=aliases,
            run_id=version.run_id or "",
            created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            source=version.source,
            tags=tags,
        )

    @property
    def training_window(self) -> str:
        """First and last day of the served model's training, `2026-01-01..2026-03-01`."""
        return self.tags.get("training_window", "")

    def metric(self, name: str) -> float | None:
        """The value of a metric, without its interval."""
        found = self.metrics.get(name)
        return found.get("value") if isinstance(found, Mapping) else found


def _evidence(text: str | None) -> GateEvidence | None:
    """Unreadable evidence is no evidence: a promotion is then refused for want of it."""
    try:
        return None if text is None else GateEvidence.from_json(text)
    except ValueError:
        return None


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
