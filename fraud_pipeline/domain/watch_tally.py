"""What a promoted model has answered and what was learned of it, added up part by part. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

SCORE_BINS: Final = 10
"""Of the reference's scores, a tenth in each: the usual number for PSI."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class WatchTally:
    """What was answered and learned since the promotion, added up.

    `compared` of the `decisions` the model before was asked about too; the counts with `both`, `new_only` and `old_only` are of
    those. `held_gain` is the sum of the probabilities of what only the new one blocks: such a payment gets no chargeback, so
    its outcome is never learned. `new_only_frauds` and `old_only_frauds` are known frauds that were not held. What was decided
    without a part of its inputs (`degraded`) says nothing of the model and is only counted.
    """

    decisions: int = 0
    alerts: int = 0
    degraded: int = 0
    compared: int = 0
    both: int = 0
    new_only: int = 0
    old_only: int = 0
    held_gain: float = 0.0
    labelled: int = 0
    labelled_alerts: int = 0
    frauds: int = 0
    caught: int = 0
    new_only_frauds: int = 0
    old_only_frauds: int = 0
    scores: tuple[int, ...] = field(default=(0,) * SCORE_BINS)
    other_scores: tuple[int, ...] = field(default=(0,) * SCORE_BINS)
    first_event: datetime | None = None
    newest_event: datetime | None = None

    @property
    def days(self) -> float:
        """Days of data (by the payments' own time) that the answers span."""
        if self.first_event is None or self.newest_event is None:
            return 0.0
        return max(0.0, (self.newest_event - self.first_event) / _DAY)

    @property
    def alert_share(self) -> float:
        return self.alerts / self.decisions if self.decisions else math.nan

    @property
    def other_alerts(self) -> int:
        """What the champion before would have alerted."""
        return self.both + self.old_only

    def plus(self, other: WatchTally) -> WatchTally:
        """Both together; `other` is the later one."""
        counts: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        bins: dict[str, Any] = {
            name: tuple(a + b for a, b in zip(getattr(self, name), getattr(other, name), strict=True))
            for name in ("scores", "other_scores")
        }
        newest = max((t for t in (self.newest_event, other.newest_event) if t is not None), default=None)
        moments: dict[str, Any] = {"first_event": self.first_event or other.first_event, "newest_event": newest}
        return WatchTally(**counts, **bins, **moments)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        stored = asdict(self)
        return {
            n: v.isoformat() if isinstance(v, datetime) else list(v) if isinstance(v, tuple) else v
            for n, v in stored.items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> WatchTally:
        moments = {
            name: None if stored[name] is None else datetime.fromisoformat(stored[name])
            for name in ("first_event", "newest_event")
        }
        return cls(**{**stored, **moments, **{name: tuple(stored[name]) for name in ("scores", "other_scores")}})


_COUNTS: Final = (
    "decisions", "alerts", "degraded", "compared", "both", "new_only", "old_only", "held_gain", "labelled", "labelled_alerts",
    "frauds", "caught", "new_only_frauds", "old_only_frauds",
)  # fmt: skip


def psi(counts: tuple[int, ...]) -> float:
    """Population stability index of counts against bins that hold equal shares of the reference."""
    n = sum(counts)
    if not n:
        return 0.0
    expected = 1 / len(counts)
    shares = [max(count, 0.5) / n for count in counts]  # an empty bin counts half a payment, so that PSI stays finite
    return sum((share - expected) * math.log(share / expected) for share in shares)
