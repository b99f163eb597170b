"""The present champion, loaded: as it is served, and its evaluation model where that can still be had."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fraud_pipeline.adapters.candidate import EVALUATION_BUNDLE, Opponent
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.promotions import current_champion
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_files import read_directory, write_directory
from fraud_pipeline.errors import BundleError, NotFound


def load_champion(ledger: Ledger, registry: ModelRegistry) -> ModelBundle:
    """The champion's bundle; NotFound before the first promotion."""
    promotion = current_champion(ledger)
    if promotion is None:
        raise NotFound("There is no champion yet.", remedy="Train and promote one: `fraud run`.")
    return ModelBundle.load(registry.fetch(promotion.version), version=str(promotion.version))


def load_opponent(ledger: Ledger, registry: ModelRegistry, *, tracking_uri: str, bundles: Path) -> Opponent | None:
    """Whom a candidate is compared with; None before the first promotion."""
    promotion = current_champion(ledger)
    if promotion is None:
        return None
    served = ModelBundle.load(registry.fetch(promotion.version), version=str(promotion.version))
    fingerprint = str(served.facts.metrics.get(EVALUATION_BUNDLE, ""))
    run_id = registry.version(promotion.version).run_id
    path = evaluation_bundle(fingerprint, run_id, tracking_uri=tracking_uri, bundles=bundles)
    return Opponent(promotion.version, served, None if path is None else ModelBundle.load(path))


def evaluation_bundle(fingerprint: str, run_id: str, *, tracking_uri: str, bundles: Path) -> Path | None:
    """The evaluation model's bundle, from this home or else from the run's artifacts; None where neither has it."""
    if not fingerprint:
        return None
    local = bundles / fingerprint[:16]
    try:
        if read_directory(local)[1] == fingerprint:
            return local
    except BundleError:
        pass  # not here, or damaged: fetched anew below
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="fraud-evaluation-") as folder:
        try:
            found = download_artifacts(
                run_id=run_id, artifact_path=EVALUATION_BUNDLE, dst_path=folder, tracking_uri=tracking_uri
            )
            files, downloaded = read_directory(Path(found))
        except (MlflowException, OSError, BundleError):
            return None
        return write_directory(bundles, files) if downloaded == fingerprint else None
