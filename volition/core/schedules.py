"""Exploration: settings that change with the step, and actions that are not always the best one.

Schedules are plain functions of the step, so a run that resumes at a step goes on with the same numbers.
"""

import math

import torch
from torch import Tensor

from volition.core.distributions import Categorical


def constant(step: int, value: float) -> float:
    """value, whatever the step."""
    return value


def linear(step: int, start: float, end: float, steps: int) -> float:
    """start + (end − start) · min(step/steps, 1).

    DQN's exploration is linear(step, 1, 0.1, 1_000_000) in frames (Mnih 2015, methods).
    """
    if steps <= 0:
        return end
    return start + (end - start) * min(max(step / steps, 0.0), 1.0)


def exponential(step: int, start: float, end: float, steps: int) -> float:
    """start · (end/start)^min(step/steps, 1): the same factor each step; start and end are positive."""
    if start <= 0 or end <= 0:
        raise ValueError("an exponential schedule runs between positive numbers")
    if steps <= 0:
        return end
    return start * (end / start) ** min(max(step / steps, 0.0), 1.0)


def cosine(step: int, start: float, end: float, steps: int) -> float:
    """end + (start − end)·½(1 + cos(π·min(step/steps, 1))) (Loshchilov 2017, eq. 5, without restarts)."""
    if steps <= 0:
        return end
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(step / steps, 0.0), 1.0)))


def epsilon_greedy(
    q: Tensor, epsilon: Tensor | float, generator: torch.Generator, mask: Tensor | None = None
) -> Tensor:
    """a = argmax_a Q(s,a) with probability 1 − ε, else uniform over the allowed; Q `[B, A]` → a `[B]`.

    epsilon is a number or one per row `[B]`; mask `[B, A]` is True where an action is allowed.
    """
    allowed = torch.ones_like(q, dtype=torch.bool) if mask is None else mask
    if not bool(allowed.any(-1).all()):
        raise ValueError("a row of the mask allows no action: at least one must be legal")
    best = q.masked_fill(~allowed, -torch.inf).argmax(-1)
    # both numbers are always drawn: how many are used up never depends on what they are
    explore = torch.rand(q.shape[:-1], generator=generator, device=q.device) < epsilon
    lottery = torch.rand(q.shape, generator=generator, device=q.device).masked_fill(~allowed, -1)
    return torch.where(explore, lottery.argmax(-1), best)


def boltzmann(q: Tensor, temperature: float, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
    """a ~ softmax(Q(s,·)/τ) over the allowed; Q, mask `[B, A]` → a `[B]` (Sutton & Barto 2018, ch. 2)."""
    if temperature <= 0:
        raise ValueError("temperature must be positive")
    return Categorical(q / temperature, mask).sample(generator)
