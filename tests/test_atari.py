"""Atari against a brute-force player of one game, whole games under clipped rewards, and exact resume."""

import copy
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

ale_py = pytest.importorskip("ale_py")

from volition.envs.atari import Atari, rom_name  # noqa: E402
from volition.envs.film import filmed  # noqa: E402
from volition.envs.vector import make  # noqa: E402
from volition.errors import VolitionError  # noqa: E402


def areas(size: int, to: int) -> np.ndarray:
    """How much of each of `size` old pixels lies in each of `to` new ones `[to, size]`, over the new one's width."""
    edges = np.linspace(0, size, to + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(size)
    return np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None) / (size / to)


class Single:
    """One game, one frame at a time, prepared as the papers say."""

    def __init__(self, game: str, seed: int) -> None:
        self.ale = ale_py.ALEInterface()
        self.ale.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale.setInt("random_seed", seed)
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(ale_py.roms.get_rom_path(game))
        self.actions = self.ale.getMinimalActionSet()
        self.down, self.across = areas(210, 84), areas(160, 84)

    def begin(self) -> np.ndarray:
        self.ale.reset_game()
        self.last = [np.zeros((210, 160), np.uint8), self.ale.getScreenGrayscale()]
        self.stack = np.zeros((4, 84, 84))
        return self.see()

    def see(self) -> np.ndarray:
        pooled = np.maximum(*self.last).astype(float)
        self.stack = np.concatenate([self.stack[1:], (self.down @ pooled @ self.across.T)[None]])
        return self.stack

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        reward = 0.0
        for k in range(4):
            reward += self.ale.act(self.actions[action])
            if self.ale.game_over():
                break
            if k >= 2:
                self.last = [self.last[1], self.ale.getScreenGrayscale()]
        return self.see(), reward, self.ale.game_over()


@pytest.mark.parametrize(("name", "steps", "games"), [("ALE/Breakout-v5", 330, 2), ("ALE/SpaceInvaders-v5", 260, 0)])
def test_brute_force(name: str, steps: int, games: int) -> None:
    game = rom_name(name)
    assert game
    env = Atari(game, 2, training=True, noop_max=0, use_fire_reset=False, num_threads=1)
    obs, info = env.reset(seed=4)
    singles = [Single(game, int(seed)) for seed in env._seeds]
    for single, mine in zip(singles, obs, strict=True):
        assert np.abs(single.begin() - mine).max() <= 1  # 0.5 of rounding
    rng, over, lost, paid = np.random.default_rng(0), 0, 0, 0.0
    total, lives = [0.0, 0.0], info["lives"].copy()
    for _ in range(steps):
        action = rng.integers(env.single_action_space.n, size=2)
        obs, reward, terminated, truncated, info = env.step(action)
        for i, single in enumerate(singles):
            seen, r, ended = single.step(int(action[i]))
            total[i] += r
            paid += r
            life = single.ale.lives()
            assert reward[i] == np.clip(r, -1, 1) and not truncated[i]
            assert terminated[i] == (ended or 0 < life < lives[i])
            if terminated[i]:
                final = info["final_obs"][i]
                assert ended or np.abs(seen - final).max() <= 1
                lost += not ended
            if ended:  # the last frames are those of the game that ended
                over += 1
                assert np.abs(seen[:3] - final[:3]).max() <= 1
                assert env.games.pop(0)[0] == total[i] and env.score[i] == env.length[i] == 0
                total[i], life = 0.0, env._lives[i]
                seen = single.begin()
            assert np.abs(seen - obs[i]).max() <= 1 and info["lives"][i] == life
            lives[i] = life
    assert over >= games and lost >= 1 and paid > 0 and not env.games


