"""What a campaign of fraud is made of: the scene it can choose from, the deeds it does, and the habits of fraudsters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fraud_pipeline.domain.simulation_catalogue import CATEGORY_LOG_MEDIAN
from fraud_pipeline.domain.simulation_chance import Floats, Hashes, Ints
from fraud_pipeline.domain.simulation_payments import DEVICE_BITS
from fraud_pipeline.domain.simulation_population import STRANGERS, Population

HOUR_S: Final = 3_600.0


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a campaign can choose from on the day it begins."""

    world: Population
    day: int
    holders: Ints
    """Customers who have an account by then."""
    online_small: Ints
    online_resale: Ints
    payees: Ints
    skimmable: Ints
    """Shops and online shops with some traffic, but not the busiest."""


@dataclass(frozen=True, slots=True, eq=False)
class Deeds:
    """A campaign's payments, before places and devices of the victims are filled in. `at_s` counts from the day's midnight."""

    at_s: Floats
    customer: Ints
    merchant: Ints
    amount: Floats
    device: Hashes | None = None
    """None: the victim's own. 0 in it: none."""
    proxied: float = 1.0
    """Share of the connections that look like the victim's; the others come from one foreign city."""
    own_share: float = 0.0
    """Share of payments that borrow the victim's own device all the same."""


def victims_of(scene: Scene, count: int, rng: np.random.Generator) -> Ints:
    """Account holders by chance, one of them perhaps twice."""
    return scene.holders[rng.integers(0, len(scene.holders), count)]


def new_devices(count: int, rng: np.random.Generator) -> Hashes:
    """Devices that nobody has used before."""
    return (rng.integers(1, 2**48, count, dtype=np.uint64) & DEVICE_BITS) | np.uint64(1)


def without_some(device: Hashes, share: float, rng: np.random.Generator) -> Hashes:
    """Leaves the device out of a share of the payments, as a cautious fraudster does."""
    return np.where(rng.random(len(device)) < share, np.uint64(0), device)


def typical_amount(scene: Scene, customer: Ints, merchant: Ints) -> Floats:
    """What the customer would spend on such a thing."""
    category = scene.world.merchants.category[scene.world.merchants.model(merchant)]
    return np.exp(CATEGORY_LOG_MEDIAN[category] + scene.world.customers.spend[customer])


def first_move_s(rng: np.random.Generator) -> float:
    """Seconds after midnight; fraudsters keep all hours, with a liking for the evening and the night."""
    return float(np.mod(rng.normal(23.5, 3.5), 24.0)) * HOUR_S


def partly_strange(scene: Scene, merchant: Ints, share: float, rng: np.random.Generator) -> Ints:
    """Puts merchants of the long tail in the place of some."""
    n = len(merchant)
    strange = scene.world.merchants.stranger(merchant, rng.integers(0, STRANGERS, n))
    return np.where(rng.random(n) < share, strange, merchant)


def boldness(median: float, rng: np.random.Generator) -> float:
    """How far above the victim's own amounts a campaign goes: some stay low to last, some grab what they can."""
    return float(rng.lognormal(np.log(median), 0.8))
