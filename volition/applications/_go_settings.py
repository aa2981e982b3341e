"""Settings of AlphaGo's stages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Supervised:
    updates: int = 5_000
    """Updates of imitation."""
    batch: int = 256
    """Positions per update."""
    lr: float = 2e-3
    """Learning rate of AdamW at the beginning, falling to 0 as half a cosine."""
    value: float = 0.5
    """Weight of the squared error of who won."""
    rank: int = 1
    """Moves of players from this rank on are imitated, 1 is 1 dan, −5 is 5 kyu; −99 is everybody."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of a gradient."""


@dataclass(frozen=True)
class Rollout:
    updates: int = 120
    """Updates, each one pass of Adagrad over `positions` moves."""
    positions: int = 4_096
    """Moves drawn per update."""
    lr: float = 0.05
    """Learning rate of Adagrad."""


@dataclass(frozen=True)
class Reinforce:
    updates: int = 120
    """Updates (10,000 in the paper)."""
    games: int = 128
    """Games per update, half of them with either colour."""
    lr: float = 4e-4
    """Learning rate of AdamW at the beginning, falling to 0 as half a cosine."""
    value: float = 0.5
    """Weight of the squared error of the value, which is the baseline."""
    pool: int = 25
    """Updates after which the weights join the pool of opponents (500 in the paper)."""
    temperature: float = 1.0
    """Of the policies that play."""


@dataclass(frozen=True)
class Value:
    games: int = 24_576
    """Games (30 million in the paper)."""
    together: int = 512
    """Games of one update of the stage `games`."""
    latest: float = 0.8
    """The random move is one of the first latest·N² (1.25 in the paper)."""
    whole: bool = False
    """Learn from all positions after it instead of one: more data, but alike, and the network learns games by heart."""
    updates: int = 2_000
    """Updates of the network, which begins as that of stage 1."""
    batch: int = 256
    """Positions of own games per update."""
    lr: float = 1e-3
    """Learning rate of AdamW at the beginning, falling to 0 as half a cosine."""
    policy: float = 1.0
    """Weight of further imitation, as many moves of experts in each update; 0 leaves the policy as it was."""
    held: float = 0.1
    """Share of the games kept aside to measure."""
