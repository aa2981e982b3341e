"""What AlphaZero needs to know of a game besides its rules: how a network sees it, and which way round."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volition.core.game import Positions
from volition.envs.go_game import Go
from volition.envs.go_planes import INVERSE, planes, symmetries
from volition.envs.lines import CONNECT_FOUR, TIC_TAC_TOE, Line
from volition.nets.board import PolicyValue

MIRROR = 2  # the symmetry that turns columns round


@dataclass(frozen=True)
class Board:
    """A game, the planes in which it is seen, and the codes of the symmetries that change nothing (`go_planes`)."""

    game: Any
    planes: int
    height: int
    width: int
    codes: tuple[int, ...]

    def look(self, positions: Positions) -> np.ndarray:
        """Planes uint8 `[K, C, H, W]`, seen by the side to move."""
        return planes(positions, 48) if isinstance(self.game, Go) else self.game.planes(positions)

    def turned(self, planes: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Planes `[K, C, H, W]`, each turned by its code `[K]`."""
        found = planes.copy()
        for code in np.unique(codes):
            mine = planes[codes == code]
            mine = mine[:, :, ::-1] if code & 1 else mine
            mine = mine[:, :, :, ::-1] if code & 2 else mine
            found[codes == code] = mine.swapaxes(2, 3) if code & 4 else mine
        return found

    def moved(self, values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Values by action `[K, A]`, turned likewise."""
        back = self._table()[INVERSE[codes]]
        return np.take_along_axis(values, back, 1)

    def _table(self) -> np.ndarray:
        """Where each code brings each action, `[8, A]`."""
        if self.height == self.width:
            return symmetries(self.height)[:, : self.game.actions]
        across = np.arange(self.game.actions)
        return np.stack([across[::-1] if code == MIRROR else across for code in range(8)])


def board(name: str, size: int) -> Board:
    """Tic-tac-toe, Connect Four, or Go on a board of side `size`."""
    if name == "go":
        return Board(Go(size, komi=7.0 if size == 9 else 0.5), 48, size, size, tuple(range(8)))
    game: Line = TIC_TAC_TOE if name == "tictactoe" else CONNECT_FOUR
    return Board(game, 2, game.height, game.width, tuple(range(8)) if name == "tictactoe" else (0, MIRROR))


class Net(nn.Module):
    """The residual network with a logit for each action: points and pass, points, or columns (the mean of theirs)."""

    def __init__(self, of: Board, blocks: int, channels: int) -> None:
        super().__init__()
        self.body = PolicyValue(of.planes, blocks, channels)
        self.actions, self.shape = of.game.actions, (of.height, of.width)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, A]` and value `[B]` of planes `[B, C, H, W]`."""
        logits, value = self.body(seen)
        if self.actions == self.shape[1]:
            return logits[:, :-1].unflatten(1, self.shape).mean(1), value
        return logits[:, : self.actions], value


class Eye:
    """A network as `evaluate` of a search, each position turned at random."""

    def __init__(self, of: Board, net: nn.Module, rng: np.random.Generator) -> None:
        self.board, self.net, self.rng = of, net, rng
        first = next(net.parameters())
        self.device, self.dtype = first.device, first.dtype

    @torch.inference_mode()
    def __call__(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """Logits `[K, A]` and value `[K]`."""
        codes = self.rng.choice(self.board.codes, size=len(positions.rows))
        seen = torch.from_numpy(self.board.turned(self.board.look(positions), codes)).to(self.device, self.dtype)
        logits, value = self.net(seen.contiguous(memory_format=torch.channels_last))
        return self.board.moved(logits.float().cpu().numpy(), INVERSE[codes]), value.float().cpu().numpy()
