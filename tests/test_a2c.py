"""What T steps of play teach, and A2C's step on it, in numbers worked by hand."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_ppo import (  # pyrefly: ignore
    Chain,
    Diary,
    Levers,
    Recall,
    crash_and_go_on,
    earned,
    one,
)
from torch import Tensor, nn
from torch.testing import assert_close

from volition.algorithms import a2c
from volition.algorithms._actor_critic import (
    Experience,
    actor_critic_gradient,
    judge_again,
    learn_from,
    make_agent,
)
from volition.algorithms._episodes import scores
from volition.core.collect import Collector, Steps
from volition.core.distributions import Categorical
from volition.core.policy import PolicyOutput, tree_where
from volition.envs.agent import Agent, Player
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.nets.actor_critic import Judgement
from volition.run import Run

BOX = spaces.Box(-9, 9, (1,))


class Table(nn.Module):
    """Fair coin; V(s) = the obs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Tensor, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(Categorical(torch.zeros(*obs.shape[:-1], 2), mask), None, obs[..., 0] + self.none)

    def initial_state(self, batch: int) -> None:
        return None


def test_advantages_of_two_environments_by_hand() -> None:
    no, yes = False, True
    truncated = torch.tensor([[no, no], [yes, no], [no, no]])
    terminated = torch.tensor([[no, yes], [no, no], [no, no]])
    steps = Steps(
        obs=torch.tensor([[1.0, 2.0], [2.0, 0.0], [3.0, 1.0], [4.0, 6.0]]).unsqueeze(-1),
        action=torch.zeros(3, 2, dtype=torch.long),
        reward=torch.tensor([[1.0, 1.0], [0.0, 1.0], [2.0, 1.0]]),
        terminated=terminated,
        truncated=truncated,
        valid=torch.ones(3, 2, dtype=torch.bool),
        fresh=torch.cat([torch.ones(1, 2, dtype=torch.bool), terminated | truncated]),
        final=(torch.tensor([2]), torch.tensor([[10.0]])),  # row 1·2 + 0
        mask=None,
    )
    experience, now = learn_from(Agent(Table(), BOX, spaces.Discrete(2)), steps, None, 0.5, 0.5, steps.reward)
    # first: 2 + ½·4 − 3 = 1; cut off: 0 + ½·10 − 2 = 3; 1 + ½·2 − 1 + ¼·3 = 1.75
    # second: 1 + ½·6 − 1 = 3; 1 + ½·1 − 0 + ¼·3 = 2.25; terminated: 1 − 2 = −1
    assert_close(experience.advantage, torch.tensor([1.75, -1.0, 3.0, 2.25, 1.0, 3.0]))
    assert_close(experience.target, torch.tensor([2.75, 1.0, 5.0, 2.25, 4.0, 4.0]))
    assert_close(experience.value, torch.tensor([1.0, 2.0, 2.0, 0.0, 3.0, 1.0]))
    assert_close(experience.log_prob, torch.full((6,), -math.log(2)))
    assert_close(now.value, experience.value)
    assert experience.total == 6 and experience.state is None
    # other rewards may be learned than those that were earned
    scaled, _ = learn_from(Agent(Table(), BOX, spaces.Discrete(2)), steps, None, 0.5, 0.0, 10 * steps.reward)
    assert_close(scaled.advantage, torch.tensor([10.0, 8.0, 3.0, 10.5, 19.0, 12.0]))


def invented() -> tuple[Experience, list[Tensor], Judgement]:
    row = torch.tensor
    experience = Experience(
        obs=row([0.0] * 4),
        action=row([0] * 4),
        mask=None,
        log_prob=row([0.0] * 4),
        value=row([0.0] * 4),
        advantage=row([2.0, -1.0, 0.5, 100.0]),
        target=row([2.0, 2.0, 1.0, 0.0]),
        valid=row([True, True, True, False]),
    )
    heard: list[Tensor] = []
    now = Judgement(
        row([-1.0, -2.0, -3.0, 5.0]),
        row([0.5, 0.6, 0.7, 9.0]),
        row([1.0, 2.0, 3.0, 9.0]),
        lambda *gradients: heard.extend(gradients),
    )
    return experience, heard, now


