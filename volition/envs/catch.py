"""Catch-v0: a ball falls and a paddle is to be under it, but the screen can only be seen through glimpses (Mnih 2014).

The paper tells the rules in words (section 4.2): a screen of 24×24 binary pixels, a ball of one pixel that falls from
the top and bounces off the sides, a paddle of two pixels at the bottom, three moves, and 1 for a catch. What it leaves
open is fixed here: the ball starts in any column and falls one row a step with any slope up to one column a row; the
paddle starts in the middle and moves one column a step.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from volition.core.glimpse import GlimpseSensor
from volition.core.policy import tree_map
from volition.errors import VolitionError

SCREEN, STEPS, MIDDLE = 24, 23, 11  # side in pixels; steps from the top row to the bottom; where the paddle starts
LEFT, STAY, RIGHT = 0, 1, 2
ZOOM = 12  # pixels of a picture per pixel of the screen
Obs = dict[str, Any]  # of tensors or of arrays


def column(start: Tensor, slope: Tensor, row: int) -> Tensor:
    """Where the ball is in `row`: start + slope·row, folded back at the sides 0 and 23, to the nearest pixel."""
    folded = (start + slope * row).remainder(2 * (SCREEN - 1))
    return (SCREEN - 1 - (folded - (SCREEN - 1)).abs()).round().long()


class CatchVectorEnv(gym.vector.VectorEnv):
    """A batch of games of 23 steps, each a glimpse of the screen, a move of the paddle and the next place to look at.

    obs = {glimpse `[B, k·g·g]`: ρ(x, l) in [0, 1], location `[B, 2]`: where it was taken}; action = {location `[B, 2]`
    of the next glimpse, clipped to [−1, 1]; move `[B]`: 0 left, 1 stay, 2 right}. The reward is 1 in the last step if
    the ball lands on the paddle, else 0. The first glimpse is taken at a uniformly random place, and with
    `random_glimpses` so are all others, whatever the action says; nobody looks at the location that the last step
    chooses. With `truth` obs has that too, `[B, 6]`: the ball's row, its column, the one it will land in, the paddle's,
    the difference of the last two and the ball's slope, about −1 … 1, not for players, but a critic may read them. All
    games run in step, and new ones begin in the step that ends the old (SAME_STEP). In numpy, or with `tensors` in
    torch on `device`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012
    obs: dict[str, Tensor]  # what the next action answers
    paddle: Tensor  # [B]: the left one of its two columns
    landing: Tensor  # [B]: the column in which the ball will reach the bottom
    location: Tensor  # [B, 2]: of the glimpse last taken

    def __init__(
        self,
        num_envs: int = 1,
        size: int = 6,
        scales: int = 3,
        slope: float = 1.0,
        random_glimpses: bool = False,
        truth: bool = False,
        tensors: bool = False,
        device: str | torch.device = "cpu",
        render_mode: str | None = None,
    ) -> None:
        if min(num_envs, size, scales) < 1 or slope < 0 or (scales > 1 and size % 2):
            raise VolitionError(
                f"Catch-v0: num_envs {num_envs}, size {size} and scales {scales} must be at least 1, slope {slope} 0 "
                "or more, and size even where there are several scales"
            )
        self.num_envs, self.slope, self.tensors = num_envs, slope, tensors
        self.random_glimpses, self.truth = random_glimpses, truth
        self.device, self.render_mode = torch.device(device), render_mode
        self.sensor = GlimpseSensor(SCREEN, SCREEN, size, scales)
        box = gym.spaces.Box(-1.0, 1.0, (2,))
        seen: dict[str, Any] = {"glimpse": gym.spaces.Box(0.0, 1.0, (scales * size * size,)), "location": box}
        if truth:
            seen["truth"] = gym.spaces.Box(-max(1.0, slope), max(1.0, slope), (6,))
        self.single_observation_space = gym.spaces.Dict(seen)
        self.single_action_space = gym.spaces.Dict(location=box, move=gym.spaces.Discrete(3))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator(self.device)
        self.row = -1  # of the ball; −1: not yet reset
        self._sums: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict]:
        """Begin B new games; `seed` makes everything from here on repeat."""
        super().reset(seed=seed)
        if seed is not None or self.row < 0:
            self.generator.manual_seed(int(self.np_random.integers(2**62)))
        self._begin()
        self._shown = self._scene()
        return self._out(self.obs), {}

    def step(self, actions: Obs) -> tuple[Obs, Any, Any, Any, dict[str, Any]]:
        """Move the paddle, let the ball fall by a row, and look."""
        if not self.tensors:
            actions = tree_map(lambda x: torch.as_tensor(x, device=self.device), actions)
        self.paddle = (self.paddle + actions["move"] - STAY).clamp(0, SCREEN - 2)
        self.row += 1
        self._look(self._anywhere() if self.random_glimpses else actions["location"].float().clamp(-1.0, 1.0))
        self._shown = self._scene()
        ended = self.row == STEPS
        terminated = torch.full_like(self.paddle, ended, dtype=torch.bool)
        reward, info = torch.zeros(self.num_envs, device=self.device), {}
        if ended:
            reward = ((self.landing == self.paddle) | (self.landing == self.paddle + 1)).float()
            info = {"final_obs": self.obs, "_final_obs": terminated}
            self._begin()
        return self._out((self.obs, reward, terminated, torch.zeros_like(terminated), info))

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """The screen of the first game `[288, 288, 3]` uint8 as the last step left it, each patch framed in orange."""
        return None if self.render_mode is None else (self.picture(),)

    def picture(self) -> np.ndarray:
        """What `render` shows, whatever the render mode."""
        row, ball, paddle, x, y = self._shown
        frame = np.full((SCREEN, SCREEN, 3), 24, np.uint8)
        frame[SCREEN - 1, paddle : paddle + 2] = 160
        frame[row, ball] = 255
        frame = frame.repeat(ZOOM, 0).repeat(ZOOM, 1)
        centre = np.round((np.array([x, y]) + 1) / 2 * SCREEN).astype(int)
        for s in reversed(range(self.sensor.scales)):
            side = self.sensor.size << s
            first = (centre - side // 2) * ZOOM
            (left, top), (right, bottom) = np.clip((first, first + side * ZOOM - 1), 0, SCREEN * ZOOM - 1)
            colour = (255, 127, 14) if s == 0 else (130, 75, 25)
            frame[[top, bottom], left : right + 1] = frame[top : bottom + 1, [left, right]] = colour
        return frame

    def state_dict(self) -> dict[str, Any]:
        """Where every game stands, and the random state."""
        ball = {"start": self.start, "slopes": self.slopes, "row": self.row}
        return ball | {"paddle": self.paddle, "location": self.location, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        if len(state["paddle"]) != self.num_envs:
            raise VolitionError(f"Catch-v0 was saved with {len(state['paddle'])} games, not {self.num_envs}")
        self.start, self.slopes, self.paddle = (state[key].to(self.device) for key in ("start", "slopes", "paddle"))
        self.row, self.landing = state["row"], column(self.start, self.slopes, STEPS)
        self._look(state["location"].to(self.device))
        self.generator.set_state(state["generator"])
        self._shown = self._scene()

    def _begin(self) -> None:
        self.start = self._uniform().mul_(SCREEN).floor_().clamp_(max=SCREEN - 1)  # rounding may reach 24
        self.slopes = (self._uniform() * 2 - 1) * self.slope
        self.landing = column(self.start, self.slopes, STEPS)
        self.paddle = torch.full((self.num_envs,), MIDDLE, device=self.device)
        self.row = 0
        self._look(self._anywhere())

    def _look(self, location: Tensor) -> None:
        self.location, self.ball = location, column(self.start, self.slopes, self.row)
        bottom = (SCREEN - 1) * SCREEN + self.paddle
        lit = torch.stack([self.row * SCREEN + self.ball, bottom, bottom + 1], 1)
        screen = torch.zeros(self.num_envs, SCREEN * SCREEN, dtype=torch.uint8, device=self.device)
        screen.scatter_(1, lit, 255)
        self._sums = self.sensor.prepare(screen.view(-1, SCREEN, SCREEN), out=self._sums)
        self.obs = {"glimpse": self.sensor.look(self._sums, location).flatten(1), "location": location}
        if self.truth:
            row = torch.full_like(self.ball, self.row)
            places = torch.stack([row, self.ball, self.landing, self.paddle], 1) / ((SCREEN - 1) / 2) - 1
            lead = (self.landing - self.paddle) / SCREEN
            self.obs["truth"] = torch.cat([places, lead[:, None], self.slopes[:, None]], 1)

    def _scene(self) -> tuple[Any, ...]:
        return self.row, int(self.ball[0]), int(self.paddle[0]), *self.location[0].tolist()

    def _anywhere(self) -> Tensor:
        return self._uniform(2) * 2 - 1

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.num_envs, *shape, generator=self.generator, device=self.device)

    def _out(self, tree: Any) -> Any:
        return tree if self.tensors else tree_map(lambda x: x.cpu().numpy().copy(), tree)


class CatchEnv(gym.Env):
    """One game at a time, with the spaces and settings of CatchVectorEnv."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.vector, self.render_mode = CatchVectorEnv(1, **settings), render_mode
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict]:
        """Begin a game."""
        super().reset(seed=seed)
        # all chance comes from np_random, so that an episode can be lived through again
        obs, info = self.vector.reset(seed=int(self.np_random.integers(2**62)), options=options)
        return tree_map(lambda x: x[0], obs), info

    def step(self, action: Obs) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Move and look."""
        obs, reward, terminated, _, info = self.vector.step(tree_map(lambda x: np.asarray(x)[None], action))
        # the next game is not for these eyes before they ask for it by reset
        obs = tree_map(lambda x: x[0], info.get("final_obs", obs))
        return obs, float(reward[0]), bool(terminated[0]), False, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The screen, each patch of the glimpse framed in orange."""
        return None if self.render_mode is None else self.vector.picture()
