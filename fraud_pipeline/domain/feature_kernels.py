"""The only feature arithmetic: `read_event` and `apply_event` / `apply_label`, compiled once for every executor.

Reads change nothing but derived caches, so they may run in any order and be thrown away; what they return depends on
the payment, its customer's own past and closed minutes of the shared entities. Semantics: docs/features.md.
"""

from __future__ import annotations

import math

import numpy as np

from fraud_pipeline.domain.feature_layout import (
    CATEGORY,
    CHANNEL,
    CUSTOMER,
    DAY_WORDS,
    DAYS,
    DEVICE,
    ENTITY,
    EVENT_WORDS,
    EVENTS,
    EVENTS_SEEN,
    LABELS_SEEN,
    LARGEST_BLOCK,
    MARK_WORDS,
    MARKS,
    MINUTE_WORDS,
    NEVER,
    PAIRS_USED,
    WATERMARK,
)
from fraud_pipeline.domain.feature_lists import compiled, first_word, pair_home, prefetch, push, room_needed
from fraud_pipeline.domain.feature_own_history import apply_to_customer, own_time, read_customer
from fraud_pipeline.domain.feature_shared_state import (
    apply_to_entity,
    derive_as_of,
    entity_slot,
    fold,
    labelled_slot,
    last_readable_minute,
    oldest_open_minute,
    read_device,
    read_merchant,
    read_share,
)
from fraud_pipeline.domain.feature_spec import (
    BUSINESS_HOURS,
    HOUR_US,
    INDEX,
    LATE_READ_US,
    MATURITY_HOURS,
    MINUTE_US,
    NIGHT_ENDS,
)

BUSINESS_FROM, BUSINESS_TO = BUSINESS_HOURS
CUSTOMER_BYTES, ENTITY_BYTES = CUSTOMER.itemsize, ENTITY.itemsize

F_AMOUNT = INDEX["amount"]
F_CATEGORY = INDEX["category_fraud_share_30d"]
F_HOUR = INDEX["hour"]


@compiled
def has_room(state, event):
    """Whether the heap and the pair table can take this event whatever happens; else nothing may be changed yet."""
    if 2 * (state.clock[PAIRS_USED] + 1) > state.pairs.shape[0]:
        return False
    if state.allocator[0] + 17 * (2 * state.allocator[LARGEST_BLOCK] + 256) <= state.heap.shape[0]:
        return True
    need = room_needed(state.customer_lists, 2 * event.customer + EVENTS, EVENT_WORDS)
    need += room_needed(state.customer_lists, 2 * event.customer + DAYS, DAY_WORDS)
    for kind in range(DEVICE + 1):
        slot = entity_slot(event, kind)
        if slot >= 0:
            for which in range(3):
                need += room_needed(state.entity_lists, 3 * slot + which, MINUTE_WORDS)
    return state.allocator[0] + need <= state.heap.shape[0]


@compiled
def has_room_for_label(state, label):
    """Whether the heap can take this label whatever happens."""
    need = 0
    for kind in range(DEVICE):
        slot = labelled_slot(label, kind)
        if slot >= 0:
            for which in range(3):
                need += room_needed(state.entity_lists, 3 * slot + which, MARK_WORDS)
    return state.allocator[0] + need <= state.heap.shape[0]


@compiled
def read_event(state, event, out):
    """All features of the event, from what came before it, into `out` (float32 [features])."""
    t = own_time(state, event)
    ts = shared_time(state, t)
    read_own(state, event, t, out)
    read_shared(state, event, ts, out)


@compiled
def shared_time(state, t):
    """The time as of which shared state is read: the customer's, but not more than LATE_READ behind the writer's newest."""
    return max(t, state.clock[WATERMARK] - LATE_READ_US)


