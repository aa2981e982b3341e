"""AlphaGo: imitate experts, improve by playing oneself, learn who wins, and search with all of it.

Silver et al. (2016), "Mastering the game of Go with deep neural networks and tree search".

state    a position of Go as planes of N×N: stones, liberties, the last moves
action   a point of the board, or a pass
reward   1 for a game won, −1 for one lost, at its end
stages   1 supervised: p_σ imitates the moves of experts
         2 rollout: p_π, a linear softmax over small patterns, imitates them a thousand times faster
         3 reinforce: p_ρ begins as p_σ and plays against its earlier selves
         4 games: p_σ begins a game, one move is random, p_ρ ends it
         5 value: v_θ learns from one position of each of these games who won it
search   Q + u with p_σ as priors, v_θ and rollouts of p_π as values (`core.search`)
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.applications._actors import actors, seeds
from volition.applications._go_lessons import OwnGames, accuracy, examples, expert_moves, experts, value_error
from volition.applications._go_lots import LOT, Table, both, duels, first_moves, relays, won_by_first
from volition.applications._go_net import Judge, Pool, frozen, make_net
from volition.applications._go_picture import draw_boards
from volition.applications._go_settings import Reinforce, Rollout, Supervised, Value
from volition.applications._go_training import begin, descend, dice, draw, look, slow, squared_error
from volition.core.losses import policy_gradient
from volition.core.search import Forest, Search
from volition.envs.go_game import Go
from volition.envs.go_planes import turn
from volition.envs.go_replay import Moves
from volition.envs.go_rollout import RolloutPolicy
from volition.envs.go_selfplay import open_moves
from volition.errors import VolitionError
from volition.run import Run
from volition.stage import Stage

WATCHED = 200  # simulations a move of the game that `watch` draws
STAGES = ("supervised", "rollout", "reinforce", "games", "value")
MEASURED = 50_000  # moves at most that accuracy is measured on
MATCH = 400  # games between p_ρ and p_σ when measuring
PART = 512  # positions of a self-play gradient in memory at a time


@dataclass(frozen=True)
class Config:
    games: str = ""
    """SGF file, archive or folder of expert games; else those of the data folder, OGS's on 9×9, KGS's on 19×19."""
    size: int = 9
    """Side of the board."""
    komi: float = 7.0
    """Points for white in its own games."""
    blocks: int = 6
    """Residual blocks of two 3×3 convolutions."""
    channels: int = 64
    """Channels of each."""
    layers: int = 0
    """Layers of the paper's plain networks, policy and value apart (13 there); 0 is one residual network with both."""
    stages: int = 5
    """Stages to go through; 1 or 2 imitate only, and the value is that of experts' games."""
    supervised: Supervised = field(default_factory=Supervised)
    """Stage 1."""
    rollout: Rollout = field(default_factory=Rollout)
    """Stage 2."""
    reinforce: Reinforce = field(default_factory=Reinforce)
    """Stage 3."""
    value: Value = field(default_factory=Value)
    """Stages 4 and 5."""
    made: int = 300
    """Games that UCT plays against itself where there are none to imitate …"""
    made_simulations: int = 200
    """… with so many simulations a move."""
    held: float = 0.05
    """Share of the experts' games kept aside for validation, and as much for the test."""
    workers: int = 0
    """Processes that play the games of stages 3 and 4, 0 is this one alone; the games are the same."""
    bf16: bool = True
    """Multiply in bfloat16 where the machine can."""

    def __post_init__(self) -> None:
        counts = {
            "blocks": self.blocks,
            "channels": self.channels,
            "supervised.updates": self.supervised.updates,
            "supervised.batch": self.supervised.batch,
            "rollout.updates": self.rollout.updates,
            "rollout.positions": self.rollout.positions,
            "reinforce.updates": self.reinforce.updates,
            "reinforce.pool": self.reinforce.pool,
            "value.games": self.value.games,
            "value.together": self.value.together,
            "value.updates": self.value.updates,
            "value.batch": self.value.batch,
        }
        for name, count in counts.items():
            if count < 1:
                raise VolitionError(f"{name} is {count}; it must be 1 or more")
        if self.reinforce.games < 2 or self.reinforce.games % 2:
            raise VolitionError(f"reinforce.games is {self.reinforce.games}; it must be even, half for either colour")
        for name, count in {"reinforce.games": self.reinforce.games, "value.together": self.value.together}.items():
            if count > LOT and count % LOT:
                raise VolitionError(f"{name} is {count}; it must be at most {LOT} or a multiple of that")
        if not 1 <= self.stages <= len(STAGES):
            raise VolitionError(f"stages is {self.stages}; it must be 1 to {len(STAGES)}")
        if self.workers < 0:
            raise VolitionError(f"workers is {self.workers}; it must be 0 or more")
        if self.layers and self.layers < 3:
            raise VolitionError(f"layers is {self.layers}; the plain networks have 3 or more, 0 is the residual one")
        if not 0 < self.value.latest <= 3:
            raise VolitionError(f"value.latest is {self.value.latest}; it must be more than 0 and at most 3")
        for name, share in {"held": self.held, "value.held": self.value.held}.items():
            if not 0 < share < 0.5:
                raise VolitionError(f"{name} is {share}; it must be more than 0 and less than 0.5")

    @property
    def rules(self) -> Go:
        """The rules of the games that it plays."""
        return Go(self.size, self.komi)

    @property
    def searched(self) -> str:
        """The stage whose network a search takes: `value`, or `supervised` for runs that end before."""
        return "value" if self.stages == len(STAGES) else "supervised"

    @property
    def net(self) -> dict[str, int]:
        """What `make_net` asks for."""
        return {"size": self.size, "blocks": self.blocks, "channels": self.channels, "layers": self.layers}


