"""What a few seeds can say: interquartile mean and bootstrap intervals.

Agarwal et al. (2021), NeurIPS, "Deep reinforcement learning at the edge of the statistical precipice".
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
REPETITIONS = 2_000


def mean(scores: ArrayLike) -> NDArray[np.float64]:
    """x̄ = (1/n) Σ_i x_i over the last axis, `[…, n]` → `[…]`."""
    return np.asarray(scores, dtype=np.float64).mean(-1)


def iqm(scores: ArrayLike) -> NDArray[np.float64]:
    """The mean without the ⌊n/4⌋ lowest and the ⌊n/4⌋ highest scores, `[…, n]` → `[…]` (Agarwal 2021, §4.2)."""
    values = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    count = values.shape[-1]
    return values[..., count // 4 : count - count // 4].mean(-1)


def bootstrap(
    strata: Sequence[ArrayLike],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    generator: np.random.Generator,
    level: float = LEVEL,
    repetitions: int = REPETITIONS,
) -> tuple[float, float]:
    """The interval of a `statistic` of all scores: its percentiles when each stratum `[n_k]` (a task's seeds) is
    drawn anew from itself with replacement, a stratified percentile bootstrap (Agarwal 2021, §4.1)."""
    drawn = []
    for stratum in strata:
        scores = np.asarray(stratum, dtype=np.float64)
        if not len(scores):
            raise ValueError("a stratum without scores has no interval")
        drawn.append(scores[generator.integers(len(scores), size=(repetitions, len(scores)))])
    low, high = np.quantile(statistic(np.concatenate(drawn, axis=1)), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_band(
    curves: ArrayLike,
    generator: np.random.Generator,
    level: float = LEVEL,
    repetitions: int = REPETITIONS,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentiles of the mean of whole `curves` `[n, points]` drawn with replacement, at every point `[points]`."""
    values = np.asarray(curves, dtype=np.float64)
    count = len(values)
    # how often each curve was drawn is all that their mean needs
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=repetitions)
    low, high = np.quantile(drawn @ values / count, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def running_mean(values: ArrayLike, half: int) -> NDArray[np.float64]:
    """The mean over `half` neighbours on either side, over fewer at the ends, `[points]`."""
    y = np.asarray(values, dtype=np.float64)
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    total = np.concatenate([[0.0], np.cumsum(y)])
    return (total[high] - total[low]) / (high - low)