def test_evaluation_is_the_game_itself() -> None:
    env = make("ALE/SpaceInvaders-v5", 2, limit=200)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (2, 4, 84, 84) and obs.dtype == torch.uint8 and env.arrays and env.limit == 200
    env.seed_actions(1)
    rewards, counts, ends = torch.zeros(2), torch.zeros(2), []
    for _ in range(401):
        _, reward, terminated, truncated, info = env.step(env.sample())
        rewards, counts = rewards + reward, counts + 1
        for i in (terminated | truncated).nonzero().flatten().tolist():
            assert truncated[i] == (counts[i] == 200) and info["final_obs"].shape == (2, 4, 84, 84)
            ends.append((rewards[i].item(), int(counts[i])))
            rewards[i] = counts[i] = 0
    assert env.games == ends and len(ends) >= 4 and max(score for score, _ in ends) > 1  # invaders pay 5 to 30
    assert make("CartPole-v1").games is None


def test_games_begin_differently() -> None:
    env = Atari("breakout", 8, num_threads=1)
    env.reset(seed=0)
    frames = env._games.reset(options={"reset_mask": np.ones(8, bool)})[1]["episode_frame_number"]
    assert len(set(frames.tolist())) > 2 and frames.min() >= 1 and frames.max() <= 30


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_resumes_in_the_middle_of_games(sticky: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volition.envs.atari.GAMES", 2)
    options = {"repeat_action_probability": sticky, "num_threads": 1}

    def new() -> Any:
        return make("ALE/Breakout-v5", 2, training=True, options=options)

    env = new()
    env.reset(seed=3)
    env.seed_actions(0)
    actions = [env.sample() for _ in range(420)]
    for action in actions[:330]:
        env.step(action)
    assert len(env.games) >= 3  # so that a second seed was needed
    state = through_disk(copy.deepcopy(env.state_dict()))
    other = new()
    other.load_state_dict(state)
    assert other.games == env.games and other.steps == 660 and torch.equal(other.obs, env.obs)
    for action in actions[330:]:
        one, two = env.step(action), other.step(action)
        for mine, yours in zip(one[:4], two[:4], strict=True):
            assert_close(mine, yours, rtol=0, atol=0)
    assert other.games == env.games and len(env.games) >= 4
    state["env"]["actions"][0][-1] ^= 1  # a different picture, if not a different action only
    state["env"]["picture"] += 1
    with pytest.raises(VolitionError, match="do not replay"):
        new().load_state_dict(state)


def test_the_same_seed_repeats_and_threads_do_not_matter() -> None:
    envs = [Atari("space_invaders", 3, num_threads=threads) for threads in (1, 2)]
    rng = np.random.default_rng(1)
    seen = [env.reset(seed=9)[0] for env in envs]
    np.testing.assert_array_equal(*seen)
    for _ in range(40):
        action = rng.integers(6, size=3)
        np.testing.assert_array_equal(*(env.step(action)[0] for env in envs))
    np.testing.assert_array_equal(envs[0].reset(seed=9)[0], seen[0])
    assert not np.array_equal(envs[1].reset()[0], seen[0])


def test_a_film_shows_the_game_that_is_played(tmp_path: Path) -> None:
    from PIL import Image

    env, reel = filmed("ALE/Breakout-v5", limit=30)
    env.reset(seed=0)
    env.seed_actions(0)
    down, across, grey = areas(210, 84), areas(160, 84), np.array([0.299, 0.587, 0.114])
    inner: Any = env.env.unwrapped
    for _ in range(29):
        obs, *_ = env.step(env.sample())
        small = down @ (inner._picture @ grey) @ across.T
        assert np.abs(small - obs[0, -1].numpy()).mean() < 1
    env.step(env.sample())
    played: Any = SimpleNamespace(mask=torch.ones(30, 1))
    path = reel.develop(tmp_path / "game", played, "title")
    with Image.open(path) as image:
        assert image.format == "GIF" and image.size == (160, 210) and getattr(image, "n_frames", 1) > 5


def test_mistakes_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for call, words in (
        (lambda: make("ALE/Brekout-v5"), "did you mean ALE/Breakout-v5"),
        (lambda: make("ALE/Breakout-v5", options={"colour": 1}), "colour"),
        (lambda: make("ALE/Breakout-v5", options={"frameskip": 0}), "frameskip"),
    ):
        with pytest.raises(VolitionError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(VolitionError, match=r"pip install 'volition\[atari\]'"):
        make("ALE/Breakout-v5")
