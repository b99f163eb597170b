"""Every feature once more in slow, obvious Python: the judge of the compiled kernels.

Written from the semantics page alone (docs/features.md, "Semantics") by someone who had not read the kernels. Each family
is brute force over the log before the event, so each value costs a pass over the whole prefix, and nothing is kept from one
event to the next that could go stale. It must never import a kernel; the spec gives it the names and the prior, no more.

Times are int microseconds since 1970 in UTC, amounts int minor units, missing is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NAN = math.nan
WINDOWS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
SHARED_WINDOW_HOURS = {"24h": 24, "7d": 168, "30d": 720}
MATURITY_HOURS = 168
FRAUD_LABEL_HOURS = 28 * 24
HORIZON = 90 * DAY
KEPT_EVENTS = 1_024
DEVICE_CUSTOMERS = 64
EARTH_RADIUS_KM = 6371.0088
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Payment:
    """What the features read of a transaction."""

    time: int
    customer: str
    merchant: str = "m0"
    amount_minor: int = 1_000
    category: str = "unknown"
    channel: str = "unknown"
    country: str | None = None
    device: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A label's change (+1, 0, -1 fraud) that became known at `known_at`, about a payment made at `event_time`."""

    known_at: int
    event_time: int
    change: int = 1
    merchant: str = "m0"
    category: str = "unknown"
    channel: str = "unknown"
    country: str | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """A payment after it was applied: own time `t`, minute `minute` of the shared aggregates."""

    payment: Payment
    t: int
    minute: int


@dataclass(frozen=True, slots=True)
class AppliedChange:
    """A label change after it was applied: its minute, the matured hour `event_hour` and `known_hour`."""

    change: Change
    minute: int
    event_hour: int
    known_hour: int


@dataclass(frozen=True, slots=True)
class View:
    """What one payment may read: itself, its own time, its customer's past, and the shared minutes up to `last_minute`."""

    payment: Payment
    t: int
    own: list[Applied]
    kept: list[Applied]
    readable: list[Applied]
    labels: list[AppliedChange]
    read_time: int
    hour: int
    time_zone: str
    prior_strength: float
    prior_rate: float


def places_of(payments: Sequence[Payment], changes: Sequence[Change]) -> list[int]:
    """Where each label stands in a history: before the first payment with event_time >= known_at, else at the end."""
    return [next((i for i, p in enumerate(payments) if p.time >= c.known_at), len(payments)) for c in changes]


def log_of(
    payments: Sequence[Payment], changes: Sequence[Change], places: Sequence[int] | None = None
) -> list[Payment | Change]:
    """One log: each label before the payment at its place (a served log keeps the places, a history has those above)."""
    places = places_of(payments, changes) if places is None else places
    log: list[Payment | Change] = []
    for i in range(len(payments) + 1):
        log += [c for c, place in zip(changes, places, strict=True) if place == i]
        log += payments[i : i + 1]
    return log


