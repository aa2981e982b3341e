"""Catch keeps its rules, shows itself only through the sensor, and teaches each head from its own actions."""

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

import volition.envs  # noqa: F401 - registers
from volition.applications import catch
from volition.applications.catch import Baseline, Config, towards, walk
from volition.core.returns import gae
from volition.core.rollout import unroll
from volition.core.trajectory import Trajectory
from volition.envs.catch import SCREEN, STEPS, CatchVectorEnv, column
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.nets.glimpse_player import GlimpsePlayer
from volition.nets.lstm import LSTM, Cell
from volition.run import Run

SMALL = Config(units=16, batch=8, bf16=False, games=8)


def bounced(start: int, slope: float) -> list[int]:
    """The ball's columns row by row, the plain way: it moves and is mirrored at a side when it has crossed it."""
    x, v, columns = float(start), slope, []
    for _ in range(STEPS + 1):
        columns.append(round(x))
        x += v
        if x < 0:
            x, v = -x, -v
        if x > SCREEN - 1:
            x, v = 2 * (SCREEN - 1) - x, -v
    return columns


@pytest.mark.parametrize(("start", "slope"), [(0, -0.3), (3, -0.97), (12, 0.013), (20, 1.0), (23, 0.61), (5, -1.0)])
def test_the_ball_falls_straight_and_bounces_off_the_sides(start: int, slope: float) -> None:
    path = [int(column(torch.tensor([float(start)]), torch.tensor([slope]), row)) for row in range(STEPS + 1)]
    assert path == bounced(start, slope)


def move(env: CatchVectorEnv, *moves: int, location: tuple[float, float] = (0.0, 0.0)) -> tuple:
    return env.step({"location": torch.tensor([location] * env.num_envs), "move": torch.tensor(moves)})


def whole_screen(games: int) -> CatchVectorEnv:
    """A sensor that sees everything from the centre."""
    env = CatchVectorEnv(games, size=24, scales=1, tensors=True)
    env.reset(seed=0)
    return env


def test_a_game_by_hand() -> None:
    env = whole_screen(3)
    # straight down in column 13, in column 12, and from 12 one column to the left a row, so to 0 and back to 11
    state = env.state_dict() | {"start": torch.tensor([13.0, 12.0, 12.0]), "slopes": torch.tensor([0.0, 0.0, -1.0])}
    env.load_state_dict(state)
    for t in range(STEPS):
        _, reward, terminated, truncated, info = move(env, 2 if t < 1 else 1, 2 if t < 1 else 1, 1)
        screen = (info["final_obs"] if t == STEPS - 1 else env.obs)["glimpse"].view(3, SCREEN, SCREEN)
        assert not truncated.any() and terminated.tolist() == [t == STEPS - 1] * 3
        assert screen[0, 23].nonzero().flatten().tolist() == [12, 13]  # the middle is 11; one step to the right
        assert screen[2, 23].nonzero().flatten().tolist() == [11, 12]
        if t < STEPS - 1:
            assert not reward.any()
            assert screen[2, t + 1].nonzero().flatten().tolist() == [abs(12 - (t + 1))]
            assert screen.sum().item() == 9
    assert reward.tolist() == [1.0, 1.0, 1.0]
    assert env.row == 0 and env.paddle.tolist() == [11] * 3  # the next games have begun


def test_two_columns_catch_and_their_neighbours_do_not() -> None:
    env = whole_screen(4)
    env.load_state_dict(env.state_dict() | {"start": torch.tensor([10.0, 11, 12, 13]), "slopes": torch.zeros(4)})
    for _ in range(STEPS):
        _, reward, *_ = move(env, 1, 1, 1, 1)
    assert reward.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_paddle_stays_on_the_screen() -> None:
    env = whole_screen(2)
    for _ in range(15):
        move(env, 0, 2)
    assert env.paddle.tolist() == [0, 22]


def test_the_glimpse_is_the_sensors_at_the_clipped_location() -> None:
    env, whole = CatchVectorEnv(5, tensors=True), whole_screen(5)
    env.reset(seed=4)
    whole.load_state_dict(env.state_dict())
    for location in ((0.3, -0.8), (4.0, 0.9), (-1.0, -7.0)):
        obs, *_ = move(env, 0, 1, 2, 1, 0, location=location)
        move(whole, 0, 1, 2, 1, 0)
        screen = (whole.obs["glimpse"].view(5, SCREEN, SCREEN) * 255).to(torch.uint8)
        clipped = torch.tensor([location] * 5).clamp(-1, 1)
        assert torch.equal(obs["location"], clipped)
        assert torch.equal(obs["glimpse"], env.sensor.look(env.sensor.prepare(screen), clipped).flatten(1))


