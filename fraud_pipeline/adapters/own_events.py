"""A replica's own payments that the state view does not show yet, by customer, in the order in which they were decided.

A payment leaves when the view as a whole has passed its place in the log. Until its
place is known (it is on its way, or a process before this one may have sent it already) the record itself is asked whether
it holds the payment. One event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fraud_pipeline.domain.feature_layout import COUNTRY, DEVICE, EVENT_WORDS, EVENTS, MERCHANT, NOTHING
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.transaction import Transaction

MOST_EVENTS: Final = 200_000
"""Payments that are remembered while the view does not follow, about 100 MB; the oldest are forgotten beyond it."""


@dataclass(slots=True)
class OwnEvent:
    """A payment and its place in the log: writer and offset, -1 while it has none. `again`: it may be there twice."""

    transaction: Transaction
    writer: str
    again: bool = False
    offset: int = -1
    known_at: float = 0.0


class OwnEvents:
    """Payments are added as they are decided, get their place when the log confirms them, and leave with the view."""

    def __init__(self, *, most: int = MOST_EVENTS) -> None:
        self.forgotten = 0
        self._most = most
        self._by_id: OrderedDict[str, OwnEvent] = OrderedDict()
        self._of: dict[str, dict[str, OwnEvent]] = {}
        self._gone: dict[str, int] = {}
        """By writer, the place after the newest payment that left."""

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, transaction: Transaction, writer: str, *, again: bool = False) -> None:
        """A payment was decided; `again`: by a process before this one, which may have sent it."""
        event = OwnEvent(transaction, writer, again)
        self._by_id[transaction.transaction_id] = event
        self._of.setdefault(transaction.customer_id, {})[transaction.transaction_id] = event
        while len(self._by_id) > self._most:
            self.forgotten += 1
            self.drop(next(iter(self._by_id)))

    def drop(self, transaction_id: str) -> None:
        """A payment that does not count after all, or does not matter any more."""
        event = self._by_id.pop(transaction_id, None)
        if event is not None:
            customer_id = event.transaction.customer_id
            mine = self._of[customer_id]
            del mine[transaction_id]
            if not mine:
                del self._of[customer_id]

    def confirmed(self, transaction_id: str, writer: str, offset: int, now: float) -> None:
        """The log has it, there."""
        event = self._by_id.get(transaction_id)
        if event is not None:
            event.writer, event.offset, event.known_at = writer, offset, now

    def passed(self, reaches: Mapping[str, int]) -> None:
        """The view as a whole has come so far."""
        gone = [name for name, event in self._by_id.items() if -1 < event.offset < reaches.get(event.writer, -1)]
        for transaction_id in gone:
            event = self._by_id[transaction_id]
            self._gone[event.writer] = max(self._gone.get(event.writer, 0), event.offset + 1)
            self.drop(transaction_id)

    def lacks(self, writer: str, reach: int | None) -> bool:
        """Whether payments have left that a record read at this reach may not have either: then it is read again."""
        return reach is not None and reach < self._gone.get(writer, 0)

    def oldest_known_at(self) -> float | None:
        """When the log confirmed the oldest payment that the view lacks."""
        return min((event.known_at for event in self._by_id.values() if event.offset >= 0), default=None)

    def missing(self, customer_id: str, through: Mapping[str, int], state: FeatureState) -> list[Transaction]:
        """The customer's payments that are not in the record that `state` was loaded with.

        `through` says by writer how far the record goes. None leaves here: an older record may still be on its way to a decision.
        """
        found = []
        for event in list(self._of.get(customer_id, {}).values()):
            if -1 < event.offset < through.get(event.writer, -1):
                continue
            if (event.offset >= 0 and not event.again) or not holds(state, event.transaction):
                found.append(event.transaction)
        return found


def holds(state: FeatureState, transaction: Transaction) -> bool:
    """Whether the kept events of the customer have this payment, at its time or, come late, at that of the one before it."""
    slot = state.customers.get(transaction.customer_id)
    if slot is None:
        return False
    offset, _, head, count = state.arrays.customer_lists[2 * slot + EVENTS].tolist()
    at = offset + head * EVENT_WORDS
    kept = state.arrays.heap[at : at + count * EVENT_WORDS].reshape(count, EVENT_WORDS)
    named = ((MERCHANT, transaction.merchant_id), (DEVICE, transaction.device_id), (COUNTRY, transaction.country))
    slots = [NOTHING if name is None else state.entities[kind].get(name) for kind, name in named]
    merchant, device, country = slots
    if merchant is None or device is None or country is None:
        return False  # no payment that is known has such a one
    moment = microseconds(transaction.event_time)
    same = (kept[:, 1] == transaction.amount_minor) & (kept[:, 2] == (merchant << 32 | device + 1))
    same &= (kept[:, 3] == country) & (kept[:, 0] >= moment)
    late = kept[:, 0] > moment
    late[1:] &= kept[1:, 0] == kept[:-1, 0]
    late[:1] = False
    return bool((same & ((kept[:, 0] == moment) | late)).any())
