"""Finds recipes by reading their source, without importing them, and sets the paper's figures beside ours."""

import ast
import difflib
import importlib
import importlib.util
import json
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from volition.errors import VolitionError

CHAPTERS = ("algorithms", "applications", "feedback", "generative")
OWN = "VOLITION_RECIPES"  # a folder with recipes of the user's own


@dataclass(frozen=True)
class Recipe:
    """What a recipe's source says about it; `load` imports it."""

    name: str
    path: Path
    chapter: str
    summary: str
    variants: tuple[str, ...]
    paper: dict[str, Any] | None

    @property
    def module(self) -> str:
        """The name that it is imported under."""
        return f"volition.{self.chapter}.{self.name}" if self.chapter in CHAPTERS else f"own_recipes.{self.name}"

    def load(self) -> ModuleType:
        """The recipe's module: Config, VARIANTS, train, evaluate, watch."""
        if self.chapter in CHAPTERS:
            return importlib.import_module(self.module)
        if self.module not in sys.modules:
            spec = importlib.util.spec_from_file_location(self.module, self.path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            sys.modules[self.module] = module  # dataclasses look their own module up
            spec.loader.exec_module(module)
        return sys.modules[self.module]


def recipes(own: str | Path | None = None) -> list[Recipe]:
    """All recipes by chapter and name: Volition's, and those in the folder `own` or $VOLITION_RECIPES."""
    root = Path(__file__).parent
    folders = [(chapter, root / chapter) for chapter in CHAPTERS]
    if own := own or os.environ.get(OWN):
        if not Path(own).is_dir():
            raise VolitionError(f"${OWN} is {own}, which is not a folder")
        folders.append(("own", Path(own)))
    found = []
    for chapter, folder in folders:
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_") and (recipe := _read(path, chapter)):
                found.append(recipe)
    return found


def _read(path: Path, chapter: str) -> Recipe | None:
    try:
        source = path.read_text(encoding="utf-8")
        if "VARIANTS" not in source:
            return None
        tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError) as error:  # one bad file must not hide the others
        print(f"volition: {path} is passed over: {' '.join(str(error).split())}", file=sys.stderr)
        return None
    values: dict[str, ast.expr | None] = {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign):
                values[target.id] = node.value
    variants = values.get("VARIANTS")
    if not isinstance(variants, ast.Dict):
        return None
    names = tuple(key.value for key in variants.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
    paper = None
    if (literal := values.get("PAPER")) is not None:
        try:
            paper = ast.literal_eval(literal)
        except ValueError:
            print(
                f"volition: PAPER of {path} is not a literal, so its table has no paper column",
                file=sys.stderr,
            )
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Recipe(path.stem, path, chapter, summary, names, paper)


def resolve(text: str, own: str | Path | None = None) -> tuple[Recipe, str]:
    """The recipe and variant that "ram:laptop" names; laptop, else the first, when none is named."""
    name, colon, variant = text.partition(":")
    name = name.replace("-", "_")
    known = {recipe.name: recipe for recipe in recipes(own)}
    if name not in known:
        raise VolitionError(f"no recipe {name!r}; {nearest(name, known, 'volition list shows them all')}")
    recipe = known[name]
    if not colon:
        variant = "laptop" if "laptop" in recipe.variants else recipe.variants[0]
    if variant not in recipe.variants:
        there = f"{name} has {', '.join(recipe.variants)}"
        raise VolitionError(f"no variant {variant!r} of {name}; {nearest(variant, recipe.variants, there)}")
    return recipe, variant


def nearest(word: str, words: Any, otherwise: str) -> str:
    """ "did you mean 'ram'?", or `otherwise` when nothing is near."""
    near = difflib.get_close_matches(word, list(words), n=2, cutoff=0.5)
    return f"did you mean {' or '.join(repr(w) for w in near)}?" if near else otherwise


def results(*folders: Path) -> list[dict[str, Any]]:
    """The result lines below `folders`, or in results/ and runs/ of the working folder, oldest first."""
    files: set[Path] = set()
    for folder in folders or (Path("results"), Path("runs")):
        files |= {folder} if folder.is_file() else {*folder.glob("*.jsonl"), *folder.glob("*/results.jsonl")}
    lines = []
    for file in sorted(file for file in files if file.name not in OTHERS):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise VolitionError(f"cannot read {file} ({error}): mend or remove it") from None
        for number, row in enumerate(text.splitlines(), 1):
            try:
                line = json.loads(row)
                if not all(isinstance(line[name], kind) for name, kind in NEEDED.items()):
                    raise ValueError
                for value in line["metrics"].values():
                    math.fsum(value if isinstance(value, list) else [value])  # numbers only
            except (ValueError, KeyError, TypeError, RecursionError):
                raise VolitionError(f"line {number} of {file} is not a result: mend or remove it") from None
            lines.append(line | {"changed": line["changed"] or {}, "finished": line.get("finished", True)})
    return sorted(lines, key=lambda line: line["time"])


OTHERS = ("metrics.jsonl", "trials.jsonl")  # that hold no results
NEEDED = {
    "recipe": str,
    "variant": str,
    "changed": dict | None,
    "data": str,
    "trained_on": str,
    "seed": int,
    "updates": int,
    "metrics": dict,
    "cpu_seconds": float | int,
    "time": str,
}
COLUMNS = ("recipe:variant", "data", "paper", "ours", "IQM, 95 %", "baselines", "seeds", "updates", "CPU time")
FEW = 3  # seeds below which an interquartile mean says nothing
SAME = ("recipe", "variant", "changed", "data", "trained_on")  # what seeds of one row share


def table(lines: list[dict[str, Any]], only: str | None = None, own: str | Path | None = None) -> list[tuple[str, ...]]:
    """Rows of COLUMNS, one for each recipe, variant, settings and data: mean ± sd and the IQM over the seeds.

    The paper's figure stands only beside the variant as it is, trained and measured on the paper's data.
    """
    known = {recipe.name: recipe for recipe in recipes(own)}
    rows = []
    for seeds in groups(lines):
        first = seeds[0]
        if only is not None and first["recipe"] != only:
            continue
        recipe = known.get(first["recipe"])
        order = list(known).index(recipe.name) if recipe else len(known)
        place = recipe.variants.index(first["variant"]) if recipe and first["variant"] in recipe.variants else -1
        rows.append((order, place, _row(seeds, (recipe.paper if recipe else None) or {})))
    return [row for _, _, row in sorted(rows)]


def groups(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Results that differ in nothing but the seed, one for each seed: of two the later."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        # a run that ended early by itself is as whole as the others; one that still trains is not
        progress = "whole" if line["finished"] else line["updates"]
        same = line | {"changed": seedless(line)}
        key = json.dumps([progress, *(same[name] for name in SAME)], sort_keys=True)
        found.setdefault(key, {})[line["seed"]] = line
    return [list(seeds.values()) for seeds in found.values()]


def seedless(line: dict[str, Any]) -> dict[str, Any]:
    """The changed settings; folders that end in the run's own seed are alike over seeds: runs/sft-laptop-SEED/model."""
    own = re.compile(rf"-{line['seed']}(?=/|$)")
    changed = (line["changed"] or {}).items()
    return {name: own.sub("-SEED", value) if isinstance(value, str) else value for name, value in changed}


def title(line: dict[str, Any]) -> str:
    """Recipe, variant and changed settings of a result."""
    changed = ", ".join(f"{name}={value}" for name, value in seedless(line).items())
    return f"{line['recipe']}:{line['variant']}" + (f" ({changed})" if changed else "")


def _row(seeds: list[dict[str, Any]], paper: dict[str, Any]) -> tuple[str, ...]:
    first, metrics = seeds[0], [line["metrics"] for line in seeds]
    on = first["data"]
    if first["trained_on"] != on:
        on += f" (trained on {first['trained_on']})"
    theirs = None
    if on == paper.get("data") and not first["changed"]:
        theirs = paper.get("rows", {}).get(first["variant"])
    metric, unit = paper.get("metric") or next(iter(metrics[0]), ""), paper.get("unit", "")
    baselines = [name for name in paper.get("baselines", ()) if name in metrics[0]]
    updates = sorted({line["updates"] for line in seeds})
    return (
        title(first),
        on,
        "" if theirs is None else f"{theirs} {unit}".strip(),
        f"{metric.replace('_', ' ')} {spread(scores(seeds, metric))} {unit}".strip(),
        interquartile(scores(seeds, metric)),
        ", ".join(f"{name.replace('_', ' ')} {spread(scores(seeds, name))}" for name in baselines),
        str(len(seeds)),
        "–".join(f"{n:,}" for n in dict.fromkeys((updates[0], updates[-1]))) + ("" if first["finished"] else " so far"),
        duration(sum(line["cpu_seconds"] for line in seeds) / len(seeds)),
    )


def scores(lines: list[dict[str, Any]], name: str) -> list[float]:
    """The metric `name` of each result that has it; a list counts by its mean."""
    found = [line["metrics"][name] for line in lines if line["metrics"].get(name) not in (None, [])]
    return [sum(v) / len(v) if isinstance(v, list) else v for v in found]


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation."""
    if not values:
        return "–"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.4g}"
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.4g} ± {sd:.2g}" if sd < 99.5 else f"{mean:.4g} ± {sd:.0f}"


def interquartile(values: list[float]) -> str:
    """The interquartile mean and its 95 % bootstrap interval; empty below FEW values."""
    if len(values) < FEW:
        return ""
    import numpy as np  # tables without seeds, and volition list, do without

    from volition.core.statistics import bootstrap, iqm

    low, high = bootstrap([values], iqm, np.random.default_rng(0))
    return f"{iqm(values):.4g} [{low:.4g}, {high:.4g}]"


def duration(seconds: float) -> str:
    """Seconds as one reads them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def markdown(rows: list[tuple[str, ...]]) -> str:
    """The table as GitHub's Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
