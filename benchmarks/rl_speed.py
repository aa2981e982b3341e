"""Training speed on CartPole-v1 and an Atari game against the best-known libraries: same work and settings, in turn.

    python benchmarks/rl_speed.py --peers PYTHON --cleanrl DIR --purejaxrl DIR [--only ppo-C dqn] [--rounds 3]
    python benchmarks/rl_speed.py --solve --peers PYTHON …   # CPU-seconds until the mean return is 475, each seed
    python benchmarks/rl_speed.py --parts                    # environment steps, acting and updating alone
    python benchmarks/rl_speed.py --table                    # what is in the results, as Markdown

PYTHON is that of a virtual environment with the peers in it, DIR a checkout of one that is no package; nothing of
theirs is changed. Each measurement is a process of its own on `--threads` cores (benchmarks/peers/): it imports, does a
few updates untimed, then trains once, learning and logging included. What JAX compiles is timed apart. Rounds go
through all libraries in turn; what is printed are medians, and ratios to ours of the same round. The floors are
bare steps of the environment, and the networks' products at the rate that a large product reaches.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.common import DQN, ENV, PPO, SETTINGS, Setting
from volition.machine import provenance

ROOT = Path(__file__).resolve().parent.parent
OURS = "Volition"
LIBRARIES = {  # driver, and what the library has
    OURS: ("ours", ("ppo", "atari", "a2c", "dqn")),
    f"{OURS}, SyncVectorEnv": ("ours_sync", ("ppo", "a2c")),
    f"{OURS}, bfloat16": ("ours_low", ("atari",)),
    "Stable-Baselines3": ("sb3", ("ppo", "atari", "a2c", "dqn")),
    "CleanRL": ("cleanrl", ("ppo", "dqn")),
    "Tianshou": ("tianshou", ("ppo", "a2c", "dqn")),
    "TorchRL": ("torchrl", ("ppo", "a2c", "dqn")),
    "SBX": ("sbx", ("ppo", "dqn")),
    "PureJaxRL": ("purejaxrl", ("ppo", "dqn")),
}
SOLVE = {"ppo-B": 0, "ppo-D": 0, "a2c": 500_000}  # settings that get there, and steps where their own are too few


def python(arguments: argparse.Namespace, *words: str, own: bool) -> dict[str, Any] | None:
    """Run `python -m benchmarks.peers.…` on its cores; the line that it prints."""
    cores = sorted(os.sched_getaffinity(0))[-arguments.threads :] if hasattr(os, "sched_getaffinity") else []
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    variables = os.environ | {name: str(arguments.threads) for name in names}
    variables |= {"PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable if own else str(arguments.peers), "-m", f"benchmarks.peers.{words[0]}", *words[1:]],
        cwd=ROOT, env=variables, capture_output=True, text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{' '.join(words)} failed: {reason}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(arguments: argparse.Namespace, name: str, setting: str, seed: int) -> dict[str, Any] | None:
    """Train once with one library."""
    words = [LIBRARIES[name][0], setting, "--seed", str(seed)]
    steps = arguments.steps or (SOLVE[setting] if arguments.solve else 0)
    if steps:
        words += ["--steps", str(steps)]
    if arguments.solve:
        words.append("--solve")
    folder = {"CleanRL": arguments.cleanrl, "PureJaxRL": arguments.purejaxrl}.get(name)
    if folder:
        words += ["--folder", str(folder.resolve())]
    line = python(arguments, *words, own=name.startswith(OURS))
    kind = {"benchmark": "rl_speed", "kind": "solve" if arguments.solve else "rate"}
    return line and kind | line | {"threads": arguments.threads} | provenance()


def available(arguments: argparse.Namespace, setting: str) -> list[str]:
    """The libraries that can be asked."""
    given = {"CleanRL": arguments.cleanrl, "PureJaxRL": arguments.purejaxrl}
    algorithm = setting.partition("-")[0]
    return [
        name
        for name, (_, has) in LIBRARIES.items()
        if algorithm in has
        and (name.startswith(OURS) or arguments.peers)
        and given.get(name, True)
        and (not arguments.names or name in arguments.names)
    ]


def keep(out: Path, line: dict[str, Any]) -> None:
    """Append a line to the results."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a") as file:
        file.write(json.dumps(line) + "\n")


