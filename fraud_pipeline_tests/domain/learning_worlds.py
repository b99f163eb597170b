"""Small made-up learning data with a known structure, for the tests of learning."""

import numpy as np

from fraud_pipeline.domain.learning_data import NEVER_KNOWN, US_PER_DAY, LearningData
from fraud_pipeline.domain.splits import midnight_us

DAY = US_PER_DAY


def payments(
    *,
    start,
    days=60,
    per_day=100,
    fraud_rate=0.05,
    signal=2.0,
    customers=50,
    seed=0,
    features=6,
    label_delay_days=2.0,
    missing=0.1,
):
    """Payments whose first feature says something of fraud and whose amounts are larger when fraud."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    event_time = np.sort(midnight_us(start) + rng.integers(0, days * DAY, n))
    is_fraud = rng.random(n) < fraud_rate
    matrix = rng.normal(size=(n, features)).astype(np.float32)
    matrix[:, 0] += signal * is_fraud
    matrix[rng.random((n, features)) < missing] = np.nan
    known_at = np.where(is_fraud, event_time + int(label_delay_days * DAY), NEVER_KNOWN)
    return LearningData(
        transaction_id=np.arange(n).astype(str),
        event_time=event_time,
        customer=rng.integers(0, customers, n).astype(np.int32),
        amount=np.round(np.exp(rng.normal(3.0, 1.0, n)) * (1 + 2 * is_fraud), 2),
        channel=rng.integers(0, 2, n).astype(np.int32),
        country=np.zeros(n, dtype=np.int32),
        category=np.zeros(n, dtype=np.int32),
        channel_names=("online", "pos"),
        country_names=("US",),
        category_names=("food",),
        features=matrix,
        feature_names=tuple(f"f{i}" for i in range(features)),
        is_fraud=is_fraud,
        label_known_at=known_at,
        blocked=np.zeros(n, dtype=bool),
        labelled=is_fraud.copy(),
        control=np.zeros(n, dtype=bool),
        weight=np.ones(n, dtype=np.float32),
        kind=np.where(is_fraud, 1 + (np.arange(n) % 2), 0).astype(np.int32),
        kind_names=("stolen_card", "fraud_ring"),
    )
