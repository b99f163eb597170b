"""From trained models to a bundle directory: convert, score the reference sample as it will be served, write."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.adapters.onnx_export import to_onnx
from fraud_pipeline.adapters.tree_export import isolation_forest_trees, random_forest_trees, xgboost_trees
from fraud_pipeline.domain.bundle import (
    CARD,
    CLASSIFIER,
    DETECTOR,
    FACTS,
    REFERENCE,
    SELFTEST,
    TREES,
    ModelBundle,
    Reference,
    npz_bytes,
)
from fraud_pipeline.domain.bundle_facts import BundleFacts, Lineage, Usual
from fraud_pipeline.domain.bundle_files import write_directory
from fraud_pipeline.domain.model_card import model_card
from fraud_pipeline.domain.scoring import Scorer
from fraud_pipeline.errors import TrainingDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fraud_pipeline.domain.calibration import Calibrator
    from fraud_pipeline.domain.model_input import ModelInput
    from fraud_pipeline.domain.thresholds import Thresholds
    from fraud_pipeline.domain.training import TrainedClassifier, TrainedDetector
    from fraud_pipeline.domain.tree_ensemble import TreeEnsemble

MAX_REFERENCE_ROWS: Final = 10_000
"""More change no drift verdict, and Evidently takes 7 s for these."""
SELFTEST_ROWS: Final = 64


def build_bundle(
    classifier: TrainedClassifier,
    detector: TrainedDetector,
    *,
    model_input: ModelInput,
    calibrator: Calibrator,
    thresholds: Thresholds,
    reference_values: NDArray[np.float32],
    reference_is_fraud: NDArray[np.bool_],
    lineage: Lineage,
    metrics: Mapping[str, Any],
    created_at: datetime,
    root: Path,
) -> Path:
    """Write a bundle to a directory under `root` named by its content, whole or not at all, and return the directory.

    `reference_values` [m, F'] are the model inputs of the newest mature days (sampled here where there are more than
    10,000), `reference_is_fraud` [m] their labels. `metrics` holds `evaluation` and `served`, JSON-able. Raises
    TrainingDataError where models and `model_input` are not of the same inputs, or the reference is empty.
    """
    names = model_input.names
    for what, model in (("classifier", classifier), ("detector", detector)):
        if model.feature_names != names:
            raise TrainingDataError(
                f"The {what} was trained on {len(model.feature_names)} inputs that are not the bundle's {len(names)}.",
                remedy="Train it on the columns of ModelInput.names, in that order.",
            )
    trees = classifier_trees(classifier)
    detector_trees = isolation_forest_trees(detector.forest, medians=detector.medians)
    classifier_onnx = to_onnx(trees, n_features=len(names))
    detector_onnx = to_onnx(detector_trees, n_features=len(names))
    scorer = Scorer(classifier_onnx, detector_onnx, calibrator)
    reference = _reference(scorer, reference_values, reference_is_fraud, seed=lineage.seed)
    facts = BundleFacts(
        kind=classifier.kind,
        n_trees=trees.n_trees,
        model_input=model_input,
        calibrator=calibrator,
        thresholds=thresholds,
        usual=usual_values(reference.values),
        lineage=lineage,
        created_at=created_at,
        metrics=metrics,
        importance=classifier.importance(),
        medians=None if classifier.medians is None else tuple(float(m) for m in classifier.medians),
    )
    files = {
        FACTS: facts.to_json(),
        CLASSIFIER: classifier_onnx,
        DETECTOR: detector_onnx,
        TREES: npz_bytes(trees.arrays()),
        REFERENCE: reference.to_npz(),
        SELFTEST: _selftest(scorer, reference.values),
        CARD: model_card(facts).encode(),
    }
    return write_directory(root, files)


def classifier_trees(classifier: TrainedClassifier) -> TreeEnsemble:
    """The trained classifier as arrays."""
    if classifier.kind == "xgboost":
        return xgboost_trees(classifier.model, n_trees=classifier.n_trees, medians=classifier.medians)
    if classifier.medians is None:
        raise TrainingDataError("A forest without its training medians cannot be exported.", remedy="Train it again.")
    return random_forest_trees(classifier.model, medians=classifier.medians)


def served_difference(classifier: TrainedClassifier, bundle: ModelBundle, values: NDArray[np.float32]) -> float:
    """The largest difference between a raw score of the trained model and of the bundle as served, over inputs [n, F'].

    The gate "served scores equal training scores" reads it; float32 rounding leaves about 1e-6.
    """
    return float(np.abs(classifier.raw_score(values) - bundle.score(values).raw).max(initial=0.0))


def usual_values(values: NDArray[np.float32]) -> Usual:
    """Quantiles of each column [m, F'], missing values left out."""
    quantiles = np.full((3, values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        known = values[:, column][~np.isnan(values[:, column])]
        if len(known):
            quantiles[:, column] = np.quantile(known, (0.1, 0.5, 0.9))
    return Usual(*(tuple(row.tolist()) for row in quantiles))


def _reference(scorer: Scorer, values: NDArray[np.float32], is_fraud: NDArray[np.bool_], *, seed: int) -> Reference:
    if len(values) == 0 or len(values) != len(is_fraud):
        raise TrainingDataError(
            f"The drift reference has {len(values)} payments and {len(is_fraud)} labels.",
            remedy="Give the inputs and labels of the newest mature days.",
        )
    if len(values) > MAX_REFERENCE_ROWS:
        drawn = np.sort(np.random.default_rng(seed).choice(len(values), MAX_REFERENCE_ROWS, replace=False))
        values, is_fraud = values[drawn], is_fraud[drawn]
    values = np.ascontiguousarray(values, dtype=np.float32)
    scores = scorer.score(values)
    return Reference(values, scores.raw, scores.probability, scores.anomaly, np.asarray(is_fraud, dtype=bool))


def _selftest(scorer: Scorer, values: NDArray[np.float32]) -> bytes:
    """Some of the reference, its highest scores, and a payment of which nothing is known."""
    highest = np.argsort(-scorer.score(values).raw, kind="stable")[: SELFTEST_ROWS // 4]
    unknown = np.full((1, values.shape[1]), np.nan, dtype=np.float32)
    vectors = np.concatenate([values[: SELFTEST_ROWS - len(highest) - 1], values[highest], unknown])
    scores = scorer.score(vectors)
    return npz_bytes(
        {"values": vectors, "raw": scores.raw, "probability": scores.probability, "anomaly": scores.anomaly}
    )