def forward_and_backward(*sizes: int) -> tuple[int, int]:
    """Floating-point operations of an MLP on one row; backward every weight, and every input but the first layer's."""
    layers = [2 * a * b for a, b in itertools.pairwise(sizes)]
    return sum(layers), 2 * sum(layers) - layers[0]


def operations(setting: Setting) -> float:
    """Floating-point operations of all products per environment step: acting, values, learning."""
    if isinstance(setting, DQN):
        forward, backward = forward_and_backward(4, 120, 84, 2)
        greedy = 1 - (0.5 * (1 + 0.05) / 2 + 0.5 * 0.05)  # ε's mean
        learning = (1 - setting.learning_starts / setting.total) * setting.batch / setting.train_every
        return greedy * forward + learning * (2 * forward + backward)
    epochs = setting.epochs if isinstance(setting, PPO) else 1
    if isinstance(setting, PPO) and setting.env != ENV:
        first = 2 * 20 * 20 * 32 * 8 * 8 * 4  # nobody needs the gradient of its input
        rest = 2 * (9 * 9 * 64 * 4 * 4 * 32 + 7 * 7 * 64 * 3 * 3 * 64 + 3_136 * 512 + 512 * 5)
        return (1 + epochs) * (first + rest) + epochs * (first + 2 * rest)
    nets = [forward_and_backward(4, 64, 64, out) for out in (2, 1)]
    return sum(forward + epochs * (forward + backward) for forward, backward in nets)


def floors(setting: Setting, parts: dict[str, Any]) -> dict[str, float]:
    """Environment steps per CPU-second if there were nothing but the environment, nothing but products, or both."""
    products = parts["product_flops_per_cpu_second"] / operations(setting)
    if isinstance(setting, PPO) and setting.env != ENV:
        steps = parts["game_steps_per_cpu_second"]
        low = parts["bfloat16_product_flops_per_cpu_second"] / operations(setting)
        bounds = {"environment": steps, "products": products, "products in bfloat16": low}
        return bounds | {"environment and bfloat16": 1 / (1 / steps + 1 / low)}
    steps = max(v for k, v in parts["steps_per_cpu_second"].items() if k.endswith(f", {setting.num_envs}"))
    return {"environment": steps, "products": products, "both": 1 / (1 / steps + 1 / products)}


def rates(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Lines by library, in its order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["name"], []).append(line)
    return {name: found[name] for name in LIBRARIES if name in found}


def per_cpu_second(line: dict[str, Any], compiling: bool = False) -> float:
    return line["steps"] / (line["cpu_seconds"] + (line["compile_seconds"] if compiling else 0))


