"""Kernels that write one customer's own history as words, and take it back. The layout is `customer_record`'s.

A record names merchants, devices and countries by their place in its own tables, so that it holds in any other state.
No feature arithmetic in here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fraud_pipeline.domain.feature_layout import (
    DAY_WORDS,
    DAYS,
    EVENT_WORDS,
    EVENTS,
    NEVER,
    NOTHING,
    PAIRS_USED,
)
from fraud_pipeline.domain.feature_lists import borrowed, compiled, entry_point, first_word, pair_slot, push, unowned
from fraud_pipeline.domain.feature_own_history import derive_customer
from fraud_pipeline.domain.feature_spec import KEPT_EVENTS, STATE_HORIZON_US

HEADER_WORDS: Final = 11
"""Two of the schema, which Python writes; three times, two coordinates, four pairs of counts."""
STORED_EVENT_WORDS: Final = 3
"""time; amount; merchant << 32 | device + 1 << 16 | country + 1"""
STORED_DAY_WORDS: Final = 3
"""day << 32 | count; sum; max"""
MERCHANTS_KEPT: Final = 4_096
"""Merchants that a record names: those of the kept events (1,024 at most) and the newest of the others. A person knows
some dozens; without a bound a script that visits every shop would have megabytes written at each of its payments."""
MASK: Final = 0xFFFFFFFF

# What a recorder knows of a customer, beside the state: the merchants that it ever saw there, as a chain.
CHAIN, SEEN_TO, SEEN_FIRST = range(3)
# What the marks of an entity hold: when it was last marked as named, its place in the table, when as chained.
NAMED, PLACE, CHAINED = range(3)
# The recorder's counters.
STAMP_OF_MARKS, CHAINED_USED, CHAINED_FREE, LEFT_OUT = range(4)


@entry_point
def chain_pairs(pairs, chains, entries, counters, only):
    """Chain the merchants of every pair (of customer `only`, unless that is -1) to their customers."""
    for i in range(pairs.shape[0]):
        if pairs[i, 0] != NOTHING and (only < 0 or pairs[i, 0] >> 32 == only):
            link(chains, entries, counters, pairs[i, 0] >> 32, pairs[i, 0] & MASK)


@compiled
def link(chains, entries, counters, slot, merchant):
    """Put a merchant at the head of the customer's chain."""
    entry = counters[CHAINED_FREE]
    if entry >= 0:
        counters[CHAINED_FREE] = entries[entry, 1]
    else:
        entry = counters[CHAINED_USED]
        counters[CHAINED_USED] += 1
    entries[entry, 0] = merchant
    entries[entry, 1] = chains[slot, CHAIN]
    chains[slot, CHAIN] = entry


@entry_point
def write_records(
    state, slots, chains, entries, counters, marks, names, octets, words, bytes_of_words, found, ends, start
):
    """Write the records of `slots[start:]`, one after the other; returns how many are written before room runs out.

    `names` [entities, 2] is where the name of an entity lies in `octets`; `found` [3, n] is scratch. `ends[i]` is the
    word at which record i ends. -2 - i asks for the pairs of slots[i] to be chained anew, since payments were forgotten
    before they were written.
    """
    state = borrowed(state)
    names, octets, words, bytes_of_words = unowned(names), unowned(octets), unowned(words), unowned(bytes_of_words)
    chains, entries, counters, marks = unowned(chains), unowned(entries), unowned(counters), unowned(marks)
    for i in range(start, slots.shape[0]):
        slot = slots[i]
        customer, lists = state.customers[slot], state.customer_lists
        events = lists[2 * slot + EVENTS, 3]
        began_anew = customer.first_time != chains[slot, SEEN_FIRST]
        seen = customer.dropped if began_anew and customer.dropped == 0 else chains[slot, SEEN_TO]
        if seen < customer.dropped or (began_anew and customer.dropped > 0):
            return -2 - i
        if counters[CHAINED_USED] + events > entries.shape[0]:
            return i
        counters[STAMP_OF_MARKS] += 1
        stamp = counters[STAMP_OF_MARKS]
        devices, countries = name_events(state, slot, marks, found, stamp)
        merchants = found[0, 0]
        merchants = follow_chain(state, slot, chains, entries, counters, marks, found, stamp, merchants)
        chain_new(state, slot, chains, entries, counters, marks, stamp, seen - customer.dropped)
        chains[slot, SEEN_TO], chains[slot, SEEN_FIRST] = customer.dropped + events, customer.first_time
        at = 0 if i == 0 else ends[i - 1]
        end = write_one(
            state, slot, marks, names, octets, words, bytes_of_words, found, at, merchants, devices, countries
        )
        if end < 0:
            return i
        ends[i] = end
    return slots.shape[0]


