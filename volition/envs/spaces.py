"""Gymnasium's spaces as what networks take in and give out: observations as vectors, outputs as distributions.

Discrete choices are counted from 0 by every policy, whatever the space's `start`, and a Box action is flat,
`[…, D]`: `volition.envs.vector` gives both their own form on the way into the environment.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from volition.core.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
    SquashedGaussian,
)
from volition.core.policy import Tree, tree_map
from volition.errors import VolitionError

KNOWN = "known are Box, Discrete, MultiDiscrete, MultiBinary and Dict or Tuple of these"
START_LOG_STD = -0.5  # std begins at 0.6 of a box's half width: most samples fall inside, both ends are tried
MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0


class Encoder(NamedTuple):
    """How observations become vectors: `encode` maps a tree `[…, *]` to float32 `[…, size]`."""

    size: int
    encode: Callable[[Tree], Tensor]


class ActionHead(NamedTuple):
    """How a network's outputs `[…, size]` become π(a|s); `varies` is False for outputs that should not depend on s."""

    size: int
    varies: tuple[bool, ...]
    distribution: Callable[..., Distribution]  # of outputs and, for choices, a mask


def encoder(space: spaces.Space[Any]) -> Encoder:
    """Box flat (bytes over 255), Discrete and MultiDiscrete one-hot, MultiBinary as 0 and 1, Dict and Tuple joined."""
    if isinstance(space, spaces.Box):
        dims, scale = len(space.shape), 1 / 255 if space.dtype == np.uint8 else 1.0

        def box(x: Tensor) -> Tensor:
            x = x.float() if scale == 1.0 else x.float() * scale
            return x.flatten(-dims) if dims else x.unsqueeze(-1)

        return Encoder(math.prod(space.shape), box)
    if isinstance(space, spaces.Discrete):
        n, first = int(space.n), int(space.start)
        return Encoder(n, lambda x: F.one_hot(x.long() - first, n).float())
    if isinstance(space, spaces.MultiDiscrete):
        nvec, begin, dims = space.nvec.ravel(), torch.as_tensor(space.start.ravel()).long(), len(space.shape)
        places = torch.as_tensor(np.cumsum(nvec) - nvec).long()  # where each one-hot vector begins
        total = int(nvec.sum())

        def multi(x: Tensor) -> Tensor:
            index = x.long().flatten(-dims) + (places - begin).to(x.device)
            return x.new_zeros(*index.shape[:-1], total, dtype=torch.float32).scatter_(-1, index, 1.0)

        return Encoder(total, multi)
    if isinstance(space, spaces.MultiBinary):
        dims = len(space.shape)
        return Encoder(math.prod(space.shape), lambda x: x.float().flatten(-dims))
    if isinstance(space, spaces.Dict | spaces.Tuple) and len(space):
        keys, parts = _parts(space)
        encoders = [encoder(part) for part in parts]

        def join(tree: Tree) -> Tensor:
            return torch.cat([e.encode(tree[key]) for key, e in zip(keys, encoders, strict=True)], -1)

        return Encoder(sum(e.size for e in encoders), join)
    raise VolitionError(f"observation space {space} cannot be made a vector: {KNOWN}")


def action_head(space: spaces.Space[Any], squash: bool = False, state_dependent_std: bool = False) -> ActionHead:
    """Categorical, MultiCategorical, Bernoulli or Gaussian π(a|s) for the space, a Product for Dict and Tuple.

    A Box gets a DiagonalGaussian whose outputs are (mean, log std), in units of the half width about the middle
    where a dimension is bounded on both sides; what falls outside is clipped by the environment, so that log π,
    entropy and KL stay exact and in closed form, and the policy gradient unbiased (clipping is part of p(s'|s,a)).
    `squash` asks for a SquashedGaussian instead, which never leaves the box: for gradients through the action.
    """
    if isinstance(space, spaces.Discrete):
        return ActionHead(int(space.n), (True,) * int(space.n), Categorical)
    if isinstance(space, spaces.MultiDiscrete):
        nvec = tuple(int(n) for n in space.nvec.ravel())
        return ActionHead(sum(nvec), (True,) * sum(nvec), lambda y, mask=None: MultiCategorical(y, nvec, mask))
    if isinstance(space, spaces.MultiBinary):
        size = math.prod(space.shape)
        return ActionHead(size, (True,) * size, Bernoulli)
    if isinstance(space, spaces.Box):
        return _box_head(space, squash, state_dependent_std)
    if isinstance(space, spaces.Dict | spaces.Tuple) and len(space):
        keys, parts = _parts(space)
        heads = [action_head(part, squash, state_dependent_std) for part in parts]
        sizes = [head.size for head in heads]

        def product(y: Tensor) -> Product:
            each = [head.distribution(part) for head, part in zip(heads, y.split(sizes, -1), strict=True)]
            return Product(dict(zip(keys, each, strict=True)) if isinstance(space, spaces.Dict) else each)

        return ActionHead(sum(sizes), sum((head.varies for head in heads), ()), product)
    raise VolitionError(f"no policy can act in the action space {space}: {KNOWN}")


