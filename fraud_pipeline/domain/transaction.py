"""One payment event, its label, and the rules that every way in (REST, Kafka, files) holds it to.

Knows nothing of where an event came from. `parse_transaction` is the only gate from outside data to a `Transaction`:
it names every broken rule at once and never repairs a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from fraud_pipeline.domain.iso_codes import COUNTRIES, CURRENCIES
from fraud_pipeline.errors import InvalidTransaction, Violation

CHANNELS: Final = ("pos", "online", "atm", "transfer", "unknown")
LabelSource = Literal["chargeback", "analyst", "simulation", "import"]
LABEL_SOURCES: Final = ("chargeback", "analyst", "simulation", "import")

MAX_AMOUNT_MINOR: Final = 10_000_000_00
MAX_ATTRIBUTES: Final = 64
MAX_FUTURE: Final = timedelta(minutes=5)
"""Clocks of payment terminals run ahead by minutes, not more."""
MAX_AGE: Final = timedelta(days=90)
"""Older than this the customer's state is gone (STATE_HORIZON), so a decision would mean nothing."""

# Arrow type names of the Parquet columns; a trailing "?" allows null. Attributes follow as `attributes.<name>`.
TRANSACTION_COLUMNS: Final[dict[str, str]] = {
    "transaction_id": "string",
    "event_time": "timestamp[us, tz=UTC]",
    "customer_id": "string",
    "merchant_id": "string",
    "amount_minor": "int64",
    "currency": "string",
    "merchant_category": "string",
    "channel": "string",
    "country": "string?",
    "device_id": "string?",
    "latitude": "double?",
    "longitude": "double?",
    "writer": "string?",
    "sequence": "int64?",
}
LABEL_COLUMNS: Final[dict[str, str]] = {
    "transaction_id": "string",
    "is_fraud": "bool",
    "source": "string",
    "author": "string",
    "known_at": "timestamp[us, tz=UTC]",
    "change": "int8",
    "event_time": "timestamp[us, tz=UTC]",
    "customer_id": "string",
    "merchant_id": "string",
    "merchant_category": "string",
    "channel": "string",
    "country": "string?",
    "device_id": "string?",
}
ATTRIBUTE_PREFIX: Final = "attributes."

_ID = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9_]{1,40}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,13}(\.\d{1,12})?", re.ASCII)
"""25 digits at most, so that decimal arithmetic is exact."""
_KNOWN_FIELDS: Final = frozenset(TRANSACTION_COLUMNS) - {"amount_minor", "writer", "sequence"} | {
    "amount",
    "attributes",
}


@dataclass(frozen=True, slots=True)
class Transaction:
    """A valid payment event. `amount_minor` is hundredths of the currency; `event_time` is in UTC."""

    transaction_id: str
    event_time: datetime
    customer_id: str
    merchant_id: str
    amount_minor: int
    currency: str = "USD"
    merchant_category: str = "unknown"
    channel: str = "unknown"
    country: str | None = None
    device_id: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Label:
    """What was learned about a transaction, and when *we* learned it."""

    transaction_id: str
    is_fraud: bool
    source: LabelSource
    author: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class LabelChange:
    """The change (+1, 0, -1 fraud) that a recorded label makes to the shared state, with its transaction's own fields."""

    transaction_id: str
    change: int
    known_at: datetime
    event_time: datetime
    customer_id: str
    merchant_id: str
    merchant_category: str = "unknown"
    channel: str = "unknown"
    country: str | None = None
    device_id: str | None = None


def is_attribute_name(name: object) -> bool:
    """Whether an attribute may be called so."""
    return isinstance(name, str) and _ATTRIBUTE_NAME.fullmatch(name) is not None


def unknown_fields(payload: Mapping[str, object]) -> tuple[str, ...]:
    """Names in the payload that the contract does not have; they are ignored, and counted by the caller."""
    if _KNOWN_FIELDS.issuperset(payload):
        return ()
    return tuple(name for name in payload if name not in _KNOWN_FIELDS)


def parse_transaction(
    payload: Mapping[str, object], *, currency: str = "USD", received_at: datetime | None = None
) -> Transaction:
    """Check one event against the contract.

    `received_at` (UTC-aware) switches on the rules of the live routes: at most 5 minutes ahead, at most 90 days old.
    Raises InvalidTransaction with every broken rule.
    """
    return _ordinary(payload, currency, received_at) or _looked_at_closely(payload, currency, received_at)