def test_whoever_knows_the_landing_catches_every_ball() -> None:
    # From the middle the farthest column is 11 steps away, and a game has 23: all is reachable, and more is not asked.
    env = CatchVectorEnv(2_000, tensors=True)
    env.reset(seed=0)
    assert walk(env, lambda: towards(env.landing, env.paddle)).all()
    # who stays catches the balls that land in two of 24 columns, more or less evenly spread: 8 %
    stayed = walk(env, lambda: torch.ones(2_000, dtype=torch.int64)).mean()
    assert 0.06 < stayed < 0.11
    # who runs after the ball is late half of the time: it moves after him
    assert 0.4 < walk(env, lambda: towards(env.ball, env.paddle)).mean() < 0.65


def test_random_glimpses_ignore_the_action_and_truth_says_all() -> None:
    env = CatchVectorEnv(400, random_glimpses=True, truth=True, tensors=True)
    env.reset(seed=1)
    obs, *_ = env.step({"location": torch.zeros(400, 2), "move": torch.zeros(400, dtype=torch.int64)})
    assert obs["location"].abs().max() > 0.9 and abs(obs["location"].mean()) < 0.1
    row, ball, landing, paddle, lead, slope = obs["truth"].double().unbind(1)
    assert ((row + 1) * 11.5).round().eq(1).all() and ((paddle + 1) * 11.5).round().eq(10).all()
    assert ((ball + 1) * 11.5).round().eq(env.ball).all() and ((landing + 1) * 11.5).round().eq(env.landing).all()
    assert (lead * 24).round().eq(env.landing - 10).all() and slope.float().equal(env.slopes)


def test_gymnasiums_checks_and_spaces() -> None:
    env = gym.make("volition/Catch-v0", render_mode="rgb_array")
    check_env(env.unwrapped)
    frame = env.unwrapped.render()
    assert frame.dtype == np.uint8 and frame.shape == (288, 288, 3)
    vector = gym.make_vec("volition/Catch-v0", num_envs=5)
    obs, _ = vector.reset(seed=3)
    vector.action_space.seed(0)
    for t in range(2 * STEPS):
        assert vector.observation_space.contains(obs)
        obs, reward, terminated, truncated, info = vector.step(vector.action_space.sample())
        assert terminated.all() == (t % STEPS == STEPS - 1) and not truncated.any()
        if terminated.all():
            assert vector.observation_space.contains(info["final_obs"])
            assert set(reward.tolist()) <= {0.0, 1.0}
    assert type(make("volition/Catch-v0", 6).env) is CatchVectorEnv  # any algorithm here plays the vector form


def test_same_seed_same_games_and_state_dict_resumes_mid_game() -> None:
    def play(env: CatchVectorEnv, steps: int, generator: torch.Generator) -> list[Tensor]:
        seen = []
        for _ in range(steps):
            action = {
                "location": torch.rand(4, 2, generator=generator) * 2 - 1,
                "move": torch.randint(3, (4,), generator=generator),
            }
            obs, reward, *_ = env.step(action)
            seen += [obs["glimpse"], obs["location"], reward, env.landing]
        return seen

    one, two = (CatchVectorEnv(4, tensors=True) for _ in range(2))
    one.reset(seed=7), two.reset(seed=7)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for a, b in zip(play(one, 30, generators[0]), play(two, 30, generators[1]), strict=True):
        assert torch.equal(a, b)
    saved = {name: x.clone() if isinstance(x, Tensor) else x for name, x in one.state_dict().items()}
    after = play(one, 40, generators[0])
    three = CatchVectorEnv(4, tensors=True)
    three.reset(seed=99)
    three.load_state_dict(saved)
    for a, b in zip(after, play(three, 40, generators[1]), strict=True):
        assert torch.equal(a, b)


def episodes(config: Config) -> tuple[GlimpsePlayer, Baseline, Trajectory, Tensor]:
    """An untrained agent, its baseline, a batch of its games and their advantages."""
    run = Run(None, config=config)
    env, policy = catch.make_env(config, run, config.batch), catch.make_policy(config, run)
    baseline = Baseline(config.units, config.baseline == "privileged")
    env.reset(seed=0)
    games = catch.judged(catch.play(env, policy, run.generator), baseline)
    advantage = gae(games.reward, games.discount, games.done, games.next_value, games.value, config.lam)
    return policy, baseline, games, advantage


def touched(module: torch.nn.Module, loss: Tensor) -> set[str]:
    """First names of the parameters that the gradient of `loss` reaches."""
    module.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("baseline", ["state", "privileged"])
