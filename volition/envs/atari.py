"""Atari games as the papers play them: ale-py's vector environment, whole games counted, and exact resume."""

import json
import os
import zlib
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from volition.errors import VolitionError

FRAMES = 108_000  # of a game at most: half an hour (Mnih et al. 2015, methods)
GAMES = 50  # begun from one seed: a new one takes ale-py 80 ms, a new game 6 ms


class Atari(VectorEnv):
    """B games of one kind. obs uint8 `[B, 4, 84, 84]`: the last four pictures, grey, each the maximum of two frames.

    A step shows the action for `frameskip` frames (Mnih et al. 2015, methods). A game begins with up to `noop_max`
    frames of no action, and with FIRE where the game knows it. In `training` a lost life terminates, but the game goes
    on from there, and rewards are clipped to ±1; otherwise neither. `games` receives (score, steps) of whole games,
    unclipped, in both cases: who reads it empties it. SAME_STEP autoreset; `info["lives"]`. The same action again
    with `repeat_action_probability`, 0.25 in Machado et al. 2018, is off.

    A game under way is a seed, the count of games begun since, and its actions: it resumes exactly, by playing them
    again, some seconds for 8 games.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        training: bool = False,
        limit: int = 0,
        render_mode: str | None = None,
        num_threads: int = 0,
        frameskip: int = 4,
        stack_num: int = 4,
        img_height: int = 84,
        img_width: int = 84,
        grayscale: bool = True,
        maxpool: bool = True,
        noop_max: int = 30,
        use_fire_reset: bool = True,
        repeat_action_probability: float = 0.0,
        full_action_space: bool = False,
        episodic_life: bool | None = None,
        reward_clipping: bool | None = None,
    ) -> None:
        from ale_py.vector_env import AtariVectorEnv

        if min(frameskip, num_envs) < 1:
            raise ValueError(f"frameskip {frameskip} and num_envs {num_envs} must be 1 or more")
        self.limit = min(limit * frameskip or FRAMES, FRAMES) // frameskip
        self._lives_count = training if episodic_life is None else episodic_life
        self._clips = training if reward_clipping is None else reward_clipping
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._games = AtariVectorEnv(
            game,
            num_envs,
            num_threads=num_threads or min(num_envs, cores),
            max_num_frames_per_episode=self.limit * frameskip,
            repeat_action_probability=repeat_action_probability,
            full_action_space=full_action_space,
            autoreset_mode=AutoresetMode.NEXT_STEP,  # which never comes about: ended games begin anew here, from a seed
            img_height=img_height,
            img_width=img_width,
            grayscale=grayscale,
            stack_num=stack_num,
            frameskip=frameskip,
            maxpool=maxpool,
            noop_max=noop_max,
            use_fire_reset=use_fire_reset,
            episodic_life=False,  # ale-py's would begin a new game with every life
            reward_clipping=False,
        )
        self.num_envs, self.render_mode = num_envs, render_mode
        for name in ("single_observation_space", "observation_space", "single_action_space", "action_space"):
            setattr(self, name, getattr(self._games, name))
        self.games: list[tuple[float, int]] = []
        self.score, self.length = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self._lives = np.zeros(num_envs, np.int32)
        self._obs: Any = None
        self._seeds, self._begun = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        # where chance plays within a game, what follows does not depend on the count of games alone
        self._each = 1 if repeat_action_probability or render_mode else GAMES
        self._actions = np.zeros((self.limit + 1, num_envs), np.uint8)
        self._rows = np.arange(num_envs)
        self._screen: Screen | None = None
        self._picture: Any = None
        if render_mode == "rgb_array":
            self._screen = Screen(game, frameskip, repeat_action_probability, full_action_space, use_fire_reset)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin B games; `seed` makes everything from here on repeat."""
        super().reset(seed=seed)
        self.games.clear()
        everywhere = np.ones(self.num_envs, bool)
        self._seed(everywhere)
        self._picture = None if self._screen is None else self._screen.picture
        return self._obs, {"lives": self._lives}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One action in every game."""
        obs, reward, over, cut, info = self._games.step(actions)
        self._actions[self.length, self._rows] = actions
        self.score += reward
        self.length += 1
        lives = info["lives"]
        if self._screen is not None:
            self._screen.step(int(actions[0]))
            self._picture = self._screen.picture  # of the end of a game, not of the next one's beginning
        terminated = over
        if self._lives_count:
            terminated = over | ((lives < self._lives) & (lives > 0))
            cut = cut & ~terminated
        self._lives, self._obs = lives, obs
        told = {"lives": lives}
        if np.count_nonzero(terminated) or np.count_nonzero(cut):
            told["final_obs"] = obs
            ended = over | cut | (self.length >= self.limit)
            if ended.any():
                self.games += zip(self.score[ended].tolist(), self.length[ended].tolist(), strict=True)
                old = ended & (self._begun >= self._each)
                if old.any():
                    self._seed(old)
                if (rest := ended & ~old).any():
                    self._begin(rest, np.full(np.count_nonzero(rest), -1))
                told["lives"] = self._lives
        return self._obs, np.clip(reward, -1, 1) if self._clips else reward, terminated, cut, told

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The first game's screen `[210, 160, 3]`, as the last action left it."""
        return None if self._picture is None else (self._picture,)

    def close_extras(self, **kwargs: Any) -> None:
        """End ale-py's threads."""
        self._games.close(**kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Seeds and actions of the games under way, what they have earned, and where the next seeds come from."""
        actions = [torch.as_tensor(self._actions[:length, i].copy()) for i, length in enumerate(self.length)]
        return {
            "seeds": self._seeds.tolist(),
            "begun": self._begun.tolist(),
            "actions": actions,
            "score": self.score.tolist(),
            "games": [list(game) for game in self.games],
            "random": json.dumps(self.np_random.bit_generator.state),
            "picture": 0 if self._obs is None else zlib.crc32(self._obs.tobytes()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`: the games under way are played again and must lead to the same pictures."""
        actions = [x.numpy() for x in state["actions"]]
        begun, lengths = np.array(state["begun"]), np.array([len(x) for x in actions])
        longest = int(lengths.max())
        begins = longest - lengths  # all are to be where they were at the same time: the long ones begin first
        self._begin(np.ones(self.num_envs, bool), np.zeros(self.num_envs, np.int64))
        self._seeds[:] = state["seeds"]
        for t in range(longest + 1):
            if (now := begins == t).any():
                self._begin(now, self._seeds[now])
                for count in range(1, begun.max()):
                    if (more := now & (begun > count)).any():
                        self._begin(more, np.full(np.count_nonzero(more), -1))
            if t < longest:
                action = [int(x[t - begin]) if t >= begin else 0 for x, begin in zip(actions, begins, strict=True)]
                self._obs, _, _, _, info = self._games.step(np.array(action))
                self._lives = info["lives"]
                if self._screen is not None and t >= begins[0]:
                    self._screen.step(action[0])
        if self._obs is None or zlib.crc32(self._obs.tobytes()) != state["picture"]:
            raise VolitionError(
                "the Atari games under way do not replay: the same actions led to other pictures; "
                "go on with the settings and the version of ale-py with which they were played"
            )
        for i, x in enumerate(actions):
            self._actions[: len(x), i] = x
        self.length, self.score, self._begun = lengths, np.array(state["score"]), begun
        self.games = [(score, int(steps)) for score, steps in state["games"]]
        self.np_random.bit_generator.state = json.loads(state["random"])

    def _seed(self, which: np.ndarray) -> None:
        """New games in the given rows, from new seeds."""
        self._seeds[which] = self.np_random.integers(2**31 - 1, size=np.count_nonzero(which))
        self._begun[which] = 0
        self._begin(which, self._seeds[which])

    def _begin(self, which: np.ndarray, seeds: np.ndarray) -> None:
        """New games in the given rows, from seeds, or without where they are −1."""
        self._obs, info = self._games.reset(seed=seeds, options={"reset_mask": which})
        self.score[which], self.length[which], self._lives = 0.0, 0, info["lives"]
        self._begun[which] += 1
        if self._screen is not None and which[0]:
            self._screen.begin(int(seeds[0]), int(info["episode_frame_number"][0]))


class Screen:
    """The same game once more, in colour: from the same seed the same actions show the same."""

    def __init__(self, game: str, frameskip: int, sticky: float, every_action: bool, fire: bool) -> None:
        from ale_py import ALEInterface, LoggerMode, roms

        self.rom, self.frameskip, self.ale = str(roms.get_rom_path(game)), frameskip, ALEInterface()
        self.ale.setLoggerMode(LoggerMode.Error)
        self.ale.setFloat("repeat_action_probability", sticky)
        self.ale.loadROM(self.rom)
        self.actions = self.ale.getLegalActionSet() if every_action else self.ale.getMinimalActionSet()
        self.fire = next((a for a in self.actions if a.name == "FIRE"), None) if fire else None

    def begin(self, seed: int, frames: int) -> None:
        """A game that has run for so many frames by FIRE and no actions."""
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(self.rom)
        self.ale.reset_game()
        if self.fire is not None:
            self.ale.act(self.fire)
        while self.ale.getEpisodeFrameNumber() < frames:
            self.ale.act(self.actions[0])
        self.picture = self.ale.getScreenRGB()

    def step(self, action: int) -> None:
        """One action for as many frames as it is shown."""
        before = self.picture
        for _ in range(self.frameskip):
            if not self.ale.game_over():
                self.ale.act(self.actions[action])
                before, self.picture = self.picture, self.ale.getScreenRGB()
        self.picture = np.maximum(before, self.picture)  # many things flicker


def rom_name(name: str) -> str | None:
    """The game's name in ale-py, for the id of an environment that is best played here; None for any other."""
    if not name.startswith("ALE/"):
        return None
    try:
        import ale_py
    except ImportError:
        raise VolitionError(f"env {name!r} needs ale-py: pip install 'volition[atari]'") from None
    gymnasium.register_envs(ale_py)
    spec = gymnasium.registry.get(name)
    return None if spec is None or spec.vector_entry_point is None else spec.kwargs["game"]


def make_atari(
    name: str, game: str, num_envs: int, options: dict[str, Any], limit: int = 0, training: bool = False
) -> Atari:
    """`Atari` with one clear error for options that it does not have."""
    settings: Any = {"training": training, "limit": limit, **options}
    try:
        return Atari(game, num_envs, **settings)
    except (TypeError, ValueError, AssertionError, gymnasium.error.Error) as error:
        raise VolitionError(f"env {name!r} refused {options}: {' '.join(str(error).split())}") from None
