"""PPO: its step is the paper's loss through autograd, and what it learns are the known optima of small worlds."""

import copy
import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from test_recipes import assert_same, final  # pyrefly: ignore
from torch import Tensor, nn
from torch.testing import assert_close

from volition.algorithms import a2c, ppo
from volition.algorithms._actor_critic import actor_critic_gradient, judge_again, learn_from, make_agent
from volition.core.collect import Collector
from volition.core.flat import Flat
from volition.core.policy import tree_map, tree_where
from volition.envs.agent import Agent, Player
from volition.envs.tensor_env import TensorEnv
from volition.errors import VolitionError
from volition.run import Run

# ---- small worlds


class Diary(gymnasium.Env):
    """Random obs; the action moves reward; episodes end either way at random. All that happens is written down."""

    observation_space = spaces.Box(-2, 2, (2,))

    def __init__(self, action: spaces.Space[Any] | None = None) -> None:
        self.action_space = action or spaces.Discrete(3)
        self.rows: list[dict[str, Any]] = []

    def _look(self) -> np.ndarray:
        self.obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.obs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.fresh = True
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        row = {"obs": self.obs, "action": np.array(action), "fresh": self.fresh}
        gain = float(np.sum(action) * self.obs[0] + self.obs[1])
        ends = self.np_random.random(2) < 0.15
        terminated, truncated = bool(ends[0]), bool(ends[1] and not ends[0])
        self.fresh = False
        following = self._look()
        more = {"reward": gain, "terminated": terminated, "truncated": truncated, "next_obs": following}
        self.rows.append(row | more)
        return following, gain, terminated, truncated, {}


