"""Who lives in the simulated world: customers with habits, merchants with places, prices and visitors.

Everything here is fixed for the life of a world; what somebody does on a day is `simulation_behaviour`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fraud_pipeline.domain import simulation_chance as chance
from fraud_pipeline.domain.simulation_catalogue import (
    ATM,
    CATEGORIES,
    CATEGORY_WAY,
    CITIES,
    CITY_COUNTRY,
    CITY_PLACE,
    ONLINE,
    POS,
    TRANSFER,
    WAYS,
)
from fraud_pipeline.domain.simulation_chance import BEFORE_START, Bools, Floats, Ints
from fraud_pipeline.domain.simulation_config import WorldConfig

EXPLORE: Final = np.array([0.22, 0.30, 0.15, 0.20])
"""Share of payments outside one's usual merchants, by channel: an honest first visit must be ordinary."""
USUAL: Final = (10, 8, 2, 4)
"""How many usual merchants a customer has, by channel."""
MERCHANT_SHARES: Final = (0.58, 0.25, 0.05, 0.12)
NEWCOMERS: Final = 0.08
"""Share of customers who open their account in the world's first year."""
STRANGERS: Final = 40
"""Merchants of the long tail to each known one."""
MERCHANT_CODES: Final = 100_000_000
"""A merchant's number has eight digits."""
CITY_SPREAD_DEG: Final = 0.12
"""Shops and homes scatter around the centre of their city by about 10 km."""


