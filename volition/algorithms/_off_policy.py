"""What learners from replay share: the way from a collector's steps into memory, and exploring."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from volition.core.collect import Steps
from volition.core.frames import FrameReplay
from volition.core.policy import Tree, tree_map
from volition.core.prioritized import PrioritizedReplay
from volition.core.prioritized_frames import PrioritizedFrames
from volition.core.replay import NStep, Replay
from volition.core.schedules import epsilon_greedy
from volition.envs.tensor_env import TensorEnv
from volition.errors import VolitionError
from volition.nets.q import QPolicy, QStack


class Memory:
    """Transitions {obs, action, reward, discount, next_obs, next_mask} of n steps, drawn uniformly or by priority.

    next_mask is there where the environment says which actions are legal. With `frames` obs is a stack of frames, of
    which each is stored once. `alpha` is the power of the priorities, None for none.
    """

    def __init__(
        self, env: TensorEnv, capacity: int, gamma: float, n: int, alpha: float | None, frames: bool, clip: float
    ) -> None:
        self.capacity, self.gamma, self.alpha, self.clip = capacity, gamma, alpha, clip
        self.device, self.steps = env.device, NStep(n, gamma)
        self.replay: Replay | PrioritizedReplay | None = None  # made when the first transitions show their form
        self.frames: FrameReplay | PrioritizedFrames | None = None
        if frames:
            space = env.single_observation_space
            if not isinstance(space, spaces.Box) or len(space.shape) != 3 or space.dtype != np.uint8:
                raise VolitionError(f"frames needs obs that are stacks of frames of bytes [k, H, W]; they are {space}")
            if env.mask is not None:
                raise VolitionError("frames does not keep masks of legal actions: set it to False")
            stack, *frame = space.shape
            plain = FrameReplay(capacity, frame, stack, env.num_envs, gamma, n=n, device=env.device)
            self.frames = plain if alpha is None else PrioritizedFrames(plain, alpha)

    def add(self, steps: Steps) -> None:
        """All that a collector has played."""
        reward = steps.reward.clamp(-self.clip, self.clip) if self.clip else steps.reward
        next_obs, now = steps.next_obs(), tree_map(lambda x: x[:-1], steps.obs)
        if self.frames is not None:
            rows = (now, steps.action, reward, steps.terminated, steps.truncated, next_obs, steps.fresh, steps.valid)
            for t in range(len(reward)):
                self.frames.add(*(x[t] for x in rows))
            return
        following = {"next_obs": next_obs}
        if steps.mask is not None:
            following["next_mask"] = steps.mask[1:].clone()
            # of the obs before a reset nothing is told
            following["next_mask"].flatten(0, 1)[steps.final[0]] = True
        batch = self.steps.add(now, steps.action, reward, steps.terminated, steps.truncated, following, steps.valid)
        batch |= batch.pop("next_obs")
        if self.replay is None:
            self._reserve(batch)
        assert self.replay is not None
        if len(batch["reward"]):
            self.replay.add(batch)

    def sample(self, batch: int, beta: float, generator: torch.Generator) -> tuple[dict[str, Any], Any, Any]:
        """`batch` transitions, and with priorities their places and weights `[B]`, else None."""
        memory = self.replay if self.frames is None else self.frames
        assert memory is not None
        if isinstance(memory, PrioritizedReplay | PrioritizedFrames):
            return memory.sample(batch, beta, generator)
        return memory.sample(batch, generator), None, None

    def update(self, index: Tensor, error: Tensor) -> None:
        """New priorities from the errors `[B]` of a batch."""
        memory = self.replay if self.frames is None else self.frames
        assert isinstance(memory, PrioritizedReplay | PrioritizedFrames)
        memory.update(index, error)

    @property
    def ready(self) -> bool:
        """Whether there is a transition to draw."""
        if self.frames is None:
            return self.replay is not None and len(self.replay) > 0
        return (self.frames if isinstance(self.frames, FrameReplay) else self.frames.frames).ready

    def _reserve(self, example: Tree) -> None:
        if self.alpha is None:
            self.replay = Replay(self.capacity, example, self.device)
        else:
            self.replay = PrioritizedReplay(self.capacity, example, self.alpha, self.device)

    def state_dict(self) -> dict[str, Any]:
        """Every transition held, and those that are not complete yet."""
        memory = self.replay if self.frames is None else self.frames
        return {"steps": self.steps.state_dict(), "memory": None if memory is None else memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.steps.load_state_dict(state["steps"])
        if state["memory"] is None:
            return
        if self.frames is not None:
            self.frames.load_state_dict(state["memory"])
            return
        self._reserve((state["memory"] if self.alpha is None else state["memory"]["replay"])["storage"])
        assert self.replay is not None
        self.replay.load_state_dict(state["memory"])


class Explorer:
    """What a collector calls: argmax_a Q(s,a), or with probability ε any legal action.

    Where it can be, Q is computed in NumPy on the weights' own memory, and noise is drawn for a whole `collect`.
    """

    def __init__(self, net: QPolicy, env: TensorEnv, generator: torch.Generator, steps: int) -> None:
        self.net, self.env, self.generator, self.steps = net, env, generator, steps
        self.arrays = env.arrays and env.device.type == "cpu"
        self.actions = int(env.single_action_space.n)  # pyrefly: ignore
        space, self.epsilon = env.single_observation_space, 0.0
        self._always: list[bool] = []
        vectors = isinstance(space, spaces.Box) and space.dtype != np.uint8 and len(space.shape) == 1
        self._q = net.in_numpy() if self.arrays and env.mask is None and vectors and isinstance(net, QStack) else None

    def with_epsilon(self, epsilon: float) -> "Explorer":
        """The same for the next `steps` steps, with new noise."""
        self.epsilon = epsilon
        self.net.draw(self.generator)
        if self._q is not None:
            u, v = torch.rand((2, self.steps, self.env.num_envs), generator=self.generator).numpy()
            self._explore, self._random = u < epsilon, (v * self.actions).astype(np.int64)
            self._always = self._explore.all(1).tolist()
            self._t = 0
        return self

    def __call__(self, obs: Tree, fresh: Any) -> Any:
        """Obs `[N, *]` → actions `[N]`."""
        if self._q is None:
            with torch.no_grad():
                q = self.net.q(tree_map(torch.from_numpy, obs) if self.arrays else obs)
                mask = None if self.env.mask is None else torch.as_tensor(self.env.mask).to(q.device)
                action = epsilon_greedy(q, self.epsilon, self.generator, mask)
                return action.numpy() if self.arrays else action
        t, self._t = self._t, self._t + 1
        random = self._random[t]
        if self._always[t]:
            return random
        best = self._q(obs).argmax(1)
        np.copyto(best, random, where=self._explore[t])
        return best
