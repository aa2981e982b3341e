"""What a policy is: obs and state in; distribution, next state and (for an actor-critic) value out."""

from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from volition.core.distributions import Distribution

Tree = Any  # a tensor, or a dict, tuple or list of trees; None is an empty tree


class PolicyOutput(NamedTuple):
    """One call of a policy: π(·|s) `[B]`, the recurrent state after it, and V(s) `[B]` if the policy has a critic."""

    distribution: Distribution
    state: Tree = None
    value: Tensor | None = None


class Policy(Protocol):
    """π(a|s): an `nn.Module` that maps (obs `[B, …]`, state) to a `PolicyOutput`; stateless is the special case None.

    One with memory may also have `sequence(obs, state, done) -> PolicyOutput`: T steps `[T, B, …]` at once.
    """

    def __call__(self, obs: Tree, state: Tree) -> PolicyOutput: ...

    def initial_state(self, batch: int) -> Tree: ...


def tree_map(function: Any, *trees: Tree) -> Tree:
    """Apply `function` to the tensors at the same place of each tree, keeping the structure of the first."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: tree_map(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):  # a NamedTuple takes its fields one by one
        return type(first)(*(tree_map(function, *items) for items in zip(*trees, strict=True)))
    if isinstance(first, (tuple, list)):
        return type(first)(tree_map(function, *items) for items in zip(*trees, strict=True))
    return function(*trees)


def tree_leaf(tree: Tree) -> Any:
    """The first leaf of a tree."""
    while isinstance(tree, dict | tuple | list):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    return tree


def tree_stack(trees: list[Tree]) -> Tree:
    """Stack T equal trees `[B, …]` into one tree `[T, B, …]`."""
    return tree_map(lambda *tensors: torch.stack(tensors), *trees)


def tree_where(condition: Tensor, yes: Tree, no: Tree) -> Tree:
    """Choose row by row: `yes[b]` where `condition[b]`, else `no[b]`; condition is `[B]`, leaves are `[B, …]`."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition.view(-1, *(1,) * (a.dim() - 1)), a, b)

    return tree_map(choose, yes, no)


def stack_distributions(distributions: list[Distribution]) -> Distribution:
    """T distributions over `[B]` as one over `[T, B]`: their parameters are stacked, cached values are not kept."""
    first = distributions[0]
    stacked = object.__new__(type(first))
    for name, value in vars(first).items():
        if not isinstance(getattr(type(first), name, None), cached_property):
            values = [vars(d)[name] for d in distributions]
            vars(stacked)[name] = _stack_parameter(value, values)
    return stacked


def _stack_parameter(first: Any, values: list[Any]) -> Any:
    if isinstance(first, Tensor):
        return torch.stack(values)
    if isinstance(first, dict):
        return {key: _stack_parameter(first[key], [value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stack_parameter(item, [value[i] for value in values]) for i, item in enumerate(first))
    return stack_distributions(values) if hasattr(first, "log_prob") else first
