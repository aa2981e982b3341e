"""Positions into networks and out again: planes, symmetries, bfloat16, and a network as a search's `evaluate`."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from volition.core.game import Positions
from volition.envs.go_planes import INVERSE, SMALL, planes, small_planes, turn
from volition.machine import multiplies_bf16
from volition.nets.board import Pair, PolicyValue

SHIPPED = Path(__file__).parent / "go9" / "value_net.safetensors"
PLANES = 49  # AlphaGo's, with the player's colour


def batch_of(
    positions: Positions,
    turned: np.ndarray,
    device: torch.device,
    count: int = PLANES,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Planes `[K, count, N, N]`, channels last, boards turned by symmetries `[K]` of 0 … 7; 18 are the small ones."""
    bits = small_planes(positions, turned) if count == SMALL else planes(positions, count, symmetry=turned)
    # bytes are turned into numbers before they are moved about: that is faster than both at once
    return torch.from_numpy(bits).to(device, dtype).contiguous(memory_format=torch.channels_last)


def frozen(net: nn.Module, bf16: bool = True) -> nn.Module:
    """A copy for playing: no gradients, channels last, in bfloat16 where the machine multiplies it fast."""
    copied: Any = copy.deepcopy(net).eval().requires_grad_(False)
    copied.to(memory_format=torch.channels_last)
    device = next(net.parameters()).device
    return copied.bfloat16() if bf16 and multiplies_bf16(device) else copied


class Judge:
    """A network as `evaluate` of `volition.core.search`, each position turned at random, or the mean of all eight ways.

    One of the 8 symmetries at random per evaluation is what AlphaGo's search does (Silver et al. 2016, methods).
    """

    def __init__(
        self, net: nn.Module, size: int, seed: int | None = 0, ensemble: bool = False, count: int = PLANES
    ) -> None:
        self.net, self.size, self.ensemble, self.count = net, size, ensemble, count
        self.random = None if seed is None else np.random.default_rng(seed)
        first = next(net.parameters())
        self.device, self.dtype = first.device, first.dtype

    @torch.inference_mode()
    def __call__(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """Logits `[K, A]` and value `[K]`."""
        count = len(positions.rows)
        if self.ensemble:
            found = [self._ask(positions, np.full(count, s)) for s in range(8)]
            probs = torch.stack([logits.log_softmax(-1).exp() for logits, _ in found]).mean(0)
            return probs.log().numpy(), torch.stack([value for _, value in found]).mean(0).numpy()
        turned = np.zeros(count, np.int64) if self.random is None else self.random.integers(8, size=count)
        logits, value = self._ask(positions, turned)
        return logits.numpy(), value.numpy()

    def _ask(self, positions: Positions, turned: np.ndarray) -> tuple[Tensor, Tensor]:
        logits, value = self.net(batch_of(positions, turned, self.device, self.count, self.dtype))
        return torch.from_numpy(turn(logits.cpu().numpy(), INVERSE[turned], self.size)), value.cpu()


class Pool:
    """Weights of earlier selves, from whom the opponent of a self-play update is drawn."""

    def __init__(self, net: nn.Module) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.add(net)

    def add(self, net: nn.Module) -> None:
        """One more."""
        self.weights.append({name: w.detach().cpu().clone() for name, w in net.state_dict().items()})

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One of them, each as likely."""
        return self.weights[rng.integers(len(self.weights))]

    def state_dict(self) -> dict[str, Any]:
        """All."""
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.weights = state["weights"]


def make_net(size: int, blocks: int, channels: int, layers: int = 0, count: int = PLANES) -> nn.Module:
    """One residual network with both heads, or with `layers` the paper's plain policy and value networks as one.

    It sees so many planes, 49, or 18 as in `small_planes`.
    """
    return Pair(count, size, layers, channels) if layers else PolicyValue(count, blocks, channels)


def shipped() -> tuple[nn.Module, dict[str, Any]]:
    """The network for boards of 9×9 that comes with the package, and the settings it was trained with.

    `volition train alphago --data DIR` made it, and `volition export RUN OUT --name value_net --half` wrote it.
    """
    settings = json.loads(SHIPPED.with_suffix(".json").read_text())["config"]
    net = make_net(settings["size"], settings["blocks"], settings["channels"], settings["layers"])
    net.load_state_dict(load_file(SHIPPED))
    return net, settings
