"""Value iteration and policy iteration: solve a Markov decision process that is small enough to write down.

Bellman (1957), "Dynamic programming"; Howard (1960), "Dynamic programming and Markov processes".

state    s, one of a table
action   a
reward   r(s,a), with transitions P(s'|s,a) that are known
training value:  Q_{i+1}(s,a) = E[r + γ max_a' Q_i(s',a') | s,a], until V is proved to be near V*
         policy: V^π by linear solve, π(s) ← argmax_a Q^π(s,a), until no state changes
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from volition.algorithms._tables import problem, simulate
from volition.core.distributions import Categorical
from volition.core.mdp import (
    MDP,
    as_probabilities,
    bellman_q,
    greedy_policy,
    policy_evaluation,
    policy_improvement,
    start_value,
    stopping_residual,
    uniform_policy,
)
from volition.core.policy import PolicyOutput
from volition.envs.grid import draw_values
from volition.run import Run


@dataclass(frozen=True)
class Config:
    env: str = "FrozenLake-v1"
    """A Gymnasium environment with a transition table, or the path of your own .npz (see docs/values.md)."""
    map: str = "8x8"
    """FrozenLake only: 4x4, 8x8, or your own rows from top to bottom, as in SFFF/FHFH/FFFH/HFFG."""
    slippery: bool = True
    """FrozenLake and CliffWalking: one step in three goes where it was meant to, two go to either side."""
    gamma: float = 0.99
    """Discount γ; with 1 every episode must end, and the tolerance is no longer a proof."""
    method: Literal["value", "policy"] = "value"
    """Value iteration or policy iteration."""
    tolerance: float = 1e-8
    """Value iteration stops when V is proved to be this close to V* in every state."""
    updates: int = 100_000
    """Sweeps (or policies) at most; it stops by itself long before."""
    episodes: int = 2_000
    """Episodes that `evaluate` plays with each policy."""
    limit: int = 0
    """Steps after which such an episode is cut off; 0: the environment's own limit, or 1,000."""


VARIANTS = {
    "tiny": Config(map="4x4", tolerance=1e-6, episodes=1_000),
    "laptop": Config(limit=200),  # as Gymnasium registers FrozenLake8x8-v1
    "paper": Config(limit=200, tolerance=1e-12, episodes=20_000),
    "policy": Config(limit=200, method="policy"),
    "cliff": Config(env="CliffWalking-v1", slippery=False, gamma=1.0, limit=500, episodes=1_000),
    "taxi": Config(env="Taxi-v4", method="policy"),
}
PAPER = {
    "metric": "return",
    "unit": "per episode",
    "better": "higher",
    "baselines": ("random_return",),
    "data": "",
    "source": "",
    "rows": {},
}


class TablePolicy(nn.Module):
    """π(a|s) `[S, A]` and V(s) `[S]` as tables of float64; obs `[B]` is the number of the state."""

    def __init__(self, mdp: MDP) -> None:
        super().__init__()
        self.pi = nn.Buffer(uniform_policy(mdp))
        self.value = nn.Buffer(torch.zeros(mdp.states, dtype=torch.float64))

    def forward(self, obs: Tensor, state: None = None) -> PolicyOutput:
        return PolicyOutput(Categorical(self.pi[obs].log()), None, self.value[obs])

    def initial_state(self, batch: int) -> None:
        return None


def train(config: Config, run: Run | None = None) -> TablePolicy:
    """Sweep until V is V*; returns the greedy policy and its values."""
    run = run or Run()
    mdp, _, _ = problem(config, run)
    policy = TablePolicy(mdp)
    run.track(policy=policy)
    enough = stopping_residual(mdp.gamma, config.tolerance)
    for update in run.loop(config.updates):
        if config.method == "value":
            q = bellman_q(mdp, policy.value)  # Q_{i+1}(s,a) = r + γ Σ_s' P(s'|s,a) V_i(s')
            value = q.amax(-1)  # V_{i+1}(s) = max_a Q_{i+1}(s,a)
            residual = (value - policy.value).abs().max().item()
            pi = as_probabilities(mdp, greedy_policy(q))
            settled = residual <= enough
        else:
            value = policy_evaluation(mdp, policy.pi)  # V^π
            residual = (bellman_q(mdp, value).amax(-1) - value).abs().max().item()
            pi, changed = policy_improvement(mdp, policy.pi, value)
            settled = not changed.any()
        policy.value.copy_(value)
        policy.pi.copy_(pi)
        run.log(update, residual=residual, start_value=start_value(mdp, value))
        if settled:
            break
    return policy


def evaluate(config: Config, run: Run) -> dict[str, float | list[float]]:
    """V against an exact solve, and what π earns in the environment itself, beside uniformly random actions.

    value = ρ·V, exact_value = ρ·V^π by linear solve, error = ‖V − V^π‖_∞. Over played episodes, with standard
    errors (_se): return, discounted return, success (terminated, and not in a hole) and steps.
    """
    mdp, env, grid = problem(config, run)
    policy = TablePolicy(mdp)
    run.track(policy=policy)
    exact = policy_evaluation(mdp, policy.pi)
    results: dict[str, float | list[float]] = {
        "value": start_value(mdp, policy.value).item(),
        "exact_value": start_value(mdp, exact).item(),
        "error": (policy.value - exact).abs().max().item(),
    }
    results |= simulate(env, policy.pi, config.gamma, config.episodes, run.seed, grid)
    random = uniform_policy(mdp)
    results["random_exact_value"] = start_value(mdp, policy_evaluation(mdp, random)).item()
    played = simulate(env, random, config.gamma, config.episodes, run.seed, grid)
    return results | {f"random_{name}": number for name, number in played.items()}


def watch(config: Config, run: Run) -> list[Path]:
    """V as colours and π as arrows on the map."""
    mdp, _, grid = problem(config, run)
    policy = TablePolicy(mdp)
    run.track(policy=policy)
    path = run.path("values.png")
    title = f"{Path(config.env).stem}: V and π by {config.method} iteration, γ = {mdp.gamma:g}"
    draw_values(path, policy.value, policy.pi, grid, title)
    return [path]
