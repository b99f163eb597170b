"""Kernels of a log that is split among writers: one writer's own history, and shared minutes merged from all of them.

They are put together from the same compiled pieces as `feature_kernels`, over the same arrays. What one writer alone knows
(its customers) and what all writers share (merchants and so on) live in arrays of their own. Every change of a batch that
is not committed yet can be taken back.
"""

from __future__ import annotations

import numpy as np

from fraud_pipeline.domain.feature_kernels import read_own, read_shared, shared_time
from fraud_pipeline.domain.feature_layout import (
    CLOSED_THROUGH,
    DAY_WORDS,
    DAYS,
    DEVICE,
    EVENT_WORDS,
    EVENTS,
    EVENTS_SEEN,
    HOURS,
    LABELS_SEEN,
    MARK_WORDS,
    MARKS,
    MINUTE_WORDS,
    MINUTES,
    NEVER,
    NOTHING,
    PAIRS_USED,
    WATERMARK,
)
from fraud_pipeline.domain.feature_lists import (
    allocate,
    block_class,
    borrowed,
    compiled,
    entry_point,
    first_word,
    pair_slot,
    push,
    release,
    room_needed,
    unowned,
)
from fraud_pipeline.domain.feature_own_history import apply_to_customer, own_time
from fraud_pipeline.domain.feature_shared_state import (
    add_to_hour,
    count_in_minute,
    fold,
    mark_customer,
    oldest_open_minute,
)
from fraud_pipeline.domain.feature_spec import MINUTE_US


@compiled
def writer_open_minute(state):
    """The oldest minute that this writer has not closed, by its watermark or by the clock."""
    watermark, closed = state.clock[WATERMARK], state.clock[CLOSED_THROUGH] + 1
    return closed if watermark == NEVER else max(oldest_open_minute(watermark), closed)


@compiled
def has_room_for_own(state, event):
    """Whether the heap and the pair table can take this event's own history whatever happens."""
    if 2 * (state.clock[PAIRS_USED] + 1) > state.pairs.shape[0]:
        return False
    need = room_needed(state.customer_lists, 2 * event.customer + EVENTS, EVENT_WORDS)
    need += room_needed(state.customer_lists, 2 * event.customer + DAYS, DAY_WORDS)
    return state.allocator[0] + need <= state.heap.shape[0]


