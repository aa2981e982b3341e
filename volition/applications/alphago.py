"""AlphaGo: imitate experts, improve by playing oneself, learn who wins, and search with all of it.

Silver et al. (2016), "Mastering the game of Go with deep neural networks and tree search".

state    a position of Go as planes of N×N: stones, liberties, the last moves
action   a point of the board, or a pass
reward   1 for a game won, −1 for one lost, at its end
stages   1 supervised: p_σ imitates the moves of experts
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.applications._go_net import Judge, batch_of, frozen, make_net
from volition.applications._go_picture import draw_boards
from volition.core.schedules import cosine
from volition.core.search import Forest, Search
from volition.data import catalog, go_games
from volition.envs.go_builtin import uct_games
from volition.envs.go_game import Go
from volition.envs.go_planes import symmetries
from volition.envs.go_replay import Moves, replay
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.nets.board import PolicyValue
from volition.run import Run

WARM_UP = 200  # updates until the learning rate is whole
OGS = "ogs9_dan"
WATCHED = 200  # simulations a move of the game that `watch` draws
CHUNK = 1_024  # positions per call when measuring


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
class Config:
    games: str = ""
    """SGF file, archive or folder of expert games; else the OGS games of the data folder."""
    size: int = 9
    """Side of the board."""
    komi: float = 7.0
    """Points for white in its own games."""
    blocks: int = 6
    """Residual blocks of two 3×3 convolutions."""
    channels: int = 64
    """Channels of each."""
    supervised: Supervised = field(default_factory=Supervised)
    """Stage 1."""
    made: int = 300
    """Games that UCT plays against itself where there are none to imitate …"""
    made_simulations: int = 200
    """… with so many simulations a move."""
    held: float = 0.05
    """Share of the games kept aside for validation, and as much for the test."""
    bf16: bool = True
    """Multiply in bfloat16 where the machine can."""

    def __post_init__(self) -> None:
        if min(self.blocks, self.channels, self.supervised.updates, self.supervised.batch) < 1:
            raise VolitionError("blocks, channels, supervised.updates and supervised.batch must be 1 or more")
        if not 0 < self.held < 0.5:
            raise VolitionError(f"held is {self.held}; it must be more than 0 and less than 0.5")

    @property
    def rules(self) -> Go:
        """The rules of the games that it plays."""
        return Go(self.size, self.komi)


VARIANTS = {
    "tiny": Config(
        size=5,
        blocks=1,
        channels=8,
        supervised=Supervised(updates=20, batch=32),
        made=60,
        made_simulations=30,
        held=0.1,
    ),
    "laptop": Config(),
}
PAPER = {
    "metric": "top1",
    "unit": "%",
    "better": "higher",
    "baselines": ("top1_untrained",),
    "data": "KGS",
    "source": "Silver 2016, extended data table 3",
    "rows": {},
}


def experts(config: Config, run: Run) -> tuple[go_games.Games, int]:
    """Games to imitate and from which rank on: one's own, those of the data folder, or what UCT plays by itself."""
    path = Path(config.games)
    if not config.games:
        found = catalog.find(OGS, run.data) if config.size == 9 else {}
        if not found:
            run.dataset = "games of UCT"
            return uct_games(config.rules, config.made, config.made_simulations), -99
        (path,) = found.values()
    run.dataset = path.name
    return go_games.load(path, config.size, min_moves=10), config.supervised.rank


def expert_moves(config: Config, run: Run) -> dict[str, Moves]:
    """Moves to learn from by split; each game is in one split only."""
    games, rank = experts(config, run)
    # under simple ko, for servers differ in what they forbid
    moves = replay(games, Go(config.size, ko="simple"))
    ranks = np.where(moves.whose == 1, games.black_rank[moves.game], games.white_rank[moves.game])
    good = (ranks >= rank) & ((ranks != 0) | (rank <= -99))
    parts = go_games.split(games, config.held, config.held)
    found = {}
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        inside = np.zeros(len(games), np.bool_)
        inside[part] = True
        found[name] = moves.take(np.flatnonzero(good & inside[moves.game]))
    return found


def train(config: Config, run: Run | None = None) -> PolicyValue:
    """All stages in order."""
    run = run or Run()
    moves = expert_moves(config, run)
    net: Any = make_net(config.blocks, config.channels).to(run.device)
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=config.supervised.weight_decay, fused=True)
    run.track(net=net, optimizer=optimizer)
    imitate(config, run, net, optimizer, moves["train"])
    return net


