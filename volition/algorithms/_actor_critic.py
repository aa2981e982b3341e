"""What the actor-critic recipes share: their networks, and what T steps of play teach."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor

from volition.algorithms._episodes import build, film, report
from volition.core.collect import Steps
from volition.core.gradients import policy_gradient, value_loss
from volition.core.normalize import normalize_advantage
from volition.core.policy import Tree, tree_map, tree_where
from volition.core.returns import gae
from volition.envs.agent import Agent
from volition.envs.spaces import action_head, encoder
from volition.envs.vector import TensorEnv
from volition.errors import VolitionError
from volition.nets.actor_critic import ActorCritic, Judgement, judge
from volition.nets.conv_actor_critic import ConvActorCritic, is_image
from volition.nets.normalizer import Normalizer
from volition.nets.recurrent_actor_critic import RecurrentActorCritic
from volition.nets.stack import Activation
from volition.run import Run


class Settings(Protocol):
    """What the settings of every actor-critic recipe have."""

    @property
    def env(self) -> str: ...
    @property
    def limit(self) -> int: ...
    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def memory(self) -> int: ...
    @property
    def low_precision(self) -> bool: ...


def make_agent(config: Settings, env: TensorEnv) -> Agent:
    """Networks with fresh weights for the environment's spaces: convolutions for images, a GRU where asked for."""
    if env.mask is not None and not isinstance(env.single_action_space, Discrete | MultiDiscrete):
        raise VolitionError(
            f"the environment tells a mask of legal actions, but its actions are {env.single_action_space}: "
            "only Discrete and MultiDiscrete can be masked"
        )
    space, hidden, memory, activation = env.single_observation_space, config.hidden, config.memory, config.activation
    see, act = encoder(space), action_head(env.single_action_space)
    if isinstance(space, Box) and space.dtype == np.uint8 and is_image(space.shape):
        if memory:
            raise VolitionError("an agent that sees images has no memory here: set memory to 0 and stack frames")
        last = space.shape[2] < min(space.shape[:2])
        net: Any = ConvActorCritic(space.shape, act.distribution, act.varies, hidden[-1], last, config.low_precision)
        return Agent(net, space, env.single_action_space)
    encode = see.encode
    if getattr(config, "normalize_obs", False):  # only some recipes offer it
        encode = Normalizer(see.encode, see.size)
    if memory:
        net = RecurrentActorCritic(encode, see.size, act.distribution, act.varies, hidden, memory, activation)
    else:
        net = ActorCritic(encode, see.size, act.distribution, act.varies, hidden, activation)
    return Agent(net, space, env.single_action_space)


def load(config: Settings, run: Run, env: Any = None) -> Agent:
    """The agent of a run."""
    world = build(config.env, run, env, 1, limit=config.limit)
    agent = make_agent(config, world).to(run.device)
    run.track(policy=agent)
    if env is None:
        world.close()
    return agent


def evaluate(config: Settings, run: Run, env: Any = None, *, episodes: int = 100) -> dict[str, float | list[float]]:
    """Undiscounted return of whole episodes: sampled as trained, greedy, and with random actions; mean and sd."""
    return report(load(config, run, env), config.env, run, env, episodes, config.limit)


def watch(config: Settings, run: Run, env: Any = None) -> list[Path]:
    """A greedy episode as a moving picture where the environment can be drawn, else as curves."""
    return [film(load(config, run, env), config.env, run, env, config.limit)]


class Experience(NamedTuple):
    """What a rollout taught: rows `[T·N, …]`, or whole sequences `[T, N, …]` for an agent with memory.

    Steps that an environment spent on a reset are not `valid`, and not to be learned from.
    """

    obs: Tree
    action: Tree
    mask: Tensor | None
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor
    valid: Tensor
    state: Tree = None  # this and the next of sequences only
    done: Tensor | None = None

    @property
    def total(self) -> int:
        """How many can be drawn: rows or sequences."""
        return len(self.advantage) if self.done is None else self.advantage.shape[1]

    def take(self, index: Tensor) -> "Experience":
        """The rows or sequences of `index`."""
        if self.done is None:
            return Experience(*(_index(x, 0, index) for x in self))
        state = _index(self.state, 0, index)
        return Experience(*(_index(x, 1, index) for x in self._replace(state=None)))._replace(state=state)

    def rows(self) -> "Experience":
        """Without the rows that are not valid; sequences stay whole, but for those without any valid step."""
        valid = self.valid if self.done is None else self.valid.any(0)
        return self if bool(valid.all()) else self.take(valid.nonzero().squeeze(-1))

    def slice(self, start: int, stop: int) -> "Experience":
        """Those from `start` to `stop`, without a copy."""
        if self.done is None:
            return Experience(*(tree_map(lambda x: x[start:stop], x) for x in self))
        state = tree_map(lambda x: x[start:stop], self.state)
        parts = (tree_map(lambda x: x[:, start:stop], x) for x in self._replace(state=None))
        return Experience(*parts)._replace(state=state)


