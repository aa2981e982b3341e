"""Losses of rankings: by hand, against rows of pairs, and their gradients."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from volition.core.preferences import best_of, best_of_kl, dpo_loss, pairs_right, ranking_loss


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_one_pair_by_hand() -> None:
    score = torch.tensor([[0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = ranking_loss(score, torch.tensor([[2, 1]]))  # the second is better
    assert loss.item() == pytest.approx(-math.log(sigmoid(1.5)))
    loss.sum().backward()
    assert score.grad is not None
    # ∂L/∂r_w = −σ(r_l − r_w), and the opposite for the loser
    assert score.grad[0].tolist() == pytest.approx([sigmoid(-1.5), -sigmoid(-1.5)])


@pytest.mark.parametrize("count", [2, 4, 9])
def test_equals_the_mean_of_the_pairs_as_rows(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    score = torch.randn(3, count, generator=generator, dtype=torch.float64)
    rank = torch.stack([torch.randperm(count, generator=generator) + 1 for _ in range(3)])
    rank[0] = rank[0].clamp(max=max(1, count - 1))  # the last two tie
    for s, r, found in zip(score, rank, ranking_loss(score, rank), strict=True):
        rows = [
            F.logsigmoid((s[i] - s[j]) if r[i] < r[j] else (s[j] - s[i])).item()
            for i, j in combinations(range(count), 2)
            if r[i] != r[j]
        ]
        assert found.item() == pytest.approx(-sum(rows) / len(rows) if rows else 0.0)


def test_ties_and_empty_places_count_for_nothing() -> None:
    score = torch.tensor([[1.0, 0.0, torch.nan], [3.0, 3.0, 5.0]], requires_grad=True)
    loss = ranking_loss(score, torch.tensor([[1, 2, 0], [1, 1, 1]]))
    assert loss.tolist() == pytest.approx([-math.log(sigmoid(1.0)), 0.0])
    finite = torch.tensor([[1.0, 0.0, 77.0], [3.0, 3.0, 5.0]], requires_grad=True)
    ranking_loss(finite, torch.tensor([[1, 2, 0], [1, 1, 1]])).sum().backward()
    assert finite.grad is not None and finite.grad[0, 2] == 0 and not finite.grad[1].any()


def test_a_constant_added_to_all_scores_changes_nothing() -> None:
    score, rank = torch.randn(2, 5, dtype=torch.float64), torch.tensor([[1, 2, 3, 4, 5], [2, 2, 1, 4, 4]])
    assert torch.allclose(ranking_loss(score, rank), ranking_loss(score + 7, rank))


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(0)
    rank = torch.tensor([[3, 1, 2, 2], [1, 2, 0, 0]])
    score = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ranking_loss(s, rank), score)
    assert torch.autograd.gradcheck(lambda s: dpo_loss(s, reference, rank, 0.3), score)


def test_dpo_of_a_pair_by_hand() -> None:
    log_prob = torch.tensor([[-3.0, -5.0]], requires_grad=True)
    reference = torch.tensor([[-4.0, -4.5]], requires_grad=True)
    loss = dpo_loss(log_prob, reference, torch.tensor([[1, 2]]), beta=0.1)
    margin = 0.1 * ((-3.0 + 4.0) - (-5.0 + 4.5))
    assert loss.item() == pytest.approx(-math.log(sigmoid(margin)))
    loss.sum().backward()
    # −β·σ(−margin) on log π(w), and nothing on the reference
    assert log_prob.grad is not None and reference.grad is None
    assert log_prob.grad[0].tolist() == pytest.approx([-0.1 * sigmoid(-margin), 0.1 * sigmoid(-margin)])


def test_dpo_begins_at_log_2() -> None:
    log_prob: Tensor = torch.randn(3, 4)
    rank = torch.tensor([[1, 2, 3, 4]] * 3)
    assert dpo_loss(log_prob, log_prob, rank, 0.5).tolist() == pytest.approx([math.log(2)] * 3)


def test_pairs_right() -> None:
    right, pairs = pairs_right(torch.tensor([[3.0, 1.0, 1.0, 9.0], [0.0] * 4]), torch.tensor([[1, 2, 3, 0], [1] * 4]))
    assert right.tolist() == [2.5, 0.0] and pairs.tolist() == [3, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_is_the_mean_over_all_choices(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    score, worth = torch.randn(2, 5, generator=generator), torch.randn(2, 5, generator=generator)
    for found, s, w in zip(best_of(score, worth, n), score.tolist(), worth.tolist(), strict=True):
        choices = list(combinations(range(5), n))
        mean = sum(w[max(c, key=s.__getitem__)] for c in choices) / len(choices)
        assert found.item() == pytest.approx(mean, rel=1e-5)


def test_best_of_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="best of 3"):
        best_of(torch.zeros(1, 2), torch.zeros(1, 2), 3)


def test_kl_of_the_best_of_n() -> None:
    """Of a continuum of scores u in 0 … 1 the best of n has the density n·u^(n − 1); KL = ∫ q log q du."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for n in (1, 2, 8):
        q = n * u ** (n - 1)
        assert best_of_kl(n) == pytest.approx((q * q.log()).mean().item(), abs=1e-4)
