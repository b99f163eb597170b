import numpy as np
import pytest

from fraud_pipeline.domain.sampling import check_learnable, class_weights, fill_missing, smote, training_medians
from fraud_pipeline.errors import TrainingDataError


def test_missing_values_become_the_training_median():
    features = np.array([[1, np.nan], [3, np.nan], [np.nan, np.nan], [100, np.nan]], dtype=np.float32)
    medians = training_medians(features)
    assert medians.tolist() == [3.0, 0.0]  # a column without any value is 0
    assert medians.dtype == np.float32
    filled = fill_missing(np.array([[np.nan, 5], [7, np.nan]], dtype=np.float32), medians)
    assert filled.tolist() == [[3.0, 5.0], [7.0, 0.0]]
    assert filled.dtype == np.float32


def test_class_weights_raise_frauds_by_the_root_of_the_imbalance():
    fraud = np.arange(500) < 5
    weight = class_weights(fraud, np.ones(500, dtype=np.float32))
    assert weight[~fraud].tolist() == [1.0] * 495
    assert weight[fraud] == pytest.approx(np.sqrt(99))


def rows(n=2_000, frauds=30):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    features[:, 1] *= 1_000
    fraud = np.arange(n) < frauds
    features[fraud] += [3, 0, 0, 0]
    return features, fraud, np.full(n, 2.0, dtype=np.float32)


def test_smote_adds_frauds_between_real_ones():
    features, fraud, weight = rows()
    more, labels, weights = smote(features, fraud, weight, seed=1)
    assert np.array_equal(more[:2_000], features)
    assert labels.sum() == int(0.05 * 1_970)
    assert labels[2_000:].all()
    assert more.dtype == np.float32
    low, high = features[fraud].min(axis=0) - 1e-3, features[fraud].max(axis=0) + 1e-3
    assert ((more[2_000:] >= low) & (more[2_000:] <= high)).all()
    assert (weights[2_000:] == 2.0).all()
    again = smote(features, fraud, weight, seed=1)[0]
    assert np.array_equal(more, again)


def test_smote_leaves_frequent_frauds_alone():
    features, fraud, weight = rows(frauds=400)
    assert smote(features, fraud, weight, seed=1)[0] is features


def test_smote_needs_more_frauds_than_neighbours():
    with pytest.raises(TrainingDataError, match="more than 5 frauds in the training period and there are 5"):
        smote(*rows(frauds=5), seed=1)


def test_what_cannot_be_learned_from_is_named():
    features, names = np.zeros((3, 2), dtype=np.float32), ("amount", "speed")
    with pytest.raises(TrainingDataError, match="no payment in the training period"):
        check_learnable(features[:0], np.empty(0, dtype=bool), names, period="training")
    with pytest.raises(TrainingDataError, match="All 3 payments of the validation period are legitimate"):
        check_learnable(features, np.zeros(3, dtype=bool), names, period="validation")
    with pytest.raises(TrainingDataError, match="All 3 payments of the training period are fraud"):
        check_learnable(features, np.ones(3, dtype=bool), names, period="training")
    features[1, 1] = np.inf
    with pytest.raises(TrainingDataError, match="Infinite values in: speed"):
        check_learnable(features, np.array([True, False, False]), names, period="training")
