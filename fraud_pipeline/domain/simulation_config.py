"""What a simulated world is made from: its parameters, checked, and nothing else.

The same `WorldConfig` gives the same world to the last bit, on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from math import isfinite
from typing import Any, Final, Self

from fraud_pipeline.errors import InputError

WORLD_VERSION: Final = 1
"""Raised when the same parameters give another world than before; part of a landed world's fingerprint."""

DRIFT_KINDS: Final = ("inflation", "new_channel", "new_fraud", "sensor_fault", "covid")
MIN_MERCHANTS: Final = 10
"""Shops, online shops, cash machines and payees in two cities need at least this many."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A change of the world that is on from midnight (UTC) of `on`."""

    kind: str
    on: date

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `KIND@YYYY-MM-DD`. Raises InputError with what is wrong and the kinds that exist."""
        kind, at, when = text.partition("@")
        remedy = f"Write KIND@YYYY-MM-DD with a kind of {', '.join(DRIFT_KINDS)}, as inflation@2026-03-01."
        if kind not in DRIFT_KINDS:
            raise InputError(f"drift {text!r}: there is no drift {kind!r}.", remedy=remedy)
        if not at:
            raise InputError(f"drift {text!r} has no date.", remedy=remedy)
        try:
            return cls(kind, date.fromisoformat(when))
        except ValueError as err:
            raise InputError(f"drift {text!r}: {when!r} is not a date.", remedy=remedy) from err

    def __str__(self) -> str:
        return f"{self.kind}@{self.on.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """Parameters of a world. It ends at the midnight (UTC) that begins `end`; raises InputError where they make no sense.

    `rate` is payments per customer and day; `fraud_rate` the share of all payments that is fraud, drifts aside;
    `label_delay_days` the shortest and the longest time until a chargeback; `unlabelled_share` the frauds that get none.
    """

    end: date
    customers: int = 1_500
    merchants: int = 600
    days: int = 120
    rate: float = 1.7
    fraud_rate: float = 0.006
    seed: int = 42
    label_delay_days: tuple[float, float] = (1, 30)
    unlabelled_share: float = 0.05
    drifts: tuple[Drift, ...] = ()
    currency: str = "USD"

    def __post_init__(self) -> None:
        _whole("customers", self.customers, 1, 10_000_000)
        _whole("merchants", self.merchants, MIN_MERCHANTS, 1_000_000)
        _whole("days", self.days, 1, 3_650)
        _whole("seed", self.seed, 0, 2**63 - 1)
        _between("rate", self.rate, 0.001, 1_000)
        _between("fraud_rate", self.fraud_rate, 0, 0.5)
        _between("unlabelled_share", self.unlabelled_share, 0, 1)
        if len(self.label_delay_days) != 2:
            raise _broken(
                "label_delay_days", self.label_delay_days, "must be two numbers: the shortest and the longest delay"
            )
        low, high = self.label_delay_days
        _between("label_delay_days (the shortest)", low, 0, 365)
        _between("label_delay_days (the longest)", high, 0, 365)
        if low > high:
            raise _broken("label_delay_days", self.label_delay_days, "the shortest delay must not exceed the longest")
        self._check_drifts()

    def _check_drifts(self) -> None:
        seen: set[str] = set()
        for drift in self.drifts:
            if drift.kind not in DRIFT_KINDS:
                raise _broken("drifts", drift, f"the kind must be one of {', '.join(DRIFT_KINDS)}")
            if drift.kind in seen:
                raise _broken("drifts", drift, "each kind may be given once")
            if not self.start <= drift.on < self.end:
                raise _broken(
                    "drifts", drift, f"the date must lie in the world, from {self.start} to before {self.end}"
                )
            seen.add(drift.kind)

    @property
    def start(self) -> date:
        """The world's first day."""
        return self.end - timedelta(days=self.days)

    def parameters(self) -> dict[str, Any]:
        """Everything that the world follows from, as plain JSON values."""
        return {
            "world_version": WORLD_VERSION,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "customers": self.customers,
            "merchants": self.merchants,
            "days": self.days,
            "rate": float(self.rate),
            "fraud_rate": float(self.fraud_rate),
            "seed": self.seed,
            "label_delay_days": [float(d) for d in self.label_delay_days],
            "unlabelled_share": float(self.unlabelled_share),
            "drifts": sorted(str(drift) for drift in self.drifts),
            "currency": self.currency,
        }


def _broken(field: str, value: object, rule: str) -> InputError:
    return InputError(f"{field} = {value}: {rule}.", remedy=f"Choose another {field.split(' ', maxsplit=1)[0]}.")


def _whole(field: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _broken(field, value, f"must be a whole number from {low:,} to {high:,}")


def _between(field: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isfinite(value) or not low <= value <= high:
        raise _broken(field, value, f"must be from {low:g} to {high:g}")
