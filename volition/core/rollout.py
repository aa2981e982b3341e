"""Acting and re-reading: rollout plays a policy in an environment, unroll re-evaluates it on what was played."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from volition.core.policy import (
    Policy,
    PolicyOutput,
    Tree,
    stack_distributions,
    tree_map,
    tree_stack,
    tree_where,
)
from volition.core.trajectory import Trajectory


def rollout(
    env: Any,
    policy: Policy,
    obs: Tree,
    state: Tree,
    steps: int,
    *,
    gamma: float = 1.0,
    generator: torch.Generator | None = None,
    greedy: bool = False,
    grad: bool = False,
    until_done: bool = False,
) -> tuple[Trajectory, Tree, Tree]:
    """Play a_t ~ π(·|s_t) for `steps` steps and return (τ `[T, B]`, obs and state to go on from).

    `env` is a vector environment in tensors with SAME_STEP autoreset: the obs after an ended episode starts the next
    one, and `info["final_obs"]` holds the one that ended it, from which a truncated step is bootstrapped. Recurrent
    state starts anew with each episode. With `grad` the graph through time is kept; without it nothing is recorded.
    `greedy` takes the mode of π. `until_done` plays one episode per environment: the mask ends with each environment's
    first episode, and play stops when all have ended.
    """
    if generator is None and not greedy:
        raise ValueError("sampling needs a generator: give one, or greedy=True")
    start, rows, outputs, alive = state, [], [], None
    with torch.set_grad_enabled(grad):
        for _ in range(steps):
            output = policy(obs, state)
            with torch.no_grad():  # an action is data: no gradient flows through the sample
                action = (
                    output.distribution.mode() if generator is None or greedy else output.distribution.sample(generator)
                )
            next_obs, reward, terminated, truncated, info = env.step(action)
            done = terminated | truncated
            alive = torch.ones_like(done) if alive is None else alive
            rows.append(
                {
                    "obs": obs,
                    "action": action,
                    "reward": reward,
                    "discount": gamma * (~terminated).to(reward.dtype),
                    "done": done,
                    "value": torch.zeros_like(reward) if output.value is None else output.value,
                    "mask": alive & ~info["ignored"] if "ignored" in info else alive,
                    "truncated": truncated,
                    "final_value": _final_value(policy, output, truncated, info, reward),
                }
            )
            outputs.append(output)
            obs, state = next_obs, _restart(policy, output.state, done)
            if until_done:
                alive = alive & ~done
                if not alive.any():
                    break
        column = {key: tree_stack([row[key] for row in rows]) for key in rows[0]}
        distribution = stack_distributions([output.distribution for output in outputs])
        log_prob = distribution.log_prob(column["action"])  # of all T·B actions at once
    truncated, final_value = column.pop("truncated"), column.pop("final_value")
    with torch.no_grad():
        last = torch.zeros_like(column["value"][0]) if outputs[-1].value is None else _value(policy, obs, state)
    following = torch.cat([column["value"][1:].detach(), last[None]])
    next_value = torch.where(truncated, final_value, following)
    trajectory = Trajectory(
        **column,
        log_prob=log_prob,
        next_value=next_value,
        state=start,
        distribution=distribution,
        outputs=tuple(outputs),
    )
    return trajectory, obs, state


class Evaluation(NamedTuple):
    """What a policy says today of a trajectory played earlier: each field `[T, B]`, with gradients."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor


def unroll(policy: Policy, trajectory: Trajectory) -> Evaluation:
    """Re-evaluate log π(a_t|s_t), the entropy and V(s_t) on a trajectory, with gradients through time.

    A stateless policy is called once on all T·B rows; a recurrent one step by step from the trajectory's initial
    state, which starts anew after every done, exactly as when it acted. One that has
    `sequence(obs, state, done) -> PolicyOutput`, over `[T, B]` from the state `[B]`, is called once too.
    """
    steps, batch = trajectory.reward.shape
    if trajectory.state is None:
        flat = tree_map(lambda x: x.flatten(0, 1), (trajectory.obs, trajectory.action))
        evaluation = _evaluate(policy(flat[0], None), flat[1])
        return Evaluation(*(x.unflatten(0, (steps, batch)) for x in evaluation))
    if hasattr(policy, "sequence"):
        output = policy.sequence(trajectory.obs, trajectory.state, trajectory.done)
        return _evaluate(output, trajectory.action)
    state, evaluations = trajectory.state, []
    for t in range(steps):
        obs, action = tree_map(lambda x, t=t: x[t], (trajectory.obs, trajectory.action))
        output = policy(obs, state)
        evaluations.append(_evaluate(output, action))
        state = _restart(policy, output.state, trajectory.done[t])
    return tree_stack(evaluations)


