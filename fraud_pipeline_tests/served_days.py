"""A home with a day that was served live and has come back as stored days with features: what monitoring reads."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_source import DaySource, live_transactions
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.adapters.training_rows import TrainingRowReader
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.adapters.training_store import TrainingStore
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.bundles import MODEL_INPUT
from fraud_pipeline_tests.decided_homes import decided_home
from fraud_pipeline_tests.worlds import WORLD_END, feature_store

LIVE_DAY = WORLD_END
"""120 payments, decided by version 1 and then, from the 80th on, by version 2."""


def served_home(path: Path) -> Settings:
    """A decided home whose live day, and an empty one after it, are stored with their features."""
    settings = decided_home(path)
    store, source = DatasetStore(path), SourceStore(path)
    days = DaySource(source, lambda: Ledger.open(settings.ledger_url))
    live = [LIVE_DAY, LIVE_DAY + timedelta(days=1)]
    with Ledger.open(settings.ledger_url) as ledger:
        start = datetime.combine(LIVE_DAY, time.min, UTC)
        came = ledger.transactions_received(start, start + timedelta(days=1))
    for day in live:  # as of a world that knows the attribute, which the small one does not
        payments = live_transactions(came if day == LIVE_DAY else [], MODEL_INPUT.attributes)
        store.write_day("transactions", day, payments, verdict="passed")
        store.write_day("labels", day, days.labels(day), verdict="passed")
    for _ in feature_store(path, store).materialize(live):
        pass
    return settings


def builder_of(settings: Settings) -> TrainingSetBuilder:
    """What reads the home's days."""
    store = DatasetStore(settings.home)
    reader = TrainingRowReader(store, SourceStore(settings.home), lambda: Ledger.open(settings.ledger_url))
    return TrainingSetBuilder(store, feature_store(settings.home, store), reader, TrainingStore(settings.home))
