"""Which payment ids are taken, and by what: on their way into the log, in the journal, in the ledger. One event loop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter

from fraud_pipeline.adapters.ledger_lookup import LedgerLookup
from fraud_pipeline.adapters.live_decisions import Made
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import FraudError

Known = tuple[Transaction, bytes | None]
"""A payment and its answer: None where it has none, ON_ITS_WAY where it has one that is not durable yet."""
ON_ITS_WAY = b""
_IDENTITY = attrgetter("transaction_id")


class KnownPayments:
    """`waiting` are ids of unknown payments that a label waits for."""

    def __init__(self, lookup: LedgerLookup) -> None:
        self._lookup = lookup
        self._in_flight: dict[str, tuple[Made, int]] = {}
        self._journalled: dict[str, Known] = {}
        self.waiting: set[str] = set()

    @property
    def any_journalled(self) -> bool:
        """Whether the log is not whole without the journal."""
        return bool(self._journalled)

    def find(self, transaction_id: str, *, has_journal: bool) -> Known | None:
        """The payment that has this id already; None for a new one.

        While the ledger is away, FraudError without a journal; with one, what the ledger knows is not known, and the
        decision will say so.
        """
        if transaction_id in self._in_flight:
            made, place = self._in_flight[transaction_id]
            return made.transactions[place], ON_ITS_WAY
        if self._journalled:
            return self._journalled.get(transaction_id)
        try:
            found = self._lookup.find(transaction_id)
        except FraudError:
            if not has_journal:
                raise
            return None
        return None if found is None else (found[0], None if found[1] is None else found[1].encode())

    def split(
        self, transactions: Sequence[Transaction], places: Sequence[int], *, has_journal: bool
    ) -> tuple[list[int], list[int]]:
        """Of these places, those of payments that are new to everyone, and the others; errors as `find`."""
        ids = [transactions[place].transaction_id for place in places]
        taken = {identity for identity in ids if identity in self._in_flight or identity in self.waiting}
        if self._journalled:
            taken.update(identity for identity in ids if identity in self._journalled)
        else:
            try:
                taken |= self._lookup.known(ids)
            except FraudError:
                if not has_journal:
                    raise
        fresh: list[int] = []
        others: list[int] = []
        for place, identity in zip(places, ids, strict=True):
            (others if identity in taken else fresh).append(place)
            taken.add(identity)
        return fresh, others

    def on_its_way(self, transaction_id: str) -> tuple[Made, int] | None:
        """The group that the payment is committed with, and its place there."""
        return self._in_flight.get(transaction_id)

    def sent(self, made: Made) -> None:
        """A group is on its way into the log."""
        places = zip(repeat(made), range(len(made.transactions)))
        self._in_flight.update(zip(map(_IDENTITY, made.transactions), places, strict=True))

    def arrived(self, made: Made, *, in_journal: bool) -> None:
        """It is there, in the journal, or lost."""
        for identity in map(_IDENTITY, made.transactions):
            self._in_flight.pop(identity, None)
        if in_journal:
            for transaction, answer in zip(made.transactions, made.answers, strict=True):
                self._journalled[transaction.transaction_id] = (transaction, answer)

    def journal_replayed(self) -> None:
        """The ledger has what the journal had."""
        self._journalled.clear()

    def close(self) -> None:
        self._lookup.close()
