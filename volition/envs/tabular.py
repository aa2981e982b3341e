"""Tabular MDPs from Gymnasium's transition tables or from a user's own .npz file."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from volition.core.mdp import MDP
from volition.envs.grid import Grid
from volition.envs.vector import make_one
from volition.errors import VolitionError

MOST_BYTES = 2**31  # of a dense P [S, A, S] in float64: about 8,000 states with 4 actions


def from_gymnasium(env: gymnasium.Env | str, gamma: float) -> MDP:
    """The MDP in `env.unwrapped.P[s][a] = [(probability, s', reward, terminated), …]`, start from its own ρ.

    r(s,a) = Σ p r over all outcomes; a terminated outcome gives its reward and leaves no mass in P. Time
    limits are no part of the table. Raises VolitionError when the environment has none.
    """
    env = make_one(env, {}) if isinstance(env, str) else env
    name = env.spec.id if env.spec else type(env.unwrapped).__name__
    table = getattr(env.unwrapped, "P", None)
    if not isinstance(table, dict) or not table or not isinstance(next(iter(table.values())), dict):
        raise VolitionError(
            f"env {name!r} has no transition table P[s][a] as FrozenLake-v1, CliffWalking-v1 and Taxi-v4 have"
        )
    states, actions = len(table), len(next(iter(table.values())))
    _check_size(states, actions, f"env {name!r}")
    P, R = np.zeros((states, actions, states)), np.zeros((states, actions))
    try:
        for s, row in table.items():
            for a, outcomes in row.items():
                for probability, successor, reward, terminated in outcomes:
                    R[s, a] += probability * reward
                    if not terminated:
                        P[s, a, successor] += probability
    except (IndexError, TypeError, ValueError) as error:
        raise VolitionError(f"env {name!r}: its transition table is not P[s][a] of tuples ({error})") from None
    start = getattr(env.unwrapped, "initial_state_distrib", None)
    return MDP(
        torch.from_numpy(P),
        torch.from_numpy(R),
        gamma,
        None if start is None else torch.from_numpy(np.asarray(start, dtype=np.float64)),
    )


class MDPEnv(gymnasium.Env):
    """An MDP as a Gymnasium environment: s' ~ P(·|s,a), reward r(s,a), terminated with what P lacks to 1."""

    def __init__(self, mdp: MDP) -> None:
        self.observation_space = gymnasium.spaces.Discrete(mdp.states)
        self.action_space = gymnasium.spaces.Discrete(mdp.actions)
        assert mdp.start is not None
        self._reward = mdp.reward.numpy()
        self._cumulative = mdp.transition.cumsum(-1).numpy()
        self._ends = (mdp.termination > 0).numpy()
        self._start = mdp.start.cumsum(0).numpy()
        self._state = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self._state = _draw(self._start, self.np_random.random() * self._start[-1])
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        s, a = self._state, int(action)
        row, uniform = self._cumulative[s, a], self.np_random.random()
        terminated = bool(self._ends[s, a] and uniform >= row[-1])
        if not terminated:  # a row that should reach 1 may miss it by rounding
            self._state = _draw(row, uniform if self._ends[s, a] else uniform * row[-1])
        return self._state, float(self._reward[s, a]), terminated, False, {}


def _draw(cumulative: np.ndarray, uniform: float) -> int:
    return int(np.searchsorted(cumulative, uniform, side="right").clip(max=len(cumulative) - 1))