def _looked_at_closely(payload: Mapping[str, object], currency: str, received_at: datetime | None) -> Transaction:
    reader = FieldReader(payload)
    parsed: dict[str, object] = {
        "transaction_id": reader.identifier("transaction_id"),
        "event_time": reader.event_time(received_at),
        "customer_id": reader.text("customer_id", 64),
        "merchant_id": reader.text("merchant_id", 64),
        "amount_minor": reader.amount_minor(),
        "currency": reader.currency(currency),
        "merchant_category": reader.text("merchant_category", 32, default="unknown"),
        "channel": reader.choice("channel", CHANNELS, default="unknown"),
        "country": reader.country(),
        "device_id": reader.text("device_id", 64, optional=True),
        "attributes": reader.attributes(),
    }
    parsed["latitude"], parsed["longitude"] = reader.location()
    if reader.violations:
        raise InvalidTransaction(tuple(reader.violations))
    return Transaction(**parsed)  # type: ignore[arg-type]  # each reader method returns its field's type or a violation


def _ordinary(payload: Mapping[str, object], currency: str, received_at: datetime | None) -> Transaction | None:
    """The payment, where every field is plainly valid; None where a closer look is needed (a test holds the two equal).

    A fifth of the time that the closer look takes, and nearly every payment is of this kind.
    """
    get = payload.get
    identity, customer, merchant = get("transaction_id"), get("customer_id"), get("merchant_id")
    category, channel = get("merchant_category"), get("channel")
    country, device = get("country"), get("device_id")
    category = "unknown" if category is None else category
    channel = "unknown" if channel is None else channel
    if not (
        type(identity) is str
        and _ID.fullmatch(identity)
        and type(customer) is str
        and 0 < len(customer) <= 64
        and customer.isprintable()
        and type(merchant) is str
        and 0 < len(merchant) <= 64
        and merchant.isprintable()
        and type(category) is str
        and 0 < len(category) <= 32
        and category.isprintable()
        and (device is None or (type(device) is str and 0 < len(device) <= 64 and device.isprintable()))
        and type(channel) is str
        and channel in CHANNELS
        and (country is None or (type(country) is str and country in COUNTRIES))
        and get("currency") in (None, currency)
        and get("attributes") is None
    ):
        return None
    moment, minor = _rfc3339(get("event_time")), _ordinary_minor(get("amount"))
    latitude, longitude = get("latitude"), get("longitude")
    if moment is None or minor is None or not 1970 < moment.year < 2199:
        return None
    if latitude is not None or longitude is not None:
        if type(latitude) is not float or type(longitude) is not float:
            return None
        if not (-90.0 <= latitude <= 90.0 and -180.0 <= longitude <= 180.0):
            return None
    moment = moment.astimezone(UTC)
    if received_at is not None and not received_at - MAX_AGE <= moment <= received_at + MAX_FUTURE:
        return None
    return Transaction(
        identity, moment, customer, merchant, minor, currency, category, channel, country, device, latitude, longitude
    )


def _ordinary_minor(value: object) -> int | None:
    """Hundredths of an amount that is a number with at most two decimals; None for anything else.

    `minor / 100` is correctly rounded, so it is the very double only where two decimals were written.
    """
    if type(value) is float and 0.0 <= value <= 1e7:
        minor = round(value * 100.0)
        return minor if minor / 100.0 == value else None
    if type(value) is int and 0 <= value <= 10_000_000:
        return value * 100
    return None


