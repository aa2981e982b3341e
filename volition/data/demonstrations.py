"""Demonstrations: prompts with a completion that a person wrote."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from volition.errors import VolitionError


@dataclass(frozen=True)
class Demonstration:
    """A prompt, what was answered, and the use case where it is known."""

    prompt: str
    completion: str
    kind: str = ""


def read(path: str | Path) -> list[Demonstration]:
    """Lines of JSON with prompt and completion, perhaps kind; .gz too."""
    opened = gzip.open if str(path).endswith(".gz") else open
    found = []
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                found.append(_row(line, f"line {number} of {path}"))
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise VolitionError(f"{path} cannot be read ({error}): give a file of JSON lines in UTF-8") from None
    if not found:
        raise VolitionError(f"{path} holds no demonstration")
    return found


def _row(line: str, where: str) -> Demonstration:
    try:
        row = json.loads(line)
    except ValueError:
        raise VolitionError(f"{where} is not JSON: mend or remove it") from None
    for name in ("prompt", "completion"):
        if not isinstance(row, dict) or not isinstance(row.get(name), str) or not row[name]:
            raise VolitionError(f"{where} lacks {name!r}, a text that is not empty")
    return Demonstration(row["prompt"], row["completion"], str(row.get("kind", "")))
