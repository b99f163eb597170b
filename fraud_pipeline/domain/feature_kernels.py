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
    COUNTRY,
    CUSTOMER,
    DAY_WORDS,
    DAYS,
    DEVICE,
    ENTITY,
    EVENT_WORDS,
    EVENTS,
    EVENTS_SEEN,
    HOURS,
    LABELS_SEEN,
    LARGEST_BLOCK,
    LATE,
    MARK_WORDS,
    MARKS,
    MERCHANT,
    MINUTE_WORDS,
    MINUTES,
    NEVER,
    NOTHING,
    OVERFLOW,
    PAIRS_USED,
    STAMP,
    WATERMARK,
)
from fraud_pipeline.domain.feature_lists import (
    compiled,
    drop_first,
    drop_older,
    first_word,
    pair_home,
    pair_slot,
    prefetch,
    push,
    room_needed,
)
from fraud_pipeline.domain.feature_spec import (
    BUSINESS_HOURS,
    CLOSE_AFTER_US,
    DAY_US,
    DEVICE_CUSTOMERS_MAX,
    EARTH_RADIUS_KM,
    FRAUD_LABEL_HOURS,
    HABIT_DAYS,
    HABIT_RECENT_DAYS,
    HOUR_US,
    INDEX,
    KEPT_EVENTS,
    KEPT_FOR_US,
    LATE_READ_US,
    MATURITY_HOURS,
    MINUTE_US,
    NIGHT_ENDS,
    PRIOR_RATE,
    PRIOR_STRENGTH,
    READ_AFTER_US,
    SPEED_FLOOR_US,
    STATE_HORIZON_US,
)

NAN = np.nan
BUSINESS_FROM, BUSINESS_TO = BUSINESS_HOURS
H24, H7D, H30D = 24, 168, 720
KEPT_HOURS = H30D + MATURITY_HOURS
CUSTOMER_BYTES, ENTITY_BYTES = CUSTOMER.itemsize, ENTITY.itemsize
HOUR_SLACK = 2
"""Hours are kept a little longer than any window, for reads that lag behind the newest."""

F_AMOUNT = INDEX["amount"]
F_ZSCORE = INDEX["amount_zscore_30d"]
F_TO_CUSTOMER = INDEX["amount_to_customer_mean_30d"]
F_TO_MERCHANT = INDEX["amount_to_merchant_mean_30d"]
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
F_M_COUNT = INDEX["merchant_count_24h"]
F_M_MEAN = INDEX["merchant_amount_mean_24h"]
F_M_SHARE = INDEX["merchant_fraud_share_24h"]
F_M_FIRST = INDEX["merchant_seconds_since_first_fraud"]
F_M_LAST = INDEX["merchant_seconds_since_last_fraud"]
F_M_MATURED = INDEX["merchant_matured_since_fraud"]
F_CATEGORY = INDEX["category_fraud_share_30d"]
F_COUNTRY = INDEX["country_fraud_share_30d"]
F_CHANNEL = INDEX["channel_fraud_share_30d"]
F_DEVICE_CUSTOMERS = INDEX["device_customers_7d"]
F_DEVICE_COUNT = INDEX["device_count_24h"]
F_HOUR = INDEX["hour"]


@compiled
def ratio(numerator, denominator):
    """NaN over zero, never inf."""
    return numerator / denominator if denominator != 0.0 else NAN


@compiled
def share(fraud, matured):
    """A fraud share with its prior; more corrections than frauds count as none."""
    return (max(fraud, 0) + PRIOR_STRENGTH * PRIOR_RATE) / (matured + PRIOR_STRENGTH)


@compiled
def haversine_km(latitude, longitude, other_latitude, other_longitude):
    """Great-circle distance between two points in degrees."""
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    a = math.sin((other_phi - phi) / 2.0) ** 2
    a += math.cos(phi) * math.cos(other_phi) * math.sin(math.radians(other_longitude - longitude) / 2.0) ** 2
    return 2.0 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, a)))


