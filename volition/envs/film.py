"""A played episode to look at: a moving picture where the environment can be drawn, else its curves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from volition.core.policy import Tree
from volition.core.trajectory import Trajectory
from volition.envs.atari import make_atari, rom_name
from volition.envs.vector import TensorEnv, make, make_one
from volition.errors import VolitionError

FRAMES, SIDE, SECONDS_A_FRAME = 250, 320, 0.04  # at most so many, so large in pixels, shown for so long


class Reel:
    """Keeps a small picture of every step; stops for good at the first picture that cannot be made."""

    def __init__(self, rolling: bool) -> None:
        self.frames: list[Any] = []
        self.rolling = rolling

    def shoot(self, render: Callable[[], Any]) -> None:
        """Keep what is rendered, of many environments the first."""
        if not self.rolling:
            return
        from PIL import Image

        try:
            pixels = render()
            pixels = pixels[0] if isinstance(pixels, tuple | list) else pixels
            picture = Image.fromarray(np.asarray(pixels, dtype=np.uint8)).convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            self.frames.append(picture)
        except Exception:  # a missing package, no display, an environment that draws something else
            self.rolling = False

    def develop(self, path: Path, episode: Trajectory, title: str) -> Path:
        """Write the one episode `[T, 1]` that was played to path.gif, or its curves to path.png."""
        steps = int(episode.mask.sum())
        if not self.rolling or len(self.frames) <= steps:
            return draw_curves(path.with_suffix(".png"), episode, title)
        stride = -(-(steps + 1) // FRAMES)
        first, *rest = self.frames[: steps + 1 : stride]  # what follows belongs to the next episode
        path = path.with_suffix(".gif")
        duration = round(1000 * SECONDS_A_FRAME)
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)
        return path


class Film(gymnasium.Wrapper):
    """One environment, filmed."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.reel = Reel(env.render_mode == "rgb_array")
        self.frames, self.develop = self.reel.frames, self.reel.develop

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode with a picture."""
        result = self.env.reset(seed=seed, options=options)
        self.reel.shoot(self.env.render)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """One step and its picture."""
        result = self.env.step(action)
        self.reel.shoot(self.env.render)
        return result


class VectorFilm(VectorWrapper):
    """A vector environment whose first is filmed."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.limit = getattr(env, "limit", None)
        self.reel = Reel(env.render_mode == "rgb_array")

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin episodes with a picture."""
        result = self.env.reset(seed=seed, options=options)
        self.reel.shoot(self.env.render)
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        """One step and its picture."""
        result = self.env.step(actions)
        self.reel.shoot(self.env.render)
        return result


def filmed(
    env: Any, limit: int = 0, device: torch.device | str = "cpu", options: Mapping[str, Any] | None = None
) -> tuple[TensorEnv, Reel]:
    """One environment by its id, or what else `make` takes, and the film on which it will be."""
    drawn = {**(options or {}), "render_mode": "rgb_array"}
    if isinstance(env, str) and (game := rom_name(env)):
        env = make_atari(env, game, 1, drawn, limit)
    elif isinstance(env, str):
        try:
            env = make_one(env, drawn)
        except VolitionError:  # it knows no pictures; any other mistake shows again
            env = make_one(env, dict(options or {}))
    elif callable(env) and not isinstance(env, gymnasium.Env | VectorEnv):
        env = env()
    if isinstance(env, VectorEnv):
        shown = VectorFilm(env)
        return make(shown, device=device), shown.reel
    film = Film(env)
    return make(film, 1, limit=limit, device=device), film.reel


def draw_curves(path: Path, episode: Trajectory, title: str) -> Path:
    """Reward so far, actions and up to eight numbers of the obs of the first environment of `[T, B]` over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = int(episode.mask[:, 0].sum())
    rows = {
        "return so far": episode.reward[:steps, :1].cumsum(0),
        "action": _numbers(episode.action, steps),
        "obs": _numbers(episode.obs, steps),
    }
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for (name, values), axes in zip(rows.items(), figure.subplots(3, 1, sharex=True), strict=True):
        axes.plot(values.float().cpu().numpy(), "." if name == "action" else "-", markersize=2)
        axes.set_ylabel(name)
    axes.set_xlabel("step")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return path


def _numbers(tree: Tree, steps: int) -> Tensor:
    """Up to eight numbers a step of the first environment, `[T, ≤ 8]`."""
    while isinstance(tree, dict | tuple | list):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    return tree[:steps, 0].reshape(steps, -1)[:, :8]
