"""What honest people do on a day: how often, where, when, how much and with which device.

Some of it looks odd on purpose: journeys, new phones, a friend's computer, big purchases, first visits, bursts of
small payments. Every function of a day is a function of the world and the day alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from fraud_pipeline.domain import simulation_chance as chance
from fraud_pipeline.domain.simulation_catalogue import (
    ATM,
    CATEGORIES,
    CATEGORY_HOURS,
    CATEGORY_LOG_MEDIAN,
    CATEGORY_SPREAD,
    CATEGORY_WAY,
    CATEGORY_WIDTH,
    CITY_COUNTRY,
    CITY_PLACE,
    ONLINE,
    POS,
    TRANSFER,
    WAYS,
)
from fraud_pipeline.domain.simulation_chance import Bools, Floats, Hashes, Ints
from fraud_pipeline.domain.simulation_drift import Levels
from fraud_pipeline.domain.simulation_payments import DAY_S, DEVICE_BITS, HONEST, Payments
from fraud_pipeline.domain.simulation_population import EXPLORE, STRANGERS, Population, usual_slot

WEEKDAYS: Final = (0.95, 0.93, 0.95, 1.00, 1.14, 1.15, 0.88)
MONTHS: Final = (0.93, 0.94, 0.98, 0.99, 1.00, 1.02, 1.03, 1.00, 0.98, 0.99, 1.03, 1.20)
HOLIDAYS: Final = {(1, 1): 0.55, (12, 24): 0.9, (12, 25): 0.45, (12, 26): 0.7}
GIFT_AMOUNTS: Final = 1.18
"""December purchases against the rest of the year."""
AFTER_PAYDAY: Final = (4, 1.22, 0.967)
"""For four days people pay more often; the rest of the month makes up for it."""
BURST: Final = 0.10
BIG_PURCHASE: Final = 0.005
VERIFICATION: Final = 0.004
"""Share of online payments of 0, by which a shop checks a card."""
COUNTRY_MISSING: Final = 0.02
ONLINE_PLACE: Final = 0.5
RARE_SHOP: Final = 0.10
RARE_SHOP_AWAY: Final = 0.30
"""Share of first visits, at home and on a journey, that go to a merchant of the long tail."""
VPN: Final = 0.015
NO_DEVICE: Final = 0.10
ODD_DEVICE: Final = 0.012
"""A cleared browser or a borrowed machine, never seen again."""
PUBLIC_DEVICE: Final = 0.004
"""A library's or a hotel's computer: shared by strangers, and honest."""
POS_DEVICE: Final = 0.20
SECOND_DEVICE: Final = 0.35
_COVID_LEFT: Final = np.array([c.covid for c in CATEGORIES])


@dataclass(frozen=True, slots=True)
class Today:
    """A day of a world: its number from the world's start (below 0 before it), its date, and how far the drifts are."""

    index: int
    date: date
    level: Levels

    @property
    def activity(self) -> float:
        """How much is bought against an average day: weekday, month and holidays."""
        day = self.date
        return WEEKDAYS[day.weekday()] * MONTHS[day.month - 1] * HOLIDAYS.get((day.month, day.day), 1.0)


def whereabouts(world: Population, day: int) -> Ints:
    """The city in which each customer is on a day: home, or away on a journey."""
    people = world.customers
    since = np.mod(day + people.trip_phase, people.trip_every)
    trip = np.floor_divide(day + people.trip_phase, people.trip_every).astype(np.int64)
    who = np.arange(len(people.rate))
    nights = 2 + 8 * chance.uniform(world.seed, 11, who, trip) ** 1.5
    u, v = chance.uniform(world.seed, 12, who, trip), chance.uniform(world.seed, 14, who, trip)
    elsewhere = world.destinations(people.city, u, v, abroad=False)
    target = np.where(people.family_city >= 0, people.family_city, elsewhere)
    return np.where((since < nights) & np.isfinite(people.trip_every), target, people.city)


