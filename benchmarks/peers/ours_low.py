"""Volition with its convolutions in bfloat16, as its own Atari variants are on a processor that has it."""

from benchmarks.peers.common import Meter, Setting, main
from benchmarks.peers.ours import train


def train_low(setting: Setting, seed: int, meter: Meter) -> None:
    train(setting, seed, meter, low=True)


if __name__ == "__main__":
    main("Volition, bfloat16", train_low, ("torch", "gymnasium", "numpy", "ale-py"))
