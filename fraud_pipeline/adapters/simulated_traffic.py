"""Payments of a simulated world as request bodies: fresh ids, a world's own habits, event times of this moment or of the world.

Knows the simulation and JSON; nothing of HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson

from fraud_pipeline.domain.simulation import World, WorldConfig

Clock = Callable[[], datetime]

TEXTS: Final = ("customer_id", "merchant_id", "currency", "merchant_category", "channel", "country", "device_id")
DAYS_AROUND: Final = 30
"""Of the world's days, so many are told over and over where their times do not count; each is made when it is needed."""


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


class SimulatedTraffic:
    """An endless source of payments of the days after a world's end; each has an id that no other run has.

    The bodies follow the world's seed, the ids do not. Payments are of now, or, with `at_their_times`, of when that world
    would have made them, until those catch up with the clock: many payments of now from few customers look like fraud.
    """

    def __init__(self, config: WorldConfig, *, at_their_times: bool = False, now: Clock = utc_now) -> None:
        self._world = World(config)
        self._at_their_times = at_their_times
        self._now = now
        self.run = f"load-{uuid.uuid4().hex[:12]}"
        self._made = 0
        self._payments = self._endless()

    def body(self) -> bytes:
        """The next payment, as `POST /score` takes it."""
        return orjson.dumps(self.payment())

    def batch(self, size: int) -> bytes:
        """The next `size` payments, as `POST /score_batch` takes them."""
        return orjson.dumps({"transactions": [self.payment() for _ in range(size)]})

    def payment(self) -> dict[str, Any]:
        """The next payment as JSON values."""
        simulated_at, habit = next(self._payments)
        self._made += 1
        now = self._now()
        at = min(simulated_at, now) if self._at_their_times else now
        return {"transaction_id": f"{self.run}-{self._made}", "event_time": at.isoformat(), **habit}

    def _endless(self) -> Iterator[tuple[datetime, dict[str, Any]]]:
        offset = 0
        while True:
            days = offset if self._at_their_times else offset % DAYS_AROUND
            yield from rows_of(self._world.day(self._world.config.end + timedelta(days=days)).transactions)
            offset += 1


def rows_of(columns: Any) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """A day's payments with their times, without ids."""
    times = columns["event_time"].astype("datetime64[us]").tolist()
    texts = {name: columns[name].astype(str).tolist() for name in TEXTS}
    amounts = columns["amount_minor"].tolist()
    latitudes, longitudes = columns["latitude"].tolist(), columns["longitude"].tolist()
    placed = (~np.isnan(columns["latitude"])).tolist()
    for row, minor in enumerate(amounts):
        payment: dict[str, Any] = {name: values[row] for name, values in texts.items() if values[row]}
        payment["amount"] = minor / 100
        if placed[row]:
            payment |= {"latitude": latitudes[row], "longitude": longitudes[row]}
        yield times[row].replace(tzinfo=UTC), payment
