"""What the stages of AlphaGo's training share: a network with its optimizer, lessons, a step, dice."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from volition.applications._go_lessons import examples
from volition.core.schedules import cosine
from volition.envs.go_replay import Moves
from volition.machine import multiplies_bf16
from volition.stage import Stage

WARM_UP = 200  # updates until a learning rate is whole
# What reads means and maxima of ReLUs reads positive numbers only, so that a step of Adam moves all of a unit's weights
# one way and the unit by their sum: at the full rate nearly all of the value's units end below 0 for good on 19×19,
# where who wins shows so late that noise is most of their gradient.
SHARES = {"pooled": 1 / 8}


def begin(net: Any, run: Stage, weight_decay: float, weights: nn.Module | None = None) -> tuple[Any, AdamW]:
    """A network, with the weights of another where given, and its optimizer, both tracked."""
    if weights is not None:
        net.load_state_dict(weights.state_dict())
    net.to(run.device, memory_format=torch.channels_last)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        groups.setdefault(SHARES.get(name.split(".")[0], 1.0), []).append(parameter)
    shares = [{"params": parameters, "share": share} for share, parameters in groups.items()]
    optimizer = AdamW(shares, weight_decay=weight_decay, fused=True)
    run.track(net=net, optimizer=optimizer)
    return net, optimizer


def slow(optimizer: torch.optim.Optimizer, update: int, lr: float, updates: int, warm_up: int = WARM_UP) -> None:
    """Set the learning rate of this update: a short rise, then half a cosine to 0; each group has its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = group["share"] * cosine(update, lr, 0.0, updates) * min(1.0, (update + 1) / warm_up)


def draw(moves: Moves, count: int, run: Stage) -> tuple[Tensor, Tensor, Tensor]:
    """Planes, actions and who won of `count` moves, each turned by one of the eight symmetries."""
    index = torch.randint(len(moves), (count,), generator=run.generator, device=run.device).cpu().numpy()
    turned = torch.randint(8, (count,), generator=run.generator, device=run.device).cpu().numpy()
    return examples(moves, index, turned, run.device)


def look(net: nn.Module, planes: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
    """Logits and value, in bfloat16 where it pays."""
    with torch.autocast(planes.device.type, torch.bfloat16, enabled=bf16 and multiplies_bf16(planes.device)):
        return net(planes)


def squared_error(value: Tensor, won: Tensor) -> Tensor:
    """Mean of (z − v)² where z is known."""
    known = ~won.isnan()
    return ((value - won.nan_to_num()).square() * known).sum() / known.sum().clamp(min=1)


def descend(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float) -> None:
    """One step down the gradient."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()


def dice(run: Stage) -> np.random.Generator:
    """Random numbers for an update, from those of the run."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator, device=run.device)))
