"""Search over ranges of settings for `volition sweep --search`: Optuna proposes, trials.jsonl remembers."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volition.errors import VolitionError

RANGE = re.compile(r"(?P<low>[-+.\de]+?)\.\.(?P<high>[-+.\de]+?)(?P<log>:log)?", re.IGNORECASE)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, whole ones where `whole`; in equal ratios instead of steps where `log`."""

    low: float
    high: float
    log: bool
    whole: bool


def read_range(name: str, text: str, whole: bool) -> Range | None:
    """The range that "low..high" or "low..high:log" writes; None where it writes none."""
    if not (found := RANGE.fullmatch(text)):
        return None
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        return None
    log = found["log"] is not None
    if not (math.isfinite(high) and low < high and (low > 0 or not log)):
        raise VolitionError(f"--{name} {text} is no range: write low..high, with low above 0 for :log")
    if whole and not (low.is_integer() and high.is_integer()):
        raise VolitionError(f"--{name} {text}: {name} is a whole number, so both ends must be")
    return Range(low, high, log, whole)


class Search:
    """`count` trials in a space of ranges and choices; what an earlier call has measured counts.

    `about` says what else must be alike for that.
    """

    def __init__(self, out: Path, space: dict[str, Range | list[str]], count: int, better: str, about: Any) -> None:
        try:
            import optuna
        except ImportError:
            raise VolitionError("--search needs its package: pip install 'volition[sweep]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.path, self.count = out / "trials.jsonl", count
        self.distributions: dict[str, Any] = {}
        for name, values in space.items():
            if isinstance(values, list):
                self.distributions[name] = optuna.distributions.CategoricalDistribution(values)
            elif values.whole:
                low, high = int(values.low), int(values.high)
                self.distributions[name] = optuna.distributions.IntDistribution(low, high, log=values.log)
            else:
                self.distributions[name] = optuna.distributions.FloatDistribution(
                    values.low, values.high, log=values.log
                )
        self.begun: list[tuple[Any, dict[str, Any]]] = []  # trials without a value, and their settings
        self.again: list[dict[str, Any]] = []  # those of an earlier call
        self.asked = 0
        head = {"space": {name: str(d) for name, d in self.distributions.items()}, "about": about}
        first, *rows = self._read() or [head]
        if first != head:
            raise VolitionError(f"{self.path} is of another search: give the same settings, or another --out")
        if not self.path.exists():
            self._write(first)
        # another seed, or a search that goes on would propose its first settings again
        sampler = optuna.samplers.TPESampler(seed=len(rows))
        self.study = optuna.create_study(direction="minimize" if better == "lower" else "maximize", sampler=sampler)
        self.create = optuna.trial.create_trial
        self.failed, self.complete = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE
        told = [row for row in rows if "value" in row]
        for row in told:
            self._add(row["settings"], row["value"])
        self.known = [_plain(row["settings"]) for row in told if row["value"] is not None]  # measured by earlier calls
        self.asked = len(told)
        self.again = [row["settings"] for row in rows if "value" not in row and not _among(row["settings"], told)]

    def ask(self) -> dict[str, str] | None:
        """Settings of the next trial; None when all have begun."""
        if self.asked >= self.count:
            return None
        self.asked += 1
        if self.again:
            settings = self.again.pop(0)
            self.begun.append((None, settings))
        else:
            trial = self.study.ask(self.distributions)
            settings = {name: _short(value, self.distributions[name]) for name, value in trial.params.items()}
            self.begun.append((trial, settings))
            self._write({"settings": settings})
        return _plain(settings)

    def tell(self, settings: dict[str, str], value: float | None) -> None:
        """The mean score that `settings` gave; None when they failed."""
        for trial, mine in list(self.begun):
            if _plain(mine) == settings:
                self.begun.remove((trial, mine))
                if trial is None:
                    self._add(mine, value)
                else:
                    self.study.tell(trial, value, state=self.failed if value is None else None)
                self._write({"settings": mine, "value": value})

    def _add(self, settings: dict[str, Any], value: float | None) -> None:
        state = self.failed if value is None else self.complete
        self.study.add_trial(self.create(params=settings, distributions=self.distributions, value=value, state=state))

    def _read(self) -> list[dict[str, Any]]:
        try:
            rows = [json.loads(row) for row in self.path.read_text(encoding="utf-8").splitlines()]
            if not all(isinstance(row, dict) and ("space" in row or "settings" in row) for row in rows):
                raise ValueError("not of a search")
            return rows
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise VolitionError(f"cannot read {self.path} ({error}): mend it, or give another --out") from None

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise VolitionError(f"cannot write {self.path} ({error.strerror}): mend it") from None


def _plain(settings: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}


def _among(settings: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    return any(row["settings"] == settings for row in rows)


def _short(value: Any, distribution: Any) -> Any:
    """A number with four digits, which are enough for a setting and make a folder's name readable."""
    if not isinstance(value, float):
        return value
    return min(max(float(f"{value:.4g}"), distribution.low), distribution.high)
