"""What pandas, Polars and DuckDB make of the same features: three more opinions, written by others, on what is right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.feature_peers import agreement, peers_of
from benchmarks.own_history import own_history_features
from fraud_pipeline.adapters.parity_source import History, simulated_history
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_spec import FEATURES

for peer in ("duckdb", "pandas", "polars"):
    pytest.importorskip(peer)


@pytest.fixture(scope="module")
def history() -> History:
    return simulated_history(6_000, late_share=0.0)


@pytest.fixture(scope="module")
def ours(history: History) -> np.ndarray:
    return compute_features(history.events, history.labels).values


@pytest.mark.parametrize(("name", "features"), [("pandas", 28), ("polars", 31), ("duckdb", 38)])
def test_a_peer_computes_the_same_values(history: History, ours: np.ndarray, name: str, features: int) -> None:
    _, compute = peers_of(history.events)[name]
    shares = agreement(ours, compute())
    assert len(shares) == features
    assert {feature: share for feature, share in shares.items() if share < 0.999} == {}


def test_the_loop_that_peers_are_compared_with_computes_our_values(history: History, ours: np.ndarray) -> None:
    alone = own_history_features(history.events)
    own = [i for i, f in enumerate(FEATURES) if f.entity in {"transaction", "customer"}]
    assert len(own) == 44
    np.testing.assert_array_equal(alone[:, own].view(np.uint32), ours[:, own].view(np.uint32))