class World(VectorEnv):
    """Many small worlds at once in NumPy, SAME_STEP; a subclass has `begin` and `act`."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    obs_space: spaces.Space[Any]
    act_space: spaces.Space[Any]

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self.obs_space, self.act_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.obs_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.act_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.random = np.random.default_rng(seed)
        self.t = np.zeros(self.num_envs, int)
        self.s = self.begin()
        return self.look(), {}

    def begin(self) -> np.ndarray:
        """First states `[N, …]`."""
        return np.zeros((self.num_envs, 1), np.float32)

    def look(self) -> np.ndarray:
        """Obs of the states."""
        return self.s.copy()

    def act(self, action: Any) -> tuple[np.ndarray, np.ndarray]:
        """Moves on, and gives rewards and which episodes ended."""
        raise NotImplementedError

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        reward, terminated = self.act(actions)
        self.t += 1
        info = {"final_obs": self.look()} if terminated.any() else {}
        self.s = np.where(terminated[:, None], self.begin(), self.s)
        self.t[terminated] = 0
        return self.look(), reward, terminated, np.zeros(self.num_envs, bool), info


class Levers(World):
    """One step; the lever whose number the obs shows pays 1. Known optimum: always 1; by chance 1/3."""

    obs_space, act_space = spaces.Discrete(3, start=4), spaces.Discrete(3, start=7)

    def begin(self) -> np.ndarray:
        return self.random.integers(4, 7, (self.num_envs, 1))

    def look(self) -> np.ndarray:
        return self.s[:, 0].copy()

    def act(self, action: Any) -> tuple[np.ndarray, np.ndarray]:
        return (action - 7 == self.s[:, 0] - 4).astype(float), np.ones(self.num_envs, bool)


class Chain(World):
    """s0: left pays 1 and ends, right leads to s1; s1: left ends with nothing, right ends with 3.

    With γ = 0.9: V*(s1) = 3, V*(s0) = max(1, 0.9·3) = 2.7: the nearer reward is a trap.
    """

    obs_space, act_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)

    def act(self, action: Any) -> tuple[np.ndarray, np.ndarray]:
        here, right = self.s[:, 0] == 1, action == 1
        reward = np.where(here, 3.0 * right, 1.0 * ~right)
        done = here | ~right
        self.s[:, 0] = 1
        return reward, done


class Recall(World):
    """The obs shows ±1 at first and 0 afterwards; the third action must be 0 for −1 and 1 for +1.

    Whoever remembers can earn 1; who does not earns ½ on average, whatever it does.
    """

    obs_space, act_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def begin(self) -> np.ndarray:
        return self.random.choice([-1.0, 1.0], (self.num_envs, 1)).astype(np.float32)

    def look(self) -> np.ndarray:
        return np.where(self.t[:, None] == 0, self.s, 0).astype(np.float32)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        # a new episode shows its obs at t = 0
        done = self.t == 2
        reward = np.where(done, (actions == (self.s[:, 0] > 0)).astype(float), 0.0)
        self.t = np.where(done, 0, self.t + 1)
        info = {"final_obs": np.zeros_like(self.s)} if done.any() else {}
        self.s = np.where(done[:, None], self.begin(), self.s)
        return self.look(), reward, done, np.zeros(self.num_envs, bool), info


class Reach(World):
    """Obs (where I am, the target); the action −2 … 2 is a move; 3 steps, reward −|distance| after each.

    At its best one move suffices: 0. Standing still costs about 3·2/3 = 2.
    """

    obs_space, act_space = spaces.Box(-9, 9, (2,)), spaces.Box(-2, 2, (1,))

    def begin(self) -> np.ndarray:
        return self.random.uniform(-1, 1, (self.num_envs, 2)).astype(np.float32)

    def act(self, action: Any) -> tuple[np.ndarray, np.ndarray]:
        assert abs(action).max() <= 2
        self.s = self.s + np.concatenate([action, 0 * action], 1).astype(np.float32)
        return -abs(self.s[:, 0] - self.s[:, 1]), self.t == 2


class Masked(gymnasium.Env):
    """Only what the mask allows may be done; which, changes with every step."""

    observation_space = spaces.Box(0, 1, (4,))
    end = 5

    def __init__(self, action: spaces.Space[Any] | None = None) -> None:
        self.action_space = action or spaces.Discrete(4, start=2)

    def _draw(self) -> tuple[np.ndarray, dict]:
        if isinstance(self.action_space, spaces.MultiDiscrete):
            parts = [self.np_random.integers(0, 2, n) for n in self.action_space.nvec]
            for part in parts:
                part[self.np_random.integers(len(part))] = 1
            self.legal = tuple(part.astype(np.int8) for part in parts)
            return np.hstack(parts)[:4].astype(np.float32), {"action_mask": self.legal}
        self.legal = self.np_random.integers(0, 2, 4).astype(np.int8)
        self.legal[self.np_random.integers(4)] = 1
        return self.legal.astype(np.float32), {"action_mask": self.legal}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._draw()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if isinstance(self.action_space, spaces.MultiDiscrete):
            assert all(part[a] for part, a in zip(self.legal, action, strict=True)), (self.legal, action)
        else:
            assert self.legal[action - 2], (self.legal, action)
        self.t += 1
        obs, info = self._draw()
        return obs, float(np.sum(action)), self.t == self.end, False, info


# ---- one update, by the book


def first_weights(recipe: Any, config: Any, make_env: Callable[[], Any]) -> Agent:
    """The agent that `train` begins with."""
    agent = recipe.train(dataclasses.replace(config, lr=0.0), env=make_env())
    return copy.deepcopy(agent)


class Book:
    """PPO's paper in the plainest autograd, on what diaries say."""

    def __init__(self, config: ppo.Config, agent: Agent, orders: list[Tensor]) -> None:
        self.config, self.agent, self.orders = config, agent, orders
        self.optimizer = torch.optim.Adam(agent.parameters(), config.lr, eps=1e-5)
        self.state = agent.initial_state(config.num_envs)
        self.squares: list[float] = []  # discounted returns so far, for their variance
        self.totals = [0.0] * config.num_envs

    def walk(self, data: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, list[Any]]:
        """log π(a|s), H, V `[T, N]` and memories, step by step."""
        found, state, memories = [], self.state, []
        for t in range(len(data["reward"])):
            if state is not None:
                state = tree_where(data["fresh"][t], self.agent.initial_state(self.config.num_envs), state)
            pi, state, value = self.agent(data["obs"][t], state)
            memories.append(state)
            found.append(torch.stack([pi.log_prob(data["action"][t]), pi.entropy(), value]))
        log_prob, entropy, value = torch.stack(found, 1)
        return log_prob, entropy, value, memories

    def scale(self, data: dict[str, Tensor]) -> Tensor:
        """Rewards divided by the standard deviation of the discounted returns so far."""
        reward = data["reward"].tolist()
        for t, row in enumerate(reward):
            for n, r in enumerate(row):
                self.totals[n] = self.config.gamma * self.totals[n] + r
                self.squares.append(self.totals[n])
                if data["terminated"][t, n] or data["truncated"][t, n]:
                    self.totals[n] = 0.0
        return (data["reward"] / (np.var(self.squares) + 1e-8) ** 0.5).clamp(-10, 10)

    def update(self, data: dict[str, Tensor], lr: float, clip: float) -> None:
        config = self.config
        T, N = data["reward"].shape
        reward = self.scale(data) if config.normalize_reward else data["reward"]
        with torch.no_grad():
            old_log_prob, _, value, memories = self.walk(data)
            advantage = torch.zeros(T, N)
            for n in range(N):
                a = 0.0
                for t in reversed(range(T)):
                    terminated, truncated = data["terminated"][t, n], data["truncated"][t, n]
                    h = None if memories[t] is None else memories[t][n : n + 1]
                    following = self.agent(data["next_obs"][t, n : n + 1], h).value.item()
                    discount = 0.0 if terminated else config.gamma
                    delta = reward[t, n].item() + discount * following - value[t, n].item()
                    a = delta + discount * config.lam * (0.0 if terminated or truncated else a)
                    advantage[t, n] = a
            target = advantage + value
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for _ in range(config.epochs):
            order = self.orders.pop(0)
            bounds = [i * len(order) // config.minibatches for i in range(config.minibatches + 1)]
            for start, stop in pairwise(bounds):
                part = order[start:stop]

                def pick(x: Tensor, part: Tensor = part) -> Tensor:
                    return x[:, part].flatten() if config.memory else x.flatten()[part]

                log_prob, entropy, v, _ = self.walk(data)
                a = pick(advantage)
                if config.normalize_advantage:
                    a = (a - a.mean()) / (a.std(correction=0) + 1e-8)
                ratio = (pick(log_prob) - pick(old_log_prob)).exp()
                surrogate = torch.min(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)
                error = (pick(v) - pick(target)).square()
                if config.clip_value:
                    near = pick(value) + (pick(v) - pick(value)).clamp(-config.clip_value, config.clip_value)
                    error = torch.max(error, (near - pick(target)).square())
                loss = -surrogate + config.value_coef * 0.5 * error - config.entropy * pick(entropy)
                self.optimizer.zero_grad()
                loss.mean().backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), config.max_norm)
                self.optimizer.step()
        self.state = memories[-1]


