"""Simulated people who rank completions of the built-in task, none of them quite as the hidden score would."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from volition.data.instructions import WEIGHTS, WORST, parts
from volition.data.preferences import Preference


@dataclass(frozen=True)
class Labeler:
    """Ranks by a score of its own, near the hidden one, with Boltzmann noise; after that neighbours may change places.

    P(i is next best) = softmax(score/temperature) over those left (Plackett 1975); `taste` is the standard deviation
    of the logarithm of each weight, the same for all that this labeler ranks.
    """

    name: str
    temperature: float = 0.2
    flip: float = 0.05
    taste: float = 0.3

    def score(self, prompt: str, completion: str) -> float:
        """How this labeler likes a completion."""
        rng = random.Random(f"labeler {self.name}")
        liked = {name: weight * math.exp(rng.gauss(0, self.taste)) for name, weight in WEIGHTS.items()}
        return max(WORST, sum(liked[name] * value for name, value in parts(prompt, completion).items()))

    def rank(self, prompt: str, completions: Sequence[str], rng: random.Random) -> Preference:
        """The ranking of completions; equal texts tie."""
        liked: dict[str, float] = {}
        for completion in completions:
            if completion not in liked:  # Gumbel noise and sorting draw from that distribution
                noise = -math.log(-math.log(rng.random() or 1e-9))
                liked[completion] = self.score(prompt, completion) / self.temperature + noise
        order = sorted(liked, key=liked.__getitem__, reverse=True)
        for i in range(len(order) - 1):
            if rng.random() < self.flip:
                order[i : i + 2] = order[i + 1], order[i]
        return Preference(prompt, tuple(completions), tuple(order.index(c) + 1 for c in completions), self.name)


# two of them agree on 74 % of the pairs of demonstrations that are no tie, Ouyang's labelers on 73 %
TEAM = tuple(Labeler(name) for name in ("ann", "ben", "cora", "dev", "eve"))
