"""Payments of a simulated world as request bodies of now: fresh ids, event times of this moment, a world's own habits.

Knows the simulation and JSON; nothing of HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson

from fraud_pipeline.domain.simulation import World, WorldConfig

Clock = Callable[[], datetime]

TEXTS: Final = ("customer_id", "merchant_id", "currency", "merchant_category", "channel", "country", "device_id")
DAYS_AROUND: Final = 30
"""Of the world's days, so many are told over and over; they are made one by one, as they are needed."""


class SimulatedTraffic:
    """An endless source of payments; every one has an id that no other run has.

    `end` is where the world's own history ended (default: today). The bodies follow `seed`; ids and times do not.
    """

    def __init__(
        self,
        *,
        customers: int = 1_500,
        merchants: int = 600,
        seed: int = 42,
        currency: str = "USD",
        end: date | None = None,
        now: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        end = end or now().date()
        self._world = World(
            WorldConfig(end=end, customers=customers, merchants=merchants, days=1, seed=seed, currency=currency)
        )
        self.run = f"load-{uuid.uuid4().hex[:12]}"
        self._made = 0
        self._payments = self._endless(end)

    def body(self) -> bytes:
        """The next payment, as `POST /score` takes it."""
        return orjson.dumps(self.payment())

    def batch(self, size: int) -> bytes:
        """The next `size` payments, as `POST /score_batch` takes them."""
        return orjson.dumps({"transactions": [self.payment() for _ in range(size)]})

    def payment(self) -> dict[str, Any]:
        """The next payment as JSON values."""
        habit = next(self._payments)
        self._made += 1
        return {"transaction_id": f"{self.run}-{self._made}", "event_time": self._now().isoformat(), **habit}

    def _endless(self, end: date) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            yield from rows_of(self._world.day(end + timedelta(days=offset % DAYS_AROUND)).transactions)
            offset += 1


def rows_of(columns: Any) -> Iterator[dict[str, Any]]:
    """A day's payments without what is not theirs alone: id and time."""
    texts = {name: columns[name].astype(str).tolist() for name in TEXTS}
    amounts = columns["amount_minor"].tolist()
    latitudes, longitudes = columns["latitude"].tolist(), columns["longitude"].tolist()
    placed = (~np.isnan(columns["latitude"])).tolist()
    for row, minor in enumerate(amounts):
        payment: dict[str, Any] = {name: values[row] for name, values in texts.items() if values[row]}
        payment["amount"] = minor / 100
        if placed[row]:
            payment |= {"latitude": latitudes[row], "longitude": longitudes[row]}
        yield payment
