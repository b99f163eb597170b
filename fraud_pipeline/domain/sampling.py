"""What is done to the training rows before a model sees them: medians for missing values, class weights, SMOTE.

All of it is fitted on the training period alone; the medians travel in the bundle, because what was trained on
medians must be served with the same ones.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fraud_pipeline.errors import TrainingDataError

Imbalance = Literal["none", "weight", "smote"]

SMOTE_FRAUD_SHARE = 0.05
"""Frauds per legitimate payment after SMOTE: a few times the natural 1 %. At 1:1 the synthetic frauds drown the real
ones.
"""

SMOTE_NEIGHBOURS = 5


def training_medians(features: np.ndarray) -> np.ndarray:
    """Median of each column over its present values, float32 [F]; 0 for a column without any."""
    medians = np.zeros(features.shape[1], dtype=np.float32)
    for column in range(features.shape[1]):
        present = features[:, column][~np.isnan(features[:, column])]
        if len(present):
            medians[column] = np.median(present)
    return medians


def fill_missing(features: np.ndarray, medians: np.ndarray) -> np.ndarray:
    """A copy with each NaN replaced by its column's median."""
    return np.where(np.isnan(features), medians, features)


def class_weights(is_fraud: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`weight` with the frauds raised by the square root of the imbalance, float32.

    Full balancing (a factor of 100 at 1 % fraud) makes a boosted model spend itself on the few loudest frauds; the
    root is the usual middle.
    """
    fraud, legitimate = float(weight[is_fraud].sum()), float(weight[~is_fraud].sum())
    return np.where(is_fraud, weight * np.sqrt(legitimate / fraud), weight).astype(np.float32)


def smote(
    features: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray, *, seed: int, fraud_share: float = SMOTE_FRAUD_SHARE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features, is_fraud, weight) with synthetic frauds appended (imbalanced-learn's SMOTE); `features` must hold no
    NaN.

    A synthetic fraud weighs what the mean real one does. Where frauds already have their share, nothing is added.
    """
    from imblearn.over_sampling import SMOTE

    frauds = int(is_fraud.sum())
    if frauds <= SMOTE_NEIGHBOURS:
        raise TrainingDataError(
            f"SMOTE needs more than {SMOTE_NEIGHBOURS} frauds in the training period and there are {frauds}.",
            remedy="Train with FRAUD_IMBALANCE=none or weight, or on a longer history.",
        )
    if frauds >= fraud_share * (len(is_fraud) - frauds):
        return features, is_fraud, weight
    # Standardized, so that amounts in thousands do not decide alone who is whose neighbour.
    spread = features.std(axis=0)
    spread[spread == 0] = 1.0
    sampler = SMOTE(sampling_strategy=fraud_share, k_neighbors=SMOTE_NEIGHBOURS, random_state=seed)
    more, labels = sampler.fit_resample(features / spread, is_fraud.astype(np.int8))
    added = len(more) - len(features)
    synthetic = (more[len(features) :] * spread).astype(np.float32)
    return (
        np.concatenate([features, synthetic]),
        labels.astype(bool),
        np.concatenate([weight, np.full(added, weight[is_fraud].mean(), dtype=np.float32)]),
    )


def check_learnable(features: np.ndarray, is_fraud: np.ndarray, feature_names: tuple[str, ...], *, period: str) -> None:
    """Raise TrainingDataError where there is nothing to learn: no payment, one class only, or an infinite feature
    (which is named).
    """
    if not len(is_fraud):
        raise TrainingDataError(
            f"There is no payment in the {period} period.", remedy="Choose an as-of date inside the history."
        )
    frauds = int(is_fraud.sum())
    if frauds in (0, len(is_fraud)):
        raise TrainingDataError(
            f"All {len(is_fraud)} payments of the {period} period are {'fraud' if frauds else 'legitimate'}.",
            remedy="Check that labels arrived for these days, or use a longer history.",
        )
    infinite = np.isinf(features).any(axis=0)
    if infinite.any():
        names = ", ".join(name for name, bad in zip(feature_names, infinite, strict=True) if bad)
        raise TrainingDataError(
            f"Infinite values in: {names}.",
            remedy="A missing value is NaN, a ratio over zero too; materialize the features again.",
        )
