"""The adapters that commands work with, opened as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.adapters.live_state import LiveStateStore
    from fraud_pipeline.adapters.model_registry import ModelRegistry
    from fraud_pipeline.adapters.stream.landed_history import LandedHistory
    from fraud_pipeline.adapters.stream.stream_checkpoints import StreamCheckpoints
    from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
    from fraud_pipeline.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """The ledger; made where it is not there yet."""
    from fraud_pipeline.adapters.ledger import Ledger

    return Ledger.open(settings.ledger_url)


def open_registry(settings: Settings) -> ModelRegistry:
    """The registry; MLflow's database is made where it is not there yet, which takes seconds."""
    from fraud_pipeline.adapters.model_registry import ModelRegistry

    return ModelRegistry.open(
        settings.mlflow_tracking_uri, artifact_root=settings.artifacts_dir, cache_dir=settings.bundles_dir
    )


def open_builder(settings: Settings) -> TrainingSetBuilder:
    """What reads stored days as rows for a model."""
    from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
    from fraud_pipeline.adapters.dataset_store import DatasetStore
    from fraud_pipeline.adapters.feature_store import FeatureStore
    from fraud_pipeline.adapters.source_store import SourceStore
    from fraud_pipeline.adapters.training_rows import TrainingRowReader
    from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
    from fraud_pipeline.adapters.training_store import TrainingStore

    store = DatasetStore(settings.home)
    features = FeatureStore(store, CheckpointStore(settings.checkpoint_url), time_zone=settings.time_zone)
    reader = TrainingRowReader(store, SourceStore(settings.home), lambda: open_ledger(settings))
    return TrainingSetBuilder(store, features, reader, TrainingStore(settings.home))


@contextmanager
def open_live_states(settings: Settings) -> Iterator[LiveStateStore]:
    """What recovers and keeps live states of this home."""
    from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
    from fraud_pipeline.adapters.live_state import LiveStateStore

    with open_ledger(settings) as ledger:
        checkpoints = CheckpointStore(settings.checkpoint_url)
        yield LiveStateStore(settings.home, checkpoints, ledger, time_zone=settings.time_zone)


def stream_checkpoints(settings: Settings, ledger: Ledger, topic: str, *, partitions: int) -> StreamCheckpoints:
    """Where scorers keep the states of a topic with so many partitions."""
    from fraud_pipeline.adapters.stream.stream_checkpoints import StreamCheckpoints

    checkpoints, history = stream_history(settings, ledger)
    return StreamCheckpoints(checkpoints, topic, history, partitions=partitions, time_zone=settings.time_zone)


def stream_history(settings: Settings, ledger: Ledger) -> tuple[CheckpointStore, LandedHistory]:
    """Where checkpoints are kept, and the history that a stream's states begin from."""
    from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
    from fraud_pipeline.adapters.live_state import LiveStateStore
    from fraud_pipeline.adapters.stream.landed_history import LandedHistory

    checkpoints = CheckpointStore(settings.checkpoint_url)
    return checkpoints, LandedHistory(LiveStateStore(settings.home, checkpoints, ledger, time_zone=settings.time_zone))


def is_missing_file(address: str) -> bool:
    """Whether the address is an SQLite file that is not there yet: who only looks need not make it."""
    return address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists()
