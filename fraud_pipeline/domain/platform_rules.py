"""When a service, a scorer or a sink is in trouble, by what its metrics page says.

Judges numbers: where they come from, and what the metrics are called, is an adapter's. Shares and growths are taken over the
samples of the last ten minutes, as Prometheus' `increase` does: a counter that restarts counts from zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, Literal

from fraud_pipeline.domain.notice import RecordedNotice
from fraud_pipeline.domain.notice_conditions import Condition, subject_of

WINDOW: Final = timedelta(minutes=10)
"""What growths and shares are taken over: long enough for a share, short enough to wake somebody in time."""
SAMPLE_EVERY: Final = timedelta(minutes=1)
"""As dense as samples are kept: eleven numbers each cover the window."""
AWAY_FOR: Final = timedelta(seconds=90)
"""A process that is replaced loads a model in less; a page that a busy process answers late is no outage."""
LAGS_FOR: Final = timedelta(minutes=2)
"""A backlog that a scorer works off by itself is gone by then."""
CLEAR_FOR: Final = timedelta(minutes=3)
"""So that what comes and goes is one episode, not ten."""
STUCK_LEAST: Final = 100
"""Records behind that count as standing still where none is taken: markers of transactions are never taken, one a partition."""
LEAST_DECISIONS: Final = 200
"""Fewer say nothing of a share."""

Role = Literal["service", "scorer", "sink"]


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on it is told. Settings FRAUD_WATCH_*."""

    lag: int = 100_000
    dead_letters: int = 10
    degraded_share: float = 0.01


@dataclass(frozen=True, slots=True)
class Figures:
    """What one page said, in one process's terms; NaN-free. A figure that the process does not have is absent."""

    role: Role
    values: Mapping[str, float]

    def get(self, name: str) -> float:
        return self.values.get(name, 0.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of a moment."""

    at: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """One watched address: what it says now (None: `problem` says why not), and its samples before, oldest first."""

    address: str
    figures: Figures | None
    problem: str
    past: tuple[Sample, ...] = ()

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{self.figures.role} at {self.address}" if self.figures else self.address


def keep(past: Sequence[Sample], values: Mapping[str, float], *, now: datetime) -> tuple[Sample, ...]:
    """The samples to go on with: those of the window, and now's where the last one is old enough."""
    kept = [sample for sample in past if now - WINDOW <= sample.at <= now]
    if not kept or now - kept[-1].at >= SAMPLE_EVERY:
        kept.append(Sample(now, dict(values)))
    return tuple(kept)


def increase(past: Sequence[Sample], values: Mapping[str, float], name: str) -> float:
    """How much a counter grew from the oldest sample until now; after a restart from zero."""
    series = [sample.values.get(name, 0.0) for sample in past] + [values.get(name, 0.0)]
    return sum(later - earlier if later >= earlier else later for earlier, later in pairwise(series))


def judge_target(target: Target, *, limits: Limits, now: datetime) -> Iterator[Condition]:
    """Every condition of one address that can be judged now."""
    yield _away(target, now)
    figures = target.figures
    if figures is None:
        return
    if figures.role == "service":
        yield _stores(target, figures, now)
    else:
        yield _lag(target, figures, limits, now)
        yield _dead_letters(target, figures, limits, now)
    if figures.role != "sink":
        yield from _degraded(target, figures, limits, now)


def no_longer_watched(
    opened: Iterable[RecordedNotice], addresses: Collection[str], *, now: datetime
) -> list[Condition]:
    """Ends what was told of an address that is not watched any more: nobody would ever see it end."""
    return [
        Condition(each.notice.kind, subject_of(each.notice), False, at=now, text="Its address is no longer watched.")
        for each in opened
        if "address" in each.notice.facts and each.notice.facts["address"] not in addresses
    ]


def _away(target: Target, now: datetime) -> Condition:
    not_ready = target.figures is not None and target.figures.values.get("ready", 1.0) < 1.0
    trouble = "says that it is not ready" if not_ready else f"does not answer: {target.problem}"
    return Condition(
        "degraded",
        f"away:{target.address}",
        target.figures is None or not_ready,
        at=now,
        severity="critical",
        title=f"{target.name} {'is not ready' if not_ready else 'does not answer'}",
        text=f"{target.name} {trouble}." if target.figures is None or not_ready else f"{target.name} answers again.",
        facts={"address": target.address},
        begins_after=AWAY_FOR,
    )


def _lag(target: Target, figures: Figures, limits: Limits, now: datetime) -> Condition:
    lag = figures.get("lag")
    taken = increase(target.past[-2:], figures.values, "taken")
    stuck = lag >= STUCK_LEAST and bool(target.past) and taken == 0
    how = "takes none of them" if stuck else f"took {taken:,.0f} since the last look but one"
    return Condition(
        "lag",
        target.address,
        lag > limits.lag or stuck,
        at=now,
        severity="critical" if stuck else "warning",
        title=f"The {target.name} {'stands still' if stuck else 'falls behind'}",
        text=f"The {target.name} is {lag:,.0f} records behind the end of its log and {how}.",
        facts={"address": target.address, "lag": lag, "limit": limits.lag},
        begins_after=LAGS_FOR,
        ends_after=CLEAR_FOR,
    )


def _dead_letters(target: Target, figures: Figures, limits: Limits, now: datetime) -> Condition:
    new = increase(target.past, figures.values, "dead_letters")
    minutes = WINDOW.total_seconds() / 60
    return Condition(
        "dead_letters",
        target.address,
        new >= limits.dead_letters,
        at=now,
        title=f"Dead letters grow at the {target.name}",
        text=f"The {target.name} has set aside {new:,.0f} messages within {minutes:.0f} minutes; `fraud dlq list` shows them.",
        facts={"address": target.address, "new": new, "limit": limits.dead_letters},
        ends_after=WINDOW,
    )


def _degraded(target: Target, figures: Figures, limits: Limits, now: datetime) -> Iterator[Condition]:
    decisions = increase(target.past, figures.values, "decisions")
    if decisions < LEAST_DECISIONS:
        return
    share = increase(target.past, figures.values, "degraded") / decisions
    yield Condition(
        "degraded",
        f"decisions:{target.address}",
        share >= limits.degraded_share,
        at=now,
        title=f"The {target.name} decides without all that it should have",
        text=f"{share:.1%} of {decisions:,.0f} decisions within ten minutes lacked something (`degraded` in each says what).",
        facts={"address": target.address, "share": round(share, 4), "limit": limits.degraded_share},
        ends_after=CLEAR_FOR,
    )


def _stores(target: Target, figures: Figures, now: datetime) -> Condition:
    is_replica = "log_away" in figures.values  # a replica's journal always holds what is on its way
    waiting = figures.get("journal")
    away = figures.get("log_away") > 0 if is_replica else waiting > 0
    system = "Kafka" if is_replica else "the ledger"
    return Condition(
        "degraded",
        f"stores:{target.address}",
        away,
        at=now,
        title=f"The {target.name} cannot hand on its decisions",
        text=(
            f"The {target.name} does not reach {system}: {waiting:,.0f} decisions wait in its own journal."
            if away
            else f"The {target.name} reaches {system} again."
        ),
        facts={"address": target.address, "waiting": waiting},
        begins_after=LAGS_FOR,
        ends_after=CLEAR_FOR,
    )
