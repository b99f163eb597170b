"""Fraud as campaigns: who is hit, where, when and for how much. One function makes one campaign of its kind.

A campaign is a function of the world, its kind, the day it began and its number, so that any day of the world can be
made without the days before it. Amounts and hours overlap with honest ones; what gives a kind away is said at each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from fraud_pipeline.domain import simulation_behaviour as behaviour
from fraud_pipeline.domain.simulation_catalogue import ATM, ONLINE, POS, TRANSFER, categories_of
from fraud_pipeline.domain.simulation_chance import Floats
from fraud_pipeline.domain.simulation_payments import DAY_S
from fraud_pipeline.domain.simulation_population import MERCHANT_CODES, STRANGERS
from fraud_pipeline.domain.simulation_scene import (
    HOUR_S,
    Deeds,
    Scene,
    boldness,
    first_move_s,
    new_devices,
    partly_strange,
    typical_amount,
    victims_of,
    without_some,
)

COMPROMISED_DAYS: Final = (24, 45)
LONGEST_DAYS: Final = 46
"""No campaign lasts longer: a day looks this far back for the ones that still run."""
_PAYEE: Final = int(categories_of("payee", way=TRANSFER)[0])
_RETAIL: Final = int(categories_of("retail", way=ONLINE)[0])
_GOODS: Final = categories_of("electronics", "fashion", "grocery", "fuel", "home", "hotel", way=POS)


def card_testing(scene: Scene, rng: np.random.Generator) -> Deeds:
    """Stolen card numbers are tried with tiny amounts at one small online shop, and those that work are used for more.

    Given away by bursts of tiny first payments, a crowd of customers at the shop, a machine that several cards share.
    """
    cards = int(rng.integers(4, 13))
    tries = rng.integers(2, 6, cards)
    victims = victims_of(scene, cards, rng)
    shop = scene.online_small[rng.integers(0, len(scene.online_small))]
    start = first_move_s(rng) + np.cumsum(rng.exponential(400.0, cards))
    row = np.repeat(np.arange(cards), tries)
    at = np.repeat(start, tries) + rng.exponential(150.0, len(row))
    tiny = np.where(rng.random(len(row)) < 0.15, 0.0, rng.lognormal(np.log(2.2), 0.7, len(row)))
    cashed = np.flatnonzero(rng.random(cards) < 0.45)
    cashed = np.repeat(cashed, rng.integers(1, 3, len(cashed)))
    later = start[cashed] + 600.0 + rng.exponential(9 * HOUR_S, len(cashed))
    shops = scene.online_resale[rng.integers(0, len(scene.online_resale), len(cashed))]
    loot = typical_amount(scene, victims[cashed], shops) * rng.lognormal(np.log(2.2), 0.5, len(cashed))
    machine = new_devices(cards, rng)[np.arange(cards) // int(rng.integers(3, 9))]
    device = without_some(machine[np.concatenate((row, cashed))], 0.25, rng)
    return Deeds(
        at_s=np.concatenate((at, later)),
        customer=victims[np.concatenate((row, cashed))],
        merchant=np.concatenate((np.full(len(row), shop), shops)),
        amount=np.concatenate((tiny, loot)),
        device=device,
        proxied=0.75,
    )


def account_takeover(scene: Scene, rng: np.random.Generator) -> Deeds:
    """Somebody logs in as the customer: goods that resell and transfers to accomplices, over hours or a few days.

    Given away by a device never seen with the customer, new merchants, and amounts above the customer's own.
    """
    count = int(rng.integers(4, 11))
    victim = np.repeat(victims_of(scene, 1, rng), count)
    night_s = DAY_S * np.floor(rng.uniform(0.0, float(rng.integers(1, 4)), count))
    at: Floats = night_s + first_move_s(rng) + np.sort(rng.exponential(1.2 * HOUR_S, count))
    moves_money = rng.random(count) < 0.4
    shops = scene.online_resale[rng.integers(0, len(scene.online_resale), count)]
    merchant = np.where(moves_money, scene.payees[rng.integers(0, len(scene.payees), count)], shops)
    merchant = partly_strange(scene, merchant, 0.3, rng)
    amount = typical_amount(scene, victim, merchant) * boldness(4.0, rng) * rng.lognormal(0.0, 0.5, count)
    device = np.repeat(new_devices(1, rng), count)
    return Deeds(at, victim, merchant, amount, without_some(device, 0.10, rng), proxied=0.65, own_share=0.08)


def compromised_merchant(scene: Scene, rng: np.random.Generator) -> Deeds:
    """A shop's terminal or checkout is tampered with: for weeks, customers who could well be there are charged ordinary amounts.

    Each payment looks honest. Given away only by the shop's share of fraud, once chargebacks come in.
    """
    world = scene.world
    merchant = int(scene.skimmable[rng.integers(0, len(scene.skimmable))])
    days = int(rng.integers(COMPROMISED_DAYS[0], COMPROMISED_DAYS[1] + 1))
    count = int(rng.poisson(skimmed_a_day(world.merchants.traffic[merchant]) * days))
    city = int(world.merchants.city[merchant])
    near = scene.holders if city < 0 else scene.holders[world.customers.city[scene.holders] == city]
    near = near if len(near) else scene.holders
    weights = np.cumsum(world.customers.rate[near])
    victim = near[np.searchsorted(weights, rng.random(count) * weights[-1], side="right")]
    shop = np.full(count, merchant)
    category = world.merchants.category[shop]
    seconds = behaviour.hours_of(category, world.customers.shift_h[victim], rng)
    amount = behaviour.ordinary_amounts(world, victim, shop, category, rng) * rng.lognormal(np.log(1.9), 0.4, count)
    return Deeds(rng.integers(0, days, count) * DAY_S + seconds, victim, shop, amount)


def skimmed_a_day(traffic: Floats) -> Floats:
    """Frauds a day at a compromised merchant of such honest traffic: more than the honest ones."""
    return np.clip(1.8 * traffic, 0.6, 60.0)


def stolen_card(scene: Scene, rng: np.random.Generator) -> Deeds:
    """The card itself is used in shops and cash machines of another city while its owner goes on paying at home.

    Given away by distance, speed and a country that is not the customer's; a journey looks alike at first.
    """
    world = scene.world
    count = int(rng.integers(4, 12))
    victim = np.repeat(victims_of(scene, 1, rng), count)
    home = world.customers.city[victim[:1]]
    city = np.repeat(world.destinations(home, rng.random(1), rng.random(1), abroad=True), count)
    at = first_move_s(rng) + np.sort(rng.uniform(0, float(rng.uniform(1, 14)) * HOUR_S, count))
    way = np.where(rng.random(count) < 0.22, ATM, POS)
    tries = world.merchants.pick(np.repeat(world.pools(way, city), 3), rng.random(3 * count)).reshape(count, 3)
    resells = np.isin(world.merchants.category[tries], _GOODS)
    merchant = tries[np.arange(count), np.argmax(resells, axis=1)]
    rises = boldness(3.6, rng) * (1.0 + np.linspace(0.0, 0.8, count))
    merchant = partly_strange(scene, merchant, 0.4, rng)
    amount = typical_amount(scene, victim, merchant) * rises * rng.lognormal(0.0, 0.4, count)
    return Deeds(at, victim, merchant, amount, np.zeros(count, np.uint64))


def fraud_ring(scene: Scene, rng: np.random.Generator) -> Deeds:
    """A few machines work through a list of customers at a few shops, for one to three weeks.

    Given away by devices that many customers share and, later, by the shops' share of fraud.
    """
    members = int(rng.integers(10, 21))
    uses = rng.integers(1, 4, members)
    row = np.repeat(np.arange(members), uses)
    victim = victims_of(scene, members, rng)[row]
    days = float(rng.uniform(6, 20))
    at = np.repeat(rng.uniform(0, days, members), uses) * DAY_S + rng.exponential(5 * HOUR_S, len(row))
    seconds = behaviour.hours_of(np.full(len(row), _RETAIL), np.ones(len(row)), rng)
    at = np.floor(at / DAY_S) * DAY_S + seconds
    shops = scene.online_resale[rng.integers(0, len(scene.online_resale), int(rng.integers(1, 4)))]
    merchant = shops[rng.integers(0, len(shops), len(row))]
    machines = new_devices(int(rng.integers(1, 3)), rng)
    device = without_some(machines[rng.integers(0, len(machines), len(row))], 0.12, rng)
    amount = typical_amount(scene, victim, merchant) * rng.lognormal(np.log(1.6), 0.5, len(row))
    return Deeds(at, victim, merchant, amount, device, proxied=0.85)


def slow_low_value(scene: Scene, rng: np.random.Generator) -> Deeds:
    """A card number is milked for small sums at ordinary online shops, every other day for weeks.

    Hides on purpose: the amounts, the hours and the country are the customer's own. Most of it is not found.
    """
    days = float(rng.uniform(18, 44))
    count = 2 + int(rng.poisson(days / 2.2))
    victim = np.repeat(victims_of(scene, 1, rng), count)
    shops = scene.online_small[rng.integers(0, len(scene.online_small), 2)]
    merchant = shops[(rng.random(count) < 0.3).astype(np.int64)]
    seconds = behaviour.hours_of(scene.world.merchants.category[merchant], np.zeros(count), rng)
    at = np.floor(rng.uniform(0, days, count)) * DAY_S + seconds
    amount = rng.lognormal(np.log(13.0), 0.5, count)
    return Deeds(at, victim, merchant, amount, np.zeros(count, np.uint64), own_share=0.35)


def push_payment_scam(scene: Scene, rng: np.random.Generator) -> Deeds:
    """Customers are talked into transferring money to a mule's fresh account themselves (the drift `new_fraud` only).

    Own device, own place, daytime. Given away by a payee new to everybody who receives large transfers from several.
    """
    count = int(rng.integers(5, 13))
    uses = rng.integers(1, 4, count)
    victim = np.repeat(victims_of(scene, count, rng), uses)
    n = len(victim)
    days = float(rng.uniform(3, 12))
    at = np.repeat(np.floor(rng.uniform(0, days, count)), uses) * DAY_S
    at = at + behaviour.hours_of(np.full(n, _PAYEE), np.zeros(n), rng)
    like = scene.payees[rng.integers(0, len(scene.payees), 1)]
    fresh = rng.integers(STRANGERS, MERCHANT_CODES // len(scene.world.merchants.price) - 1, 1)
    mule = np.repeat(scene.world.merchants.stranger(like, fresh), n)
    spend = np.exp(scene.world.customers.spend[victim])
    amount = spend * rng.lognormal(np.log(750.0), 0.7, n)
    return Deeds(at, victim, mule, amount)


Campaign = Callable[[Scene, np.random.Generator], Deeds]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fraud: its share of all frauds and the mean number of payments in a campaign (tested to hold)."""

    name: str
    make: Campaign
    share: float
    mean_size: float


KINDS: Final = (
    Kind("card_testing", card_testing, 0.18, 33.4),
    Kind("account_takeover", account_takeover, 0.22, 7.0),
    Kind("compromised_merchant", compromised_merchant, 0.18, 0.0),
    Kind("stolen_card", stolen_card, 0.21, 7.5),
    Kind("fraud_ring", fraud_ring, 0.16, 30.0),
    Kind("slow_low_value", slow_low_value, 0.05, 16.1),
    Kind("push_payment_scam", push_payment_scam, 0.50, 17.0),
)
KIND_NAMES: Final = tuple(kind.name for kind in KINDS)
COMPROMISED: Final = KIND_NAMES.index("compromised_merchant")
NEW_FRAUD: Final = KIND_NAMES.index("push_payment_scam")
