"""Lots of games between two networks, from their weights and a seed: what AlphaGo's stages let `_actors` play."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from volition.applications._actors import Weights
from volition.applications._go_net import Judge, frozen, make_net
from volition.data.go_games import Games
from volition.envs.go_game import Go
from volition.envs.go_replay import Moves, replay
from volition.envs.go_selfplay import Policy, any_move, colours, play_games

LOT = 64  # games of one seed, side by side: with more a processor is no faster


@dataclass(frozen=True)
class Table:
    """What is played, and what plays it."""

    rules: Go
    net: dict[str, int]
    bf16: bool
    device: str
    games: int
    """Games of a lot."""

    def players(self, weights: Weights, rng: np.random.Generator) -> list[Policy]:
        """The networks of `both`'s weights, each position turned at random."""
        nets = nn.ModuleList([make_net(**self.net) for _ in range(2)])
        nets.load_state_dict(weights)
        return [policy_of(net, self.rules.size, self.bf16, rng) for net in nets.to(self.device)]


def policy_of(net: nn.Module, size: int, bf16: bool, rng: np.random.Generator) -> Policy:
    """A network as a policy of `play_games`, each position turned at random."""
    judge = Judge(frozen(net, bf16), size, int(rng.integers(2**31)))
    return lambda positions: judge(positions)[0]


def both(one: nn.Module, other: nn.Module) -> Weights:
    """The weights of two networks."""
    return nn.ModuleList([one, other]).state_dict()


def duels(table: Table, temperature: float, weights: Weights, seed: int) -> Games:
    """Games of the first against the second network, which has black in every second game."""
    rng = np.random.default_rng(seed)
    second = np.arange(table.games) % 2
    turns = colours(table.rules, second, 1 - second)
    return play_games(table.rules, table.players(weights, rng), turns, rng, temperature)


def won_by_first(games: Games) -> float:
    """In %, how many of `duels` the first network won; draws half."""
    second = np.arange(len(games)) % 2
    return 50 + 50 * float(np.where(second == 0, games.winner, -games.winner).mean())


def first_moves(games: Games, rules: Go) -> Moves:
    """The moves of the first network in `duels`."""
    moves = replay(games, rules)
    return moves.take(np.flatnonzero((moves.whose == 1) == (moves.game % 2 == 0)))


def relays(table: Table, latest: int, weights: Weights, seed: int) -> tuple[Games, np.ndarray]:
    """Games that the first network begins and the second ends, and the moves `[G]` before which they change over.

    The move on which they change is random; it is the U-th, U ~ unif{1 … latest}.
    """
    rng = np.random.default_rng(seed)
    one, other = table.players(weights, rng)
    random = rng.integers(latest, size=(table.games, 1))
    plies = np.arange(table.rules.moves)
    turns = np.where(plies < random, 0, np.where(plies == random, 1, 2))
    return play_games(table.rules, (one, any_move, other), turns, rng), random[:, 0] + 1
