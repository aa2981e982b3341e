"""Losses, elementwise: every function returns one number per step, which the caller averages (`masked_mean`).

Gradients flow to log_prob, value, q and entropy only: advantages, old log-probabilities and all that makes up
a target are detached inside. Squared errors carry ½, so that their gradient is the error.
"""

import torch
from torch import Tensor

from volition.core.returns import check_same_shape


def policy_gradient(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """−log π(a_t|s_t)·A_t, the score-function estimate of −∇E[G] `[T, B]` (Sutton 2018, eq. 13.11)."""
    check_same_shape(log_prob=log_prob, advantage=advantage)
    return -log_prob * advantage.detach()


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """−min(r_t·A_t, clip(r_t, 1 − ε, 1 + ε)·A_t), r_t = π(a_t|s_t)/π_old(a_t|s_t) `[T, B]`.

    (Schulman 2017, eq. 7)
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    advantage = advantage.detach()
    ratio = (log_prob - old_log_prob.detach()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def squared(error: Tensor) -> Tensor:
    """½·error²."""
    return 0.5 * error.square()


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """½·e² where |e| ≤ δ, else δ·(|e| − ½δ): the gradient is the error clipped to ±δ (Huber 1964)."""
    small = error.abs().clamp(max=delta)
    return small * (error.abs() - 0.5 * small)


def value_loss(value: Tensor, target: Tensor, delta: float | None = None) -> Tensor:
    """½·(target − V)², or Huber's loss with threshold δ; the target is a constant `[T, B]`."""
    check_same_shape(value=value, target=target)
    error = target.detach() - value
    return squared(error) if delta is None else huber(error, delta)


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float) -> Tensor:
    """½·max((G − V)², (G − V_clip)²), V_clip = V_old + clip(V − V_old, ±ε) `[T, B]` (OpenAI ppo2)."""
    check_same_shape(value=value, old_value=old_value, target=target)
    old = old_value.detach()
    near = old + (value - old).clamp(-clip, clip)
    return torch.maximum(value_loss(value, target), value_loss(near, target))


def td(value: Tensor, reward: Tensor, discount: Tensor, next_value: Tensor, delta: float | None = None) -> Tensor:
    """½·(r_t + γ_t·V(s_{t+1}) − V(s_t))² with a constant target `[B]` (Sutton 2018, eq. 6.2).

    With q(s, a) and q(s′, a′) for the two values it is SARSA's loss; with E_π q(s′, ·), expected SARSA's.
    """
    check_same_shape(value=value, reward=reward, discount=discount, next_value=next_value)
    return value_loss(value, reward + discount * next_value, delta)


def chosen(q: Tensor, action: Tensor) -> Tensor:
    """q(s, a) of the action taken: q `[B, A]`, action `[B]` → `[B]`."""
    check_same_shape(action=action, values=q[..., 0])
    return q.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


def q_target(reward: Tensor, discount: Tensor, next_q: Tensor) -> Tensor:
    """r + γ·max_a q(s′, a): next_q `[B, A]` → `[B]` (Sutton 2018, eq. 6.8)."""
    check_same_shape(reward=reward, discount=discount, values=next_q[..., 0])
    return reward + discount * next_q.amax(-1)


def double_q_target(reward: Tensor, discount: Tensor, next_q_online: Tensor, next_q_target: Tensor) -> Tensor:
    """r + γ·q_target(s′, argmax_a q_online(s′, a)) `[B]` (van Hasselt 2016, eq. 4)."""
    next_q = chosen(next_q_target, next_q_online.argmax(-1))
    check_same_shape(reward=reward, discount=discount, values=next_q)
    return reward + discount * next_q


def q_learning(
    q: Tensor, action: Tensor, reward: Tensor, discount: Tensor, next_q: Tensor, delta: float | None = None
) -> Tensor:
    """½·(r + γ·max_a′ q(s′, a′) − q(s, a))², or Huber's, with a constant target `[B]` (Mnih 2015)."""
    return value_loss(chosen(q, action), q_target(reward, discount, next_q), delta)


def double_q(
    q: Tensor,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_q_online: Tensor,
    next_q_target: Tensor,
    delta: float | None = None,
) -> Tensor:
    """½·(r + γ·q_target(s′, argmax q_online(s′, ·)) − q(s, a))², or Huber's (van Hasselt 2016, eq. 4)."""
    return value_loss(chosen(q, action), double_q_target(reward, discount, next_q_online, next_q_target), delta)


def entropy_bonus(entropy: Tensor, coef: float) -> Tensor:
    """−coef·H(π(·|s_t)): minimising it keeps the policy exploring `[T, B]` (Mnih 2016, §4)."""
    return -coef * entropy


def actor_critic(
    log_prob: Tensor,
    advantage: Tensor,
    value: Tensor,
    target: Tensor,
    entropy: Tensor,
    value_coef: float,
    entropy_coef: float,
) -> Tensor:
    """−log π(a_t|s_t)·A_t + value_coef·½·(G_t − V(s_t))² − entropy_coef·H_t `[T, B]` (Mnih 2016, §4)."""
    check_same_shape(log_prob=log_prob, value=value, entropy=entropy)
    critic = value_coef * value_loss(value, target)
    return policy_gradient(log_prob, advantage) + critic + entropy_bonus(entropy, entropy_coef)


def kl_k1(log_prob: Tensor, other_log_prob: Tensor) -> Tensor:
    """log π(a) − log π′(a) for a ~ π: unbiased for KL(π‖π′), of either sign `[T, B]` (Schulman 2020, k1).

    An estimate of the value: its gradient is not an estimate of the KL's gradient.
    """
    check_same_shape(log_prob=log_prob, other_log_prob=other_log_prob)
    return log_prob - other_log_prob


def kl_k3(log_prob: Tensor, other_log_prob: Tensor) -> Tensor:
    """(r − 1) − log r, r = π′(a)/π(a), a ~ π: unbiased for KL(π‖π′), never negative (Schulman 2020, k3).

    An estimate of the value: its gradient is not an estimate of the KL's gradient.
    """
    check_same_shape(log_prob=log_prob, other_log_prob=other_log_prob)
    log_ratio = other_log_prob - log_prob
    return torch.expm1(log_ratio) - log_ratio


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Σ mask·x / Σ mask over all entries, whatever stands where mask is False; 0 if it is so everywhere."""
    check_same_shape(x=x, mask=mask)
    mask = mask.bool()
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)
