"""Any Gymnasium environment as a batch of environments in tensors, with exact resume and no pickle."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import Tensor

from volition.core.policy import Tree, tree_map
from volition.envs.recorded import Recorded, as_arrays, as_tensors
from volition.envs.spaces import from_space, to_space
from volition.errors import VolitionError

LEAVES = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class TensorEnv:
    """A Gymnasium vector environment in tensors: `reset` and `step` as Gymnasium's, with SAME_STEP autoreset.

    obs is float32 `[B, …]` (uint8 where the space is of bytes, int64 where it counts), or a dict or tuple of these;
    reward float32, terminated and truncated bool `[B]`; where an episode ended `info["final_obs"]` holds its last obs.
    `obs` is what the next action answers; `steps` counts environment steps. Actions are those of
    `volition.envs.spaces.action_head`; a Box action is clipped to its bounds.

    An environment with NEXT_STEP autoreset spends one step per episode on the reset, without looking at the action:
    `info["ignored"]` marks these rows, which `rollout` masks; they count as done, so that memory starts anew.
    """

    def __init__(self, env: VectorEnv, device: torch.device | str = "cpu", recorded: bool = False) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise VolitionError(
                f"{env}: autoreset mode {mode} is not known here; build it with AutoresetMode.SAME_STEP, "
                "and say so in its metadata['autoreset_mode']"
            )
        _check(env.single_observation_space, "observation")
        _check(env.single_action_space, "action")
        self.env, self.device = env, torch.device(device)
        self.num_envs = env.num_envs
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space
        self.obs: Tree = None
        self.steps = 0
        self._in_tensors = False  # whether the environment itself is, which its first obs tells
        self._late = mode == AutoresetMode.NEXT_STEP
        self._ended: Tensor | None = None  # rows whose next step only resets
        # its environments are wrapped in Recorded and can be asked for their records
        self._recorded = env if recorded and isinstance(env, SyncVectorEnv | AsyncVectorEnv) else None

    @property
    def limit(self) -> int | None:
        """Steps after which an episode is cut off, if the environment says so."""
        if self._recorded is not None:
            return self._recorded.get_attr("limit")[0]
        return None if self.env.spec is None else self.env.spec.max_episode_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tree, dict[str, Any]]:
        """Begin B new episodes; with `seed` all that follows repeats."""
        seeds: Any = seed
        if (
            seed is not None and self._recorded is not None
        ):  # seed, seed + 1, … would share episodes with the next seed's batch
            seeds = [int(n) for n in np.random.SeedSequence(seed).generate_state(self.num_envs)]
        obs, info = self.env.reset(seed=seeds, options=options)
        self._in_tensors = isinstance(_leaf(obs), Tensor)
        self.obs, self._ended = self._tensors(obs), None
        return self.obs, info

    def step(self, action: Tree) -> tuple[Tree, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Act in all environments at once."""
        native = action if self._in_tensors else to_space(self.single_action_space, action)
        obs, reward, terminated, truncated, info = self.env.step(native)
        self.obs = self._tensors(obs)
        self.steps += self.num_envs
        reward = torch.as_tensor(reward).to(self.device, torch.float32, copy=True)
        terminated, truncated = (
            torch.as_tensor(x).to(self.device, torch.bool, copy=True) for x in (terminated, truncated)
        )
        if self._late:
            done, final = terminated | truncated, self.obs
            if self._ended is not None:
                terminated = terminated | self._ended
                info["ignored"] = self._ended
            self._ended = done
            info["final_obs"] = final
        elif "final_obs" in info:
            info["final_obs"] = self._final(info["final_obs"])
        return self.obs, reward, terminated, truncated, info

    def sample(self) -> Tree:
        """A uniformly random action for every environment, drawn by the action space's own generator."""
        return tree_map(
            lambda x: x.to(self.device), from_space(self.single_action_space, self.env.action_space.sample())
        )

    def seed_actions(self, seed: int) -> None:
        """Make what `sample` draws repeat."""
        self.env.action_space.seed(seed)

    def close(self) -> None:
        """End the environments and their processes."""
        self.env.close()

    def state_dict(self) -> dict[str, Any]:
        """How each episode under way began and the actions since; or the state of an environment that has its own."""
        state: dict[str, Any] = {"obs": self.obs, "steps": self.steps}
        if hasattr(self.env, "state_dict"):
            return state | {"env": self.env.state_dict(), "ended": self._ended}  # pyrefly: ignore
        if self._recorded is not None:
            return state | {"records": [as_tensors(record) for record in self._recorded.get_attr("record")]}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`: episodes are lived through again and must lead to the same obs, bit for bit."""
        self.steps = state["steps"]
        if state["obs"] is None:  # it was saved before its first reset
            return
        saved = tree_map(lambda x: x.to(self.device), state["obs"])
        if "env" in state:
            self._in_tensors = isinstance(_leaf(self.env.reset()[0]), Tensor)  # some only have buffers after a reset
            self.env.load_state_dict(state["env"])  # pyrefly: ignore
            self.obs, ended = saved, state["ended"]
            self._ended = None if ended is None else ended.to(self.device)
            return
        if "records" not in state or self._recorded is None:
            raise VolitionError(
                f"{self.env} cannot be put back where it was: give it state_dict and load_state_dict, or hand over "
                "a function that makes one environment instead of a ready vector environment"
            )
        records = [as_arrays(record) for record in state["records"]]
        if len(records) != self.num_envs:
            raise VolitionError(f"the saved state is of {len(records)} environments, not of {self.num_envs}")
        self._recorded.set_attr("record", records)
        space = self.single_observation_space
        rows = self._recorded.get_attr("replayed_obs")
        empty: Any = create_empty_array(space, self.num_envs)
        self.obs = self._tensors(concatenate(space, rows, empty))
        same = tree_map(lambda a, b: a.shape == b.shape and bool((_bits(a) == _bits(b)).all()), self.obs, saved)
        random = [record["then"] for record in records] == list(self._recorded.get_attr("random_state"))
        if not (_all(same) and random):
            raise VolitionError(
                f"{self.env} does not replay: from the same random state the same actions led elsewhere. It must draw "
                "only from self.np_random and keep nothing from earlier episodes, or have a state_dict of its own"
            )

    def _tensors(self, tree: Any) -> Tree:
        return tree_map(self._tensor, tree)

    def _tensor(self, x: Any) -> Tensor:
        if self._in_tensors:
            return x.to(self.device)
        x = torch.as_tensor(x)
        dtype = torch.float32 if x.is_floating_point() else torch.uint8 if x.dtype == torch.uint8 else torch.int64
        return x.to(self.device, dtype, copy=True)  # the environment may write into its own array again

    def _final(self, final: Any) -> Tree:
        if not (isinstance(final, np.ndarray) and final.dtype == object):  # one batch already
            return self._tensors(final)
        out = tree_map(Tensor.clone, self.obs)
        for i, row in enumerate(final):
            if row is not None:
                tree_map(lambda whole, x, i=i: whole[i].copy_(torch.as_tensor(x)), out, row)
        return out


def make(
    env: str | gymnasium.Env | VectorEnv | Callable[[], gymnasium.Env],
    num_envs: int = 1,
    *,
    options: Mapping[str, Any] | None = None,
    limit: int = 0,
    asynchronous: bool = False,
    device: torch.device | str = "cpu",
) -> TensorEnv:
    """`num_envs` copies of an environment in tensors: a Gymnasium id, your environment or a function that makes one.

    An id may be "module:Name-v0", which imports the module first; `options` go to `gymnasium.make`. `limit` cuts
    episodes off after so many steps, 0 keeps the environment's own limit. `asynchronous` runs one process per
    environment: only worth it where a step takes a millisecond or more. A ready VectorEnv is taken as it is; only a
    SyncVectorEnv's environments are taken over, so that they reset in the same step and can be resumed.
    """
    if isinstance(env, VectorEnv):
        if type(env) is not SyncVectorEnv:
            return TensorEnv(env, device)
        ready = iter(env.envs)
        return TensorEnv(_vector(lambda: next(ready), env.num_envs, limit, False), device, recorded=True)
    if num_envs < 1:
        raise VolitionError(f"num_envs must be 1 or more, not {num_envs}")
    if isinstance(env, str):
        name, given = env, dict(options or {})
        make_one(name, given).close()  # any mistake is found here, in this process
        return TensorEnv(_vector(lambda: make_one(name, given), num_envs, limit, asynchronous), device, recorded=True)
    if isinstance(env, gymnasium.Env):
        first: gymnasium.Env = env
        if num_envs > 1:
            raise VolitionError(f"{env} is one environment: for {num_envs} of them give a function that makes one")
        return TensorEnv(_vector(lambda: first, 1, limit, asynchronous), device, recorded=True)
    if callable(env):
        return TensorEnv(_vector(env, num_envs, limit, asynchronous), device, recorded=True)
    raise VolitionError(f"{env!r} is no environment: give a Gymnasium id, an Env, a VectorEnv or a function")


def _vector(build: Callable[[], gymnasium.Env], num_envs: int, limit: int, asynchronous: bool) -> VectorEnv:
    def one() -> gymnasium.Env:
        env = build()
        if not isinstance(env, gymnasium.Env):
            raise VolitionError(
                f"the function that makes an environment gave {type(env).__name__}, not a gymnasium.Env"
            )
        return Recorded(gymnasium.wrappers.TimeLimit(env, limit) if limit else env)

    kind = AsyncVectorEnv if asynchronous else SyncVectorEnv
    try:
        # without copies: TensorEnv makes its own
        return kind([one] * num_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    except RuntimeError as error:  # spaces that differ
        raise VolitionError(f"these environments do not make one batch: {' '.join(str(error).split())}") from None


def make_one(name: str, options: dict[str, Any]) -> gymnasium.Env:
    """`gymnasium.make` with one clear error for whatever is wrong with the id, its packages or the options."""
    try:
        return gymnasium.make(name, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise VolitionError(f"env {name!r} needs a package: {' '.join(str(error).split())}") from None
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.Error, ImportError) as error:
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "an id of your own is written module:Name-v0"
        raise VolitionError(f"no env {name!r} ({' '.join(str(error).split())}); {hint}") from None
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        raise VolitionError(f"env {name!r} refused {options}: {' '.join(str(error).split())}") from None


def _check(space: Any, which: str) -> None:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.values() if isinstance(space, spaces.Dict) else space:
            _check(part, which)
    elif not isinstance(space, LEAVES):
        raise VolitionError(
            f"the {which} space has a {space}: tensors hold Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"
        )


def _leaf(tree: Any) -> Any:
    while isinstance(tree, dict | tuple | list):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    return tree


def _all(tree: Any) -> bool:
    if isinstance(tree, dict | tuple | list):
        return all(_all(part) for part in (tree.values() if isinstance(tree, dict) else tree))
    return bool(tree)


def _bits(x: Tensor) -> Tensor:
    return x.view(torch.int32) if x.is_floating_point() else x  # so that nan equals nan