@entry_point
def run_writer(state, events, labels, positions, out, times, minutes, label_minutes, row, label, stop):
    """Take events and labels in, from (row, label) on, until `stop` or where there is no room; returns where that was.

    Fills for each event its own features (unless `out` has no rows), the time as of which it reads shared state, and the
    minute that it counts in; for each label the minute that it counts in.
    """
    state, events, labels, out = borrowed(state), unowned(events), unowned(labels), unowned(out)
    while True:
        while label < labels.shape[0] and positions[label] <= row:
            label_minutes[label] = max(labels[label].known_at // MINUTE_US, writer_open_minute(state))
            state.clock[LABELS_SEEN] += 1
            label += 1
        if row >= stop:
            return row, label
        event = events[row]
        if not has_room_for_own(state, event):
            return row, label
        t = own_time(state, event)
        times[row] = shared_time(state, t)
        if out.shape[0] > 0:
            read_own(state, event, t, out[row])
        state.clock[WATERMARK] = max(state.clock[WATERMARK], event.time)
        state.clock[EVENTS_SEEN] += 1
        minutes[row] = max(event.time // MINUTE_US, writer_open_minute(state))
        apply_to_customer(state, event, t)
        row += 1


@entry_point
def read_shared_rows(state, events, times, out):
    """The shared features of each event as of its time, into its row."""
    state, events, out = borrowed(state), unowned(events), unowned(out)
    for row in range(events.shape[0]):
        read_shared(state, events[row], times[row], out[row])


@entry_point
def saved_words(state, customers):
    """How many heap words the lists of these customers take."""
    words = 0
    for i in range(customers.shape[0]):
        words += state.customer_lists[2 * customers[i] + EVENTS, 3] * EVENT_WORDS
        words += state.customer_lists[2 * customers[i] + DAYS, 3] * DAY_WORDS
    return words


@entry_point
def save_customers(state, customers, records, lengths, words):
    """Copy records and lists of these customers, so that `put_back_customers` can undo what comes."""
    state = borrowed(state)
    at = 0
    for i in range(customers.shape[0]):
        records[i] = state.customers[customers[i]]
        for which in range(2):
            stride = EVENT_WORDS if which == EVENTS else DAY_WORDS
            row = 2 * customers[i] + which
            lengths[i, which] = state.customer_lists[row, 3]
            start = first_word(state.customer_lists, row, stride)
            for word in range(lengths[i, which] * stride):
                words[at + word] = state.heap[start + word]
            at += lengths[i, which] * stride


@entry_point
def put_back_customers(state, customers, records, lengths, words):
    """Undo: each customer is again as it was saved; the heap has room for all saved words twice over."""
    state = borrowed(state)
    at = 0
    for i in range(customers.shape[0]):
        state.customers[customers[i]] = records[i]
        for which in range(2):
            stride = EVENT_WORDS if which == EVENTS else DAY_WORDS
            row, size = 2 * customers[i] + which, lengths[i, which] * stride
            lists = state.customer_lists
            if lists[row, 1] < size:
                if lists[row, 1] > 0:
                    release(state.heap, state.allocator, lists[row, 0], lists[row, 1])
                block = 1 << block_class(size)
                lists[row, 0] = allocate(state.heap, state.allocator, block)
                lists[row, 1] = block
            lists[row, 2] = 0
            lists[row, 3] = lengths[i, which]
            for word in range(size):
                state.heap[lists[row, 0] + word] = words[at + word]
            at += size


@entry_point
def save_pairs(state, events, times):
    """When each event's customer was last at its merchant; NEVER where it was not."""
    state, events = borrowed(state), unowned(events)
    for row in range(events.shape[0]):
        key = (np.int64(events[row].customer) << 32) | np.int64(events[row].merchant)
        times[row] = state.pairs[pair_slot(state.pairs, key), 1]


@entry_point
def put_back_pairs(state, events, times):
    """Undo, from the newest event to the oldest."""
    state, events = borrowed(state), unowned(events)
    for row in range(events.shape[0] - 1, -1, -1):
        key = (np.int64(events[row].customer) << 32) | np.int64(events[row].merchant)
        slot = pair_slot(state.pairs, key)
        if state.pairs[slot, 0] != NOTHING:
            state.pairs[slot, 1] = times[row]


@compiled
def has_room_for_merge(state, slot):
    """Whether the heap can take one more count or mark of this entity, and what folding moves."""
    need = 0
    for which in range(3):
        need += room_needed(state.entity_lists, 3 * slot + which, MINUTE_WORDS)
    return state.allocator[0] + need <= state.heap.shape[0]


@entry_point
def merge_counts(state, rows, kinds, watermark, start):
    """Add (slot, minute, count, sum) rows to the shared minutes, folding as of `watermark`; returns where room ended."""
    state = borrowed(state)
    for i in range(start, rows.shape[0]):
        slot, minute = rows[i, 0], rows[i, 1]
        if not has_room_for_merge(state, slot):
            return i
        state.entities[slot].kind = kinds[i]
        if watermark != NEVER:
            fold(state, slot, watermark)
        if minute <= state.entities[slot].folded:  # of a writer that lags: the minutes around it are hours by now
            add_to_hour(state, slot, minute // 60, rows[i, 2], rows[i, 3])
        else:
            count_in_minute(state, slot, minute, rows[i, 2], rows[i, 3])
        state.entities[slot].touched = max(state.entities[slot].touched, (minute + 1) * MINUTE_US)
    return rows.shape[0]


@entry_point
def merge_marks(state, rows, kinds, watermark, added, start):
    """Add (slot, minute, second word, third word) marks: labels, or customers of a device; `added` says which were new."""
    state = borrowed(state)
    for i in range(start, rows.shape[0]):
        slot, minute = rows[i, 0], rows[i, 1]
        if not has_room_for_merge(state, slot):
            return i
        state.entities[slot].kind = kinds[i]
        if watermark != NEVER:
            fold(state, slot, watermark)
        before = state.entity_lists[3 * slot + MARKS, 3]
        if kinds[i] == DEVICE:
            mark_customer(state, slot, minute, rows[i, 2])
        else:
            at = push(state.heap, state.allocator, state.entity_lists, 3 * slot + MARKS, MARK_WORDS)
            state.heap[at] = minute
            state.heap[at + 1] = rows[i, 2]
            state.heap[at + 2] = rows[i, 3]
        added[i] = state.entity_lists[3 * slot + MARKS, 3] > before
        state.entities[slot].touched = max(state.entities[slot].touched, (minute + 1) * MINUTE_US)
    return rows.shape[0]


@entry_point
def take_back_counts(state, rows):
    """Undo `merge_counts`: nothing has been folded since."""
    state = borrowed(state)
    heap, lists = state.heap, state.entity_lists
    for i in range(rows.shape[0] - 1, -1, -1):
        slot, minute = rows[i, 0], rows[i, 1]
        hourly = minute <= state.entities[slot].folded
        row = 3 * slot + (HOURS if hourly else MINUTES)
        if hourly:
            state.entities[slot].at_hour = NEVER
        start = first_word(lists, row, MINUTE_WORDS)
        for place in range(lists[row, 3] - 1, -1, -1):
            at = start + place * MINUTE_WORDS
            if heap[at] == (minute // 60 if hourly else minute):
                heap[at + 1] -= rows[i, 2]
                heap[at + 2] -= rows[i, 3]
                if heap[at + 1] == 0 and not hourly:
                    remove_entry(heap, lists, row, at, MINUTE_WORDS)
                break


@entry_point
def take_back_marks(state, rows, added):
    """Undo `merge_marks`: none of these marks has been settled since."""
    state = borrowed(state)
    heap, lists = state.heap, state.entity_lists
    for i in range(rows.shape[0] - 1, -1, -1):
        if not added[i]:
            continue
        slot = rows[i, 0]
        row = 3 * slot + MARKS
        start = first_word(lists, row, MARK_WORDS)
        for place in range(lists[row, 3] - 1, state.entities[slot].settled - 1, -1):
            at = start + place * MARK_WORDS
            if heap[at] == rows[i, 1] and heap[at + 1] == rows[i, 2] and heap[at + 2] == rows[i, 3]:
                remove_entry(heap, lists, row, at, MARK_WORDS)
                break


@compiled
def remove_entry(heap, lists, row, at, stride):
    """Remove one entry of a list whose order has no meaning: the last one takes its place."""
    last = first_word(lists, row, stride) + (lists[row, 3] - 1) * stride
    for word in range(stride):
        heap[at + word] = heap[last + word]
    lists[row, 3] -= 1
