"""Rows of JSON as people keep them: one a line or one long list, gzipped or not; every complaint says which row."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volition.errors import VolitionError

Row = dict[str, Any]
SPEAKERS = {"user": "Human", "human": "Human", "assistant": "Assistant", "gpt": "Assistant"}


def read(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Each row with the words that say where it is; blank lines are passed over, a file without rows is refused."""
    opened = gzip.open if str(path).endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise VolitionError(f"{path} cannot be read ({error}): give a file of JSON lines in UTF-8") from None
    if text.lstrip().startswith("["):
        found = [(f"{path}, row {i}", row) for i, row in enumerate(_parse(text, str(path)), 1)]
    else:
        # not splitlines: JSON may hold U+2028 as it is
        lines = enumerate(text.split("\n"), 1)
        found = [(f"{path}, line {i}", _parse(line, f"{path}, line {i}")) for i, line in lines if line.strip()]
    if not found:
        raise VolitionError(f"{path} holds no rows: give a file of JSON lines")
    for where, row in found:
        if not isinstance(row, dict):
            raise VolitionError(f"{where}: a row is an object with named fields, not {json.dumps(row)[:40]}")
        yield where, row


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise VolitionError(f"{where} is no JSON ({error}): mend or remove it") from None


def text(value: Any, where: str, field: str, empty: bool = False) -> str:
    """The text of a field; turns [{role, content}, …] become one text with the speakers' names, as in HH."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        value = transcript(value, where, field)
    if not isinstance(value, str):
        what = "is missing" if value is None else f"is {json.dumps(value)[:40]}"
        raise VolitionError(f"{where}: {field!r} {what}; it must be a text, or a list of turns with role and content")
    if not value.strip() and not empty:
        raise VolitionError(f"{where}: {field!r} is empty: write something there or remove the row")
    return value


def listed(value: Any, where: str, field: str) -> list[Any]:
    """The list in a field."""
    if not isinstance(value, list):
        what = "is missing" if value is None else f"is {json.dumps(value)[:40]}"
        raise VolitionError(f"{where}: {field!r} {what}; it must be a list")
    return value


def transcript(turns: list[Row], where: str, field: str) -> str:
    """Turns as one text; of one turn of the assistant alone what follows its cue."""
    said = []
    for turn in turns:
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise VolitionError(f"{where}: a turn in {field!r} lacks role or content, both texts")
        said.append((SPEAKERS.get(role.lower(), ""), content))
    if len(said) == 1 and said[0][0] == "Assistant":
        return f" {said[0][1]}"
    return "".join(f"\n\n{name}: {content}" if name else content for name, content in said)


def cue(prompt: Any, text: str) -> str:
    """The prompt's text, ending in the cue to answer if it was given as turns."""
    return f"{text}\n\nAssistant:" if isinstance(prompt, list) and text else text


def last_answer(text: str) -> tuple[str, str]:
    """A transcript parted after its last "\\n\\nAssistant:"; the first part is empty where there is none."""
    before, mark, after = text.rpartition("\n\nAssistant:")
    return before + mark, after