def apply_log(log: Sequence[Payment | Change | int]) -> list[Applied | AppliedChange]:
    """Where each entry of one writer's log counts; entry i depends on entries 0 to i only.

    A number in the log is no entry: there the clock closed the minutes up to it.
    """
    applied: list[Applied | AppliedChange] = []
    watermark: int | None = None
    clock: int | None = None
    newest: dict[str, int] = {}
    for entry in log:
        if isinstance(entry, int):
            closed_for_all = (entry + 2) * MINUTE  # the earliest watermark with which that minute is closed
            clock = closed_for_all if clock is None else max(clock, closed_for_all)
        elif isinstance(entry, Payment):
            newest[entry.customer] = t = max(entry.time, newest.get(entry.customer, entry.time))
            watermark = entry.time if watermark is None else max(watermark, entry.time)
            applied.append(Applied(entry, t, max(entry.time // MINUTE, _oldest_open(watermark, clock))))
        else:
            minute = entry.known_at // MINUTE
            if watermark is not None or clock is not None:
                minute = max(minute, _oldest_open(watermark, clock))
            applied.append(AppliedChange(entry, minute, entry.event_time // HOUR + MATURITY_HOURS, minute // 60))
    return applied


def _oldest_open(watermark: int | None, clock: int | None) -> int:
    return (max(each for each in (watermark, clock) if each is not None) - 60 * SECOND) // MINUTE


def view_of(
    before: Sequence[Applied | AppliedChange],
    payment: Payment,
    *,
    prior_strength: float,
    prior_rate: float,
    time_zone: str = "UTC",
    everyone: Sequence[Applied | AppliedChange] | None = None,
) -> View:
    """What `payment` may read of its writer's log before it; of shared minutes, of `everyone`'s whole logs where given."""
    events = [a for a in before if isinstance(a, Applied)]
    mine = [a for a in events if a.payment.customer == payment.customer]
    t = max([payment.time] + [a.t for a in mine])
    own: list[Applied] = []
    for event in mine:
        if own and event.t - own[-1].t > HORIZON:
            own = []
        own.append(event)
    if own and t - own[-1].t > HORIZON:
        own = []
    kept = [a for a in own[-KEPT_EVENTS:] if a.t > t - 30 * DAY]
    watermark = max([a.payment.time for a in events], default=None)
    read_time = t if watermark is None else max(t, watermark - 600 * SECOND)
    last_minute = (read_time - 120 * SECOND) // MINUTE - 1
    shared = before if everyone is None else everyone
    return View(
        payment=payment,
        t=t,
        own=own,
        kept=kept,
        readable=[a for a in shared if isinstance(a, Applied) and a.minute <= last_minute],
        labels=[a for a in shared if isinstance(a, AppliedChange) and a.minute <= last_minute],
        read_time=read_time,
        hour=(last_minute + 1) // 60,
        time_zone=time_zone,
        prior_strength=prior_strength,
        prior_rate=prior_rate,
    )


def ratio(numerator: float, denominator: float) -> float:
    """NaN where either is missing or the denominator is 0."""
    return numerator / denominator if denominator != 0 else NAN


def mean_of(minor: Sequence[int]) -> float:
    """Mean in major units, NaN of nothing."""
    return (sum(minor) / 100) / len(minor) if minor else NAN


def max_of(minor: Sequence[int]) -> float:
    """Maximum in major units, NaN of nothing."""
    return max(minor) / 100 if minor else NAN


def amount_features(view: View) -> dict[str, float]:
    """amount: the payment's own, and against the customer's kept 30 days and the merchant's 30 days."""
    amount = view.payment.amount_minor / 100
    kept = [a.payment.amount_minor for a in view.kept]
    at_merchant = [a.payment.amount_minor for a in _window(view, _same_merchant(view), 720)]
    return {
        "amount": amount,
        "amount_log": math.log1p(amount),
        "amount_is_round": float(view.payment.amount_minor % 100 == 0),
        "amount_zscore_30d": zscore(view.payment.amount_minor, kept),
        "amount_to_customer_mean_30d": ratio(amount, mean_of(kept)),
        "amount_to_merchant_mean_30d": ratio(amount, mean_of(at_merchant)),
    }


def zscore(amount_minor: int, kept: Sequence[int]) -> float:
    """Population z-score in minor units, so that a constant history has a deviation of exactly 0."""
    if len(kept) < 2:
        return NAN
    mean = sum(kept) / len(kept)
    squares = 0.0
    for value in kept:
        squares += (value - mean) ** 2
    return ratio(amount_minor - mean, math.sqrt(squares / len(kept)))


def velocity_features(view: View) -> dict[str, float]:
    """velocity: the customer's payments in (t - W, t]."""
    features = {}
    for window, length in WINDOWS.items():
        minor = [a.payment.amount_minor for a in view.kept if a.t > view.t - length]
        features[f"customer_count_{window}"] = float(len(minor))
        features[f"customer_amount_sum_{window}"] = sum(minor) / 100
        features[f"customer_amount_mean_{window}"] = mean_of(minor)
        features[f"customer_amount_max_{window}"] = max_of(minor)
    return features


def recency_features(view: View) -> dict[str, float]:
    """recency: seconds since the customer's last payment, the last at this merchant, the first (at most 30 days)."""
    visits = _visits(view)
    return {
        "seconds_since_customer_last": (view.t - view.own[-1].t) / 1e6 if view.own else NAN,
        "seconds_since_same_merchant": (view.t - visits[-1].t) / 1e6 if visits else NAN,
        "customer_age_seconds": min((view.t - view.own[0].t) / 1e6, 30 * 86_400.0) if view.own else NAN,
    }


def _visits(view: View) -> list[Applied]:
    same = [a for a in view.own if a.payment.merchant == view.payment.merchant]
    return same if same and view.t - same[-1].t <= HORIZON else []


def behaviour_features(view: View) -> dict[str, float]:
    """behaviour: how many different, is it new, is it changed, how far."""
    day = [a.payment for a in view.kept if a.t > view.t - DAY]
    devices = [a.payment.device for a in view.own if a.payment.device is not None]
    countries = [a.payment.country for a in view.own if a.payment.country is not None]
    distance, speed = distance_and_speed(view)
    return {
        "customer_merchants_24h": float(len({p.merchant for p in day})),
        "customer_countries_24h": float(len({p.country for p in day if p.country is not None})),
        "customer_devices_24h": float(len({p.device for p in day if p.device is not None})),
        "first_time_at_merchant": float(not _visits(view)),
        "device_changed": _differs(view.payment.device, devices[-1] if devices else None),
        "country_changed": _differs(view.payment.country, countries[-1] if countries else None),
        "unusual_country": _differs(view.payment.country, usual_country(view.kept)),
        "distance_from_last_km": distance,
        "speed_from_last_kmh": speed,
    }


def _differs(now: str | None, before: str | None) -> float:
    return NAN if now is None or before is None else float(now != before)


def usual_country(kept: Sequence[Applied]) -> str | None:
    """The most frequent; of equally frequent ones, the one seen last."""
    countries = [a.payment.country for a in kept if a.payment.country is not None]
    best: str | None = None
    for country in reversed(countries):
        if best is None or countries.count(country) > countries.count(best):
            best = country
    return best


def distance_and_speed(view: View) -> tuple[float, float]:
    """Kilometres from the customer's last known place, and km/h over at least a minute."""
    latitude, longitude = view.payment.latitude, view.payment.longitude
    places = [a for a in view.own if a.payment.latitude is not None and a.payment.longitude is not None]
    if latitude is None or longitude is None or not places:
        return NAN, NAN
    last = places[-1]
    assert last.payment.latitude is not None
    assert last.payment.longitude is not None
    km = haversine_km(last.payment.latitude, last.payment.longitude, latitude, longitude)
    return km, km / (max((view.t - last.t) / 1e6, 60.0) / 3600.0)


def haversine_km(latitude_1: float, longitude_1: float, latitude_2: float, longitude_2: float) -> float:
    """Great-circle distance (https://en.wikipedia.org/wiki/Haversine_formula)."""
    phi_1, phi_2 = math.radians(latitude_1), math.radians(latitude_2)
    a = (
        math.sin((phi_2 - phi_1) / 2) ** 2
        + math.cos(phi_1) * math.cos(phi_2) * math.sin(math.radians(longitude_2 - longitude_1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, a)))


def habit_features(view: View) -> dict[str, float]:
    """habit: this amount and the last 10 closed days against the 50 days before them."""
    today = view.t // DAY
    recent = [a.payment.amount_minor for a in view.own if today - 10 <= a.t // DAY <= today - 1]
    habit = [a.payment.amount_minor for a in view.own if today - 60 <= a.t // DAY <= today - 11]
    amount = view.payment.amount_minor / 100
    return {
        "amount_to_habit_mean": ratio(amount, mean_of(habit)),
        "amount_to_habit_max": ratio(amount, max_of(habit)),
        "recent_mean_to_habit_mean": ratio(mean_of(recent), mean_of(habit)),
        "recent_mean_to_habit_max": ratio(mean_of(recent), max_of(habit)),
        "recent_max_to_habit_mean": ratio(max_of(recent), mean_of(habit)),
        "recent_max_to_habit_max": ratio(max_of(recent), max_of(habit)),
    }


EventTest = Callable[[Payment], bool]
LabelTest = Callable[[Change], bool]


def _same_merchant(view: View) -> EventTest:
    return lambda p: p.merchant == view.payment.merchant


def _window(view: View, belongs: EventTest, hours: int, *, delay: int = 0) -> list[Applied]:
    """Readable payments of the entity in hours [hc - delay - hours, hc - delay), or to the last minute without delay."""
    first = view.hour - delay - hours
    chosen = [a for a in view.readable if belongs(a.payment) and a.minute // 60 >= first]
    return [a for a in chosen if a.minute // 60 < view.hour - delay] if delay else chosen


def fraud_share(view: View, events: EventTest, labels: LabelTest, hours: int) -> float:
    """Known frauds over matured payments of the window, with a prior."""
    fraud = 0
    for label in view.labels:
        inside = min(label.known_hour, label.event_hour) >= view.hour - hours
        if labels(label.change) and label.event_hour < view.hour and inside:
            fraud += label.change.change
    matured = len(_window(view, events, hours, delay=MATURITY_HOURS))
    return (max(fraud, 0) + view.prior_strength * view.prior_rate) / (matured + view.prior_strength)


def merchant_features(view: View) -> dict[str, float]:
    """merchant: how much, and how much of it was fraud as far as known."""
    merchant = view.payment.merchant
    features = {}
    for window, hours in SHARED_WINDOW_HOURS.items():
        minor = [a.payment.amount_minor for a in _window(view, _same_merchant(view), hours)]
        features[f"merchant_count_{window}"] = float(len(minor))
        features[f"merchant_amount_mean_{window}"] = mean_of(minor)
        share = fraud_share(view, _same_merchant(view), lambda c: c.merchant == merchant, hours)
        features[f"merchant_fraud_share_{window}"] = share
    first, last, matured = merchant_fraud_recency(view)
    features["merchant_seconds_since_first_fraud"] = first
    features["merchant_seconds_since_last_fraud"] = last
    features["merchant_matured_since_fraud"] = matured
    return features


def merchant_fraud_recency(view: View) -> tuple[float, float, float]:
    """Seconds since the first and last fraud label of 28 days, matured payments later than the newest labelled one."""
    frauds = [
        label
        for label in view.labels
        if label.change.merchant == view.payment.merchant
        and label.change.change == 1
        and label.known_hour >= view.hour - FRAUD_LABEL_HOURS
    ]
    if not frauds:
        return NAN, NAN, NAN
    minutes = [label.minute for label in frauds]
    newest_fraud_hour = max(label.event_hour - MATURITY_HOURS for label in frauds)
    matured = _window(view, _same_merchant(view), 720, delay=MATURITY_HOURS)
    return (
        (view.read_time - (min(minutes) + 1) * MINUTE) / 1e6,
        (view.read_time - (max(minutes) + 1) * MINUTE) / 1e6,
        float(sum(a.minute // 60 > newest_fraud_hour for a in matured)),
    )


def delayed_share_features(view: View) -> dict[str, float]:
    """category, country, channel: the delayed fraud share of 30 days."""
    p = view.payment
    country = NAN
    if p.country is not None:
        country = fraud_share(view, lambda o: o.country == p.country, lambda c: c.country == p.country, 720)
    return {
        "category_fraud_share_30d": fraud_share(
            view, lambda o: o.category == p.category, lambda c: c.category == p.category, 720
        ),
        "country_fraud_share_30d": country,
        "channel_fraud_share_30d": fraud_share(
            view, lambda o: o.channel == p.channel, lambda c: c.channel == p.channel, 720
        ),
    }


def device_features(view: View) -> dict[str, float]:
    """device: how many customers share it (at most 64), how busy it is."""
    device = view.payment.device
    if device is None:
        return {"device_customers_7d": NAN, "device_count_24h": NAN}
    customers = {a.payment.customer for a in _window(view, lambda o: o.device == device, 168)}
    return {
        "device_customers_7d": float(min(len(customers), DEVICE_CUSTOMERS)),
        "device_count_24h": float(len(_window(view, lambda o: o.device == device, 24))),
    }


def time_features(view: View) -> dict[str, float]:
    """time: the payment's own event time on the wall clock of the zone (a late payment keeps its own)."""
    local = (EPOCH + timedelta(microseconds=view.payment.time)).astimezone(ZoneInfo(view.time_zone))
    return {
        "hour": float(local.hour),
        "day_of_week": float(local.weekday()),
        "is_weekend": float(local.weekday() >= 5),
        "is_night": float(local.hour < 6),
        "is_business_hours": float(local.weekday() < 5 and 9 <= local.hour < 17),
    }


FAMILIES: tuple[Callable[[View], dict[str, float]], ...] = (
    amount_features,
    velocity_features,
    recency_features,
    behaviour_features,
    habit_features,
    merchant_features,
    delayed_share_features,
    device_features,
    time_features,
)


def features_of(view: View) -> dict[str, float]:
    """All features by name, float64."""
    return {name: value for family in FAMILIES for name, value in family(view).items()}


def oracle_matrix(
    payments: Sequence[Payment],
    changes: Sequence[Change],
    names: Sequence[str],
    *,
    prior_strength: float,
    prior_rate: float,
    time_zone: str = "UTC",
    places: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """float32 [len(rows) or n, len(names)]: the features of the chosen payments (all by default)."""
    applied = apply_log(log_of(payments, changes, places))
    at = [i for i, entry in enumerate(applied) if isinstance(entry, Applied)]
    chosen = range(len(payments)) if rows is None else rows
    matrix = np.full((len(chosen), len(names)), np.nan, dtype=np.float32)
    for row, i in enumerate(chosen):
        view = view_of(
            applied[: at[i]],
            payments[i],
            prior_strength=prior_strength,
            prior_rate=prior_rate,
            time_zone=time_zone,
        )
        values = features_of(view)
        matrix[row] = [values[name] for name in names]
    return matrix
