"""What one look at the platform leaves for the next: samples of counters, and what has been otherwise since when.

Small, as JSON, and dispensable: without it shares and growths begin anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fraud_pipeline.domain.platform_rules import Sample

FORGET_AFTER: Final = timedelta(minutes=5)
"""Nobody looked for longer: what was pending then says nothing of the time between."""


@dataclass(frozen=True, slots=True)
class Memory:
    """By address, and by a condition's key."""

    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    pending: Mapping[str, datetime] = field(default_factory=dict)

    def to_json(self, *, now: datetime) -> str:
        samples = {
            address: [[_seconds(sample.at), dict(sample.values)] for sample in kept]
            for address, kept in self.samples.items()
        }
        pending = {key: _seconds(since) for key, since in self.pending.items()}
        return json.dumps({"at": _seconds(now), "samples": samples, "pending": pending}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None, *, now: datetime) -> Memory:
        """Empty where there is none, where it cannot be read, and where it is of the future (a clock that was set back)."""
        try:
            raw: dict[str, Any] = json.loads(text or "{}")
            at = _moment(raw["at"])
            samples = {
                str(address): tuple(Sample(_moment(when), {str(n): float(v) for n, v in values.items()}) for when, values in kept)
                for address, kept in raw["samples"].items()
            }  # fmt: skip
            pending = {str(key): _moment(since) for key, since in raw["pending"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls()
        if at > now:
            return cls()
        return cls(samples, pending if now - at <= FORGET_AFTER else {})


def _seconds(moment: datetime) -> float:
    return round(moment.timestamp(), 6)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