@dataclass(frozen=True, slots=True, eq=False)
class Merchants:
    """Merchants by code, sorted into pools: of each city its shops, then its cash machines; all online; all payees."""

    category: Ints
    way: Ints
    city: Ints
    country: Ints
    latitude: Floats
    longitude: Floats
    price: Floats
    """Log of its prices against its category's."""
    pool_start: Ints
    popularity: Floats
    """Cumulative over codes, so that a draw inside a pool is one search."""
    traffic: Floats
    """Expected honest payments a day."""

    def model(self, merchant: Ints) -> Ints:
        """The merchant itself, or the one that a merchant of the long tail takes after."""
        return merchant % len(self.price)

    def stranger(self, like: Ints, number: Ints) -> Ints:
        """A merchant that the bank has hardly seen, in category and place like a known one; `number` tells them apart."""
        return like + len(self.price) * (1 + number)

    def pick(self, pool: Ints, u: Floats) -> Ints:
        """A merchant of each pool by popularity, from uniform numbers."""
        below = np.concatenate(([0.0], self.popularity))
        low, high = below[self.pool_start[pool]], below[self.pool_start[pool + 1]]
        picked = np.searchsorted(self.popularity, low + u * (high - low), side="right")
        return np.clip(picked, self.pool_start[pool], self.pool_start[pool + 1] - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Customers:
    """Customers by code, with their habits."""

    rate: Floats
    city: Ints
    country: Ints
    latitude: Floats
    longitude: Floats
    spend: Floats
    """Log of what they spend against the median."""
    mix: Floats
    """[customers, ways] share of each channel."""
    shift_h: Floats
    usual: tuple[Ints, ...]
    """By way: [customers, USUAL] merchant codes, the most visited first."""
    phone_life: Floats
    phone_phase: Floats
    has_second: Bools
    household: Ints
    trip_every: Floats
    trip_phase: Floats
    family_city: Ints
    """Where all trips go, or -1."""
    payday: Ints
    joined: Ints
    """Day of the world on which they opened their account; far below 0 for most."""


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """The people and the shops of a world, and how many cities it has."""

    seed: int
    cities: int
    customers: Customers
    merchants: Merchants

    def pools(self, way: Ints, city: Ints) -> Ints:
        """The pool in which somebody who is in `city` and pays this way finds a merchant."""
        at = np.where(way == POS, 2 * city, 2 * city + 1)
        return np.where(
            way < ATM, np.where(way == ONLINE, 2 * self.cities, at), np.where(way == ATM, at, 2 * self.cities + 1)
        )

    def destinations(self, home: Ints, u: Floats, v: Floats, *, abroad: bool) -> Ints:
        """A city other than home for each, by its number of shops, from uniform numbers.

        The first of two draws that lies abroad (or not, as is preferred), else the second.
        """
        weights = np.cumsum([c.shops for c in CITIES[: self.cities]])
        first, second = (np.searchsorted(weights, x * weights[-1], side="right") for x in (u, v))
        first, second = (np.where(city == home, (city + 1) % self.cities, city) for city in (first, second))
        return np.where((CITY_COUNTRY[first] != CITY_COUNTRY[home]) == abroad, first, second)


def usual_slot(way: int, u: Floats) -> Ints:
    """Which of the usual merchants is visited, from uniform numbers: the first twice as often as the second, and so on."""
    weights = np.cumsum(1.0 / np.arange(1, USUAL[way] + 1))
    return np.searchsorted(weights, u * weights[-1], side="right")


def populate(config: WorldConfig) -> Population:
    """Make the people and the merchants of a world."""
    rng = chance.stream(config.seed, chance.POPULATION)
    cities = int(np.clip(config.merchants // 20, 2, len(CITIES)))
    merchants = _merchants(config.merchants, cities, rng)
    newcomers = Population(config.seed, cities, _customers(config, cities, rng), merchants)
    customers = replace(newcomers.customers, usual=tuple(_usual(newcomers, way, rng) for way in range(WAYS)))
    settled = replace(newcomers, customers=customers)
    return replace(settled, merchants=replace(merchants, traffic=_traffic(settled)))


def _pool_sizes(total: int, cities: int) -> Ints:
    """Merchants in each pool; every pool has at least one."""
    weights = np.array([c.shops for c in CITIES[:cities]])
    atms = np.maximum(1, np.floor(MERCHANT_SHARES[ATM] * total * weights / weights.sum())).astype(np.int64)
    online, payees = max(1, int(MERCHANT_SHARES[ONLINE] * total)), max(1, int(MERCHANT_SHARES[TRANSFER] * total))
    left = total - int(atms.sum()) - online - payees
    shops = 1 + np.floor((left - cities) * weights / weights.sum()).astype(np.int64)
    shops[0] += left - shops.sum()
    return np.concatenate((np.stack((shops, atms), axis=1).ravel(), [online, payees]))


def _merchants(total: int, cities: int, rng: np.random.Generator) -> Merchants:
    sizes = _pool_sizes(total, cities)
    pool = np.repeat(np.arange(len(sizes)), sizes)
    pool_way = np.concatenate((np.tile([POS, ATM], cities), [ONLINE, TRANSFER]))
    way = pool_way[pool]
    place = np.where((way == POS) | (way == ATM), pool // 2, 0)
    category = np.empty(total, np.int64)
    popularity = rng.lognormal(0.0, 0.7, total)
    shares = np.array([c.share for c in CATEGORIES])
    for p, size in enumerate(sizes):
        mine = pool == p
        codes = np.flatnonzero(pool_way[p] == CATEGORY_WAY)
        quantiles = (rng.permutation(size) + 0.5) / size
        category[mine] = codes[np.searchsorted(np.cumsum(shares[codes]), quantiles * 0.999 * shares[codes].sum())]
        counts = np.bincount(category[mine], minlength=len(CATEGORIES))
        popularity[mine] *= (shares / np.maximum(counts, 1))[category[mine]]
    online = (way == ONLINE) | (way == TRANSFER)
    scatter = rng.normal(0.0, CITY_SPREAD_DEG, (2, total))
    return Merchants(
        category=category,
        way=way,
        city=np.where(online, -1, place),
        country=CITY_COUNTRY[place],
        latitude=np.where(online, np.nan, CITY_PLACE[place, 0] + scatter[0]),
        longitude=np.where(online, np.nan, CITY_PLACE[place, 1] + scatter[1]),
        price=rng.normal(0.0, 0.22, total),
        pool_start=np.concatenate(([0], np.cumsum(sizes))),
        popularity=np.cumsum(popularity),
        traffic=np.zeros(total),
    )


def _customers(config: WorldConfig, cities: int, rng: np.random.Generator) -> Customers:
    n = config.customers
    homes = np.array([c.homes for c in CITIES[:cities]])
    city = rng.choice(cities, n, p=homes / homes.sum())
    rate = np.maximum(rng.gamma(2.2, 1 / 2.2, n), 0.04)
    night_worker = rng.random(n) < 0.05
    scatter = rng.normal(0.0, CITY_SPREAD_DEG, (2, n))
    every = np.clip(rng.lognormal(np.log(110), 0.6, n), 20, 720)
    weights = np.array([c.shops for c in CITIES[:cities]])
    family = rng.choice(cities, n, p=weights / weights.sum())
    joined = np.where(rng.random(n) < NEWCOMERS, rng.integers(1, 365, n), -BEFORE_START)
    joined[0] = -BEFORE_START
    household = np.arange(n) - (np.arange(n) % 2) * (rng.random(n) < 0.3)
    return Customers(
        rate=rate * (config.rate / rate.mean()),
        city=city,
        country=CITY_COUNTRY[city],
        latitude=CITY_PLACE[city, 0] + scatter[0],
        longitude=CITY_PLACE[city, 1] + scatter[1],
        spend=rng.normal(0.0, 0.40, n),
        mix=rng.dirichlet((5.6, 3.4, 0.6, 0.5), n),
        shift_h=rng.normal(0.0, 1.2, n) + night_worker * rng.uniform(8.0, 11.0, n),
        usual=(),
        phone_life=rng.lognormal(np.log(300), 0.4, n),
        phone_phase=rng.uniform(0, 1000, n),
        has_second=rng.random(n) < 0.4,
        household=household,
        trip_every=np.where(rng.random(n) < 0.35, np.inf, every),
        trip_phase=rng.uniform(0, 1000, n),
        family_city=np.where((rng.random(n) < 0.35) & (family != city), family, -1),
        payday=rng.choice([1, 10, 15, 25, 28], n),
        joined=joined,
    )


def _usual(population: Population, way: int, rng: np.random.Generator) -> Ints:
    """Everybody's usual merchants of a channel: shops and cash machines of the home city."""
    n, slots = len(population.customers.rate), USUAL[way]
    city = np.repeat(population.customers.city, slots)
    pool = population.pools(np.full(n * slots, way), city)
    return population.merchants.pick(pool, rng.random(n * slots)).reshape(n, slots)


def _traffic(population: Population) -> Floats:
    """Expected honest payments a day at each merchant, trips aside."""
    customers, merchants = population.customers, population.merchants
    total = len(merchants.price)
    traffic = np.zeros(total)
    share = np.diff(merchants.popularity, prepend=0.0)
    pool = np.repeat(np.arange(len(merchants.pool_start) - 1), np.diff(merchants.pool_start))
    share /= np.bincount(pool, share)[pool]
    for way in range(WAYS):
        volume = customers.rate * customers.mix[:, way]
        slots = 1.0 / np.arange(1, USUAL[way] + 1)
        visits = np.outer(volume * (1 - EXPLORE[way]), slots / slots.sum())
        traffic += np.bincount(customers.usual[way].ravel(), visits.ravel(), minlength=total)
        theirs = population.pools(np.full(len(volume), way), customers.city)
        traffic += share * np.bincount(theirs, volume * EXPLORE[way], minlength=pool[-1] + 1)[pool]
    return traffic