def rate_row(mine: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    """Medians of one library: steps per CPU-second, with compiling, per wall second, ratio to ours, final return."""
    median = statistics.median
    seeds = {line["seed"]: per_cpu_second(line) for line in ours}
    ratios = [per_cpu_second(line) / seeds[line["seed"]] for line in mine if line["seed"] in seeds]
    returns = [line["final_return"] for line in mine if line["final_return"] is not None]
    compiled = any(line["compile_seconds"] for line in mine)
    return [
        f"{median(per_cpu_second(line) for line in mine):,.0f}",
        f"{median(per_cpu_second(line, True) for line in mine):,.0f}" if compiled else "",
        f"{median(line['steps'] / line['wall_seconds'] for line in mine):,.0f}",
        f"{median(ratios):.2f}" if ratios else "",
        f"{median(returns):.0f}" if returns else "",
    ]


def solve_row(mine: list[dict[str, Any]]) -> list[str]:
    """CPU-seconds to 475 of each seed, then with compiling, then the steps."""
    mine = sorted(mine, key=lambda line: line["seed"])
    reached = [line for line in mine if line["solved_cpu_seconds"] is not None]
    compiled = any(line["compile_seconds"] for line in mine)

    def each(value: Any) -> str:
        return " · ".join("never" if line["solved_steps"] is None else value(line) for line in mine)

    return [
        each(lambda line: f"{line['solved_cpu_seconds']:.1f}"),
        each(lambda line: f"{line['solved_cpu_seconds'] + line['compile_seconds']:.1f}") if compiled else "",
        f"{statistics.median(line['solved_cpu_seconds'] for line in reached):.1f}" if reached else "",
        each(lambda line: f"{line['solved_steps'] / 1000:.0f} k"),
    ]


HEADS = {
    "rate": ["steps per CPU-second", "with compiling", "per wall second", "ratio to ours", "return"],
    "solve": ["CPU-seconds to 475", "with compiling", "median", "steps"],
}


def show(kind: str, setting: str, lines: list[dict[str, Any]], bound: dict[str, float] | None) -> None:
    """A Markdown table of one setting."""
    by_name = rates(lines)
    runs, threads = max(len(found) for found in by_name.values()), lines[0]["threads"]
    print(f"\n**{setting}**, {threads} thread{'s' if threads > 1 else ''}, {runs} runs\n")
    heads = ["", *HEADS[kind]]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, mine in by_name.items():
        row = rate_row(mine, by_name.get(OURS, [])) if kind == "rate" else solve_row(mine)
        print(f"| {name} | {' | '.join(row)} |")
    if bound and kind == "rate":
        for name, value in bound.items():
            print(f"| *floor: {name}* | {value:,.0f} |{' |' * (len(heads) - 2)}")


def show_parts(line: dict[str, Any]) -> None:
    """A Markdown table of acting and updating alone: as everyone writes it, and ours."""
    print("\n**parts**, 1 thread\n\n| CPU-microseconds | plain PyTorch | Volition |\n|---|---|---|")
    for kind, what in (("act", "acting in {} environments"), ("update", "learning from a minibatch of {}")):
        values = line[f"{kind}_microseconds"]
        for name, value in values.items():
            if name.startswith(OURS):
                size = name.removeprefix(f"{OURS}, ")
                print(f"| {what.format(size)} | {values[f'eager, {size.split()[0]}']:,.0f} | {value:,.0f} |")
    for name, value in line["rest_microseconds_per_step"].items():
        print(f"| all but learning, a step ({name}) | | {value:,.1f} |")


def tables(out: Path) -> None:
    """The tables of all that the results hold of the newest commit of each setting."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    parts = [line for line in lines if line["kind"] == "parts"]
    for line in [line for line in parts if "act_microseconds" in line][-1:]:
        show_parts(line)
    for kind in HEADS:
        for setting in SETTINGS:
            for threads in (1, 2):
                algorithm, _, letter = setting.partition("-")
                key = (kind, algorithm, letter, threads)
                mine = [
                    line for line in lines
                    if (line["kind"], line.get("algorithm"), line.get("setting"), line["threads"]) == key
                ]  # fmt: skip
                mine = [line for line in mine if line["commit"] == mine[-1]["commit"]]
                if mine:
                    show(kind, setting, mine, floors(SETTINGS[setting], parts[-1]) if parts else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="python of the virtual environment that has the peers")
    parser.add_argument("--cleanrl", type=Path, help="checkout of vwxyzjn/cleanrl")
    parser.add_argument("--purejaxrl", type=Path, help="checkout of luchris429/purejaxrl")
    parser.add_argument("--only", nargs="+", default=[], help=f"settings or algorithms of {', '.join(SETTINGS)}")
    parser.add_argument("--names", nargs="+", default=[], choices=LIBRARIES, help="libraries")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, one seed each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="environment steps; 0 for each setting's own")
    parser.add_argument("--solve", action="store_true", help="stop at a mean return of 475")
    parser.add_argument("--parts", action="store_true", help="the parts and the floors alone")
    parser.add_argument("--table", action="store_true", help="print what is in the results and measure nothing")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/rl_speed.jsonl"))
    arguments = parser.parse_args()
    if arguments.table:
        tables(arguments.out)
        return
    bound = python(arguments, "parts", *([] if arguments.parts else ["--floors"]), own=True)
    if bound:
        keep(arguments.out, {"benchmark": "rl_speed", "kind": "parts", "threads": 1} | bound | provenance())
    if arguments.parts:
        for name, values in (bound or {}).items():
            for part, value in values.items() if isinstance(values, dict) else [("", values)]:
                print(f"{name:32s} {part:24s} {value:16,.1f}")
        return
    chosen = [
        name for name in (SOLVE if arguments.solve else SETTINGS)
        if not arguments.only or name in arguments.only or name.partition("-")[0] in arguments.only
    ]  # fmt: skip
    for setting in chosen:
        lines: list[dict[str, Any]] = []
        for seed in range(arguments.rounds):
            for name in available(arguments, setting):
                line = measure(arguments, name, setting, seed)
                if line:
                    lines.append(line)
                    keep(arguments.out, line)
        if lines:
            show(lines[0]["kind"], setting, lines, bound and floors(SETTINGS[setting], bound))


if __name__ == "__main__":
    main()