def imitate(config: Config, run: Run, net: PolicyValue, optimizer: torch.optim.Optimizer, moves: Moves) -> None:
    """Stage 1: maximise log p_σ(a|s) of the experts' moves, and learn who won. (Silver 2016, equation 1)"""
    stage = config.supervised
    bf16 = config.bf16 and multiplies_bf16(run.device)
    for update in run.loop(stage.updates):
        lr = cosine(update, stage.lr, 0.0, stage.updates) * min(1.0, (update + 1) / WARM_UP)
        for group in optimizer.param_groups:
            group["lr"] = lr
        index = torch.randint(len(moves), (stage.batch,), generator=run.generator, device=run.device).cpu().numpy()
        turned = torch.randint(8, (stage.batch,), generator=run.generator, device=run.device).cpu().numpy()
        planes, action, won = examples(moves, index, turned, run.device)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
            logits, value = net(planes.contiguous(memory_format=torch.channels_last))
        policy_loss = F.cross_entropy(logits, action)
        known = ~won.isnan()
        value_loss = ((value - won.nan_to_num()).square() * known).sum() / known.sum().clamp(min=1)
        right = 100 * (logits.argmax(-1) == action).float().mean()
        run.log(update, policy=policy_loss, value=value_loss, top1=right)
        optimizer.zero_grad(set_to_none=True)
        (policy_loss + stage.value * value_loss).backward()
        nn.utils.clip_grad_norm_(net.parameters(), stage.clip)
        optimizer.step()


def examples(
    moves: Moves, index: np.ndarray, turned: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes `[K, C, N, N]`, actions `[K]` and who won `[K]` of moves on boards turned `[K]`."""
    positions, action = moves.positions(index)
    planes = batch_of(positions, turned, device)
    action = symmetries(moves.rules.size)[turned, action]
    won = torch.from_numpy(moves.outcome(index))
    return planes, torch.from_numpy(action).to(device), won.to(device)


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float]:
    """Accuracy on moves of games kept aside, with one look and with eight symmetries, and the error of the value."""
    net = make_net(config.blocks, config.channels).to(run.device)
    moves = expert_moves(config, run)["test"]
    fresh = accuracy(Judge(frozen(net, config.bf16), config.size, seed=None), moves, 20_000)
    run.track(net=net)
    judge = Judge(frozen(net, config.bf16), config.size, seed=None)
    found = accuracy(judge, moves)
    judge.ensemble = True
    eight = accuracy(judge, moves, 20_000)
    return found | {"top1_eight": eight["top1"], "top1_untrained": fresh["top1"], "moves": float(len(moves))}


def accuracy(judge: Judge, moves: Moves, most: int = 10**9) -> dict[str, float]:
    """In %: how often the expert's move is the most probable (top1) or among five; the value's mean squared error."""
    hits, five, error, floor, count = 0, 0, 0.0, 0.0, 0
    index = np.arange(len(moves))
    if len(index) > most:
        index = np.random.default_rng(0).permutation(index)[:most]
    wins = moves.outcome(index)
    mean = np.nanmean(wins) if np.isfinite(wins).any() else 0.0
    for part in np.array_split(index, max(1, len(index) // CHUNK)):
        positions, action = moves.positions(part)
        logits, value = judge(positions)
        best = np.argsort(-logits, axis=1)[:, :5]
        hits += (best[:, 0] == action).sum()
        five += (best == action[:, None]).any(1).sum()
        won = moves.outcome(part)
        error += np.nansum((value - won) ** 2)
        floor += np.nansum((mean - won) ** 2)
        count += np.isfinite(won).sum()
    known = max(count, 1)
    return {
        "top1": 100 * hits / len(index),
        "top5": 100 * five / len(index),
        "value_mse": float(error / known),
        "value_mse_constant": float(floor / known),
    }


def trained(run: Run) -> PolicyValue:
    """The network of a run opened for looking."""
    net = make_net(run.config.blocks, run.config.channels).to(run.device)
    run.track(net=net)
    return net


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """A game that the network plays against itself with a search, at five of its moves."""
    net = trained(run)
    rules = config.rules
    forest = Forest(rules, rules.start(1), Search(WATCHED), Judge(frozen(net, config.bf16), config.size))
    shown = []
    while not rules.over(forest.roots)[0]:
        forest.run()
        visits, values = forest.visits(), forest.values()
        best = visits.argmax(1)
        shown.append((forest.roots.rows.copy(), forest.priors(), visits, values[0, best]))
        forest.play(best)
    chosen = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, 5).astype(int))]
    rows, priors, visits, values = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    return [draw_boards(run.path("game.png"), config.size, rows, priors, visits, values)]
