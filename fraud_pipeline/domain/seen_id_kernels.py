"""A hash table of the ids that a writer has decided: hash of the id, hash of the content, time. Compiled, 24 bytes an id."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_lists import compiled, entry_point

Ints = npt.NDArray[np.int64]

NEW, REPEAT, CONFLICT = 0, 1, 2
SMALLEST: Final = 1_024
TAKEN_BACK: Final = NEVER + 1
"""The time of an entry that counts no more, not even where there was no event yet; its place is not empty for a search."""


def blank_table(size: int) -> Ints:
    """An empty table; `size` is a power of two."""
    table = np.zeros((size, 3), np.int64)
    table[:, 2] = NEVER
    return table


@compiled
def home(table, key):
    """Where the search for a key begins."""
    mixed = key * -7046029254386353131
    mixed ^= (mixed >> 32) & 0xFFFFFFFF
    return mixed & (table.shape[0] - 1)


@compiled
def find(table, key):
    """Where the key is, or where it would go (linear probing; never full). A place with time NEVER is empty."""
    mask, at = table.shape[0] - 1, home(table, key)
    while table[at, 2] != NEVER and table[at, 0] != key:
        at = (at + 1) & mask
    return at


@entry_point
def enter(table, ids, contents, times, watermark, horizon, verdicts, before):
    """Enter n ids in this order, after events up to `watermark`; an entry counts within `horizon` of the newest new event.

    Fills `verdicts` and the (content, time) that was there `before`. Returns how many places were empty before.
    """
    fresh = 0
    for i in range(ids.shape[0]):
        at = find(table, ids[i])
        before[i, 0], before[i, 1] = table[at, 1], table[at, 2]
        if table[at, 2] <= TAKEN_BACK or (watermark != NEVER and table[at, 2] < watermark - horizon):
            fresh += table[at, 2] == NEVER
            table[at, 0], table[at, 1], table[at, 2] = ids[i], contents[i], times[i]
            verdicts[i] = NEW
            watermark = max(watermark, times[i])
        else:
            verdicts[i] = REPEAT if table[at, 1] == contents[i] else CONFLICT
    return fresh


@entry_point
def take_back(table, ids, verdicts, before):
    """Undo `enter`: what was new is older than everything that counts, and goes when the table is made anew."""
    for i in range(ids.shape[0] - 1, -1, -1):
        if verdicts[i] == NEW:
            at = find(table, ids[i])
            table[at, 1] = before[i, 0]
            table[at, 2] = max(before[i, 1], TAKEN_BACK)


@entry_point
def copy_seen(old, new, oldest):
    """Copy the entries that still count into an empty table; returns how many."""
    kept = 0
    for i in range(old.shape[0]):
        if old[i, 2] != NEVER and old[i, 2] >= oldest:
            at = find(new, old[i, 0])
            new[at, 0], new[at, 1], new[at, 2] = old[i, 0], old[i, 1], old[i, 2]
            kept += 1
    return kept
