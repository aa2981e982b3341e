"""Rankings from every form that people have, and what is said when a row is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from volition.data import preferences
from volition.data.preferences import Preference, pairs
from volition.errors import VolitionError


def read(tmp_path: Path, *rows: Any, name: str = "a.jsonl") -> list[Preference]:
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return preferences.read(path)


def test_pairs_leave_ties_out() -> None:
    assert pairs(Preference("p", ("a", "b", "c"), (2, 1, 2))) == [(1, 0), (1, 2)]
    assert pairs(Preference("p", ("a", "b"), (1, 1))) == []
    assert len(pairs(Preference("p", tuple("abcdefghi"), tuple(range(1, 10))))) == 36


@pytest.mark.parametrize("rank", [(1, 2, 3), (3, 1, 2), (1, 1, 2), (1, 1, 3), (2, 1, 2), (1, 1, 1), (1, 2, 2)])
def test_rankings(rank: tuple[int, ...]) -> None:
    assert Preference("p", ("a", "b", "c"), rank).rank == rank


@pytest.mark.parametrize("rank", [(1, 2), (1, 2, 3, 4), (0, 1, 2), (1, 2, 4), (1, 3, 3), (2, 2, 3), (1.0, 2, 3), ()])
def test_what_is_no_ranking(rank: Any) -> None:
    with pytest.raises(VolitionError, match="does not order 3 completions"):
        Preference("p", ("a", "b", "c"), rank)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_written_and_read_again(tmp_path: Path, name: str) -> None:
    rows = [
        Preference("say\u2028it\n", (" a", " b"), (2, 1), "ann", 3.5, {"batch": 7}),
        Preference("пусть", ("x", "y", "z"), (1, 1, 3)),
    ]
    preferences.write(tmp_path / name, rows)
    assert preferences.read(tmp_path / name) == rows


def test_pairs_in_the_common_form(tmp_path: Path) -> None:
    preferences.write_pairs(tmp_path / "a.jsonl", [Preference("p", ("a", "b", "c"), (2, 1, 2))])
    found = preferences.read(tmp_path / "a.jsonl")
    assert found == [Preference("p", ("b", "a"), (1, 2)), Preference("p", ("b", "c"), (1, 2))]


ASK = [{"role": "user", "content": "why?"}]


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


LIST = [{"id": "u", "title": "U", "body": "yes"}, {"id": "v", "title": "V", "body": "no"}]
RANKED = {"type": "ranker", "value": {"ranker": {"rank": ["u", "v"]}}}
PLAIN = Preference("why?", ("yes", "no"), (1, 2))
TURNS = Preference("\n\nHuman: why?\n\nAssistant:", (" yes", " no"), (1, 2))


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": ASK, "completions": [says("yes"), says("no")], "rank": [1, 2]}, TURNS),
        # HH
        ({"chosen": "\n\nHuman: why?\n\nAssistant: yes", "rejected": "\n\nHuman: why?\n\nAssistant: no"}, TURNS),
        # TRL, with the prompt plain, as turns, and within both
        ({"prompt": "why?", "chosen": "yes", "rejected": "no"}, PLAIN),
        ({"prompt": ASK, "chosen": says("yes"), "rejected": says("no")}, TURNS),
        ({"chosen": ASK + says("yes"), "rejected": ASK + says("no")}, TURNS),
        # Ziegler, Stiennon, NeMo-RL
        (
            {"query": "why?", "sample0": "no", "sample1": "yes", "sample2": "maybe", "best": 1},
            Preference("why?", ("no", "yes", "maybe"), (2, 1, 2)),
        ),
        (
            {"info": {"post": "why?"}, "summaries": [{"text": "yes"}, {"text": "no"}], "choice": 0, "worker": "w"},
            Preference("why?", ("yes", "no"), (1, 2), "w"),
        ),
        (
            {
                "context": ASK,
                "completions": [{"rank": 0, "completion": says("yes")}, {"rank": 1, "completion": says("no")}],
            },
            TURNS,
        ),
        # Label Studio: tasks with annotations, and its short export
        (
            {
                "data": {"prompt": "why?", "items": LIST},
                "annotations": [
                    {"completed_by": 7, "lead_time": 2.5, "result": [RANKED]},
                    {"was_cancelled": True, "result": []},
                ],
            },
            Preference("why?", ("yes", "no"), (1, 2), "7", 2.5),
        ),
        ({"prompt": "why?", "items": LIST, "rank": {"rank": ["v", "u"]}}, Preference("why?", ("yes", "no"), (2, 1))),
        # Argilla
        (
            {
                "fields": {"instruction": "why?", "a": "yes", "b": "no"},
                "responses": {
                    "order": [{"user_id": "k", "value": [{"value": "a", "rank": 3}, {"value": "b", "rank": 9}]}],
                    "comment": [{"user_id": "k", "value": "hm"}],
                },
            },
            Preference("why?", ("yes", "no"), (1, 2), "k"),
        ),
    ],
)  # fmt: skip
def test_other_forms(tmp_path: Path, row: dict[str, Any], wanted: Preference) -> None:
    assert read(tmp_path, row) == [wanted]
    assert read(tmp_path, json.dumps([row, row]), name="a.json") == [wanted, wanted]


def test_transcripts_that_part_early(tmp_path: Path) -> None:
    chosen = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"
    (found,) = read(tmp_path, {"chosen": chosen, "rejected": "\n\nHuman: a\n\nAssistant: e"})
    assert found.prompt == "\n\nHuman: a\n\nAssistant:"
    assert found.completions == (" b\n\nHuman: c\n\nAssistant: d", " e")


def test_silence_is_an_answer_in_a_transcript_and_a_mistake_elsewhere(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"})
    assert found.completions == (" b", "")
    with pytest.raises(VolitionError, match="line 1: 'rejected' is empty"):
        read(tmp_path, {"prompt": "p", "chosen": "b", "rejected": ""})


def test_what_was_simulated_reads_again_with_silence_in_it(tmp_path: Path) -> None:
    """A model may say nothing, and that is ranked too."""
    row = Preference("p", ("", " a"), (2, 1), "ann", meta={"split": "train"})
    preferences.write(tmp_path / "a.jsonl", [row])
    assert preferences.read(tmp_path / "a.jsonl") == [row]


def test_single_completions_with_labels_meet_by_prompt(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "a", "label": True}
    found = read(tmp_path, row, row | {"prompt": "q"}, row | {"completion": "b", "label": False})
    assert found == [Preference("p", ("a", "b"), (1, 2))]


OURS = {"prompt": "p", "completions": ["a", "b"], "rank": [1, 2]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "p"', "line 2 is no JSON"),
        ('"text"', "line 2: a row is an object"),
        ({"prompt": "p", "answers": []}, "line 2: no ranking is known with the fields prompt, answers"),
        (OURS | {"prompt": 3}, "line 2: 'prompt' is 3"),
        (OURS | {"prompt": " "}, "line 2: 'prompt' is empty"),
        (OURS | {"completions": ["a", ""]}, r"line 2: 'completions\[1\]' is empty"),
        (OURS | {"completions": ["a", None]}, r"line 2: 'completions\[1\]' is missing"),
        (OURS | {"completions": "ab"}, "line 2: 'completions' is \"ab\"; it must be a list"),
        (OURS | {"completions": ["a"], "rank": [1]}, "line 2: completions: 1 cannot be ranked"),
        (OURS | {"rank": [1, 3]}, r"line 2: rank: \[1, 3\] does not order 2"),
        (OURS | {"rank": [True, 2]}, "line 2: rank"),
        (OURS | {"labeler": 3}, "line 2: 'labeler' is 3"),
        (OURS | {"seconds": "3"}, "line 2: 'seconds'"),
        (OURS | {"meta": []}, "line 2: 'meta'"),
        ({"chosen": "a", "rejected": "b"}, "line 2: 'prompt' is missing"),
        ({"query": "q", "sample0": "a", "sample1": "b", "best": 2}, "line 2: 'best' is 2"),
        ({"prompt": "p", "items": LIST, "rank": ["u", "u"]}, "line 2: 'rank'"),
        ({"data": {"prompt": "p", "items": LIST}, "annotations": [{"result": [{"type": "ranker"}]}]}, "line 2: a fi"),
        ({"context": "p", "completions": [{"rank": 1.5, "completion": "a"}]}, "line 2: 'rank' must be a whole number"),
        ({"prompt": "p", "completion": "a", "label": "yes"}, "line 2: 'label'"),
    ],
)  # fmt: skip
def test_mistakes_say_where(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(VolitionError, match=f"a.jsonl, {message}") as caught:
        read(tmp_path, OURS, row)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short.gz").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "empty").write_text("\n\n")
    for name in ("none", "bytes", "short.gz", "empty"):
        with pytest.raises(VolitionError, match=name):
            preferences.read(tmp_path / name)
    with pytest.raises(VolitionError, match="cannot be written"):
        preferences.write(tmp_path / "none" / "a.jsonl", [])
