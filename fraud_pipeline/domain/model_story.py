"""What happened to model versions, in order and in words: promoted, rolled back, watched, in shadow, retrained for a drift. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fraud_pipeline.domain.drift_episode import DriftEpisode
from fraud_pipeline.domain.promotion import Challenger, Promotion, rolled_back_versions


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """One thing that happened, by the machine's clock. `version` is None where it is about none yet."""

    at: datetime
    what: str
    version: int | None
    who: str
    why: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WatchOutcome:
    """How the watch over a promotion ended, or stands."""

    promotion_id: int
    verdict: str
    at: datetime
    evidence: Mapping[str, Any]


def story(
    promotions: Sequence[Promotion],
    watches: Iterable[WatchOutcome] = (),
    challengers: Iterable[Challenger] = (),
    episodes: Iterable[DriftEpisode] = (),
) -> list[StoryEvent]:
    """Everything, the newest first."""
    version_of = {p.promotion_id: p.version for p in promotions}
    events = [_promotion(p) for p in promotions]
    events += [
        StoryEvent(
            w.at, f"watch {w.verdict}", version_of.get(w.promotion_id), "promotion watch", str(w.evidence.get("reason", "")),
            w.evidence,
        )
        for w in watches
    ]  # fmt: skip
    events += [
        StoryEvent(c.appointed_at, "challenger" if c.version is not None else "challenger dismissed", c.version, c.who, c.reason)
        for c in challengers
    ]  # fmt: skip
    for episode in episodes:
        events += [
            StoryEvent(
                a.requested_at, "retraining asked for", episode.champion_version, f"drift episode {episode.episode_id}",
                f"drift as of {a.as_of:%Y-%m-%d}; the run {a.outcome or 'is not over'}",
                {"run_key": a.run_key, "run_id": a.run_id, "outcome": a.outcome},
            )
            for a in episode.attempts
        ]  # fmt: skip
    return sorted(events, key=lambda event: event.at)[::-1]  # of two at one moment the later row comes first, too


def standing(promotions: Sequence[Promotion]) -> dict[int, str]:
    """Of each version that was ever champion what it is now: `champion since ...`, `rolled back ...`, `champion until ...`."""
    taken_back = rolled_back_versions(promotions)
    found: dict[int, str] = {}
    for place, before in enumerate(promotions):
        after = promotions[place + 1] if place + 1 < len(promotions) else None
        if after is None:
            found[before.version] = f"champion since {before.promoted_at:%Y-%m-%d %H:%M} ({before.kind})"
        elif before.version != after.version:
            how = "rolled back" if before.version in taken_back else "champion until"
            found[before.version] = f"{how} {after.promoted_at:%Y-%m-%d %H:%M} by {after.who}"
    return found


def _promotion(promotion: Promotion) -> StoryEvent:
    before = "" if promotion.previous_version is None else f" instead of {promotion.previous_version}"
    return StoryEvent(
        promotion.promoted_at, f"{promotion.kind}{before}", promotion.version, promotion.who, promotion.reason,
        promotion.evidence,
    )  # fmt: skip