def read(diaries: list[Diary], start: int, stop: int) -> dict[str, Tensor]:
    """Columns `[T, N, …]` of what the diaries say."""
    names = diaries[0].rows[0]
    columns = {name: np.stack([[d.rows[t][name] for d in diaries] for t in range(start, stop)]) for name in names}
    tensors = {name: torch.as_tensor(column) for name, column in columns.items()}
    return {name: x.float() if x.dtype == torch.float64 else x for name, x in tensors.items()}


SMALL = ppo.Config(num_envs=4, horizon=6, epochs=2, minibatches=3, hidden=(5, 4), lr=0.01, gamma=0.9, steps=48)
CASES = {
    "plain": SMALL,
    "relu, all terms, shrinking": dataclasses.replace(
        SMALL, activation="relu", entropy=0.05, clip_value=0.05, value_coef=0.7, clip=0.02, anneal_clip=True
    ),
    "raw advantages, clipped gradient": dataclasses.replace(SMALL, normalize_advantage=False, max_norm=0.05),
    "scaled rewards": dataclasses.replace(SMALL, normalize_reward=True, anneal=False),
    "memory": dataclasses.replace(SMALL, memory=3, minibatches=2, entropy=0.05),
    "memory, scaled rewards": dataclasses.replace(SMALL, memory=7, minibatches=2, normalize_reward=True, clip=0.02),
}


