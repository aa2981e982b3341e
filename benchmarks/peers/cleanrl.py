"""CleanRL: its ppo.py and dqn.py as they are in a checkout of it (--folder).

They are written for gymnasium 0.29, so they are given a vector environment that speaks as that one did: reset in the
same step, `final_info` and `final_observation`. TensorBoard is stubbed and what they print is only counted.
"""

import runpy
import sys
import types
from typing import Any

import gymnasium
import numpy  # noqa: F401  here, before the clock
import torch  # noqa: F401
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from benchmarks.peers.common import A2C, PPO, Meter, Setting, Solved, main


class OldVectorEnv(SyncVectorEnv):
    """SyncVectorEnv with the `infos` of gymnasium 0.29."""

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.SAME_STEP)

    def step(self, actions: Any) -> Any:
        obs, reward, terminated, truncated, infos = super().step(actions)
        if "final_info" in infos:
            episode, there = infos["final_info"]["episode"], infos["_final_info"]
            old = [{"episode": {"r": r, "l": n}} for r, n in zip(episode["r"], episode["l"], strict=True)]
            infos["final_info"] = [info if here else None for info, here in zip(old, there, strict=True)]
            infos["final_observation"] = infos["final_obs"]
        return obs, reward, terminated, truncated, infos


class Writer:
    """TensorBoard's SummaryWriter without the file."""

    def __init__(self, folder: str) -> None:
        pass

    def add_text(self, *_: Any) -> None:
        pass

    def add_scalar(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass


def flags(setting: Setting) -> list[str]:
    if isinstance(setting, PPO):
        if setting.anneal_clip:
            sys.stderr.write("CleanRL has no falling clip range: it stays where it begins\n")
        words = {
            "num-envs": setting.num_envs, "num-steps": setting.steps, "update-epochs": setting.epochs,
            "num-minibatches": setting.num_envs * setting.steps // setting.minibatch, "gae-lambda": setting.lam,
            "clip-coef": setting.clip, "ent-coef": setting.entropy, "vf-coef": 2 * setting.value,
        }  # fmt: skip
        switches = {"anneal-lr": setting.anneal, "clip-vloss": setting.value_clip}
    else:
        assert not isinstance(setting, A2C), "CleanRL has no A2C"
        words = {
            "buffer-size": setting.replay, "batch-size": setting.batch, "learning-starts": setting.learning_starts,
            "train-frequency": setting.train_every, "target-network-frequency": setting.target_every,
        }  # fmt: skip
        switches = {}
    words |= {"total-timesteps": setting.total, "learning-rate": setting.lr, "gamma": setting.gamma}
    return [
        "--no-cuda",
        *(f"--{name}={value}" for name, value in words.items()),
        *(f"--{'' if value else 'no-'}{name}" for name, value in switches.items()),
    ]


def train(setting: Setting, seed: int, meter: Meter) -> None:
    assert meter.folder is not None, "give --folder, a checkout of CleanRL"
    steps = setting.total

    def begin(env_fns: Any) -> OldVectorEnv:  # the first thing that they do after reading their settings
        meter.start()
        return OldVectorEnv(env_fns)

    def listen(text: str, *_: Any) -> None:
        nonlocal steps
        if text.startswith("global_step="):
            step, value = (part.split("=")[1] for part in text.split(", "))
            if meter.episode(float(value.strip("[]")), int(step)):
                steps = int(step)
                raise Solved

    gymnasium.vector.SyncVectorEnv = begin  # pyrefly: ignore
    stub: Any = types.ModuleType("torch.utils.tensorboard")
    stub.SummaryWriter = Writer
    sys.modules["torch.utils.tensorboard"] = stub
    if str(meter.folder) not in sys.path:
        sys.path.insert(0, str(meter.folder))
    script = meter.folder / "cleanrl" / ("ppo.py" if isinstance(setting, PPO) else "dqn.py")
    argv, sys.argv = sys.argv, [str(script), f"--seed={seed}", *flags(setting)]
    try:
        runpy.run_path(str(script), init_globals={"print": listen}, run_name="__main__")
        if isinstance(setting, PPO):
            steps -= steps % (setting.num_envs * setting.steps)
    except Solved:
        pass
    finally:
        meter.stop(steps)
        sys.argv = argv


if __name__ == "__main__":
    main("CleanRL", train, ("torch", "gymnasium", "numpy"))
