"""How feature state lies in memory: structured arrays for entities, and one heap of int64 words for their lists.

Everything in here is plain numpy, so that a snapshot is these arrays and nothing else. A *list* is a row
(offset, words, head, length) in a table of lists; its entries have a fixed stride in words. Blocks are powers of two
and are reused through free lists, so memory follows what is kept.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

NOTHING: Final = -1
NEVER: Final = -(2**62)

EVENT: Final = np.dtype(
    [
        ("time", "i8"), ("amount", "i8"), ("latitude", "f8"), ("longitude", "f8"),
        ("customer", "i4"), ("merchant", "i4"), ("category", "i4"), ("country", "i4"),
        ("channel", "i4"), ("device", "i4"), ("utc_offset_s", "i4"), ("padding", "i4"),
    ]
)  # fmt: skip
"""One transaction with its ids as slots; -1 where the optional id is missing."""

LABEL: Final = np.dtype(
    [
        ("known_at", "i8"), ("event_time", "i8"), ("merchant", "i4"), ("category", "i4"),
        ("country", "i4"), ("channel", "i4"), ("change", "i8"),
    ]
)  # fmt: skip

CUSTOMER: Final = np.dtype(
    [
        ("hash", "i8"), ("first_time", "i8"), ("last_time", "i8"), ("last_device", "i8"), ("last_country", "i8"),
        ("latitude", "f8"), ("longitude", "f8"), ("located_at", "i8"),
        ("sum_30d", "i8"), ("squares_30d", "i8"), ("max_30d", "i8"), ("max_30d_at", "i8"),
        ("from_7d", "i8"), ("sum_7d", "i8"), ("max_7d", "i8"), ("max_7d_at", "i8"),
        ("dropped", "i8"), ("country_at", "i8"), ("other_country_at", "i8"),
        ("habit_day", "i8"), ("habit_from", "i8"), ("recent_from", "i8"), ("recent_to", "i8"),
        ("recent_count", "i8"), ("recent_sum", "i8"), ("recent_max", "i8"),
        ("habit_count", "i8"), ("habit_sum", "i8"), ("habit_max", "i8"),
    ]
)  # fmt: skip
"""From `sum_30d` on all is derived from the lists: windows as of `last_time` (their positions count from the first event
ever kept, of which `dropped` are gone), the times of the newest event in the last country and in any other one, and the
habit as of `habit_day` (positions count in the list of days). `squares_30d` is the sum of squares modulo 2**64."""

ENTITY: Final = np.dtype(
    [
        ("kind", "i8"), ("folded", "i8"), ("settled", "i8"), ("touched", "i8"),
        ("at_hour", "i8"),
        ("from_24h", "i8"), ("from_7d", "i8"), ("from_30d", "i8"),
        ("matured_from_24h", "i8"), ("matured_from_7d", "i8"), ("matured_from_30d", "i8"),
        ("count_24h", "i8"), ("count_7d", "i8"), ("count_30d", "i8"),
        ("sum_24h", "i8"), ("sum_7d", "i8"), ("sum_30d", "i8"),
        ("matured_24h", "i8"), ("matured_7d", "i8"), ("matured_30d", "i8"),
        ("fraud_24h", "i8"), ("fraud_7d", "i8"), ("fraud_30d", "i8"),
        ("first_fraud", "i8"), ("last_fraud", "i8"), ("fraud_hour", "i8"), ("matured_since", "i8"),
    ]
)  # fmt: skip
"""A merchant, category, country, channel or device. From `at_hour` on all is derived from the lists, as of that hour
(NEVER: to be derived); the `from` positions count in the list of hours."""

MERCHANT: Final = 0
CATEGORY: Final = 1
COUNTRY: Final = 2
CHANNEL: Final = 3
DEVICE: Final = 4
ENTITY_KINDS: Final = ("merchant", "category", "country", "channel", "device")

# Lists of a customer (rows 2c, 2c+1) and of an entity (rows 3e, 3e+1, 3e+2), with their strides in words.
EVENTS, DAYS = 0, 1
MINUTES, HOURS, MARKS = 0, 1, 2
EVENT_WORDS: Final = 4
"""time, amount, merchant << 32 | device + 1, country"""
DAY_WORDS: Final = 4
"""day, count, sum, max"""
MINUTE_WORDS: Final = 3
"""minute or hour, count, sum"""
MARK_WORDS: Final = 3
"""a label: minute known, hour matured, change; a device's customer: minute, hash, 0"""

