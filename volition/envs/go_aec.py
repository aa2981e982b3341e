"""Go for two learners, as PettingZoo's libraries take it: the agents black_0 and white_0 move in turn (AEC)."""

from typing import Any, Literal

import gymnasium as gym
import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go_env import see
from volition.envs.go_game import Go
from volition.envs.go_render import picture, text
from volition.errors import VolitionError

try:
    from pettingzoo import AECEnv
    from pettingzoo.utils import wrappers
except ImportError:
    raise VolitionError("volition.envs.go_aec needs PettingZoo: pip install 'volition[pettingzoo]'") from None

AGENTS = {"black_0": go.BLACK, "white_0": go.WHITE}
Rule = Literal["simple", "positional", "situational"]
Planes = Literal[18, 48, 49]


def env(
    size: int = 9,
    komi: float = 7.0,
    ko: Rule = "positional",
    limit: int = 0,
    planes: Planes = 18,
    render_mode: str | None = None,
) -> Any:
    """`GoAEC` in PettingZoo's usual wrappers: an illegal move loses the game, and calls out of order are told."""
    wrapped = wrappers.TerminateIllegalWrapper(GoAEC(size, komi, ko, limit, planes, render_mode), illegal_reward=-1)
    return wrappers.OrderEnforcingWrapper(wrappers.AssertOutOfBoundsWrapper(wrapped))


class GoAEC(AECEnv):
    """One game by the rules of `Go`; both agents have 1 for a win, −1 for a loss and 0 for a draw when it is over.

    Observation {observation: float32 `[planes, N, N]` as `volition.envs.go_env.see` gives it, from the agent's own
    view; action_mask: int8 `[N² + 1]`, 1 where the agent may play now}. Actions are r·N + c, row 0 at the top, and N²
    for a pass; an illegal one is a VolitionError. At the end infos have `score`, the points by which the agent leads.
    """

    metadata = {  # noqa: RUF012 - as PettingZoo has it
        "name": "volition_go_v0",
        "render_modes": ["human", "ansi", "rgb_array"],
        "is_parallelizable": False,
        "render_fps": 2,
    }

    def __init__(
        self,
        size: int = 9,
        komi: float = 7.0,
        ko: Rule = "positional",
        limit: int = 0,
        planes: Planes = 18,
        render_mode: str | None = None,
    ) -> None:
        super().__init__()
        if planes not in (18, 48, 49) or render_mode not in (None, *self.metadata["render_modes"]):
            raise VolitionError(
                f"Go for PettingZoo: planes {planes} must be 18, 48 or 49, render_mode {render_mode!r} None, human, "
                "ansi or rgb_array"
            )
        self.rules, self.planes, self.render_mode = Go(size, komi, ko, limit), planes, render_mode
        self.possible_agents = list(AGENTS)
        self.agents = list(AGENTS)
        mask = gym.spaces.Box(0, 1, (self.rules.actions,), np.int8)
        seen = gym.spaces.Box(0.0, 1.0, (planes, size, size))
        self.observation_spaces = {a: gym.spaces.Dict(observation=seen, action_mask=mask) for a in AGENTS}
        self.action_spaces = {a: gym.spaces.Discrete(self.rules.actions) for a in AGENTS}

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """The same for both."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """Points and the pass."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin a game; there is no chance in it, so nothing follows from the seed."""
        self.positions = self.rules.start(1)
        self.agents, self.agent_selection = list(AGENTS), "black_0"
        self.rewards, self._cumulative_rewards = dict.fromkeys(AGENTS, 0.0), dict.fromkeys(AGENTS, 0.0)
        self.terminations, self.truncations = dict.fromkeys(AGENTS, False), dict.fromkeys(AGENTS, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in AGENTS}

    def observe(self, agent: str) -> dict[str, np.ndarray]:
        """The board from the agent's view; without legal moves where it is not its turn or the game is over."""
        mask, view = np.zeros(self.rules.actions, np.int8), self.positions
        if self.positions.rows[0, go.TURN] != AGENTS[agent]:
            view = Positions(self.positions.rows.copy(), self.positions.history)
            view.rows[0, go.TURN], view.rows[0, go.KO] = AGENTS[agent], go.PASS
        elif not self.rules.over(self.positions)[0]:
            mask[:] = self.rules.legal(self.positions)[0]
        return {"observation": see(view, self.planes)[0], "action_mask": mask}

    def step(self, action: int | None) -> None:
        """Play for `agent_selection`."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        if action is None or not 0 <= action < self.rules.actions or not self.rules.legal(self.positions)[0, action]:
            raise VolitionError(f"Go for PettingZoo: action {action} of {agent} is illegal: choose by the action_mask")
        self.rules.play(self.positions, np.array([action], np.int64))
        self._cumulative_rewards[agent] = 0.0
        self.agent_selection = "white_0" if agent == "black_0" else "black_0"
        if self.rules.over(self.positions)[0]:
            lead = float(self.rules.score(self.positions)[0])
            for name, colour in AGENTS.items():
                score = lead if colour == go.BLACK else -lead
                self.rewards[name], self.infos[name] = float(np.sign(score)), {"score": score}
            self.terminations = dict.fromkeys(AGENTS, True)
        self._accumulate_rewards()
        if self.render_mode == "human":
            self.render()

    def render(self) -> Any:
        """The board: printed, as text, or as pixels `[24·N, 24·N, 3]` uint8."""
        if self.render_mode == "rgb_array":
            return picture(self.positions.rows[0])
        shown = text(self.positions.rows[0])
        if self.render_mode == "human":
            print(shown)
        return shown if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Nothing to close: no window is ever opened."""
