"""Measures of agreement against numbers worked by hand and published examples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from volition.core.agreement import equal_pairs, kendall_tau, krippendorff_alpha, ranking_alpha

_ = math.nan


def test_equal_pairs_by_hand() -> None:
    assert equal_pairs((1, 2, 3), (1, 2, 3)) == (3, 3)
    assert equal_pairs((1, 2, 3), (3, 2, 1)) == (0, 3)
    assert equal_pairs((1, 2, 3), (1, 3, 2)) == (2, 3)
    assert equal_pairs((1, 1, 2), (1, 2, 3)) == (2, 3)  # a tie is no preference
    assert equal_pairs((1, 1, 2), (1, 1, 3)) == (3, 3)  # how ranks go on after a tie says nothing


def test_tau_by_hand() -> None:
    assert kendall_tau((1, 2, 3, 4), (1, 2, 3, 4)) == 1
    assert kendall_tau((1, 2, 3, 4), (4, 3, 2, 1)) == -1
    assert kendall_tau((1, 2, 3, 4), (2, 1, 3, 4)) == pytest.approx(4 / 6)  # 5 alike, 1 not
    assert kendall_tau((1, 1, 2), (1, 2, 3)) == pytest.approx(2 / math.sqrt(2 * 3))
    assert math.isnan(kendall_tau((1, 1, 1), (1, 2, 3)))


RANKS = st.integers(2, 7).flatmap(lambda k: st.tuples(*[st.lists(st.integers(1, k), min_size=k, max_size=k)] * 2))


@settings(deadline=None)
@given(RANKS)
def test_tau_equals_scipys(both: tuple[list[int], list[int]]) -> None:
    np.testing.assert_allclose(kendall_tau(*both), kendalltau(*both).statistic, atol=1e-12, equal_nan=True)


def test_alpha_of_two_labelers_by_hand() -> None:
    """o₀₀ = 10, o₀₁ = o₁₀ = 4, o₁₁ = 2; n₀ = 14, n₁ = 6: α = 1 − 19 · 4 / (14 · 6)."""
    values = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])
    for level in ("nominal", "ordinal", "interval"):  # two values have one distance
        assert krippendorff_alpha(values, level) == pytest.approx(1 - 19 * 4 / (14 * 6))


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example(level: str, alpha: float) -> None:
    """Four observers, twelve units, with gaps (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability)."""
    values = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ])  # fmt: skip
    assert krippendorff_alpha(values, level) == pytest.approx(alpha, abs=5e-4)


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha(np.array([[1, 2, 3], [1, 2, 3]])) == 1
    assert krippendorff_alpha(np.array([[2, 2], [2, 2]])) == 1
    assert math.isnan(krippendorff_alpha(np.array([[1, 2], [_, _]])))
    chance = krippendorff_alpha(np.random.default_rng(0).integers(0, 3, (2, 20_000)))
    assert abs(chance) < 0.02
    with pytest.raises(ValueError, match="ratio"):
        krippendorff_alpha(np.array([[1], [2]]), "ratio")


def test_alpha_of_rankings() -> None:
    assert ranking_alpha([[(1, 2, 3), (1, 2, 3)], [(2, 1), (2, 1)]]) == 1
    assert math.isnan(ranking_alpha([]))
    assert math.isnan(ranking_alpha([[(1, 2)]]))
    # signs of three pairs, twice: (+ + +) and (+ + −) and their mirror images; o₊₊ = o₋₋ = 4, o₊₋ = o₋₊ = 2
    assert ranking_alpha([[(1, 2, 3), (1, 3, 2)]]) == pytest.approx(1 - 4 * 11 / (2 * 6 * 6))


def test_alpha_of_rankings_minds_no_direction() -> None:
    rng = np.random.default_rng(1)
    rankings = [[rng.permutation(5) + 1 for _ in range(3)] for _ in range(4)]
    turned = [[rank[::-1] for rank in by] for by in rankings]
    assert ranking_alpha(rankings) == pytest.approx(ranking_alpha(turned))
    alike = [[by[0]] * 3 for by in rankings]
    assert ranking_alpha(alike) == 1 > ranking_alpha(rankings)