def read_npz(path: Path | str, gamma: float) -> tuple[MDP, Grid | None]:
    """The MDP in an .npz file: P `[S, A, S]`, R `[S, A]` or `[S, A, S]`, and optionally the following.

    gamma: a number, instead of the one given. terminal `[S]`: True where arriving ends the episode (those
    mass goes out of P). start `[S]`: ρ, else uniform over the states that are not terminal. shape `[2]`:
    rows and columns, so that it can be drawn. No pickle is loaded. Raises VolitionError, with the file's
    name, for anything else.
    """
    known = ("P", "R", "gamma", "terminal", "start", "shape")
    try:
        with open(path, "rb") as raw:  # np.load leaves a damaged file open
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, not an .npz of several")
            if unknown := sorted(set(file.files) - set(known)):
                raise ValueError(f"unknown array {unknown[0]!r}; known are {', '.join(known)}")
            arrays = {name: _number_array(name, file[name]) for name in file.files}
    except FileNotFoundError:
        raise VolitionError(f"{path}: there is no such file") from None
    except Exception as error:  # zip, zlib and NumPy raise a dozen types on damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise VolitionError(f"{path}: not a readable .npz file of an MDP ({reason}); write it again") from None
    try:
        return _from_arrays(arrays, gamma)
    except VolitionError as error:
        raise VolitionError(f"{path}: {error}") from None


def _number_array(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {array.dtype}, not numbers")
    return array.astype(np.float64)


def _from_arrays(arrays: dict[str, np.ndarray], gamma: float) -> tuple[MDP, Grid | None]:
    if "P" not in arrays or "R" not in arrays:
        raise VolitionError(f"P and R are needed; the file has {', '.join(sorted(arrays)) or 'nothing'}")
    P, R = arrays["P"], arrays["R"]
    if P.ndim != 3 or P.shape[0] != P.shape[2] or 0 in P.shape:
        raise VolitionError(f"P must be [S, A, S]; it is {list(P.shape)}")
    states, actions = P.shape[:2]
    _check_size(states, actions, "the MDP")
    if R.shape == P.shape:
        R = (P * np.where(P > 0, R, 0)).sum(-1)  # a reward of what cannot happen may be anything
    start, ended = arrays.get("start"), np.zeros(states, dtype=bool)
    if "terminal" in arrays:
        if arrays["terminal"].shape != (states,) or not np.isin(arrays["terminal"], (0, 1)).all():
            raise VolitionError(f"terminal must be [S] = [{states}] of 0 and 1")
        ended = arrays["terminal"] == 1
        if ended.all():
            raise VolitionError("every state is terminal; at least one must not be")
        start = ~ended / (~ended).sum() if start is None else start
    # checked before mass is set aside, so that a row that does not add up is found
    full = MDP(torch.from_numpy(P), torch.from_numpy(R), 0.0, None if start is None else torch.from_numpy(start))
    short = (full.termination.numpy() > 0) & ~ended[:, None]
    if "terminal" in arrays and short.any():
        s, a = np.argwhere(short)[0].tolist()
        raise VolitionError(
            f"P sums to {P[s, a].sum():.6g} over s' at [s, a] = [{s}, {a}]; with `terminal` it must sum to 1"
        )
    if "gamma" in arrays:
        if arrays["gamma"].size != 1:
            raise VolitionError("gamma must be one number")
        gamma = arrays["gamma"].item()
    P = np.where(ended[None, None, :] | ended[:, None, None], 0, P)
    R = np.where(ended[:, None], 0, R)
    mdp = MDP(torch.from_numpy(P), torch.from_numpy(R), gamma, full.start)
    if "shape" not in arrays:
        return mdp, None
    shape = arrays["shape"]
    if shape.shape != (2,) or (shape < 1).any() or shape.prod() != states or (shape % 1 != 0).any():
        raise VolitionError(f"shape must be two whole numbers, rows · columns = {states} states")
    rows, columns = (int(n) for n in shape)
    letters = np.where(ended, "T", "").reshape(rows, columns)
    names = tuple(str(a) for a in range(actions))
    return mdp, Grid({"": np.arange(states).reshape(rows, columns)}, letters, names, solid="T")


def _check_size(states: int, actions: int, where: str) -> None:
    if states * states * actions * 8 > MOST_BYTES:
        raise VolitionError(
            f"{where}: a table of {states} states and {actions} actions does not fit in memory; "
            "learn it instead (volition train dqn)"
        )
