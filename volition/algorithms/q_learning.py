"""Q-learning, and SARSA, expected SARSA and double Q-learning: learn what every action is worth by trying.

Watkins (1989), "Learning from delayed rewards"; Sutton & Barto (2018), "Reinforcement learning", chapter 6.

state    s, one of a table
action   a, ε-greedy: argmax_a Q(s,a), or any with probability ε
reward   r and s', from playing; neither P(s'|s,a) nor r(s,a) is known to the learner
training Q(s,a) ← Q(s,a) + α·[r + γ max_a' Q(s',a') − Q(s,a)], for the pairs (s,a) as they are met

The same tables are solved exactly by `value_iteration`: that is what `evaluate` measures against.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import gymnasium
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from volition.algorithms._tables import problem, simulate, single
from volition.core.distributions import Categorical
from volition.core.mdp import MDP, bellman_q, greedy_policy, policy_evaluation, policy_iteration, start_value
from volition.core.policy import PolicyOutput
from volition.core.schedules import epsilon_greedy, linear
from volition.envs.agent import Agent
from volition.envs.grid import Grid, draw_values, strip_grid
from volition.envs.table_env import TableEnv
from volition.envs.tensor_env import TensorEnv
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.run import Run

LIMIT = 1_000  # steps of an episode where nobody says


@dataclass(frozen=True)
class Config:
    env: str = "FrozenLake-v1"
    """A Gymnasium environment with Discrete obs and actions, or the path of your own .npz (see docs/values.md)."""
    map: str = "8x8"
    """FrozenLake only: 4x4, 8x8, or your own rows from top to bottom, as in SFFF/FHFH/FFFH/HFFG."""
    slippery: bool = True
    """FrozenLake and CliffWalking: one step in three goes where it was meant to, two go to either side."""
    gamma: float = 0.99
    """Discount γ."""
    method: Literal["q_learning", "sarsa", "expected", "double"] = "q_learning"
    """What stands for the value of s': max Q, Q of the action taken next, its mean over π, or two tables' max."""
    num_envs: int = 1_024
    """Copies of the environment that are played at once and learn one table."""
    tensors: bool = True
    """Play copies of the transition table, a thousand at once; False plays the environment itself."""
    anywhere: bool = True
    """With `tensors`: training's episodes begin in any state (exploring starts), not where the environment's do."""
    lr: float = 0.0
    """Constant step size α; 0 for N(s,a)^−power at the N-th visit of (s,a)."""
    power: float = 0.6
    """Of that schedule: 1 is the plain mean of all targets, which keeps what it learned first for very long."""
    epsilon: float = 1.0
    """Probability ε of an action at random, at the start."""
    epsilon_end: float = 0.5
    """ε after half of the updates; Q-learning learns of the greedy policy, however it explores."""
    updates: int = 20_000
    """Steps of every copy."""
    episodes: int = 2_000
    """Episodes that `evaluate` plays with each policy."""
    limit: int = 0
    """Steps after which an episode is cut off; 0: the environment's own limit where it has one, or 1,000."""

    def __post_init__(self) -> None:
        if not (0 <= self.epsilon <= 1 and 0 <= self.epsilon_end <= 1 and 0 <= self.gamma <= 1):
            raise VolitionError("epsilon, epsilon_end and gamma must lie in 0 … 1")
        if not (0 <= self.lr <= 1 and 0 < self.power <= 1) or self.num_envs < 1:
            raise VolitionError("lr must lie in 0 … 1, power in 0 … 1 but not be 0, and num_envs be 1 or more")


_SARSA = Config(method="sarsa", limit=200, lr=0.02, epsilon_end=0.02)
VARIANTS = {
    "tiny": Config(map="4x4", num_envs=64, updates=400, episodes=200),
    "laptop": Config(limit=200),  # as Gymnasium registers FrozenLake8x8-v1
    "sarsa": _SARSA,  # on-policy: it learns of what it plays, so ε goes towards 0
    "expected": replace(_SARSA, method="expected"),
    "double": Config(method="double", limit=200),
    "cliff": Config(env="CliffWalking-v1", slippery=False, gamma=1.0, limit=500, updates=5_000, episodes=100),
    "taxi": Config(env="Taxi-v4", limit=200),
    # Watkins' algorithm as it is written: one environment, one step at a time, from its own start
    "one": Config(map="4x4", num_envs=1, tensors=False, updates=300_000, lr=0.05, epsilon_end=0.2),
}
PAPER = {
    "metric": "return",
    "unit": "per episode",
    "better": "higher",
    "baselines": ("random_return", "optimal_return"),
    "data": "",
    "source": "",
    "rows": {},
}


