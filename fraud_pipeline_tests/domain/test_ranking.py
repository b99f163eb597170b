import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from fraud_pipeline.domain.ranking import CardDays, Ranking, average_precision, bootstrap_sums, roc_auc


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 6]))
def test_area_and_average_precision_are_scikit_learns(seed, decimals):
    rng = np.random.default_rng(seed)
    fraud = rng.random(300) < 0.1
    fraud[:2] = [True, False]
    raw, weight = np.round(rng.normal(size=300) + fraud, decimals), rng.uniform(0.1, 3, 300)
    assert average_precision(raw, fraud, weight) == pytest.approx(
        average_precision_score(fraud, raw, sample_weight=weight)
    )
    assert roc_auc(raw, fraud, weight) == pytest.approx(roc_auc_score(fraud, raw, sample_weight=weight))


def test_the_budget_takes_the_highest_scores():
    raw = np.arange(1_000.0)
    fraud = np.isin(raw, [999, 998, 995, 400])
    _, _, recall, precision = Ranking.of(raw, fraud, np.ones(1_000)).metrics(0.005)
    assert (recall, precision) == (pytest.approx(0.75), pytest.approx(0.6))


def test_of_a_tie_at_the_budget_the_mean_share_is_taken():
    raw = np.zeros(100)
    fraud = np.arange(100) < 10
    shuffled = np.random.default_rng(0).permutation(100)
    for order in (slice(None), slice(None, None, -1), shuffled):
        _, ap, recall, precision = Ranking.of(raw, fraud[order], np.ones(100)).metrics(0.2)
        assert (ap, recall, precision) == (pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.1))


def test_one_class_has_no_rank_metric():
    for fraud in (np.zeros(5, dtype=bool), np.ones(5, dtype=bool)):
        assert np.isnan(Ranking.of(np.arange(5.0), fraud, np.ones(5)).metrics(0.5)).all()
    assert np.isnan(Ranking.of(np.empty(0), np.empty(0, dtype=bool), np.empty(0)).metrics(0.5)).all()


def resampled(raw, fraud, customer, rng):
    """Average precision of customers really drawn with replacement."""
    rows = [np.flatnonzero(customer == c) for c in rng.integers(0, customer.max() + 1, customer.max() + 1)]
    drawn = np.concatenate(rows)
    return average_precision(raw[drawn], fraud[drawn], np.ones(len(drawn)))


def test_the_bootstrap_spreads_as_drawing_customers_does():
    rng = np.random.default_rng(0)
    customer = np.repeat(np.arange(150), 10)
    fraud = (rng.random(150) < 0.15)[customer] & (rng.random(1_500) < 0.6)  # a customer's frauds come together
    raw = rng.normal(size=1_500) + 1.5 * fraud + rng.normal(size=150)[customer]
    slow = np.array([resampled(raw, fraud, customer, rng) for _ in range(300)])
    ranking = Ranking.of(raw, fraud, np.ones(1_500), customer)
    fast = ranking.bootstrap(0.01, replicates=1_000, seed=1)[:, 1]
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.02)
    assert fast.std() == pytest.approx(slow.std(), rel=0.2)
    by_row = Ranking.of(raw, fraud, np.ones(1_500)).bootstrap(0.01, replicates=500, seed=1)[:, 1]
    assert by_row.std() < 0.8 * fast.std()


def test_the_same_seed_draws_the_same_customers_everywhere():
    rng = np.random.default_rng(0)
    customer = rng.integers(0, 40, 500)
    fraud, raw = rng.random(500) < 0.2, rng.normal(size=500)
    ranking = Ranking.of(raw, fraud, np.ones(500), customer)
    first = ranking.bootstrap(0.1, replicates=50, seed=7)
    assert np.array_equal(first, ranking.bootstrap(0.1, replicates=50, seed=7))
    assert not np.array_equal(first, ranking.bootstrap(0.1, replicates=50, seed=8))
    caught = np.stack([np.bincount(customer, fraud), np.ones(40)], axis=1)
    sums = bootstrap_sums(caught, replicates=50, seed=7)
    assert sums[:, 1].mean() == pytest.approx(40, rel=0.1)
    # Frauds of a replicate by the ranking's own count: caught at the budget over recall.
    weights = sums[:, 0]
    assert np.all((weights > 0) == np.isfinite(first[:, 1]))


def card_precision_slowly(raw, fraud, customer, day, k):
    """The handbook's definition, customer by customer."""
    found, precisions = set(), []
    for d in np.unique(day):
        best: dict[int, tuple[float, bool]] = {}
        for r, f, c in zip(raw[day == d], fraud[day == d], customer[day == d], strict=True):
            if c not in found:
                score, compromised = best.get(c, (-np.inf, False))
                best[c] = (max(score, r), compromised or f)
        top = sorted(best, key=lambda c: (-best[c][0], c))[:k]
        hits = {c for c in top if best[c][1]}
        found |= hits
        precisions.append(len(hits) / k)
    return np.mean(precisions)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_card_precision_is_the_handbooks(seed, k):
    rng = np.random.default_rng(seed)
    n = 200
    customer, day = rng.integers(0, 25, n), rng.integers(100, 106, n)
    fraud = rng.random(n) < 0.1
    raw = rng.normal(size=n) + fraud
    cards = CardDays.of(raw, fraud, customer, day)
    assert cards.precision(k) == pytest.approx(card_precision_slowly(raw, fraud, customer, day, k))
    drawn = cards.bootstrap(k, replicates=20, seed=seed)
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_a_card_found_once_is_not_counted_again():
    day = np.array([0, 0, 1, 1])
    customer = np.array([1, 2, 1, 2])
    cards = CardDays.of(np.array([9.0, 1, 9, 1]), np.array([True, False, True, False]), customer, day)
    assert cards.precision(1) == 0.5
    assert np.isnan(CardDays.of(*(np.empty(0, dtype=t) for t in (float, bool, int, int))).precision(1))
