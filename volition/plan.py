"""What the words of `volition sweep` ask for: settings, seeds and folders of every run."""

import dataclasses
import hashlib
import itertools
import os
import re
from pathlib import Path
from typing import Any

from volition import zoo
from volition.children import Child
from volition.errors import VolitionError
from volition.looking import add_flags, own_parameters
from volition.terminal import Parser

OWN = ("seeds", "jobs", "out", "search")
PASSED = ("device", "data", "threads", "save-every", "log-every")  # to volition train
NAMED_ELSEWHERE = {"run": "--out names the folder of all runs", "seed": "--seeds gives the seeds"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of settings, with a child for each seed."""

    values: dict[str, str]  # as they were given, without those that are alike everywhere
    label: str
    children: list[Child]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The results of its runs so far."""
        return [line for child in self.children if (line := child.result)]


class Plan:
    """What the words of the command ask for."""

    def __init__(self, recipe: zoo.Recipe, variant: str, words: list[str]) -> None:
        self.recipe, self.variant, self.module = recipe, variant, recipe.load()
        self.evaluation = list(own_parameters(self.module.evaluate))
        self.fields = flags_of(self.module.VARIANTS[variant])
        given = read_flags(words)
        self._check_names(given)
        self.seeds = read_seeds(_one(given, "seeds", "5"))
        self.jobs = _whole(given, "jobs", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        self.trials = _whole(given, "search", 0)
        self.out = Path(_one(given, "out", f"runs/{recipe.name}-{variant}-sweep"))
        self.passed = [w for name in PASSED if name in given for w in (f"--{name}", _one(given, name, ""))]
        flags = [name.replace("_", "-") for name in self.evaluation]
        self.measuring = [w for name in flags if name in given for w in (f"--{name}", *given[name])]
        add_flags(checker := Parser("sweep", "", ""), [self.module.evaluate])
        checker.parse_args(self.measuring)
        self.measuring += [w for name in ("device", "threads") if name in given for w in (f"--{name}", *given[name])]
        self.settings: dict[str, Any] = {}
        for name, values in given.items():
            if name not in {*OWN, *PASSED, *flags}:
                field = self._field(name)
                self.settings[field] = self._values(field, ["false"] if field != name else values)

    @property
    def name(self) -> str:
        """Recipe and variant, as the command line writes them."""
        return f"{self.recipe.name}:{self.variant}"

    @property
    def paper(self) -> dict[str, Any]:
        """What the recipe says of its figures."""
        return getattr(self.module, "PAPER", None) or {}

    @property
    def space(self) -> dict[str, Any]:
        """The settings that vary: their ranges or their values."""
        return {name: values for name, values in self.settings.items() if not isinstance(values, list) or values[1:]}

    def point(self, values: dict[str, str]) -> Point:
        """The combination of `values` and the settings that are alike everywhere."""
        from volition.options import parse
        from volition.settings import plain_config

        every = {name: values[name] if name in values else given[0] for name, given in self.settings.items()}
        words = [w for name, text in every.items() for w in self._words(name, text)]
        config, _ = parse(self.module, self.recipe.name, self.variant, [*words, *self.passed], "sweep")
        written = {name: text_of(getattr(config, name.replace("-", "_"), text)) for name, text in every.items()}
        label = ", ".join(f"{name}={written[name]}" for name in values)
        stem = folder_name(written) or self.variant
        bounds = {"update": getattr(config, "updates", 0), "steps": getattr(config, "steps", 0)}
        total = {name: bound for name, bound in bounds.items() if isinstance(bound, int) and bound > 0}
        children = []
        for seed in self.seeds:
            folder = self.out / f"{stem}-{seed}"
            self._check_folder(folder, plain_config(config))
            train = [self.name, *words, *self.passed, "--seed", str(seed), "--run", str(folder), "--quiet"]
            children.append(Child(label, folder, seed, total, train, [str(folder), *self.measuring]))
        return Point(values, label, children)

    def grid(self) -> list[Point]:
        """Every combination of the values."""
        for name, values in self.settings.items():
            if not isinstance(values, list):
                raise VolitionError(f"--{name} is a range: ranges are for --search N")
        varied = {name: values for name, values in self.settings.items() if values[1:]}
        points = [self.point(dict(zip(varied, row, strict=True))) for row in itertools.product(*varied.values())]
        return list({point.label: point for point in reversed(points)}.values())[::-1]  # 0.01 and 1e-2 are one

    def _check_names(self, given: dict[str, list[str]]) -> None:
        known = [*OWN, *PASSED, *self.fields, *(name.replace("_", "-") for name in self.evaluation)]
        for name in given:
            if name in NAMED_ELSEWHERE and name not in self.fields:
                raise VolitionError(f"volition sweep has no flag --{name}: {NAMED_ELSEWHERE[name]}")
            if self._field(name) not in known:
                proposal = zoo.nearest(f"--{name}", [f"--{k}" for k in known], f"try volition sweep {self.name} --help")
                raise VolitionError(f"volition sweep {self.name} has no flag --{name}; {proposal}")

    def _field(self, name: str) -> str:
        """The setting of a flag: --no-anneal is anneal's."""
        bare = name.removeprefix("no-")
        return bare if isinstance(self.fields.get(bare), bool) else name

    def _values(self, name: str, words: list[str]) -> Any:
        """The values of a setting, or the range it lies in."""
        from volition.search import read_range

        kind = type(self.fields.get(name))
        text = " ".join(words)
        if kind in (int, float) and (found := read_range(name, text, kind is int)):
            return found
        values = [value.strip() for value in text.split(",")]
        if kind is bool:
            values = [value.lower() for value in values] if text else ["true"]
            if odd := [value for value in values if value not in ("true", "false")]:
                raise VolitionError(f"--{name} {odd[0]}: write true, false or both as true,false")
        elif not text:
            raise VolitionError(f"--{name} needs a value, or several as in --{name} A,B,C")
        return list(dict.fromkeys(values))

    def _words(self, name: str, text: str) -> list[str]:
        if isinstance(self.fields.get(name), bool):
            return [f"--{name}" if text == "true" else f"--no-{name}"]
        return [f"--{name}", *text.split()]

    def _check_folder(self, folder: Path, config: dict[str, Any]) -> None:
        from volition.folder import read_config
        from volition.settings import differences

        if not (folder / "config.json").exists():
            return
        saved = read_config(folder)
        found = differences(saved["config"], config) if saved["recipe"] == self.recipe.name else {
            "recipe": (saved["recipe"], self.recipe.name)}  # fmt: skip
        if found:
            what = ", ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in found.items())
            raise VolitionError(f"{folder} holds a run with other settings ({what}): give another --out")


def read_flags(words: list[str]) -> dict[str, list[str]]:
    """Each flag with the words after it: --lr 1,2, --lr=1,2 and lr=1,2 are the same."""
    found: dict[str, list[str]] = {}
    mine: list[str] | None = None
    for word in words:
        bare = re.match(r"[A-Za-z][\w-]*=", word)
        if word.startswith("--") or (bare and mine is None) or (bare and mine):
            name, equals, value = word.removeprefix("--").partition("=")
            name = name.replace("_", "-")
            if name in found:
                raise VolitionError(f"--{name} is given twice: write --{name} A,B,C")
            mine = found[name] = [value] if equals else []
        elif mine is None:
            raise VolitionError(f"{word!r} belongs to no flag: write --setting {word}")
        else:
            mine.append(word)
    return found


def read_seeds(text: str) -> list[int]:
    """Seeds 0 … N−1 for "N", or those of a list."""
    words = [word.strip() for word in text.removesuffix(",").split(",")]
    if not all(word.isdecimal() for word in words) or text == "0":
        raise VolitionError(f"--seeds is {text!r}: write how many, as in 5, or which, as in 0,3,7")
    return list(dict.fromkeys(map(int, words))) if "," in text else list(range(int(text)))


def folder_name(values: dict[str, str]) -> str:
    """A name that tells combinations apart, for a folder."""
    text = ",".join(f"{name}={value}" for name, value in values.items())
    name = re.sub(r"[^\w.=,+-]+", "_", text)
    return name if name == text and len(name) <= 100 else f"{name[:90]}-{hashlib.md5(text.encode()).hexdigest()[:8]}"


def _one(given: dict[str, list[str]], name: str, otherwise: str) -> str:
    if name not in given:
        return otherwise
    if len(given[name]) != 1 or not given[name][0]:
        raise VolitionError(f"--{name} takes one value, not {' '.join(given[name]) or 'none'}")
    return given[name][0]


def _whole(given: dict[str, list[str]], name: str, otherwise: int) -> int:
    text = _one(given, name, str(otherwise))
    if name in given and (not text.isdecimal() or int(text) < 1):
        raise VolitionError(f"--{name} is {text!r}: a whole number above 0 is needed")
    return int(text)


def flags_of(config: Any) -> dict[str, Any]:
    """Names of settings as flags, and their values; those of nested settings too."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= flags_of(value) if dataclasses.is_dataclass(value) else {field.name.replace("_", "-"): value}
    return found


def text_of(value: Any) -> str:
    """A value as labels and folders write it."""
    if isinstance(value, tuple | list):
        return "x".join(map(text_of, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
