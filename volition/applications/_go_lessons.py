"""What AlphaGo's networks learn from: moves of experts, and positions of its own games with who won them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from volition.applications._go_net import Judge, batch_of
from volition.data import catalog, go_games
from volition.data.go_games import Games
from volition.envs.go_builtin import uct_games
from volition.envs.go_game import Go
from volition.envs.go_planes import symmetries
from volition.envs.go_replay import Moves, replay
from volition.envs.go_selfplay import record
from volition.run import Run

DATA_SETS = {9: "ogs9_dan", 19: "kgs19"}  # by the board's size
CHUNK = 1_024  # positions per call when measuring


def experts(path: str, rules: Go, rank: int, made: int, simulations: int, run: Run) -> tuple[Games, int]:
    """Games to imitate and from which rank on: one's own, those of the data folder, or what UCT plays by itself."""
    files, name = [Path(path)], DATA_SETS.get(rules.size, "")
    if not path:
        files = list(catalog.find(name, run.data).values()) if name else []
        if not files:
            run.dataset = "games of UCT"
            return uct_games(rules, made, simulations), -99
    run.dataset = files[0].name if len(files) == 1 else name
    return go_games.load(files, rules.size, min_moves=10), rank


def expert_moves(games: Games, rank: int, held: float) -> dict[str, Moves]:
    """Moves of players from `rank` on, by split; each game is in one split only."""
    # under simple ko, for servers differ in what they forbid
    moves = replay(games, Go(games.size, ko="simple"))
    ranks = np.where(moves.whose == 1, games.black_rank[moves.game], games.white_rank[moves.game])
    good = (ranks >= rank) & ((ranks != 0) | (rank <= -99))
    found = {}
    for name, part in zip(("train", "validation", "test"), go_games.split(games, held, held), strict=True):
        inside = np.zeros(len(games), np.bool_)
        inside[part] = True
        found[name] = moves.take(np.flatnonzero(good & inside[moves.game]))
    return found


def examples(
    moves: Moves, index: np.ndarray, turned: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes `[K, C, N, N]`, actions `[K]` and who won `[K]` of moves on boards turned `[K]`."""
    positions, action = moves.positions(index)
    planes = batch_of(positions, turned, device)
    action = symmetries(moves.rules.size)[turned, action]
    won = torch.from_numpy(moves.outcome(index))
    return planes, torch.from_numpy(action).to(device), won.to(device)


def accuracy(judge: Judge, moves: Moves, most: int = 10**9) -> dict[str, float]:
    """In %: how often the expert's move is the most probable (top1) or among five; the value's mean squared error."""
    hits, five, count = 0, 0, 0
    index = np.arange(len(moves))
    if len(index) > most:
        index = np.random.default_rng(0).permutation(index)[:most]
    values = np.empty(len(index), np.float32)
    for part in np.array_split(np.arange(len(index)), max(1, len(index) // CHUNK)):
        positions, action = moves.positions(index[part])
        logits, values[part] = judge(positions)
        best = np.argsort(-logits, axis=1)[:, :5]
        hits += (best[:, 0] == action).sum()
        five += (best == action[:, None]).any(1).sum()
        count += len(part)
    return {"top1": 100 * hits / count, "top5": 100 * five / count} | value_error(values, moves.outcome(index))


def value_error(values: np.ndarray, won: np.ndarray) -> dict[str, float]:
    """Mean squared error of values `[K]` of who won `[K]` (nan: not known), and of the best constant."""
    known = np.isfinite(won)
    if not known.any():
        return {"value_mse": float("nan"), "value_mse_constant": float("nan")}
    won = won[known]
    return {
        "value_mse": float(np.square(values[known] - won).mean()),
        "value_mse_constant": float(np.square(won.mean() - won).mean()),
    }


class OwnGames:
    """Games that were played for the value network, and after which move each of them is looked at."""

    def __init__(self, rules: Go) -> None:
        self.rules = rules
        self.moves, self.length = np.zeros((0, rules.moves), np.uint16), np.zeros(0, np.int64)
        self.winner, self.ply = np.zeros(0, np.int8), np.zeros(0, np.int64)

    def add(self, games: Games, ply: np.ndarray) -> None:
        """More games; those that ended by `ply` `[G]` are left out."""
        length = np.diff(games.start)
        padded = np.zeros((len(length), self.rules.moves), np.uint16)
        padded[np.arange(self.rules.moves) < length[:, None]] = games.moves
        kept = ply < length
        self.moves, self.length = np.concatenate([self.moves, padded[kept]]), np.append(self.length, length[kept])
        self.winner, self.ply = np.append(self.winner, games.winner[kept]), np.append(self.ply, ply[kept])

    def positions(self, held: float, whole: bool = False) -> tuple[Moves, Moves]:
        """One position of each game, or with `whole` all from that on: to learn from, and of the share held back."""
        moves = replay(record(self.rules, self.moves, self.length, self.winner), self.rules)
        chosen = moves.ply >= self.ply[moves.game] if whole else moves.ply == self.ply[moves.game]
        last = moves.game >= round(len(self.length) * (1 - held))
        return moves.take(np.flatnonzero(chosen & ~last)), moves.take(np.flatnonzero(chosen & last))

    def state_dict(self) -> dict[str, Tensor]:
        """All games."""
        used = np.arange(self.rules.moves) < self.length[:, None]
        flat = self.moves[used].astype(np.int16)
        rest = {"length": self.length, "winner": self.winner, "ply": self.ply}
        return {name: torch.from_numpy(array) for name, array in ({"moves": flat} | rest).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.length, self.winner, self.ply = (state[name].numpy() for name in ("length", "winner", "ply"))
        self.moves = np.zeros((len(self.length), self.rules.moves), np.uint16)
        self.moves[np.arange(self.rules.moves) < self.length[:, None]] = state["moves"].numpy()
