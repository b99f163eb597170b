"""The error tree.

FraudError
    InputError              the caller's: exit code 2, HTTP 422, dead letter
        InvalidTransaction  one event breaks the Transaction contract; names every field
        MalformedJson       a body or a message that is not one strict JSON object
        MappingError        an import mapping names what is not there
        DatasetError        a file, a day or a world that cannot be used as it is
        TrainingDataError   too few days or frauds to learn from
        SettingsError       a setting that makes no sense
        NotFound            an id, a version or a day that is not there
    IntegrityError          what is stored is not what was written
        BundleError         a bundle is corrupt or incomplete
        SchemaMismatch      a bundle needs features that this code does not compute
        StateError          a snapshot that cannot be restored
    DependencyError         a system we need does not answer: exit code 3, HTTP 503
    Busy                    someone else holds what only one may hold
    ConflictingTransaction  an id is taken by a payment with other content: HTTP 409, dead letter
    PromotionRefused        a gate, or another promotion, stands in the way

Every error says what is wrong in `message` and what to do in `remedy`.
"""

from __future__ import annotations

from dataclasses import dataclass


class FraudError(Exception):
    """What went wrong, and the remedy; both are shown to people as they stand."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class InputError(FraudError):
    """Bad input: trying again without changing it is of no use."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: the field, what it held (shortened), and the rule."""

    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}: {self.reason}"


class InvalidTransaction(InputError):
    """A transaction breaks the contract; `violations` names every broken rule."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("; ".join(str(v) for v in violations), remedy="Correct the named fields and send it again.")
        self.violations = violations


class MalformedJson(InputError):
    """Not one JSON object with one meaning; `violations` names the broken fields where they can be told."""

    def __init__(self, message: str, violations: tuple[Violation, ...]) -> None:
        super().__init__(message, remedy="Send one JSON object in UTF-8, without NaN and without a name twice.")
        self.violations = violations


class MappingError(InputError):
    """An import mapping names a column or a rule that cannot be applied."""


class DatasetError(InputError):
    """A file, a day or a world that cannot be used as it is."""


class TrainingDataError(InputError):
    """Too few days, payments or frauds to learn from."""


class SettingsError(InputError):
    """A setting that makes no sense."""


class NotFound(InputError):
    """An id, a version or a day that is not there."""


class IntegrityError(FraudError):
    """What is stored is not what was written."""


class BundleError(IntegrityError):
    """A bundle is corrupt or incomplete."""


class SchemaMismatch(IntegrityError):
    """A bundle needs features that this code does not compute, or computes differently."""


class StateError(IntegrityError):
    """A state snapshot that cannot be restored."""


class DependencyError(FraudError):
    """A system we depend on does not answer."""


class Busy(FraudError):
    """Someone else holds what only one may hold."""


class ConflictingTransaction(FraudError):
    """The id is taken by a payment with other content; `fields` are those that differ."""

    def __init__(self, transaction_id: str, fields: tuple[str, ...]) -> None:
        fields = tuple("amount" if name == "amount_minor" else name for name in fields)  # as the sender knows it
        super().__init__(
            f"Transaction {transaction_id} is recorded with another {', '.join(fields)}.",
            remedy="Send a repeat unchanged, or another payment under an id of its own.",
        )
        self.transaction_id = transaction_id
        self.fields = fields


class PromotionRefused(FraudError):
    """A gate, or a promotion that came first, stands in the way."""
