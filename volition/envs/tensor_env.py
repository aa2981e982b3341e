"""Any Gymnasium vector environment in tensors or, for those in a hurry, in its own arrays; resumed without pickle."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import Tensor

from volition.core.policy import Tree, tree_leaf, tree_map
from volition.envs.recorded import as_arrays, as_tensors
from volition.envs.snapshot import restore, snapshot
from volition.envs.spaces import as_array, converter, from_space
from volition.errors import VolitionError

KINDS: dict[str, Any] = {"f": np.float32, "b": np.bool_, "bytes": np.uint8}  # of tensors; all else is int64
LEAVES = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class TensorEnv:
    """A Gymnasium vector environment in tensors: `reset` and `step` as Gymnasium's, with SAME_STEP autoreset.

    obs is float32 `[B, …]` (uint8 where the space is of bytes, int64 where it counts), or a dict or tuple of these;
    reward float32, terminated and truncated bool `[B]`; where an episode ended `info["final_obs"]` holds its last obs.
    `obs` is what the next action answers; `mask` `[B, A]` bool says which actions are legal there, if the environment
    tells so by `info["action_mask"]`; `steps` counts environment steps. Actions are those of
    `volition.envs.spaces.action_head`; a Box action is clipped to its bounds.

    An environment with NEXT_STEP autoreset spends one step per episode on the reset, without looking at the action:
    `info["ignored"]` marks these rows where there are any, and `rollout` masks them; they count as done, so that
    memory starts anew, and not as steps.
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
        self.arrays = not getattr(env, "tensors", False)  # whether it speaks NumPy; its first obs tells for sure
        self.mask: np.ndarray | None = None
        self.steps = 0
        self._late = mode == AutoresetMode.NEXT_STEP
        self._ended: Any = None  # rows whose next step only resets
        self._obs: Tree = None
        self._seen: Any = None  # obs as the environment gave it, when nobody has asked for `obs` yet
        self._native = converter(env.single_action_space)
        # its environments are wrapped in Recorded and can be asked for their records
        self._recorded = env if recorded and isinstance(env, SyncVectorEnv | AsyncVectorEnv) else None

    @property
    def limit(self) -> int | None:
        """Steps after which an episode is cut off, if the environment says so."""
        if self._recorded is not None:
            return self._recorded.get_attr("limit")[0]
        if isinstance(limit := getattr(self.env, "limit", None), int):
            return limit
        spec = self.env.spec
        return None if spec is None else spec.kwargs.get("max_episode_steps", spec.max_episode_steps)

    @property
    def games(self) -> list[tuple[float, int]] | None:
        """(return, length) of whole games that ended, of an environment in which they differ from what training sees.

        Atari's rewards are clipped and its lives end as episodes. Who reads the list empties it. None for all others.
        """
        return getattr(self.env, "games", None)

    @property
    def obs(self) -> Tree:
        """What the next action answers; None before the first reset."""
        if self._seen is not None:
            self._obs, self._seen = self._tensors(self._seen), None
        return self._obs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tree, dict[str, Any]]:
        """Begin B new episodes; with `seed` all that follows repeats."""
        seeds: Any = seed
        if (
            seed is not None and self._recorded is not None
        ):  # seed, seed + 1, … would share episodes with the next seed's batch
            seeds = [int(n) for n in np.random.SeedSequence(seed).generate_state(self.num_envs)]
        self._seen, info = self.env.reset(seed=seeds, options=options)
        self.arrays = not isinstance(tree_leaf(self._seen), Tensor)
        self._ended, self.mask = None, self._legal(info)
        return self.obs, info

    def step(self, action: Tree) -> tuple[Tree, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Act in all environments at once."""
        native = self._native(tree_map(as_array, action)) if self.arrays else action
        _, reward, terminated, truncated, info = self._step(native)
        reward = self._tensor(reward).float()
        terminated, truncated = self._tensor(terminated), self._tensor(truncated)
        if "ignored" in info:
            info["ignored"] = self._tensor(info["ignored"])
        if self._late:
            info["final_obs"] = self.obs
        elif "final_obs" in info:
            info["final_obs"] = self._tensors(info["final_obs"])
        return self.obs, reward, terminated, truncated, info

    def step_arrays(self, action: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """`step` of an environment that speaks NumPy, in its own arrays: no tensor, and nothing is copied.

        `action` is in the policy's form: choices counted from 0, a Box flat. What comes back may be memory that the
        next step writes over, has the environment's own number types, and differs from what `step` gives in one thing:
        `info["final_obs"]`, a whole batch, is there only where an episode of a SAME_STEP environment has ended.
        """
        return self._step(self._native(action))

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
        """How each episode under way began and the actions since, or all that a NumPy vector environment holds, or the
        state of one that has its own."""
        mask = None if self.mask is None else torch.as_tensor(self.mask)
        state: dict[str, Any] = {"obs": self.obs, "mask": mask, "steps": self.steps}
        state["ended"] = None if self._ended is None else torch.as_tensor(self._ended)
        if hasattr(self.env, "state_dict"):
            return state | {"env": self.env.state_dict()}  # pyrefly: ignore
        if self._recorded is not None:
            return state | {"records": [as_tensors(record) for record in self._recorded.get_attr("record")]}
        try:
            return state | {"snapshot": snapshot(self.env)}
        except VolitionError as error:  # training goes on: it only cannot be gone on with later
            return state | {"refused": str(error)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`: episodes are lived through again and must lead to the same obs, bit for bit."""
        self.steps = state["steps"]
        if state["obs"] is None:  # it was saved before its first reset
            return
        if (count := len(tree_leaf(state["obs"]))) != self.num_envs:
            raise VolitionError(f"the saved state is of {count} environments, not of {self.num_envs}")
        saved = tree_map(lambda x: x.to(self.device), state["obs"])
        own = hasattr(self.env, "state_dict")
        if "records" not in state or self._recorded is None:
            if not ("env" in state if own else "snapshot" in state):
                raise VolitionError(
                    f"{self.env} cannot be put back where it was ({state.get('refused', 'it was saved otherwise')}): "
                    "give it state_dict and load_state_dict, or hand over a function that makes one environment"
                )
            self.arrays = not isinstance(tree_leaf(self.env.reset()[0]), Tensor)  # some only have buffers after a reset
            if own:
                self.env.load_state_dict(state["env"])  # pyrefly: ignore
            else:
                restore(self.env, state["snapshot"])
            self._obs, self._seen = saved, None
            self._ended, self.mask = (self._own(state[name]) for name in ("ended", "mask"))
            return
        records = [as_arrays(record) for record in state["records"]]
        self._recorded.set_attr("record", records)
        space = self.single_observation_space
        rows = self._recorded.get_attr("replayed_obs")
        empty: Any = create_empty_array(space, self.num_envs)
        self._seen, self.mask = concatenate(space, rows, empty), self._own(state["mask"])
        same = tree_map(lambda a, b: a.shape == b.shape and bool((_bits(a) == _bits(b)).all()), self.obs, saved)
        random = [record["then"] for record in records] == list(self._recorded.get_attr("random_state"))
        if not (_all(same) and random):
            raise VolitionError(
                f"{self.env} does not replay: from the same random state the same actions led elsewhere. It must draw "
                "only from self.np_random and keep nothing from earlier episodes, or have a state_dict of its own"
            )

    def _step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step in the environment's own form, arrays or tensors, with both kinds of autoreset made alike."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._seen = obs
        ignored = 0
        if self._late:
            late, self._ended = self._ended, terminated | truncated
            if late is not None and (ignored := _count(late)):
                terminated = terminated | late
                info["ignored"] = late
        elif "final_obs" in info:
            info["final_obs"] = _whole(info["final_obs"], obs)
        self.steps += self.num_envs - ignored
        if self.mask is not None or "action_mask" in info:
            self.mask = self._legal(info)
        return obs, reward, terminated, truncated, info

    def _legal(self, info: dict[str, Any]) -> Any:
        """The mask `[B, A]` that Gymnasium's convention tells; all is legal in a row that it leaves out."""
        mask = info.get("action_mask")
        if mask is None:
            return None if self.mask is None else self.mask | True
        if isinstance(mask, Tensor):
            return mask.bool()
        if mask.dtype == object:  # of MultiDiscrete and such: a tuple of arrays in each row
            size = max(len(np.hstack(row)) for row in mask if row is not None)
            mask = np.stack([np.ones(size) if row is None else np.hstack(row) for row in mask])
        told = info.get("_action_mask", True)
        return mask.astype(bool) if np.all(told) else mask.astype(bool) | ~told[:, None]

    def _own(self, x: Tensor | None) -> Any:
        """A saved tensor in the environment's own form."""
        return None if x is None else x.cpu().numpy().copy() if self.arrays else x.to(self.device)

    def _tensors(self, tree: Any) -> Tree:
        return tree_map(self._tensor, tree)

    def _tensor(self, x: Any) -> Tensor:
        if not self.arrays:
            return x.to(self.device)
        x = np.asarray(x)
        # a copy: the environment may write into its own array again
        x = torch.from_numpy(x.astype(KINDS.get(x.dtype.kind if x.dtype != np.uint8 else "bytes", np.int64)))
        return x if self.device.type == "cpu" else x.to(self.device)


def _count(rows: Any) -> int:
    return int(rows.sum()) if isinstance(rows, Tensor) else int(np.count_nonzero(rows))  # a tenth of any()


def _whole(final: Any, obs: Any) -> Any:
    """The last obs of ended episodes as a batch; other rows hold the obs they have now."""
    if not (isinstance(final, np.ndarray) and final.dtype == object):  # one batch already
        return final
    out = tree_map(np.array, obs)
    for i, row in enumerate(final):
        if row is not None:
            tree_map(lambda whole, x, i=i: whole.__setitem__(i, x), out, row)
    return out


def _check(space: Any, which: str) -> None:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.values() if isinstance(space, spaces.Dict) else space:
            _check(part, which)
    elif not isinstance(space, LEAVES):
        raise VolitionError(
            f"the {which} space has a {space}: tensors hold Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"
        )


def _all(tree: Any) -> bool:
    if isinstance(tree, dict | tuple | list):
        return all(_all(part) for part in (tree.values() if isinstance(tree, dict) else tree))
    return bool(tree)


def _bits(x: Tensor) -> Tensor:
    return x.view(torch.int32) if x.is_floating_point() else x  # so that nan equals nan