@compiled
def name_events(state, slot, marks, found, stamp):
    """Mark what the kept events name, each with its place in the record's tables; found[0, 0] counts the merchants."""
    heap, lists, row = state.heap, state.customer_lists, 2 * slot + EVENTS
    at = first_word(lists, row, EVENT_WORDS)
    merchants, devices, countries = 0, 0, 0
    for _ in range(lists[row, 3]):
        merchant, device, country = heap[at + 2] >> 32, (heap[at + 2] & MASK) - 1, heap[at + 3]
        merchants = named(marks, found, 0, merchant, merchants, stamp)
        devices = named(marks, found, 1, device, devices, stamp)
        countries = named(marks, found, 2, country, countries, stamp)
        at += EVENT_WORDS
    customer = state.customers[slot]
    devices = named(marks, found, 1, customer.last_device, devices, stamp)
    countries = named(marks, found, 2, customer.last_country, countries, stamp)
    found[0, 0] = merchants
    return devices, countries


@compiled
def named(marks, found, table, entity, count, stamp):
    """Give an entity a place in a table, unless it has one; returns how many the table has then."""
    if entity < 0 or marks[entity, NAMED] == stamp:
        return count
    marks[entity, NAMED] = stamp
    marks[entity, PLACE] = count
    found[table, 1 + count] = entity
    return count + 1


@compiled
def follow_chain(state, slot, chains, entries, counters, marks, found, stamp, merchants):
    """Name the chained merchants that the customer can still be said to know; unlink the others."""
    oldest = state.customers[slot].last_time - STATE_HORIZON_US
    entry, before = chains[slot, CHAIN], np.int64(NOTHING)
    while entry >= 0:
        merchant, after = entries[entry, 0], entries[entry, 1]
        if last_there(state, slot, merchant) < oldest:
            if before < 0:
                chains[slot, CHAIN] = after
            else:
                entries[before, 1] = after
            entries[entry, 1] = counters[CHAINED_FREE]
            counters[CHAINED_FREE] = entry
        else:
            marks[merchant, CHAINED] = stamp
            if merchants < MERCHANTS_KEPT:
                merchants = named(marks, found, 0, merchant, merchants, stamp)
            elif marks[merchant, NAMED] != stamp:
                counters[LEFT_OUT] += 1
            before = entry
        entry = after
    return merchants


@compiled
def chain_new(state, slot, chains, entries, counters, marks, stamp, first):
    """Chain the merchants of the kept events from `first` on that are not chained yet."""
    heap, lists, row = state.heap, state.customer_lists, 2 * slot + EVENTS
    at = first_word(lists, row, EVENT_WORDS)
    for i in range(max(first, 0), lists[row, 3]):
        merchant = heap[at + i * EVENT_WORDS + 2] >> 32
        if marks[merchant, CHAINED] != stamp:
            marks[merchant, CHAINED] = stamp
            link(chains, entries, counters, slot, merchant)


@compiled
def last_there(state, slot, merchant):
    """When the customer last paid at the merchant; NEVER where that is not known."""
    return state.pairs[pair_slot(state.pairs, (np.int64(slot) << 32) | merchant), 1]


