import dataclasses
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from volition.algorithms import q_learning as recipe
from volition.core import mdp as M
from volition.envs.table_env import TableEnv
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.run import Run

METHODS = ("q_learning", "sarsa", "expected", "double")


class Chain(gymnasium.Env):
    """Two states, 7 and 8; 0 stays, 1 moves on: 7 → 8 → the end, which pays 1. Staying in 7 pays 0.1.

    γ = ½: Q(8,1) = 1, Q(8,0) = ½·1 = 0.5, Q(7,1) = ½·1 = 0.5, Q(7,0) = 0.1 + ½·0.5 = 0.35. No table is shown.
    """

    observation_space = spaces.Discrete(2, start=7)
    action_space = spaces.Discrete(2)
    masked = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = 7
        return self.state, self.info

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if action == 0:
            return self.state, 0.1 * (self.state == 7), False, False, self.info
        self.state += 1
        over = self.state == 9
        self.state = min(self.state, 8)
        return self.state, float(over), over, False, self.info

    @property
    def info(self) -> dict[str, Any]:
        return {}


Q = torch.tensor([[0.35, 0.5], [0.5, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
def test_chain_without_a_table(method: Any) -> None:
    config = recipe.Config(
        gamma=0.5, method=method, num_envs=4, limit=20, epsilon_end=0.0 if method in ("sarsa", "expected") else 0.5,
        updates=1_500, power=0.7,
    )  # fmt: skip
    agent = recipe.train(config, env=lambda: gymnasium.wrappers.TimeLimit(Chain(), 20))
    q = agent.net.value
    assert q.argmax(-1).tolist() == [1, 1]
    best = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert_close(q.amax(-1), best, rtol=0, atol=0.02)
    if config.epsilon_end:  # off-policy: every pair is met for ever, so all of Q* is found
        assert_close(q.detach(), Q, rtol=0, atol=0.02)
    assert agent.act(7) == 1 and agent.act(8, greedy=True) == 1


def test_an_environment_object() -> None:
    config = recipe.Config(gamma=0.5, updates=300, lr=0.2)
    agent = recipe.train(config, env=gymnasium.wrappers.TimeLimit(Chain(), 20))
    assert_close(agent.net.value.detach(), Q, rtol=0, atol=0.02)


class Once(Chain):
    """One state, one step that pays 1, and then the end, by the world or by the clock."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(1)
    truncates = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return 0, 1.0, not self.truncates, self.truncates, {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("truncates", "value"), [(False, 1.0), (True, 2.0)])
def test_truncation_bootstraps_and_termination_does_not(method: Any, truncates: bool, value: float) -> None:
    # γ = ½: terminated Q = 1; truncated Q = 1 + ½Q = 2
    env = Once()
    env.truncates = truncates
    agent = recipe.train(recipe.Config(gamma=0.5, method=method, updates=400, lr=0.1), env=env)
    assert agent.net.value.item() == pytest.approx(value, abs=1e-3)


class Forbidden(Chain):
    """Action 0 pays 5, but is never legal; the environment ends with either."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(3)

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        assert action != 0
        self.state = 1 - self.state
        return self.state, float(action), False, False, self.info

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        self.state = 0
        return 0, self.info

    @property
    def info(self) -> dict[str, Any]:
        import numpy as np

        return {"action_mask": np.array([0, 1, 1], dtype=np.int8)}


@pytest.mark.parametrize("method", METHODS)
def test_only_legal_actions(method: Any) -> None:
    config = recipe.Config(gamma=0.5, method=method, updates=600, lr=0.1, epsilon_end=0.0)
    agent = recipe.train(config, env=gymnasium.wrappers.TimeLimit(Forbidden(), 10))
    # Q(s,2) = 2 + ½·Q = 4 and the action that was never taken stands at 0
    assert_close(agent.net.value[:, 2].detach(), torch.full((2,), 4.0, dtype=torch.float64), rtol=0, atol=0.1)
    assert (agent.net.value[:, 0] == 0).all()
    assert agent.act(0, greedy=True, mask=[True, True, False]) == 1


def test_update_by_hand() -> None:
    # α = ½; (0,1) is met twice with targets 4 and 8: 1 − (1 − ½)² = ¾ of the way from 2 to their mean 6 is 5.
    table = recipe.Table(2, 2)
    table.q[0, 0, 1] = 2.0
    state, action = torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0])
    target = torch.tensor([4.0, 8.0, 1.0], dtype=torch.float64)
    which = torch.zeros(3, dtype=torch.long)
    error = table.learn(recipe.Config(lr=0.5), which, state, action, target)
    assert error.tolist() == [2, 6, 1]
    assert table.value.tolist() == [[0, 5], [0.5, 0]]
    # visits 3 and 4 of (0,1) with power 1: α = ¼, 1 − (¾)² = 7/16 of the way from 5 to 9 is 6.75
    table.learn(recipe.Config(power=1.0), which[:2], state[:2], action[:2], torch.full((2,), 9.0, dtype=torch.float64))
    assert table.value[0, 1].item() == pytest.approx(6.75)


def test_next_values_by_hand() -> None:
    # Q₁(s') = (1, 3), Q₂(s') = (7, 5); ε = 0.2
    table = recipe.Table(1, 2, tables=2)
    table.q[:, 0] = torch.tensor([[1.0, 3.0], [7.0, 5.0]])
    state, which = torch.zeros(2, dtype=torch.long), torch.tensor([0, 1])

    def value(method: Any, chosen: Any = None) -> list[float]:
        config = recipe.Config(method=method)
        return recipe.next_value(config, table, state, None, which, chosen, 0.2).tolist()

    assert value("q_learning") == [3, 7]
    assert value("double") == [5, 1]  # Q₂ of Q₁'s best action 1; Q₁ of Q₂'s best action 0
    assert value("expected") == pytest.approx([0.2 * 2 + 0.8 * 3, 0.2 * 6 + 0.8 * 7])
    assert value("sarsa", torch.tensor([0, 1])) == [1, 5]


def test_lake_agrees_with_the_exact_solution() -> None:
    config = dataclasses.replace(recipe.VARIANTS["tiny"], updates=2_000, num_envs=128)
    run = Run()
    agent = recipe.train(config, run)
    mdp, _, _ = recipe.setting(config, run)
    assert mdp is not None
    best, _ = M.policy_iteration(mdp)
    q = agent.net.value.detach()
    assert recipe.distance(q, M.bellman_q(mdp, best), recipe.reachable(mdp)) < 0.1
    assert recipe.worth(mdp, M.as_probabilities(mdp, M.greedy_policy(q))) == pytest.approx(
        M.start_value(mdp, best).item(), rel=0.01
    )


def test_reachable_states() -> None:
    # 0 → 1 → 1, and 2 → 0: nobody comes to 2 from 0
    P = torch.zeros(3, 1, 3)
    P[0, 0, 1] = P[1, 0, 1] = P[2, 0, 0] = 1
    mdp = M.MDP(P, torch.zeros(3, 1), 0.9, torch.tensor([1.0, 0.0, 0.0]))
    assert recipe.reachable(mdp).tolist() == [True, True, False]


def test_worth_where_an_episode_never_ends() -> None:
    # γ = 1, a loop that pays 1: no value, but 1,000 in the first 1,000 steps
    mdp = M.MDP(torch.ones(1, 1, 1), torch.ones(1, 1), 1.0)
    assert recipe.worth(mdp, torch.ones(1, 1, dtype=torch.float64)) == 1000


def test_what_cannot_be_a_table_is_refused() -> None:
    for env, message in (
        (lambda: gymnasium.make("CartPole-v1"), "Discrete"),
        (gymnasium.make_vec("CartPole-v1", 2), "not a VectorEnv"),
    ):
        with pytest.raises(VolitionError, match=message):
            recipe.train(recipe.Config(), env=env)
    with pytest.raises(VolitionError, match="Discrete"):
        recipe.train(recipe.Config(env="CartPole-v1"))
    for bad in ({"epsilon": 2.0}, {"lr": -1.0}, {"power": 0.0}, {"num_envs": 0}):
        with pytest.raises(VolitionError):
            recipe.Config(**bad)


# ---- the environment of tables


def table() -> M.MDP:
    # from 0: action 0 goes to 0, 1 or the end with ½, ¼, ¼; action 1 to 1 for sure; from 1 everything ends
    P = torch.zeros(2, 2, 2)
    P[0, 0] = torch.tensor([0.5, 0.25])
    P[0, 1, 1] = 1.0
    return M.MDP(P, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0.9, torch.tensor([0.75, 0.25]))


def test_copies_of_a_table_follow_its_probabilities() -> None:
    env = make(TableEnv(table(), 40_000))
    obs, _ = env.reset(seed=0)
    assert (obs == 1).float().mean().item() == pytest.approx(0.25, abs=0.01)
    action = torch.zeros(40_000, dtype=torch.long)
    following, reward, terminated, truncated, info = env.step(action)
    first = obs == 0
    assert terminated[~first].all() and not truncated.any()
    assert reward[first].eq(1).all() and reward[~first].eq(3).all()
    arrived = info["final_obs"]
    assert terminated[first].float().mean().item() == pytest.approx(0.25, abs=0.01)
    to = arrived[first & ~terminated]
    assert (to == 1).float().mean().item() == pytest.approx(1 / 3, abs=0.015)
    assert following[~terminated].equal(arrived[~terminated])
    assert (following[terminated] == 1).float().mean().item() == pytest.approx(0.25, abs=0.015)  # begun anew
    moved = env.step(torch.ones_like(action))[4]["final_obs"]
    assert (moved[following == 0] == 1).all()


def test_copies_of_a_table_are_cut_off_and_resume() -> None:
    stay = M.MDP(torch.ones(1, 1, 1), torch.ones(1, 1), 0.9)
    env = TableEnv(stay, 2, limit=3)
    env.reset(seed=0)
    cut = [env.step(torch.zeros(2, dtype=torch.long))[3].tolist() for _ in range(6)]
    assert cut == [[False] * 2, [False] * 2, [True] * 2] * 2
    one, other = TableEnv(table(), 8, limit=4), TableEnv(table(), 8, limit=4)
    one.reset(seed=3)
    for _ in range(5):
        one.step(torch.zeros(8, dtype=torch.long))
    other.load_state_dict(one.state_dict())
    for _ in range(10):
        a, b = (env.step(torch.zeros(8, dtype=torch.long)) for env in (one, other))
        assert all(x.equal(y) for x, y in zip(a[:4], b[:4], strict=True))
