"""Chance that can be asked for in any order: seeded streams by purpose and day, and hashes as uniform numbers.

A day's content must not depend on which days were made before it, so nothing here carries state from day to day.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

POPULATION: Final = 1
PAYMENTS: Final = 2
CAMPAIGNS: Final = 3
LABELS: Final = 4
DRIFTS: Final = 5
BEFORE_START: Final = 1_000_000
"""Added to the number of a day: campaigns begin before the world does, and a seed must not be negative."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]


def stream(seed: int, purpose: int, *path: int) -> np.random.Generator:
    """The generator of one purpose and, further, of a day or a campaign kind; independent of all others."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose, *path])))


def hashed(*parts: ArrayLike) -> Hashes:
    """64 bit hash of the (broadcast) parts, by the finalizer of SplitMix64 (Steele, Lea, Flood 2014) chained over them."""
    state: Any = np.uint64(0x9E3779B97F4A7C15)
    for part in parts:
        value = np.atleast_1d(np.asarray(part)).astype(np.uint64)
        state = (state ^ value) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return np.asarray(state, np.uint64)


def uniform(*parts: ArrayLike) -> Floats:
    """`hashed` as numbers in [0, 1)."""
    return (hashed(*parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53