# --- the customer's own history -------------------------------------------------------------------------------------


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
    """Sum the day buckets up as of today; a closed day never changes, so this holds for the whole day."""
    customer, heap, row = state.customers[slot], state.heap, 2 * slot + DAYS
    recent_count, recent_sum, recent_max = 0, 0, 0
    habit_count, habit_sum, habit_max = 0, 0, 0
    at = first_word(state.customer_lists, row, DAY_WORDS)
    for _ in range(state.customer_lists[row, 3]):
        age = today - heap[at]
        if 1 <= age <= HABIT_RECENT_DAYS:
            recent_count += heap[at + 1]
            recent_sum += heap[at + 2]
            recent_max = max(recent_max, heap[at + 3])
        elif HABIT_RECENT_DAYS < age <= HABIT_DAYS:
            habit_count += heap[at + 1]
            habit_sum += heap[at + 2]
            habit_max = max(habit_max, heap[at + 3])
        at += DAY_WORDS
    customer.habit_day = today
    customer.recent_count, customer.recent_sum, customer.recent_max = recent_count, recent_sum, recent_max
    customer.habit_count, customer.habit_sum, customer.habit_max = habit_count, habit_sum, habit_max


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
    heap, lists = state.heap, state.customer_lists
    drop_older(heap, lists, row, DAY_WORDS, day - HABIT_DAYS)
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


# --- shared entities ------------------------------------------------------------------------------------------------


@compiled
def last_readable_minute(time):
    """The newest minute that ended READ_AFTER before."""
    return (time - READ_AFTER_US) // MINUTE_US - 1


@compiled
def oldest_open_minute(watermark):
    """The oldest minute that is not closed: its end is less than CLOSE_AFTER behind the watermark."""
    return (watermark - CLOSE_AFTER_US) // MINUTE_US


@compiled
def count_hour(entity, hour, count, total):
    """Add payments of a newly folded hour to the derived sums; an old one (an idle entity) has them derived anew."""
    if entity.at_hour - hour > H24:
        entity.at_hour = NEVER
        return
    entity.count_24h += count
    entity.count_7d += count
    entity.count_30d += count
    entity.sum_24h += total
    entity.sum_7d += total
    entity.sum_30d += total


