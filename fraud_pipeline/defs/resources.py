"""The adapters that assets get by parameter name. They are plain classes; only what must be opened and closed is wrapped."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_source import DaySource
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_slot import fetcher
from fraud_pipeline.adapters.model_store import ModelStore
from fraud_pipeline.adapters.new_frauds import NewFrauds
from fraud_pipeline.adapters.notices.registry_look import OpenRegistry, RegistryLook
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.adapters.training_rows import TrainingRowReader
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.adapters.training_store import TrainingStore
from fraud_pipeline.settings import Settings


class LedgerConnection(dg.ConfigurableResource[Ledger]):
    """The ledger, open for as long as the run."""

    url: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Ledger]:
        with Ledger.open(self.url) as ledger:
            yield ledger


class ModelRegistryConnection(dg.ConfigurableResource[Any]):
    """The registry of models (MLflow), through our own adapter."""

    tracking_uri: str
    artifacts: str
    bundles: str

    def create_resource(self, context: dg.InitResourceContext) -> Any:
        from fraud_pipeline.adapters.model_registry import ModelRegistry

        return ModelRegistry.open(self.tracking_uri, artifact_root=Path(self.artifacts), cache_dir=Path(self.bundles))


class ExperimentRun(dg.ConfigurableResource[Any]):
    """`dagster-mlflow`'s tracking: one MLflow run for each Dagster run, ended with it.

    The registry makes the experiment first, with its artifacts under the home; else MLflow would keep them in whatever folder
    we were started in.
    """

    tracking_uri: str
    registry: dg.ResourceDependency[Any]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Any]:
        from fraud_pipeline.adapters.model_registry import EXPERIMENT

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow and dagster-mlflow announce betas and deprecations of their own
            import mlflow
            from dagster_mlflow import mlflow_tracking

            settings = {
                "experiment_name": EXPERIMENT,
                "mlflow_tracking_uri": self.tracking_uri,
                "env": {},
                "extra_tags": {},
            }
            tracking = contextmanager(mlflow_tracking.resource_fn)
            run = tracking(context.replace_config(settings))
            started = run.__enter__()
        try:
            yield started
        except BaseException:
            mlflow.end_run("FAILED")
            raise
        mlflow.end_run()


def _registry_opener(settings: Settings) -> OpenRegistry:
    """Opens the registry where there is one: looking makes none."""
    database = settings.mlflow_tracking_uri.partition("sqlite:///")[2]

    def open_registry(cache: Path) -> Any:
        from fraud_pipeline.adapters.model_registry import ModelRegistry

        if database and not Path(database).exists():
            return None
        return ModelRegistry.open(settings.mlflow_tracking_uri, artifact_root=settings.artifacts_dir, cache_dir=cache)

    return open_registry


def resources_for(settings: Settings) -> dict[str, Any]:
    """Every resource by the name that assets ask for."""
    from fraud_pipeline.defs.sensors import request_retrain

    store, source = DatasetStore(settings.home), SourceStore(settings.home)
    feature_store = FeatureStore(store, CheckpointStore(settings.checkpoint_url), time_zone=settings.time_zone)
    training_sets = TrainingStore(settings.home)

    def open_ledger() -> Ledger:
        return Ledger.open(settings.ledger_url)

    reader = TrainingRowReader(store, source, open_ledger)
    registry = ModelRegistryConnection(
        tracking_uri=settings.mlflow_tracking_uri,
        artifacts=str(settings.artifacts_dir),
        bundles=str(settings.bundles_dir),
    )
    return {
        "settings": settings,
        "store": store,
        "source": DaySource(source, open_ledger, topic=Topics(settings.topic_prefix).transactions),
        "feature_store": feature_store,
        "training_sets": training_sets,
        "builder": TrainingSetBuilder(store, feature_store, reader, training_sets),
        "models": ModelStore(settings.home),
        "ledger": LedgerConnection(url=settings.ledger_url),
        "registry": registry,
        "fetch_bundle": fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir),
        "new_frauds": NewFrauds(store, maturity_days=settings.label_maturity_days),
        "start_training": request_retrain,
        "registry_look": RegistryLook(_registry_opener(settings)),
        "mlflow": ExperimentRun(tracking_uri=settings.mlflow_tracking_uri, registry=registry),
    }
