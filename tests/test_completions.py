"""Completions as episodes, by hand and by enumeration."""

import itertools

import pytest
import torch

from volition.core.average import Average
from volition.core.completions import Beta, last_token, token_advantage, token_reward

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])


def test_the_score_sits_on_the_last_real_token() -> None:
    assert last_token(MASK).nonzero().tolist() == [[0, 2], [1, 0], [2, 3]]
    same = torch.randn(3, 4)
    reward = token_reward(torch.tensor([5.0, 6.0, 7.0]), same, same, MASK, beta=0.3)
    assert reward.tolist() == [[0, 0, 5, 0], [6, 0, 0, 0], [0, 0, 0, 7]]


def test_rewards_of_a_completion_sum_to_score_minus_beta_log_ratio() -> None:
    g = torch.Generator().manual_seed(0)
    score, log_prob, ref = (torch.randn(*s, generator=g) for s in ((3,), (3, 4), (3, 4)))
    total = token_reward(score, log_prob, ref, MASK, 0.3).sum(1)
    torch.testing.assert_close(total, score - 0.3 * ((log_prob - ref) * MASK).sum(1))


def test_expected_price_is_beta_times_the_kl_of_the_two_policies() -> None:
    """Two tokens of three kinds, the second's distribution depending on the first: all nine completions."""
    g = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 3, generator=g).log_softmax(-1), torch.randn(2, 3, 3, generator=g).log_softmax(-1)
    rows = list(itertools.product(range(3), range(3)))
    log_prob, ref = (torch.stack([torch.stack([first[i, a], second[i, a, b]]) for a, b in rows]) for i in (0, 1))
    mask = torch.ones(9, 2, dtype=torch.bool)
    weight = log_prob.sum(1).exp()
    reward = (weight * token_reward(torch.zeros(9), log_prob, ref, mask, 0.5).sum(1)).sum()
    p, q = first.exp()[0], second.exp()[0]
    kl = (p * (first[0] - first[1])).sum() + (p * (q * (second[0] - second[1])).sum(-1)).sum()
    torch.testing.assert_close(reward, -0.5 * kl)


def test_advantage_by_hand() -> None:
    """γ = 1, λ = ½, r = (1, 2, 4), V = (3, 5, 6): δ = (1 + 5 − 3, 2 + 6 − 5, 4 − 6) = (3, 3, −2)."""
    reward, value = torch.tensor([[1.0, 2.0, 4.0, 9.0]]), torch.tensor([[3.0, 5.0, 6.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    advantage, target = token_advantage(reward, value, mask, 1.0, 0.5)
    assert advantage.tolist() == [[3 + 0.5 * (3 + 0.5 * -2), 3 + 0.5 * -2, -2, 0]]
    assert target.tolist() == [[7, 7, 4, 0]]


def test_nothing_after_the_end_matters() -> None:
    g = torch.Generator().manual_seed(0)
    values = [torch.randn(3, 4, generator=g) for _ in range(4)]

    def all_of(log_prob: torch.Tensor, ref: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
        reward = token_reward(torch.ones(3), log_prob, ref, MASK, 0.1)
        return [reward, *token_advantage(reward, value, MASK, 0.9, 0.8)]

    for filling in (torch.nan, torch.inf, 1e9):
        other = [x.masked_fill(~MASK, filling) for x in values[:3]]
        for a, b in zip(all_of(*values[:3]), all_of(*other), strict=True):
            assert torch.equal(a, b) and (a[~MASK] == 0).all()


def test_with_lam_1_and_gamma_1_the_target_is_the_reward_to_go() -> None:
    g = torch.Generator().manual_seed(0)
    reward, value = torch.randn(3, 4, generator=g) * MASK, torch.randn(3, 4, generator=g)
    _, target = token_advantage(reward, value, MASK, 1.0, 1.0)
    torch.testing.assert_close(target, reward.flip(1).cumsum(1).flip(1) * MASK)


def test_beta_follows_its_target() -> None:
    beta = Beta(0.2, target=6.0, horizon=1000)
    beta.update(6.6, 100)  # a tenth too much: β·(1 + 0.1·0.1)
    assert beta.value == pytest.approx(0.2 * 1.01)
    beta.update(60.0, 100)  # the error is cut at 0.2
    assert beta.value == pytest.approx(0.2 * 1.01 * 1.02)
    fixed = Beta(0.2)
    fixed.update(60.0, 100)
    assert fixed.value == 0.2
    fixed.load_state_dict(beta.state_dict())
    assert fixed.value == beta.value


def test_average_of_weights() -> None:
    layer = torch.nn.Linear(1, 1)
    layer.bias.requires_grad_(False)
    torch.nn.init.constant_(layer.weight, 1.0)
    average = Average(layer.parameters(), 0.75)
    for _ in range(2):
        torch.nn.init.constant_(layer.weight, 5.0)
        average.update()
    with average.inside():  # 1 → 2 → 2.75
        assert layer.weight.item() == 2.75
    assert layer.weight.item() == 5.0 and average.values[0].item() == 2.75 and len(average.values) == 1
    again = Average(layer.parameters(), 0.75)
    again.load_state_dict(average.state_dict())
    assert again.values[0].item() == 2.75
    with pytest.raises(ValueError, match="other weights"):
        Average(torch.nn.Linear(2, 1).parameters(), 0.5).load_state_dict(average.state_dict())
