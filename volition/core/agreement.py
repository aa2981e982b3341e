"""How far people agree: equal pairs and Kendall's τ of two rankings, Krippendorff's α of any number of labelers."""

from collections.abc import Sequence

import numpy as np


def preferred(rank: Sequence[int]) -> np.ndarray:
    """Signs of all pairs i < j of a ranking: 1 where i is preferred, −1 where j is, 0 for a tie; `[K (K − 1) / 2]`."""
    place = np.asarray(rank)
    i, j = np.triu_indices(len(place), 1)
    return np.sign(place[j] - place[i])


def equal_pairs(a: Sequence[int], b: Sequence[int]) -> tuple[int, int]:
    """How many of the K (K − 1) / 2 pairs two rankings judge equally, and how many there are; a tie equals a tie only.

    Sums over prompts give the agreement of two labelers as InstructGPT states it (Ouyang et al. 2022, §3.4).
    """
    same = preferred(a) == preferred(b)
    return int(same.sum()), len(same)


def kendall_tau(a: Sequence[int], b: Sequence[int]) -> float:
    """Kendall's τ_b = Σ sᵢ tᵢ / √(Σ sᵢ² · Σ tᵢ²) over the signs s, t of all pairs; nan if one ranking is all tie.

    1 for the same order, −1 for the reverse; the roots discount ties (Kendall 1945).
    """
    s, t = preferred(a), preferred(b)
    scale = float(np.sqrt((s @ s) * (t @ t)))
    return float(s @ t) / scale if scale else float("nan")


def krippendorff_alpha(values: np.ndarray, level: str = "nominal") -> float:
    """Krippendorff's α = 1 − D_o / D_e of `[labelers, units]`, nan where a labeler said nothing.

    1 is full agreement, 0 what chance gives. o_cd counts pairs of values (c, d) within a unit of m values, each with
    weight 1 / (m − 1); n_c = Σ_d o_cd, n = Σ n_c; D_o = Σ o_cd δ²_cd / n, D_e = Σ n_c n_d δ²_cd / (n (n − 1)).
    δ² is 1 for c ≠ d if `nominal`, (c − d)² if `interval`, and if `ordinal` the square of how many values lie between
    c and d, with half of n_c and half of n_d (Krippendorff 2011).
    nan where no unit has two values; 1 where all values are one and the same.
    """
    values = np.asarray(values, dtype=float)
    kinds = np.unique(values[~np.isnan(values)])
    count = (values[None] == kinds[:, None, None]).sum(1)  # [kinds, units]
    count = count[:, count.sum(0) > 1].astype(float)
    if not count.size:
        return float("nan")
    weight = count / (count.sum(0) - 1)
    o = weight @ count.T - np.diag(weight.sum(1))  # no value is paired with itself
    n = o.sum(1)
    if level == "nominal":
        far = 1 - np.eye(len(kinds))
    elif level == "interval":
        far = (kinds[:, None] - kinds) ** 2
    elif level == "ordinal":
        middle = np.cumsum(n) - n / 2
        far = (middle[:, None] - middle) ** 2
    else:
        raise ValueError(f"level {level!r} is none of nominal, ordinal, interval")
    expected = float(n @ far @ n)
    return 1 - float((o * far).sum()) * (float(n.sum()) - 1) / expected if expected else 1.0


def ranking_alpha(rankings: Sequence[Sequence[Sequence[int]]]) -> float:
    """α (nominal) of the pairs of completions: a unit is a pair, its values who is preferred, by each labeler.

    `rankings[prompt][labeler]` is a ranking of that prompt's completions. Which of a pair comes first is arbitrary, so
    every pair counts in both directions: turning pairs round changes nothing.
    """
    most = max((len(by) for by in rankings), default=0)
    units = []
    for by in rankings:
        signs = np.full((most, len(by[0]) * (len(by[0]) - 1) // 2), np.nan)
        for labeler, rank in enumerate(by):
            signs[labeler] = preferred(rank)
        units += [signs, -signs]
    return krippendorff_alpha(np.concatenate(units, 1)) if units else float("nan")