@compiled
def read_own(state, event, t, out):
    """What depends on the payment and its customer alone: amount, own history at time `t`, calendar."""
    amount = event.amount / 100.0
    out[F_AMOUNT] = amount
    out[F_AMOUNT + 1] = math.log1p(amount)
    out[F_AMOUNT + 2] = 1.0 if event.amount % 100 == 0 else 0.0
    read_customer(state, event, t, out)
    local = event.time // 1_000_000 + event.utc_offset_s
    hour = local // 3600 % 24
    weekday = (local // 86400 + 3) % 7
    out[F_HOUR] = hour
    out[F_HOUR + 1] = weekday
    out[F_HOUR + 2] = 1.0 if weekday >= 5 else 0.0
    out[F_HOUR + 3] = 1.0 if hour < NIGHT_ENDS else 0.0
    out[F_HOUR + 4] = 1.0 if weekday < 5 and BUSINESS_FROM <= hour < BUSINESS_TO else 0.0


@compiled
def read_shared(state, event, ts, out):
    """What depends on the shared entities, as of `ts`: merchant, category, country, channel, device."""
    minute = last_readable_minute(ts)
    derive_as_of(state, event, (minute + 1) // 60)
    read_merchant(state, event.merchant, minute, ts, event.amount / 100.0, out)
    for kind in range(CATEGORY, CHANNEL + 1):
        out[F_CATEGORY + kind - CATEGORY] = read_share(state, entity_slot(event, kind), minute)
    read_device(state, event.device, minute, out)


@compiled
def apply_event(state, event):
    """Take the event into the customer's history and the shared entities."""
    t = own_time(state, event)
    watermark = max(state.clock[WATERMARK], event.time)
    state.clock[WATERMARK] = watermark
    state.clock[EVENTS_SEEN] += 1
    for kind in range(DEVICE + 1):
        slot = entity_slot(event, kind)
        if slot >= 0:
            apply_to_entity(state, slot, kind, event, watermark)
    apply_to_customer(state, event, t)


@compiled
def apply_label(state, label):
    """Take a label change into the shared entities of its transaction."""
    state.clock[LABELS_SEEN] += 1
    if label.change == 0:
        return
    watermark = state.clock[WATERMARK]
    minute = label.known_at // MINUTE_US
    if watermark != NEVER:
        minute = max(minute, oldest_open_minute(watermark))
    matured = label.event_time // HOUR_US + MATURITY_HOURS
    for kind in range(DEVICE):
        slot = labelled_slot(label, kind)
        if slot >= 0:
            state.entities[slot].kind = kind
            if watermark != NEVER:
                fold(state, slot, watermark)
            # Known long after the newest payment, a label still counts from then on: the entity must not be forgotten.
            state.entities[slot].touched = max(state.entities[slot].touched, minute * MINUTE_US)
            at = push(state.heap, state.allocator, state.entity_lists, 3 * slot + MARKS, MARK_WORDS)
            state.heap[at] = minute
            state.heap[at + 1] = matured
            state.heap[at + 2] = label.change


@compiled
def fetch_records(state, event):
    """Ask for the records of an event that comes soon: they lie anywhere, and waiting for them is most of the time."""
    for byte in range(0, CUSTOMER_BYTES, 64):
        prefetch(state.customers, event.customer, byte)
    for byte in range(0, ENTITY_BYTES, 64):
        prefetch(state.entities, event.merchant, byte)
    prefetch(state.customer_lists, 2 * event.customer, 0)
    prefetch(state.entity_lists, 3 * event.merchant, 0)
    prefetch(state.entity_lists, 3 * event.merchant, 64)
    if event.device >= 0:
        for byte in range(0, ENTITY_BYTES, 64):
            prefetch(state.entities, event.device, byte)
        prefetch(state.entity_lists, 3 * event.device, 0)
        prefetch(state.entity_lists, 3 * event.device, 64)


@compiled
def fetch_lists(state, event):
    """Ask for the ends of the lists of an event that comes next but few; its records have arrived by now."""
    lists, row = state.customer_lists, 2 * event.customer
    prefetch(state.heap, first_word(lists, row, EVENT_WORDS), 0)
    prefetch(state.heap, first_word(lists, row, EVENT_WORDS) + lists[row, 3] * EVENT_WORDS, -64)
    prefetch(state.heap, first_word(lists, row, EVENT_WORDS) + lists[row, 3] * EVENT_WORDS, 0)
    customer = state.customers[event.customer]
    prefetch(state.heap, first_word(lists, row, EVENT_WORDS) + (customer.from_7d - customer.dropped) * EVENT_WORDS, 0)
    days = first_word(lists, row + 1, DAY_WORDS)
    prefetch(state.heap, days + customer.habit_from * DAY_WORDS, 0)
    prefetch(state.heap, days + customer.recent_from * DAY_WORDS, 0)
    prefetch(state.heap, days + lists[row + 1, 3] * DAY_WORDS, -32)
    prefetch(state.pairs, pair_home(state.pairs, (np.int64(event.customer) << 32) | np.int64(event.merchant)), 0)
    lists, row, merchant = state.entity_lists, 3 * event.merchant, state.entities[event.merchant]
    prefetch(state.heap, first_word(lists, row, MINUTE_WORDS), 0)
    hours = first_word(lists, row + 1, MINUTE_WORDS)
    prefetch(state.heap, hours + merchant.from_24h * MINUTE_WORDS, 0)
    prefetch(state.heap, hours + merchant.from_7d * MINUTE_WORDS, 0)
    prefetch(state.heap, hours + merchant.from_30d * MINUTE_WORDS, 0)
    prefetch(state.heap, hours + merchant.matured_from_24h * MINUTE_WORDS, 0)
    prefetch(state.heap, hours + merchant.matured_from_7d * MINUTE_WORDS, 0)
    prefetch(state.heap, hours + merchant.matured_from_30d * MINUTE_WORDS, 0)
    prefetch(state.heap, hours + lists[row + 1, 3] * MINUTE_WORDS, -24)
    if event.device >= 0:
        prefetch(state.heap, first_word(lists, 3 * event.device, MINUTE_WORDS), 0)
        prefetch(state.heap, first_word(lists, 3 * event.device + 1, MINUTE_WORDS), 0)
        prefetch(state.heap, first_word(lists, 3 * event.device + 2, MARK_WORDS), 0)
