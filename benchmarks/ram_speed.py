"""Training speed of RAM against kevinzakka/recurrent-visual-attention, the best-known PyTorch implementation.

    python benchmarks/ram_speed.py --peer DIR

DIR is a checkout of the peer, used as it is: its own Trainer.train_one_epoch is timed, with its progress bar and
TensorBoard stubbed and its batches ready in memory. Ours also makes its images, clutter included, inside the timed
region. One thread; both run the same glimpses, patches, scales and layers in turn, several rounds; what is printed is
the median of the rounds' ratios, in images per CPU-second. The floor beside it is what our matrix products alone would
cost at the rate that a large one reaches on the machine.
"""

import argparse
import contextlib
import importlib.machinery
import io
import json
import os
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from volition.applications import ram
from volition.data import images as image_data
from volition.data.canvas import Canvas
from volition.envs.glimpse import TASKS
from volition.machine import commit, machine, versions
from volition.run import Run

SETTINGS = {  # task, glimpses, size, scales
    "28x28, 6 glimpses of 8x8x1": ("centred", 6, 8, 1),
    "60x60 translated, 8 glimpses of 12x12x3": ("translated-60", 8, 12, 3),
    "60x60 cluttered, 8 glimpses of 12x12x3": ("cluttered-60", 8, 12, 3),
}


def peer_epoch(folder: Path, task: str, glimpses: int, size: int, scales: int, batches: int) -> Callable[[], int]:
    """The peer's training of `batches` batches of 128 as a function that returns the number of images."""
    sys.path.insert(0, str(folder))
    logger: Any = types.ModuleType("tensorboard_logger")
    logger.configure = logger.log_value = None
    sys.modules["tensorboard_logger"] = logger
    tqdm: Any = types.ModuleType("tqdm")
    tqdm.__spec__ = importlib.machinery.ModuleSpec("tqdm", None)
    bar = types.SimpleNamespace(set_description=lambda text: None, update=lambda count: None)
    tqdm.tqdm = lambda **_: contextlib.nullcontext(bar)
    sys.modules["tqdm"] = tqdm
    trainer = __import__("trainer")
    with contextlib.redirect_stdout(io.StringIO()):
        settings = {
            "use_gpu": False, "patch_size": size, "glimpse_scale": 2, "num_patches": scales, "loc_hidden": 128,
            "glimpse_hidden": 128, "num_glimpses": glimpses, "hidden_size": 256, "std": 0.05, "M": 1,
            "is_train": True, "epochs": 1, "momentum": 0.5, "init_lr": 3e-4, "best": True, "ckpt_dir": ".",
            "logs_dir": ".", "lr_patience": 20, "train_patience": 50, "use_tensorboard": False, "resume": False,
            "print_freq": 10, "plot_freq": 10**9,
        }  # fmt: skip
        images = image_data.load()
        canvas, generator = Canvas(images.train_images, *TASKS[task]), torch.Generator().manual_seed(0)
        ready: Any = []
        for _ in range(batches):
            index = torch.randint(len(images.train_labels), (128,), generator=generator)
            ready.append((canvas.draw(index, generator)[:, None].float() / 255, images.train_labels[index]))
        loader: Any = type("Loader", (list,), {"sampler": types.SimpleNamespace(indices=range(128 * batches))})(ready)
        peer = trainer.Trainer(types.SimpleNamespace(**settings), [loader, loader])

    def epoch() -> int:
        peer.train_one_epoch(1)
        return 128 * batches

    return epoch


def our_epoch(
    task: str, glimpses: int, size: int, scales: int, batches: int, batch: int, bf16: bool
) -> Callable[[], int]:
    """Our training of `batches` batches, data made on the way, as a function that returns the number of images."""
    settings: Any = {"task": task}
    config = replace(
        ram.Config(),
        **settings,
        glimpses=glimpses,
        size=size,
        scales=scales,
        batch=batch,
        bf16=bf16,
        updates=batches,
    )

    def epoch() -> int:
        ram.train(config, Run(device="cpu"))
        return batch * batches

    return epoch


def floor(glimpses: int, size: int, scales: int) -> float:
    """Images per CPU-second if there were nothing but our matrix products, at a large bfloat16 product's rate.

    Multiply-adds per glimpse: acting once, heads and baseline again for learning, then backward every weight once
    and every input that has a gradient once.
    """
    layers = {"what": scales * size**2 * 128, "where": 2 * 128, "glimpse": 256**2, "core_in": 256**2, "core": 256**2}
    heads = {"locate": 256 * 128 + 128 * 2, "answer": 256 * 10, "baseline": 267 * 128 + 128}
    forward = sum(layers.values()) + 2 * heads["locate"] + 2 * heads["answer"] + heads["baseline"]
    backward = sum(layers.values()) + sum(heads.values()) + 3 * 256**2 + heads["answer"]
    flops = 2 * glimpses * (forward + backward)
    x, w = torch.randn(2048, 256).bfloat16(), torch.randn(256, 256).bfloat16()
    for _ in range(20):
        torch.nn.functional.linear(x, w)
    start, times = time.process_time(), 300
    for _ in range(times):
        torch.nn.functional.linear(x, w)
    return times * 2 * 2048 * 256 * 256 / (time.process_time() - start) / flops


def rate(epoch: Callable[[], int]) -> float:
    """Images per CPU-second."""
    start = time.process_time()
    return epoch() / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/ram_speed.jsonl"))
    arguments = parser.parse_args()
    peer_folder, out = arguments.peer.resolve(), arguments.out.resolve()
    torch.set_num_threads(1)
    os.environ.pop("VOLITION_DATA", None)  # both sides train on the built-in digits
    for name, (task, glimpses, size, scales) in SETTINGS.items():
        with tempfile.TemporaryDirectory() as scratch:  # the peer makes folders where it stands
            os.chdir(scratch)
            runs = {
                "peer fp32, batch 128": peer_epoch(peer_folder, task, glimpses, size, scales, 40),
                "ours fp32, batch 128": our_epoch(task, glimpses, size, scales, 100, 128, False),
                "ours bf16, batch 256": our_epoch(task, glimpses, size, scales, 150, 256, True),
                "ours bf16, batch 512": our_epoch(task, glimpses, size, scales, 100, 512, True),
            }
            for epoch in runs.values():  # once untimed: caches, lazy initialisation
                epoch()
            rates: dict[str, list[float]] = {key: [] for key in runs}
            for _ in range(arguments.rounds):
                for key, epoch in runs.items():
                    rates[key].append(rate(epoch))
            os.chdir("/")
        first = next(iter(rates))
        ratios = {k: statistics.median(a / b for a, b in zip(v, rates[first], strict=True)) for k, v in rates.items()}
        bound = floor(glimpses, size, scales)
        print(f"{name:42s} {'floor of the products':22s} {bound:8.0f} images/CPU-s")
        for key, values in rates.items():
            print(f"{name:42s} {key:22s} {statistics.median(values):8.0f} images/CPU-s  ratio {ratios[key]:.2f}")
        line = {
            "benchmark": "ram_speed", "setting": name, "threads": 1, "rounds": arguments.rounds,
            "images_per_cpu_second": {k: [round(v) for v in vs] for k, vs in rates.items()},
            "floor_images_per_cpu_second": round(bound),
            "median_ratio_to_peer": {k: round(v, 2) for k, v in ratios.items()},
            "commit": commit(), "versions": versions(), "machine": machine(),
        }  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
