"""Payments with their decisions as the live route brings them to the ledger, made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.domain.transaction import Label, Transaction

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def payment(number: int, **changes: object) -> Transaction:
    """`t<number>`, a second after the one before."""
    plain = Transaction(f"t{number}", T0 + number * SECOND, f"c{number % 3}", f"m{number % 2}", 100 + number)
    return replace(plain, **changes)  # type: ignore[arg-type]


def rich_payment(number: int) -> Transaction:
    """One with every field, each hard to keep: non-ASCII text, long decimals, many attributes."""
    return payment(
        number, currency="EUR", merchant_category="groceries ✓", channel="pos", country="DE", device_id="dévice '\"%s?",
        latitude=52.52000000000001, longitude=-13.4, attributes={"ip_risk": 0.1, "v1": -1e-300},
    )  # fmt: skip


def decided(number: int, decision: str = "APPROVE", degraded: Sequence[str] = ()) -> DecisionRecord:
    return DecisionRecord(
        transaction_id=f"t{number}", decided_at=T0 + number * SECOND, decision=decision, fraud_probability=number / 100,
        model_version="3", payload=f'{{"b": "ü",  "a": {number}, "degraded": "{",".join(degraded)}"}}',
        features=np.array([1.5, np.nan, -0.0, number], dtype="<f4").tobytes(),
    )  # fmt: skip


def entry(number: int, decision: str | None = "APPROVE", **changes: object) -> LedgerEntry:
    """A payment with its decision, or without one where that is None."""
    record = None if decision is None else decided(number, decision)
    return LedgerEntry(payment(number, **changes), T0 + number * SECOND, decision=record)


def label(number: int, *, is_fraud: bool = True, author: str = "bank", days: float = 3) -> Label:
    return Label(f"t{number}", is_fraud, "chargeback", author, T0 + timedelta(days=days))


def log_of(ledger: Ledger) -> list[str]:
    """The log in its order, one word a place: `t1` for a payment, `t1+1` or `t1-1` for a label's change."""
    words = []
    for place, event in enumerate(ledger.read_log(), start=1):
        assert event.sequence == place
        if event.transaction is not None:
            words.append(event.transaction.transaction_id)
        elif event.label_change is not None:
            words.append(f"{event.label_change.transaction_id}{event.label_change.change:+d}")
    return words
