"""Features of what customers share (merchant, category, country, channel, device): integers by minute and hour.

Reads see closed minutes only, so they may run in any order. Semantics: docs/features.md.
"""

from __future__ import annotations

import numpy as np

from fraud_pipeline.domain.feature_layout import (
    CATEGORY,
    CHANNEL,
    COUNTRY,
    DEVICE,
    HOURS,
    MARK_WORDS,
    MARKS,
    MERCHANT,
    MINUTE_WORDS,
    MINUTES,
    NEVER,
    NOTHING,
)
from fraud_pipeline.domain.feature_lists import compiled, drop_older, first_word, push
from fraud_pipeline.domain.feature_own_history import ratio
from fraud_pipeline.domain.feature_spec import (
    CLOSE_AFTER_US,
    DEVICE_CUSTOMERS_MAX,
    FRAUD_LABEL_HOURS,
    INDEX,
    LATE_READ_US,
    MATURITY_HOURS,
    MINUTE_US,
    PRIOR_RATE,
    PRIOR_STRENGTH,
    READ_AFTER_US,
)

NAN = np.nan
H24, H7D, H30D = 24, 168, 720
KEPT_HOURS = H30D + MATURITY_HOURS
HOUR_SLACK = 2
"""Hours are kept a little longer than any window, for reads that lag behind the newest."""

F_TO_MERCHANT = INDEX["amount_to_merchant_mean_30d"]
F_M_COUNT = INDEX["merchant_count_24h"]
F_M_MEAN = INDEX["merchant_amount_mean_24h"]
F_M_SHARE = INDEX["merchant_fraud_share_24h"]
F_M_FIRST = INDEX["merchant_seconds_since_first_fraud"]
F_M_LAST = INDEX["merchant_seconds_since_last_fraud"]
F_M_MATURED = INDEX["merchant_matured_since_fraud"]
F_DEVICE_CUSTOMERS = INDEX["device_customers_7d"]
F_DEVICE_COUNT = INDEX["device_count_24h"]


@compiled
def share(fraud, matured):
    """A fraud share with its prior; more corrections than frauds count as none."""
    return (max(fraud, 0) + PRIOR_STRENGTH * PRIOR_RATE) / (matured + PRIOR_STRENGTH)


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
    at_hour = (limit + 1) // 60
    new_hour = at_hour != (entity.folded + 1) // 60
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
    kept_hours = KEPT_HOURS if entity.kind != DEVICE else H24
    dropped = drop_older(heap, lists, 3 * slot + HOURS, MINUTE_WORDS, at_hour - kept_hours - HOUR_SLACK)
    if dropped > 0:
        shift_sums(entity, dropped)
    if lists[3 * slot + MARKS, 3] > 0:
        if entity.kind == DEVICE:
            settle_customers(state, slot, limit)
        else:
            settle_labels(state, slot, limit)
        if new_hour:
            drop_old_marks(state, slot, at_hour)


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
def settle_labels(state, slot, limit):
    """Count the labels known by `limit` among the settled."""
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


@compiled
def drop_old_marks(state, slot, at_hour):
    """Drop settled marks that no window reaches any more; once an hour, since it looks at all of them."""
    entity, heap, lists, row = state.entities[slot], state.heap, state.entity_lists, 3 * slot + MARKS
    start = first_word(lists, row, MARK_WORDS)
    i = 0
    while i < entity.settled:
        at = start + i * MARK_WORDS
        hour_known = heap[at] // 60
        if entity.kind == DEVICE:
            gone = hour_known < at_hour - H7D - HOUR_SLACK
        else:
            gone = min(hour_known, heap[at + 1]) < at_hour - H30D - HOUR_SLACK
            gone &= hour_known < at_hour - FRAUD_LABEL_HOURS - HOUR_SLACK
        if gone:
            drop_settled(entity, heap, lists, row, start, at)
        else:
            i += 1


@compiled
def settle_customers(state, slot, limit):
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
    minute = max(event.time // MINUTE_US, oldest_open_minute(watermark))
    count_in_minute(state, slot, minute, 1, event.amount)
    if kind == DEVICE:
        mark_customer(state, slot, minute, state.customers[event.customer].hash)


@compiled
def count_in_minute(state, slot, minute, count, total):
    """Add payments to a minute of an entity; the newest minutes are at the end."""
    heap, lists, row = state.heap, state.entity_lists, 3 * slot + MINUTES
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
    heap[found + 1] += count
    heap[found + 2] += total


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