def test_the_gradient_by_hand() -> None:
    experience, heard, now = invented()
    parts = actor_critic_gradient(experience, now, value_coef=0.5, entropy=0.1)
    # each valid step weighs ⅓: −A/3, −0.1/3 and ½(V − G)/3
    assert_close(heard[0], torch.tensor([-2 / 3, 1 / 3, -1 / 6, 0.0]))
    assert_close(heard[1], torch.tensor([-0.1 / 3] * 3 + [0.0]))
    assert_close(heard[2], torch.tensor([-1 / 6, 0.0, 1 / 3, 0.0]))
    # −log π·A: 2, −2, 1.5; ½(G − V)²: ½, 0, 2; H: 0.5, 0.6, 0.7
    assert {name: round(x.item(), 5) for name, x in parts.items()} == {
        "policy_loss": 0.5, "value_loss": round(2.5 / 3, 5), "entropy": 0.6,
    }  # fmt: skip


def test_the_gradient_with_advantages_made_alike_by_hand() -> None:
    experience, heard, now = invented()
    actor_critic_gradient(experience, now, value_coef=0.5, entropy=0.0, normalize=True)
    # mean ½, variance (1.5² + 1.5² + 0)/3 = 1.5
    scaled = 1.5 / math.sqrt(1.5)
    assert_close(heard[0], torch.tensor([-scaled / 3, scaled / 3, 0.0, 0.0]))