def learn_from(
    agent: Agent, steps: Steps, state: Tree, gamma: float, lam: float, reward: Tensor, graph: bool = False
) -> tuple[Experience, Judgement]:
    """Advantages A and targets A + V of what was played, and the agent's view of it; `state` is what began it.

    `reward` is `steps.reward`, or what is to be learned instead of it. The view's backward pass needs `graph`.
    """
    length, batch = steps.reward.shape
    obs = tree_map(lambda x: x[:-1], steps.obs)
    last = tree_map(lambda x: x[-1], steps.obs)
    mask = None if steps.mask is None else steps.mask[:-1]
    places, final = steps.final
    memory: Tree = None
    with torch.set_grad_enabled(graph):
        if state is None:
            now = judge_rows(agent, *tree_map(lambda x: x.flatten(0, 1), (obs, steps.action, mask)))
        else:
            state = tree_where(steps.fresh[0], agent.initial_state(batch), state)
            played = agent.net.sequence(obs, state, steps.done, mask)
            now, memory = judge(played, steps.action), played.state
    with torch.no_grad():
        if state is None:
            last_value, final_value = values(agent, last), values(agent, final) if len(places) else None
        else:
            onwards = tree_where(steps.fresh[-1], agent.initial_state(batch), tree_map(lambda x: x[-1], memory))
            then = tree_map(lambda x: x.flatten(0, 1)[places], memory)
            last_value = agent(last, onwards).value
            final_value = agent(final, then).value if len(places) else None
        value = now.value.view(length, batch)
        following = steps.next_value(torch.cat([value, last_value[None]]), final_value)
        discount = gamma * steps.terminated.logical_not()
        advantage = gae(reward, discount, steps.done, following, value, lam)
        experience = Experience(
            obs, steps.action, mask, now.log_prob.view(length, batch), value, advantage, advantage + value, steps.valid
        )
    if state is not None:
        return experience._replace(state=state, done=steps.done), now
    return Experience(*(tree_map(lambda x: x.flatten(0, 1), x) for x in experience)), now


def judge_rows(agent: Agent, obs: Tree, action: Tree, mask: Tensor | None) -> Judgement:
    """An agent without memory on rows `[M, …]`."""
    if hasattr(agent.net, "judge"):
        return agent.net.judge(obs, action, mask)
    return judge(agent(obs, None, mask), action)


def judge_again(agent: Agent, batch: Experience) -> Judgement:
    """The agent's view of a minibatch as it is now, with a backward pass."""
    if batch.done is None:
        return judge_rows(agent, batch.obs, batch.action, batch.mask)
    with torch.enable_grad():
        return judge(agent.net.sequence(batch.obs, batch.state, batch.done, batch.mask), batch.action)


def values(agent: Agent, obs: Tree) -> Tensor:
    """V(s) `[B]` of an agent without memory."""
    return agent.net.values(obs) if hasattr(agent.net, "values") else agent(obs).value


def _index(tree: Tree, dim: int, index: Tensor) -> Tree:
    return tree_map(lambda x: x.index_select(dim, index), tree)


def actor_critic_gradient(
    experience: Experience, now: Judgement, value_coef: float, entropy: float, normalize: bool = False
) -> dict[str, Tensor]:
    """Write or add ∂L/∂θ, L = mean(−log π·A + c₁·½(V − G)² − c₂·H) over the valid steps; returns its parts."""
    weight = experience.valid / experience.valid.sum().clamp(min=1)  # all may be resets where T = 1
    advantage = experience.advantage
    if normalize:
        advantage = normalize_advantage(advantage, experience.valid)
    loss, d_log_prob = policy_gradient(now.log_prob, advantage)
    error, d_value = value_loss(now.value, experience.target)
    now.backward(d_log_prob.mul_(weight), -entropy * weight, d_value.mul_(weight * value_coef))
    parts = {"policy_loss": loss, "value_loss": error, "entropy": now.entropy}
    return {name: torch.vdot(x.flatten(), weight.flatten()) for name, x in parts.items()}
