"""Interquartile means and bootstrap intervals: by hand, against SciPy, and by what they must cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from volition.core.statistics import bootstrap, bootstrap_band, iqm, mean, running_mean


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_iqm_by_hand() -> None:
    # 8 scores: ⌊8/4⌋ = 2 go at either end, (3 + 4 + 5 + 6)/4 = 4.5
    assert iqm([6, 1000, 1, 3, -50, 4, 5, 7]) == 4.5
    # 5 scores: one goes at either end, (2 + 3 + 10)/3 = 5
    assert iqm([100, 2, 3, 10, 0]) == 5
    # 3 scores: ⌊3/4⌋ = 0, the mean
    assert iqm([1, 2, 6]) == 3
    np.testing.assert_array_equal(iqm([[1, 2, 6], [0, 0, 3]]), [3, 1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_iqm_is_scipys_trimmed_mean(scores: list[float]) -> None:
    np.testing.assert_allclose(iqm(scores), trim_mean(scores, 0.25), rtol=1e-9, atol=1e-9)


def test_bootstrap_of_two_scores_by_hand() -> None:
    # means of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4
    assert bootstrap([[0.0, 1.0]], mean, rng()) == (0.0, 1.0)
    assert bootstrap([[0.0, 1.0]], mean, rng(), level=0.4) == (0.5, 0.5)  # from the 30th to the 70th percentile
    assert bootstrap([[3.0, 3.0, 3.0]], iqm, rng()) == (3.0, 3.0)


def test_bootstrap_draws_within_strata() -> None:
    # tasks that each have one score for all seeds: drawn within, nothing varies; drawn across tasks, it would
    assert bootstrap([[1.0] * 5, [9.0] * 5], mean, rng()) == (5.0, 5.0)
    low, high = bootstrap([[1.0] * 5 + [9.0] * 5], mean, rng())
    assert low < 4 and high > 6


def test_bootstrap_is_the_generators() -> None:
    scores = [rng(1).normal(size=20)]
    assert bootstrap(scores, iqm, rng(2)) == bootstrap(scores, iqm, rng(2)) != bootstrap(scores, iqm, rng(3))


def test_the_interval_covers_the_mean() -> None:
    # of 200 samples of 30 standard normals about 95 % of the intervals hold 0; the percentile bootstrap is known to
    # be a little narrow: √(29/30)·1.96 against Student's t with 29 degrees of freedom misses 6.4 %, 13 ± 3.5
    generator = rng(3)
    samples = generator.normal(size=(200, 30))
    found = [bootstrap([x], mean, generator, repetitions=500) for x in samples]
    assert 3 <= sum(not low <= 0 <= high for low, high in found) <= 24


def test_band_is_the_bootstrap_at_every_point() -> None:
    curves = rng(5).normal(size=(10, 3)) * [1, 2, 0]
    low, high = bootstrap_band(curves, rng(), repetitions=20_000)
    for i in range(3):
        expected = bootstrap([curves[:, i]], mean, rng(), repetitions=20_000)
        np.testing.assert_allclose((low[i], high[i]), expected, atol=0.05)
    assert low[2] == high[2] == 0
    assert (low[:2] < curves.mean(0)[:2]).all() and (curves.mean(0)[:2] < high[:2]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(0, 6))
def test_running_mean_is_the_naive_one(values: list[float], half: int) -> None:
    expected = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(running_mean(values, half), expected, atol=1e-9)


def test_nothing_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="without scores"):
        bootstrap([[]], mean, rng())