@pytest.mark.parametrize("box", [False, True], ids=["discrete", "box"])
@pytest.mark.parametrize("name", CASES)
def test_two_updates_are_the_papers(name: str, box: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CASES[name]
    space = spaces.Box(-np.inf, np.inf, (2,)) if box else None
    agent = first_weights(ppo, config, lambda: lambda: Diary(space))
    start = [p.detach().clone() for p in agent.parameters()]
    orders: list[Tensor] = []
    diaries: list[Diary] = []

    def write() -> Diary:
        diaries.append(Diary(space))
        return diaries[-1]

    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **more: orders.append(real(n, **more)) or orders[-1])
    learned = ppo.train(config, env=write)
    diaries = diaries[-4:]
    assert [len(d.rows) for d in diaries] == [12] * 4 and len(orders) == 4
    everything = read(diaries, 0, 12)
    assert everything["terminated"].any() and everything["truncated"].any()
    book = Book(config, agent, orders)
    for update in range(2):
        left = 1 - update / 2
        lr = config.lr * (left if config.anneal else 1)
        book.update(read(diaries, 6 * update, 6 * update + 6), lr, config.clip * (left if config.anneal_clip else 1))
    for ours, theirs in zip(learned.parameters(), agent.parameters(), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert max((p - q).abs().max().item() for p, q in zip(learned.parameters(), start, strict=True)) > 0.01


def one(**more: Any) -> dict[str, Any]:
    """Settings of one update, alike for ppo and a2c."""
    return {"num_envs": 4, "horizon": 6, "hidden": (5,), "lr": 0.01, "gamma": 0.9, "lam": 0.8, "steps": 24} | more


def assert_same_weights(a: Agent, b: Agent, atol: float = 0.0) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert_close(p, q, rtol=0, atol=atol)


@pytest.mark.parametrize("memory", [0, 5])
def test_the_order_within_one_batch_does_not_matter(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ppo.Config(**one(epochs=1, minibatches=1, memory=memory))
    forward = ppo.train(config, env=Diary)
    monkeypatch.setattr(torch, "randperm", lambda n, **more: torch.arange(n - 1, -1, -1))
    assert_same_weights(forward, ppo.train(config, env=Diary), 1e-6)


@pytest.mark.parametrize("memory", [0, 5])
def test_one_step_without_clipping_is_a2cs(memory: int) -> None:
    same = one(memory=memory, entropy=0.05, value_coef=0.7, max_norm=0.3, normalize_advantage=False)
    agents = [
        ppo.train(ppo.Config(**same, epochs=1, minibatches=1, clip=1e9), env=Diary),
        a2c.train(a2c.Config(**same, optimizer="adam"), env=Diary),
    ]
    assert_same_weights(*agents, 1e-5)
    untouched = first_weights(a2c, a2c.Config(**same, optimizer="adam"), lambda: Diary)
    moved = [(p - q).abs().max().item() for p, q in zip(untouched.parameters(), agents[0].parameters(), strict=True)]
    assert max(moved) > 0.005


# ---- environments of one's own


class Once(Diary):
    """Every episode is one step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        obs, gain, *_ = super().step(action)
        return obs, gain, True, False, {}


class Slow(SyncVectorEnv):
    """A subclass is not taken apart by `make`, and keeps its NEXT_STEP autoreset."""


@pytest.mark.parametrize("memory", [0, 3])
def test_steps_spent_on_resets_do_not_scale_rewards(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volition.run.draw", lambda *a, **k: None)
    config = ppo.Config(**one(steps=48, minibatches=2, epochs=1, normalize_reward=True, memory=memory))
    with Run(tmp_path, config=config, quiet=True) as run:
        ppo.train(config, run, env=Slow([Diary] * 4, autoreset_mode=AutoresetMode.NEXT_STEP))
    objects = final(tmp_path)["objects"]
    assert 24 < objects["env"]["steps"] < 48  # the others were resets
    assert objects["scale"]["moments"]["count"] == objects["env"]["steps"]


@pytest.mark.parametrize("kind", ["ppo", "a2c"])
def test_what_stands_in_rows_that_are_no_steps_changes_no_gradient(kind: str) -> None:
    """In sequences these rows stay where they are, unlike in minibatches of rows."""
    config = ppo.Config(**one(memory=4, minibatches=1, clip_value=0.1, normalize_advantage=True))
    env = TensorEnv(Slow([Diary] * 4, autoreset_mode=AutoresetMode.NEXT_STEP))
    env.reset(seed=0)
    agent = make_agent(config, env)
    flat, player = Flat(agent), Player(agent, env, torch.Generator().manual_seed(0), 9)
    steps = Collector(env, 9).collect(player)
    assert not steps.valid.all()
    found = []
    for junk in (0.0, 1000.0):
        experience, _ = learn_from(agent, steps, agent.initial_state(4), 0.9, 0.8, steps.reward)
        rows = {
            name: torch.where(experience.valid, getattr(experience, name), junk)
            for name in ("advantage", "target", "value")
        }
        experience = experience._replace(**rows)
        flat.zero_grad()
        if kind == "ppo":
            ppo.surrogate_gradient(config, agent, experience, 0.2)
        else:
            actor_critic_gradient(experience, judge_again(agent, experience), 0.5, 0.01, normalize=True)
        found.append(flat.grad.clone())
    assert_close(found[0], found[1], rtol=0, atol=1e-6)
    assert found[0].abs().max() > 0.01


@pytest.mark.parametrize("memory", [0, 3])
@pytest.mark.parametrize("recipe", [ppo, a2c])
def test_updates_made_of_resets_alone_change_nothing(recipe: Any, memory: int) -> None:
    more = {"minibatches": 2, "epochs": 2} if recipe is ppo else {}
    config = recipe.Config(**one(num_envs=2, horizon=1, steps=12, memory=memory, normalize_advantage=True), **more)
    agent = recipe.train(config, env=Slow([Once] * 2, autoreset_mode=AutoresetMode.NEXT_STEP))
    assert all(p.isfinite().all() for p in agent.parameters())


FORMS = {  # what is given, and how many environments are asked for and come
    "an environment": (Diary, 5, 1),
    "a class": (lambda: Diary, 3, 3),
    "a function": (lambda: lambda: gymnasium.wrappers.TimeLimit(Diary(), 3), 2, 2),
    "a vector of them": (lambda: SyncVectorEnv([Diary] * 2), 5, 2),
    "a vector that resets late": (lambda: Slow([Diary] * 2, autoreset_mode=AutoresetMode.NEXT_STEP), 5, 2),
    "a vector of another kind": (lambda: Levers(3), 5, 3),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("recipe", [ppo, a2c])
def test_an_environment_of_ones_own_in_every_form(
    recipe: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volition.run.draw", lambda *a, **k: None)  # curves take longer than all else
    make, asked, count = FORMS[form]
    env = make()
    more = {"epochs": 1, "minibatches": 1} if recipe is ppo else {}
    config = recipe.Config(**one(num_envs=asked, horizon=6, steps=6 * count), **more)
    with Run(tmp_path, config=config, quiet=True, log_every=1) as run:
        agent = recipe.train(config, run, env=env)
    assert run.step == 1
    obs = 5 if isinstance(env, Levers) else np.zeros(2, np.float32)
    assert agent.action_space.contains(agent.act(obs, greedy=True))
    # the caller's environment is still open, and does for looking too
    assert_same_weights(recipe.load(config, Run.open(tmp_path, recipe.Config), env=env), agent)
    results = recipe.evaluate(config, Run.open(tmp_path, recipe.Config), env=env, episodes=4)
    names = ("return", "greedy_return", "random_return")
    assert all(np.isfinite(results[key]) for name in names for key in (name, f"{name}_sd"))
    if isinstance(env, VectorEnv) and not isinstance(env, World):
        env.reset(seed=0)


WATCHED = {
    "an environment": lambda: Diary(),
    "a class": lambda: Diary,
    "a vector": lambda: SyncVectorEnv([Diary] * 9),
    "a vector that resets late": lambda: Slow([Diary] * 9, autoreset_mode=AutoresetMode.NEXT_STEP),
}


@pytest.mark.parametrize("form", WATCHED)
def test_watching_ones_own_environment_shows_one_episode(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many environments the first, until its episode ends, whatever the others do."""
    played: list[Any] = []

    def develop(self: Any, path: Path, episode: Any, title: str) -> Path:
        played.append(episode)
        return path

    monkeypatch.setattr("volition.envs.film.Reel.develop", develop)
    ppo.watch(ppo.Config(hidden=(5,)), Run(), env=WATCHED[form]())
    (episode,) = played
    assert episode.reward.shape == (episode.steps, 1) and 1 <= episode.steps < 60


@pytest.mark.parametrize("action", [spaces.Discrete(4, start=2), spaces.MultiDiscrete([2, 3])], ids=str)
@pytest.mark.parametrize("memory", [0, 4])
@pytest.mark.parametrize("recipe", [ppo, a2c])
def test_masked_actions_are_never_chosen(recipe: Any, memory: int, action: Any) -> None:
    more = {"epochs": 3, "minibatches": 2} if recipe is ppo else {}
    config = recipe.Config(**one(num_envs=3, steps=90, memory=memory), **more)
    recipe.train(config, env=lambda: Masked(action))  # which asserts it
    recipe.evaluate(config, Run(), env=lambda: Masked(action), episodes=6)


def test_a_mask_for_actions_that_are_no_choices_is_refused() -> None:
    class Pushed(Masked):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return self.reset()[0], 0.0, False, False, {"action_mask": self.legal}

    with pytest.raises(VolitionError, match="mask"):
        ppo.train(ppo.Config(**one(minibatches=1)), env=lambda: Pushed(spaces.Box(-1, 1, (4,))))


# ---- what is learned


def earned(agent: Agent, env: VectorEnv, steps: int, greedy: bool = True) -> float:
    """Mean return of whole episodes."""
    obs, _ = env.reset(seed=99)
    state, total, ended, returns = None, np.zeros(env.num_envs), 0, 0.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        answer = agent.act(obs, state, greedy=greedy, generator=generator)
        action = answer
        if isinstance(answer, tuple):
            action, state = answer
        obs, reward, terminated, _, _ = env.step(action)
        total += reward
        returns, ended = returns + total[terminated].sum(), ended + int(terminated.sum())
        total[terminated] = 0
        if state is not None:
            state = tree_where(torch.as_tensor(terminated), agent.initial_state(env.num_envs), state)
    return returns / ended


def settings(**more: Any) -> dict[str, Any]:
    return {"hidden": (16,), "lr": 0.01, "gamma": 0.9} | more


def test_it_learns_which_lever_the_obs_names() -> None:
    config = ppo.Config(num_envs=16, horizon=16, epochs=4, minibatches=2, **settings(steps=6_000))
    agent = ppo.train(config, env=Levers(16))
    assert earned(agent, Levers(64), 20) == 1.0
    assert earned(agent, Levers(64), 20, greedy=False) > 0.9
    assert earned(first_weights(ppo, config, lambda: Levers(16)), Levers(64), 20, greedy=False) < 0.5


@pytest.mark.parametrize("normalize_reward", [False, True])
def test_it_finds_the_farther_and_larger_reward(normalize_reward: bool) -> None:
    config = ppo.Config(
        num_envs=16, horizon=16, epochs=4, minibatches=2, entropy=0.02, normalize_reward=normalize_reward,
        **settings(steps=16_000),
    )  # fmt: skip
    agent = ppo.train(config, env=Chain(16))
    assert earned(agent, Chain(4), 20) == 3.0
    if not normalize_reward:
        v = agent(torch.tensor([[0.0], [1.0]])).value
        assert_close(v, torch.tensor([2.7, 3.0]), rtol=0, atol=0.05)


@pytest.mark.parametrize("memory", [0, 16])
def test_only_with_memory_it_recalls(memory: int) -> None:
    config = ppo.Config(num_envs=32, horizon=12, epochs=4, minibatches=2, memory=memory, **settings(steps=12_000))
    reached = earned(ppo.train(config, env=Recall(32)), Recall(200), 30)
    if memory:
        assert reached > 0.95
    else:
        assert abs(reached - 0.5) < 0.1  # 2,000 episodes: a standard error of 0.011


def test_it_learns_to_move_to_a_target() -> None:
    config = ppo.Config(num_envs=32, horizon=12, epochs=5, minibatches=2, **settings(steps=14_000))
    agent = ppo.train(config, env=Reach(32))
    assert earned(agent, Reach(100), 30) > -0.15
    assert earned(first_weights(ppo, config, lambda: Reach(32)), Reach(100), 30) < -1.5


# ---- resuming, settings


class Killed(Exception):
    pass


def crash_and_go_on(recipe: Any, config: Any, env: Callable[[], Any], folder: Path, monkeypatch: Any) -> None:
    """Stopped in the middle by an error and gone on with: all that is saved is the same, bit for bit."""
    monkeypatch.setattr("volition.run.draw", lambda *a, **k: None)  # curves take longer than all else
    with Run(folder / "whole", config=config, quiet=True) as run:
        recipe.train(config, run, env=env())
    monkeypatch.setenv("VOLITION_SAVE_UPDATES", "1")
    log = Run.log
    for at in (2, 4):

        def stop(self: Run, update: int, at: int = at, **scalars: Any) -> None:
            if update == at:
                raise Killed
            log(self, update, **scalars)

        monkeypatch.setattr(Run, "log", stop)
        with pytest.raises(Killed), Run(folder / "parts", config=config, quiet=True) as run:
            recipe.train(config, run, env=env())
    monkeypatch.setattr(Run, "log", log)
    monkeypatch.delenv("VOLITION_SAVE_UPDATES")
    with Run(folder / "parts", config=config, quiet=True) as run:
        assert run.step == 4
        recipe.train(config, run, env=env())
    assert_same(final(folder / "whole"), final(folder / "parts"))


@pytest.mark.parametrize("more", [{"memory": 3}, {"normalize_reward": True}, {"memory": 3, "normalize_reward": True}])
def test_resuming_is_exact(more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ppo.Config(**one(horizon=5, steps=120, epochs=2, minibatches=2, **more))
    # with its environments in Python, and in a vector of its own
    for name, env in (("diary", lambda: Diary), ("recall", lambda: Recall(4))):
        crash_and_go_on(ppo, config, env, tmp_path / name, monkeypatch)


def test_resuming_a_late_resetting_environment_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ppo.Config(
        num_envs=8, horizon=5, hidden=(8,), epochs=2, minibatches=2, limit=7, steps=240, memory=3, normalize_reward=True
    )
    crash_and_go_on(ppo, config, lambda: None, tmp_path, monkeypatch)  # CartPole in its own vector form


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_envs": 0}, {"horizon": 0}, {"epochs": 0}, {"minibatches": 0}, {"steps": 0}, {"lr": -1.0}, {"clip": -0.1},
        {"clip_value": -1.0}, {"entropy": -0.1}, {"value_coef": -1.0}, {"max_norm": -1.0}, {"memory": -1},
        {"limit": -1}, {"gamma": 1.1}, {"gamma": -0.1}, {"lam": 2.0}, {"hidden": ()}, {"hidden": (8, 0)},
        {"num_envs": 2, "horizon": 2, "minibatches": 5}, {"num_envs": 3, "memory": 8, "minibatches": 4},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_say_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(VolitionError, match=next(reversed(wrong)).split("_")[0]) as error:
        ppo.Config(**wrong)
    assert "\n" not in str(error.value)


def test_wrong_environments_say_what_is_wrong() -> None:
    with pytest.raises(VolitionError, match="no env"):
        ppo.train(ppo.Config(env="CortPole-v1"))
    with pytest.raises(VolitionError, match="no environment"):
        ppo.train(ppo.Config(), env=3)


def test_the_same_seed_is_the_same_agent_and_another_is_not() -> None:
    config = ppo.Config(**one(epochs=1, minibatches=2))
    assert_same_weights(ppo.train(config, env=Diary), ppo.train(config, env=Diary))
    other = ppo.train(config, Run(seed=1), env=Diary)
    first = ppo.train(config, env=Diary)
    assert not torch.equal(tree_map(torch.flatten, next(first.parameters())), next(other.parameters()).flatten())