def test_each_loss_reaches_its_own_parameters_only(baseline) -> None:
    config = replace(SMALL, baseline=baseline)
    policy, critic, games, advantage = episodes(config)
    losses = catch.policy_losses(config, policy, critic, games, advantage, torch.arange(8))
    body = {"what", "where", "glimpse", "core"}
    assert touched(policy, losses["location"]) == body | {"locate"}
    assert touched(policy, losses["move"]) == touched(policy, losses["entropy"]) == body | {"move"}
    assert touched(policy, losses["baseline"]) == set() and touched(critic, losses["baseline"]) == {"net"}
    assert touched(critic, losses["move"]) == set()
    control = catch.policy_losses(replace(config, model="random"), policy, critic, games, advantage, torch.arange(8))
    assert "location" not in control


def test_the_first_step_is_reinforce_without_the_last_location() -> None:
    config = replace(SMALL, lam=1.0, normalize=False, entropy=0.0, baseline="state")
    policy, critic, games, advantage = episodes(config)
    returns = games.reward.sum(0)  # γ = 1, and all of the reward comes at the end
    torch.testing.assert_close(advantage, returns - games.value)
    losses = catch.policy_losses(config, policy, critic, games, advantage, torch.arange(8))
    found = torch.autograd.grad(losses["location"] + losses["move"], [policy.locate.weight, policy.move.weight])
    output = policy.sequence(games.obs, policy.initial_state(8), games.done)
    where, what = catch.parts(output.distribution)
    by_hand = (what.log_prob(games.action["move"]) * advantage).sum()
    chosen = games.action["location"]
    density = -((chosen - where.mean) ** 2).sum(-1) / (2 * config.std**2) - math.log(2 * math.pi * config.std**2)
    by_hand = by_hand + (density * advantage)[:-1].sum()
    expected = torch.autograd.grad(-by_hand / (STEPS * 8), [policy.locate.weight, policy.move.weight])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_unroll_reads_what_was_played() -> None:
    policy, _, games, _ = episodes(SMALL)
    torch.testing.assert_close(unroll(policy, games).log_prob, games.log_prob, rtol=1e-4, atol=1e-4)


def test_the_lstm_is_torchs_and_forgets_after_done() -> None:
    torch.manual_seed(0)
    ours, theirs, x = LSTM(5, 7), torch.nn.LSTM(5, 7), torch.randn(6, 3, 5)
    with torch.no_grad():  # torch orders the gates i, f, g, o and we i, f, o, n
        order = torch.cat([torch.arange(14), torch.arange(21, 28), torch.arange(14, 21)])
        ours.see.weight.copy_(theirs.weight_ih_l0[order])
        ours.see.bias.copy_((theirs.bias_ih_l0 + theirs.bias_hh_l0)[order])
        ours.recall.weight.copy_(theirs.weight_hh_l0[order])
    torch.testing.assert_close(ours.sequence(x, ours.initial_state(3)).h, theirs(x)[0])
    done = torch.tensor([[False, True, False]] + 5 * [[False] * 3])
    h = ours.sequence(x, ours.initial_state(3), done).h
    torch.testing.assert_close(h[1:, 1], ours.sequence(x[1:], ours.initial_state(3)).h[:, 1])
    torch.testing.assert_close(h[:, 0], theirs(x)[0][:, 0])
    state = Cell(torch.randn(3, 7), torch.randn(3, 7))
    torch.testing.assert_close(ours.sequence(x[:1], state).c[0], ours(x[0], state).c)


def test_the_baseline_is_told_the_truth_only_where_it_may_be() -> None:
    for kind, told in (("state", False), ("privileged", True)):
        _, critic, games, _ = episodes(replace(SMALL, baseline=kind))
        assert ("truth" in games.obs) == told
        h = torch.stack([output.state.h for output in games.outputs])
        torch.testing.assert_close(critic(h, games.obs), games.value)
        assert torch.equal(games.next_value[:-1], games.value[1:]) and not games.next_value[-1].any()


def test_steps_on_one_batch_lower_its_losses() -> None:
    config = replace(SMALL, units=32, batch=64)
    policy, critic, games, advantage = episodes(config)
    before = catch.policy_losses(config, policy, critic, games, advantage, torch.arange(64))
    optimizer = catch.make_optimizer(config, policy, critic)
    for _ in range(20):
        losses = catch.policy_losses(config, policy, critic, games, advantage, torch.arange(64))
        optimizer.zero_grad()
        sum(losses.values(), start=torch.zeros(())).backward()
        optimizer.step()
    after = catch.policy_losses(config, policy, critic, games, advantage, torch.arange(64))
    assert after["baseline"] < 0.8 * before["baseline"]
    assert after["move"] + after["location"] < before["move"] + before["location"]


@pytest.mark.parametrize(("name", "value"), [("games", 0), ("lr", -1.0), ("lam", 2.0), ("minibatches", 9)])
def test_impossible_settings_are_named(name, value) -> None:
    with pytest.raises(VolitionError, match=name):
        replace(SMALL, **{name: value})
    with pytest.raises(VolitionError, match="size 5"):
        CatchVectorEnv(size=5)
