"""The keys of a ledger at an address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fraud_pipeline.adapters.api_keys import KeyStore
from fraud_pipeline.adapters.ledger import Ledger


@contextmanager
def key_store(ledger_url: str) -> Iterator[KeyStore]:
    with Ledger.open(ledger_url) as ledger:
        yield KeyStore(ledger.database)
