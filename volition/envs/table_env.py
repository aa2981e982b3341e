"""Many copies of a tabular MDP stepped at once in tensors: what a million samples of Q-learning are cheap in."""

from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from volition.core.mdp import MDP


class TableEnv(VectorEnv):
    """B copies of an MDP: s' ~ P(·|s,a), terminated with what P lacks to 1; autoreset in the same step.

    The reward is its expectation r(s,a). After `limit` steps an episode is truncated; 0 for never.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    tensors = True  # what it takes and gives: see TensorEnv

    def __init__(self, mdp: MDP, num_envs: int, limit: int = 0, device: torch.device | str = "cpu") -> None:
        assert mdp.start is not None
        self.mdp, self.num_envs, self.max_steps = mdp, num_envs, limit
        self.single_observation_space = gymnasium.spaces.Discrete(mdp.states)
        self.single_action_space = gymnasium.spaces.Discrete(mdp.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.device = torch.device(device)
        self._reward = mdp.reward.flatten().float().to(device)
        # only what can happen: successor and cumulative probability in K columns, the end of the episode being −1
        P = torch.cat([mdp.transition, mdp.termination.unsqueeze(-1)], -1).flatten(0, 1)
        most = int((P > 0).sum(-1).max())
        p, successor = P.topk(most)
        self._next = torch.where(successor == mdp.states, -1, successor).to(device)
        self._upto = (p.cumsum(-1) / p.sum(-1, keepdim=True)).to(device)  # a row that should reach 1 may miss it
        self._start = (mdp.start.cumsum(0) / mdp.start.sum()).to(device)
        self._generator = torch.Generator(self.device)
        self._state = torch.zeros(num_envs, dtype=torch.long, device=device)
        self._age = torch.zeros_like(self._state)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """All copies begin anew, s ~ ρ."""
        if seed is not None:
            self._generator.manual_seed(seed)
        self._state, self._age = self._draw_start(), torch.zeros_like(self._age)
        return self._state, {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """One step of every copy; `info["final_obs"]` `[B]` where any episode ended."""
        pair = self._state * self.mdp.actions + actions
        uniform = self._uniform().unsqueeze(-1)
        which = (self._upto[pair] <= uniform).sum(-1, keepdim=True)
        drawn = self._next[pair].gather(1, which.clamp(max=self._next.shape[1] - 1)).squeeze(1)
        terminated = drawn < 0
        arrived = torch.where(terminated, self._state, drawn)  # where a terminated episode arrived counts for nothing
        self._age = self._age + 1
        truncated = (self._age == self.max_steps) & ~terminated
        done, info = terminated | truncated, {}
        self._state = arrived
        if done.any():
            info["final_obs"] = arrived
            self._state, self._age = torch.where(done, self._draw_start(), arrived), torch.where(done, 0, self._age)
        return self._state, self._reward[pair], terminated, truncated, info

    def _draw_start(self) -> Tensor:
        return torch.searchsorted(self._start, self._uniform(), right=True).clamp(max=self.mdp.states - 1)

    def _uniform(self) -> Tensor:
        return torch.rand(self.num_envs, generator=self._generator, dtype=torch.float64, device=self.device)

    def state_dict(self) -> dict[str, Any]:
        """Where every copy is, and what will be drawn next."""
        return {"state": self._state, "age": self._age, "random": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._state, self._age = (state[name].to(self.device, copy=True) for name in ("state", "age"))
        self._generator.set_state(state["random"])
