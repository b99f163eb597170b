"""The fixed facts of the simulated world: its cities, and what is bought where, when and for how much.

Amounts are in major units of the world's currency. All clocks of the world run on UTC, so that "at night" means the
same for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fraud_pipeline.domain.transaction import CHANNELS

POS: Final = CHANNELS.index("pos")
ONLINE: Final = CHANNELS.index("online")
ATM: Final = CHANNELS.index("atm")
TRANSFER: Final = CHANNELS.index("transfer")
WALLET: Final = CHANNELS.index("unknown")
"""The channel that the drift `new_channel` brings: upstream has no name for it yet, so it arrives as `unknown`."""
WAYS: Final = 4
"""The channels that exist from the start: pos, online, atm, transfer."""


@dataclass(frozen=True, slots=True)
class City:
    """A place. `homes` weighs how many customers live there, `shops` how many merchants stand there."""

    name: str
    country: str
    latitude: float
    longitude: float
    homes: float
    shops: float


# Home market first and last resort abroad; a small world takes the first few, so countries alternate at the top.
CITIES: Final = (
    City("New York", "US", 40.71, -74.01, 8.0, 8.0),
    City("London", "GB", 51.51, -0.13, 2.0, 3.0),
    City("Los Angeles", "US", 34.05, -118.24, 6.0, 6.0),
    City("Toronto", "CA", 43.65, -79.38, 2.5, 3.0),
    City("Chicago", "US", 41.88, -87.63, 5.0, 5.0),
    City("Paris", "FR", 48.86, 2.35, 0.8, 2.0),
    City("Houston", "US", 29.76, -95.37, 4.0, 4.0),
    City("Mexico City", "MX", 19.43, -99.13, 0.8, 2.0),
    City("Miami", "US", 25.76, -80.19, 3.5, 3.5),
    City("Berlin", "DE", 52.52, 13.40, 0.8, 1.5),
    City("Seattle", "US", 47.61, -122.33, 3.0, 3.0),
    City("Vancouver", "CA", 49.28, -123.12, 1.5, 1.5),
    City("Atlanta", "US", 33.75, -84.39, 3.0, 3.0),
    City("Madrid", "ES", 40.42, -3.70, 0.4, 1.5),
    City("Denver", "US", 39.74, -104.99, 2.5, 2.5),
    City("Istanbul", "TR", 41.01, 28.98, 0.0, 1.2),
    City("Boston", "US", 42.36, -71.06, 2.5, 2.5),
    City("Rome", "IT", 41.90, 12.50, 0.3, 1.2),
    City("Phoenix", "US", 33.45, -112.07, 2.5, 2.5),
    City("Bangkok", "TH", 13.76, 100.50, 0.0, 1.0),
    City("Dallas", "US", 32.78, -96.80, 3.0, 3.0),
    City("Sao Paulo", "BR", -23.55, -46.63, 0.2, 1.0),
    City("Dubai", "AE", 25.20, 55.27, 0.0, 1.0),
    City("Warsaw", "PL", 52.23, 21.01, 0.2, 0.8),
    City("Lagos", "NG", 6.52, 3.38, 0.0, 0.7),
    City("Bucharest", "RO", 44.43, 26.10, 0.0, 0.7),
    City("Mumbai", "IN", 19.08, 72.88, 0.1, 0.8),
    City("Tokyo", "JP", 35.68, 139.69, 0.1, 1.0),
)
COUNTRIES: Final = tuple(sorted({city.country for city in CITIES}))
CITY_COUNTRY: Final = np.array([COUNTRIES.index(city.country) for city in CITIES])
CITY_PLACE: Final = np.array([(city.latitude, city.longitude) for city in CITIES])


@dataclass(frozen=True, slots=True)
class Category:
    """Where money goes: its share of its channel's payments, its amounts (log-normal) and its hours (two humps).

    `covid` is the part of it that is left under the drift of that name.
    """

    name: str
    way: int
    share: float
    median: float
    spread: float
    hours: tuple[float, float]
    width: float
    covid: float = 1.0


CATEGORIES: Final = (
    Category("grocery", POS, 0.30, 34.0, 0.60, (11.0, 17.5), 2.2),
    Category("restaurant", POS, 0.18, 24.0, 0.55, (12.8, 19.8), 1.3, 0.3),
    Category("fuel", POS, 0.11, 46.0, 0.30, (8.0, 17.0), 2.0, 0.6),
    Category("pharmacy", POS, 0.07, 19.0, 0.60, (10.5, 16.5), 2.2),
    Category("transport", POS, 0.09, 9.0, 0.60, (8.2, 17.8), 2.0, 0.3),
    Category("fashion", POS, 0.07, 58.0, 0.65, (13.0, 16.5), 2.0, 0.4),
    Category("home", POS, 0.06, 72.0, 0.85, (11.5, 15.5), 2.2),
    Category("entertainment", POS, 0.06, 28.0, 0.60, (19.5, 21.8), 1.5, 0.1),
    Category("electronics", POS, 0.03, 150.0, 0.75, (12.5, 16.5), 2.0, 0.8),
    Category("hotel", POS, 0.03, 170.0, 0.60, (9.0, 18.5), 2.2, 0.2),
    Category("retail", ONLINE, 0.34, 42.0, 0.80, (13.0, 20.5), 2.6),
    Category("digital", ONLINE, 0.20, 9.5, 0.70, (12.0, 20.5), 3.2),
    Category("gaming", ONLINE, 0.12, 7.0, 0.90, (17.0, 22.0), 2.6),
    Category("fashion", ONLINE, 0.12, 55.0, 0.65, (12.5, 20.5), 2.6, 0.8),
    Category("delivery", ONLINE, 0.10, 32.0, 0.45, (12.5, 19.3), 1.6),
    Category("electronics", ONLINE, 0.07, 165.0, 0.75, (13.0, 20.5), 2.6),
    Category("travel", ONLINE, 0.05, 240.0, 0.75, (11.0, 20.5), 2.8, 0.1),
    Category("cash", ATM, 1.00, 80.0, 0.55, (11.5, 17.5), 2.6),
    Category("payee", TRANSFER, 1.00, 150.0, 0.85, (10.0, 18.0), 2.8),
)
CATEGORY_NAMES: Final = tuple(dict.fromkeys(category.name for category in CATEGORIES))

CATEGORY_WAY: Final = np.array([c.way for c in CATEGORIES], np.int8)
CATEGORY_LOG_MEDIAN: Final = np.log([c.median for c in CATEGORIES])
CATEGORY_SPREAD: Final = np.array([c.spread for c in CATEGORIES])
CATEGORY_HOURS: Final = np.array([c.hours for c in CATEGORIES])
CATEGORY_WIDTH: Final = np.array([c.width for c in CATEGORIES])


def categories_of(*names: str, way: int) -> np.ndarray:
    """Codes of the named categories of a channel."""
    return np.array([i for i, c in enumerate(CATEGORIES) if c.way == way and c.name in names], np.int64)
