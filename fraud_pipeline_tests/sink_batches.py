"""What the sink would have read from a partition of `transactions`, made up."""

from __future__ import annotations

from dataclasses import replace

from fraud_pipeline.adapters.ledger_records import Alert
from fraud_pipeline.adapters.ledger_sink import LedgerSink
from fraud_pipeline.adapters.ledger_sink_rows import Move, RawLabel, RawTransaction, SinkBatch, Written
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline_tests.entries import SECOND, T0, decided, payment

TOPIC = "transactions"
WRITER = "transactions[0]"
KEY = (TOPIC, 0)


def raw(number: int, offset: int, *, content: Transaction | None = None, writer: str = WRITER) -> RawTransaction:
    return RawTransaction(content or payment(number), writer, offset, T0 + offset * SECOND)


def placed(label: Label, change: int, offset: int) -> RawLabel:
    return RawLabel(label, change, WRITER, offset)


def alert(number: int) -> Alert:
    record = decided(number, "REVIEW")
    return Alert(record.transaction_id, record.decided_at, record.decision, record.fraud_probability)


def batch(begin: int, end: int, **content: object) -> SinkBatch:
    """A batch that brings `transactions[0]` from one offset to another."""
    return replace(SinkBatch(), moves={KEY: Move(begin, end)}, **content)  # type: ignore[arg-type]


def write(sink: LedgerSink, begin: int, end: int, **content: object) -> Written:
    sink.begin({KEY: begin})
    return sink.write(batch(begin, end, **content))
