"""Returns as distributions over fixed atoms: the projection behind categorical Q-learning (C51)."""

import torch
from torch import Tensor


def project(reward: Tensor, discount: Tensor, probability: Tensor, atoms: Tensor) -> Tensor:
    """Φ T̂ Z: the distribution of r + γ_t·Z on the atoms z_0 < … < z_{K−1}, evenly spaced; `[B, K]`.

    Each r + γ_t·z_j, clipped to [z_0, z_{K−1}], gives its probability p_j to its two neighbours by their nearness.
    reward, discount `[B]`, probability `[B, K]` of s′, atoms `[K]` (Bellemare 2017, algorithm 1).
    """
    count = len(atoms)
    low, step = atoms[0], (atoms[-1] - atoms[0]) / (count - 1)
    arrived = torch.addcmul(reward[:, None], discount[:, None], atoms)
    place = ((arrived - low) / step).clamp_(0, count - 1)
    below = place.floor().clamp_(max=count - 2)  # the last atom is its own upper neighbour
    share = place - below
    index = below.long()
    out = torch.zeros_like(probability).scatter_add_(1, index, probability * (1 - share))
    return out.scatter_add_(1, index + 1, probability * share)


def cross_entropy(log_probability: Tensor, target: Tensor) -> Tensor:
    """−Σ_k m_k log p_k, the KL divergence up to a constant; both `[B, K]`, the target m a constant → `[B]`."""
    return -(target.detach() * log_probability).sum(-1)
