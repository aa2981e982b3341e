"""An agent speaks the environment's own language, and a player is the same policy in a hurry."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.testing import assert_close

from volition.algorithms import a2c
from volition.algorithms._actor_critic import make_agent
from volition.core.collect import Collector
from volition.core.policy import PolicyOutput, tree_where
from volition.envs.agent import Agent, Player
from volition.envs.spaces import action_head
from volition.envs.vector import make
from volition.errors import VolitionError

VECTOR = spaces.Box(-1, 1, (3,), np.float32)


class World(gymnasium.Env):
    """Random obs of any space; ends after 4 steps."""

    def __init__(self, obs: spaces.Space[Any] = VECTOR, action: spaces.Space[Any] | None = None) -> None:
        self.observation_space, self.action_space = obs, action or spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 4, False, {}


def agent(obs: spaces.Space[Any] = VECTOR, action: spaces.Space[Any] | None = None, memory: int = 0) -> Agent:
    torch.manual_seed(0)
    env = make(lambda: World(obs, action), 2)
    found = make_agent(a2c.Config(hidden=(8,), memory=memory), env)
    with torch.no_grad():  # far from uniform
        for p in found.parameters():
            p.add_(0.7 * torch.randn(p.shape))
    return found


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


OBS = {
    "box": VECTOR,
    "image": spaces.Box(0, 255, (2, 3), np.uint8),
    "number": spaces.Box(-1, 1, ()),
    "discrete": spaces.Discrete(4, start=3),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "dict": spaces.Dict({"n": spaces.Discrete(3, start=1), "x": spaces.Box(-1, 1, (2, 2), np.float64)}),
    "tuple": spaces.Tuple((spaces.MultiBinary(2), spaces.Discrete(2))),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=5),
    "box": spaces.Box(np.array([[-0.1, 2.0]], np.float32), np.array([[0.1, 3.0]], np.float32)),
    "box64": spaces.Box(-1, 1, (2,), np.float64),
    "multidiscrete": spaces.MultiDiscrete([2, 3], start=[1, 0]),
    "multibinary": spaces.MultiBinary(3),
    "dict": spaces.Dict({"go": spaces.Box(-1, 1, (2,)), "n": spaces.Discrete(2, start=-1)}),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,)))),
}


def batched(space: spaces.Space[Any], count: int) -> tuple[list[Any], Any]:
    """Obs one by one, and the same as a batch."""
    space.seed(0)
    rows = [space.sample() for _ in range(count)]
    return rows, gymnasium.vector.utils.concatenate(
        space, rows, gymnasium.vector.utils.create_empty_array(space, count)
    )


@pytest.mark.parametrize("memory", [0, 4])
@pytest.mark.parametrize("name", OBS)
def test_one_obs_and_a_batch_say_the_same(name: str, memory: int) -> None:
    a = agent(OBS[name], memory=memory)
    rows, batch = batched(OBS[name], 5)
    together = a.act(batch, greedy=True)
    alone = [a.act(row, greedy=True) for row in rows]
    if memory:
        together, state = together
        assert state.shape == a.initial_state(5).shape
        assert_close(torch.cat([s for _, s in alone]), state, rtol=0, atol=1e-6)
        alone = [action for action, _ in alone]
    assert together.shape == (5,) and [np.shape(x) for x in alone] == [()] * 5
    assert together.tolist() == [int(x) for x in alone]


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("name", ACTIONS)
def test_actions_are_the_spaces_own(name: str, greedy: bool) -> None:
    space = ACTIONS[name]
    a = agent(action=space)
    env = World(action=space)
    obs, _ = env.reset(seed=0)
    for seed in range(20):
        action = a.act(obs, greedy=greedy, generator=generator(seed))
        assert space.contains(action), action
        obs, *_ = env.step(action)
    many = a.act(np.stack([obs] * 6), greedy=greedy, generator=generator())
    assert gymnasium.vector.utils.batch_space(space, 6).contains(many), many


def test_discrete_counts_from_start() -> None:
    a = agent(action=spaces.Discrete(3, start=5))
    obs = np.random.default_rng(0).uniform(-1, 1, (2000, 3)).astype(np.float32)
    probs = a(torch.from_numpy(obs)).distribution.probs
    assert (a.act(obs, greedy=True) == probs.argmax(-1).numpy() + 5).all()
    sampled = a.act(obs, generator=generator())
    shares = np.bincount(sampled - 5, minlength=3) / 2000
    np.testing.assert_allclose(shares, probs.mean(0).detach().numpy(), atol=0.04)  # four standard errors
    assert len(set(sampled.tolist())) == 3


def test_greedy_is_the_mode_and_draws_nothing() -> None:
    a = agent()
    obs = np.zeros((4, 3), np.float32)
    g = generator()
    before = g.get_state(), torch.get_rng_state()
    assert (a.act(obs, greedy=True, generator=g) == a(torch.zeros(4, 3)).distribution.mode().numpy()).all()
    assert torch.equal(g.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_samples_repeat_by_generator_or_by_torchs_seed() -> None:
    a, obs = agent(), np.zeros((50, 3), np.float32)
    assert (a.act(obs, generator=generator(1)) == a.act(obs, generator=generator(1))).all()
    assert (a.act(obs, generator=generator(1)) != a.act(obs, generator=generator(2))).any()
    torch.manual_seed(4)
    first = a.act(obs)
    torch.manual_seed(4)
    assert (a.act(obs) == first).all() and (a.act(obs) != first).any()


def test_a_box_action_is_clipped_and_has_its_shape() -> None:
    space = spaces.Box(np.array([[-0.1], [2.0]], np.float32), np.array([[0.1], [3.0]], np.float32))
    a = agent(action=space)
    obs = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    with torch.no_grad():
        a.net.actor_bias[:2] = torch.tensor([5.0, -5.0])  # far above the first dimension, far below the second
    action = a.act(obs, generator=generator())
    assert action.shape == (500, 2, 1) and action.dtype == np.float32
    assert (action[:, 0] <= np.float32(0.1)).all() and (action[:, 0] == np.float32(0.1)).mean() > 0.9
    assert (action[:, 1] >= 2).all() and (action[:, 1] == 2).mean() > 0.9
    one = a.act(obs[0], greedy=True)
    assert one.shape == (2, 1)
    np.testing.assert_allclose(one, [[0.1], [2.0]])


def test_masked_actions_are_never_taken() -> None:
    a = agent()
    obs = np.random.default_rng(0).uniform(-1, 1, (300, 3)).astype(np.float32)
    likeliest = a.act(obs, greedy=True)
    mask = np.ones((300, 3), np.int8)
    mask[np.arange(300), likeliest] = 0
    for greedy in (False, True):
        taken = a.act(obs, mask=mask, greedy=greedy, generator=generator())
        assert (taken != likeliest).all()
    assert a.act(obs[0], mask=[False, False, True], generator=generator()) == 2


def test_memory_is_handed_on_and_matters() -> None:
    a = agent(memory=4)
    obs = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype(np.float32)
    state, values = None, []
    h = a.initial_state(1)
    for x in obs:
        action, state = a.act(x, state, greedy=True)
        output = a(torch.from_numpy(x)[None], h)
        h = output.state
        assert_close(state, h, rtol=0, atol=0)
        assert int(action) == int(output.distribution.mode())
        values.append(output.value.item())
    anew = a(torch.from_numpy(obs[-1])[None], a.initial_state(1)).value.item()
    assert abs(values[-1] - anew) > 1e-3


WRONG = {
    "too short": (VECTOR, np.zeros(2, np.float32)),
    "a batch of these": (VECTOR, np.zeros((5, 2), np.float32)),
    "too deep": (VECTOR, np.zeros((2, 2, 3), np.float32)),
    "a number": (VECTOR, 1.0),
    "a picture": (OBS["image"], np.zeros((3, 2), np.uint8)),
    "a row of rows": (OBS["discrete"], np.zeros((2, 2), int)),
    "one part": (OBS["dict"], {"n": 1, "x": np.zeros(3)}),
    "no part": (OBS["dict"], {"n": 1}),
    "no dict": (OBS["dict"], np.zeros(3)),
    "half a batch": (OBS["dict"], {"n": np.ones(2, int), "x": np.zeros((2, 2))}),
    "half a tuple": (OBS["tuple"], (np.zeros(2, np.int8),)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_shape_is_one_clear_line(name: str) -> None:
    space, obs = WRONG[name]
    with pytest.raises(VolitionError, match="obs") as error:
        agent(space).act(obs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["box", "image", "discrete", "dict"])
def test_a_players_numpy_is_the_policy(name: str) -> None:
    """The race in NumPy picks what Categorical.sample picks from the same noise, and the mode when greedy."""
    a = agent(OBS[name])
    env = make(lambda: World(OBS[name]), 4)
    env.reset(seed=0)
    player = Player(a, env, generator(), 6)
    greedy = Player(a, env, generator(), 6, greedy=True)
    assert player._fast
    steps = Collector(env, 6).collect(player)
    obs = tree_rows(steps.obs, 6)
    torch_draws = generator()
    noise = torch.rand(6, 4, 3, generator=torch_draws).clamp_min(torch.finfo(torch.float32).tiny)
    logits = a(obs).distribution.logits.view(6, 4, 3)
    expected = (logits - (-noise.log()).log()).argmax(-1)
    assert_close(steps.action, expected)
    assert torch.equal(player.generator.get_state(), torch_draws.get_state())
    assert len(steps.action.unique()) >= 2
    steps = Collector(env, 6).collect(greedy)
    assert_close(steps.action.flatten(), a(tree_rows(steps.obs, 6)).distribution.mode())


def tree_rows(obs: Any, length: int) -> Any:
    if isinstance(obs, dict):
        return {key: tree_rows(x, length) for key, x in obs.items()}
    return obs[:length].flatten(0, 1)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_player_draws_by_its_probabilities(steps: int) -> None:
    a = agent(spaces.Discrete(2))
    env = make(lambda: World(spaces.Discrete(2)), 8)
    env.reset(seed=0)
    played = Collector(env, 500).collect(Player(a, env, generator(), steps))
    for n in (0, 1):
        here = played.action[played.obs[:-1] == n]
        probs = a(torch.tensor(n)).distribution.probs
        shares = torch.bincount(here, minlength=3) / len(here)
        assert_close(shares, probs.detach(), rtol=0, atol=0.05)  # 2,000 draws: 4.5 standard errors


def test_a_player_follows_the_weights() -> None:
    a = agent()
    env = make(World, 3)
    env.reset(seed=0)
    player, collector = Player(a, env, generator(), 2), Collector(env, 2)
    collector.collect(player)
    for choice in (2, 0, 1):
        with torch.no_grad():
            a.net.actor_bias.copy_(100.0 * torch.eye(3)[choice])
        assert bool((collector.collect(player).action == choice).all())


@pytest.mark.parametrize("name", ["box", "multidiscrete", "dict", "tuple"])
def test_a_player_in_other_action_spaces_samples_the_policy(name: str) -> None:
    space = ACTIONS[name]
    a = agent(action=space)
    env = make(lambda: World(action=space), 3)
    env.reset(seed=0)
    player = Player(a, env, generator(7), 4)
    steps = Collector(env, 4).collect(player)
    g = generator(7)
    for t in range(4):
        expected = a(steps.obs[t]).distribution.sample(g)
        got = steps.action
        for key in [None] if isinstance(expected, Tensor) else (expected if isinstance(expected, dict) else (0, 1)):
            one, other = (got[t], expected) if key is None else (got[key][t], expected[key])
            assert_close(one, other, rtol=0, atol=0)


def test_a_players_memory_begins_anew_with_each_episode_and_is_saved() -> None:
    a = agent(memory=4)

    def begin() -> tuple[Player, Collector]:
        env = make(World, 3)
        env.reset(seed=0)
        return Player(a, env, generator(), 3), Collector(env, 3)

    player, collector = begin()
    h = a.initial_state(3)
    for _ in range(4):  # episodes of four steps, collected in threes
        steps = collector.collect(player)
        for t in range(3):
            h = tree_where(steps.fresh[t], a.initial_state(3), h)
            h = a(steps.obs[t], h).state.detach()
        assert_close(player.state, h, rtol=0, atol=1e-6)
    other, _ = begin()
    other.load_state_dict(player.state_dict())
    assert_close(other.state, player.state, rtol=0, atol=0)


class Both(nn.Module):
    """A user's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.head = action_head(spaces.Discrete(3))

    def forward(self, obs: Tensor, state: None, mask: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(self.head.distribution(self.body(obs)), None, obs.sum(-1))

    def initial_state(self, batch: int) -> None:
        return None


def test_any_network_will_do() -> None:
    a = Agent(Both(), VECTOR, spaces.Discrete(3))
    env = make(World, 2)
    env.reset(seed=0)
    steps = Collector(env, 5).collect(Player(a, env, generator(), 5))
    assert steps.action.shape == (5, 2)
    assert a.act(np.zeros(3, np.float32), greedy=True) in (0, 1, 2)
