"""A seeded world of payments with fraud in it, made day by day: `simulate(WorldConfig(end=...))`.

Customers have habits, merchants have places and prices, fraud comes as campaigns, labels come late. A day is a function
of the config and the date alone: it is the same whichever days were made before it, so a world can go on past its `end`
(live traffic) and a run can be cut anywhere. Pure numpy; 1 day of payments is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from fraud_pipeline.domain import simulation_chance as chance
from fraud_pipeline.domain.simulation_behaviour import Today, honest_payments
from fraud_pipeline.domain.simulation_campaigns import KIND_NAMES
from fraud_pipeline.domain.simulation_chance import BEFORE_START
from fraud_pipeline.domain.simulation_columns import Columns, label_columns, transaction_columns, truth_columns
from fraud_pipeline.domain.simulation_config import DRIFT_KINDS, WORLD_VERSION, Drift, WorldConfig
from fraud_pipeline.domain.simulation_drift import bend, levels
from fraud_pipeline.domain.simulation_fraud import Underworld
from fraud_pipeline.domain.simulation_payments import DAY_S, HONEST, Payments
from fraud_pipeline.domain.simulation_population import populate

__all__ = ["DRIFT_KINDS", "KIND_NAMES", "WORLD_VERSION", "Drift", "SimulatedDay", "World", "WorldConfig", "simulate"]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedDay:
    """One day. Strings are numpy byte strings (empty = missing), times datetime64[us] in UTC, missing coordinates NaN.

    `transactions`: the columns of the Transaction contract in event order. `labels`: those of this day's frauds that will
    become known, with `known_at` on this or a later day. `truth`: the frauds, with campaign and kind; for analysis only.
    """

    day: date
    transactions: Columns
    labels: Columns
    truth: Columns

    def __len__(self) -> int:
        return len(self.transactions["transaction_id"])


class World:
    """A world whose days can be made in any order, past its end too."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.population = populate(config)
        new_fraud = [(drift.on - config.start).days for drift in config.drifts if drift.kind == "new_fraud"]
        self._underworld = Underworld(
            self.population, fraud_rate=config.fraud_rate, new_fraud_from=new_fraud[0] if new_fraud else None
        )

    def days(self) -> Iterator[SimulatedDay]:
        """The days from the config's start to before its end."""
        for index in range(self.config.days):
            yield self.day(self.config.start + timedelta(days=index))

    def day(self, day: date) -> SimulatedDay:
        """Make one day."""
        today = Today((day - self.config.start).days, day, levels(self.config.drifts, day))
        payments = Payments.together([honest_payments(self.population, today), self._underworld.payments(today.index)])
        seed, number = self.config.seed, today.index + BEFORE_START
        rng = chance.stream(seed, chance.DRIFTS, number)
        payments = bend(payments, today.level, rng)
        day_us = np.floor((payments.at_s - today.index * DAY_S) * 1e6).astype(np.int64)
        order = np.argsort(day_us, kind="stable")
        payments = payments.take(order)
        transactions = transaction_columns(
            payments,
            day,
            day_us=day_us[order],
            price_index=today.level.price_index,
            currency=self.config.currency,
            rng=rng,
        )
        frauds = np.flatnonzero(payments.kind != HONEST)
        return SimulatedDay(
            day=day,
            transactions=transactions,
            labels=label_columns(self.config, transactions, frauds, rng=chance.stream(seed, chance.LABELS, number)),
            truth=truth_columns(self.config.start, transactions, payments, frauds),
        )


def simulate(config: WorldConfig) -> Iterator[SimulatedDay]:
    """The days of a world, lazily."""
    return World(config).days()
