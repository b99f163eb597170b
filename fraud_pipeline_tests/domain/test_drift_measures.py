from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from fraud_pipeline.domain.drift_measures import LARGEST, measure, proportions_differ

RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=2_000)
MOVED = RNG.normal(0.3, 1.2, size=900)
COUNTS = RNG.poisson(2, 2_000).astype(float)
MORE = RNG.poisson(3, 900).astype(float)


@pytest.mark.parametrize(("before", "now"), [(NORMAL, MOVED), (COUNTS, MORE), (NORMAL, NORMAL), (NORMAL, COUNTS)])
def test_distances_are_those_of_scipy(before: np.ndarray, now: np.ndarray):
    found = measure(before, now)
    ks = stats.ks_2samp(before, now, method="asymp")
    assert found.ks == pytest.approx(ks.statistic, abs=1e-12)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(before, now) / before.std(), rel=1e-9)


def test_jensen_shannon_of_counts_is_that_of_scipy():
    values = np.unique(np.concatenate([COUNTS, MORE]))
    shares = [[np.mean(sample == value) for value in values] for sample in (COUNTS, MORE)]
    found = measure(COUNTS, MORE)
    assert found.stattest == "jensenshannon"
    assert found.jensen_shannon == pytest.approx(float(jensenshannon(*shares)), rel=1e-9)
    p, q = np.maximum(shares[0], 0.5 / 2_000), np.maximum(shares[1], 0.5 / 900)
    assert found.psi == pytest.approx(float(np.sum((q - p) * np.log(q / p))), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.3])
def test_the_p_value_agrees_with_scipys_where_it_matters(shift: float):
    before, now = RNG.normal(size=3_000), RNG.normal(shift, 1, size=1_500)
    expected = stats.ks_2samp(before, now, method="asymp").pvalue
    assert measure(before, now).ks_p == pytest.approx(expected, rel=0.15, abs=0.01)


def test_rows_of_one_customer_repeat_each_other():
    """Ten copies of each row prove no more than one: without saying so, they seem to."""
    before, now = RNG.normal(size=200), RNG.normal(0.15, 1, size=200)
    once = measure(before, now).ks_p
    tenfold = measure(np.repeat(before, 10), np.repeat(now, 10)).ks_p
    told = measure(np.repeat(before, 10), np.repeat(now, 10), rows_per_entity=10).ks_p
    assert tenfold < 0.01 < once
    assert told == pytest.approx(once, rel=0.01)


def test_psi_of_a_shift_is_near_its_closed_form():
    """For normals d apart the index is d squared, up to the ten bins."""
    before, now = np.random.default_rng(0).normal(size=(2, 200_000))
    assert measure(before, now + 0.5).psi == pytest.approx(0.25, rel=0.1)


def test_missing_values_count_in_the_missing_rates_and_nowhere_else():
    before = np.concatenate([NORMAL, np.full(500, np.nan)])
    now = np.concatenate([NORMAL, np.full(2_000, np.nan)])
    found = measure(before, now)
    assert (found.reference_missing, found.current_missing) == (0.2, 0.5)
    assert found.missing_rise == pytest.approx(0.3)
    assert found.missing_p < 1e-9
    assert (found.ks, found.wasserstein, found.jensen_shannon, found.psi) == (0, 0, 0, 0)


def test_a_column_without_values_is_far_from_nothing():
    nothing = np.full(300, np.nan)
    for before, now in ((nothing, nothing), (NORMAL, nothing), (nothing, NORMAL)):
        found = measure(before, now)
        assert (found.score, found.ks_p) == (0.0, 1.0)
    gone = measure(NORMAL, nothing)
    assert (gone.reference_missing, gone.current_missing, np.isnan(gone.current_mean)) == (0.0, 1.0, True)


def test_constants():
    same = measure(np.ones(300), np.ones(300))
    assert (same.stattest, same.score, same.ks_p) == ("jensenshannon", 0.0, 1.0)
    other = measure(np.ones(300), np.full(300, 2.0))
    assert other.score == pytest.approx(np.sqrt(np.log(2)))
    assert other.wasserstein == LARGEST
    assert other.ks_p < 1e-9


def test_codes_that_turn_into_sizes_are_still_compared():
    found = measure(np.repeat([0.0, 1.0], 500), RNG.normal(size=1_000))
    assert found.stattest == "jensenshannon"
    assert 0.3 < found.score <= 0.8326


def test_proportions():
    assert proportions_differ((10, 100), (10, 100)) == 1.0
    assert proportions_differ((0, 100), (0, 100)) == 1.0
    assert proportions_differ((0, 0), (3, 100)) == 1.0
    table = [[30, 970], [60, 940]]
    chi2 = stats.chi2_contingency(table, correction=False).pvalue
    assert proportions_differ((30, 1_000), (60, 1_000)) == pytest.approx(chi2, rel=1e-9)
    assert proportions_differ((30, 1_000), (60, 1_000), cluster=3) > 0.05 > chi2


FLOATS = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))


@settings(max_examples=150, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=60), st.lists(FLOATS, min_size=1, max_size=60))
def test_any_two_samples_have_finite_distances_in_range(before: list[float], now: list[float]):
    found = measure(np.array(before), np.array(now))
    assert 0 <= found.ks <= 1
    assert 0 <= found.ks_p <= 1
    assert 0 <= found.jensen_shannon <= 0.8326
    assert 0 <= found.wasserstein <= LARGEST
    assert 0 <= found.psi < 1e3
    back = measure(np.array(now), np.array(before))
    assert back.ks == pytest.approx(found.ks, abs=1e-12)
