"""The retention of the home that the settings name: what `fraud retention` and the daily job have in common."""

from __future__ import annotations

from datetime import UTC, datetime

from fraud_pipeline.adapters.retention import Retained
from fraud_pipeline.settings import Settings


def apply_retention(settings: Settings, *, days_kept: int | None = None, dry_run: bool = False) -> Retained:
    """Delete what is older than FRAUD_DATA_RETENTION_DAYS, or so many days."""
    from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
    from fraud_pipeline.adapters.dataset_store import DatasetStore
    from fraud_pipeline.adapters.feature_store import FeatureStore
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.adapters.retention import Retention
    from fraud_pipeline.adapters.source_store import SourceStore

    store = DatasetStore(settings.home)
    features = FeatureStore(store, CheckpointStore(settings.checkpoint_url), time_zone=settings.time_zone)
    with Ledger.open(settings.ledger_url) as ledger:
        retention = Retention(
            features, SourceStore(settings.home), ledger, folders=(settings.reports_dir, settings.plots_dir),
            bundles=settings.bundles_dir,
        )  # fmt: skip
        kept = settings.data_retention_days if days_kept is None else days_kept
        return retention.apply(kept, now=datetime.now(UTC), dry_run=dry_run)