@compiled
def write_one(state, slot, marks, names, octets, words, bytes_of_words, found, at, merchants, devices, countries):
    """Write one record from word `at` on; returns the word at which it ends, -1 where it would not fit."""
    customer, heap, lists = state.customers[slot], state.heap, state.customer_lists
    events, days = lists[2 * slot + EVENTS, 3], lists[2 * slot + DAYS, 3]
    letters = np.int64(0)
    for table, count in ((0, merchants), (1, devices), (2, countries)):
        for i in range(count):
            letters += names[found[table, 1 + i], 1] + 1
    end = at + HEADER_WORDS + events * STORED_EVENT_WORDS + days * STORED_DAY_WORDS + merchants + (letters + 7) // 8
    if end > words.shape[0]:
        return -1
    header = at + 2
    words[header], words[header + 1], words[header + 2] = customer.first_time, customer.last_time, customer.located_at
    coordinates = words[header + 3 : header + 5].view(np.float64)
    coordinates[0], coordinates[1] = customer.latitude, customer.longitude
    device = NOTHING if customer.last_device < 0 else marks[customer.last_device, PLACE]
    country = NOTHING if customer.last_country < 0 else marks[customer.last_country, PLACE]
    words[header + 5] = ((country + 1) << 32) | (device + 1)
    words[header + 6] = (days << 32) | events
    words[header + 7] = (devices << 32) | merchants
    words[header + 8] = (letters << 32) | countries
    at += HEADER_WORDS
    old = first_word(lists, 2 * slot + EVENTS, EVENT_WORDS)
    for _ in range(events):
        device, country = (heap[old + 2] & MASK) - 1, heap[old + 3]
        words[at], words[at + 1] = heap[old], heap[old + 1]
        words[at + 2] = marks[heap[old + 2] >> 32, PLACE] << 32
        if device >= 0:
            words[at + 2] |= (marks[device, PLACE] + 1) << 16
        if country >= 0:
            words[at + 2] |= marks[country, PLACE] + 1
        at += STORED_EVENT_WORDS
        old += EVENT_WORDS
    old = first_word(lists, 2 * slot + DAYS, DAY_WORDS)
    for _ in range(days):
        words[at], words[at + 1], words[at + 2] = (heap[old] << 32) | heap[old + 1], heap[old + 2], heap[old + 3]
        at += STORED_DAY_WORDS
        old += DAY_WORDS
    for i in range(merchants):
        words[at] = last_there(state, slot, found[0, 1 + i])
        at += 1
    byte = 8 * at
    words[end - 1] = 0  # what the names leave of their last word
    for table, count in ((0, merchants), (1, devices), (2, countries)):
        for i in range(count):
            where, length = names[found[table, 1 + i], 0], names[found[table, 1 + i], 1]
            for letter in range(length):
                bytes_of_words[byte + letter] = octets[where + letter]
            bytes_of_words[byte + length] = 0
            byte += length + 1
    return end


@entry_point
def forget_pairs(pairs, slots):
    """Let these customers know no merchant."""
    for i in range(pairs.shape[0]):
        for slot in slots:
            if pairs[i, 0] != NOTHING and pairs[i, 0] >> 32 == slot:
                pairs[i, 1] = NEVER


@entry_point
def load_record(state, slot, words, merchants, devices, countries):
    """Put a record into a customer's slot, all but the pairs. The heap must have room."""
    state = borrowed(state)
    words = unowned(words)
    customer, heap, lists = state.customers[slot], state.heap, state.customer_lists
    header = 2
    customer.first_time, customer.last_time = words[header], words[header + 1]
    customer.located_at = words[header + 2]
    coordinates = words[header + 3 : header + 5].view(np.float64)
    customer.latitude, customer.longitude = coordinates[0], coordinates[1]
    device, country = words[header + 5] & MASK, words[header + 5] >> 32
    customer.last_device = devices[device - 1] if device > 0 else NOTHING
    customer.last_country = countries[country - 1] if country > 0 else NOTHING
    customer.habit_day = NEVER
    events, days = words[header + 6] & MASK, words[header + 6] >> 32
    for row in range(2 * slot, 2 * slot + 2):
        lists[row, 2] = 0
        lists[row, 3] = 0
    at = HEADER_WORDS
    for _ in range(events):
        new = push(heap, state.allocator, lists, 2 * slot + EVENTS, EVENT_WORDS)
        device, country = (words[at + 2] >> 16) & 0xFFFF, words[at + 2] & 0xFFFF
        heap[new], heap[new + 1] = words[at], words[at + 1]
        heap[new + 2] = merchants[words[at + 2] >> 32] << 32
        if device > 0:
            heap[new + 2] |= devices[device - 1] + 1
        heap[new + 3] = countries[country - 1] if country > 0 else NOTHING
        at += STORED_EVENT_WORDS
    for _ in range(days):
        new = push(heap, state.allocator, lists, 2 * slot + DAYS, DAY_WORDS)
        heap[new], heap[new + 1] = words[at] >> 32, words[at] & MASK
        heap[new + 2], heap[new + 3] = words[at + 1], words[at + 2]
        at += STORED_DAY_WORDS
    derive_customer(state, slot)


@entry_point
def load_pairs(state, slot, times, merchants, start):
    """Let the customer know these merchants since these times; returns where the table had no room for more."""
    state = borrowed(state)
    for i in range(start, times.shape[0]):
        if times[i] != NEVER:
            key = (np.int64(slot) << 32) | merchants[i]
            pair = pair_slot(state.pairs, key)
            if state.pairs[pair, 0] == NOTHING:
                if 2 * (state.clock[PAIRS_USED] + 1) > state.pairs.shape[0]:
                    return i
                state.pairs[pair, 0] = key
                state.clock[PAIRS_USED] += 1
            state.pairs[pair, 1] = times[i]
    return times.shape[0]


FOUND_SHAPE: Final = (3, MERCHANTS_KEPT + KEPT_EVENTS + 2)