class Nowhere(gymnasium.Env):
    """The obs is always 0, so that V and π are biases alone; rewards 1 and 2, then the end."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)

    def __init__(self) -> None:
        self.actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        self.actions.append(int(action))
        return np.zeros(3, np.float32), float(self.t), self.t == 2, False, {}


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_one_update_by_hand(optimizer: Any) -> None:
    config = a2c.Config(
        num_envs=1, horizon=2, gamma=0.5, lam=1.0, lr=0.1, steps=2, hidden=(4,), optimizer=optimizer, entropy=0.3,
        value_coef=0.5, normalize_advantage=False,
    )  # fmt: skip
    env = Nowhere()
    agent = a2c.train(config, env=env)
    first = a2c.train(dataclasses.replace(config, lr=0.0), env=Nowhere())
    # G = 1 + ½·2 = 2 and 2, V = 0, so A = 2 twice. π = (½, ½), where the entropy is flat.
    # mean over two steps of −A·([k = a] − ½): −1 for the action taken, 1 for the other; of c₁(V − G): −1
    score = np.mean([[-2 * ((k == a) - 0.5) for k in (0, 1)] for a in env.actions], 0)
    # to the hidden biases it comes through the last weights, with tanh′(0) = 1; no weight has an input but 0
    last = {name: p.detach().double().numpy() for name, p in first.net.named_parameters()}
    gradient = {
        "actor_bias": score,
        "critic_bias": np.array([-1.0]),
        "stack.biases.0": np.stack([last["actor"] @ score, -last["critic"][:, 0]])[:, None],
    }
    length = math.sqrt(sum((g**2).sum() for g in gradient.values()))
    for name, p in agent.net.named_parameters():
        g = gradient.get(name, np.zeros(p.shape)) * min(1, 0.5 / length)  # max_norm
        if optimizer == "rmsprop":  # v = 0.99·1 + 0.01·g²
            step = 0.1 * g / np.sqrt(0.99 + 0.01 * g**2 + 1e-5)
        else:
            step = 0.1 * g / (abs(g) + 1e-5)
        assert_close(p.detach().double(), torch.tensor(last[name] - step), rtol=1e-4, atol=1e-6, msg=name)
    assert agent.net.critic_bias.item() > 0.02


# ---- memory


def remembering(hidden: int = 3) -> tuple[Agent, Collector, Player]:
    torch.manual_seed(0)
    env = make(Diary, 5)
    env.reset(seed=0)
    agent = make_agent(a2c.Config(hidden=(6,), memory=hidden), env)
    with torch.no_grad():
        for p in agent.parameters():
            p.add_(0.5 * torch.randn(p.shape))
    return agent, Collector(env, 7), Player(agent, env, torch.Generator().manual_seed(0), 7)


def test_sequences_are_what_the_policy_said_step_by_step() -> None:
    agent, collector, player = remembering()
    for _ in range(3):
        state = player.state
        steps = collector.collect(player)
        experience, now = learn_from(agent, steps, state, 0.9, 0.8, steps.reward)
        h, log_prob, value, following = state, [], [], []
        next_obs = steps.next_obs()
        with torch.no_grad():
            for t in range(7):
                h = tree_where(steps.fresh[t], agent.initial_state(5), h)
                pi, h, v = agent(steps.obs[t], h)
                log_prob.append(pi.log_prob(steps.action[t]))
                value.append(v)
                following.append(agent(next_obs[t], h).value)  # from the memory before any new beginning
        assert steps.truncated.any() and steps.terminated.any()
        assert_close(experience.log_prob, torch.stack(log_prob), rtol=0, atol=1e-6)
        assert_close(experience.value, torch.stack(value), rtol=0, atol=1e-6)
        assert_close(now.value, experience.value)
        assert_close(player.state, h, rtol=0, atol=1e-6)
        # λ = 0: A = r + γV(s′) − V(s), V(s′) only where the episode goes on or was cut off
        td, _ = learn_from(agent, steps, state, 0.9, 0.0, steps.reward)
        expected = steps.reward + 0.9 * ~steps.terminated * torch.stack(following) - torch.stack(value)
        assert_close(td.advantage, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hidden", [2, 9])
def test_some_sequences_are_those_of_all(hidden: int) -> None:
    agent, collector, player = remembering(hidden)
    collector.collect(player)
    state = player.state
    steps = collector.collect(player)
    whole, _ = learn_from(agent, steps, state, 0.9, 0.8, steps.reward)
    assert whole.total == 5
    index = torch.tensor([4, 0, 3])
    for part, chosen in ((whole.take(index), index), (whole.take(index).slice(1, 3), index[1:])):
        assert part.total == len(chosen)
        for name in ("obs", "action", "log_prob", "value", "advantage", "target", "valid", "done"):
            assert_close(getattr(part, name), getattr(whole, name)[:, chosen], rtol=0, atol=0)
        assert_close(part.state, whole.state[chosen], rtol=0, atol=0)
        again = judge_again(agent, part)
        assert_close(again.log_prob, whole.log_prob[:, chosen], rtol=0, atol=1e-6)
        assert_close(again.value, whole.value[:, chosen], rtol=0, atol=1e-6)
    # and the state with which it began counts
    assert whole.state.abs().max() > 0.01
    forgotten = judge_again(agent, whole._replace(state=torch.zeros_like(whole.state)))
    assert (forgotten.value - whole.value).abs().max() > 1e-3


def test_memory_begins_anew_after_each_end() -> None:
    agent, collector, player = remembering()
    collector.collect(player)
    state = player.state
    steps = collector.collect(player)
    assert steps.fresh[1:-1].any()
    whole, _ = learn_from(agent, steps, state, 0.9, 0.8, steps.reward)
    for t in range(7):
        for n in range(5):
            if steps.fresh[t, n]:  # as if nothing had been before
                alone = agent(steps.obs[t, n : n + 1], agent.initial_state(1))
                assert_close(whole.value[t, n], alone.value[0].detach(), rtol=0, atol=1e-6)


# ---- whole episodes, learning, resuming, settings


class Lengths(gymnasium.Env):
    """Episodes last as many steps as their environment's number says; every step earns 1."""

    observation_space, action_space = BOX, spaces.Discrete(2)

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == self.length, False, {}


