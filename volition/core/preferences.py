"""Learning from rankings: all pairs of a prompt are one element of the batch, whoever ranks and whatever scores.

Scores and ranks are `[B, K]`, a prompt a row; rank 1 is best, equal ranks are a tie, rank 0 is a place without
completion, whose score is read by nobody.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from volition.core.returns import check_same_shape


def better(rank: Tensor) -> Tensor:
    """True at `[b, i, j]` where completion i of prompt b was ranked before j; `[B, K]` → `[B, K, K]`."""
    real = rank > 0
    return (rank.unsqueeze(2) < rank.unsqueeze(1)) & real.unsqueeze(2) & real.unsqueeze(1)


def ranking_loss(score: Tensor, rank: Tensor) -> Tensor:
    """−1/C(K,2)·Σ log σ(r_w − r_l) over the pairs of each prompt, winner w and loser l; `[B, K]` → `[B]`.

    Ties are left out and not counted in C(K,2); a prompt with nothing but ties costs 0 (Ouyang 2022, eq. 1).
    """
    check_same_shape(score=score, rank=rank)
    pairs = better(rank)
    gap = score.unsqueeze(2) - score.unsqueeze(1)
    return F.softplus(-gap).masked_fill(~pairs, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def dpo_loss(log_prob: Tensor, ref_log_prob: Tensor, rank: Tensor, beta: float) -> Tensor:
    """The ranking loss of the rewards β·log(π/π_ref) that a policy implies; log-probabilities of whole completions.

    With K = 2 it is −log σ(β·log(π/π_ref)(w) − β·log(π/π_ref)(l)) (Rafailov 2023, eq. 7); `[B, K]` → `[B]`.
    """
    check_same_shape(log_prob=log_prob, ref_log_prob=ref_log_prob, rank=rank)
    return ranking_loss(beta * (log_prob - ref_log_prob.detach()), rank)


def pairs_right(score: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """How many pairs of each prompt are scored in the order of their ranks, and how many there are; `[B]`, `[B]`.

    Equal scores are half right.
    """
    check_same_shape(score=score, rank=rank)
    pairs, gap = better(rank), score.unsqueeze(2) - score.unsqueeze(1)
    right = (gap > 0).float() + 0.5 * (gap == 0).float()
    return right.masked_fill(~pairs, 0.0).sum((1, 2)), pairs.sum((1, 2))


def best_of(score: Tensor, worth: Tensor, n: int) -> Tensor:
    """What the best of n completions by `score` is worth on average, from N ≥ n of each prompt; `[B, N]` → `[B]`.

    Σ_i C(i − 1, n − 1)/C(N, n)·worth_(i), in ascending order of score: all choices of n without repeats (Nakano 2021,
    appendix I). Of equal scores the one that stands later counts as higher.
    """
    check_same_shape(score=score, worth=worth)
    total = score.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"the best of {n} cannot be told from {total} completions")
    weight = torch.tensor([math.comb(i, n - 1) / math.comb(total, n) for i in range(total)], device=score.device)
    return worth.gather(1, score.argsort(dim=1, stable=True)).float() @ weight


def best_of_kl(n: int) -> float:
    """KL in nats of the best of n from the policy that made them: log n − (n − 1)/n, if no two score alike."""
    return math.log(n) - (n - 1) / n