def own_device(world: Population, customer: Ints, day: Ints, *, second: Bools) -> Hashes:
    """A customer's phone, which is replaced every year or so, or the household's second device."""
    people = world.customers
    number = ((day + people.phone_phase[customer]) // people.phone_life[customer]).astype(np.int64)
    phone = chance.hashed(world.seed, 21, customer, number)
    shared = chance.hashed(world.seed, 22, people.household[customer])
    return (np.where(second, shared, phone) & DEVICE_BITS) | np.uint64(1)


def hours_of(category: Ints, shift_h: Floats, rng: np.random.Generator) -> Floats:
    """Seconds since midnight at which something of a category is bought by people whose day is shifted by `shift_h`."""
    n = len(category)
    hump = (rng.random(n) < 0.55).astype(np.int64)
    hours = CATEGORY_HOURS[category, hump] + CATEGORY_WIDTH[category] * rng.standard_normal(n) + shift_h
    awake = rng.random(n) < 0.985
    return np.mod(np.where(awake, hours, rng.uniform(0, 24, n)), 24.0) * 3600.0


def ordinary_amounts(
    world: Population, customer: Ints, merchant: Ints, category: Ints, rng: np.random.Generator
) -> Floats:
    """Log-normal by category, customer and merchant; major units."""
    spread = CATEGORY_SPREAD[category] * rng.standard_normal(len(category))
    price = world.merchants.price[world.merchants.model(merchant)]
    return np.exp(CATEGORY_LOG_MEDIAN[category] + world.customers.spend[customer] + price + spread)


def honest_payments(world: Population, today: Today) -> Payments:
    """All honest payments of a day, in the order of the customers."""
    rng = chance.stream(world.seed, chance.PAYMENTS, today.index + chance.BEFORE_START)
    away = whereabouts(world, today.index) if today.level.covid < 1 else world.customers.city
    if 0 < today.level.covid < 1:
        stays = chance.uniform(world.seed, 13, np.arange(len(away))) < today.level.covid
        away = np.where(stays, world.customers.city, away)
    customer = _who_pays(world, today, rng)
    way = _ways(world, today, customer, rng)
    merchant = _shops(world, customer, way, away[customer], rng)
    category = world.merchants.category[world.merchants.model(merchant)]
    kept = rng.random(len(customer)) < 1 - today.level.covid * (1 - _COVID_LEFT[category])
    customer, way, merchant, category = (column[kept] for column in (customer, way, merchant, category))
    seconds = _moments(world, today, customer, category, rng)
    amount = _amounts(world, today, customer, merchant, category, rng)
    device, phone = _devices(world, today, customer, way, rng)
    country, latitude, longitude = places(world, customer, merchant, way, away[customer], rng)
    nobody = np.full(len(customer), -1)
    return Payments(
        at_s=today.index * DAY_S + seconds,
        customer=customer,
        merchant=merchant,
        category=category,
        way=way,
        amount=amount,
        country=country,
        device=device,
        phone=phone,
        latitude=latitude,
        longitude=longitude,
        kind=np.full(len(customer), HONEST),
        campaign=nobody,
        began=nobody,
    )


def _who_pays(world: Population, today: Today, rng: np.random.Generator) -> Ints:
    people = world.customers
    days_since_pay = np.mod(today.date.day - people.payday, 30)
    length, more, less = AFTER_PAYDAY
    rate = people.rate * np.where(days_since_pay < length, more, less) * today.activity
    return np.repeat(np.arange(len(rate)), rng.poisson(np.where(people.joined <= today.index, rate, 0.0)))


def _ways(world: Population, today: Today, customer: Ints, rng: np.random.Generator) -> Ints:
    mix = world.customers.mix
    if today.level.covid:
        left = np.array([0.85, 1.7, 0.4, 1.1])
        mix = mix * (1 + today.level.covid * (left - 1))
        mix = mix / mix.sum(axis=1, keepdims=True)
    below = np.cumsum(mix, axis=1)[customer, : WAYS - 1]
    return (rng.random(len(customer))[:, None] > below).sum(axis=1)


def _shops(world: Population, customer: Ints, way: Ints, city: Ints, rng: np.random.Generator) -> Ints:
    """Mostly the usual ones; otherwise, and on a journey, one by its popularity."""
    n = len(customer)
    abroad = (city != world.customers.city[customer]) & ((way == POS) | (way == ATM))
    explores = (rng.random(n) < EXPLORE[way]) | abroad
    u = rng.random(n)
    merchant = world.merchants.pick(world.pools(way, city), u)
    rare = explores & (rng.random(n) < np.where(abroad, RARE_SHOP_AWAY, RARE_SHOP))
    merchant = np.where(rare, world.merchants.stranger(merchant, rng.integers(0, STRANGERS, n)), merchant)
    for w in range(WAYS):
        rows = np.flatnonzero((way == w) & ~explores)
        merchant[rows] = world.customers.usual[w][customer[rows], usual_slot(w, u[rows])]
    return merchant


def _moments(world: Population, today: Today, customer: Ints, category: Ints, rng: np.random.Generator) -> Floats:
    """Seconds since midnight; one in ten follows on the heels of the same customer's payment before it."""
    later = 1.5 * today.level.covid
    seconds = hours_of(category, world.customers.shift_h[customer] + later, rng)
    follows = np.flatnonzero((customer[1:] == customer[:-1]) & (rng.random(max(len(customer) - 1, 0)) < BURST)) + 1
    seconds[follows] = seconds[follows - 1] + rng.exponential(420.0, len(follows))
    return np.minimum(seconds, DAY_S - 1e-3)


def _amounts(
    world: Population, today: Today, customer: Ints, merchant: Ints, category: Ints, rng: np.random.Generator
) -> Floats:
    n = len(customer)
    amount = ordinary_amounts(world, customer, merchant, category, rng)
    way = CATEGORY_WAY[category]
    goods = (way == POS) | (way == ONLINE)
    if today.date.month == 12:
        amount = np.where(goods, amount * GIFT_AMOUNTS, amount)
    u = rng.random((3, n))
    amount = np.where(u[0] < BIG_PURCHASE, amount * (3 + 7 * u[1]), amount)
    return np.where((way == ONLINE) & (u[2] < VERIFICATION), 0.0, amount)


def _devices(
    world: Population, today: Today, customer: Ints, way: Ints, rng: np.random.Generator
) -> tuple[Hashes, Hashes]:
    """The device of each payment (0 where there is none) and the customer's phone."""
    n = len(customer)
    day = np.full(n, today.index)
    u, v = rng.random((2, n))
    second = world.customers.has_second[customer] & (v < SECOND_DEVICE)
    own = own_device(world, customer, day, second=second)
    phone = own_device(world, customer, day, second=np.zeros(n, np.bool_))
    odd = rng.integers(1, 2**48, n, dtype=np.uint64)
    place = (v * 8).astype(np.int64) + 8 * world.customers.city[customer]
    public = (chance.hashed(world.seed, 23, place) & DEVICE_BITS) | np.uint64(1)
    remote = np.where(u < ODD_DEVICE, odd, own)
    remote = np.where(u > 1 - PUBLIC_DEVICE, public, remote)
    remote = np.where((u > ODD_DEVICE) & (u < ODD_DEVICE + NO_DEVICE), np.uint64(0), remote)
    in_shop = np.where((way == POS) & (u < POS_DEVICE), phone, np.uint64(0))
    return np.where((way == ONLINE) | (way == TRANSFER), remote, in_shop), phone


def places(
    world: Population, customer: Ints, merchant: Ints, way: Ints, city: Ints, rng: np.random.Generator
) -> tuple[Ints, Floats, Floats]:
    """Country and coordinates: of the shop; online of the customer's connection from `city`; of a transfer no coordinates."""
    n, shop = len(customer), world.merchants.model(merchant)
    u, v, w = rng.random((3, n))
    foreign = CITY_COUNTRY[(w * world.cities).astype(np.int64)]
    connection = np.where((way == ONLINE) & (u < VPN), foreign, CITY_COUNTRY[city])
    physical = (way == POS) | (way == ATM)
    country = np.where(physical, world.merchants.country[shop], connection)
    country = np.where(v < COUNTRY_MISSING, -1, country)
    seen = (way == ONLINE) & (v > 1 - ONLINE_PLACE) & (u >= VPN)
    blur = 0.3 * rng.standard_normal((2, n))
    latitude = np.where(seen, CITY_PLACE[city, 0] + blur[0], world.merchants.latitude[shop])
    longitude = np.where(seen, CITY_PLACE[city, 1] + blur[1], world.merchants.longitude[shop])
    unplaced = physical & (v < 2 * COUNTRY_MISSING)
    return country, np.where(unplaced, np.nan, latitude), np.where(unplaced, np.nan, longitude)