class Table(nn.Module):
    """Q(s,a) `[K, S, A]` in float64, K = 2 tables for double Q-learning, and how often each pair was met.

    As a policy it is greedy; obs `[B]` is the number of the state, counted from `first`.
    """

    visits: Tensor

    def __init__(self, states: int, actions: int, tables: int = 1, first: int = 0) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.zeros(tables, states, actions, dtype=torch.float64), requires_grad=False)
        self.register_buffer("visits", torch.zeros_like(self.q))
        self.first = first

    @property
    def value(self) -> Tensor:
        """Q(s,a) `[S, A]`, the mean of the tables."""
        return self.q.mean(0)

    def forward(self, obs: Tensor, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        q = self.value[obs.long() - self.first]
        best = greedy_policy(q if mask is None else q.masked_fill(~mask, -torch.inf))
        return PolicyOutput(Categorical(nn.functional.one_hot(best, q.shape[-1]).log()), None, q.amax(-1))

    def initial_state(self, batch: int) -> None:
        return None

    @torch.no_grad()
    def learn(self, config: Config, which: Tensor, state: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Q(s,a) ← Q(s,a) + α·[target − Q(s,a)], all `[B]`; returns the errors in the brackets.

        A pair that occurs n times in the batch goes 1 − (1 − α)ⁿ of the way to the mean of its targets: as far as n
        updates one after the other.
        """
        _, states, actions = self.q.shape
        place = (which * states + state) * actions + action
        q, visits = self.q.view(-1), self.visits.view(-1)
        error = target - q[place]
        total = torch.zeros_like(q).index_add_(0, place, error)
        met = torch.bincount(place, minlength=len(q)).double()
        visits += met
        alpha = torch.full_like(q, config.lr) if config.lr else visits.clamp(min=1) ** -config.power
        q += (1 - (1 - alpha) ** met) * total / met.clamp(min=1)
        return error


class Following:
    """The action that SARSA has chosen already: it was part of its last target."""

    def __init__(self) -> None:
        self.action: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"action": self.action}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.action = state["action"]


def train(config: Config, run: Run | None = None, env: Any = None) -> Agent:
    """Play ε-greedily and learn from every step; returns the greedy agent."""
    run = run or Run()
    mdp, played = setting(config, run, env)[0], training(config, run, env)
    played.reset(seed=run.seed)
    agent, following = make_agent(played, 1 + (config.method == "double")).to(run.device), Following()
    table = agent.net
    run.track(policy=agent, env=played, following=following)
    exact = None if mdp is None else (bellman_q(mdp, policy_iteration(mdp)[0]), reachable(mdp))
    for update in run.loop(config.updates):
        epsilon = linear(update, config.epsilon, config.epsilon_end, config.updates // 2)

        def choose(state: Tensor, allowed: Tensor | None, epsilon: float = epsilon) -> Tensor:
            return epsilon_greedy(table.value[state], epsilon, run.generator, allowed)

        state, mask = played.obs - table.first, legal(played, run.device)
        action = choose(state, mask) if following.action is None else following.action.to(run.device)
        obs, reward, terminated, truncated, info = played.step(action)
        done, mask = terminated | truncated, legal(played, run.device)
        arrived = (torch.where(done, info["final_obs"], obs) if "final_obs" in info else obs) - table.first
        allowed = None if mask is None else mask | done[:, None]  # of the obs before a reset nothing is told

        which = torch.zeros_like(state)
        if config.method == "double":
            which = torch.randint(2, state.shape, generator=run.generator, device=run.device)
        chosen = choose(arrived, allowed) if config.method == "sarsa" else None
        value = next_value(config, table, arrived, allowed, which, chosen, epsilon)
        target = reward + config.gamma * value * ~terminated
        if chosen is not None:
            following.action = torch.where(done, choose(obs - table.first, mask), chosen)

        real = ~info["ignored"] if "ignored" in info else torch.ones_like(done)
        error = table.learn(config, which[real], state[real], action[real], target[real])
        run.log(update, surprise=error.abs().mean() if len(error) else 0.0, epsilon=epsilon)
        if exact is not None:
            run.log(update, error=distance(table.value, *exact))
    return agent


def next_value(
    config: Config,
    table: Table,
    state: Tensor,
    allowed: Tensor | None,
    which: Tensor,
    chosen: Tensor | None,
    epsilon: float,
) -> Tensor:
    """What s' `[B]` is taken to be worth (Sutton & Barto 2018, eq. 6.7, 6.8, 6.9 and 6.10)."""
    q = table.q[which, state] if allowed is None else table.q[which, state].masked_fill(~allowed, -torch.inf)
    if chosen is not None:  # Q(s',a') of the action that will be taken
        return q.gather(-1, chosen[:, None]).squeeze(-1)
    if config.method == "expected":  # Σ_a π(a|s') Q(s',a), π being ε-greedy
        everywhere = q.isfinite()
        mean = torch.where(everywhere, q, 0).sum(-1) / everywhere.sum(-1)
        return epsilon * mean + (1 - epsilon) * q.amax(-1)
    if config.method == "double":  # Q₂(s', argmax_a Q₁(s',a)), and the other way round
        return table.q[1 - which, state, q.argmax(-1)]
    return q.amax(-1)


def setting(config: Config, run: Run, env: Any = None) -> tuple[MDP | None, gymnasium.Env, Grid | None]:
    """The process, if the environment shows its table, one environment to play, and a map of its states."""
    one = env() if callable(env) else env
    if isinstance(one, VectorEnv):
        raise VolitionError("q_learning takes one environment or a function that makes one, not a VectorEnv")
    if one is None and not config.env.endswith(".npz"):
        found = single(config)
        one = None if hasattr(found.unwrapped, "P") else found
    if one is None or hasattr(one.unwrapped, "P"):
        return problem(config, run, one)
    for which, space in (("observation", one.observation_space), ("action", one.action_space)):
        if not isinstance(space, Discrete):
            raise VolitionError(f"a table needs Discrete states and actions; the {which} space is {space}: train dqn")
    return None, one, None


def training(config: Config, run: Run, env: Any = None) -> TensorEnv:
    """What is played in training: copies of the table, or the environment itself."""
    mdp, one, _ = setting(config, run, env)
    if mdp is not None and config.tensors:
        mdp = replace(mdp, start=None) if config.anywhere else mdp
        copies = TableEnv(mdp, config.num_envs, config.limit or LIMIT, run.device)
        return make(copies, device=run.device)
    if isinstance(env, gymnasium.Env):
        return make(one, 1, device=run.device)
    return make(lambda: setting(config, run, env)[1], config.num_envs, device=run.device)


def make_agent(played: TensorEnv | gymnasium.Env, tables: int) -> Agent:
    """Tables of zeros for the environment's states and actions."""
    obs: Any = played.single_observation_space if isinstance(played, TensorEnv) else played.observation_space
    act: Any = played.single_action_space if isinstance(played, TensorEnv) else played.action_space
    return Agent(Table(int(obs.n), int(act.n), tables, int(obs.start)), obs, act)


def legal(played: TensorEnv, device: torch.device) -> Tensor | None:
    """Which actions are legal now `[B, A]`, if the environment says so."""
    return None if played.mask is None else torch.as_tensor(played.mask).bool().to(device)


def reachable(mdp: MDP) -> Tensor:
    """The states that an episode can come to `[S]`."""
    assert mdp.start is not None
    found, edges = mdp.start.gt(0), mdp.transition.sum(1).gt(0)
    while not found.equal(grown := found.logical_or(edges[found].any(0))):
        found = grown
    return found


def distance(q: Tensor, exact: Tensor, states: Tensor) -> float:
    """‖Q − Q*‖_∞ over some states."""
    return (q.detach().cpu() - exact)[states].abs().max().item()


def load(config: Config, run: Run, env: Any = None) -> Agent:
    """The agent with the run's tables."""
    agent = make_agent(setting(config, run, env)[1], 1 + (config.method == "double"))
    run.track(policy=agent)
    return agent


def evaluate(config: Config, run: Run, env: Any = None) -> dict[str, float | list[float]]:
    """What the greedy policy earns, beside the best one and random actions; and Q against the exact Q*.

    return, discounted return, success and steps are means over played episodes (_se: standard errors). With a table
    also error = ‖Q − Q*‖_∞ over states that can be reached, and value = ρ·V^π by linear solve, for all three policies.
    """
    mdp, one, grid = setting(config, run, env)
    q, space = load(config, run, env).net.value.detach().cpu(), cast(Discrete, one.observation_space)
    policies = {"": greedy_policy(q)}
    results: dict[str, float | list[float]] = {}
    if mdp is not None:
        best, pi = policy_iteration(mdp)
        results["error"] = distance(q, bellman_q(mdp, best), reachable(mdp))
        policies |= {"optimal_": pi.argmax(-1)}
    policies |= {"random_": torch.full_like(q, 1 / q.shape[-1])}
    for name, policy in policies.items():
        pi = policy if policy.ndim == 2 else nn.functional.one_hot(policy, q.shape[-1]).double()
        if mdp is not None:
            results[f"{name}value"] = worth(mdp, pi)
        played = simulate(one, pi, config.gamma, config.episodes, run.seed, grid, int(space.start))
        results |= {f"{name}{key}": number for key, number in played.items()}
    return results


def worth(mdp: MDP, pi: Tensor) -> float:
    """ρ·V^π by linear solve; where γ = 1 and π may go on for ever, of its first 1,000 steps."""
    try:
        return start_value(mdp, policy_evaluation(mdp, pi)).item()
    except VolitionError:
        value = torch.zeros_like(mdp.reward[:, 0])
        for _ in range(LIMIT):
            value = (pi * bellman_q(mdp, value)).sum(-1)
        return start_value(mdp, value).item()


def watch(config: Config, run: Run, env: Any = None) -> list[Path]:
    """max_a Q(s,a) as colours and the greedy policy as arrows on the map."""
    _, _, grid = setting(config, run, env)
    q = load(config, run, env).net.value.detach().cpu()
    path = run.path("values.png")
    pi = nn.functional.one_hot(greedy_policy(q), q.shape[-1])
    title = f"{Path(config.env).stem}: max Q and its policy by {config.method}, γ = {config.gamma:g}"
    draw_values(path, q.amax(-1), pi, grid or strip_grid(*q.shape), title)
    return [path]
