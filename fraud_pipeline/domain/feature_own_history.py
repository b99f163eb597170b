"""Features of a customer's own history, exact over the kept events: velocity, recency, behaviour and habit.

A read only looks; `apply_to_customer` appends. Semantics: docs/features.md.
"""

from __future__ import annotations

import math

import numpy as np

from fraud_pipeline.domain.feature_layout import (
    DAY_WORDS,
    DAYS,
    EVENT_WORDS,
    EVENTS,
    LATE,
    NEVER,
    NOTHING,
    OVERFLOW,
    PAIRS_USED,
    STAMP,
)
from fraud_pipeline.domain.feature_lists import compiled, drop_first, drop_older, first_word, pair_slot, push
from fraud_pipeline.domain.feature_spec import (
    DAY_US,
    EARTH_RADIUS_KM,
    HABIT_DAYS,
    HABIT_RECENT_DAYS,
    HOUR_US,
    INDEX,
    KEPT_EVENTS,
    KEPT_FOR_US,
    SPEED_FLOOR_US,
    STATE_HORIZON_US,
)

NAN = np.nan

F_ZSCORE = INDEX["amount_zscore_30d"]
F_TO_CUSTOMER = INDEX["amount_to_customer_mean_30d"]
F_COUNT = INDEX["customer_count_1h"]
F_SUM = INDEX["customer_amount_sum_1h"]
F_MEAN = INDEX["customer_amount_mean_1h"]
F_MAX = INDEX["customer_amount_max_1h"]
F_RECENCY = INDEX["seconds_since_customer_last"]
F_SAME_MERCHANT = INDEX["seconds_since_same_merchant"]
F_AGE = INDEX["customer_age_seconds"]
F_DISTINCT = INDEX["customer_merchants_24h"]
F_FIRST_TIME = INDEX["first_time_at_merchant"]
F_DEVICE_CHANGED = INDEX["device_changed"]
F_COUNTRY_CHANGED = INDEX["country_changed"]
F_UNUSUAL_COUNTRY = INDEX["unusual_country"]
F_DISTANCE = INDEX["distance_from_last_km"]
F_SPEED = INDEX["speed_from_last_kmh"]
F_HABIT = INDEX["amount_to_habit_mean"]


@compiled
def ratio(numerator, denominator):
    """NaN over zero, never inf."""
    return numerator / denominator if denominator != 0.0 else NAN


@compiled
def haversine_km(latitude, longitude, other_latitude, other_longitude):
    """Great-circle distance between two points in degrees."""
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    a = math.sin((other_phi - phi) / 2.0) ** 2
    a += math.cos(phi) * math.cos(other_phi) * math.sin(math.radians(other_longitude - longitude) / 2.0) ** 2
    return 2.0 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, a)))


@compiled
def own_time(state, event):
    """The time at which the customer's history takes this event: never before its newest."""
    return max(event.time, state.customers[event.customer].last_time)


@compiled
def read_customer(state, event, t, out):
    """Amount, velocity, recency, behaviour and habit of the customer, from before this event."""
    customer = state.customers[event.customer]
    amount = event.amount / 100.0
    pair = pair_slot(state.pairs, (np.int64(event.customer) << 32) | np.int64(event.merchant))
    same_merchant = state.pairs[pair, 1]
    known = customer.last_time != NEVER and t - customer.last_time <= STATE_HORIZON_US
    met = same_merchant != NEVER and t - same_merchant <= STATE_HORIZON_US
    out[F_RECENCY] = (t - customer.last_time) / 1e6 if known else NAN
    out[F_AGE] = min(t - customer.first_time, KEPT_FOR_US) / 1e6 if known else NAN
    out[F_SAME_MERCHANT] = (t - same_merchant) / 1e6 if met else NAN
    out[F_FIRST_TIME] = 0.0 if met else 1.0
    read_velocity(state, event, t, amount, out)
    read_changes(customer, event, t, known, out)
    read_habit(state, event, t, amount, out)


