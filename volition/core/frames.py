"""Replay for images: every frame is stored once, stacks of k frames are put together when they are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIELDS = ("frame", "action", "reward", "terminated", "done", "step")


class FrameReplay:
    """The last steps of `num_envs` environments whose obs is a stack of k frames `[k, …]`, drawn uniformly.

    Each environment has a ring of capacity // num_envs frames; a step takes one place, and an episode k more: the
    frames with which its first stack begins, whatever they are, and its last. So a transition costs
    `bytes_per_transition` (a frame, an action and 7 bytes) where two stacks cost 2k frames. With n > 1 the transitions
    are those of `NStep`. (Mnih 2015, methods: k = 4, 1 M frames)
    """

    def __init__(
        self,
        capacity: int,
        frame: Sequence[int],
        stack: int,
        num_envs: int,
        gamma: float,
        *,
        n: int = 1,
        action: Sequence[int] = (),
        action_type: torch.dtype = torch.int64,
        frame_type: torch.dtype = torch.uint8,
        device: torch.device | str | None = None,
    ) -> None:
        length, least = capacity // num_envs, 2 * stack + n + 1
        if length < least:
            raise ValueError(f"capacity must be at least num_envs · (2 · stack + n + 1) = {num_envs * least}")
        self.length, self.stack, self.num_envs = length, stack, num_envs
        self.gamma, self.n = gamma, n
        self.device = torch.empty(0, device=device).device

        def reserve(dtype: torch.dtype, shape: Sequence[int] = ()) -> Tensor:
            if self.device.type != "cpu":
                return torch.zeros((num_envs, length, *shape), dtype=dtype, device=device)
            # NumPy's zeros take no memory until they are written
            like = torch.empty(0, dtype=dtype).numpy().dtype
            return torch.from_numpy(np.zeros((num_envs, length, *shape), like))

        self.frame = reserve(frame_type, frame)
        self.action = reserve(action_type, action)
        self.reward = reserve(torch.float32)
        self.terminated = reserve(torch.bool)
        self.done = reserve(torch.bool)
        self.step = reserve(torch.bool)  # False: only part of a stack, nothing was done when it was the newest
        self.head = torch.zeros(num_envs, dtype=torch.long, device=device)  # frames ever written

    def __len__(self) -> int:
        """Frames held; nearly all of them can be drawn."""
        return int(self.head.clamp(max=self.length).sum())

    @property
    def bytes_per_transition(self) -> int:
        """Bytes of one place."""
        return sum(getattr(self, name)[0, 0].nbytes for name in FIELDS)

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
        """One step of each environment, all `[B, …]`: s_t, a_t, r_t, how it ended, and s_{t+1} before any reset.

        An episode begins where `fresh`; a step that is not `valid` was spent on a reset and is left out. Of the stacks
        `[B, k, …]` only the newest frames are read, but for the first of an episode.
        """
        env = torch.arange(self.num_envs, device=self.device)
        if valid is not None and not bool(valid.all()):
            env = env[valid.to(self.device)]
        done = (terminated | truncated).to(self.device)
        first = env[fresh.to(self.device)[env]]
        if len(first):
            for i in range(self.stack - 1):
                self._put(first, frame=obs[:, i])
        self._put(env, frame=obs[:, -1], action=action, reward=reward, terminated=terminated, done=done)
        ended = env[done[env]]
        if len(ended):
            self._put(ended, frame=next_obs[:, -1])

    def _put(self, env: Tensor, **fields: Tensor) -> None:
        place = self.head[env] % self.length
        for name, x in fields.items():
            kept = getattr(self, name)
            kept[env, place] = x.to(kept)[env]
        self.step[env, place] = "action" in fields
        self.head[env] += 1

    def sample(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """{obs, action, reward, discount, next_obs} with stacks `[B, k, …]`; all are equally likely."""
        if not self.ready:
            raise ValueError(f"no transition is complete: add at least {self.n + 1} steps first")
        held = self.head.clamp(max=self.length)
        last = held.cumsum(0)
        env = torch.empty(batch, dtype=torch.long, device=self.device)
        time = torch.empty_like(env)
        bad = torch.ones_like(env, dtype=torch.bool)
        while bad.any():  # the few that are no complete steps are drawn again
            uniform = torch.rand(batch, generator=generator, dtype=torch.float64, device=generator.device)
            drawn = (uniform.to(self.device) * last[-1]).long()
            chosen = torch.searchsorted(last, drawn, right=True)
            env = torch.where(bad, chosen, env)
            time = torch.where(bad, drawn - last[chosen] + self.head[chosen], time)
            bad = ~self.complete(env, time)
        return self.get(env, time)

    @property
    def ready(self) -> bool:
        """Whether there is a complete transition."""
        return bool((self.head >= self.stack + self.n).any())

    def _ahead(self, env: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """n-step return, steps taken m ≤ n and whether they terminated; each `[B]`."""
        total = torch.zeros(env.shape, device=self.device)
        steps = torch.zeros_like(env)
        live, terminated = torch.ones_like(env, dtype=torch.bool), torch.zeros_like(env, dtype=torch.bool)
        for i in range(self.n):
            place = (time + i) % self.length
            total = total + torch.where(live, self.gamma**i * self.reward[env, place], 0)
            steps = steps + live
            terminated = terminated | live & self.terminated[env, place]
            live = live & ~self.done[env, place]
        return total, steps, terminated

    def complete(self, env: Tensor, time: Tensor) -> Tensor:
        """Whether frame number `time` of `env` began a step of which everything is still held; `[B]`."""
        newer = self.head[env] - time  # 1 is the newest frame
        held = newer + self.stack - 1 <= self.length
        return self.step[env, time % self.length] & held & (self._ahead(env, time)[1] < newer)

    def get(self, env: Tensor, time: Tensor) -> dict[str, Tensor]:
        """The transitions that began at frame number `time` of `env`, both `[B]`."""
        reward, steps, terminated = self._ahead(env, time)
        return {
            "obs": self._stack(env, time),
            "action": self.action[env, time % self.length],
            "reward": reward,
            "discount": self.gamma ** steps.float() * ~terminated,
            "next_obs": self._stack(env, time + steps),
        }

    def _stack(self, env: Tensor, time: Tensor) -> Tensor:
        ago = torch.arange(self.stack - 1, -1, -1, device=self.device)
        place = (time[:, None] - ago) % self.length
        # whole rows at a time, by memcpy: indexing [env, place] copies byte by byte
        index = (env[:, None] * self.length + place).flatten()
        frames = self.frame.view(self.num_envs * self.length, -1).index_select(0, index)
        return frames.view(*place.shape, *self.frame.shape[2:])

    def state_dict(self) -> dict[str, Any]:
        used = int(self.head.max().clamp(max=self.length))
        state: dict[str, Any] = {name: getattr(self, name)[:, :used] for name in FIELDS}
        return state | {"head": self.head, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["length"] != self.length or len(state["head"]) != self.num_envs:
            raise ValueError(
                f"{len(state['head'])} × {state['length']} frames do not fit {self.num_envs} × {self.length}"
            )
        for name in FIELDS:
            kept = getattr(self, name)
            kept[:, : state[name].shape[1]].copy_(state[name])
        self.head = state["head"].to(self.device).clone()
