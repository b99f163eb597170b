"""How far each drift has gone on a day. Before its date a drift changes nothing, not one bit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from fraud_pipeline.domain.simulation_catalogue import ONLINE, POS, TRANSFER, WALLET
from fraud_pipeline.domain.simulation_config import Drift
from fraud_pipeline.domain.simulation_payments import HONEST, Payments

INFLATION_AT_ONCE: Final = 0.10
INFLATION_A_WEEK: Final = 0.025
INFLATION_MOST: Final = 1.0
WALLET_SHARE: Final = 0.30
"""Share of shop and online payments that has moved to the new channel when it has settled."""
WALLET_DAYS: Final = 14
WALLET_FRAUD: Final = 1.7
"""Fraudsters move to a new channel sooner than customers."""
FAULT_SHARE: Final = 0.5
COVID_DAYS: Final = 5


@dataclass(frozen=True, slots=True)
class Levels:
    """The state of the world's drifts on one day; the default is a world without drift."""

    price_index: float = 1.0
    wallet: float = 0.0
    fault: float = 0.0
    covid: float = 0.0


def levels(drifts: tuple[Drift, ...], day: date) -> Levels:
    """How far each drift has gone on `day`."""
    age = {drift.kind: (day - drift.on).days for drift in drifts if drift.on <= day}
    rise = INFLATION_AT_ONCE + INFLATION_A_WEEK * age["inflation"] / 7 if "inflation" in age else 0.0
    return Levels(
        price_index=1.0 + min(rise, INFLATION_MOST),
        wallet=WALLET_SHARE * min(1.0, (age["new_channel"] + 1) / WALLET_DAYS) if "new_channel" in age else 0.0,
        fault=FAULT_SHARE if "sensor_fault" in age else 0.0,
        covid=min(1.0, (age["covid"] + 1) / COVID_DAYS) if "covid" in age else 0.0,
    )


def bend(payments: Payments, level: Levels, rng: np.random.Generator) -> Payments:
    """The day's payments as the new channel and the broken field leave them."""
    if level.wallet:
        payments = _to_wallet(payments, level.wallet, rng)
    if level.fault:
        payments = _break_places(payments, level.fault, rng)
    return payments


def _to_wallet(payments: Payments, share: float, rng: np.random.Generator) -> Payments:
    """Shop and online payments move to a wallet on the phone, which knows the device but no place."""
    chance = share * np.where(payments.kind == HONEST, 1.0, WALLET_FRAUD)
    moves = ((payments.way == POS) | (payments.way == ONLINE)) & (payments.device != 0)
    moves |= (payments.way == POS) & (payments.kind == HONEST)
    moves &= rng.random(len(payments)) < chance
    return payments.with_columns(
        way=np.where(moves, WALLET, payments.way),
        device=np.where(moves & (payments.device == 0), payments.phone, payments.device),
        latitude=np.where(moves, np.nan, payments.latitude),
        longitude=np.where(moves, np.nan, payments.longitude),
    )


def _break_places(payments: Payments, share: float, rng: np.random.Generator) -> Payments:
    """Half the payments that had a place arrive without country and at 0 N 0 E: allowed by the contract, and wrong."""
    broken = (payments.way != TRANSFER) & ~np.isnan(payments.latitude) & (rng.random(len(payments)) < share)
    return payments.with_columns(
        country=np.where(broken, -1, payments.country),
        latitude=np.where(broken, 0.0, payments.latitude),
        longitude=np.where(broken, 0.0, payments.longitude),
    )
