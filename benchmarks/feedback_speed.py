"""Speed of learning from feedback against TRL: SFT, reward model and PPO, on the same weights, data and work, in turn.

    python benchmarks/feedback_speed.py --peers PYTHON --ppo DIR [--only sft reward-9] [--rounds 5]
    python benchmarks/feedback_speed.py --table              # what is in the results, as Markdown

PYTHON is that of a virtual environment with TRL, DIR a folder with TRL 1.12, the last that has PPO (`pip install
--no-deps --target DIR trl==1.12.0`). Each library trains in a process of its own on one thread, a GPT-2 of 4 layers,
width 256 and 8,192 tokens (5.3 M parameters) in the folder that both load; ours by the recipes' own `train`, TRL by its
trainers. All pause after every step, and rounds go through them step by step; the first step is not counted. What is
printed are medians of CPU time and the ratios of the same round. Memory is the peak over what stood loaded before
the first step. The floor is what the algorithm's products would take at the rate of one large product.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.feedback_common import CASES, CONTEXT, EOS, HEADS, LAYERS, PAD, VOCAB, WIDTH, Case, rows
from volition.data.tokens import Tokens
from volition.machine import multiplies_bf16, provenance
from volition.nets.language import Scalar, save, small_gpt

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "benchmarks" / "feedback_speed.jsonl"
OURS, LOW = "Volition, float32", "Volition, bfloat16"
LIBRARIES = {  # what the driver is told
    OURS: (),
    LOW: ("--low",),
    "TRL, float32": (),
    "TRL, float32, fused GELU": ("--fused",),
    "TRL, bf16=True": ("--bf16",),
    "TRL, its defaults": ("--bf16", "--checkpointing"),
}
OWN = (OURS, LOW)
UNITS = {"sft": "tokens", "reward": "pairs", "ppo": "completions"}


def write_data(folder: Path, case: Case) -> None:
    """Weights and tokenizer as transformers saves them, with GPT-2's activation as published, and the rows."""
    torch.manual_seed(0)
    names = {EOS: "<eos>", PAD: "<pad>"}
    numbers = {names.get(i, f"w{i}"): i for i in range(VOCAB)}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = Tokens(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>"))
    model = small_gpt(VOCAB, EOS, PAD, CONTEXT, LAYERS, WIDTH, HEADS)
    model.config.activation_function = "gelu_new"
    for name, part in (("model", model), ("reward", Scalar(model))):
        save(part, folder / name)
        tokens.save(folder / name)
    found = rows(case)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (folder / "prompts.txt").write_text("\n".join(row["prompt"] for row in found))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": row.get("text", "-")}) + "\n" for row in found))


class Contestant:
    """A library in the middle of its training, in a process of its own."""

    def __init__(self, name: str, case: str, data: Path, arguments: argparse.Namespace) -> None:
        self.name, own = name, name in OWN
        python = sys.executable if own else str(arguments.peers)
        variables = os.environ | {f"{kind}_NUM_THREADS": "1" for kind in ("OMP", "MKL", "OPENBLAS", "RAYON")}
        variables |= {"PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        variables |= {"TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
        if not own and CASES[case].kind == "ppo":
            variables["PYTHONPATH"] = os.pathsep.join([str(arguments.ppo.resolve()), os.environ.get("PYTHONPATH", "")])
        self.errors = tempfile.TemporaryFile("w+")
        driver = f"benchmarks.peers.feedback_{'ours' if own else 'trl'}"
        self.process = subprocess.Popen(
            [python, "-m", driver, case, "--data", str(data), *LIBRARIES[name]], cwd=ROOT, env=variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        self.about = self.heard()
        self.step()  # warms up
        self.seconds: list[float] = []
        self.peak = 0.0

    def heard(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"{self.name} failed:\n{self.errors.read()[-3000:]}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        """One step."""
        assert self.process.stdin is not None
        self.process.stdin.write("on\n")
        self.process.stdin.flush()
        return self.heard()

    def measure(self) -> None:
        """One step that counts."""
        found = self.step()
        self.seconds.append(found["cpu_seconds"])
        self.peak = max(self.peak, found["peak_mib"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(case: Case) -> float:
    """Tokens, pairs or completions of a step."""
    if case.kind == "sft":
        return case.batch * statistics.mean(case.prompt + len(row["completion"].split()) + 1 for row in rows(case))
    return case.batch * (case.ways * (case.ways - 1) / 2 if case.kind == "reward" else 1)


def products(tokens: float, seen: float, asked: float = 0) -> float:
    """Floating-point operations of a forward pass: tokens, pairs of a token and one it looks at, logits' tokens."""
    return LAYERS * (24 * tokens * WIDTH**2 + 4 * seen * WIDTH) + 2 * asked * WIDTH * VOCAB


def operations(case: Case) -> float:
    """Those that a step of the algorithm needs, each prompt once and no token that nobody asks for."""
    p, r, n = case.prompt, case.completion, case.batch
    length = p + r
    if case.kind == "sft":
        lengths = [p + len(row["completion"].split()) + 1 for row in rows(case)]
        return 3 * n * statistics.mean(products(t, t * (t + 1) / 2, t - p) for t in lengths)
    if case.kind == "reward":
        before, branch = p - 1, r + 1
        seen = before * p / 2 + case.ways * (branch * before + branch * (branch + 1) / 2)
        return 3 * n * products(before + case.ways * branch, seen)
    one, logits = products(length - 1, length * (length - 1) / 2), products(0, 0, r)
    rollout = (one + logits) + (one + logits) + 2 * one  # speaks, is compared with the reference, valued and scored
    texts = 3 * products(length, length * (length + 1) / 2, length - 1) if case.ptx else 0.0
    return n * (rollout + case.epochs * (3 * (2 * one + logits) + texts))


def rate(dtype: torch.dtype) -> float:
    """Floating-point operations per CPU-second of one large product."""
    a = torch.randn(2048, 2048).to(dtype)
    a @ a
    start = time.process_time()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.process_time() - start)


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All libraries on one case, in turn."""
    case = CASES[name]
    chosen = [
        library for library in LIBRARIES
        if (library in arguments.names or library in OWN)
        and (library != LOW or multiplies_bf16(torch.device("cpu")))
        and (library in OWN or (arguments.peers and not case.ptx and (arguments.ppo or case.kind != "ppo")))
    ]  # fmt: skip
    floor = {dtype: operations(case) / rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), case)
        running = [Contestant(library, name, Path(folder), arguments) for library in chosen]
        for _, one in itertools.product(range(arguments.rounds), running):
            one.measure()
        for one in running:
            one.close()
    return [
        {
            "benchmark": "feedback_speed", "case": name, "name": one.name, "unit": UNITS[case.kind],
            "work": one.about.get("work", work(case)), "cpu_seconds": one.seconds, "peak_mib": round(one.peak),
            "floor_seconds": floor[torch.bfloat16 if one.name == LOW else torch.float32],
            "tera_operations": operations(case) / 1e12, "packages": one.about.get("packages"), "threads": 1,
        } | provenance()
        for one in running
    ]  # fmt: skip


def per_second(line: dict[str, Any]) -> list[float]:
    return [line["work"] / seconds for seconds in line["cpu_seconds"]]


def against(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """How many times as fast as `other`: median of the rounds' ratios, least and most."""
    ratios = [a / b for a, b in zip(per_second(mine), per_second(other), strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


def show(case: str, lines: list[dict[str, Any]]) -> None:
    """A Markdown table of one case."""
    by_name = {line["name"]: line for line in lines}
    base = by_name.get("TRL, float32")
    print(f"\n**{case}**, {len(lines[0]['cpu_seconds'])} rounds\n")
    print(
        f"| | {lines[0]['unit']} per CPU-second | times TRL, float32 | share of the floor | peak MiB |\n|{'---|' * 5}"
    )
    for name, line in by_name.items():
        seconds = statistics.median(line["cpu_seconds"])
        share = f"{line['floor_seconds'] / seconds:.0%}" if name in OWN else ""
        ratio = against(line, base) if base and base is not line else ""
        print(f"| {name} | {line['work'] / seconds:,.0f} | {ratio} | {share} | {line['peak_mib']:,} |")


def tables() -> None:
    """The newest measurement of each case."""
    lines = [json.loads(line) for line in OUT.read_text().splitlines()]
    for case in CASES:
        mine = [line for line in lines if line["case"] == case]
        if mine:
            show(case, [line for line in mine if line["commit"] == mine[-1]["commit"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="python of the virtual environment that has TRL")
    parser.add_argument("--ppo", type=Path, help="folder with TRL 1.12")
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES, help="cases")
    parser.add_argument("--names", nargs="+", default=list(LIBRARIES), choices=LIBRARIES, help="beside ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print and keep nothing")
    parser.add_argument("--table", action="store_true", help="print what is in the results and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        tables()
        return
    torch.set_num_threads(1)
    for case in arguments.only:
        lines = measure(case, arguments)
        show(case, lines)
        if not arguments.dry:
            OUT.parent.mkdir(parents=True, exist_ok=True)
            with open(OUT, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
