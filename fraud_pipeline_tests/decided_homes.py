"""A home with a log of payments, labels and the decisions that were given, each made as the service makes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import decide
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.serving.home import live_payments, made_bundle, serving_home

PAYMENTS = 120
SWITCHED_AT = 80
"""From this payment on version 2 decides."""
OTHER = {"review": 0.05, "block": 0.3}


def bundle(version: str) -> ModelBundle:
    """Version 1 as it was promoted; others have lower thresholds."""
    path = made_bundle() if version == "1" else made_bundle(**OTHER)
    return ModelBundle.load(path, version=version)


def states_of(settings: Settings, ledger: Ledger) -> LiveStateStore:
    return LiveStateStore(settings.home, CheckpointStore(settings.checkpoint_url), ledger)


def decided_home(path: Path) -> Settings:
    """`live-0` and so on, decided, received when they were made; labels between them, and a checkpoint at the 50th."""
    settings = serving_home(path)
    bundles = {version: bundle(version) for version in ("1", "2")}
    with Ledger.open(settings.ledger_url) as ledger:
        states = states_of(settings, ledger)
        live = states.base()
        for number, payment in enumerate(live_payments(PAYMENTS)):
            by = bundles["1" if number < SWITCHED_AT else "2"]
            given = decide(live.state, by, payment, decided_at=payment.event_time + timedelta(milliseconds=3))
            live.state.update(payment)
            ledger.append([LedgerEntry(payment, payment.event_time, decision=DecisionRecord.of(given))])
            live.sequence += 1
            if number % 9 == 4:
                label = Label(payment.transaction_id, number % 2 == 0, "analyst", "ann", payment.event_time)
                for released in ledger.record_labels([label]).released:
                    live.state.apply_label(released.change)
                    live.sequence += 1
            if number == 50:
                states.keep(live)
    return settings