@compiled
def read_velocity(state, event, t, amount, out):
    """Counts, sums, means, maxima over the four windows, distinct things of a day, the z-score and the usual country."""
    customer, heap, row = state.customers[event.customer], state.heap, 2 * event.customer + EVENTS
    first = first_word(state.customer_lists, row, EVENT_WORDS)
    end = first + state.customer_lists[row, 3] * EVENT_WORDS
    read_last_day(state, row, t, out)

    at, total = first + (customer.from_7d - customer.dropped) * EVENT_WORDS, customer.sum_7d
    while at < end and heap[at] <= t - 7 * DAY_US:
        total -= heap[at + 1]
        at += EVENT_WORDS
    largest = customer.max_7d
    if first + (customer.max_7d_at - customer.dropped) * EVENT_WORDS < at:
        largest = largest_amount(heap, at, end)
    write_window(out, 2, (end - at) // EVENT_WORDS, total, largest)

    at, total, squares = first, customer.sum_30d, customer.squares_30d
    while at < end and heap[at] <= t - KEPT_FOR_US:
        total -= heap[at + 1]
        squares -= heap[at + 1] * heap[at + 1]
        at += EVENT_WORDS
    largest = customer.max_30d
    if first + (customer.max_30d_at - customer.dropped) * EVENT_WORDS < at:
        largest = largest_amount(heap, at, end)
    count = (end - at) // EVENT_WORDS
    write_window(out, 3, count, total, largest)
    out[F_TO_CUSTOMER] = ratio(amount, total / 100.0 / count) if count > 0 else NAN
    out[F_ZSCORE] = zscore(heap, at, end, total, squares, largest, event.amount)
    out[F_UNUSUAL_COUNTRY] = unusual_country(state, customer, at, end, t, event.country)


@compiled
def write_window(out, window, count, total, largest):
    """The four numbers of one window."""
    out[F_COUNT + window] = count
    out[F_SUM + window] = total / 100.0
    out[F_MEAN + window] = total / 100.0 / count if count > 0 else NAN
    out[F_MAX + window] = largest / 100.0 if count > 0 else NAN


@compiled
def read_last_day(state, row, t, out):
    """The windows of 1 h and 24 h, event by event from the newest back, and what was distinct in 24 h."""
    heap, scratch = state.heap, state.scratch
    oldest = first_word(state.customer_lists, row, EVENT_WORDS)
    at = oldest + (state.customer_lists[row, 3] - 1) * EVENT_WORDS
    state.clock[STAMP] += 1
    stamp = state.clock[STAMP]
    count, total, largest = 0, 0, np.int64(-1)
    merchants, countries, devices = 0, 0, 0
    for window in range(2):
        limit = t - (HOUR_US if window == 0 else DAY_US)
        while at >= oldest and heap[at] > limit:
            count += 1
            total += heap[at + 1]
            largest = max(largest, heap[at + 1])
            merchant, device, country = heap[at + 2] >> 32, (heap[at + 2] & 0xFFFFFFFF) - 1, heap[at + 3]
            if scratch[merchant, 0] != stamp:
                scratch[merchant, 0] = stamp
                merchants += 1
            if device >= 0 and scratch[device, 0] != stamp:
                scratch[device, 0] = stamp
                devices += 1
            if country >= 0 and scratch[country, 0] != stamp:
                scratch[country, 0] = stamp
                countries += 1
            at -= EVENT_WORDS
        write_window(out, window, count, total, largest)
    out[F_DISTINCT] = merchants
    out[F_DISTINCT + 1] = countries
    out[F_DISTINCT + 2] = devices


@compiled
def largest_amount(heap, at, end):
    """The largest amount of the events from `at` on; -1 of none."""
    largest = np.int64(-1)
    while at < end:
        largest = max(largest, heap[at + 1])
        at += EVENT_WORDS
    return largest


@compiled
def zscore(heap, first, end, total, squares, largest, amount):
    """(n a - S) / sqrt(n Q - S^2) in integers, exact: n Q - S^2 is n^2 times the variance, so it fits although Q may wrap.

    Amounts whose spread might not fit in 63 bits (over about 5,900,000 in n = 1,024 payments) take two passes in float64.
    """
    count = (end - first) // EVENT_WORDS
    if count < 2:
        return NAN
    widest = count * (largest / 2.0)
    if widest * widest < 9.0e18:
        spread = count * squares - total * total
        return ratio(float(count * amount - total), math.sqrt(spread))
    mean, sum_of_squares = total / count, 0.0
    for at in range(first, end, EVENT_WORDS):
        deviation = heap[at + 1] - mean
        sum_of_squares += deviation * deviation
    return ratio(amount - mean, math.sqrt(sum_of_squares / count))


@compiled
def unusual_country(state, customer, first, end, t, country):
    """Whether it is not the most frequent one of the kept events; of equals, the one that occurs latest."""
    if country < 0 or customer.last_country < 0 or customer.country_at <= t - KEPT_FOR_US or first >= end:
        return NAN
    if customer.other_country_at <= t - KEPT_FOR_US and end - first < KEPT_EVENTS * EVENT_WORDS:
        return 0.0 if customer.last_country == country else 1.0
    heap, scratch, stamp, most = state.heap, state.scratch, state.clock[STAMP], 0
    for at in range(first, end, EVENT_WORDS):
        seen = heap[at + 3]
        if seen >= 0:
            if scratch[seen, 1] != stamp:
                scratch[seen, 1] = stamp
                scratch[seen, 2] = 0
            scratch[seen, 2] += 1
            most = max(most, scratch[seen, 2])
    at = end - EVENT_WORDS
    while at >= first:
        if heap[at + 3] >= 0 and scratch[heap[at + 3], 2] == most:
            return 0.0 if heap[at + 3] == country else 1.0
        at -= EVENT_WORDS
    return NAN


@compiled
def read_changes(customer, event, t, known, out):
    """Device, country and place against the customer's last known ones."""
    device, country = event.device, event.country
    out[F_DEVICE_CHANGED] = NAN
    out[F_COUNTRY_CHANGED] = NAN
    out[F_DISTANCE] = NAN
    out[F_SPEED] = NAN
    if not known:
        return
    if device >= 0 and customer.last_device >= 0:
        out[F_DEVICE_CHANGED] = 1.0 if device != customer.last_device else 0.0
    if country >= 0 and customer.last_country >= 0:
        out[F_COUNTRY_CHANGED] = 1.0 if country != customer.last_country else 0.0
    if customer.located_at != NEVER and not math.isnan(event.latitude):
        distance = haversine_km(customer.latitude, customer.longitude, event.latitude, event.longitude)
        out[F_DISTANCE] = distance
        out[F_SPEED] = distance / (max(t - customer.located_at, SPEED_FLOOR_US) / HOUR_US)


@compiled
def read_habit(state, event, t, amount, out):
    """This amount and the last ten days against the fifty days before."""
    customer = state.customers[event.customer]
    today = t // DAY_US
    if customer.habit_day != today:
        derive_habit(state, event.customer, today)
    mean = customer.habit_sum / 100.0 / customer.habit_count if customer.habit_count > 0 else NAN
    largest = customer.habit_max / 100.0 if customer.habit_count > 0 else NAN
    recent_mean = customer.recent_sum / 100.0 / customer.recent_count if customer.recent_count > 0 else NAN
    recent_max = customer.recent_max / 100.0 if customer.recent_count > 0 else NAN
    out[F_HABIT] = ratio(amount, mean)
    out[F_HABIT + 1] = ratio(amount, largest)
    out[F_HABIT + 2] = ratio(recent_mean, mean)
    out[F_HABIT + 3] = ratio(recent_mean, largest)
    out[F_HABIT + 4] = ratio(recent_max, mean)
    out[F_HABIT + 5] = ratio(recent_max, largest)


@compiled
def derive_habit(state, slot, today):
    """Let the day buckets enter and leave the last 10 days and the 50 before, as of today; a closed day never changes."""
    customer, heap, row = state.customers[slot], state.heap, 2 * slot + DAYS
    if customer.habit_day == NEVER or customer.habit_day > today:
        customer.habit_from, customer.recent_from, customer.recent_to = 0, 0, 0
        customer.recent_count, customer.recent_sum, customer.recent_max = 0, 0, 0
        customer.habit_count, customer.habit_sum, customer.habit_max = 0, 0, 0
    customer.habit_day = today
    first, length = first_word(state.customer_lists, row, DAY_WORDS), state.customer_lists[row, 3]
    at = first + customer.recent_to * DAY_WORDS
    while customer.recent_to < length and heap[at] < today:
        customer.recent_count += heap[at + 1]
        customer.recent_sum += heap[at + 2]
        customer.recent_max = max(customer.recent_max, heap[at + 3])
        customer.recent_to += 1
        at += DAY_WORDS
    recent_left, habit_left = False, False
    at = first + customer.recent_from * DAY_WORDS
    while customer.recent_from < customer.recent_to and heap[at] < today - HABIT_RECENT_DAYS:
        customer.recent_count -= heap[at + 1]
        customer.recent_sum -= heap[at + 2]
        recent_left |= heap[at + 3] == customer.recent_max
        customer.habit_count += heap[at + 1]
        customer.habit_sum += heap[at + 2]
        customer.habit_max = max(customer.habit_max, heap[at + 3])
        customer.recent_from += 1
        at += DAY_WORDS
    at = first + customer.habit_from * DAY_WORDS
    while customer.habit_from < customer.recent_from and heap[at] < today - HABIT_DAYS:
        customer.habit_count -= heap[at + 1]
        customer.habit_sum -= heap[at + 2]
        habit_left |= heap[at + 3] == customer.habit_max
        customer.habit_from += 1
        at += DAY_WORDS
    if recent_left:
        customer.recent_max = largest_of_days(heap, first, customer.recent_from, customer.recent_to)
    if habit_left:
        customer.habit_max = largest_of_days(heap, first, customer.habit_from, customer.recent_from)


@compiled
def largest_of_days(heap, first, begin, end):
    """The largest amount of some day buckets; 0 of none."""
    largest = np.int64(0)
    for i in range(begin, end):
        largest = max(largest, heap[first + i * DAY_WORDS + 3])
    return largest


@compiled
def apply_to_customer(state, event, t):
    """Append the event to its customer's history."""
    customer = state.customers[event.customer]
    if customer.last_time == NEVER or t - customer.last_time > STATE_HORIZON_US:
        forget_customer(state, event.customer, t)
    elif event.time < customer.last_time:
        state.clock[LATE] += 1
    move_windows(state, event.customer, t)
    append_event(state, event.customer, t, event.amount, event.merchant, event.device, event.country)
    customer.last_time = t
    if event.device >= 0:
        customer.last_device = event.device
    if not math.isnan(event.latitude):
        customer.latitude, customer.longitude, customer.located_at = event.latitude, event.longitude, t
    add_to_day(state, 2 * event.customer + DAYS, t // DAY_US, event.amount)
    key = (np.int64(event.customer) << 32) | np.int64(event.merchant)
    pair = pair_slot(state.pairs, key)
    if state.pairs[pair, 0] == NOTHING:
        state.pairs[pair, 0] = key
        state.clock[PAIRS_USED] += 1
    state.pairs[pair, 1] = t


@compiled
def append_event(state, slot, t, amount, merchant, device, country):
    """Push the event and count it in the windows."""
    customer, heap, row = state.customers[slot], state.heap, 2 * slot + EVENTS
    at = push(heap, state.allocator, state.customer_lists, row, EVENT_WORDS)
    heap[at] = t
    heap[at + 1] = amount
    heap[at + 2] = (np.int64(merchant) << 32) | np.int64(device + 1)
    heap[at + 3] = country
    position = customer.dropped + state.customer_lists[row, 3] - 1
    customer.sum_30d += amount
    customer.squares_30d += amount * amount
    customer.sum_7d += amount
    if amount >= customer.max_30d:
        customer.max_30d, customer.max_30d_at = amount, position
    if amount >= customer.max_7d:
        customer.max_7d, customer.max_7d_at = amount, position
    if country >= 0:
        if country != customer.last_country:
            customer.other_country_at = customer.country_at
        customer.last_country = country
        customer.country_at = t


@compiled
def move_windows(state, slot, t):
    """Let the windows end at t: drop events of over 30 days, and the oldest of 1,024."""
    customer, heap, lists, row = state.customers[slot], state.heap, state.customer_lists, 2 * slot + EVENTS
    at = first_word(lists, row, EVENT_WORDS)
    while lists[row, 3] > 0 and (heap[at] <= t - KEPT_FOR_US or lists[row, 3] == KEPT_EVENTS):
        if heap[at] > t - KEPT_FOR_US:
            state.clock[OVERFLOW] += 1
        customer.sum_30d -= heap[at + 1]
        customer.squares_30d -= heap[at + 1] * heap[at + 1]
        if customer.from_7d == customer.dropped:
            customer.sum_7d -= heap[at + 1]
            customer.from_7d += 1
        customer.dropped += 1
        drop_first(lists, row)
        at += EVENT_WORDS
    end = at + lists[row, 3] * EVENT_WORDS
    recent = at + (customer.from_7d - customer.dropped) * EVENT_WORDS
    while recent < end and heap[recent] <= t - 7 * DAY_US:
        customer.sum_7d -= heap[recent + 1]
        customer.from_7d += 1
        recent += EVENT_WORDS
    if customer.max_30d_at < customer.dropped:
        find_maximum(customer, heap, at, end, False)
    if customer.max_7d_at < customer.from_7d:
        find_maximum(customer, heap, recent, end, True)


@compiled
def find_maximum(customer, heap, at, end, of_7d):
    """Look for the newest largest amount from `at` on, once the old one has left its window."""
    largest, where = np.int64(-1), NOTHING
    position = customer.from_7d if of_7d else customer.dropped
    while at < end:
        if heap[at + 1] >= largest:
            largest, where = heap[at + 1], position
        at += EVENT_WORDS
        position += 1
    if of_7d:
        customer.max_7d, customer.max_7d_at = largest, where
    else:
        customer.max_30d, customer.max_30d_at = largest, where


@compiled
def derive_customer(state, slot):
    """Derive the windows of a restored customer from its kept events."""
    customer, heap, row = state.customers[slot], state.heap, 2 * slot + EVENTS
    length, country = state.customer_lists[row, 3], customer.last_country
    at = first_word(state.customer_lists, row, EVENT_WORDS)
    blank_windows(customer)
    for position in range(length):
        amount = heap[at + 1]
        customer.sum_30d += amount
        customer.squares_30d += amount * amount
        if amount >= customer.max_30d:
            customer.max_30d, customer.max_30d_at = amount, position
        if heap[at] > customer.last_time - 7 * DAY_US:
            customer.sum_7d += amount
            if amount >= customer.max_7d:
                customer.max_7d, customer.max_7d_at = amount, position
        else:
            customer.from_7d = position + 1
        if heap[at + 3] == country and country >= 0:
            customer.country_at = heap[at]
        elif heap[at + 3] >= 0:
            customer.other_country_at = heap[at]
        at += EVENT_WORDS


@compiled
def blank_windows(customer):
    """The windows of no event at all."""
    customer.dropped, customer.from_7d = 0, 0
    customer.sum_30d, customer.squares_30d, customer.max_30d, customer.max_30d_at = 0, 0, NOTHING, NOTHING
    customer.sum_7d, customer.max_7d, customer.max_7d_at = 0, NOTHING, NOTHING
    customer.country_at, customer.other_country_at = NEVER, NEVER


@compiled
def forget_customer(state, slot, t):
    """Begin anew: the customer was never seen, or not for STATE_HORIZON."""
    customer = state.customers[slot]
    customer.first_time = t
    customer.last_device = NOTHING
    customer.last_country = NOTHING
    customer.located_at = NEVER
    customer.habit_day = NEVER
    blank_windows(customer)
    for row in range(2 * slot, 2 * slot + 2):
        state.customer_lists[row, 2] = 0
        state.customer_lists[row, 3] = 0


@compiled
def add_to_day(state, row, day, amount):
    """Count the amount in the bucket of its day."""
    heap, lists, customer = state.heap, state.customer_lists, state.customers[row // 2]
    dropped = drop_older(heap, lists, row, DAY_WORDS, day - HABIT_DAYS)
    if dropped > 0:
        if customer.habit_from < dropped:
            customer.habit_day = NEVER
        customer.habit_from -= dropped
        customer.recent_from -= dropped
        customer.recent_to -= dropped
    at = first_word(lists, row, DAY_WORDS) + (lists[row, 3] - 1) * DAY_WORDS
    if lists[row, 3] == 0 or heap[at] != day:
        at = push(heap, state.allocator, lists, row, DAY_WORDS)
        heap[at] = day
        heap[at + 1] = 0
        heap[at + 2] = 0
        heap[at + 3] = 0
    heap[at + 1] += 1
    heap[at + 2] += amount
    heap[at + 3] = max(heap[at + 3], amount)