VARIANTS = {
    "tiny": Config(
        size=5,
        blocks=1,
        channels=8,
        supervised=Supervised(updates=20, batch=32),
        rollout=Rollout(updates=2, positions=512),
        reinforce=Reinforce(updates=4, games=8, pool=2),
        value=Value(games=64, together=32, updates=10, batch=32),
        made=60,
        made_simulations=30,
        held=0.1,
    ),
    "laptop": Config(),
    "kgs": Config(
        size=19,
        komi=7.5,
        blocks=4,
        stages=2,
        supervised=Supervised(updates=3_000, batch=128),
        rollout=Rollout(updates=60),
    ),
    "paper": Config(
        size=19,
        komi=7.5,
        channels=192,
        layers=13,
        supervised=Supervised(updates=340_000_000, batch=16, lr=3e-3, rank=6, weight_decay=0.0),
        rollout=Rollout(updates=1_954),
        reinforce=Reinforce(updates=10_000, pool=500),
        value=Value(games=30_000_000, together=1_024, latest=1.25, updates=50_000_000, batch=32, lr=3e-3, policy=0.0),
    ),
}
PAPER = {
    "metric": "top1",
    "unit": "%",
    "better": "higher",
    "baselines": ("top1_untrained",),
    "data": "KGS",
    "source": "Silver 2016, extended data table 3",
    "rows": {"paper": 55.4},
}


def train(config: Config, run: Run | None = None) -> nn.Module:
    """The stages in order; the network to search with, policy p_σ and the last value."""
    run = run or Run()
    games, rank = experts(config.games, config.rules, config.supervised.rank, config.made, config.made_simulations, run)
    moves = expert_moves(games, rank, config.held)["train"]
    sigma = imitate(config, Stage(run, "supervised", 0), moves)
    first = config.supervised.updates
    if config.stages >= 2:
        imitate_fast(config, Stage(run, "rollout", first), moves)
    first += config.rollout.updates
    if config.stages < 3:
        return sigma
    rho = reinforce(config, Stage(run, "reinforce", first), sigma)
    first += config.reinforce.updates
    if config.stages < 4:
        return sigma
    own = play(config, Stage(run, "games", first), sigma, rho)
    first += chunks(config)
    if config.stages < 5:
        return sigma
    lessons, _ = own.positions(config.value.held, config.value.whole)
    return learn_value(config, Stage(run, "value", first), sigma, moves, lessons)


def imitate(config: Config, run: Stage, moves: Moves) -> nn.Module:
    """Stage 1: maximise log p_σ(a|s) of the experts' moves, and learn who won. (Silver 2016, equation 1)"""
    stage = config.supervised
    net, optimizer = begin(make_net(**config.net), run, stage.weight_decay)
    for update in run.loop(stage.updates):
        slow(optimizer, update, stage.lr, stage.updates)
        planes, action, won = draw(moves, stage.batch, run)
        logits, value = look(net, planes, config.bf16)
        policy_loss, value_loss = F.cross_entropy(logits, action), squared_error(value, won)
        right = 100 * (logits.argmax(-1) == action).float().mean()
        run.log(update, policy=policy_loss, value=value_loss, top1=right)
        descend(net, optimizer, policy_loss + stage.value * value_loss, stage.clip)
    return net