@compiled
def fraud_age(at_hour, minute_known, hour_matured):
    """Age in hours by which a label falls in or out of the windows; 0 while its payment has not matured."""
    if hour_matured >= at_hour:
        return 0
    return max(at_hour - min(minute_known // 60, hour_matured), 1)


@compiled
def count_label(entity, minute_known, hour_matured, change):
    """Add a settled label to the sums derived as of `at_hour`; returns whether `matured_since` must be derived anew."""
    age = fraud_age(entity.at_hour, minute_known, hour_matured)
    if 0 < age <= H30D:
        entity.fraud_30d += change
        if age <= H7D:
            entity.fraud_7d += change
            if age <= H24:
                entity.fraud_24h += change
    if change != 1 or minute_known // 60 < entity.at_hour - FRAUD_LABEL_HOURS:
        return False
    entity.first_fraud = min(entity.first_fraud, minute_known) if entity.first_fraud != NEVER else minute_known
    entity.last_fraud = max(entity.last_fraud, minute_known)
    if hour_matured - MATURITY_HOURS > entity.fraud_hour:
        entity.fraud_hour = hour_matured - MATURITY_HOURS
        return True
    return False


@compiled
def derive(state, slot, at_hour):
    """Have the sums of an entity stand as of an hour, moving on from where they stand or else from the start."""
    entity, heap, lists = state.entities[slot], state.heap, state.entity_lists
    if entity.at_hour == NEVER or entity.at_hour > at_hour:
        begin_sums(entity, heap, first_word(lists, 3 * slot + HOURS, MINUTE_WORDS), lists[3 * slot + HOURS, 3])
    entity.at_hour = at_hour
    move_sums(entity, heap, first_word(lists, 3 * slot + HOURS, MINUTE_WORDS), lists[3 * slot + HOURS, 3])
    entity.fraud_24h, entity.fraud_7d, entity.fraud_30d = 0, 0, 0
    entity.first_fraud, entity.last_fraud, entity.fraud_hour = NEVER, NEVER, NEVER
    entity.matured_since = 0
    if entity.kind == DEVICE or entity.settled == 0:
        return
    at = first_word(lists, 3 * slot + MARKS, MARK_WORDS)
    for _ in range(entity.settled):
        count_label(entity, heap[at], heap[at + 1], heap[at + 2])
        at += MARK_WORDS
    if entity.kind == MERCHANT and entity.fraud_hour != NEVER:
        entity.matured_since = matured_after(state, slot, entity.fraud_hour, at_hour)


@compiled
def begin_sums(entity, heap, at, length):
    """All hours in all windows, none matured: where `move_sums` starts from."""
    count, total = 0, 0
    for _ in range(length):
        count += heap[at + 1]
        total += heap[at + 2]
        at += MINUTE_WORDS
    entity.count_24h, entity.count_7d, entity.count_30d = count, count, count
    entity.sum_24h, entity.sum_7d, entity.sum_30d = total, total, total
    entity.matured_24h, entity.matured_7d, entity.matured_30d = 0, 0, 0
    entity.from_24h, entity.from_7d, entity.from_30d = 0, 0, 0
    entity.matured_from_24h, entity.matured_from_7d, entity.matured_from_30d = 0, 0, 0


@compiled
def move_sums(entity, heap, first, length):
    """Let hours leave the windows that end at `at_hour`; what leaves the 7 days has matured and enters those windows."""
    hour = entity.at_hour
    at = first + entity.from_24h * MINUTE_WORDS
    while entity.from_24h < length and heap[at] < hour - H24:
        entity.count_24h -= heap[at + 1]
        entity.sum_24h -= heap[at + 2]
        entity.from_24h += 1
        at += MINUTE_WORDS
    at = first + entity.from_7d * MINUTE_WORDS
    while entity.from_7d < length and heap[at] < hour - MATURITY_HOURS:
        entity.count_7d -= heap[at + 1]
        entity.sum_7d -= heap[at + 2]
        entity.matured_24h += heap[at + 1]
        entity.matured_7d += heap[at + 1]
        entity.matured_30d += heap[at + 1]
        entity.from_7d += 1
        at += MINUTE_WORDS
    at = first + entity.from_30d * MINUTE_WORDS
    while entity.from_30d < length and heap[at] < hour - H30D:
        entity.count_30d -= heap[at + 1]
        entity.sum_30d -= heap[at + 2]
        entity.from_30d += 1
        at += MINUTE_WORDS
    at = first + entity.matured_from_24h * MINUTE_WORDS
    while entity.matured_from_24h < entity.from_7d and heap[at] < hour - MATURITY_HOURS - H24:
        entity.matured_24h -= heap[at + 1]
        entity.matured_from_24h += 1
        at += MINUTE_WORDS
    at = first + entity.matured_from_7d * MINUTE_WORDS
    while entity.matured_from_7d < entity.from_7d and heap[at] < hour - MATURITY_HOURS - H7D:
        entity.matured_7d -= heap[at + 1]
        entity.matured_from_7d += 1
        at += MINUTE_WORDS
    at = first + entity.matured_from_30d * MINUTE_WORDS
    while entity.matured_from_30d < entity.from_7d and heap[at] < hour - KEPT_HOURS:
        entity.matured_30d -= heap[at + 1]
        entity.matured_from_30d += 1
        at += MINUTE_WORDS


@compiled
def matured_after(state, slot, fraud_hour, at_hour):
    """Matured payments of the kept hours after `fraud_hour`, among the folded ones."""
    heap, lists, row = state.heap, state.entity_lists, 3 * slot + HOURS
    at = first_word(lists, row, MINUTE_WORDS) + (lists[row, 3] - 1) * MINUTE_WORDS
    count = 0
    for _ in range(lists[row, 3]):
        hour = heap[at]
        if hour <= fraud_hour or hour < at_hour - KEPT_HOURS:
            break
        if hour < at_hour - MATURITY_HOURS:
            count += heap[at + 1]
        at -= MINUTE_WORDS
    return count


@compiled
def entity_slot(event, kind):
    """The event's slot of that kind; -1 where it has none."""
    if kind == MERCHANT:
        return event.merchant
    if kind == CATEGORY:
        return event.category
    if kind == COUNTRY:
        return event.country
    if kind == CHANNEL:
        return event.channel
    return event.device


@compiled
def labelled_slot(label, kind):
    """The labelled transaction's slot of that kind; -1 where it has none."""
    if kind == MERCHANT:
        return label.merchant
    if kind == CATEGORY:
        return label.category
    return label.country if kind == COUNTRY else label.channel


@compiled
def derive_as_of(state, event, hour):
    """Have the derived sums of all the event's entities stand as of this hour."""
    for kind in range(DEVICE + 1):
        slot = entity_slot(event, kind)
        if slot >= 0 and state.entities[slot].at_hour != hour:
            derive(state, slot, hour)


@compiled
def read_merchant(state, slot, minute, ts, amount, out):
    """Traffic, fraud shares and fraud labels of the merchant, from what is readable."""
    entity, heap, lists = state.entities[slot], state.heap, state.entity_lists
    hour = entity.at_hour
    count_24h, count_7d, count_30d = entity.count_24h, entity.count_7d, entity.count_30d
    sum_24h, sum_7d, sum_30d = entity.sum_24h, entity.sum_7d, entity.sum_30d
    matured_24h, matured_7d, matured_30d = entity.matured_24h, entity.matured_7d, entity.matured_30d
    row = 3 * slot + MINUTES
    at = first_word(lists, row, MINUTE_WORDS)
    for _ in range(lists[row, 3]):
        if heap[at] <= minute:
            age, count, total = hour - heap[at] // 60, heap[at + 1], heap[at + 2]
            if age <= H30D:
                count_30d += count
                sum_30d += total
            if age <= H7D:
                count_7d += count
                sum_7d += total
            if age <= H24:
                count_24h += count
                sum_24h += total
            if 0 < age - MATURITY_HOURS <= H30D:
                matured_30d += count
            if 0 < age - MATURITY_HOURS <= H7D:
                matured_7d += count
            if 0 < age - MATURITY_HOURS <= H24:
                matured_24h += count
        at += MINUTE_WORDS
    out[F_M_COUNT] = count_24h
    out[F_M_COUNT + 1] = count_7d
    out[F_M_COUNT + 2] = count_30d
    out[F_M_MEAN] = sum_24h / 100.0 / count_24h if count_24h > 0 else NAN
    out[F_M_MEAN + 1] = sum_7d / 100.0 / count_7d if count_7d > 0 else NAN
    out[F_M_MEAN + 2] = sum_30d / 100.0 / count_30d if count_30d > 0 else NAN
    out[F_TO_MERCHANT] = ratio(amount, sum_30d / 100.0 / count_30d) if count_30d > 0 else NAN
    read_merchant_fraud(state, slot, minute, ts, matured_24h, matured_7d, matured_30d, out)


@compiled
def read_merchant_fraud(state, slot, minute, ts, matured_24h, matured_7d, matured_30d, out):
    """Fraud shares and recency of labels: the settled ones, derived, and those of the newest minutes one by one."""
    entity, heap, lists = state.entities[slot], state.heap, state.entity_lists
    hour = (minute + 1) // 60
    fraud_24h, fraud_7d, fraud_30d = entity.fraud_24h, entity.fraud_7d, entity.fraud_30d
    first, last, fraud_hour = entity.first_fraud, entity.last_fraud, entity.fraud_hour
    row = 3 * slot + MARKS
    at = first_word(lists, row, MARK_WORDS) + entity.settled * MARK_WORDS
    for _ in range(lists[row, 3] - entity.settled):
        known = heap[at]
        if known <= minute:
            age, change = fraud_age(hour, known, heap[at + 1]), heap[at + 2]
            if 0 < age <= H30D:
                fraud_30d += change
            if 0 < age <= H7D:
                fraud_7d += change
            if 0 < age <= H24:
                fraud_24h += change
            if change == 1 and known // 60 >= hour - FRAUD_LABEL_HOURS:
                first = min(first, known) if first != NEVER else known
                last = max(last, known)
                fraud_hour = max(fraud_hour, heap[at + 1] - MATURITY_HOURS)
        at += MARK_WORDS
    out[F_M_SHARE] = share(fraud_24h, matured_24h)
    out[F_M_SHARE + 1] = share(fraud_7d, matured_7d)
    out[F_M_SHARE + 2] = share(fraud_30d, matured_30d)
    if last == NEVER:
        out[F_M_FIRST], out[F_M_LAST], out[F_M_MATURED] = NAN, NAN, NAN
        return
    out[F_M_FIRST] = (ts - (first + 1) * MINUTE_US) / 1e6
    out[F_M_LAST] = (ts - (last + 1) * MINUTE_US) / 1e6
    since = entity.matured_since
    if fraud_hour != entity.fraud_hour:
        since = matured_after(state, slot, fraud_hour, hour)
    row = 3 * slot + MINUTES
    at = first_word(lists, row, MINUTE_WORDS)
    for _ in range(lists[row, 3]):
        age = hour - heap[at] // 60
        if heap[at] // 60 > fraud_hour and MATURITY_HOURS < age <= KEPT_HOURS:
            since += heap[at + 1]
        at += MINUTE_WORDS
    out[F_M_MATURED] = since


@compiled
def read_share(state, slot, minute):
    """Delayed fraud share over 30 days of a category, country or channel; NaN where there is none."""
    if slot < 0:
        return NAN
    entity, heap, lists = state.entities[slot], state.heap, state.entity_lists
    hour = (minute + 1) // 60
    matured, fraud = entity.matured_30d, entity.fraud_30d
    row = 3 * slot + MINUTES
    at = first_word(lists, row, MINUTE_WORDS)
    idle = hour - (entity.folded + 1) // 60 > MATURITY_HOURS
    for _ in range(lists[row, 3] if idle else 0):
        if 0 < hour - heap[at] // 60 - MATURITY_HOURS <= H30D:
            matured += heap[at + 1]
        at += MINUTE_WORDS
    row = 3 * slot + MARKS
    at = first_word(lists, row, MARK_WORDS) + entity.settled * MARK_WORDS
    for _ in range(lists[row, 3] - entity.settled):
        if heap[at] <= minute and 0 < fraud_age(hour, heap[at], heap[at + 1]) <= H30D:
            fraud += heap[at + 2]
        at += MARK_WORDS
    return share(fraud, matured)


@compiled
def read_device(state, slot, minute, out):
    """Distinct customers of 7 days and payments of 24 hours on the device."""
    if slot < 0:
        out[F_DEVICE_CUSTOMERS], out[F_DEVICE_COUNT] = NAN, NAN
        return
    entity, heap, lists = state.entities[slot], state.heap, state.entity_lists
    hour = (minute + 1) // 60
    count = entity.count_24h
    row = 3 * slot + MINUTES
    at = first_word(lists, row, MINUTE_WORDS)
    for _ in range(lists[row, 3]):
        if heap[at] <= minute and hour - heap[at] // 60 <= H24:
            count += heap[at + 1]
        at += MINUTE_WORDS
    row = 3 * slot + MARKS
    start = first_word(lists, row, MARK_WORDS)
    customers = 0
    for i in range(lists[row, 3]):
        at = start + i * MARK_WORDS
        if heap[at] <= minute and hour - heap[at] // 60 <= H7D and not seen_before(heap, start, i, hour, minute):
            customers += 1
    out[F_DEVICE_CUSTOMERS] = min(customers, DEVICE_CUSTOMERS_MAX)
    out[F_DEVICE_COUNT] = count


@compiled
def seen_before(heap, start, i, hour, minute):
    """Whether an earlier mark that counts as well is of the same customer."""
    customer = heap[start + i * MARK_WORDS + 1]
    for j in range(i):
        at = start + j * MARK_WORDS
        if heap[at + 1] == customer and heap[at] <= minute and hour - heap[at] // 60 <= H7D:
            return True
    return False


@compiled
def fold(state, slot, watermark):
    """Move minutes that every later read will see into hours, settle labels likewise, and drop what is too old."""
    entity, heap, lists = state.entities[slot], state.heap, state.entity_lists
    limit = last_readable_minute(watermark - LATE_READ_US)
    entity.touched = max(entity.touched, watermark)
    if limit <= entity.folded:
        return
    entity.folded = limit
    row = 3 * slot + MINUTES
    start, kept = first_word(lists, row, MINUTE_WORDS), 0
    for i in range(lists[row, 3]):
        at = start + i * MINUTE_WORDS
        if heap[at] <= limit:
            add_to_hour(state, slot, heap[at] // 60, heap[at + 1], heap[at + 2])
        else:
            for word in range(MINUTE_WORDS):
                heap[start + kept * MINUTE_WORDS + word] = heap[at + word]
            kept += 1
    lists[row, 3] = kept
    at_hour = (limit + 1) // 60
    kept_hours = KEPT_HOURS if entity.kind != DEVICE else H24
    dropped = drop_older(heap, lists, 3 * slot + HOURS, MINUTE_WORDS, at_hour - kept_hours - HOUR_SLACK)
    if dropped > 0:
        shift_sums(entity, dropped)
    if lists[3 * slot + MARKS, 3] > 0:
        if entity.kind == DEVICE:
            settle_customers(state, slot, limit, at_hour)
        else:
            settle_labels(state, slot, limit, at_hour)


@compiled
def shift_sums(entity, dropped):
    """Count positions from the new first hour; an hour that was still counted has the sums derived anew."""
    if min(entity.matured_from_30d, entity.from_24h) < dropped:
        entity.at_hour = NEVER
    entity.from_24h -= dropped
    entity.from_7d -= dropped
    entity.from_30d -= dropped
    entity.matured_from_24h -= dropped
    entity.matured_from_7d -= dropped
    entity.matured_from_30d -= dropped


@compiled
def add_to_hour(state, slot, hour, count, total):
    """Count a folded minute in its hour; hours stay in order."""
    heap, lists, row = state.heap, state.entity_lists, 3 * slot + HOURS
    if state.entities[slot].at_hour != NEVER:
        count_hour(state.entities[slot], hour, count, total)
    at = first_word(lists, row, MINUTE_WORDS) + (lists[row, 3] - 1) * MINUTE_WORDS
    i = lists[row, 3] - 1
    while i >= 0 and heap[at] > hour:
        at -= MINUTE_WORDS
        i -= 1
    if i >= 0 and heap[at] == hour:
        heap[at + 1] += count
        heap[at + 2] += total
        return
    after = lists[row, 3] - 1 - i
    if after > 0:
        state.entities[slot].at_hour = NEVER
    at = push(heap, state.allocator, lists, row, MINUTE_WORDS)
    for _ in range(after):
        for word in range(MINUTE_WORDS):
            heap[at + word] = heap[at - MINUTE_WORDS + word]
        at -= MINUTE_WORDS
    heap[at] = hour
    heap[at + 1] = count
    heap[at + 2] = total


@compiled
def swap_marks(heap, at, other):
    """Exchange two marks."""
    for word in range(MARK_WORDS):
        heap[at + word], heap[other + word] = heap[other + word], heap[at + word]


@compiled
def settle_labels(state, slot, limit, at_hour):
    """Settle the labels known by `limit`, and drop those that no window reaches any more."""
    entity, heap, lists, row = state.entities[slot], state.heap, state.entity_lists, 3 * slot + MARKS
    start = first_word(lists, row, MARK_WORDS)
    again = False
    for i in range(entity.settled, lists[row, 3]):
        at = start + i * MARK_WORDS
        if heap[at] <= limit:
            if entity.at_hour != NEVER:
                again |= count_label(entity, heap[at], heap[at + 1], heap[at + 2])
            swap_marks(heap, at, start + entity.settled * MARK_WORDS)
            entity.settled += 1
    if again:
        entity.at_hour = NEVER
    i = 0
    while i < entity.settled:
        at = start + i * MARK_WORDS
        hour_known = heap[at] // 60
        gone = min(hour_known, heap[at + 1]) < at_hour - H30D - HOUR_SLACK
        if gone and hour_known < at_hour - FRAUD_LABEL_HOURS - HOUR_SLACK:
            entity.settled -= 1
            lists[row, 3] -= 1
            swap_marks(heap, at, start + entity.settled * MARK_WORDS)
            swap_marks(heap, start + entity.settled * MARK_WORDS, start + lists[row, 3] * MARK_WORDS)
        else:
            i += 1


@compiled
def settle_customers(state, slot, limit, at_hour):
    """Keep one mark, the newest, per customer of the device among the settled, and no more than the newest 64."""
    entity, heap, lists, row = state.entities[slot], state.heap, state.entity_lists, 3 * slot + MARKS
    start = first_word(lists, row, MARK_WORDS)
    i = entity.settled
    while i < lists[row, 3]:
        at = start + i * MARK_WORDS
        if heap[at] > limit:
            i += 1
            continue
        twin = NOTHING
        for j in range(entity.settled):
            if heap[start + j * MARK_WORDS + 1] == heap[at + 1]:
                twin = start + j * MARK_WORDS
        if twin == NOTHING:
            swap_marks(heap, at, start + entity.settled * MARK_WORDS)
            entity.settled += 1
            i += 1
        else:
            heap[twin] = max(heap[twin], heap[at])
            lists[row, 3] -= 1
            swap_marks(heap, at, start + lists[row, 3] * MARK_WORDS)
    i = 0
    while i < entity.settled:
        at = start + i * MARK_WORDS
        if heap[at] // 60 < at_hour - H7D - HOUR_SLACK:
            drop_settled(entity, heap, lists, row, start, at)
        else:
            i += 1
    while entity.settled > DEVICE_CUSTOMERS_MAX:
        oldest = start
        for j in range(1, entity.settled):
            at = start + j * MARK_WORDS
            if heap[at] < heap[oldest] or (heap[at] == heap[oldest] and heap[at + 1] < heap[oldest + 1]):
                oldest = at
        drop_settled(entity, heap, lists, row, start, oldest)


@compiled
def drop_settled(entity, heap, lists, row, start, at):
    """Remove one settled mark; the order of marks has no meaning."""
    entity.settled -= 1
    lists[row, 3] -= 1
    swap_marks(heap, at, start + entity.settled * MARK_WORDS)
    swap_marks(heap, start + entity.settled * MARK_WORDS, start + lists[row, 3] * MARK_WORDS)


@compiled
def apply_to_entity(state, slot, kind, event, watermark):
    """Count the event in its minute, or the oldest open one."""
    state.entities[slot].kind = kind
    fold(state, slot, watermark)
    heap, lists, row = state.heap, state.entity_lists, 3 * slot + MINUTES
    minute = max(event.time // MINUTE_US, oldest_open_minute(watermark))
    start = first_word(lists, row, MINUTE_WORDS)
    found = NOTHING
    for i in range(lists[row, 3] - 1, -1, -1):
        if heap[start + i * MINUTE_WORDS] == minute:
            found = start + i * MINUTE_WORDS
            break
    if found == NOTHING:
        found = push(heap, state.allocator, lists, row, MINUTE_WORDS)
        heap[found] = minute
        heap[found + 1] = 0
        heap[found + 2] = 0
    heap[found + 1] += 1
    heap[found + 2] += event.amount
    if kind == DEVICE:
        mark_customer(state, slot, minute, state.customers[event.customer].hash)


@compiled
def mark_customer(state, slot, minute, customer):
    """Remember that the customer used the device in this minute."""
    heap, lists, row = state.heap, state.entity_lists, 3 * slot + MARKS
    start = first_word(lists, row, MARK_WORDS)
    for i in range(state.entities[slot].settled, lists[row, 3]):
        at = start + i * MARK_WORDS
        if heap[at] == minute and heap[at + 1] == customer:
            return
    at = push(heap, state.allocator, lists, row, MARK_WORDS)
    heap[at] = minute
    heap[at + 1] = customer
    heap[at + 2] = 0


# --- memory ahead of the batch loop ---------------------------------------------------------------------------------


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
    prefetch(state.heap, first_word(lists, row + 1, DAY_WORDS) + lists[row + 1, 3] * DAY_WORDS, -32)
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


# --- the three entry points -----------------------------------------------------------------------------------------


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
    ts = max(t, state.clock[WATERMARK] - LATE_READ_US)
    minute = last_readable_minute(ts)
    amount = event.amount / 100.0
    out[F_AMOUNT] = amount
    out[F_AMOUNT + 1] = math.log1p(amount)
    out[F_AMOUNT + 2] = 1.0 if event.amount % 100 == 0 else 0.0
    read_customer(state, event, t, out)
    derive_as_of(state, event, (minute + 1) // 60)
    read_merchant(state, event.merchant, minute, ts, amount, out)
    for kind in range(CATEGORY, CHANNEL + 1):
        out[F_CATEGORY + kind - CATEGORY] = read_share(state, entity_slot(event, kind), minute)
    read_device(state, event.device, minute, out)
    local = event.time // 1_000_000 + event.utc_offset_s
    hour = local // 3600 % 24
    weekday = (local // 86400 + 3) % 7
    out[F_HOUR] = hour
    out[F_HOUR + 1] = weekday
    out[F_HOUR + 2] = 1.0 if weekday >= 5 else 0.0
    out[F_HOUR + 3] = 1.0 if hour < NIGHT_ENDS else 0.0
    out[F_HOUR + 4] = 1.0 if weekday < 5 and BUSINESS_FROM <= hour < BUSINESS_TO else 0.0


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
            at = push(state.heap, state.allocator, state.entity_lists, 3 * slot + MARKS, MARK_WORDS)
            state.heap[at] = minute
            state.heap[at + 1] = matured
            state.heap[at + 2] = label.change
