"""Go-v0: games of Go for any library, against an opponent or with both sides played by the learner."""

from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from volition.core.game import Positions
from volition.core.policy import tree_map
from volition.envs import go
from volition.envs.go import jit
from volition.envs.go_game import KO, Go, step
from volition.envs.go_planes import SMALL, planes, small_planes
from volition.envs.go_random import draw_colours, random_actions
from volition.envs.go_render import picture, text
from volition.errors import VolitionError

COLOURS = {"black": go.BLACK, "white": go.WHITE}
Opponent = Literal["random"] | Callable[[Positions], Any] | None


def see(positions: Positions, count: int) -> np.ndarray:
    """float32 `[K, count, N, N]`: `small_planes` (18) or `planes` (48, 49), seen by the side to move."""
    size = int(positions.rows[0, go.SIZE])
    out = np.empty((len(positions.rows), count, size, size), np.float32)
    return small_planes(positions, out=out) if count == SMALL else planes(positions, count, out=out)


class GoVectorEnv(gym.vector.VectorEnv):
    """A batch of games by the rules of `Go`; a step is one move of the learner and the opponent's answer.

    obs float32 `[B, planes, N, N]` of 0 and 1 from the view of the side to move, as `see` gives them; action `[B]`:
    r·N + c, row 0 at the top, or N² for a pass; `info["action_mask"]` int8 `[B, N² + 1]`: 1 where it is legal. The
    reward is 0 until the game is over, then 1 for a win, −1 for a loss, 0 for a draw; `info["final_info"]` then has
    `score` `[B]`, the points by which the rewarded side leads. An illegal action loses the game (and `illegal` `[B]` of
    the final info says so), since other libraries' checks and learners without masks try some; with `illegal` "raises"
    it is a VolitionError, which finds mistakes in masks.

    The opponent is "random" (all legal moves that fill no own eye have the same chance, and it passes where there is
    none), or a function of positions of K games that are all the opponent's turn, which returns its actions `[K]`; the
    learner's `colour` is drawn for each game unless it is said. With opponent None the learner plays both sides: a step
    is one move, its reward is for the side that moved, and the next obs is the other side's, so that its value counts
    negatively. New games begin in the step that ends the old (SAME_STEP). In numpy, or with `tensors` in torch on
    `device`.
    """

    metadata = {  # noqa: RUF012 - as Gymnasium has it
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 2,
    }
    positions: Positions  # of all games
    colour: np.ndarray  # [B]: the learner's, against an opponent
    obs: Any  # what the next action answers

    def __init__(
        self,
        num_envs: int = 1,
        size: int = 9,
        komi: float = 7.0,
        ko: Literal["simple", "positional", "situational"] = "positional",
        limit: int = 0,
        opponent: Opponent = "random",
        colour: Literal["drawn", "black", "white"] = "drawn",
        planes: Literal[18, 48, 49] = 18,
        illegal: Literal["loses", "raises"] = "loses",
        tensors: bool = False,
        device: str | torch.device = "cpu",
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1 or not (opponent in (None, "random") or callable(opponent)):
            raise VolitionError(
                f"Go-v0: num_envs {num_envs} must be at least 1, and opponent {opponent!r} None, random or a function"
            )
        if colour not in ("drawn", *COLOURS) or planes not in (18, 48, 49) or illegal not in ("loses", "raises"):
            raise VolitionError(
                f"Go-v0: colour {colour!r} must be drawn, black or white, planes {planes} 18, 48 or 49, and illegal "
                f"{illegal!r} loses or raises"
            )
        if limit == 1 and opponent is not None:
            raise VolitionError("Go-v0: limit is 1, but a game against an opponent has 2 moves or more (0: 3N²)")
        self.rules = Go(size, komi, ko, limit)
        self.limit = self.rules.moves  # steps of an episode, at most
        self.num_envs, self.opponent, self.planes, self.illegal = num_envs, opponent, planes, illegal
        self.tensors, self.device, self.render_mode = tensors, torch.device(device), render_mode
        self._colour = COLOURS.get(colour, 0)
        self.single_observation_space = gym.spaces.Box(0.0, 1.0, (planes, size, size))
        self.single_action_space = gym.spaces.Discrete(self.rules.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.random = np.zeros(1, np.uint64)  # state of all chance here; 0: not yet reset
        self._renews = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin B new games; `seed` makes everything from here on repeat, but for what an opponent draws by itself."""
        super().reset(seed=seed)
        if seed is not None or not self.random[0]:
            self.random[0] = self.np_random.integers(1, 2**63)
        self.positions, self.colour = self.rules.start(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._begin(np.arange(self.num_envs))
        self._shown = self.positions.rows[0].copy()
        self._look()
        return self.obs, self._out({"action_mask": self._legal.astype(np.int8)})

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Play one move in every game, let the opponent answer, and begin anew where a game is over."""
        action = _whole(actions, self.num_envs, "the learner")
        broken = ~_among(self._legal, action)
        if broken.any() and self.illegal == "raises":
            k = broken.argmax()
            raise VolitionError(
                f"Go-v0: action {action[k]} is illegal in game {k}: take one for which info['action_mask'] is 1, or "
                "let it lose the game by illegal='loses'"
            )
        side = self.positions.rows[:, go.TURN].copy() if self.opponent is None else self.colour
        self._play(np.flatnonzero(~broken), action[~broken])
        ended = self.rules.over(self.positions) | broken
        if self.opponent is not None:
            self._answer(np.flatnonzero(~ended))
            ended |= self.rules.over(self.positions)
        lead = self.rules.score(self.positions) * np.where(side == go.BLACK, 1, -1).astype(np.float32)
        reward = np.where(broken, -1.0, np.sign(lead) * ended).astype(np.float32)
        info: dict[str, Any] = {}
        self._shown = self.positions.rows[0].copy()
        if ended.any():
            told = {"score": np.where(ended, lead, 0), "_score": ended, "illegal": broken, "_illegal": ended}
            final = {"final_obs": see(self.positions, self.planes), "_final_obs": ended, "final_info": told}
            info = self._out(final | {"_final_info": ended})
            if self._renews:
                self._begin(np.flatnonzero(ended))
        self._look()
        info["action_mask"] = self._out(self._legal.astype(np.int8))
        return self.obs, *self._out((reward, ended, np.zeros_like(ended))), info

    def render(self) -> tuple[Any, ...] | None:  # type: ignore[override]
        """The first game as the last step left it: text, or pixels `[24·N, 24·N, 3]` uint8."""
        return None if self.render_mode is None else (self.picture(),)

    def picture(self) -> Any:
        """What `render` shows of the first game."""
        if self.render_mode == "rgb_array":
            return picture(self._shown)
        turn = "black" if self._shown[go.TURN] == go.BLACK else "white"
        return f"{text(self._shown)}\nmove {self._shown[go.MOVES] + 1}: {turn}\n"

    def state_dict(self) -> dict[str, Any]:
        """Where every game stands, and the random state."""
        state = {"rows": self.positions.rows, "history": self.positions.history, "colour": self.colour}
        return tree_map(lambda x: torch.from_numpy(x.copy()), state | {"random": self.random.view(np.int64)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; an opponent that is a function keeps its own state."""
        fresh = self.rules.start(self.num_envs)
        if state["rows"].shape != fresh.rows.shape or state["history"].shape != fresh.history.shape:
            saved = len(state["rows"]), int(state["rows"][0, go.SIZE]), state["history"].shape[1] - 1
            raise VolitionError(
                f"Go-v0 was saved with num_envs, size and limit {saved}, not "
                f"{(self.num_envs, self.rules.size, self.rules.moves)}"
            )
        self.positions = Positions(*(state[name].cpu().numpy().copy() for name in ("rows", "history")))
        self.colour = state["colour"].cpu().numpy().copy()
        self.random = state["random"].cpu().numpy().copy().view(np.uint64)
        self._shown = self.positions.rows[0].copy()
        self._look()

    def _begin(self, index: np.ndarray) -> None:
        """New games in the places of `index`."""
        fresh = self.rules.start(len(index))
        self.positions.rows[index], self.positions.history[index] = fresh
        if self.opponent is not None:
            self.colour[index] = self._colour or draw_colours(len(index), self.random)
            self._answer(index[self.colour[index] == go.WHITE])

    def _play(self, index: np.ndarray, actions: np.ndarray) -> None:
        _play(*self.positions, index, actions.astype(np.int64), KO[self.rules.ko], self.rules.moves)

    def _answer(self, index: np.ndarray) -> None:
        """The opponent's moves in the games of `index`."""
        if not len(index):
            return
        positions = self.positions.take(index)
        if self.opponent == "random":
            actions = random_actions(self.rules, positions, self.random)
        else:
            assert callable(self.opponent)
            legal = self.rules.legal(positions)
            actions = _whole(self.opponent(positions), len(index), "the opponent")
            if not (good := _among(legal, actions)).all():
                raise VolitionError(
                    f"Go-v0: the opponent's action {actions[~good][0]} is illegal: let it choose among those that "
                    "Go(…).legal(positions) tells"
                )
        self._play(index, actions)

    def _look(self) -> None:
        self._legal = self.rules.legal(self.positions)
        self.obs = self._out(see(self.positions, self.planes))

    def _out(self, tree: Any) -> Any:
        return tree_map(lambda x: torch.from_numpy(x).to(self.device), tree) if self.tensors else tree


def _whole(actions: Any, count: int, whose: str) -> np.ndarray:
    """Actions int64 `[count]`."""
    array = actions.cpu().numpy() if isinstance(actions, Tensor) else np.asarray(actions)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise VolitionError(
            f"Go-v0: {whose} gave actions of shape {array.shape} and type {array.dtype}: one whole number for each of "
            f"{count} games is wanted"
        )
    return array.astype(np.int64)


def _among(legal: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Which actions `[K]` are legal, by `[K, A]`."""
    inside = (actions >= 0) & (actions < legal.shape[1])
    return inside & legal[np.arange(len(actions)), np.where(inside, actions, 0)]


@jit
def _play(rows, history, index, actions, rule, limit):
    for j in range(len(index)):
        step(rows[index[j]], history[index[j]], actions[j], rule, limit)


class GoEnv(gym.Env):
    """One game at a time, with the spaces and settings of GoVectorEnv; at the end info has `score` and `illegal`."""

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.vector, self.render_mode = GoVectorEnv(1, render_mode=render_mode, **settings), render_mode
        self.vector._renews = False  # the next game waits for reset
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game; all chance in it follows from the state of `np_random` before."""
        super().reset(seed=seed)
        obs, info = self.vector.reset(seed=int(self.np_random.integers(2**62)))
        return obs[0], tree_map(lambda x: x[0], info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play a move, and let the opponent answer."""
        obs, reward, terminated, _, info = self.vector.step(np.asarray(action)[None])
        told = {"action_mask": info["action_mask"][0]}
        if terminated[0]:
            final = info["final_info"]
            told |= {"score": float(final["score"][0]), "illegal": bool(final["illegal"][0])}
        return obs[0], float(reward[0]), bool(terminated[0]), False, told

    def render(self) -> Any:
        """Text, or pixels `[24·N, 24·N, 3]` uint8."""
        return None if self.render_mode is None else self.vector.picture()

    def action_masks(self) -> np.ndarray:
        """Which actions are legal, bool `[N² + 1]`, under the name by which sb3-contrib's MaskablePPO asks."""
        return self.vector._legal[0].copy()
