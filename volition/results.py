"""results.jsonl: one line per evaluation, with all that places and repeats it."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volition.errors import VolitionError
from volition.machine import provenance
from volition.settings import differences, plain_config

if TYPE_CHECKING:
    from volition.run import Run


def result_line(run: "Run", metrics: dict[str, Any], variant_config: Any = None) -> dict[str, Any]:
    """The line of `metrics`; `changed` holds settings that differ from the variant's, where it is given."""
    changed = None
    if variant_config is not None:
        found = differences(plain_config(variant_config), run.settings["config"])
        changed = {name: now for name, (_, now) in found.items()}
    cpu, wall = run.spent
    return {
        "recipe": run.recipe,
        "variant": run.variant,
        "changed": changed,
        "seed": run.seed,
        "data": run.dataset,
        "trained_on": run.trained_on or run.dataset,
        "updates": run.step,
        "finished": run.finished,
        "metrics": {name: _number(name, value) for name, value in metrics.items()},
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "training": run.trained_by,
        "command": run.command,
        **provenance(),
    }


def append_result(folder: Path, line: dict[str, Any]) -> None:
    """Add one line to results.jsonl."""
    try:
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise VolitionError(f"cannot write {folder / 'results.jsonl'} ({error.strerror}): mend the folder") from None


def _number(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_number(name, v) for v in value]
    value = float(value)
    if not math.isfinite(value):
        raise VolitionError(f"the evaluation gave {name} = {value}: train longer, or with another seed")
    return value
