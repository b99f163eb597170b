"""What goes into the ledger and comes out of it, as typed values. Knows no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from fraud_pipeline.domain.transaction import Label, LabelChange, Transaction

if TYPE_CHECKING:  # the ledger keeps decisions without loading what makes them
    from fraud_pipeline.domain.decision import Decision

LOCAL_WRITER: Final = "local"
"""The one writer of the embedded stack, whose log is the ledger itself."""

HISTORY_WRITER: Final = "history"
"""Payments of the imported or simulated past that a label was given for; such labels stand in the log of `local`."""

DecisionRole = Literal["decided", "shadow"]


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision as it was given. `payload` is its JSON text, `features` the float32 vector's bytes (little-endian)."""

    transaction_id: str
    decided_at: datetime
    decision: str
    fraud_probability: float
    model_version: str
    payload: str
    features: bytes
    role: DecisionRole = "decided"

    @classmethod
    def of(cls, decision: Decision, *, role: DecisionRole = "decided", answer: bytes | None = None) -> DecisionRecord:
        """What the ledger keeps of a decision; `Decision.from_json(payload, features=features)` is the way back.

        `answer` is its JSON where that was made already.
        """
        return cls(
            transaction_id=decision.transaction_id,
            decided_at=decision.decided_at,
            decision=decision.decision,
            fraud_probability=decision.fraud_probability,
            model_version=decision.model_version,
            payload=(decision.to_json() if answer is None else answer).decode(),
            features=decision.features,
            role=role,
        )


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A transaction to append, with its decision where there is one.

    `sequence` is its place in its writer's log; None lets the ledger number it (all entries of one call alike).
    """

    transaction: Transaction
    received_at: datetime
    sequence: int | None = None
    decision: DecisionRecord | None = None


@dataclass(frozen=True, slots=True)
class RecordedTransaction:
    """A transaction and its place in the log."""

    transaction: Transaction
    writer: str
    sequence: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class IdConflict:
    """The id is taken by a transaction with other content; `fields` are those that differ."""

    transaction_id: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReleasedLabel:
    """A label change and its place in its transaction's writer's log.

    `sequence` is None where that log is not the ledger (a Kafka partition): whoever produces it there learns the offset.
    """

    label_id: int
    change: LabelChange
    writer: str
    sequence: int | None


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did.

    New rows, repeats (same id and content: nothing done), conflicts (nothing done either), and the labels that had
    waited for the new rows.
    """

    recorded: tuple[RecordedTransaction, ...]
    repeats: tuple[str, ...]
    conflicts: tuple[IdConflict, ...]
    released: tuple[ReleasedLabel, ...]


@dataclass(frozen=True, slots=True)
class RecordedLabels:
    """What recording labels did. `waiting` are ids of unknown transactions, `repeats` labels that were there already."""

    released: tuple[ReleasedLabel, ...]
    waiting: tuple[str, ...]
    repeats: tuple[Label, ...]

    @property
    def changes(self) -> tuple[LabelChange, ...]:
        return tuple(r.change for r in self.released)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One place in a writer's log: a transaction or a label change, never both."""

    sequence: int
    transaction: Transaction | None = None
    label_change: LabelChange | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A payment for an analyst's eyes. Closed by the first label for its transaction."""

    transaction_id: str
    created_at: datetime
    decision: str
    fraud_probability: float
    closed_at: datetime | None = None
    closed_by: str | None = None
