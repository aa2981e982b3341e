"""Networks for board games: AlphaGo's plain policy and value networks, and a residual one with both heads.

All read planes `[B, C, N, N]` and give logits `[B, N² + 1]`, the pass last, and the value `[B]` in −1 … 1 for the side
to move.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_PASS = -1e4  # logit of the pass for networks that never learned to: less than any move's, more than nothing


def conv(into: int, out: int, size: int = 3) -> nn.Conv2d:
    """A convolution with zero padding and He's initialisation, which keeps the size of signals through ReLUs."""
    layer = nn.Conv2d(into, out, size, padding=size // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + f(x) with two 3×3 convolutions; the second begins at 0, so that a deep network begins as a shallow one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, N, N]` → the same."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class PolicyValue(nn.Module):
    """A residual trunk with a policy and a value head, for boards of any size.

    The heads see each point and the mean and largest value over the board of every channel: logits of points from a
    1×1 convolution, of the pass and the value from what is pooled (tanh at the end). (AlphaGo Zero's shape, without its
    normalisation, which costs time and, at this depth, gains nothing)
    """

    def __init__(self, planes: int, blocks: int = 6, channels: int = 64, hidden: int = 64) -> None:
        super().__init__()
        self.stem = conv(planes, channels)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.points = conv(channels, hidden, 1)
        self.pooled = nn.Linear(2 * channels, 2 * hidden)
        self.move = conv(hidden, 1, 1)
        self.skip = nn.Linear(hidden, 1)
        self.value = nn.Linear(hidden, 1)
        for last in (self.move, self.skip, self.value):
            nn.init.normal_(last.weight, std=0.1 / math.sqrt(hidden))

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, N² + 1]` and value `[B]`."""
        x = self.blocks(F.relu(self.stem(planes)))
        whole = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        board, judge = F.relu(self.pooled(whole)).chunk(2, 1)
        moves = self.move(F.relu(self.points(x) + board[:, :, None, None]))
        logits = torch.cat([moves.flatten(1), self.skip(board)], 1)
        return logits.float(), self.value(judge).squeeze(1).float().tanh()


class PlainPolicy(nn.Module):
    """AlphaGo's policy network: 5×5, then 3×3 convolutions with ReLUs, then 1×1 with a bias for each point; no pass.

    13 layers of 192 filters in the match version. (Silver et al. 2016, methods)
    """

    def __init__(self, planes: int, size: int = 19, layers: int = 13, filters: int = 192) -> None:
        super().__init__()
        self.size = size
        middle = [layer for _ in range(layers - 2) for layer in (conv(filters, filters), nn.ReLU())]
        self.body = nn.Sequential(conv(planes, filters, 5), nn.ReLU(), *middle)
        self.last = nn.Conv2d(filters, 1, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(size * size))

    def forward(self, planes: Tensor) -> Tensor:
        """Logits `[B, N² + 1]`."""
        logits = self.last(self.body(planes)).flatten(1).float() + self.bias
        return F.pad(logits, (0, 1), value=NO_PASS)


class PlainValue(nn.Module):
    """AlphaGo's value network: the policy's layers and one more, 256 units, tanh. (Silver et al. 2016, methods)"""

    def __init__(self, planes: int, size: int = 19, layers: int = 13, filters: int = 192) -> None:
        super().__init__()
        middle = [layer for _ in range(layers - 1) for layer in (conv(filters, filters), nn.ReLU())]
        self.body = nn.Sequential(conv(planes, filters, 5), nn.ReLU(), *middle, conv(filters, 1, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(size * size, 256), nn.ReLU(), nn.Linear(256, 1), nn.Tanh())

    def forward(self, planes: Tensor) -> Tensor:
        """Value `[B]`."""
        return self.head(self.body(planes).flatten(1)).squeeze(1).float()


class Pair(nn.Module):
    """A policy and a value network as one; the value's has one plane more, the player's colour."""

    def __init__(self, planes: int, size: int, layers: int = 13, filters: int = 192) -> None:
        super().__init__()
        self.policy = PlainPolicy(planes - 1, size, layers, filters)
        self.judge = PlainValue(planes, size, layers, filters)

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, N² + 1]` and value `[B]` of planes whose last is for the value only."""
        return self.policy(planes[:, :-1]), self.judge(planes)
