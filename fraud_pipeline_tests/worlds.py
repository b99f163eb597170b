"""Small simulated worlds in a home, for tests that need days of payments and labels."""

from datetime import date
from pathlib import Path

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.source_store import SourceStore, WorldManifest
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.domain.simulation_config import WorldConfig

WORLD_END = date(2026, 3, 1)


def land_small_world(home: Path, *, days: int = 12, customers: int = 60, seed: int = 7) -> WorldManifest:
    """About 120 payments a day, one in twenty of them fraud."""
    config = WorldConfig(
        end=WORLD_END, customers=customers, merchants=30, days=days, rate=2, fraud_rate=0.05, seed=seed,
        label_delay_days=(1, 5),
    )  # fmt: skip
    return land_world(config, home=home)


def stored_world(home: Path, *, days: int = 12) -> tuple[DatasetStore, list[date]]:
    """A small world with its days materialized and passed."""
    world = land_small_world(home, days=days)
    store, source = DatasetStore(home), SourceStore(home)
    between = days_between(world.start, world.end)
    for day in between:
        for dataset in ("transactions", "labels"):
            store.write_day(dataset, day, source.read_day(dataset, day), verdict="passed")
    return store, between


def feature_store(home: Path, store: DatasetStore) -> FeatureStore:
    """A feature store with its checkpoints in the home."""
    return FeatureStore(store, CheckpointStore(f"file://{home / 'checkpoints'}"))
