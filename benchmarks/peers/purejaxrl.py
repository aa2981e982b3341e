"""PureJaxRL: its ppo.py and dqn.py as they are in a checkout of it (--folder), each one jitted program.

Compiled ahead of time, so that compiling and training are timed apart. Its wrappers.py wants Brax and Navix: the same
two wrappers come from Gymnax, which took them over. A program cannot stop early: the CPU time to 475 is the steps'
share of it. Its dqn.py does not tell where episodes end, so no return is given.
"""

import sys
import types
from typing import Any

import gymnax  # noqa: F401  here, before the clock  # pyrefly: ignore[missing-import]
import jax  # pyrefly: ignore[missing-import]
import numpy as np
from gymnax.wrappers import purerl  # pyrefly: ignore[missing-import]

from benchmarks.peers.common import A2C, DQN, ENV, PPO, Meter, Setting, cpu_seconds, main


def config(setting: Setting) -> dict[str, Any]:
    words = {
        "ENV_NAME": ENV, "NUM_ENVS": setting.num_envs, "TOTAL_TIMESTEPS": setting.total, "LR": setting.lr,
        "GAMMA": setting.gamma,
    }  # fmt: skip
    if isinstance(setting, PPO):
        return words | {
            "NUM_STEPS": setting.steps, "UPDATE_EPOCHS": setting.epochs,
            "NUM_MINIBATCHES": setting.num_envs * setting.steps // setting.minibatch, "GAE_LAMBDA": setting.lam,
            "CLIP_EPS": setting.clip, "ENT_COEF": setting.entropy, "VF_COEF": 2 * setting.value, "MAX_GRAD_NORM": 0.5,
            "ACTIVATION": "tanh", "ANNEAL_LR": setting.anneal,
        }  # fmt: skip
    assert isinstance(setting, DQN), "PureJaxRL has no A2C"
    return words | {
        "BUFFER_SIZE": setting.replay, "BUFFER_BATCH_SIZE": setting.batch, "EPSILON_START": 1.0,
        "EPSILON_FINISH": 0.05, "EPSILON_ANNEAL_TIME": setting.total / 2, "TAU": 1.0,
        "TARGET_UPDATE_INTERVAL": setting.target_every, "LEARNING_STARTS": setting.learning_starts,
        "TRAINING_INTERVAL": setting.train_every,
    }  # fmt: skip


def train(setting: Setting, seed: int, meter: Meter) -> None:
    assert meter.folder is not None, "give --folder, a checkout of PureJaxRL"
    assert not isinstance(setting, A2C)
    sys.path.insert(0, str(meter.folder / "purejaxrl"))
    sys.modules["wrappers"] = purerl
    sys.modules["wandb"] = types.ModuleType("wandb")
    jax.tree_map = jax.tree.map  # the name it had
    script = __import__("ppo" if isinstance(setting, PPO) else "dqn")
    key = jax.random.PRNGKey(seed)
    begin = cpu_seconds()
    program = jax.jit(script.make_train(config(setting))).lower(key).compile()
    meter.compile_seconds = cpu_seconds() - begin
    jax.block_until_ready(program(key))  # once untimed, as every driver
    meter.start()
    out = jax.block_until_ready(program(key))
    meter.stop(setting.total)
    if isinstance(setting, PPO):
        ended, returns = (np.asarray(out["metrics"][name]) for name in ("returned_episode", "returned_episode_returns"))
        flat = ended.reshape(-1, setting.num_envs)
        for row, env in np.argwhere(flat):
            meter.episode(float(returns.reshape(flat.shape)[row, env]), int(row + 1) * setting.num_envs)
    if meter.solved:
        steps = meter.solved[1]
        meter.solved = meter.cpu * steps / setting.total, steps


if __name__ == "__main__":
    main("PureJaxRL", train, ("jax", "gymnax", "flax", "distrax", "numpy"), warm_up=False)
