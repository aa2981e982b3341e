"""Replay for images: every frame is stored once, stacks of k frames are put together when they are drawn."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FIELDS = ("frame", "action", "reward", "terminated", "done", "age", "step")


class FrameReplay:
    """The last steps of `num_envs` environments whose obs is a stack of k frames, drawn uniformly.

    Each environment has a ring of capacity // num_envs frames; a step takes one place and an episode's last
    frame one more, so a transition costs `bytes_per_transition` (frame + action + 8 bytes) where two stacks
    cost 2k frames. A frame before the episode's first is that first one again, or zeros with `pad_zeros`.
    With n > 1 the transitions are those of `NStep`. (Mnih 2015, methods: k = 4, 1 M frames)
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
        pad_zeros: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        length = capacity // num_envs
        if length < stack + n + 1:
            raise ValueError(f"capacity must be at least num_envs · (stack + n + 1) = {num_envs * (stack + n + 1)}")
        if not 1 <= stack <= 255:
            raise ValueError("stack must lie in 1 … 255")
        self.length, self.stack, self.num_envs = length, stack, num_envs
        self.gamma, self.n, self.pad_zeros = gamma, n, pad_zeros
        self.device = torch.empty(0, device=device).device

        def reserve(dtype: torch.dtype, shape: Sequence[int] = ()) -> Tensor:
            return torch.empty((num_envs, length, *shape), dtype=dtype, device=device)

        self.frame = reserve(frame_type, frame)
        self.action = reserve(action_type, action)
        self.reward = reserve(torch.float32)
        self.terminated = reserve(torch.bool)
        self.done = reserve(torch.bool)
        self.age = reserve(torch.uint8)  # frames of the same episode before this one, at most k − 1
        self.step = reserve(torch.bool)  # False: an episode's last frame, after which nothing was done
        self.head = torch.zeros(num_envs, dtype=torch.long, device=device)  # frames ever written
        self.now = torch.zeros(num_envs, dtype=torch.uint8, device=device)  # age of the frame that comes next

    def __len__(self) -> int:
        """Frames held; nearly all of them can be drawn."""
        return int(self.head.clamp(max=self.length).sum())

    @property
    def bytes_per_transition(self) -> int:
        """Bytes of one place."""
        return sum(getattr(self, name)[0, 0].nbytes for name in FIELDS)

    def add(
        self,
        frame: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        final_frame: Tensor | None = None,
    ) -> None:
        """One step of each environment, all `[B, …]`: the newest frame of s_t, a_t, r_t, how it ended.

        final_frame is the newest frame of final_obs; only its rows with terminated or truncated are read.
        """
        done = (terminated | truncated).to(self.device)
        env = torch.arange(self.num_envs, device=self.device)
        place = self.head % self.length
        for name, x in (
            ("frame", frame),
            ("action", action),
            ("reward", reward),
            ("terminated", terminated),
            ("done", done),
            ("age", self.now),
        ):
            kept = getattr(self, name)
            kept[env, place] = x.to(kept)
        self.step[env, place] = True
        self.head = self.head + 1
        following = (self.now + 1).clamp(max=self.stack - 1)
        self.now = torch.where(done, 0, following)
        ended = done.nonzero().squeeze(-1)
        if len(ended) == 0:
            return
        if final_frame is None:
            raise ValueError("an episode ended: its final_frame is needed")
        place = self.head[ended] % self.length
        self.frame[ended, place] = final_frame.to(self.frame)[ended]
        self.age[ended, place] = following[ended]
        self.step[ended, place] = False
        self.head[ended] += 1

    def sample(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """{obs, action, reward, discount, next_obs} with stacks `[B, k, …]`; all are equally likely."""
        held = self.head.clamp(max=self.length)
        if not (held >= self.n + 2).any():
            raise ValueError(f"no transition is complete: add at least {self.n + 2} steps first")
        last = held.cumsum(0)
        env = torch.empty(batch, dtype=torch.long, device=self.device)
        time = torch.empty_like(env)
        bad = torch.ones_like(env, dtype=torch.bool)
        while bad.any():  # the few incomplete ones at the ends of the rings are drawn again
            uniform = torch.rand(batch, generator=generator, dtype=torch.float64, device=generator.device)
            drawn = (uniform.to(self.device) * last[-1]).long()
            chosen = torch.searchsorted(last, drawn, right=True)
            env = torch.where(bad, chosen, env)
            time = torch.where(bad, drawn - last[chosen] + self.head[chosen], time)
            bad = ~self.complete(env, time)
        return self.get(env, time)

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
        place = time % self.length
        newer = self.head[env] - time  # 1 is the newest frame
        held = newer + self.age[env, place] <= self.length
        return self.step[env, place] & held & (self._ahead(env, time)[1] < newer)

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
        age = self.age[env, time % self.length].long()[:, None]
        place = (time[:, None] - torch.minimum(ago, age)) % self.length
        # whole rows at a time, by memcpy: indexing [env, place] copies byte by byte
        index = (env[:, None] * self.length + place).flatten()
        frames = self.frame.view(self.num_envs * self.length, -1).index_select(0, index)
        frames = frames.view(*place.shape, *self.frame.shape[2:])
        if self.pad_zeros:
            frames[ago > age] = 0
        return frames

    def state_dict(self) -> dict[str, Any]:
        used = int(self.head.max().clamp(max=self.length))
        state: dict[str, Any] = {name: getattr(self, name)[:, :used] for name in FIELDS}
        return state | {"head": self.head, "now": self.now, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["length"] != self.length or len(state["head"]) != self.num_envs:
            raise ValueError(
                f"{len(state['head'])} × {state['length']} frames do not fit {self.num_envs} × {self.length}"
            )
        for name in FIELDS:
            kept = getattr(self, name)
            kept[:, : state[name].shape[1]].copy_(state[name])
        self.head, self.now = state["head"].to(self.device).clone(), state["now"].to(self.device).clone()
