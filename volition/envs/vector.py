"""`make`: any Gymnasium environment, or many of it, as one batch in tensors."""

import difflib
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from volition.envs.atari import make_atari, rom_name
from volition.envs.recorded import Recorded
from volition.envs.serial import SerialVectorEnv
from volition.envs.tensor_env import TensorEnv
from volition.errors import VolitionError

__all__ = ["TensorEnv", "make", "make_one"]

VECTORISED_FROM = 5  # environments; CartPole's own vector form takes 31 µs a step, one CartPole in Python 6 to 7


def make(
    env: str | gymnasium.Env | VectorEnv | Callable[[], gymnasium.Env],
    num_envs: int = 1,
    *,
    options: Mapping[str, Any] | None = None,
    limit: int = 0,
    training: bool = False,
    asynchronous: bool = False,
    device: torch.device | str = "cpu",
) -> TensorEnv:
    """`num_envs` copies of an environment in tensors: a Gymnasium id, your environment or a function that makes one.

    An id may be "module:Name-v0", which imports the module first; `options` go to `gymnasium.make`. `limit` cuts
    episodes off after so many steps, 0 keeps the environment's own limit. An environment with a vector form of its
    own (its spec's `vector_entry_point`) is used in it from 5 on, with the autoreset that it has. "ALE/…" is
    `volition.envs.atari.Atari`, in `training` with lives for episodes and clipped rewards. `asynchronous` runs one
    process per environment: only worth it where a step takes a millisecond or more. A ready VectorEnv is taken as it
    is; only a SyncVectorEnv's environments are taken over, so that they reset in the same step.
    """
    if isinstance(env, VectorEnv):
        if type(env) is not SyncVectorEnv:
            return TensorEnv(env, device)
        ready = iter(env.envs)
        return _recorded(lambda: next(ready), env.num_envs, limit, False, device)
    if num_envs < 1:
        raise VolitionError(f"num_envs must be 1 or more, not {num_envs}")
    if isinstance(env, str) and (game := rom_name(env)):
        return TensorEnv(make_atari(env, game, num_envs, dict(options or {}), limit, training), device)
    if isinstance(env, str):
        name, given = env, dict(options or {})
        first = make_one(name, given)  # any mistake is found here, in this process
        ready = None if asynchronous or num_envs < VECTORISED_FROM else _vectorised(first, num_envs, given, limit)
        first.close()
        if ready is not None:
            return TensorEnv(ready, device)
        return _recorded(lambda: make_one(name, given), num_envs, limit, asynchronous, device)
    if isinstance(env, gymnasium.Env):
        single: gymnasium.Env = env
        if num_envs > 1:
            raise VolitionError(f"{env} is one environment: for {num_envs} of them give a function that makes one")
        return _recorded(lambda: single, 1, limit, asynchronous, device)
    if callable(env):
        return _recorded(env, num_envs, limit, asynchronous, device)
    raise VolitionError(f"{env!r} is no environment: give a Gymnasium id, an Env, a VectorEnv or a function")


def _vectorised(one: gymnasium.Env, num_envs: int, options: dict[str, Any], limit: int) -> VectorEnv | None:
    """The environment's own vector form, if it has one in NumPy that is the same environment."""
    spec = one.spec
    if spec is None or spec.vector_entry_point is None or spec.additional_wrappers:
        return None
    steps = min(filter(None, (limit, spec.max_episode_steps)), default=None)
    settings: Any = options if steps is None else {**options, "max_episode_steps": steps}
    try:
        env = gymnasium.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **settings)
    except (TypeError, ImportError, gymnasium.error.Error):  # it lacks the option, the limit or a package
        return None
    same = (env.single_observation_space, env.single_action_space) == (one.observation_space, one.action_space)
    modes = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP)
    if same and env.metadata.get("autoreset_mode") in modes and not env.metadata.get("jax"):
        return env
    env.close()
    return None


def _recorded(
    build: Callable[[], gymnasium.Env], num_envs: int, limit: int, asynchronous: bool, device: torch.device | str
) -> TensorEnv:
    """Environments that can be put back, one after the other or each in a process."""

    def one() -> gymnasium.Env:
        env = build()
        if not isinstance(env, gymnasium.Env):
            raise VolitionError(
                f"the function that makes an environment gave {type(env).__name__}, not a gymnasium.Env"
            )
        return Recorded(gymnasium.wrappers.TimeLimit(env, limit) if limit else env)

    try:
        if not asynchronous:
            return TensorEnv(SerialVectorEnv([one] * num_envs), device, recorded=True)
        # without copies: TensorEnv makes its own
        vector = AsyncVectorEnv([one] * num_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    except RuntimeError as error:  # spaces that differ
        raise VolitionError(f"these environments do not make one batch: {' '.join(str(error).split())}") from None
    env = TensorEnv(vector, device, recorded=True)
    weakref.finalize(env, vector.close, terminate=True)  # its processes end with it, at exit at the latest
    return env


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