class EpisodeStatistics:
    """Return and length of each finished episode, and running means over the last `window` of them."""

    def __init__(self, num_envs: int, window: int = 100) -> None:
        self.window = window
        self.running_return = torch.zeros(num_envs, dtype=torch.float64)
        self.running_length = torch.zeros(num_envs, dtype=torch.int64)
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.episodes = 0

    def update(self, reward: Tensor, done: Tensor, mask: Tensor) -> None:
        """Add T steps `[T, B]`; rows with mask False do not count."""
        real = mask.cpu().numpy()
        earned, over = np.asarray(reward.cpu().numpy() * real, np.float64), done.cpu().numpy() & real
        if not over.any():  # the common case of a short rollout
            self.running_return = self.running_return + torch.from_numpy(earned.sum(0))
            self.running_length = self.running_length + torch.from_numpy(real.sum(0))
            return
        earned = earned.cumsum(0) + self.running_return.numpy()
        length = real.cumsum(0) + self.running_length.numpy()
        self.running_return, self.running_length = torch.from_numpy(earned[-1]), torch.from_numpy(length[-1])
        ended = list(zip(*(x.tolist() for x in over.nonzero()), strict=True))
        ends: list[tuple[float, int]] = []
        before = {}  # environment → sums up to the end of its last episode
        for t, b in ended:
            upto = (float(earned[t, b]), int(length[t, b]))
            first = before.get(b, (0.0, 0))
            ends.append((upto[0] - first[0], upto[1] - first[1]))
            before[b] = upto
        for b, (total, steps) in before.items():
            self.running_return[b] -= total
            self.running_length[b] -= steps
        self.add(ends)

    def add(self, ends: list[tuple[float, int]]) -> None:
        """Add finished episodes by their return and length."""
        self.episodes += len(ends)
        # new lists: a state_dict may hold the old ones
        self.returns = (self.returns + [total for total, _ in ends])[-self.window :]
        self.lengths = (self.lengths + [steps for _, steps in ends])[-self.window :]

    @property
    def mean_return(self) -> float:
        """Mean return of the last `window` finished episodes; 0 before the first has ended."""
        return sum(self.returns) / max(1, len(self.returns))

    @property
    def mean_length(self) -> float:
        """Mean length of the last `window` finished episodes in steps; 0 before the first has ended."""
        return sum(self.lengths) / max(1, len(self.lengths))

    def state_dict(self) -> dict[str, Any]:
        """All that the means and the episodes under way depend on."""
        return {name: value for name, value in vars(self).items() if name != "window"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        for name, value in state.items():
            setattr(self, name, value.clone() if isinstance(value, Tensor) else value)


def _evaluate(output: PolicyOutput, action: Tree) -> Evaluation:
    log_prob = output.distribution.log_prob(action)
    value = torch.zeros_like(log_prob) if output.value is None else output.value
    return Evaluation(log_prob, output.distribution.entropy(), value)


def _restart(policy: Policy, state: Tree, done: Tensor) -> Tree:
    """The state to go on with: the initial one in rows whose episode has ended."""
    if state is None or not done.any():
        return state
    return tree_where(done, policy.initial_state(done.shape[0]), state)


def _final_value(
    policy: Policy, output: PolicyOutput, truncated: Tensor, info: dict[str, Any], reward: Tensor
) -> Tensor:
    """V(final_obs) where the step was truncated, 0 elsewhere."""
    if output.value is None or not truncated.any():
        return torch.zeros_like(reward)
    with torch.no_grad():
        value = _value(policy, info["final_obs"], output.state)
    return torch.where(truncated, value, torch.zeros_like(value))


def _value(policy: Policy, obs: Tree, state: Tree) -> Tensor:
    value = policy(obs, state).value
    if value is None:
        raise ValueError("the policy gave a value for some obs and none for others")
    return value