def _box_head(space: spaces.Box, squash: bool, state_dependent_std: bool) -> ActionHead:
    if not np.issubdtype(space.dtype, np.floating):
        raise VolitionError(f"no policy can act in {space} of {space.dtype}: make whole numbers MultiDiscrete")
    size = math.prod(space.shape)
    low, high = (torch.as_tensor(edge.ravel(), dtype=torch.float64) for edge in (space.low, space.high))
    bounded = torch.as_tensor(space.bounded_below & space.bounded_above).flatten()
    if squash and not bool(bounded.all()):
        raise VolitionError(f"{space} has an infinite bound, so nothing can be squashed onto it: set squash to False")
    middle = torch.where(bounded, low / 2 + high / 2, 0.0).float()
    half = torch.where(bounded, high / 2 - low / 2, 1.0).float()
    varies = (True,) * size + (state_dependent_std,) * size

    def gaussian(y: Tensor) -> DiagonalGaussian | SquashedGaussian:
        mean, log_std = y.float().chunk(2, -1)
        std = (log_std + START_LOG_STD).clamp(MIN_LOG_STD, MAX_LOG_STD).exp()
        if squash:
            return SquashedGaussian(mean, std, low.to(mean), high.to(mean))
        scale = half.to(mean)
        return DiagonalGaussian(middle.to(mean) + scale * mean, scale * std)

    return ActionHead(2 * size, varies, gaussian)


def to_space(space: spaces.Space[Any], action: Tree) -> Any:
    """A batch of a policy's actions `[B, …]` as what the batched space holds: numpy, own shape, start and bounds."""
    return converter(space)(tree_map(as_array, action))


def as_array(x: Any) -> np.ndarray:
    """A tensor, or what else can be an array, as one."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def converter(space: spaces.Space[Any]) -> Callable[[Any], Any]:
    """The function behind `to_space`, from arrays to new arrays: an environment may keep them, as `Recorded` does."""
    if isinstance(space, spaces.Dict):
        named = {key: converter(part) for key, part in space.items()}
        return lambda action: {key: convert(action[key]) for key, convert in named.items()}
    if isinstance(space, spaces.Tuple):
        each = [converter(part) for part in space]
        return lambda action: tuple(convert(a) for convert, a in zip(each, action, strict=True))
    shape, dtype = space.shape or (), space.dtype
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high

        def box(action: np.ndarray) -> np.ndarray:
            inside = np.maximum(np.asarray(action).reshape(-1, *shape), low)
            return np.minimum(inside, high).astype(dtype, copy=False)

        return box
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        return lambda action: (np.asarray(action).reshape(-1, *shape) + space.start).astype(dtype, copy=False)
    return lambda action: np.array(action, dtype).reshape(-1, *shape)


def from_space(space: spaces.Space[Any], action: Any) -> Tree:
    """The inverse of `to_space`: tensors, flat, choices counted from 0."""
    if isinstance(space, spaces.Dict):
        return {key: from_space(part, action[key]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(from_space(part, a) for part, a in zip(space, action, strict=True))
    array = np.asarray(action)
    if isinstance(space, spaces.Discrete):
        return torch.as_tensor(array - space.start).long()
    if isinstance(space, spaces.MultiDiscrete):
        return torch.as_tensor((array - space.start).reshape(len(array), -1)).long()
    array = array.reshape(len(array), -1)
    return torch.as_tensor(array.astype(np.int8 if isinstance(space, spaces.MultiBinary) else np.float32))


def _parts(space: spaces.Dict | spaces.Tuple) -> tuple[list[Any], list[spaces.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return list(space.keys()), list(space.values())
    return list(range(len(space))), list(space)
