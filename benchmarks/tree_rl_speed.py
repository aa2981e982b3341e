"""Speed of Tree-RL's search: all windows of a level of many images in one call, against one window at a time.

    python benchmarks/tree_rl_speed.py [--images 64] [--rounds 5]

Both search the same 31 windows in the same pictures with the same random weights, on one thread, in turn; that they
come to the same windows is checked in float32. The plain search has the map of each picture once too; then, window by
window, it pools with PyTorch's adaptive maximum, puts the whole state into one vector, 50·13 bits of history included,
and multiplies. Printed are windows and images per CPU-second, of the maps and of the search apart, and the floor that
the products of the batched search set at the rate of a large product. Lines go to results/benchmarks/.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.applications import tree_rl
from volition.applications._tree_agent import TreeAgent
from volition.applications._tree_sight import Canvas, Maps, Seen
from volition.core.windows import ACTIONS, HISTORY, best_of_each, moves, tree, whole
from volition.data import scenes
from volition.machine import multiplies_bf16, provenance

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "tree_rl_speed.jsonl"
LEVELS = 5


def batched(agent: TreeAgent, seen: Seen) -> Tensor:
    """The windows of all images `[N, 31, 4]`, as the recipe searches."""
    every = torch.arange(len(seen.size))
    return tree(agent.searcher(seen)(every), whole(seen.size), seen.size, LEVELS)


class Plain:
    """The same search as one would write it first: a window, a state, a product."""

    def __init__(self, agent: TreeAgent, seen: Seen) -> None:
        self.agent, self.seen, q = agent, seen, agent.net.q
        self.head: nn.Module = seen.head if agent.net.head is None else agent.net.head
        assert q.place is not None
        # history: for each place and action a column
        self.weight = torch.cat([q.window.weight, q.whole.weight, q.past[1:].T, q.place.weight], 1).detach()

    def features(self, image: int, window: Tensor) -> Tensor:
        maps = self.seen.maps
        channels_last = maps.maxima[0, 0, image]  # [h, w, C]
        height, width, _ = channels_last.shape
        x1, y1, x2, y2 = (window * maps.scale[image]).tolist()
        left, right = (min(max(int(v / maps.stride + 0.5), 0), width - 1) for v in (x1, x2 - 1))
        top, bottom = (min(max(int(v / maps.stride + 0.5), 0), height - 1) for v in (y1, y2 - 1))
        part = channels_last[top : max(bottom, top) + 1, left : max(right, left) + 1].permute(2, 0, 1)
        return self.head(F.adaptive_max_pool2d(part, maps.bins).permute(1, 2, 0)[None])[0]

    def choose(self, image: int, window: Tensor, history: list[int]) -> tuple[int, int]:
        size = self.seen.size[image].float()
        bits = torch.zeros(HISTORY, len(ACTIONS))
        for age, action in enumerate(reversed(history)):
            bits[HISTORY - 1 - age, action] = 1
        corners = window / size.repeat(2)
        place = torch.cat([corners, (corners[2:] - corners[:2]).log2() / 4])
        state = torch.cat([self.features(image, window), self.features(image, whole(size)), bits.flatten(), place])
        q = self.agent.net.q.rest(F.relu(self.weight @ state + self.agent.net.q.window.bias))
        first, second = best_of_each(q).tolist()
        return first, second

    def search(self) -> Tensor:
        """The windows of all images `[N, 31, 4]`."""
        images = []
        for i, size in enumerate(self.seen.size):
            windows, histories = [whole(size)], [[]]
            for parent in range(2 ** (LEVELS - 1) - 1):
                after = moves(windows[parent], size)
                for action in self.choose(i, windows[parent], histories[parent]):
                    windows.append(after[action])
                    histories.append([*histories[parent], action])
            images.append(torch.stack(windows))
        return torch.stack(images)


def seconds(work: Any) -> tuple[float, Any]:
    begin = time.process_time()
    out = work()
    return time.process_time() - begin, out


def operations(agent: TreeAgent, images: int) -> float:
    """Floating-point operations of the batched search's products; the windows of the last level choose nothing."""
    q, inner = agent.net.q, 2 ** (LEVELS - 1) - 1
    per_window = sum(layer.weight.numel() for layer in q.rest.modules() if isinstance(layer, nn.Linear))
    head = agent.sight.head.linear.weight.numel()
    per_window += head + q.window.weight.numel() + (0 if q.place is None else q.place.weight.numel())
    return 2.0 * images * (inner * per_window + q.whole.weight.numel() + agent.sight.head.linear.weight.numel())


def product_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per CPU-second of a large product."""
    x, w = torch.randn(1024, 3136, dtype=dtype), torch.randn(3136, 256, dtype=dtype)
    times = [seconds(lambda: x @ w)[0] for _ in range(7)]
    return 2 * 1024 * 3136 * 256 / statistics.median(times)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, device = scenes.generate("test", arguments.images), torch.device("cpu")
    config = replace(tree_rl.VARIANTS["laptop"], train_images=1)
    agent = tree_rl.make_agent(config, len(images.classes)).eval()
    agent.net.begin(agent.sight)
    canvas = Canvas(images, config.side)
    canvas.draw(torch.arange(len(images)))  # making pictures is not searching them

    exact = Seen(agent.sight, Maps(agent.sight, canvas, device, False))
    plain = Plain(agent, exact)
    assert bool((plain.search()[:4] == batched(agent, exact)[:4]).all()), "the two searches part"

    low = [False, True] if multiplies_bf16(device) else [False]
    rows: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        rows.setdefault("one window at a time", []).append(seconds(plain.search)[0])
        for bf16 in low:
            name = "bfloat16" if bf16 else "float32"
            spent, seen = seconds(lambda bf16=bf16: Seen(agent.sight, Maps(agent.sight, canvas, device, bf16)))
            rows.setdefault(f"maps, {name}", []).append(spent)
            rows.setdefault(f"by levels, {name}", []).append(seconds(lambda seen=seen: batched(agent, seen))[0])
    work = operations(agent, len(images))
    for bf16 in low:
        dtype = torch.bfloat16 if bf16 else torch.float32
        rows[f"floor: products, {str(dtype)[6:]}"] = [work / product_rate(dtype)]

    slow = statistics.median(rows["one window at a time"])
    print(f"{'':30s}{'windows/CPU-s':>15s}{'images/CPU-s':>15s}{'ratio':>8s}")
    for name, times in rows.items():
        each = statistics.median(times)
        print(f"{name:30s}{len(images) * 31 / each:15,.0f}{len(images) / each:15,.1f}{slow / each:8.1f}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    line = {"benchmark": "tree_rl_speed", "images": len(images), "windows": 31, "cpu_seconds": rows}
    with open(OUT, "a") as file:
        file.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
