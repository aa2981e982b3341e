"""REINFORCE on problems whose optimum is known, and the parts of its estimate by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.testing import assert_close

from volition.algorithms import reinforce
from volition.algorithms.reinforce import Config, baseline, make_agent, play, returns
from volition.core.trajectory import Trajectory
from volition.envs.film import Film, filmed
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.run import Run

Step = tuple[Any, float, bool, bool, dict]


class Bandit(gymnasium.Env):
    """One pull: arm 0 pays 1 with probability 0.2, arm 1 with 0.8."""

    observation_space = spaces.Box(0.0, 1.0, (1,))
    action_space = spaces.Discrete(2, start=7)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: int) -> Step:
        pays = self.np_random.random() < (0.8 if action == 8 else 0.2)
        return np.ones(1, np.float32), float(pays), True, False, {}


class Identity(gymnasium.Env):
    """Ten steps: do what the obs says, −1 for each part that differs."""

    observation_space = spaces.MultiDiscrete([3, 2])
    action_space = spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(1)])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw(), {}

    def step(self, action: Any) -> Step:
        wrong = int(action[0] != self.goal[0]) + int(action[1][0] != self.goal[1])
        self.t += 1
        return self._draw(), -float(wrong), self.t == 10, False, {}

    def _draw(self) -> np.ndarray:
        self.goal = self.np_random.integers([3, 2])
        return self.goal


class Recall(gymnasium.Env):
    """A sign is shown once; three steps later it is to be told: 1 if right, −1 if wrong."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t, self.sign = 0, int(self.np_random.integers(2))
        return np.array([2 * self.sign - 1, 0], np.float32), {}

    def step(self, action: int) -> Step:
        self.t += 1
        last = self.t == 4
        reward = (1.0 if action == self.sign else -1.0) if last else 0.0
        return np.array([0, self.t == 3], np.float32), reward, last, False, {}


