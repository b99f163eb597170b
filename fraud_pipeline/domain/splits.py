"""Which days train, validate and test, as of a moment A.

    first day ... | warm-up | training | gap M | validation V | test T | M days until A

Nothing here reads a clock: A is an argument. All days are UTC days, ranges end before their `end`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import date, timedelta

import numpy as np

from fraud_pipeline.domain.learning_data import US_PER_DAY, LearningData
from fraud_pipeline.errors import TrainingDataError

LABEL_MATURITY_DAYS = 7
"""M: without a label for so long, a payment counts as legitimate."""

SHORTEST_PERIOD_DAYS = 7  # a whole week, so that no weekday is missing
LONGEST_PERIOD_DAYS = 90
"""Four weeks suffice for most; 90 days are for a small company with a fraud or two a day."""
FRAUDS_PER_PERIOD = 100
"""Fewer, and the interval of average precision is wider than the differences that the gates must see."""

WARM_UP_DAYS = 30
"""The features' longest rolling window: before, a 30-day count measures the length of the history and not the
customer.
"""

SHORTEST_TRAINING_DAYS = 7

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class DayRange:
    """Days from `start` up to and without `end`."""

    start: date
    end: date

    @property
    def days(self) -> int:
        return (self.end - self.start).days

    def mask(self, event_time: np.ndarray) -> np.ndarray:
        """Which of these event times (int64 us, UTC) fall in the range."""
        return (event_time >= midnight_us(self.start)) & (event_time < midnight_us(self.end))

    def __str__(self) -> str:
        return f"{self.start} to {self.end - timedelta(days=1)} ({self.days} days)"


@dataclass(frozen=True)
class Split:
    """The periods of one training. `refit` runs from the training's first day to A-M: what the served model learns
    from.
    """

    as_of: date
    warm_up_days: int
    train: DayRange
    validation: DayRange
    test: DayRange

    @property
    def refit(self) -> DayRange:
        return DayRange(self.train.start, self.test.end)

    @property
    def out_of_time(self) -> DayRange:
        """Validation and test together: days that the evaluation model was not fitted on."""
        return DayRange(self.validation.start, self.test.end)

    @property
    def reference(self) -> DayRange:
        """The newest 7 mature days: the drift reference."""
        return DayRange(self.test.end - timedelta(days=SHORTEST_PERIOD_DAYS), self.test.end)

    def as_dict(self) -> dict[str, object]:
        """JSON-able: dates as ISO strings."""
        ranges = {name: asdict(getattr(self, name)) for name in ("train", "validation", "test", "refit", "reference")}
        text = {name: {edge: day.isoformat() for edge, day in pair.items()} for name, pair in ranges.items()}
        return {"as_of": self.as_of.isoformat(), "warm_up_days": self.warm_up_days, **text}


def midnight_us(day: date) -> int:
    """Microseconds from the epoch to the UTC midnight that begins `day`."""
    return (day - _EPOCH).days * US_PER_DAY


def plan_split(
    days: np.ndarray,
    frauds_per_day: np.ndarray,
    *,
    as_of: date,
    maturity_days: int = LABEL_MATURITY_DAYS,
    shortest_days: int = SHORTEST_PERIOD_DAYS,
    longest_days: int = LONGEST_PERIOD_DAYS,
    frauds_needed: int = FRAUDS_PER_PERIOD,
    warm_up_days: int = WARM_UP_DAYS,
) -> Split:
    """The split as of `as_of`'s midnight, from the days of the history (datetime64[D]) and the frauds of each as
    known then.

    Test and validation grow from `shortest_days` to `longest_days` until each holds `frauds_needed` frauds. The
    warm-up shrinks before anything fails: it takes at most half of the days before the gap, and less until training
    holds 7 days and `frauds_needed` frauds. TrainingDataError says how many days or frauds are missing.
    """
    frauds = _Frauds.of(days, frauds_per_day, before=as_of - timedelta(days=maturity_days))
    lengths = range(shortest_days, longest_days + 1)
    test = _grow(frauds, frauds.end, "test", lengths=lengths, needed=frauds_needed)
    validation = _grow(frauds, test.start, "validation", lengths=lengths, needed=frauds_needed)
    train_end = validation.start - timedelta(days=maturity_days)
    available = (train_end - frauds.start).days
    if available < SHORTEST_TRAINING_DAYS:
        raise _days_missing(frauds, SHORTEST_TRAINING_DAYS - available, "training (after test, validation and the gap)")
    warm_up = min(warm_up_days, available // 2, available - SHORTEST_TRAINING_DAYS)
    while warm_up > 0 and frauds.between(frauds.start + timedelta(days=warm_up), train_end) < frauds_needed:
        warm_up -= 1
    train = DayRange(frauds.start + timedelta(days=warm_up), train_end)
    found = frauds.between(train.start, train.end)
    if found < frauds_needed:
        raise _days_missing(
            frauds, frauds.days_for(frauds_needed - found), f"training ({found} of {frauds_needed} frauds)"
        )
    return Split(as_of=as_of, warm_up_days=warm_up, train=train, validation=validation, test=test)


def split_data(data: LearningData, *, as_of: date, **limits: int) -> Split:
    """`plan_split` for these payments, with their labels as known at `as_of`; `limits` are those of `plan_split`."""
    days, frauds = data.as_known_at(midnight_us(as_of)).frauds_by_day()
    return plan_split(days, frauds, as_of=as_of, **limits)


@dataclass(frozen=True)
class _Frauds:
    """Frauds by day from `start` up to and without `end`, both inside the history."""

    start: date
    end: date
    cumulative: np.ndarray  # [days + 1]

    @classmethod
    def of(cls, days: np.ndarray, frauds_per_day: np.ndarray, *, before: date) -> _Frauds:
        days = np.asarray(days, dtype="datetime64[D]")
        if len(days) != len(frauds_per_day):
            raise TrainingDataError(
                f"{len(days)} days and {len(frauds_per_day)} counts of frauds were given.", remedy="Give one a day."
            )
        kept = days < np.datetime64(before)
        if not kept.any():
            raise TrainingDataError(
                f"There is no payment before {before}, the newest day whose labels are mature.",
                remedy="Simulate or import an older history, or choose a later as-of date.",
            )
        first = days[kept].min()
        # The history ends where its payments end: days without any at its end (an as-of date far ahead) would be
        # tested on emptily.
        span = int((days[kept].max() - first).astype(int)) + 1
        counts = np.bincount((days[kept] - first).astype(int), weights=np.asarray(frauds_per_day)[kept], minlength=span)
        start = first.astype(object)
        return cls(start, start + timedelta(days=span), np.r_[0, np.cumsum(counts)].astype(np.int64))

    def between(self, start: date, end: date) -> int:
        return int(self.cumulative[(end - self.start).days] - self.cumulative[(start - self.start).days])

    def days_for(self, frauds: int) -> int:
        """How many more days would bring so many frauds, at the history's rate."""
        total = int(self.cumulative[-1])
        return math.ceil(frauds * (len(self.cumulative) - 1) / total) if total else frauds


