"""What a run of the loop is: its world, its drift, its pace, and what it must show."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from typing import Any, Final, Literal

from fraud_pipeline.domain.feature_spec import SCHEMA_HASH
from fraud_pipeline.domain.simulation_config import Drift, WorldConfig

Kind = Literal["inflation", "new_fraud", "new_channel", "covid", "stable", "sensor_fault"]
KINDS: Final[tuple[Kind, ...]] = ("inflation", "new_fraud", "new_channel", "covid", "stable", "sensor_fault")
PROMOTED: Final = ("inflation", "new_fraud", "new_channel", "covid")
"""Kinds that end in a promotion; the others must not start a training."""
ENDED_DAYS_AGO: Final = 85
"""When the history ended: live payments may be 90 days old, and five more are for a cached history to be used again."""
MOST_LIVE_DAYS: Final = 80


@dataclass(frozen=True)
class Warm:
    """A history with a champion, as it is kept between runs: all that decides its content."""

    customers: int = 1_000
    merchants: int = 400
    days: int = 75
    rate: float = 1.7
    fraud_rate: float = 0.012
    seed: int = 7

    @property
    def settings(self) -> dict[str, str]:
        """What training, gates and decisions go by in this world."""
        return {
            "FRAUD_SEED": str(self.seed),
            "FRAUD_ALERT_BUDGET": f"{self.fraud_rate * 0.8:g}",  # as the default's: a little below the share of fraud
            "FRAUD_MIN_PERIOD_FRAUDS": "60",
        }

    def world(self, end: date) -> WorldConfig:
        return WorldConfig(
            end=end, customers=self.customers, merchants=self.merchants, days=self.days, rate=self.rate,
            fraud_rate=self.fraud_rate, seed=self.seed,
        )  # fmt: skip

    def name(self, end: date) -> str:
        """A hash of everything that the history and its champion follow from."""
        known = {**asdict(self), "end": str(end), "settings": self.settings}
        known |= {"features": SCHEMA_HASH}  # an older ledger is migrated when it is opened
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Plan:
    """`calm_days` pass before the drift. `day_s`: seconds that a simulated day takes, when nobody holds it up; the clock waits
    where more than `ahead` ended days are not yet in the store, since a real day leaves a day for that.
    """

    kind: Kind = "inflation"
    warm: Warm = Warm()
    calm_days: int = 2
    day_s: float = 8.0
    ahead: int = 4
    rest_share: float = 0.1
    partitions: int = 4
    longest_days: int = 60
    quiet_days: int = 28
    """How long a world that must start no training is watched."""
    later_days: int = 10
    """Days after the swap on which both champions are compared."""
    kill: str = ""
    fault: str = ""
    sabotage: bool = True
    webserver: bool = False
    sensor_interval_s: int = 4

    @property
    def promotes(self) -> bool:
        return self.kind in PROMOTED

    def live_world(self, end: date) -> WorldConfig:
        """The history's world gone on past its end, with the drift in it; equal to it, to the last bit, before the drift."""
        history = self.warm.world(end)
        drifts = () if self.kind == "stable" else (Drift(self.kind, end + timedelta(days=self.calm_days)),)
        days = MOST_LIVE_DAYS
        return replace(history, end=end + timedelta(days=days), days=history.days + days, drifts=drifts)

    def drift_on(self, end: date) -> date:
        """The drift's first day; of a stable world, where it would have been."""
        return end + timedelta(days=self.calm_days)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


QUICK: Final = Plan(
    kind="covid",
    warm=Warm(customers=400, merchants=150, days=50, rate=2.0, fraud_rate=0.02),
    calm_days=0,
    day_s=2.0,
    ahead=9,
    later_days=2,
    sensor_interval_s=2,
)
"""The smallest world and the strongest drift: a week of it is a verdict, so that one range of days, one report and one training do."""