class Target(gymnasium.Env):
    """One step: hit 0.5 on one axis and −1 on the other; reward −distance²."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Box(np.array([-1.0, -3.0], np.float32), np.array([1.0, 1.0], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: np.ndarray) -> Step:
        return 0, -float(((action - [0.5, -1.0]) ** 2).sum()), True, False, {}


for kind in (Bandit, Identity, Recall, Target):
    gymnasium.register(id=f"reinforce_test/{kind.__name__}-v0", entry_point=f"{__name__}:{kind.__name__}")


def trained(name: str, **settings: Any) -> tuple[Config, Any]:
    torch.manual_seed(0)
    config = Config(env=f"reinforce_test/{name}-v0", **settings)
    return config, reinforce.train(config, Run(seed=1))


@pytest.mark.parametrize("b", ["none", "constant", "time", "learned"])
def test_the_better_arm_with_every_baseline(b: Any) -> None:
    _, policy = trained("Bandit", baseline=b, num_envs=32, updates=60, lr=0.1, hidden=())
    p = policy(torch.ones(1, 1), None).distribution.probs[0, 1].item()
    assert p > 0.95


def test_one_arm_on_the_lectures_plain_form() -> None:
    settings = dict(weighting="episode", baseline="constant", optimizer="sgd", gamma=1.0, anneal=False)
    _, policy = trained("Bandit", num_envs=32, updates=60, lr=1.0, hidden=(), **settings)
    assert policy(torch.ones(1, 1), None).distribution.probs[0, 1].item() > 0.95


def test_identity_with_mixed_actions() -> None:
    config, policy = trained("Identity", num_envs=16, updates=120, gamma=0.0, lr=3e-2, hidden=(16,))
    env = make(config.env, 50)
    env.reset(seed=3)
    episodes = play(config, env, policy, torch.Generator(), greedy=True)
    assert episodes.reward.sum() == 0 and episodes.reward.shape == (10, 50)


def test_a_bounded_box() -> None:
    _, policy = trained("Target", num_envs=64, updates=150, lr=3e-2, critic_lr=0.1, hidden=())
    pi = policy(torch.zeros(1, dtype=torch.long), None).distribution
    assert_close(pi.mean, torch.tensor([[0.5, -1.0]]), rtol=0, atol=0.1)
    assert pi.std.max() < 0.4  # it began at 0.6 and 1.2: noise costs reward


def test_memory_recalls_and_without_it_nothing_can() -> None:
    settings = dict(num_envs=32, updates=100, gamma=1.0, lr=1e-2, hidden=(16,))
    means = {}
    for memory in (0, 16):
        config, policy = trained("Recall", memory=memory, **settings)
        env = make(config.env, 200)
        env.reset(seed=3)
        means[memory] = play(config, env, policy, torch.Generator(), greedy=True).reward.sum(0).mean().item()
    assert means[16] == 1.0 and abs(means[0]) < 0.3


def test_a_run_repeats() -> None:
    config = dataclasses.replace(reinforce.VARIANTS["tiny"], updates=4)
    one, two = (reinforce.train(config, Run(seed=3)) for _ in range(2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_budget_of_steps_ends_training() -> None:
    config = Config(env="reinforce_test/Identity-v0", num_envs=2, updates=1000, steps=100, hidden=())
    with Run(seed=0, log_every=1) as run:
        reinforce.train(config, run)
    assert run.history[-1]["steps"] == 100 and run.step == 5  # updates of 2 × 10 steps


def by_hand(truncated: bool = True) -> Trajectory:
    """Three episodes of 3, 2 and 1 steps; the first is cut off, with V = 10 of what was to come."""
    t, f = True, False
    end = torch.tensor([[f, f, t], [f, t, t], [t, t, t]])
    cut = torch.tensor([[f, f, f], [f, f, f], [truncated, f, f]])
    zeros = torch.zeros(3, 3)
    return Trajectory(
        obs=zeros,
        action=zeros.long(),
        log_prob=zeros,
        reward=torch.tensor([[1.0, 2, 3], [4, 5, 99], [6, 99, 99]]),
        discount=0.5 * (~end | cut).float(),
        done=end,
        value=zeros,
        next_value=torch.full((3, 3), 10.0),
        mask=torch.tensor([[t, t, t], [t, t, f], [t, f, f]]),
    )


def test_returns_by_hand() -> None:
    tau = by_hand()
    # with a critic: 6 + ½·10 = 11, 4 + ½·11 = 9.5, 1 + ½·9.5 = 5.75; the others ended: 2 + ½·5 and 3
    with_v = returns(Config(gamma=0.5), tau)
    assert_close(with_v[tau.mask], torch.tensor([5.75, 4.5, 3.0, 9.5, 5.0, 11.0]))
    # without one what was cut off counts nothing: 6, 4 + 3 = 7, 1 + 3.5 = 4.5
    without = returns(Config(gamma=0.5, baseline="time"), tau)
    assert_close(without[tau.mask], torch.tensor([4.5, 4.5, 3.0, 7.0, 5.0, 6.0]))
    whole = returns(Config(gamma=0.5, baseline="none", weighting="episode"), tau)
    assert_close(whole, torch.tensor([4.5, 4.5, 3.0]).expand(3, 3))


def test_baselines_by_hand_leave_the_episode_out() -> None:
    mask = by_hand().mask
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 77], [6, 77, 77]])
    constant = baseline(Config(baseline="constant"), weight, mask, weight)
    # of the others' steps: (2 + 5 + 3)/3, (1 + 4 + 6 + 3)/4, (1 + 4 + 6 + 2 + 5)/5
    assert_close(constant, torch.tensor([10 / 3, 3.5, 3.6]).expand(3, 3))
    time = baseline(Config(baseline="time"), weight, mask, weight)
    # t = 0: (2 + 3)/2, (1 + 3)/2, (1 + 2)/2; t = 1: 5 and 4; t = 2: nobody else is left
    assert_close(time[mask], torch.tensor([2.5, 2.0, 1.5, 5.0, 4.0, 0.0]))
    assert_close(baseline(Config(baseline="none"), weight, mask, weight), torch.zeros(3, 3))


def expectation(b: Any, weighting: Any) -> tuple[Tensor, Tensor]:
    """Exact mean of the estimate on a one-step, two-armed bandit with N = 2, and the exact gradient.

    p = P(arm 1), rewards 3 and 5: J = 3 + 2p; with logits (0, x): dJ/dx = 2·p·(1 − p).
    """
    config = Config(baseline=b, weighting=weighting)
    p = torch.tensor(0.3, dtype=torch.float64)
    mean = torch.zeros((), dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for first in (0, 1):
        for second in (0, 1):
            arms = torch.tensor([[first, second]])
            weight = 3.0 + 2.0 * arms.double()
            chance = torch.where(arms == 1, p, 1 - p).prod()
            score = arms - p  # d log p(a)/dx
            mean += chance * ((weight - baseline(config, weight, mask, torch.full((1, 2), 4.2))) * score).sum() / 2
    return mean, 2 * p * (1 - p)


@pytest.mark.parametrize("b", ["none", "constant", "time", "learned"])
def test_no_baseline_changes_the_mean_of_the_estimate(b: Any) -> None:
    mean, exact = expectation(b, "to_go")
    assert_close(mean, exact, rtol=0, atol=1e-12)


def test_mistakes() -> None:
    with pytest.raises(VolitionError, match="num_envs must be 2"):
        reinforce.train(Config(num_envs=1, baseline="time"))
    with pytest.raises(VolitionError, match="did you mean CartPole-v1"):
        reinforce.train(Config(env="CartPol-v1"))


class Drawn(Identity):
    """Identity with pictures; the third cannot be made if `breaks`."""

    def __init__(self, breaks: bool = False, render_mode: str | None = None) -> None:
        self.breaks, self.render_mode, self.shots = breaks, render_mode, 0

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def render(self) -> np.ndarray:
        self.shots += 1
        if self.breaks and self.shots == 3:
            raise RuntimeError("no display")
        return np.full((40, 60, 3), 20 * self.t, np.uint8)


@pytest.mark.parametrize("breaks", [False, True])
def test_watching_draws_a_film_or_curves(breaks: bool, tmp_path: Path) -> None:
    from PIL import Image

    film = Film(Drawn(breaks, "rgb_array"))
    env, config = make(film), Config(hidden=())
    env.reset(seed=0)
    film.frames.clear()
    episode = play(config, env, make_agent(config, env), torch.Generator().manual_seed(0))
    path = film.develop(tmp_path / "episode", episode, "title")
    with Image.open(path) as image:
        assert image.format == ("PNG" if breaks else "GIF")
        assert breaks or (getattr(image, "n_frames", 1) == 11 and image.size == (60, 40))


def test_an_environment_without_pictures_gives_curves(tmp_path: Path) -> None:
    env, film = filmed("reinforce_test/Recall-v0")
    config = Config(hidden=())
    env.reset(seed=0)
    episode = play(config, env, make_agent(config, env), torch.Generator().manual_seed(0))
    assert film.develop(tmp_path / "episode", episode, "title").suffix == ".png"
    with pytest.raises(VolitionError):
        filmed("reinforce_test/Recal-v0")