def _grow(frauds: _Frauds, end: date, name: str, *, lengths: range, needed: int) -> DayRange:
    available = (end - frauds.start).days
    shortest, longest = lengths.start, lengths.stop - 1
    found = 0
    for length in lengths[: max(0, available - shortest + 1)]:
        start = end - timedelta(days=length)
        found = frauds.between(start, end)
        if found >= needed:
            return DayRange(start, end)
    if available < shortest:
        raise _days_missing(frauds, shortest - available, name)
    if available < longest:
        raise _days_missing(
            frauds, frauds.days_for(needed - found), f"{name} ({found} of {needed} frauds in {available} days)"
        )
    raise TrainingDataError(
        f"The {name} period holds {found} known frauds in its longest {longest} days (up to {end - timedelta(days=1)}); "
        f"{needed} are needed, {needed - found} are missing.",
        remedy="Check that the labels have arrived, import more payments, or let the periods be longer "
        "(FRAUD_MAX_PERIOD_DAYS) or hold fewer frauds (FRAUD_MIN_PERIOD_FRAUDS).",
    )


def _days_missing(frauds: _Frauds, days: int, what: str) -> TrainingDataError:
    have = (frauds.end - frauds.start).days
    return TrainingDataError(
        f"{days} more day{'' if days == 1 else 's'} of history with frauds are needed for {what}: "
        f"there are {have} mature days ({frauds.start} to {frauds.end - timedelta(days=1)}) with {int(frauds.cumulative[-1])} frauds.",
        remedy="Simulate or import a longer history (the demo has 120 days), or one with more frauds a day.",
    )
