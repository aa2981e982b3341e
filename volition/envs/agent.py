"""A policy together with the spaces of its environment: what `train` returns, and how it plays."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from volition.core.policy import PolicyOutput, Tree, tree_leaf, tree_map, tree_where
from volition.envs.spaces import to_space
from volition.errors import VolitionError


class Agent(nn.Module):
    """π(a|s) for observations as the environment gives them and actions as it takes them; `net` does the work.

    `net(obs, state, mask)` is a `volition.core.policy.Policy` that may also use a mask of legal actions.
    """

    def __init__(self, net: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.net, self.observation_space, self.action_space = net, observation_space, action_space

    def forward(self, obs: Tree, state: Tree = None, mask: Tensor | None = None) -> PolicyOutput:
        """Obs `[…, *]` in tensors → π, next state, V."""
        return self.net(obs, state, mask)

    def initial_state(self, batch: int) -> Tree:
        """The memory with which an episode begins."""
        return self.net.initial_state(batch)

    @torch.no_grad()
    def act(
        self,
        obs: Any,
        state: Tree = None,
        *,
        greedy: bool = False,
        mask: Any = None,
        generator: Generator | None = None,
    ) -> Any:
        """The action for one obs, or a batch of them `[B, …]`, both in the environment's own form.

        A sample of π, or its mode if `greedy`. An agent with memory (`initial_state` is not None) returns
        (action, state), and takes the state back at the next step; None begins an episode.
        """
        device = next(self.parameters()).device
        single = _is_single(self.observation_space, obs)
        # the batch dimension is added after: a space may hold numbers, which have none to add to
        seen = tree_map(lambda x: _tensor(x).to(device)[None] if single else _tensor(x).to(device), obs)
        legal = None if mask is None else torch.as_tensor(mask).bool().to(device).reshape(-1, np.shape(mask)[-1])
        batch = len(tree_leaf(seen))
        output = self(seen, self.initial_state(batch) if state is None else state, legal)
        pi = output.distribution
        action = pi.mode() if greedy else pi.sample(generator or _default_generator(device))
        native = to_space(self.action_space, action)
        if single:
            native = _row(self.action_space, native)
        return native if output.state is None else (native, output.state)


class Player:
    """What a collector calls at each step: samples of the agent's policy, or its modes; holds the agent's memory.

    Noise is drawn for `steps` steps at a time, so that small networks on a CPU can act in a few NumPy operations;
    a multiple of `steps` must have been played whenever the state is saved.
    """

    def __init__(self, agent: Agent, env: Any, generator: Generator, steps: int = 1, greedy: bool = False) -> None:
        self.agent, self.env, self.generator, self.steps, self.greedy = agent, env, generator, steps, greedy
        self.arrays = bool(env.arrays) and env.device.type == "cpu"
        self.state: Tree = agent.initial_state(env.num_envs)
        choices = isinstance(env.single_action_space, spaces.Discrete) and env.mask is None
        self._fast = self.arrays and choices and hasattr(agent.net, "outputs")
        if self._fast:
            space = env.single_observation_space
            vector = isinstance(space, spaces.Box) and space.dtype == np.float32 and len(space.shape) == 1
            self._plain = vector and not isinstance(agent.net.encode, nn.Module)
            self._outputs = agent.net.outputs()
            self._noise: np.ndarray | None = None
            self._next = steps

    def __call__(self, obs: Tree, fresh: Any) -> Tree:
        """Obs `[N, *]` and where an episode begins `[N]` → actions `[N, …]`."""
        if self._fast:
            return self._act_in_numpy(obs)
        with torch.no_grad():
            if self.arrays:
                obs, fresh = tree_map(torch.from_numpy, obs), torch.from_numpy(fresh)
            if self.state is not None:
                self.state = tree_where(fresh, self.agent.initial_state(len(fresh)), self.state)
            mask = None if self.env.mask is None else torch.as_tensor(self.env.mask).to(self.env.device)
            output = self.agent(obs, self.state, mask)
            self.state = output.state
            pi = output.distribution
            action = pi.mode() if self.greedy else pi.sample(self.generator)
            return tree_map(lambda x: x.numpy(), action) if self.arrays else action

    def _act_in_numpy(self, obs: np.ndarray) -> np.ndarray:
        x = obs if self._plain else self.agent.net.encode(tree_map(torch.from_numpy, obs)).numpy()
        y = self._outputs(x)
        if self.greedy:
            return y.argmax(-1)
        if self._next == self.steps:  # the race of `Categorical.sample`
            u = torch.rand((self.steps, *y.shape), generator=self.generator).clamp_min_(torch.finfo(torch.float32).tiny)
            u = u.numpy()
            self._noise, self._next = np.log(-np.log(u)), 0
        assert self._noise is not None
        y -= self._noise[self._next]
        self._next += 1
        return y.argmax(-1)

    def state_dict(self) -> dict[str, Any]:
        """The agent's memory."""
        return {"state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.state = tree_map(lambda x: x.to(self.env.device), state["state"])


def _default_generator(device: torch.device) -> Generator:
    """torch's own on a CPU, and elsewhere a new one that it seeds."""
    if device.type == "cpu":
        return torch.default_generator
    return Generator(device).manual_seed(int(torch.randint(2**62, ())))


def _is_single(space: gymnasium.Space[Any], obs: Any) -> bool:
    """Whether obs is one of the space's, not a batch."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts: list[Any] = list(space.items() if isinstance(space, spaces.Dict) else enumerate(space))
        try:
            single = {_is_single(part, obs[key]) for key, part in parts}
        except (KeyError, IndexError, TypeError):
            raise VolitionError(f"an obs that is a {type(obs).__name__} lacks parts of {space}") from None
        if len(single) == 1:
            return single.pop()
        raise VolitionError(f"an obs is one of {space} in some of its parts and a batch in others")
    shape, given = space.shape or (), np.shape(obs)
    if given == shape:
        return True
    if given[1:] == shape:
        return False
    raise VolitionError(f"an obs of shape {given} is neither one of {space} nor a batch of them")


def _tensor(x: Any) -> Tensor:
    x = torch.as_tensor(np.asarray(x)) if not isinstance(x, Tensor) else x
    return x.float() if x.is_floating_point() else x if x.dtype == torch.uint8 else x.long()


def _row(space: gymnasium.Space[Any], batch: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _row(part, batch[key]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_row(part, x) for part, x in zip(space, batch, strict=True))
    return batch[0]
