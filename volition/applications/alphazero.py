"""AlphaZero: a network learns a game from nothing but its rules, by imitating a search that it guides.

Silver et al. (2018), "A general reinforcement learning algorithm that masters chess, shogi, and Go through self-play";
Danihelka et al. (2022), "Policy improvement by planning with Gumbel".

state    a position, as planes seen by the side to move
action   a square, a column, a point or a pass
reward   1 for a game won, −1 for one lost, 0 for a draw, at its end
target   policy: what the search thinks (visits, or π' of Gumbel's search); value: who won
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from volition.applications._actors import Weights, actors, seeds
from volition.applications._go_net import frozen
from volition.applications._zero_board import Board, Eye, Net, board
from volition.core.gumbel import dirichlet, gumbel
from volition.core.match import Searcher, match
from volition.core.schedules import cosine
from volition.core.search import Forest, Search, even
from volition.envs.go_game import Go
from volition.envs.go_uct import RandomGames
from volition.envs.lines import LineGames, solve
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.run import Run

MATCH = 200  # games of each match when measuring
OPENING = 2  # random moves they begin with


@dataclass(frozen=True)
class Config:
    game: Literal["tictactoe", "connect4", "go"] = "connect4"
    """What is played."""
    size: int = 5
    """Side of the board of Go."""
    blocks: int = 3
    """Residual blocks of two 3×3 convolutions."""
    channels: int = 32
    """Channels of each."""
    root: Literal["gumbel", "puct"] = "gumbel"
    """Gumbel's trick and sequential halving at the root, or AlphaZero's noise and visits."""
    simulations: int = 32
    """Descents per move (800 in AlphaZero)."""
    considered: int = 7
    """Actions that Gumbel's search begins with (16 in the paper)."""
    noise: float = 0.5
    """α of Dirichlet noise at puct's roots (0.03 for Go on 19×19)."""
    share: float = 0.25
    """Its share of the priors."""
    explore: int = 8
    """First moves that puct draws in proportion to visits; the others are the most visited."""
    updates: int = 150
    """Updates: as many times games are played and learned from."""
    games: int = 64
    """Games per update …"""
    together: int = 64
    """… of which so many are played side by side …"""
    workers: int = 0
    """… in this process (0) or as many others; the games are the same."""
    steps: int = 40
    """Gradient steps per update."""
    batch: int = 256
    """Positions per step."""
    window: int = 40_000
    """Positions that are remembered."""
    lr: float = 2e-3
    """Learning rate of AdamW at the beginning, falling to 0 as half a cosine."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    opponent: int = 1_000
    """Simulations of the UCT that it is measured against."""
    bf16: bool = True
    """Multiply in bfloat16 where the machine can."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.games % max(self.together, 1):
            raise VolitionError(
                f"workers is {self.workers}, games {self.games}: 0 or more, and so often {self.together}"
            )
        for name in (
            "together",
            "blocks",
            "channels",
            "simulations",
            "considered",
            "updates",
            "games",
            "steps",
            "batch",
            "window",
        ):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.share <= 1 or self.noise <= 0:
            raise VolitionError(f"share is {self.share}, noise {self.noise}; they must be 0 to 1, and more than 0")

    @property
    def board(self) -> Board:
        """The game and how it is seen."""
        return board(self.game, self.size)


VARIANTS = {
    "tiny": Config(
        game="tictactoe", blocks=1, channels=8, simulations=8, updates=3, games=8, together=4, steps=2, batch=32
    ),
    "laptop": Config(),
    "connect4-puct": Config(root="puct"),
    "tictactoe": Config(game="tictactoe", considered=9, blocks=2, updates=60, explore=4),
    "go5": Config(game="go", considered=16, blocks=4, channels=48, explore=10),
}
PAPER = {
    "metric": "won",
    "unit": "%",
    "better": "higher",
    "baselines": ("won_untrained", "won_search"),
    "data": "",
    "source": "Silver 2018",
    "rows": {},
}


