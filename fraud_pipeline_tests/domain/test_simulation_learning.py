"""The world is worth learning on: history tells far more than one payment does, and the examples come out as expected."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TRANSACTION_SCHEMA
from fraud_pipeline.adapters.world_source import arrow_table
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.simulation import WorldConfig, simulate
from fraud_pipeline.domain.transaction import CHANNELS, Transaction

pytestmark = pytest.mark.slow

CONFIG = WorldConfig(end=date(2026, 4, 1), customers=600, merchants=250, days=64, fraud_rate=0.008)
TWO_AT_NIGHT = datetime(2026, 4, 1, 2, 5, tzinfo=UTC)
AFTERNOON = datetime(2026, 4, 1, 15, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Learned:
    """A model of all features, what it and a naive one reach on the last days, and the state at the end of the world."""

    full_ap: float
    naive_ap: float
    budget_score: float
    model: xgb.XGBClassifier
    state: FeatureState
    table: pa.Table

    def score(self, transaction: Transaction) -> float:
        features = np.append(self.state.read(transaction), CHANNELS.index(transaction.channel))
        return float(self.model.predict_proba(features[None])[0, 1])


@pytest.fixture(scope="module")
def learned() -> Learned:
    days = list(simulate(CONFIG))
    table = pa.concat_tables([arrow_table(day.transactions, TRANSACTION_SCHEMA) for day in days]).combine_chunks()
    labels = pa.concat_tables([arrow_table(day.labels, LABEL_SCHEMA) for day in days])
    labels = labels.filter(pa.array(labels["known_at"].to_numpy() < np.datetime64(CONFIG.end))).sort_by("known_at")
    matrix = compute_features(EventColumns.from_table(table), LabelColumns.from_table(labels))
    ids = table["transaction_id"].to_numpy()
    truth = np.isin(ids, np.concatenate([day.truth["transaction_id"].astype(str) for day in days]).astype(object))
    labelled = np.isin(ids, labels["transaction_id"].to_numpy())
    number = np.repeat(np.arange(len(days)), [len(day) for day in days])
    train, test = (number >= 12) & (number < 50), number >= 50
    channel = np.array([CHANNELS.index(c) for c in table["channel"].to_pylist()])
    values = np.column_stack([matrix.values, channel])
    model = xgb.XGBClassifier(n_estimators=70, max_depth=5, learning_rate=0.15, base_score=0.5, n_jobs=2)
    score = model.fit(values[train], labelled[train]).predict_proba(values[test])[:, 1]
    return Learned(
        full_ap=average_precision_score(truth[test], score),
        naive_ap=naive_ap(matrix.values, channel, labelled, truth, train, test),
        budget_score=float(np.quantile(score, 0.995)),
        model=model,
        state=matrix.state,
        table=table,
    )


def naive_ap(features: Any, channel: Any, labelled: Any, truth: Any, train: Any, test: Any) -> float:
    """A logistic regression on what one payment says of itself."""
    columns = [FEATURE_NAMES.index(name) for name in ("amount", "amount_log", "hour", "is_night", "day_of_week")]
    values = np.column_stack([features[:, columns], *(channel == code for code in range(len(CHANNELS)))])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(values[train], labelled[train])
    return average_precision_score(truth[test], model.decision_function(values[test]))


def test_history_tells_far_more_than_one_payment(learned):
    assert learned.naive_ap < 0.25
    assert learned.full_ap > learned.naive_ap + 0.35


def test_even_the_full_model_is_not_perfect(learned):
    assert 0.6 < learned.full_ap < 0.92


def test_a_usual_payment_passes_and_a_wild_one_does_not(learned):
    history = learned.table.to_pandas()
    honest = history[
        (history["merchant_category"] == "grocery") & history["latitude"].notna() & history["country"].notna()
    ]
    regulars = honest["customer_id"].value_counts().index[:25]
    passed, stopped = [], []
    for customer in regulars:
        own = history[history["customer_id"] == customer]
        shop = honest[honest["customer_id"] == customer].iloc[-1]
        usual = Transaction(
            "usual", AFTERNOON, customer, shop.merchant_id, 50_00, "USD", "grocery", "pos", shop.country, None,
            shop.latitude, shop.longitude,
        )  # fmt: skip
        never_seen = next(c for c in ("NG", "TH", "RO", "TR", "AE") if c not in set(own["country"]))
        wild = Transaction(
            "wild", TWO_AT_NIGHT, customer, "M99999999", 3_500_00, "USD", "electronics", "online", never_seen, "dnew"
        )
        passed.append(learned.score(usual) < learned.budget_score / 5)
        stopped.append(learned.score(wild) >= learned.budget_score)
    assert np.mean(passed) > 0.95
    assert np.mean(stopped) > 0.95