def test_scores_do_not_favour_short_episodes() -> None:
    lengths = iter([1, 10, 40])
    env = make(lambda: Lengths(next(lengths)), 3)
    env.reset(seed=0)
    found = scores(env, lambda obs, fresh: np.zeros(3, np.int64), 6)
    assert sorted(found.tolist()) == [1, 1, 10, 10, 40, 40]


def test_an_episode_without_end_is_told() -> None:
    env = make(lambda: Lengths(10**9), 2, limit=0)
    env.reset(seed=0)
    with pytest.raises(VolitionError, match="has not ended"):
        scores(env, lambda obs, fresh: np.zeros(2, np.int64), 2)


@pytest.mark.parametrize(("optimizer", "lr"), [("rmsprop", 0.1), ("adam", 0.02)])
def test_it_learns_which_lever_the_obs_names(optimizer: Any, lr: float) -> None:
    config = a2c.Config(num_envs=16, horizon=5, hidden=(16,), optimizer=optimizer, lr=lr, entropy=0.01, steps=16_000)
    agent = a2c.train(config, env=Levers(16))
    assert earned(agent, Levers(64), 20) == 1.0
    assert earned(agent, Levers(64), 20, greedy=False) > 0.8


def test_it_finds_the_farther_and_larger_reward() -> None:
    config = a2c.Config(
        num_envs=16, horizon=5, hidden=(16,), lr=0.02, gamma=0.9, steps=24_000, entropy=0.05, normalize_advantage=False
    )
    agent = a2c.train(config, env=Chain(16))
    assert earned(agent, Chain(4), 20) == 3.0
    assert_close(agent(torch.tensor([[1.0]])).value, torch.tensor([3.0]), rtol=0, atol=0.4)


@pytest.mark.parametrize("memory", [0, 3])
def test_resuming_is_exact(memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = a2c.Config(**one(horizon=5, steps=120, memory=memory))
    for name, env in (("diary", lambda: Diary), ("recall", lambda: Recall(4))):
        crash_and_go_on(a2c, config, env, tmp_path / name, monkeypatch)


def test_the_learning_rate_falls_to_nothing() -> None:
    """Four equal gradients at 1, ¾, ½ and ¼ of the rate: with Adam's steps of lr each, 2.5·lr in all."""

    class Same(Nowhere):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return np.zeros(3, np.float32), 1000.0, True, False, {}  # so large that V hardly changes the error

    config = a2c.Config(
        num_envs=1, horizon=1, lr=0.01, steps=4, hidden=(4,), optimizer="adam", max_norm=1e9, value_coef=1.0
    )
    for anneal, total in ((True, 2.5), (False, 4.0)):
        agent = a2c.train(dataclasses.replace(config, anneal=anneal), env=Same())
        assert agent.net.critic_bias.item() == pytest.approx(total * 0.01, rel=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_envs": 0}, {"horizon": 0}, {"steps": 0}, {"lr": -1.0}, {"entropy": -0.1}, {"value_coef": -1.0},
        {"max_norm": -1.0}, {"memory": -1}, {"limit": -1}, {"gamma": 1.1}, {"lam": -0.1}, {"hidden": ()},
        {"hidden": (0,)},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_say_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(VolitionError, match=next(iter(wrong)).split("_")[0]) as error:
        a2c.Config(**wrong)
    assert "\n" not in str(error.value)


def test_what_is_logged_is_finite_and_counts_steps() -> None:
    run = Run(log_every=1)
    a2c.train(a2c.Config(**one(steps=72)), run, env=Diary)
    assert [line["steps"] for line in run.history] == [24, 48, 72]
    assert all(math.isfinite(x) for line in run.history for x in line.values())
    assert {"episode_return", "policy_loss", "value_loss", "entropy", "gradient"} <= set(run.history[0])