class Memory:
    """The newest positions `[W]`: planes as bits, policies, who won for the side to move."""

    def __init__(self, of: Board, window: int) -> None:
        self.shape, self.window = (of.planes, of.height, of.width), window
        self.seen = np.zeros((0, -(-int(np.prod(self.shape)) // 8)), np.uint8)
        self.policy, self.won = np.zeros((0, of.game.actions), np.float32), np.zeros(0, np.float32)

    def add(self, planes: np.ndarray, policy: np.ndarray, won: np.ndarray) -> None:
        """Positions `[K]`; the oldest are forgotten."""
        bits = np.packbits(planes.reshape(len(planes), -1), axis=1)
        self.seen = np.concatenate([self.seen, bits])[-self.window :]
        self.policy = np.concatenate([self.policy, policy])[-self.window :]
        self.won = np.concatenate([self.won, won])[-self.window :]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Planes, policies and who won of `count` positions."""
        index = rng.integers(len(self.won), size=count)
        bits = np.unpackbits(self.seen[index], axis=1, count=int(np.prod(self.shape)))
        return bits.reshape(count, *self.shape), self.policy[index], self.won[index]

    def state_dict(self) -> dict[str, Tensor]:
        """All."""
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in ("seen", "policy", "won")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.seen, self.policy, self.won = (state[name].numpy() for name in ("seen", "policy", "won"))


def train(config: Config, run: Run | None = None) -> nn.Module:
    """Play, remember, learn, again and again."""
    run = run or Run()
    of = config.board
    net: Any = Net(of, config.blocks, config.channels).to(run.device)
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=config.weight_decay, fused=True)
    memory = Memory(of, config.window)
    run.track(net=net, optimizer=optimizer, memory=memory)
    bf16 = config.bf16 and multiplies_bf16(run.device)
    with actors(partial(games_of, replace(config, workers=0), str(run.device)), config.workers) as play:
        for update in run.loop(config.updates):
            rng = np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator, device=run.device)))
            lessons = play(net.state_dict(), seeds(rng, config.games // config.together))
            for planes, policy, won, _ in lessons:
                memory.add(planes, policy, won)
            moves = float(np.mean([lesson[3] for lesson in lessons]))
            for group in optimizer.param_groups:
                group["lr"] = cosine(update, config.lr, 0.0, config.updates)
            for _ in range(config.steps):
                seen, policy, won = memory.draw(config.batch, rng)
                codes = rng.choice(of.codes, size=config.batch)
                inputs = torch.from_numpy(of.turned(seen, codes)).to(run.device).float()
                targets = torch.from_numpy(of.moved(policy, codes)).to(run.device)
                with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
                    logits, value = net(inputs.contiguous(memory_format=torch.channels_last))
                policy_loss = -(targets * logits.log_softmax(-1)).sum(-1).mean()
                value_loss = (value - torch.from_numpy(won).to(run.device)).square().mean()
                optimizer.zero_grad(set_to_none=True)
                (policy_loss + value_loss).backward()
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
            run.log(update, policy=policy_loss, value=value_loss, moves=moves, positions=float(len(memory.won)))
    return net


def games_of(
    config: Config, device: str, weights: Weights, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """What the network with these weights learns from games of this seed."""
    of, rng = config.board, np.random.default_rng(seed)
    net = Net(of, config.blocks, config.channels)
    net.load_state_dict(weights)
    return self_play(config, of, Eye(of, frozen(net.to(device), config.bf16), rng), rng)


def self_play(
    config: Config, of: Board, eye: Eye, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Games to their end, each move by a search of its own: planes, policies, who won, and moves of a game."""
    game = of.game
    positions = game.start(config.together)
    forest = Forest(game, positions, Search(config.simulations, batch=1), eye)
    planes, policies, alive, length = [], [], [], np.zeros(config.together, np.int64)
    while (going := np.isnan(game.outcome(forest.roots))).any():
        if config.root == "gumbel":
            actions, policy = gumbel(forest, config.simulations, config.considered, rng)
        else:
            dirichlet(forest, config.noise, config.share, rng)
            forest.run()
            visits = forest.visits()
            policy = visits / np.maximum(visits.sum(1, keepdims=True), 1)
            drawn = (np.log(np.maximum(policy, 1e-30)) + rng.gumbel(size=policy.shape)).argmax(1)
            actions = np.where(length < config.explore, drawn, visits.argmax(1))
        planes.append(of.look(forest.roots))
        policies.append(policy.astype(np.float32))
        alive.append(going)
        length += going
        game.play(forest.roots, actions)
        forest.restart(forest.roots)
    # a position of ply t in a game of T moves: the side to move at the end is its own where T − t is even
    ends, plies = game.outcome(forest.roots), np.arange(len(alive))[:, None]
    won = np.where((length - plies) % 2 == 0, ends, -ends).astype(np.float32)
    kept = np.stack(alive)
    return np.stack(planes)[kept], np.stack(policies)[kept], won[kept], float(length.mean())


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float]:
    """Games won of UCT with random games, in %: by the trained search, untrained, and by the same UCT; perfect play."""
    of, rng = config.board, np.random.default_rng(run.seed)
    net = Net(of, config.blocks, config.channels).to(run.device)
    search = Search(config.simulations)
    players = {"won_untrained": Searcher(search, Eye(of, frozen(net, config.bf16), rng))}
    run.track(net=net)
    eye = Eye(of, frozen(net, config.bf16), rng)
    players |= {"won": Searcher(search, eye), "won_alone": Searcher(Search(1), eye)}
    players["won_search"] = uct(of, config.simulations)
    openings = np.array([random_opening(of.game, rng) for _ in range(MATCH // 2)]).repeat(2, 0)
    found = {
        name: 100 * match(of.game, player, uct(of, config.opponent), openings) / MATCH
        for name, player in players.items()
    }
    if config.game == "tictactoe":
        found |= {f"perfect_{name}": perfect(of, config.simulations, player) for name, player in
                  (("network", eye), ("untrained", players["won_untrained"].evaluate))}  # fmt: skip
    return found


def uct(of: Board, simulations: int) -> Searcher:
    """A search without a network, by random games: what it is measured against."""
    games = RandomGames if isinstance(of.game, Go) else LineGames
    return Searcher(Search(simulations, lam=1.0), even(of.game.actions), games)


def random_opening(game: Any, rng: np.random.Generator) -> list[int]:
    """Random legal moves."""
    positions, moves = game.start(1), []
    for _ in range(OPENING):
        moves.append(int(rng.choice(np.flatnonzero(game.legal(positions)[0]))))
        game.play(positions, np.array(moves[-1:]))
    return moves


def perfect(of: Board, simulations: int, evaluate: Any) -> float:
    """Share in % of all positions of a small game in which the search's move keeps what perfect play would have."""
    positions, values, after = solve(of.game)
    forest = Forest(of.game, positions, Search(simulations), evaluate)
    forest.run()
    best = forest.visits().argmax(1)
    return 100 * float((after[np.arange(len(best)), best] == values).mean())


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """A game against itself, move by move, as text."""
    of, rng = config.board, np.random.default_rng(run.seed)
    net = Net(of, config.blocks, config.channels).to(run.device)
    run.track(net=net)
    forest = Forest(of.game, of.game.start(1), Search(config.simulations), Eye(of, frozen(net, config.bf16), rng))
    lines, number = [], 0
    while np.isnan(of.game.outcome(forest.roots)[0]):
        forest.run()
        visits, values = forest.visits()[0], forest.values()[0]
        best = int(visits.argmax())
        number += 1
        lines.append(
            f"{number:3} action {best:3}   value {values[best]:+.2f}   visits {visits[best]} of {visits.sum()}"
        )
        forest.play(np.array([best]))
    lines.append(f"for the side to move: {of.game.outcome(forest.roots)[0]:+.0f}")
    path = run.path("game.txt")
    path.write_text("\n".join(lines) + "\n")
    return [path]
