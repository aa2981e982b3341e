"""Volition's recipes for learning from feedback, as they are, but for a pause after each step."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.feedback_common import CASES, GAMMA, KL, LAM, LR, MAX_NORM, Case, pacer
from volition.feedback import ppo_ptx, reward_model, sft
from volition.run import Run

FOREVER = 10**6


class Paced(Run):
    """A run that waits after every `each` updates."""

    each = 1

    def loop(self, updates: int) -> Iterator[int]:
        for update in super().loop(updates):
            if update % self.each == 0:
                pace()
            yield update


def settings(case: Case, data: Path, low: bool) -> Any:
    """The recipe's settings for the case."""
    model, file = str(data / "model"), str(data / "rows.jsonl")
    shared: dict[str, Any] = {"model": model, "batch": case.batch, "max_norm": MAX_NORM, "lr": LR, "low_precision": low}
    if case.kind == "sft":
        return sft.Config(**shared, demonstrations=file, updates=FOREVER, completion=case.completion)
    if case.kind == "reward":
        return reward_model.Config(**shared, preferences=file, epochs=FOREVER, completion=case.completion)
    return ppo_ptx.Config(
        **shared, reward=str(data / "reward"), prompts=str(data / "prompts.txt"), pretraining=str(data / "texts.jsonl"),
        episodes=FOREVER * case.batch, epochs=case.epochs, minibatches=case.minibatches, completion=case.completion,
        critic_lr=LR, gamma=GAMMA, lam=LAM, beta=KL, warmup=0, average=0.0, ptx=float(case.ptx),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--low", action="store_true")
    arguments = parser.parse_args()
    case, pace = CASES[arguments.case], pacer()
    torch.set_num_threads(1)
    run, recipe = Paced(device="cpu"), {"sft": sft, "reward": reward_model, "ppo": ppo_ptx}[case.kind]
    run.each = max(1, case.epochs * case.minibatches)
    recipe.train(settings(case, arguments.data, arguments.low), run)
