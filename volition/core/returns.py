"""Returns and advantages: what a step was worth, from the rewards that followed it and a critic.

All arguments and results are `[T, B]`, or `[T, B, …]` of one shape:
discount_t = γ·(1 − terminated_t); done_t = terminated_t or truncated_t; value_t = V(s_t);
next_value_t = V(s_{t+1}) as step t saw it, which is V(final obs) where t was truncated.
So truncation bootstraps, termination does not, nothing crosses `done`, and the last row bootstraps from
next_value_{T−1}. The functions are pure and let gradients through: the caller detaches what is to be constant
(the losses of `volition.core.losses` do).
"""

import torch
from torch import Tensor


def discounted_return(reward: Tensor, discount: Tensor, done: Tensor, next_value: Tensor) -> Tensor:
    """Reward-to-go until the episode or the segment ends, then the critic's estimate.

    G_t = r_t + γ_t·G_{t+1}; after the end G_{t+1} = V(s_{t+1}) `[T, B]` (Sutton 2018, eq. 3.9).
    """
    return lambda_return(reward, discount, done, next_value, 1.0)


def n_step_return(reward: Tensor, discount: Tensor, done: Tensor, next_value: Tensor, n: int) -> Tensor:
    """The rewards of n steps, then the critic's estimate; fewer steps where the episode or the segment ends.

    G_t^(n) = r_t + γ_t·G_{t+1}^(n−1), G_{t+1}^(0) = V(s_{t+1}) `[T, B]` (Sutton 2018, eq. 7.1).
    """
    check_same_shape(reward=reward, discount=discount, done=done, next_value=next_value)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    if n >= reward.shape[0]:
        return discounted_return(reward, discount, done, next_value)
    g = reward + discount * next_value
    for _ in range(n - 1):
        g = reward + discount * _successor(g, done, next_value)
    return g


def lambda_return(reward: Tensor, discount: Tensor, done: Tensor, next_value: Tensor, lam: float | Tensor) -> Tensor:
    """The mixture (1 − λ) Σ_n λ^{n−1} G_t^(n) of all n-step returns.

    G_t = r_t + γ_t·((1 − λ)·V(s_{t+1}) + λ·G_{t+1}) `[T, B]`, λ too or a number (Sutton 2018, eq. 12.18).
    """
    check_same_shape(reward=reward, discount=discount, done=done, next_value=next_value)
    lam = lam * done.logical_not().to(reward.dtype)  # a number times a bool tensor would be float32
    return _backward(reward + discount * (1 - lam) * next_value, discount * lam, next_value[-1])


def gae(
    reward: Tensor,
    discount: Tensor,
    done: Tensor,
    next_value: Tensor,
    value: Tensor,
    lam: float | Tensor,
) -> Tensor:
    """Generalised advantage estimate: λ = 0 is the TD error, λ = 1 the return minus V.

    A_t = δ_t + γ_t·λ·A_{t+1}, δ_t = r_t + γ_t·V(s_{t+1}) − V(s_t) `[T, B]` (Schulman 2016, eq. 16).
    The critic's matching target is A_t + V(s_t), the λ-return.
    """
    check_same_shape(reward=reward, discount=discount, done=done, next_value=next_value, value=value)
    delta = reward + discount * next_value - value
    return _backward(delta, discount * (lam * done.logical_not().to(reward.dtype)), torch.zeros_like(delta[-1]))


def vtrace(
    log_rho: Tensor,
    reward: Tensor,
    discount: Tensor,
    done: Tensor,
    next_value: Tensor,
    value: Tensor,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
    lam: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """Off-policy value target v_t and policy-gradient advantage A_t, log_rho = log π(a|s)/μ(a|s), μ acting.

    v_t = V(s_t) + ρ_t·δ_t + γ_t·c_t·(v_{t+1} − V(s_{t+1})), δ_t = r_t + γ_t·V(s_{t+1}) − V(s_t);
    A_t = ρ_t·(r_t + γ_t·v_{t+1} − V(s_t)); ρ_t = min(ρ̄, π/μ), c_t = λ·min(c̄, π/μ).
    Both `[T, B]` (Espeholt 2018, eq. 1, §4.2 and remark 2).
    """
    check_same_shape(log_rho=log_rho, reward=reward, discount=discount, done=done, next_value=next_value, value=value)
    ratio = log_rho.exp()
    rho = ratio.clamp(max=rho_clip)
    c = lam * ratio.clamp(max=c_clip)
    delta = rho * (reward + discount * next_value - value)
    target = value + _backward(delta, discount * c * done.logical_not(), torch.zeros_like(delta[-1]))
    return target, rho * (reward + discount * _successor(target, done, next_value) - value)


def check_same_shape(**tensors: Tensor) -> None:
    """ValueError unless all have one shape: a `[T, B]` beside a `[T, B, 1]` would broadcast unseen."""
    if len({x.shape for x in tensors.values()}) > 1:
        raise ValueError("shapes differ: " + ", ".join(f"{k} {tuple(x.shape)}" for k, x in tensors.items()))


def _backward(delta: Tensor, coefficient: Tensor, last: Tensor) -> Tensor:
    """x_t = δ_t + c_t·x_{t+1} from x_T = last; the one recursion behind every estimate here."""
    x, rows = last, []
    for d, c in zip(reversed(delta.unbind(0)), reversed(coefficient.unbind(0)), strict=True):
        x = torch.addcmul(d, c, x)
        rows.append(x)
    return torch.stack(rows[::-1])


def _successor(x: Tensor, done: Tensor, next_value: Tensor) -> Tensor:
    """x_{t+1} within an episode, V(s_{t+1}) where the episode or the segment ends."""
    return torch.where(done.bool(), next_value, torch.cat([x[1:], next_value[-1:]]))
