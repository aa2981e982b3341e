"""Rankings: prompts with completions in the order that somebody prefers, in our own form and in everybody else's."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from volition.data import rows
from volition.data.rows import Row, cue, last_answer, listed, text
from volition.errors import VolitionError


@dataclass(frozen=True)
class Preference:
    """One labeler's ranking of the completions of one prompt: rank 1 is best, ties share a number.

    After a tie ranks go on with the next number (1, 2, 2, 3) or with the next place (1, 2, 2, 4). A completion may be
    empty, for a model may stop at once; in files that is taken for a mistake, but for HH's, where it is meant.
    """

    prompt: str
    completions: tuple[str, ...]
    rank: tuple[int, ...]
    labeler: str = ""
    seconds: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.completions)
        if count < 2:
            raise VolitionError(f"completions: {count} cannot be ranked; give two or more")
        ordered = sorted(self.rank) if all(type(r) is int for r in self.rank) else []
        ways = [list(range(1, count + 1)), list(range(1, count + 1))]  # without ties
        for i in range(1, len(ordered)):
            if i < count and ordered[i] == ordered[i - 1]:
                ways[0][i:] = [r - 1 for r in ways[0][i:]]  # the next number
                ways[1][i] = ways[1][i - 1]  # the next place
        if ordered not in ways:
            raise VolitionError(
                f"rank: {list(self.rank)} does not order {count} completions; 1 is best, ties share a number"
            )


def pairs(preference: Preference) -> list[tuple[int, int]]:
    """Places (winner, loser) of all pairs that are no tie."""
    rank = preference.rank
    both = combinations(range(len(rank)), 2)
    return [(i, j) if rank[i] < rank[j] else (j, i) for i, j in both if rank[i] != rank[j]]


def write(path: str | Path, preferences: Iterable[Preference]) -> None:
    """Write our own rows: prompt, completions, rank, and labeler, seconds and meta where they are known."""
    with _writing(path) as file:
        for p in preferences:
            row: Row = {"prompt": p.prompt, "completions": p.completions, "rank": p.rank}
            known = {"labeler": p.labeler, "seconds": p.seconds, "meta": p.meta}
            row |= {name: value for name, value in known.items() if value not in ("", None, {})}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_pairs(path: str | Path, preferences: Iterable[Preference]) -> None:
    """Write each pair that is no tie as prompt, chosen, rejected, the common form (TRL's)."""
    with _writing(path) as file:
        for p in preferences:
            for winner, loser in pairs(p):
                row = {"prompt": p.prompt, "chosen": p.completions[winner], "rejected": p.completions[loser]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _writing(path: str | Path) -> Any:
    try:
        return (gzip.open if str(path).endswith(".gz") else open)(path, "wt", encoding="utf-8")
    except OSError as error:
        raise VolitionError(f"{path} cannot be written ({error.strerror})") from None


def is_store(place: str | Path) -> bool:
    """Whether this names a label store: a database's URL, or a file that SQLite wrote."""
    if "://" in str(place):
        return True
    try:
        with open(place, "rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def read(path: str | Path) -> list[Preference]:
    """All rankings of a file or a label store; the form of each row is told by its fields (FORMS).

    Rows with one completion and a label are put together by prompt: liked ones rank before the others.
    """
    if is_store(path):
        from volition.data import labels  # SQLAlchemy only where it is needed

        return labels.read(path)
    found: list[Preference] = []
    labelled: dict[str, dict[bool, list[str]]] = {}
    for where, row in rows.read(path):
        if {"prompt", "completion", "label"} <= row.keys():
            if type(row["label"]) is not bool:
                raise VolitionError(f"{where}: 'label' is {json.dumps(row['label'])[:40]}; it must be true or false")
            prompt = text(row["prompt"], where, "prompt")
            sides = labelled.setdefault(prompt, {True: [], False: []})
            sides[row["label"]].append(text(row["completion"], where, "completion"))
            continue
        form = next((read for needed, read in FORMS if needed <= row.keys()), None)
        if form is None:
            has = ", ".join(map(str, row)) or "none"
            raise VolitionError(f"{where}: no ranking is known with the fields {has}; give prompt, completions, rank")
        try:
            found += form(row, where)
        except VolitionError as error:
            message = str(error)
            raise VolitionError(message if message.startswith(where) else f"{where}: {message}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # other people's forms, deeper down
            raise VolitionError(f"{where}: a field is not as this form has it ({error!r}); mend or remove it") from None
    for prompt, sides in labelled.items():
        if sides[True] and sides[False]:
            rank = [1] * len(sides[True]) + [2] * len(sides[False])
            found.append(Preference(prompt, (*sides[True], *sides[False]), tuple(rank)))
    if not found:
        raise VolitionError(f"{path} holds no ranking: no prompt has completions of different rank")
    return found


def _ours(row: Row, where: str) -> Iterator[Preference]:
    labeler, seconds, meta = row.get("labeler", ""), row.get("seconds"), row.get("meta", {})
    if not isinstance(labeler, str):
        raise VolitionError(f"{where}: 'labeler' is {json.dumps(labeler)[:40]}; it must be a text")
    if type(seconds) not in (int, float, type(None)):
        raise VolitionError(f"{where}: 'seconds' is {json.dumps(seconds)[:40]}; it must be a number")
    if not isinstance(meta, dict):
        raise VolitionError(f"{where}: 'meta' is {json.dumps(meta)[:40]}; it must be an object")
    listing = listed(row["completions"], where, "completions")
    # simulated rankings are of what a model said, which may be nothing; among people's it is a mistake
    said = [text(c, where, f"completions[{i}]", empty="split" in meta) for i, c in enumerate(listing)]
    prompt = cue(row["prompt"], text(row["prompt"], where, "prompt"))
    yield Preference(prompt, tuple(said), tuple(listed(row["rank"], where, "rank")), labeler, seconds, meta)


def _chosen(row: Row, where: str) -> Iterator[Preference]:
    """TRL's preference rows with prompt or without, and HH's transcripts."""
    good, bad = row["chosen"], row["rejected"]
    silent = False
    if "prompt" in row:
        prompt = cue(row["prompt"], text(row["prompt"], where, "prompt"))
    elif isinstance(good, list) and isinstance(bad, list):
        same = next((i for i, (a, b) in enumerate(zip(good, bad, strict=False)) if a != b), min(len(good), len(bad)))
        prompt = cue(good, text(good[:same], where, "chosen", empty=True)) if same else ""
        good, bad = good[same:], bad[same:]
    else:
        good, bad = text(good, where, "chosen"), text(bad, where, "rejected")
        (prompt, good), (other, bad) = last_answer(good), last_answer(bad)
        silent = True
        if prompt != other:  # they part before the last turn: all that follows is what was chosen
            whole = (prompt + good, other + bad)
            prompt = last_answer(_common(*whole))[0]
            good, bad = (part[len(prompt) :] for part in whole)
    if not prompt:
        raise VolitionError(f"{where}: 'prompt' is missing, and chosen and rejected do not begin with the same turns")
    yield Preference(prompt, (text(good, where, "chosen", silent), text(bad, where, "rejected", silent)), (1, 2))


def _common(a: str, b: str) -> str:
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]


def _best_of(row: Row, where: str) -> Iterator[Preference]:
    """query, sample0 … and the number of the best (Ziegler 2019)."""
    names = [name for i in range(len(row)) if (name := f"sample{i}") in row]
    yield _best(row["query"], [row[name] for name in names], row["best"], where, "query", "best")


def _summaries(row: Row, where: str) -> Iterator[Preference]:
    """info.post, summaries and the number of the better one (Stiennon 2020)."""
    info, said = row["info"], listed(row["summaries"], where, "summaries")
    if not isinstance(info, dict) or not all(isinstance(s, dict) for s in said):
        raise VolitionError(f"{where}: 'info' and each of 'summaries' must be objects, with post and text")
    post = info.get("post") or info.get("article")
    found = _best(post, [s.get("text") for s in said], row["choice"], where, "info.post", "choice")
    yield Preference(found.prompt, found.completions, found.rank, str(row.get("worker", "")))


def _best(prompt: Any, said: list[Any], best: Any, where: str, named: str, field: str) -> Preference:
    if type(best) is not int or not 0 <= best < len(said):
        raise VolitionError(f"{where}: {field!r} is {json.dumps(best)[:40]}; it must number one of {len(said)} texts")
    completions = tuple(text(s, where, f"completion {i}") for i, s in enumerate(said))
    return Preference(text(prompt, where, named), completions, tuple(1 if i == best else 2 for i in range(len(said))))


def _context(row: Row, where: str) -> Iterator[Preference]:
    """context and completions with a rank each, the lowest best (NeMo-RL)."""
    said = listed(row["completions"], where, "completions")
    if not all(isinstance(c, dict) for c in said):
        raise VolitionError(f"{where}: each of 'completions' must be an object with rank and completion")
    completions = tuple(text(c.get("completion"), where, f"completions[{i}].completion") for i, c in enumerate(said))
    prompt = cue(row["context"], text(row["context"], where, "context"))
    yield Preference(prompt, completions, _dense([c.get("rank") for c in said], where, "rank"))


def _dense(values: list[Any], where: str, field: str) -> tuple[int, ...]:
    """Whole numbers, the lowest best, as ranks 1, 2, … without gaps."""
    if any(type(value) is not int for value in values):
        raise VolitionError(f"{where}: {field!r} must be a whole number for every completion")
    order = sorted(set(values))
    return tuple(order.index(value) + 1 for value in values)


def _label_studio(row: Row, where: str) -> Iterator[Preference]:
    """Tasks of Label Studio with the items of a List and the order that a Ranker gave them, by each annotator."""
    data = row.get("data", row)
    if not isinstance(data, dict):
        raise VolitionError(f"{where}: 'data' must be an object with prompt and items")
    items = listed(data.get("items"), where, "items")
    if not all(isinstance(item, dict) and "id" in item for item in items):
        raise VolitionError(f"{where}: each of 'items' needs an id")
    ids = [str(item["id"]) for item in items]
    said = tuple(text(item.get("body") or item.get("title"), where, f"items[{i}].body") for i, item in enumerate(items))
    prompt = text(data.get("prompt"), where, "prompt")
    if "annotations" not in row:
        given = row.get("rank")
        yield Preference(prompt, said, _places(given.get("rank") if isinstance(given, dict) else given, ids, where))
        return
    for made in listed(row["annotations"], where, "annotations"):
        for result in () if made.get("was_cancelled") else listed(made.get("result"), where, "annotations.result"):
            if result.get("type") == "ranker":
                (given,) = result["value"]["ranker"].values() or (None,)
                by = made.get("completed_by", "")
                labeler = str(by.get("email") or by.get("id", "") if isinstance(by, dict) else by)
                yield Preference(prompt, said, _places(given, ids, where), labeler, made.get("lead_time"))


def _places(given: Any, ids: list[str], where: str) -> tuple[int, ...]:
    """The place of each id in the list given, which must hold each once."""
    order = [str(i) for i in listed(given, where, "rank")]
    if sorted(order) != sorted(ids):
        raise VolitionError(f"{where}: 'rank' {order} must hold each of the items {ids} once")
    return tuple(order.index(i) + 1 for i in ids)


def _argilla(row: Row, where: str) -> Iterator[Preference]:
    """Records of Argilla 2: the values of a ranking question are names of fields with a rank, by each user."""
    fields, answers = row["fields"], row["responses"]
    if not isinstance(fields, dict) or not isinstance(answers, dict):
        raise VolitionError(f"{where}: 'fields' and 'responses' must be objects")
    for given in (answer for some in answers.values() for answer in listed(some, where, "responses")):
        value = given.get("value") if isinstance(given, dict) else None
        if not isinstance(value, list) or not all(isinstance(v, dict) and {"value", "rank"} <= v.keys() for v in value):
            continue  # an answer to some other question
        names = [v["value"] for v in value]
        asked = [name for name in fields if name not in names]
        if missing := [name for name in names if name not in fields]:
            raise VolitionError(f"{where}: 'fields' lacks {missing[0]!r}, which was ranked")
        if not asked:
            raise VolitionError(f"{where}: 'fields' holds nothing but completions; the prompt is missing")
        said = tuple(text(fields[name], where, f"fields.{name}") for name in names)
        rank = _dense([v["rank"] for v in value], where, "rank")
        yield Preference(text(fields[asked[0]], where, f"fields.{asked[0]}"), said, rank, str(given.get("user_id", "")))


FORMS: tuple[tuple[set[str], Callable[[Row, str], Iterator[Preference]]], ...] = (
    ({"prompt", "completions", "rank"}, _ours),
    ({"chosen", "rejected"}, _chosen),
    ({"query", "sample0", "best"}, _best_of),
    ({"info", "summaries", "choice"}, _summaries),
    ({"context", "completions"}, _context),
    ({"data", "annotations"}, _label_studio),
    ({"items", "rank"}, _label_studio),
    ({"fields", "responses"}, _argilla),
)
