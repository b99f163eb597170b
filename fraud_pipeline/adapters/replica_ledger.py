"""What a REST replica asks the ledger about a payment's id, beside its event loop: another machine may have to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fraud_pipeline.adapters.known_payments import Known
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_lookup import LedgerLookup


class ReplicaLedger:
    """One thread, since a lookup belongs to one."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._lookup = LedgerLookup(database)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replica-ledger")

    async def find(self, transaction_ids: Sequence[str]) -> dict[str, Known]:
        """The recorded ones with their answers. FraudError while the ledger is away."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._find, transaction_ids)

    def close(self) -> None:
        self._thread.submit(self._lookup.close)
        self._thread.shutdown()

    def _find(self, transaction_ids: Sequence[str]) -> dict[str, Known]:
        ids = transaction_ids if len(transaction_ids) == 1 else sorted(self._lookup.known(transaction_ids))
        found = ((identity, self._lookup.find(identity)) for identity in ids)
        return {
            identity: (known[0], None if known[1] is None else known[1].encode())
            for identity, known in found
            if known is not None
        }
