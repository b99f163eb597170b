"""Which campaigns run on a day, and their payments with the victims' places and devices filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from fraud_pipeline.domain import simulation_behaviour as behaviour
from fraud_pipeline.domain import simulation_chance as chance
from fraud_pipeline.domain.simulation_campaigns import (
    COMPROMISED,
    COMPROMISED_DAYS,
    KINDS,
    LONGEST_DAYS,
    NEW_FRAUD,
    skimmed_a_day,
)
from fraud_pipeline.domain.simulation_catalogue import ATM, CATEGORY_WAY, ONLINE, POS, TRANSFER, categories_of
from fraud_pipeline.domain.simulation_chance import Hashes, Ints
from fraud_pipeline.domain.simulation_payments import DAY_S, Payments
from fraud_pipeline.domain.simulation_population import Population
from fraud_pipeline.domain.simulation_scene import Deeds, Scene

SKIMMABLE_QUANTILES: Final = (0.08, 0.30)
_SMALL: Final = categories_of("digital", "gaming", "delivery", way=ONLINE)
_RESALE: Final = categories_of("electronics", "fashion", "retail", "travel", way=ONLINE)


class Underworld:
    """All fraud of a world. Keeps the campaigns that may still run; what it returns does not depend on what it keeps."""

    def __init__(self, world: Population, *, fraud_rate: float, new_fraud_from: int | None) -> None:
        self.world = world
        self.new_fraud_from = new_fraud_from
        self._begun: dict[int, Payments] = {}
        self._choices = _choices(world)
        rate = skimmed_a_day(world.merchants.traffic[self._choices["skimmable"]])
        sizes = np.array([kind.mean_size for kind in KINDS])
        sizes[COMPROMISED] = rate.mean() * sum(COMPROMISED_DAYS) / 2
        expected = float(world.customers.rate.sum()) * fraud_rate / (1.0 - fraud_rate)
        # Campaigns of a kind begin at an even pace: a few large ones by chance would drown the others for weeks.
        self._pace = expected * np.array([kind.share for kind in KINDS]) / sizes
        self._phase = chance.stream(world.seed, chance.CAMPAIGNS).random(len(KINDS))

    def payments(self, day: int) -> Payments:
        """The fraudulent payments of a day of the world."""
        oldest = day - LONGEST_DAYS
        self._begun = {began: kept for began, kept in self._begun.items() if oldest < began <= day}
        parts = []
        for began in range(oldest + 1, day + 1):
            if began not in self._begun:
                self._begun[began] = self._campaigns_of(began)
            campaigns = self._begun[began]
            low, high = np.searchsorted(campaigns.at_s, (day * DAY_S, (day + 1) * DAY_S))
            if low < high:
                parts.append(campaigns.take(np.arange(low, high)))
        return Payments.together(parts) if parts else self._begun[day].take(np.zeros(0, np.int64))

    def scene(self, day: int) -> Scene:
        """What campaigns that begin on a day can choose from."""
        holders = np.flatnonzero(self.world.customers.joined <= day)
        return Scene(world=self.world, day=day, holders=holders, **self._choices)

    def _campaigns_of(self, day: int) -> Payments:
        """Every payment of the campaigns that begin on a day, by time."""
        scene = self.scene(day)
        made: list[tuple[int, int, Deeds]] = []
        rng = chance.stream(self.world.seed, chance.CAMPAIGNS, day + chance.BEFORE_START)
        for code, kind in enumerate(KINDS):
            own = rng.spawn(1)[0]
            if code == NEW_FRAUD and (self.new_fraud_from is None or day < self.new_fraud_from):
                continue
            count = int(np.floor(self._pace[code] * (day + 1) + self._phase[code]))
            count -= int(np.floor(self._pace[code] * day + self._phase[code]))
            made.extend((code, number, kind.make(scene, own)) for number in range(count))
        payments = _fill_in(self.world, day, made, rng)
        return payments.take(np.argsort(payments.at_s, kind="stable"))


def _choices(world: Population) -> dict[str, Ints]:
    merchants = world.merchants
    shops = np.flatnonzero((merchants.way == POS) | (merchants.way == ONLINE))
    low, high = np.quantile(merchants.traffic[shops], SKIMMABLE_QUANTILES)
    online = np.flatnonzero(merchants.way == ONLINE)
    busy = (merchants.traffic >= low) & (merchants.traffic <= high)

    def of(categories: Ints) -> Ints:
        chosen = online[np.isin(merchants.category[online], categories)]
        return chosen if len(chosen) else online

    return {
        "online_small": of(_SMALL),
        "online_resale": of(_RESALE),
        "payees": np.flatnonzero(merchants.way == TRANSFER),
        "skimmable": shops[busy[shops]] if busy[shops].any() else shops,
    }


def _fill_in(world: Population, day: int, made: Sequence[tuple[int, int, Deeds]], rng: np.random.Generator) -> Payments:
    """Join campaigns into payments with category, channel, country, place and device."""
    sizes = [len(deeds.at_s) for _, _, deeds in made]
    n = sum(sizes)

    def each(values: ArrayLike, kind: type = np.int64) -> np.ndarray:
        return np.repeat(np.asarray(values, kind), sizes)

    def joined(column: str, kind: type = np.float64) -> np.ndarray:
        return np.concatenate([np.zeros(0, kind), *(getattr(deeds, column) for _, _, deeds in made)])

    customer, merchant = joined("customer", np.int64), joined("merchant", np.int64)
    at_s = day * DAY_S + joined("at_s")
    category = world.merchants.category[world.merchants.model(merchant)]
    way = CATEGORY_WAY[category].astype(np.int64)
    hideout = each(rng.integers(0, world.cities, len(made)))
    proxied = rng.random(n) < each([deeds.proxied for _, _, deeds in made], np.float64)
    city = np.where(proxied, world.customers.city[customer], hideout)
    country, latitude, longitude = behaviour.places(world, customer, merchant, way, city, rng)
    device, phone = _devices(world, customer, way, at_s, made, rng)
    return Payments(
        at_s=at_s,
        customer=customer,
        merchant=merchant,
        category=category,
        way=way,
        amount=joined("amount"),
        country=country,
        device=device,
        phone=phone,
        latitude=latitude,
        longitude=longitude,
        kind=each([code for code, _, _ in made]),
        campaign=each([number for _, number, _ in made]),
        began=np.full(n, day),
    )


def _devices(
    world: Population,
    customer: Ints,
    way: Ints,
    at_s: np.ndarray,
    made: Sequence[tuple[int, int, Deeds]],
    rng: np.random.Generator,
) -> tuple[Hashes, Hashes]:
    """The campaign's devices, or the victims' own where it has none or borrows them; and the victims' phones."""
    n = len(customer)
    nothing = np.zeros(0, np.uint64)
    theirs = [np.zeros(len(d.at_s), np.uint64) if d.device is None else d.device for _, _, d in made]
    sizes = [len(d.at_s) for _, _, d in made]
    borrows = np.repeat(np.array([1.0 if d.device is None else d.own_share for _, _, d in made]), sizes)
    day = np.floor(at_s / DAY_S).astype(np.int64)
    phone = behaviour.own_device(world, customer, day, second=np.zeros(n, np.bool_))
    second = world.customers.has_second[customer] & (rng.random(n) < behaviour.SECOND_DEVICE)
    own = behaviour.own_device(world, customer, day, second=second)
    absent = np.where(way == POS, 1 - behaviour.POS_DEVICE, behaviour.NO_DEVICE)
    own = np.where(rng.random(n) < absent, np.uint64(0), own)
    device = np.where(rng.random(n) < borrows, own, np.concatenate([nothing, *theirs]))
    return np.where(way == ATM, np.uint64(0), device), phone
