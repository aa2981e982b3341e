"""Volition on the environments that the others use: single ones in a SyncVectorEnv, not CartPole's own vector form."""

import gymnasium
from gymnasium.vector import SyncVectorEnv

from benchmarks.peers.common import ENV, Meter, Setting, main
from benchmarks.peers.ours import train


def train_sync(setting: Setting, seed: int, meter: Meter) -> None:
    train(setting, seed, meter, SyncVectorEnv([lambda: gymnasium.make(ENV)] * setting.num_envs))


if __name__ == "__main__":
    main("Volition, SyncVectorEnv", train_sync, ("torch", "gymnasium", "numpy"))
