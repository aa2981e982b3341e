"""Speed of generation: tokens per CPU-second, ours and transformers' `generate` on the same weights.

    python benchmarks/generation_speed.py [--rounds 5]

A GPT-2 of 4 layers, width 256 and 8,192 tokens (5.3 M parameters) continues 64 prompts of 32 tokens by 64, sampling at
temperature 1, on one thread, in turn. Ours keeps the log-probability of each token as well; that it is the one of a
full forward pass is checked first. In bfloat16 ours multiplies so; transformers runs the model in bfloat16 as a whole.
Lines go to results/benchmarks/.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from volition.machine import multiplies_bf16, provenance
from volition.nets.generate import generate
from volition.nets.language import log_probs, small_gpt

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "generation_speed.jsonl"
COUNT, PROMPT, MOST, VOCAB, NONE = 64, 32, 64, 8192, -1


def seconds(f: Callable[[], Any]) -> float:
    """CPU-seconds of one call."""
    start = time.process_time()
    f()
    return time.process_time() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = small_gpt(VOCAB, eos=0, pad=1)
    ids, mask = torch.randint(2, VOCAB, (COUNT, PROMPT)), torch.ones(COUNT, PROMPT, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)

    def ours(low: bool) -> Any:
        return generate(model, ids, mask, MOST, eos=NONE, pad=1, generator=generator, low_precision=low)

    def theirs(model: Any) -> Any:
        return model.generate(
            ids, attention_mask=mask.long(), do_sample=True, top_k=0, top_p=1.0, min_new_tokens=MOST,
            max_new_tokens=MOST, eos_token_id=None, pad_token_id=1,
        )  # fmt: skip

    said = ours(False)
    spoken = torch.cat([torch.zeros_like(mask), said.mask], 1)
    full = log_probs(model, torch.cat([ids, said.ids], 1), torch.ones_like(spoken), spoken)[:, PROMPT:]
    gap = (full - said.log_prob).abs().max().item()
    assert gap < 1e-4, "our log-probabilities are not the model's"

    runs: dict[str, Callable[[], Any]] = {
        "transformers, float32": lambda: theirs(model),
        "ours, float32": lambda: ours(False),
    }
    if multiplies_bf16(torch.device("cpu")):
        half: Any = copy.deepcopy(model)
        half.to(torch.bfloat16)
        runs |= {"transformers, bfloat16": lambda: theirs(half), "ours, bfloat16": lambda: ours(True)}
    for f in runs.values():
        f()
    rows: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, f in runs.items():
            rows[name].append(seconds(f))
    slow = statistics.median(rows["transformers, float32"])
    print(f"{'':26s}{'tokens/CPU-s':>14s}{'ratio':>8s}")
    for name, times in rows.items():
        print(f"{name:26s}{COUNT * MOST / statistics.median(times):14,.0f}{slow / statistics.median(times):8.2f}")
    print(f"largest difference of a log-probability from the full pass: {gap:.1e}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    line = {"benchmark": "generation_speed", "tokens": COUNT * MOST, "cpu_seconds": rows, "log_prob_gap": gap}
    with open(OUT, "a") as file:
        file.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
