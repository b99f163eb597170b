"""One payment explained: by the decision that was given where it was served, else by a model on its stored features."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.payment_lookup import find_payment
from fraud_pipeline.commands.models import find_version
from fraud_pipeline.commands.opening import is_missing_file, open_ledger, open_registry
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.explanation import Explanation
from fraud_pipeline.domain.explanation import explain as explain_vector
from fraud_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class ExplainedPayment:
    """The decision, all of its reasons, and whether it is the one that was given when the payment came."""

    decision: Decision
    explanation: Explanation
    served: bool


def explain_payment(settings: Settings, transaction_id: str, *, version: str) -> ExplainedPayment:
    """Raises NotFound where the payment, or the model, is not there."""
    registry = open_registry(settings)
    given = _given_decision(settings, transaction_id)
    if given is not None:
        bundle = ModelBundle.load(registry.fetch(int(given.model_version)), version=given.model_version)
        return ExplainedPayment(given, explain_vector(bundle, given.vector), served=True)
    payment = find_payment(DatasetStore(settings.home), transaction_id)
    number = find_version(registry, version).version
    bundle = ModelBundle.load(registry.fetch(number), version=str(number))
    vector = bundle.inputs.vector(payment.computed, payment.transaction)
    decision = decide_on(
        vector,
        bundle,
        transaction_id=transaction_id,
        event_time=payment.transaction.event_time,
        decided_at=datetime.now(UTC),
        control_share=settings.control_share,
    )
    return ExplainedPayment(decision, explain_vector(bundle, vector), served=False)


def _given_decision(settings: Settings, transaction_id: str) -> Decision | None:
    if is_missing_file(settings.ledger_url):
        return None
    with open_ledger(settings) as ledger:
        record = ledger.decision(transaction_id)
    return None if record is None else Decision.from_json(record.payload, features=record.features)
