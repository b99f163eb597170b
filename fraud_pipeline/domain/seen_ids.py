"""The transaction ids that a writer has decided in the last DEDUP_HORIZON of event time: what a repeat is told by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_spec import DAY_US
from fraud_pipeline.domain.feature_state import stable_hash
from fraud_pipeline.domain.seen_id_kernels import (
    CONFLICT,
    NEW,
    REPEAT,
    SMALLEST,
    TAKEN_BACK,
    blank_table,
    copy_seen,
    enter,
    take_back,
)
from fraud_pipeline.domain.transaction import Transaction

__all__ = ["CONFLICT", "DEDUP_HORIZON_US", "NEW", "REPEAT", "SeenIds", "content_hash"]

Ints = npt.NDArray[np.int64]

DEDUP_HORIZON_US: Final = 7 * DAY_US
"""A gateway repeats within minutes, a replayed topic within days; an id remembered for ever would need memory for ever."""


@dataclass
class Entered:
    """What one call entered, so that it can be taken back. `verdicts` [n]: NEW, REPEAT or CONFLICT."""

    ids: Ints
    verdicts: npt.NDArray[np.int8]
    before: Ints


class SeenIds:
    """Entries count while their time is within DEDUP_HORIZON of the writer's newest event before them."""

    def __init__(self) -> None:
        self.table = blank_table(SMALLEST)
        self.used = 0

    def enter(self, ids: Ints, contents: Ints, times: Ints, watermark: int) -> Entered:
        """Enter ids [n] in their order, after events up to `watermark`; times in µs."""
        if 2 * (self.used + len(ids)) > len(self.table):
            self._make_room(len(ids), watermark)
        verdicts, before = np.zeros(len(ids), np.int8), np.empty((len(ids), 2), np.int64)
        self.used += int(enter(self.table, ids, contents, times, watermark, DEDUP_HORIZON_US, verdicts, before))
        return Entered(ids, verdicts, before)

    def take_back(self, entered: Entered) -> None:
        """As if it had not been entered."""
        take_back(self.table, entered.ids, entered.verdicts, entered.before)

    def rows(self, watermark: int) -> Ints:
        """What still counts, [n, 3] in the order of the hashes: equal sets give equal rows."""
        oldest = TAKEN_BACK + 1 if watermark == NEVER else watermark - DEDUP_HORIZON_US
        live = self.table[self.table[:, 2] >= oldest]
        return np.ascontiguousarray(live[np.argsort(live[:, 0])])

    @classmethod
    def of_rows(cls, rows: Ints) -> SeenIds:
        """The reverse of `rows`."""
        seen = cls()
        seen._rebuild(rows, TAKEN_BACK + 1, len(rows))
        return seen

    def _make_room(self, coming: int, watermark: int) -> None:
        oldest = TAKEN_BACK + 1 if watermark == NEVER else watermark - DEDUP_HORIZON_US
        live = int(np.count_nonzero(self.table[:, 2] >= oldest))
        self._rebuild(self.table, oldest, live + coming)

    def _rebuild(self, rows: Ints, oldest: int, expected: int) -> None:
        size = SMALLEST
        while size < 4 * (expected + 1):
            size *= 2
        table = blank_table(size)
        self.used = int(copy_seen(rows, table, oldest))
        self.table = table


def id_hash(transaction_id: str) -> int:
    """The signed 64-bit hash by which ids are told apart: two of a billion collide with a chance of 3 %."""
    return stable_hash(transaction_id)


def content_hash(transaction: Transaction, time_us: int) -> int:
    """A signed 64-bit hash of all fields but the id: equal for the same payment however its JSON was written.

    `time_us` is its event time, µs.
    """
    t = transaction
    attributes = sorted(t.attributes.items()) if t.attributes else ""
    text = (
        f"{time_us}\0{t.customer_id}\0{t.merchant_id}\0{t.amount_minor}\0{t.currency}\0{t.merchant_category}"
        f"\0{t.channel}\0{t.country}\0{t.device_id}\0{t.latitude!r}\0{t.longitude!r}\0{attributes!r}"
    )
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
