"""The features: their names, order and meaning. The list here is the truth; `feature_kernels` computes it in this order.

`definition_hash` names what a value *is*: bundles list the hashes they were trained with, so code that computes a feature
differently refuses them. Whoever changes what a kernel computes raises the feature's `revision`; a golden test notices.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

Entity = Literal["transaction", "customer", "merchant", "category", "country", "channel", "device"]

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

KEPT_EVENTS: Final = 1_024
"""Newest events kept per customer within 30 days: a person pays a few times a day; more is a shop or a script."""
KEPT_FOR_US: Final = 30 * DAY_US
STATE_HORIZON_US: Final = 90 * DAY_US
CLOSE_AFTER_US: Final = 60_000_000
READ_AFTER_US: Final = 120_000_000
LATE_READ_US: Final = 600_000_000
"""A payment later than this behind its writer's newest reads the shared state as of 10 minutes before that."""
MATURITY_HOURS: Final = 7 * 24
FRAUD_LABEL_HOURS: Final = 28 * 24
PRIOR_STRENGTH: Final = 10.0
"""The prior of a fraud share weighs as much as this many payments."""
PRIOR_RATE: Final = 0.005
DEVICE_CUSTOMERS_MAX: Final = 64
"""More customers than this on one device mean the same: a shared terminal or a farm."""
SPEED_FLOOR_US: Final = 60_000_000
"""Two payments within a minute are taken as a minute apart, so that clock noise does not make speed."""
EARTH_RADIUS_KM: Final = 6371.0088
NIGHT_ENDS: Final = 6
BUSINESS_HOURS: Final = (9, 17)
HABIT_RECENT_DAYS: Final = 10
HABIT_DAYS: Final = 60


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: what it measures, over what, and what a NaN means."""

    name: str
    family: str
    entity: Entity
    unit: str
    window: str
    meaning: str
    missing: str = "never"
    aliases: tuple[str, ...] = ()
    revision: int = 1

    @property
    def definition_hash(self) -> str:
        """12 hex digits over what the value is: name, entity, unit, window, revision and the constants it depends on."""
        constants = _CONSTANTS.get(self.family, ())
        text = repr((self.name, self.entity, self.unit, self.window, self.revision, constants))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_SHARED: Final = (CLOSE_AFTER_US, READ_AFTER_US, LATE_READ_US)
_CONSTANTS: Final[dict[str, tuple[float, ...]]] = {
    "amount": (KEPT_EVENTS, KEPT_FOR_US, *_SHARED),
    "recency": (STATE_HORIZON_US, KEPT_FOR_US),
    "velocity": (KEPT_EVENTS, KEPT_FOR_US),
    "behaviour": (KEPT_EVENTS, STATE_HORIZON_US, SPEED_FLOOR_US, EARTH_RADIUS_KM),
    "habit": (HABIT_RECENT_DAYS, HABIT_DAYS),
    "merchant": (*_SHARED, MATURITY_HOURS, FRAUD_LABEL_HOURS, PRIOR_STRENGTH, PRIOR_RATE),
    "fraud share": (*_SHARED, MATURITY_HOURS, PRIOR_STRENGTH, PRIOR_RATE),
    "device": (*_SHARED, DEVICE_CUSTOMERS_MAX),
    "time": (NIGHT_ENDS, *BUSINESS_HOURS),
}

_NO_EVENTS = "no earlier payment in the window"
_WINDOWS: Final = ("1h", "24h", "7d", "30d")
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "customer_count_1h": ("user_txn_count_1h",),
    "customer_count_24h": ("user_txn_count_24h",),
    "customer_count_7d": ("user_txn_count_7d",),
    "customer_amount_sum_1h": ("user_amount_sum_1h",),
    "customer_amount_sum_24h": ("user_amount_sum_24h",),
    "customer_amount_mean_30d": ("user_avg_amount_30d",),
}


def _amount() -> list[Feature]:
    def of(name: str, unit: str, meaning: str, aliases: tuple[str, ...] = ()) -> Feature:
        return Feature(name, "amount", "transaction", unit, "now", meaning, aliases=aliases)

    return [
        of("amount", "currency", "The payment's amount", ("amount",)),
        of("amount_log", "log(1 + currency)", "The natural logarithm of one plus the amount"),
        of("amount_is_round", "flag", "The amount is in whole units of the currency"),
        Feature(
            "amount_zscore_30d", "amount", "customer", "standard deviations", "30d",
            "The amount's distance from the customer's mean, in standard deviations of the customer's amounts",
            "fewer than 2 earlier payments, or all of the same amount", ("amount_zscore",),
        ),
        Feature(
            "amount_to_customer_mean_30d", "amount", "customer", "ratio", "30d",
            "The amount over the customer's mean amount", "no earlier payment, or their mean is 0",
        ),
        Feature(
            "amount_to_merchant_mean_30d", "amount", "merchant", "ratio", "30d",
            "The amount over the merchant's mean amount", "no readable payment there, or their mean is 0",
        ),
    ]  # fmt: skip


def _velocity() -> list[Feature]:
    kinds = (
        ("customer_count", "payments", "How many payments the customer made before this one", "never"),
        ("customer_amount_sum", "currency", "The sum of the customer's payments before this one", "never"),
        ("customer_amount_mean", "currency", "The mean of the customer's payments before this one", _NO_EVENTS),
        ("customer_amount_max", "currency", "The largest of the customer's payments before this one", _NO_EVENTS),
    )
    return [
        Feature(f"{stem}_{w}", "velocity", "customer", unit, w, meaning, missing, _ALIASES.get(f"{stem}_{w}", ()))
        for stem, unit, meaning, missing in kinds
        for w in _WINDOWS
    ]


def _recency_and_behaviour() -> list[Feature]:
    return [
        Feature(
            "seconds_since_customer_last", "recency", "customer", "s", "90d",
            "Time since the customer's last payment", "the customer's first payment", ("minutes_since_last_txn",),
        ),
        Feature(
            "seconds_since_same_merchant", "recency", "customer", "s", "90d",
            "Time since the customer's last payment at this merchant", "first payment there in 90 days",
        ),
        Feature(
            "customer_age_seconds", "recency", "customer", "s", "30d",
            "Time since the customer was first seen, at most 30 days", "the customer's first payment",
        ),
        Feature(
            "customer_merchants_24h", "behaviour", "customer", "merchants", "24h",
            "Distinct merchants of the customer's earlier payments", aliases=("unique_merchants_24h",),
        ),
        Feature(
            "customer_countries_24h", "behaviour", "customer", "countries", "24h",
            "Distinct countries of the customer's earlier payments", aliases=("unique_countries_24h",),
        ),
        Feature(
            "customer_devices_24h", "behaviour", "customer", "devices", "24h",
            "Distinct devices of the customer's earlier payments",
        ),
        Feature(
            "first_time_at_merchant", "behaviour", "customer", "flag", "90d",
            "The customer has not paid at this merchant before", aliases=("user_merchant_first_time",),
        ),
        Feature(
            "device_changed", "behaviour", "customer", "flag", "90d",
            "The device differs from the customer's last known one", "no device, or none known before",
            ("device_change_flag",),
        ),
        Feature(
            "country_changed", "behaviour", "customer", "flag", "90d",
            "The country differs from the customer's last known one", "no country, or none known before",
            ("country_change_flag",),
        ),
        Feature(
            "unusual_country", "behaviour", "customer", "flag", "30d",
            "The country is not the one where the customer paid most often", "no country, or none known before",
        ),
        Feature(
            "distance_from_last_km", "behaviour", "customer", "km", "90d",
            "Great-circle distance from the customer's last known place", "no coordinates, or none known before",
        ),
        Feature(
            "speed_from_last_kmh", "behaviour", "customer", "km/h", "90d",
            "That distance over the time since, of which at least a minute", "no coordinates, or none known before",
        ),
    ]  # fmt: skip


def _habit() -> list[Feature]:
    no_habit = "no payment 11 to 60 days ago, or their amounts are 0"
    pairs = (
        ("amount_to_habit", "The amount", no_habit),
        ("recent_mean_to_habit", "The customer's mean amount of the last 10 closed days", f"{no_habit}; or none in the last 10"),
        ("recent_max_to_habit", "The customer's largest amount of the last 10 closed days", f"{no_habit}; or none in the last 10"),
    )  # fmt: skip
    return [
        Feature(
            f"{stem}_{statistic}", "habit", "customer", "ratio", "60d",
            f"{subject} over the customer's {word} amount of 11 to 60 days ago", missing,
        )
        for stem, subject, missing in pairs
        for statistic, word in (("mean", "mean"), ("max", "largest"))
    ]  # fmt: skip


def _merchant() -> list[Feature]:
    windows = ("24h", "7d", "30d")
    no_label = "no fraud label in 28 days"
    return [
        *(Feature(f"merchant_count_{w}", "merchant", "merchant", "payments", w, "Payments at the merchant") for w in windows),
        *(
            Feature(f"merchant_amount_mean_{w}", "merchant", "merchant", "currency", w, "Mean amount at the merchant", _NO_EVENTS)
            for w in windows
        ),
        *(
            Feature(
                f"merchant_fraud_share_{w}", "merchant", "merchant", "share", w,
                "Share of fraud known by then among the merchant's matured payments (7 to 7 + window days old), with a prior",
            )
            for w in windows
        ),
        Feature(
            "merchant_seconds_since_first_fraud", "merchant", "merchant", "s", "28d",
            "Time since the first fraud label of 28 days at the merchant", no_label,
        ),
        Feature(
            "merchant_seconds_since_last_fraud", "merchant", "merchant", "s", "28d",
            "Time since the last fraud label at the merchant", no_label,
        ),
        Feature(
            "merchant_matured_since_fraud", "merchant", "merchant", "payments", "37d",
            "Matured payments at the merchant after the last payment known to be fraud: it may have recovered", no_label,
        ),
    ]  # fmt: skip


def _others() -> list[Feature]:
    share = "Share of fraud known by then among matured payments of the {}, with a prior"
    return [
        Feature("category_fraud_share_30d", "fraud share", "category", "share", "30d", share.format("merchant category")),
        Feature("country_fraud_share_30d", "fraud share", "country", "share", "30d", share.format("country"), "no country"),
        Feature("channel_fraud_share_30d", "fraud share", "channel", "share", "30d", share.format("channel")),
        Feature(
            "device_customers_7d", "device", "device", "customers", "7d",
            f"Distinct customers seen on the device, at most {DEVICE_CUSTOMERS_MAX}", "no device",
        ),
        Feature("device_count_24h", "device", "device", "payments", "24h", "Payments from the device", "no device"),
        Feature("hour", "time", "transaction", "hour", "now", "Local hour of day, 0 to 23", aliases=("hour_of_day",)),
        Feature("day_of_week", "time", "transaction", "day", "now", "Local day of week, Monday is 0", aliases=("day_of_week",)),
        Feature("is_weekend", "time", "transaction", "flag", "now", "Saturday or Sunday", aliases=("is_weekend",)),
        Feature("is_night", "time", "transaction", "flag", "now", "Before six in the morning", aliases=("is_night",)),
        Feature("is_business_hours", "time", "transaction", "flag", "now", "Monday to Friday, nine to five"),
    ]  # fmt: skip


FEATURES: Final[tuple[Feature, ...]] = (
    *_amount(), *_velocity(), *_recency_and_behaviour(), *_habit(), *_merchant(), *_others(),
)  # fmt: skip
FEATURE_NAMES: Final[tuple[str, ...]] = tuple(f.name for f in FEATURES)
SCHEMA_HASH: Final = hashlib.sha256("".join(f.name + f.definition_hash for f in FEATURES).encode()).hexdigest()[:12]
INDEX: Final[dict[str, int]] = {name: i for i, name in enumerate(FEATURE_NAMES)}
