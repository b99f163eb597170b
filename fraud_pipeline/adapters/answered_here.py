"""What one replica knows of its own payments: those on their way to an answer, and the answers that it gave. One event loop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime
from typing import Final

from fraud_pipeline.adapters.claims import Claim, fingerprint_of
from fraud_pipeline.adapters.known_payments import Known
from fraud_pipeline.domain.transaction import Transaction

MOST_RECENT: Final = 20_000
"""Answers that are remembered after the log has their payments (30 MB): seconds later the ledger has them too."""


class Deciding:
    """A payment on its way to its answer; `held` is the claim that is made of its id."""

    def __init__(
        self, transaction: Transaction, answer: asyncio.Future[bytes], received_at: datetime, holder: bytes
    ) -> None:
        self.transaction = transaction
        self.answer = answer
        self.received_at = received_at
        self.held = Claim(fingerprint_of(transaction), holder)

    def succeed(self, answer: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class AnsweredHere:
    """Answers are kept while the journal holds their payments, and the newest for a while after that."""

    def __init__(self) -> None:
        self._journalled: dict[str, Known] = {}
        self._recent: OrderedDict[str, Known] = OrderedDict()

    @property
    def journalled(self) -> int:
        """Payments that the log has not confirmed."""
        return len(self._journalled)

    def find(self, transaction_id: str) -> Known | None:
        """A payment that was answered here: whatever else is away, this is known."""
        return self._journalled.get(transaction_id) or self._recent.get(transaction_id)

    def add(self, transaction: Transaction, answer: bytes) -> None:
        """It is in the journal."""
        self._journalled[transaction.transaction_id] = transaction, answer

    def confirmed(self, transaction_id: str) -> None:
        """The log has it, and the journal does not hold it any more."""
        known = self._journalled.pop(transaction_id, None)
        if known is not None:
            self._recent[transaction_id] = known
            if len(self._recent) > MOST_RECENT:
                self._recent.popitem(last=False)