# The allocator: [0] the first word never used, [1 + k] the head of the free list of blocks of 2**k words, [63] the largest
# block ever.
ALLOCATOR_WORDS: Final = 64
LARGEST_BLOCK: Final = 63
SMALLEST_BLOCK: Final = 8

# The counters that travel with the state. CLOSED_THROUGH is the newest minute that a writer closed by the clock (0: none).
WATERMARK, EVENTS_SEEN, LABELS_SEEN, LATE, OVERFLOW, PAIRS_USED, STAMP, CLOSED_THROUGH = range(8)
CLOCK_WORDS: Final = 8


class FeatureArrays(NamedTuple):
    """The state as the kernels see it. Shapes: heap [words], lists [n, 4], pairs [2**k, 2], scratch [entities, 3]."""

    heap: I64
    allocator: I64
    clock: I64
    customers: npt.NDArray[Any]
    customer_lists: I64
    entities: npt.NDArray[Any]
    entity_lists: I64
    pairs: I64
    scratch: I64


def empty_arrays(customers: int = 16, entities: int = 64, words: int = 4096, pairs: int = 64) -> FeatureArrays:
    """Arrays with room for so many customers, entities, heap words and (a power of two) pair slots."""
    allocator = np.full(ALLOCATOR_WORDS, NOTHING, np.int64)
    allocator[0] = allocator[LARGEST_BLOCK] = 0
    clock = np.zeros(CLOCK_WORDS, np.int64)
    clock[WATERMARK] = NEVER
    return FeatureArrays(
        heap=np.zeros(words, np.int64),
        allocator=allocator,
        clock=clock,
        customers=blank_customers(customers),
        customer_lists=np.zeros((2 * customers, 4), np.int64),
        entities=blank_entities(entities),
        entity_lists=np.zeros((3 * entities, 4), np.int64),
        pairs=blank_pairs(pairs),
        scratch=np.zeros((entities, 3), np.int64),
    )


def blank_customers(n: int) -> npt.NDArray[Any]:
    """Customers who have never paid."""
    rows = np.zeros(n, CUSTOMER)
    for name in ("first_time", "last_time", "located_at", "habit_day", "country_at", "other_country_at"):
        rows[name] = NEVER
    rows["last_device"] = rows["last_country"] = NOTHING
    rows["latitude"] = rows["longitude"] = np.nan
    return rows


def blank_entities(n: int) -> npt.NDArray[Any]:
    """Entities that no payment has touched."""
    rows = np.zeros(n, ENTITY)
    rows["folded"] = rows["at_hour"] = rows["touched"] = NEVER
    return rows


def blank_pairs(n: int) -> I64:
    """An empty hash table of (customer << 32 | merchant, last time there)."""
    table = np.empty((n, 2), np.int64)
    table[:, 0] = NOTHING
    table[:, 1] = NEVER
    return table


def grown(arrays: FeatureArrays, *, customers: int = 0, entities: int = 0, words: int = 0) -> FeatureArrays:
    """The same state with room for at least so many customers, entities and heap words (grown by half or more)."""

    def longer(old: npt.NDArray[Any], needed: int, blank: Any) -> npt.NDArray[Any]:
        if needed <= len(old):
            return old
        fresh = blank(max(needed, len(old) + len(old) // 2))
        fresh[: len(old)] = old
        return fresh

    n_customers = len(arrays.customers)
    table = longer(arrays.customers, customers, blank_customers)
    if len(table) != n_customers:
        lists = np.zeros((2 * len(table), 4), np.int64)
        lists[: 2 * n_customers] = arrays.customer_lists
        arrays = arrays._replace(customers=table, customer_lists=lists)
    n_entities = len(arrays.entities)
    table = longer(arrays.entities, entities, blank_entities)
    if len(table) != n_entities:
        lists = np.zeros((3 * len(table), 4), np.int64)
        lists[: 3 * n_entities] = arrays.entity_lists
        scratch = np.zeros((len(table), 3), np.int64)
        arrays = arrays._replace(entities=table, entity_lists=lists, scratch=scratch)
    heap = longer(arrays.heap, words, lambda n: np.zeros(n, np.int64))
    return arrays._replace(heap=heap)
