"""Simulated payments as the columns of the contract: names in place of codes, whole minor units in place of amounts.

Strings are numpy byte strings of fixed width, which numpy makes and Arrow reads at memory speed; an empty one is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.simulation_campaigns import KIND_NAMES
from fraud_pipeline.domain.simulation_catalogue import ATM, CATEGORIES, COUNTRIES, TRANSFER
from fraud_pipeline.domain.simulation_chance import Hashes, Ints
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.domain.simulation_payments import Payments
from fraud_pipeline.domain.transaction import CHANNELS, MAX_AMOUNT_MINOR

DELAY_SHAPE: Final = (2.0, 12.0)
"""Beta parameters of the label delay: of 1 to 30 days, half within 4.6 days, 8 in 10 within 7, 1 in 50 after 12."""
LABEL_COPIES: Final = (
    "event_time",
    "customer_id",
    "merchant_id",
    "merchant_category",
    "channel",
    "country",
    "device_id",
)

Columns = Mapping[str, NDArray[Any]]

_CATEGORY_NAMES: Final = np.array([c.name.encode() for c in CATEGORIES])
_CHANNELS: Final = np.array([name.encode() for name in CHANNELS])
_COUNTRIES: Final = np.array([name.encode() for name in (*COUNTRIES, "")])
"""The last one is the missing country, -1."""
_KINDS: Final = np.array([name.encode() for name in KIND_NAMES])
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


def transaction_columns(
    payments: Payments, day: date, *, day_us: Ints, price_index: float, currency: str, rng: np.random.Generator
) -> Columns:
    """The contract's columns of payments in event order; `day_us` is microseconds since the day's midnight."""
    n = len(payments)
    return {
        "transaction_id": _numbered(f"T{day:%Y%m%d}-", np.arange(n), digits=7),
        "event_time": np.datetime64(day, "us") + day_us.astype("timedelta64[us]"),
        "customer_id": _numbered("C", payments.customer, digits=7),
        "merchant_id": _numbered("M", payments.merchant, digits=8),
        "amount_minor": _minor_units(payments, price_index, rng),
        "currency": np.full(n, currency.encode()),
        "merchant_category": _CATEGORY_NAMES[payments.category],
        "channel": _CHANNELS[payments.way],
        "country": _COUNTRIES[payments.country],
        "device_id": _device_names(payments.device),
        "latitude": np.round(payments.latitude, 5),
        "longitude": np.round(payments.longitude, 5),
    }


def label_columns(config: WorldConfig, transactions: Columns, frauds: Ints, *, rng: np.random.Generator) -> Columns:
    """The chargebacks of a day's frauds, some of which never come; `known_at` may lie past the world's end."""
    low, high = config.label_delay_days
    delay_us = (low + (high - low) * rng.beta(*DELAY_SHAPE, len(frauds))) * 86_400e6
    known = rng.random(len(frauds)) >= config.unlabelled_share
    rows = frauds[known]
    return {
        "transaction_id": transactions["transaction_id"][rows],
        "is_fraud": np.ones(len(rows), np.bool_),
        "source": np.full(len(rows), b"simulation"),
        "author": np.full(len(rows), b"simulator"),
        "known_at": transactions["event_time"][rows] + delay_us[known].astype("timedelta64[us]"),
        "change": np.ones(len(rows), np.int8),
        **{name: transactions[name][rows] for name in LABEL_COPIES},
    }


def truth_columns(start: date, transactions: Columns, payments: Payments, frauds: Ints) -> Columns:
    """Every fraud of a day with its kind and a campaign id of kind, first day and number."""
    kind, number, began = (column[frauds] for column in (payments.kind, payments.campaign, payments.began))
    campaign = [
        f"{KIND_NAMES[k]}-{start + timedelta(days=b)}-{i}".encode()
        for k, b, i in zip(kind.tolist(), began.tolist(), number.tolist(), strict=True)
    ]
    return {
        "transaction_id": transactions["transaction_id"][frauds],
        "is_fraud": np.ones(len(frauds), np.bool_),
        "campaign_id": np.array(campaign, "S"),
        "kind": _KINDS[kind],
    }


def _numbered(prefix: str, numbers: Ints, *, digits: int) -> NDArray[np.bytes_]:
    """`prefix` and the number with leading zeros, without a Python loop."""
    text = np.empty((len(numbers), len(prefix) + digits), np.uint8)
    text[:, : len(prefix)] = np.frombuffer(prefix.encode(), np.uint8)
    rest = numbers.astype(np.uint32)
    for place in range(text.shape[1] - 1, len(prefix) - 1, -1):
        rest, digit = np.divmod(rest, np.uint32(10))
        text[:, place] = digit + np.uint32(ord("0"))
    return text.view(f"S{text.shape[1]}").ravel()


def _device_names(device: Hashes) -> NDArray[np.bytes_]:
    text = np.empty((len(device), 13), np.uint8)
    text[:, 0] = ord("d")
    nibbles = device[:, None] >> np.arange(44, -4, -4, dtype=np.uint64)
    text[:, 1:] = _HEX[nibbles & np.uint64(15)]
    text[device == 0] = 0
    return text.view("S13").ravel()


def _minor_units(payments: Payments, price_index: float, rng: np.random.Generator) -> Ints:
    """Prices as they are: notes of 20 from machines, transfers often in tens, many shop prices ending in .99."""
    n = len(payments)
    amount = payments.amount * price_index
    u = rng.random(n)
    minor = np.rint(amount * 100)
    minor = np.where(u < 0.25, np.floor(amount) * 100 + 99, minor)
    minor = np.where(u > 0.88, np.maximum(np.rint(amount), 1) * 100, minor)
    is_transfer = (payments.way == TRANSFER) & (u < 0.6)
    minor = np.where(is_transfer, np.maximum(np.rint(amount / 10), 1) * 1000, minor)
    minor = np.where(payments.way == ATM, np.maximum(np.rint(amount / 20), 1) * 2000, minor)
    minor = np.where(payments.amount == 0, 0, np.maximum(minor, 30))
    return np.minimum(minor, MAX_AMOUNT_MINOR).astype(np.int64)
