"""Demonstrations from every form that people have, and what is said when a row is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from volition.data import demonstrations
from volition.data.demonstrations import Demonstration
from volition.errors import VolitionError


def read(tmp_path: Path, *rows: Any) -> list[Demonstration]:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return demonstrations.read(path)


TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]
TALK = Demonstration("\n\nHuman: why?\n\nAssistant:", " so")


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "why?", "completion": "so", "kind": "qa"}, Demonstration("why?", "so", "qa")),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, TALK),
        ({"messages": TURNS}, TALK),
        (
            {"messages": [{"role": "system", "content": "be brief"}, *TURNS]},
            Demonstration(f"be brief{TALK.prompt}", " so"),
        ),
        ({"chosen": "\n\nHuman: why?\n\nAssistant: so", "rejected": "…"}, TALK),
        ({"instruction": "say", "input": "", "output": "so"}, Demonstration("say\n\n", "so")),
        ({"instruction": "say", "input": "it", "output": "so"}, Demonstration("say\n\nit\n\n", "so")),
        (
            {"instruction": "say", "context": "it", "response": "so", "category": "closed_qa"},
            Demonstration("say\n\nit\n\n", "so", "closed_qa"),
        ),
        ({"question": "1 + 1?", "answer": "2\n#### 2"}, Demonstration("1 + 1?\n", "2\n#### 2")),
    ],
)
def test_forms(tmp_path: Path, row: dict[str, Any], wanted: Demonstration) -> None:
    assert read(tmp_path, row, row) == [wanted, wanted]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "is no JSON"),
        ({"prompt": "p"}, "no demonstration is known with the fields prompt"),
        ({"prompt": "p", "completion": ""}, "'completion' is empty"),
        ({"prompt": "p", "completion": 3}, "'completion' is 3"),
        ({"prompt": "p", "completion": "c", "kind": 3}, "'kind' is 3"),
        ({"messages": TURNS[:1]}, "'messages' must end"),
        ({"messages": [TURNS[0], {"role": "assistant"}]}, "a turn in 'messages' lacks role or content"),
        ({"question": None, "answer": "2"}, "'question' is missing"),
        ({"chosen": "hello"}, "'chosen' has no turn"),
    ],
)
def test_mistakes_say_where(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(VolitionError, match=f"a.jsonl, line 2: {message}|line 2 {message}"):
        read(tmp_path, {"prompt": "p", "completion": "c"}, row)


def test_prompts_of_any_form(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    each: list[Any] = [{"prompt": "why?"}, {"prompt": "why?", "completion": "so"}, {"prompt": TURNS[:1]}]
    each += [{"question": "1 + 1?", "answer": "2"}]
    path.write_text("\n".join(map(json.dumps, each)))
    assert demonstrations.prompts(path) == ["why?", TALK.prompt, "1 + 1?\n"]