class FieldReader:
    """Reads fields one by one and gathers what is wrong instead of stopping at the first."""

    def __init__(self, payload: Mapping[str, object]) -> None:
        self.payload = payload
        self.violations: list[Violation] = []

    def reject(self, name: str, value: object, reason: str) -> None:
        try:
            shown = ascii(value)
        except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested as deep
            shown = f"a {type(value).__name__} too large to show"
        self.violations.append(Violation(name, shown if len(shown) <= 80 else shown[:77] + "...", reason))

    def _present(self, name: str, *, required: bool) -> object | None:
        value = self.payload.get(name)
        if value is None and required:
            reason = "is required" if name not in self.payload else "must not be null"
            self.reject(name, value, reason)
        return value

    def identifier(self, name: str) -> str | None:
        value = self._present(name, required=True)
        if value is None:
            return None
        if not isinstance(value, str) or not _ID.fullmatch(value):
            self.reject(name, value, "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
            return None
        return value

    def text(self, name: str, longest: int, *, default: str | None = None, optional: bool = False) -> str | None:
        value = self._present(name, required=default is None and not optional)
        if value is None:
            return default
        if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
            self.reject(name, value, f"must be text of 1 to {longest} printable characters")
            return None
        return value

    def choice(self, name: str, allowed: tuple[str, ...], *, default: str) -> str | None:
        value = self._present(name, required=False)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            self.reject(name, value, f"must be one of {', '.join(allowed)}")
            return None
        return value

    def currency(self, ours: str) -> str | None:
        value = self._present("currency", required=False)
        if value is None:
            return ours
        if value != ours:
            known = isinstance(value, str) and value in CURRENCIES
            self.reject("currency", value, f"must be {ours}" if known else f"must be an ISO 4217 code, here {ours}")
            return None
        return ours

    def country(self) -> str | None:
        value = self._present("country", required=False)
        if value is not None and (not isinstance(value, str) or value not in COUNTRIES):
            self.reject("country", value, "must be an ISO 3166-1 alpha-2 code in capitals")
            return None
        return value

    def event_time(self, received_at: datetime | None) -> datetime | None:
        value = self._present("event_time", required=True)
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else _rfc3339(value)
        if moment is None or moment.tzinfo is None:
            self.reject("event_time", value, "must be an RFC 3339 time with its zone, as 2026-01-31T12:00:00Z")
            return None
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            self.reject("event_time", value, "is out of range")
            return None
        if received_at is not None and moment > received_at + MAX_FUTURE:
            self.reject("event_time", value, "is more than 5 minutes after its receipt")
        elif received_at is not None and moment < received_at - MAX_AGE:
            self.reject("event_time", value, "is more than 90 days before its receipt")
        elif not 1970 <= moment.year <= 2199:
            self.reject("event_time", value, "must lie between 1970 and 2199")
        return moment

    def amount_minor(self) -> int | None:
        value = self._present("amount", required=True)
        if value is None:
            return None
        amount = _decimal(value)
        if amount is None:
            self.reject("amount", value, "must be a finite number or a decimal string")
            return None
        minor = amount * 100
        if minor != minor.to_integral_value():
            self.reject("amount", value, "must have at most 2 decimals")
        elif not 0 <= minor <= MAX_AMOUNT_MINOR:
            self.reject("amount", value, "must be from 0 to 10,000,000")
        return int(minor)

    def location(self) -> tuple[float | None, float | None]:
        latitude, longitude = self._degrees("latitude", 90.0), self._degrees("longitude", 180.0)
        given = [name for name in ("latitude", "longitude") if self.payload.get(name) is not None]
        if len(given) == 1:
            missing = "longitude" if given[0] == "latitude" else "latitude"
            self.reject(missing, None, f"is required where {given[0]} is given")
        return latitude, longitude

    def _degrees(self, name: str, limit: float) -> float | None:
        value = self._present(name, required=False)
        if value is None:
            return None
        number = _finite(value)
        if number is None or not -limit <= number <= limit:
            self.reject(name, value, f"must be degrees from {-limit:g} to {limit:g}")
            return None
        return number

    def attributes(self) -> dict[str, float]:
        value = self._present("attributes", required=False)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.reject("attributes", value, "must be an object of names and numbers")
            return {}
        if len(value) > MAX_ATTRIBUTES:
            self.reject("attributes", f"{len(value)} of them", f"must be at most {MAX_ATTRIBUTES}")
            return {}
        numbers: dict[str, float] = {}
        for name, item in value.items():
            number = _finite(item)
            if not is_attribute_name(name):
                self.reject(
                    f"attributes.{ascii(name).strip(chr(39))[:40]}", item, "its name must be 1 to 40 of a-z 0-9 _"
                )
            elif number is None:
                self.reject(f"attributes.{name}", item, "must be a finite number")
            else:
                numbers[name] = number
        return numbers


def _rfc3339(value: object) -> datetime | None:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError:
        return None


def _decimal(value: object) -> Decimal | None:
    """The number as it was written: a float stands for its shortest decimal form, so 24.36 has two decimals."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if abs(value) < 10**20 else Decimal(10**20 if value > 0 else -(10**20))
    if isinstance(value, float):
        return Decimal(float.__repr__(value)) if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return (
            value if value.is_finite() and -30 < value.adjusted() < 30 and len(value.as_tuple().digits) < 28 else None
        )
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        try:
            return Decimal(value)
        except InvalidOperation:  # pragma: no cover - the pattern allows nothing that Decimal refuses
            return None
    return None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # too large; a signalling NaN
        return None
    return number if math.isfinite(number) else None
