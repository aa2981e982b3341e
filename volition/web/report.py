"""What a label store holds, in figures: progress, labelers and how far they agree."""

from collections import defaultdict
from itertools import combinations
from statistics import fmean, median

import numpy as np
import sqlalchemy as sa

from volition.core.agreement import equal_pairs, kendall_tau, krippendorff_alpha, ranking_alpha
from volition.data.labels import ASSIGNMENTS, LABELERS, PROMPTS, RANKINGS, Store

WORDS = {
    "equal pairs": "share of pairs of completions judged equally",
    "tau": "Kendall's τ_b, mean",
    "alpha": "Krippendorff's α of pairs (nominal)",
    "rating alpha": "Krippendorff's α of ratings 1–7 (ordinal)",
}


def agreement(by_prompt: dict[int, dict[str, list[int]]]) -> dict[str, float]:
    """Over all prompts with two labelers or more: equal pairs pooled, τ averaged over pairs of labelers, α."""
    equal, total, taus = 0, 0, []
    for by in by_prompt.values():
        for a, b in combinations(by.values(), 2):
            same, pairs = equal_pairs(a, b)
            equal, total = equal + same, total + pairs
            taus.append(kendall_tau(a, b))
    taus = [tau for tau in taus if tau == tau]
    nan = float("nan")
    alpha = ranking_alpha([list(by.values()) for by in by_prompt.values() if len(by) > 1])
    return {"equal pairs": equal / total if total else nan, "tau": fmean(taus) if taus else nan, "alpha": alpha}


def stats(store: Store) -> dict:
    """Counts, agreement, and a row for each labeler: rankings, skips, median seconds, rankings an hour, agreement."""
    with store.read() as connection:
        query = sa.select(LABELERS.c.name, RANKINGS).join_from(RANKINGS, LABELERS).where(RANKINGS.c.current)
        rankings = connection.execute(query).all()
        wanted = [w for (w,) in connection.execute(sa.select(PROMPTS.c.wanted))]
        skips = dict(
            connection.execute(
                sa.select(LABELERS.c.name, sa.func.count()).join_from(ASSIGNMENTS, LABELERS)
                .where(ASSIGNMENTS.c.state == "skipped").group_by(LABELERS.c.name)
            ).all()
        )  # fmt: skip
        names = [name for (name,) in connection.execute(sa.select(LABELERS.c.name).order_by(LABELERS.c.name))]
    by_prompt: dict[int, dict[str, list[int]]] = defaultdict(dict)
    seconds: dict[str, list[float]] = defaultdict(list)
    ratings = []
    for row in rankings:
        by_prompt[row.prompt][row.name] = row.rank
        if row.seconds is not None:
            seconds[row.name].append(row.seconds)
        ratings += [(row.prompt, place, row.name, value) for place, value in enumerate(row.ratings) if value]
    people = []
    for name in names:
        mine = {p: by for p, by in by_prompt.items() if name in by}
        took = seconds[name]
        equal = [equal_pairs(by[name], other) for by in mine.values() for who, other in by.items() if who != name]
        pairs = sum(n for _, n in equal)
        people.append({
            "labeler": name, "rankings": len(mine), "skipped": skips.get(name, 0),
            "seconds": median(took) if took else None,
            "an hour": 3600 * len(took) / sum(took) if sum(took) else None,
            "equal pairs": sum(n for n, _ in equal) / pairs if pairs else None,
        })  # fmt: skip
    return {
        "prompts": len(wanted), "wanted": sum(wanted), "rankings": len(rankings), "ranked prompts": len(by_prompt),
        "prompts with several labelers": sum(len(by) > 1 for by in by_prompt.values()),
        **agreement(by_prompt), "rating alpha": _rating_alpha(ratings), "labelers": people,
    }  # fmt: skip


def _rating_alpha(ratings: list[tuple[int, int, str, int]]) -> float:
    units = {unit: i for i, unit in enumerate(sorted({(p, place) for p, place, _, _ in ratings}))}
    names = {name: i for i, name in enumerate(sorted({name for _, _, name, _ in ratings}))}
    values = np.full((len(names), len(units)), np.nan)
    for prompt, place, name, value in ratings:
        values[names[name], units[prompt, place]] = value
    return krippendorff_alpha(values, "ordinal") if ratings else float("nan")
