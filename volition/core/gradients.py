"""The policy losses of `losses` together with their gradients by hand, for learners that do without autograd.

Each function returns (loss, ∂loss/∂(what is learned)), elementwise, as `losses` would with autograd.
"""

import torch
from torch import Tensor

from volition.core.returns import check_same_shape


def policy_gradient(log_prob: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """L = −log π·A;  ∂L/∂log π = −A `[B]` (Sutton 2018, eq. 13.11)."""
    check_same_shape(log_prob=log_prob, advantage=advantage)
    gradient = -advantage
    return log_prob * gradient, gradient


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """L = −min(r·A, clip(r, 1 ± ε)·A);  ∂L/∂log π = −r·A where the first is the smaller, else 0; and r `[B]`.

    (Schulman 2017, eq. 7)
    """
    check_same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = (log_prob - old_log_prob).exp_()
    free, held = ratio * advantage, ratio.clamp(1 - clip, 1 + clip).mul_(advantage)
    # chosen, not multiplied: a ratio that overflows would be 0·∞ where it is clipped
    return -torch.minimum(free, held), torch.where(free <= held, -free, 0.0), ratio


def value_loss(value: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L = ½(G − V)²;  ∂L/∂V = V − G `[B]`."""
    check_same_shape(value=value, target=target)
    error = value - target
    return 0.5 * error.square(), error


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """L = ½ max((G − V)², (G − V_clip)²);  ∂L/∂V = V − G unless the clipped term is the larger, then 0 `[B]`.

    (OpenAI ppo2)
    """
    check_same_shape(value=value, old_value=old_value, target=target)
    error, move = value - target, value - old_value
    near = move.clamp(-clip, clip).add_(old_value).sub_(target)
    free, held = error.square(), near.square()
    # within the bound both are one but for rounding, which must not stop the learning
    return torch.maximum(free, held).mul_(0.5), error * ((free >= held) | (move.abs() <= clip))
