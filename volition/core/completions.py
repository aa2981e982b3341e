"""Completions as episodes: reward at the last token, a price on leaving the reference policy at every token.

Everything is `[N, R]`, one row a completion, mask True at its tokens up to and with EOS. The state of token t is the
prompt and the tokens before t; a completion that was cut at R tokens has ended too. Where mask is False results are 0.
"""

from typing import Any

import torch
from torch import Tensor

from volition.core.returns import check_same_shape, gae


def last_token(mask: Tensor) -> Tensor:
    """True at the last token of each completion, `[N, R]`; a row without tokens has none."""
    after = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~after


def token_reward(score: Tensor, log_prob: Tensor, ref_log_prob: Tensor, mask: Tensor, beta: float) -> Tensor:
    """r_t = [t is the last]·score − β·(log π(a_t|s_t) − log π_ref(a_t|s_t)); score `[N]` → `[N, R]`.

    Summed over a completion: score − β·log(π/π_ref) (Ouyang 2022, eq. 2, γ = 0; Ziegler 2019, eq. 2).
    """
    check_same_shape(log_prob=log_prob, ref_log_prob=ref_log_prob, mask=mask)
    price = torch.where(mask, beta * (log_prob - ref_log_prob), 0.0)
    return last_token(mask) * score.unsqueeze(1) - price


def token_advantage(reward: Tensor, value: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE within each completion, V = 0 after its end, and the critic's target A + V; all `[N, R]`."""
    check_same_shape(reward=reward, value=value, mask=mask)
    reward, value = torch.where(mask, reward, 0.0), torch.where(mask, value, 0.0)
    goes_on = mask & ~last_token(mask)
    next_value = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
    discount = gamma * goes_on.to(reward)
    advantage = gae(reward.t(), discount.t(), ~goes_on.t(), next_value.t(), value.t(), lam).t()
    return advantage, advantage + value


class Beta:
    """β, the price of a nat of KL, fixed or steered to a target.

    β ← β·(1 + clip(KL/target − 1, ±0.2)·n/horizon) after n completions of mean KL (Ziegler 2019, §2.2 and code).
    """

    def __init__(self, value: float, target: float = 0.0, horizon: int = 10_000) -> None:
        self.value, self.target, self.horizon = value, target, horizon

    def update(self, kl: float, count: int) -> None:
        """Take in the mean KL per completion, in nats, of `count` completions; without a target nothing changes."""
        if self.target:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error * count / self.horizon

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = float(state["value"])


def group_advantage(score: Tensor) -> Tensor:
    """(r − mean)/(sd + 10⁻⁴) among the K completions of each prompt; `[B, K]` (Shao 2024, §4.1.2)."""
    return (score - score.mean(1, keepdim=True)) / (score.std(1, keepdim=True) + 1e-4)
