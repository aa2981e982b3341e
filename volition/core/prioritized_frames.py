"""Prioritised experience replay over frames: Schaul's priorities for stacks that are put together when drawn."""

from typing import Any

import torch
from torch import Tensor

from volition.core.frames import FrameReplay
from volition.core.prioritized import Priorities


class PrioritizedFrames:
    """A `FrameReplay` drawn with P(i) ∝ p_i^α; place i of the priorities is env · length + time mod length."""

    def __init__(self, frames: FrameReplay, alpha: float = 0.6) -> None:
        self.frames = frames
        self.priorities = Priorities(frames.num_envs * frames.length, alpha, frames.device)

    def __len__(self) -> int:
        return len(self.frames)

    def add(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        next_obs: Tensor,
        fresh: Tensor,
        valid: Tensor | None = None,
    ) -> None:
        """One step of each environment, as `FrameReplay.add`."""
        frames, before = self.frames, self.frames.head.clone()
        frames.add(obs, action, reward, terminated, truncated, next_obs, fresh, valid)
        # what was written, and after it the oldest frames, whose stacks have lost a part
        ahead = torch.arange(2 * frames.stack, device=frames.device)
        written = (frames.head - before)[:, None]
        env, which = (ahead < written + frames.stack - 1).nonzero(as_tuple=True)
        index = env * frames.length + (before[env] + which) % frames.length
        drawable = frames.step.view(-1)[index] & (ahead < written)[env, which]
        self.priorities.begin(index[drawable])
        self.priorities.forget(index[~drawable])

    def sample(self, batch: int, beta: float, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """`batch` transitions, their places and weights w `[B]`, as `PrioritizedReplay.sample`."""
        frames = self.frames
        if not frames.ready:
            raise ValueError(f"no transition is complete: add at least {frames.n + 1} steps first")
        index = self.priorities.draw(batch, generator)
        # the newest n steps of each environment wait for more; from the same part there may be no other
        while (bad := ~frames.complete(*self._where(index))).any():
            index = torch.where(bad, self.priorities.draw(batch, generator, parts=False), index)
        return frames.get(*self._where(index)), index, self.priorities.weight(index, len(self), beta)

    def _where(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Environment and frame number of places `[B]`."""
        env, place = index // self.frames.length, index % self.frames.length
        newest = self.frames.head[env] - 1
        return env, newest - (newest - place) % self.frames.length

    def update(self, index: Tensor, error: Tensor, epsilon: float = 1e-6) -> None:
        """p_i ← |δ_i| + ε for the places and TD errors `[B]` of a batch."""
        self.priorities.update(index, error, epsilon)

    def state_dict(self) -> dict[str, Any]:
        return {"frames": self.frames.state_dict(), "priorities": self.priorities.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.frames.load_state_dict(state["frames"])
        self.priorities.load_state_dict(state["priorities"])
