"""One payment explained: by the decision that was given where it was served, else by a model on its stored features."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.explanation_page import exact_explanation, waterfall_png
from fraud_pipeline.adapters.payment_lookup import find_payment
from fraud_pipeline.commands.opening import is_missing_file, open_ledger, open_registry
from fraud_pipeline.commands.versions import find_version
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.explanation import Explanation
from fraud_pipeline.domain.explanation import explain as explain_vector
from fraud_pipeline.errors import InputError, NotFound
from fraud_pipeline.settings import Settings

if TYPE_CHECKING:
    from fraud_pipeline.adapters.model_registry import ModelRegistry
    from fraud_pipeline.domain.exact_explanation import ExactExplanation


@dataclass(frozen=True, slots=True)
class ExplainedPayment:
    """The decision, all of its reasons, and whether it is the one that was given when the payment came.

    `exact` is there where it was asked for.
    """

    decision: Decision
    explanation: Explanation
    served: bool
    exact: ExactExplanation | None = None


def explain_payment(settings: Settings, transaction_id: str, *, version: str, exact: bool = False) -> ExplainedPayment:
    """Raises NotFound where the payment, or the model, is not there, or the model keeps nothing for an exact answer."""
    registry = open_registry(settings)
    given = _given_decision(settings, transaction_id)
    if given is not None:
        bundle, decision = _deciding_bundle(registry, given), given
    else:
        payment = find_payment(DatasetStore(settings.home), transaction_id)
        number = find_version(registry, version).version
        bundle = ModelBundle.load(registry.fetch(number), version=str(number))
        decision = decide_on(
            bundle.inputs.vector(payment.computed, payment.transaction),
            bundle,
            transaction_id=transaction_id,
            event_time=payment.transaction.event_time,
            decided_at=datetime.now(UTC),
            control_share=settings.control_share,
        )
    vector = decision.vector.copy()  # writable: for arrays that are not, numba would compile anew
    return ExplainedPayment(
        decision,
        explain_vector(bundle, vector),
        served=given is not None,
        exact=exact_explanation(bundle, vector) if exact else None,
    )


def write_waterfall(explanation: ExactExplanation, path: Path) -> None:
    """Raises InputError where the file cannot be written."""
    picture = waterfall_png(explanation)
    try:
        path.write_bytes(picture)
    except OSError as err:
        raise InputError(
            f"{path} cannot be written: {err.strerror}.", remedy="Name a file in a folder of yours."
        ) from err


def _deciding_bundle(registry: ModelRegistry, given: Decision) -> ModelBundle:
    if not given.model_version.isdecimal():
        raise NotFound(
            f"{given.transaction_id} was decided by bundle {given.model_version}, which is no registered version.",
            remedy="Explain payments that a registered version decided: `fraud models list`.",
        )
    return ModelBundle.load(registry.fetch(int(given.model_version)), version=given.model_version)


def _given_decision(settings: Settings, transaction_id: str) -> Decision | None:
    if is_missing_file(settings.ledger_url):
        return None
    with open_ledger(settings) as ledger:
        record = ledger.decision(transaction_id)
    return None if record is None else Decision.from_json(record.payload, features=record.features)
