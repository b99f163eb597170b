"""What people are told about, once per episode, and when a delivery that failed is tried again.

An episode is one stretch of trouble (or one event) of one kind: told once when it begins and, where it can end by itself,
once when it ends. Knows neither channels nor where notices are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

Severity = Literal["info", "warning", "critical"]
Kind = Literal[
    "drift", "broken_input", "run_failed", "promotion", "rollback", "gate_failed", "dead_letters", "lag", "degraded",
    "parity", "champion_missing", "watch",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ENDING_KINDS: Final[tuple[Kind, ...]] = (
    "drift", "broken_input", "run_failed", "dead_letters", "lag", "degraded", "parity", "champion_missing",
)  # fmt: skip
"""Stretches of trouble, which end. The others are events: told, and done."""
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The mildest first."""

LONGEST_EPISODE: Final = 160
"""Kind, source and episode are PagerDuty's key of an incident, which has room for 255."""

FIRST_RETRY: Final = timedelta(seconds=15)
"""A receiver that is being restarted is back by then."""
LONGEST_RETRY: Final = timedelta(minutes=30)
"""So that a receiver that was away for hours hears of it soon after it is back, and costs two calls an hour until then."""
LONGEST_RETRY_AFTER: Final = timedelta(hours=2)
"""As long as a receiver may put us off by Retry-After: more is a mistake, or means to silence us."""
JITTER: Final = 0.25
"""Share by which a wait is lengthened at random: many notices that failed at once do not come back at once."""
GIVE_UP_AFTER: Final = timedelta(days=3)
"""A receiver that was away over a weekend still hears; later it is no news, and `fraud notices resend` brings it back."""
NEWS_FOR: Final = timedelta(days=1)
"""A channel that is new gets what was told since yesterday, not the past year's."""
KEPT_FOR: Final = timedelta(days=365)
"""Notices are few; a year of them is what an audit looks back on. One whose episode is open stays."""

_URL_PASSWORD: Final = re.compile(r"(\w+://[^/\s:@]*):[^@\s/]+@")


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `at` is when it was so, by the clock of what it is about (data, or the machine).

    `episode` names the stretch of trouble within its kind: the same kind and episode is told once. `resolves` is that it is
    over; such a notice has the severity of the one that began, so that whoever heard of the one hears of the other.
    `facts` are JSON's scalars and lists of them. Raises ValueError for what no channel could carry.
    """

    kind: Kind
    severity: Severity
    episode: str
    title: str
    text: str
    facts: Mapping[str, Any]
    link: str | None
    at: datetime
    resolves: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of notice: {', '.join(KINDS)}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"{self.severity!r} is no severity: {', '.join(SEVERITIES)}")
        if not 0 < len(self.episode) <= LONGEST_EPISODE or not self.episode.isprintable():
            raise ValueError(f"the episode {self.episode!r} is not 1 to {LONGEST_EPISODE} printable characters")
        if not self.title.strip() or not self.title.isprintable():
            raise ValueError(f"the title {self.title!r} is not one line of text")
        if self.at.tzinfo is None:
            raise ValueError(f"{self.at!r} has no time zone")

    @property
    def key(self) -> str:
        """The same for all that is told of one episode: what receivers fold repeats by."""
        return f"{self.kind}/{self.episode}"

    def over(self, text: str, *, at: datetime, facts: Mapping[str, Any] | None = None) -> Notice:
        """What tells that this episode has ended."""
        return replace(self, title=f"Over: {self.title}", text=text, at=at, facts=dict(facts or {}), resolves=True)


@dataclass(frozen=True, slots=True)
class RecordedNotice:
    """A notice in the outbox; `told_at` is by the machine's clock."""

    notice_id: int
    notice: Notice
    told_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a channel is with a notice. Settled where it was delivered or given up: `next_attempt_at` is then None."""

    notice_id: int
    channel: str
    asked_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None = None
    failed_at: datetime | None = None
    last_error: str | None = None

    @property
    def state(self) -> Literal["delivered", "failed", "waiting", "retrying"]:
        """In one word."""
        if self.delivered_at is not None:
            return "delivered"
        if self.failed_at is not None:
            return "failed"
        return "retrying" if self.attempts else "waiting"


def at_least(severity: Severity) -> tuple[Severity, ...]:
    """This severity and the graver ones."""
    return SEVERITIES[SEVERITIES.index(severity) :]


def next_attempt(
    *, attempts: int, asked_at: datetime, now: datetime, chance: float, retry_after: timedelta | None = None
) -> datetime | None:
    """When to try again after so many failed attempts; None to give up. `chance` is drawn from [0, 1).

    The wait doubles from FIRST_RETRY to LONGEST_RETRY; what the receiver itself asks for (Retry-After) counts where it is
    longer.
    """
    if now - asked_at >= GIVE_UP_AFTER:
        return None
    doublings = min(attempts - 1, math.ceil(math.log2(LONGEST_RETRY / FIRST_RETRY)))
    wait = min(FIRST_RETRY * 2 ** max(0, doublings), LONGEST_RETRY)
    if retry_after is not None:
        wait = max(wait, min(retry_after, LONGEST_RETRY_AFTER))
    return now + wait * (1 + JITTER * chance)


def without_secrets(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Text as it may be logged and kept: one line, without these secrets and without passwords in addresses."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(_URL_PASSWORD.sub(r"\1:***@", printable).split())