def imitate_fast(config: Config, run: Stage, moves: Moves) -> RolloutPolicy:
    """Stage 2: the same for p_π, each move drawn about once a pass."""
    policy = RolloutPolicy()
    run.track(policy=policy)
    for update in run.loop(config.rollout.updates):
        index = torch.randint(len(moves), (config.rollout.positions,), generator=run.generator, device=run.device)
        positions, action = moves.positions(index.cpu().numpy())
        run.log(update, log_likelihood=policy.fit(positions, action, lr=config.rollout.lr))
    return policy


def reinforce(config: Config, run: Stage, sigma: nn.Module) -> nn.Module:
    """Stage 3: Δρ ∝ Σ_t ∂log p_ρ(a_t|s_t)/∂ρ · (z_t − v(s_t)), against a pool of earlier selves. (Silver 2016, methods)

    The baseline v is the network's own value head, which learns from the same games.
    """
    stage, rules = config.reinforce, config.rules
    net, optimizer = begin(make_net(**config.net), run, 0.0, sigma)
    pool, foe = Pool(sigma), make_net(**config.net)
    run.track(pool=pool)
    table = table_of(config, run, stage.games)
    with actors(partial(duels, table, stage.temperature), config.workers) as play:
        for update in run.loop(stage.updates):
            rng = dice(run)
            foe.load_state_dict(pool.draw(rng))
            lots = play(both(net, foe), seeds(rng, stage.games // table.games))
            lessons = [first_moves(games, rules) for games in lots]
            count = sum(map(len, lessons))
            optimizer.zero_grad(set_to_none=True)
            losses = torch.stack([backward(config, net, moves, rng) for moves in lessons]).sum(0) / count
            for p in net.parameters():
                p.grad /= count
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            slow(optimizer, update, stage.lr, stage.updates, warm_up=10)
            optimizer.step()
            length = sum(len(games.moves) for games in lots) / stage.games
            won_share = float(np.mean([won_by_first(games) for games in lots]))
            run.log(update, policy=losses[0], value=losses[1], won=won_share, moves=length)
            if (update + 1) % stage.pool == 0:
                pool.add(net)
    return net


def backward(config: Config, net: nn.Module, moves: Moves, rng: np.random.Generator) -> Tensor:
    """Add the gradients of −Σ log p_ρ(a_t|s_t)·(z_t − v(s_t)) and of the weighed Σ (z_t − v(s_t))²; both sums `[2]`."""
    stage, device = config.reinforce, next(net.parameters()).device
    sums = torch.zeros(2, device=device)
    for part in np.array_split(np.arange(len(moves)), len(moves) // PART + 1):
        turned = rng.integers(8, size=len(part))
        planes, action, won = examples(moves, part, turned, device)
        logits, value = look(net, planes, config.bf16)
        allowed = turn(open_moves(config.rules, moves.positions(part)[0]), turned, config.size)
        logits = logits.masked_fill(~torch.from_numpy(allowed).to(device), -torch.inf) / stage.temperature
        log_prob = logits.log_softmax(-1).gather(1, action[:, None])[:, 0]
        policy_loss = policy_gradient(log_prob, won - value.detach()).sum()
        value_loss = squared_error(value, won) * len(part)
        (policy_loss + stage.value * value_loss).backward()
        sums += torch.stack([policy_loss, value_loss]).detach()
    return sums


def chunks(config: Config) -> int:
    """Updates of stage 4."""
    return -(-config.value.games // config.value.together)


def play(config: Config, run: Stage, sigma: nn.Module, rho: nn.Module) -> OwnGames:
    """Stage 4: p_σ plays moves 1 … U − 1, U is random, p_ρ plays on; U ~ unif{1 … latest}. (Silver 2016, methods)"""
    stage = config.value
    own = OwnGames(config.rules)
    run.track(games=own)
    table = table_of(config, run, stage.together)
    latest = max(1, round(stage.latest * config.size**2))
    with actors(partial(relays, table, latest), config.workers) as play_lots:
        for update in run.loop(chunks(config)):
            lots = play_lots(both(sigma, rho), seeds(dice(run), stage.together // table.games))
            for games, ply in lots:
                own.add(games, ply)
            length = sum(len(games.moves) for games, _ in lots) / stage.together
            run.log(update, moves=length, black=50 + 50 * float(np.mean([games.winner for games, _ in lots])))
    return own


def table_of(config: Config, run: Stage, games: int) -> Table:
    """Where lots of so many games in all are played."""
    return Table(config.rules, config.net, config.bf16, str(run.device), min(games, LOT))


def learn_value(config: Config, run: Stage, sigma: nn.Module, experts: Moves | None, lessons: Moves) -> nn.Module:
    """Stage 5: minimise (z − v_θ(s))² over positions of different games. (Silver 2016, equation 3)"""
    stage = config.value
    net, optimizer = begin(make_net(**config.net), run, config.supervised.weight_decay, sigma)
    for update in run.loop(stage.updates):
        slow(optimizer, update, stage.lr, stage.updates)
        planes, _, won = draw(lessons, stage.batch, run)
        if stage.policy and experts is not None:
            more, action, _ = draw(experts, stage.batch, run)
            logits, value = look(net, torch.cat([planes, more]), config.bf16)
            policy_loss, value = F.cross_entropy(logits[stage.batch :], action), value[: stage.batch]
        else:
            policy_loss, (_, value) = torch.zeros((), device=run.device), look(net, planes, config.bf16)
        value_loss = squared_error(value, won)
        run.log(update, policy=policy_loss, value=value_loss)
        descend(net, optimizer, stage.policy * policy_loss + value_loss, config.supervised.clip)
    return net


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float]:
    """Accuracy of p_σ and p_π on experts' test games, games p_ρ won of p_σ, v_θ's error on games kept aside."""
    games, rank = experts(config.games, config.rules, config.supervised.rank, config.made, config.made_simulations, run)
    moves = expert_moves(games, rank, config.held)["test"]
    fresh = Judge(frozen(make_net(**config.net), config.bf16), config.size, seed=None)
    sigma = trained(run, "supervised")
    imitator = Judge(frozen(sigma, config.bf16), config.size, seed=None)
    found = accuracy(imitator, moves, MEASURED) | {"top1_untrained": accuracy(fresh, moves, 20_000)["top1"]}
    eight = Judge(frozen(sigma, config.bf16), config.size, ensemble=True)
    found |= {"top1_eight": accuracy(eight, moves, 20_000)["top1"], "moves": float(min(len(moves), MEASURED))}

    if config.stages < 2:
        return found
    policy = rollout_policy(run)
    positions, action = moves.positions(np.arange(min(len(moves), 20_000)))
    found["top1_rollout"] = 100 * float((policy.probabilities(positions).argmax(1) == action).mean())

    if config.stages < 3:
        return found
    table = Table(config.rules, config.net, config.bf16, str(run.device), MATCH)
    found["reinforce_won"] = won_by_first(duels(table, 1.0, both(trained(run, "reinforce"), sigma), run.seed))

    if config.stages < 5:
        return found
    final = trained(run, "value")
    own = OwnGames(config.rules)
    Stage(run, "games", 0).track(games=own)
    for what, net in (("own", final), ("own_supervised", sigma)):
        judge = Judge(frozen(net, config.bf16), config.size, seed=None)
        for split, lessons in zip(("train", "test"), own.positions(config.value.held), strict=True):
            if len(lessons) and (what == "own" or split == "test"):
                index = np.arange(min(len(lessons), 20_000))
                error = value_error(judge(lessons.positions(index)[0])[1], lessons.outcome(index))
                found |= {f"{what}_{key}_{split}": x for key, x in error.items()}
    later = Judge(frozen(final, config.bf16), config.size, seed=None)
    return found | {"top1_final": accuracy(later, moves, 20_000)["top1"]}


def trained(run: Run, stage: str = "") -> nn.Module:
    """The network of a stage of a run opened for looking: `supervised`, `reinforce`, `value`, or that of the search."""
    stage = stage or run.config.searched
    _passed(run, stage)
    net = make_net(**run.config.net).to(run.device)
    Stage(run, stage, 0).track(net=net)
    return net


def rollout_policy(run: Run) -> RolloutPolicy:
    """p_π of a run opened for looking."""
    _passed(run, "rollout")
    policy = RolloutPolicy()
    Stage(run, "rollout", 0).track(policy=policy)
    return policy


def _passed(run: Run, stage: str) -> None:
    """A VolitionError where a run ended before a stage."""
    if STAGES.index(stage) >= run.config.stages:
        raise VolitionError(f"{run.folder} has no {stage}: it ends with stage {run.config.stages}, see --stages")


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
