"""Payments of the simulated world as columns of codes, before they get their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np

from fraud_pipeline.domain.simulation_chance import Floats, Hashes, Ints

HONEST: Final = -1
DAY_S: Final = 86_400
DEVICE_BITS: Final = np.uint64(0xFFFF_FFFF_FFFF)
"""A device is named by 48 bits of a hash."""


@dataclass(frozen=True, slots=True, eq=False)
class Payments:
    """Columns of equal length. -1 is a missing country, 0 a missing device, NaN a missing coordinate."""

    at_s: Floats
    """Seconds since the midnight that begins the world."""
    customer: Ints
    merchant: Ints
    category: Ints
    way: Ints
    amount: Floats
    """Major units, before inflation and rounding."""
    country: Ints
    device: Hashes
    phone: Hashes
    """The customer's own phone at that time, whether or not it took part."""
    latitude: Floats
    longitude: Floats
    kind: Ints
    """Code of the fraud's kind, or HONEST."""
    campaign: Ints
    """Number of the campaign within its kind and the day it began on, or -1."""
    began: Ints
    """Day of the world on which the campaign began."""

    def __len__(self) -> int:
        return len(self.at_s)

    def take(self, rows: np.ndarray) -> Self:
        """The rows of an index or a mask."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def with_columns(self, **columns: Any) -> Self:
        return replace(self, **columns)

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})
