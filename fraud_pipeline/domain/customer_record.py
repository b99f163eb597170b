"""One customer's own history as bytes that hold in any other state: what a view of the state is made of.

A record has everything that the customer's own features read (kept events, day buckets, known merchants) and the names of
the merchants, devices and countries in it. Features read after a load are those read before it, bit for bit.

Layout, little-endian words of 8 bytes: format and feature schema as 16 letters; first, last and located time (µs);
latitude, longitude; counts; events (time, amount, references into the tables of names); day buckets; the last time at each
merchant; the names, each ended by a zero byte. Knows nothing of where records are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_customer_record import (
    CHAIN,
    CHAINED_FREE,
    CHAINED_USED,
    FOUND_SHAPE,
    HEADER_WORDS,
    LEFT_OUT,
    SEEN_FIRST,
    STORED_DAY_WORDS,
    STORED_EVENT_WORDS,
    chain_pairs,
    forget_pairs,
    load_pairs,
    load_record,
    write_records,
)
from fraud_pipeline.domain.feature_layout import (
    COUNTRY,
    DAY_WORDS,
    DEVICE,
    EVENT_WORDS,
    MERCHANT,
    NEVER,
    NOTHING,
    PAIRS_USED,
    SMALLEST_BLOCK,
    grown,
)
from fraud_pipeline.domain.feature_spec import SCHEMA_HASH
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError

FORMAT: Final = "own1"
"""Raised with the layout."""
PREFIX: Final = (FORMAT + SCHEMA_HASH).encode()
_PREFIX_WORDS: Final = np.frombuffer(PREFIX, "<i8")
_REMEDY: Final = "It is written anew when its writer has rebuilt the view (`fraud state rebuild`)."

I64 = npt.NDArray[np.int64]
if len(PREFIX) != 16 or np.little_endian is False:
    raise AssertionError("a record begins with 16 letters, and its words are little-endian")


class CustomerRecords:
    """Writes records of one state's customers. Make another one for another state; one thread at a time."""

    def __init__(self, state: FeatureState) -> None:
        self._state = state
        self._counters = np.array([0, 0, NOTHING, 0], np.int64)
        self._chains = _blank_chains(len(state.arrays.customers))
        self._entries = np.empty((max(1_024, 2 * int(state.arrays.clock[PAIRS_USED])), 2), np.int64)
        self._marks = np.zeros((len(state.arrays.entities), 3), np.int64)
        self._names = np.zeros((len(state.arrays.entities), 2), np.int64)
        self._octets = bytearray()
        self._known = [0] * len(state.entities)
        self._found = np.empty(FOUND_SHAPE, np.int64)
        self._words = np.empty(16_384, np.int64)
        chain_pairs(state.arrays.pairs, self._chains, self._entries, self._counters, NOTHING)
        self._chains[:, SEEN_FIRST] = state.arrays.customers["first_time"]
        lists = state.arrays.customer_lists
        self._chains[:, 1] = state.arrays.customers["dropped"] + lists[0::2, 3]

    @property
    def merchants_left_out(self) -> int:
        """Known merchants that had no room in their customer's record, counted at each record."""
        return int(self._counters[LEFT_OUT])

    def of(self, customer_ids: Iterable[str]) -> list[bytes]:
        """The records of customers that the state knows."""
        slots = np.array([self._state.customers[each] for each in customer_ids], np.int64)
        self._follow_state()
        ends = np.zeros(len(slots), np.int64)
        octets, done = np.frombuffer(self._octets, np.uint8), 0
        while done < len(slots):
            stopped = write_records(
                self._state.arrays, slots, self._chains, self._entries, self._counters, self._marks, self._names,
                octets, self._words, self._words.view(np.uint8), self._found, ends, done,
            )  # fmt: skip
            if stopped <= -2:
                done = -2 - stopped
                self._chain_anew(int(slots[done]))
            elif stopped < len(slots):
                done = stopped
                self._make_room()
            else:
                done = stopped
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        for word, half in enumerate(_PREFIX_WORDS):
            self._words[starts + word] = half
        view = memoryview(self._words.view(np.uint8))  # type: ignore[arg-type]  # numpy 2 arrays are buffers
        return [bytes(view[8 * a : 8 * b]) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _follow_state(self) -> None:
        """Make room for customers and entities that the state has met since, and learn their names."""
        arrays = self._state.arrays
        if len(self._chains) < len(arrays.customers):
            self._chains = np.vstack([self._chains, _blank_chains(len(arrays.customers) - len(self._chains))])
        if len(self._marks) < len(arrays.entities):
            self._marks = np.vstack([self._marks, np.zeros((len(arrays.entities) - len(self._marks), 3), np.int64)])
            self._names = np.vstack([self._names, np.zeros((len(arrays.entities) - len(self._names), 2), np.int64)])
        for kind, slots in enumerate(self._state.entities):
            fresh = len(slots) - self._known[kind]
            if fresh:
                for name in islice(reversed(slots), fresh):
                    letters = name.encode()
                    self._names[slots[name]] = len(self._octets), len(letters)
                    self._octets += letters
                self._known[kind] = len(slots)

    def _make_room(self) -> None:
        if self._counters[CHAINED_USED] + 1_024 > len(self._entries):
            self._entries = np.vstack([self._entries, np.empty_like(self._entries)])
        else:
            self._words = np.concatenate([self._words, np.empty_like(self._words)])

    def _chain_anew(self, slot: int) -> None:
        """So much came since the last record that payments were forgotten again: look the merchants up in the pairs."""
        entry = int(self._chains[slot, CHAIN])
        while entry >= 0:
            following = int(self._entries[entry, 1])
            self._entries[entry, 1] = self._counters[CHAINED_FREE]
            self._counters[CHAINED_FREE] = entry
            entry = following
        arrays = self._state.arrays
        pairs = arrays.pairs[arrays.pairs[:, 0] >> 32 == slot]
        while self._counters[CHAINED_USED] + len(pairs) > len(self._entries):
            self._make_room()
        customer = arrays.customers[slot]
        self._chains[slot] = NOTHING, customer["dropped"] + arrays.customer_lists[2 * slot, 3], customer["first_time"]
        chain_pairs(np.ascontiguousarray(pairs), self._chains, self._entries, self._counters, slot)


def load_customers(state: FeatureState, records: Sequence[tuple[str, bytes]]) -> None:
    """Put records into a state; a customer that the state has already is replaced, wholly.

    Takes nothing into the shared state, the counters or the watermark. StateError where a record is not whole or of another
    schema; then no customer is changed.
    """
    opened = [(customer_id, *_opened(customer_id, content)) for customer_id, content in records]
    held = [state.customers[customer_id] for customer_id, *_ in opened if customer_id in state.customers]
    held = [slot for slot in held if state.arrays.customers["last_time"][slot] != NEVER]
    if held:
        forget_pairs(state.arrays.pairs, np.array(held, np.int64))
    for customer_id, words, counts, names in opened:
        slot = state.customer_slot(customer_id)
        merchants, devices, countries = _slots(state, counts, names)
        needed = EVENT_WORDS * counts[0] + DAY_WORDS * counts[1]
        state.arrays = grown(state.arrays, words=int(state.arrays.allocator[0]) + 4 * needed + 4 * SMALLEST_BLOCK)
        load_record(state.arrays, slot, words, merchants, devices, countries)
        first = HEADER_WORDS + STORED_EVENT_WORDS * counts[0] + STORED_DAY_WORDS * counts[1]
        times, done = words[first : first + counts[2]], 0
        while (done := load_pairs(state.arrays, slot, times, merchants, done)) < len(times):
            state.make_room()


def last_time_us(content: bytes) -> int:
    """When the customer of a record last paid, µs."""
    return int.from_bytes(content[24:32], "little", signed=True)


def _blank_chains(count: int) -> I64:
    chains = np.zeros((count, 3), np.int64)
    chains[:, CHAIN] = NOTHING
    chains[:, SEEN_FIRST] = NEVER
    return chains


def _opened(customer_id: str, content: bytes) -> tuple[I64, list[int], list[bytes]]:
    """The words, the counts (events, days, merchants, devices, countries) and the names of a record."""
    if content[:16] != PREFIX:
        found = content[:16]
        told = (
            f"is of schema {found[4:].decode()} ({found[:4].decode()}), this code reads {SCHEMA_HASH} ({FORMAT})"
            if len(found) == 16 and found.isascii() and found.isalnum()
            else "is not one: it does not begin with its schema"
        )
        raise StateError(f"The record of customer {customer_id} {told}.", remedy=_REMEDY)
    whole = len(content) % 8 == 0 and len(content) >= 8 * HEADER_WORDS
    words: I64 = np.frombuffer(content if whole else b"", "<i8")
    if whole:
        sizes = words[8:11].tolist()
        counts = [sizes[0] & 0xFFFFFFFF, sizes[0] >> 32, sizes[1] & 0xFFFFFFFF, sizes[1] >> 32, sizes[2] & 0xFFFFFFFF]
        letters = sizes[2] >> 32
        first = HEADER_WORDS + STORED_EVENT_WORDS * counts[0] + STORED_DAY_WORDS * counts[1] + counts[2]
        names = content[8 * first : 8 * first + letters].split(b"\0")
        if first + (letters + 7) // 8 == len(words) and len(names) == sum(counts[2:]) + 1:
            return words, counts, names
    raise StateError(f"The record of customer {customer_id} is not whole ({len(content)} bytes).", remedy=_REMEDY)


def _slots(state: FeatureState, counts: list[int], names: list[bytes]) -> tuple[Any, Any, Any]:
    """Slots of the merchants, devices and countries in a state."""
    found, start = [], 0
    for kind, count in ((MERCHANT, counts[2]), (DEVICE, counts[3]), (COUNTRY, counts[4])):
        part = names[start : start + count]
        found.append(np.array([state.entity_slot(kind, name.decode()) for name in part], np.int64))
        start += count
    return found[0], found[1], found[2]


def warm() -> None:
    """Compile (or load) the kernels of records with one made-up customer."""
    state = FeatureState.empty()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    state.update(Transaction("warm", moment, "warm", "warm", 100))
    content = [("warm", CustomerRecords(state).of(["warm"])[0])]
    for _ in range(2):  # the second time there is something to replace
        load_customers(state, content)
