"""What a search does at its root to explore: Gumbel's trick with sequential halving, or Dirichlet noise.

Danihelka et al. 2022, "Policy improvement by planning with Gumbel"; Silver et al. 2018 (AlphaZero).
"""

import numpy as np
from numpy.typing import NDArray

from volition.core.search import Forest

VISIT, SCALE = 50.0, 1.0  # c_visit and c_scale (Danihelka 2022, section 5)


def transformed(q: NDArray, visits: NDArray) -> NDArray:
    """σ(q) = (c_visit + max_b N(b))·c_scale·(q + 1)/2 of q `[G, A]` in −1 … 1. (Danihelka 2022, equation 8)"""
    return (VISIT + visits.max(-1, keepdims=True)) * SCALE * (q + 1) / 2


def completed(q: NDArray, visits: NDArray, priors: NDArray, value: NDArray) -> NDArray:
    """q `[G, A]`, where nothing was visited v_mix instead; value `[G]` is the network's. (Danihelka 2022, appendix D)

    v_mix = (v̂ + ΣN · Σ_{N>0} P·q / Σ_{N>0} P) / (1 + ΣN)
    """
    tried = visits > 0
    q = np.where(tried, q, 0.0)
    share = np.where(tried, np.maximum(priors, 1e-12), 0.0)
    total = visits.sum(-1)
    mean = (share * q).sum(-1) / np.maximum(share.sum(-1), 1e-12)
    mixed = (value + total * mean) / (1 + total)
    return np.where(tried, q, mixed[:, None])


def improved(forest: Forest) -> NDArray:
    """π' = softmax(logits + σ(completed q)) at the roots, `[G, A]`, 0 where the game is over. (equation 11)"""
    visits, priors = forest.visits(), forest.priors()
    value = np.nan_to_num(forest.root_value)
    with np.errstate(divide="ignore"):
        scores = np.log(priors) + transformed(completed(forest.values(), visits, priors, value), visits)
    found = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e30))  # all −∞ where the game is over
    return found / np.maximum(found.sum(-1, keepdims=True), 1e-30)


def halving(simulations: int, considered: int) -> list[tuple[int, int]]:
    """Sequential halving: how many actions are tried in each phase, and how often each; in all `simulations` visits.

    m actions take ⌈log₂ m⌉ phases of as many visits each, every next one with the better half, down to two; those are
    tried as long as visits are left. (Danihelka 2022, figure 1)
    """
    phases = max(1, int(np.ceil(np.log2(considered))))
    plan, left, count = [], simulations, considered
    while left:
        each = max(1, simulations // (phases * count))
        if count * each > left:
            each, rest = divmod(left, count)
            return plan + [(count, each)] * (each > 0) + [(rest, 1)] * (rest > 0)
        plan.append((count, each))
        left -= count * each
        count = max(min(2, considered), count // 2)
    return plan


def gumbel(
    forest: Forest, simulations: int, considered: int, rng: np.random.Generator, noise: float = 1.0
) -> tuple[NDArray, NDArray]:
    """Search from the roots that are not over; the action of each `[G]` and π' `[G, A]`.

    The `considered` actions with the largest g + logits, g of Gumbel's distribution times `noise`, share `simulations`
    descents by sequential halving; played is the one of the last with the largest g + logits + σ(q). Where q is exact
    the action is no worse on average than the policy's. (Danihelka 2022, algorithm 2)
    """
    alive = forest.make_roots()
    priors = forest.priors()
    with np.errstate(divide="ignore"):
        scores = np.log(priors) + noise * rng.gumbel(size=priors.shape)
    order = np.argsort(-scores, axis=1)
    count = np.minimum((priors > 0).sum(1), considered)  # of the actions still in the race, per game
    before = forest.visits()  # of a kept subtree
    for number in np.unique(count[alive]):
        mine = alive & (count == number)
        for here, each in halving(simulations, int(number)):
            for rank in range(here):
                edges = forest.edges(order[:, rank])
                for _ in range(each):
                    forest.round(mine.astype(np.int64), edges)
            forest.settle()
            visits = forest.visits() - before
            q = np.nan_to_num(forest.values())
            best = np.take_along_axis(scores + transformed(q, visits), order[:, :here], 1)
            order[:, :here] = np.take_along_axis(order[:, :here], np.argsort(-best, axis=1, kind="stable"), 1)
    return order[:, 0], improved(forest)


def dirichlet(forest: Forest, alpha: float, share: float, rng: np.random.Generator) -> None:
    """Mix noise into the priors of the roots: (1 − ε)·P + ε·Dir(α) over what is legal. (Silver 2018, ε 0.25)"""
    forest.make_roots()
    priors = forest.priors()
    noise = np.where(priors > 0, rng.gamma(alpha, size=priors.shape), 0.0)
    noise /= np.maximum(noise.sum(-1, keepdims=True), 1e-30)
    forest.set_priors(((1 - share) * priors + share * noise).astype(np.float32))
