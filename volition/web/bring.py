"""What comes into a label store: prompts with completions to rank, and rankings that others have made."""

import hashlib
import io
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from volition.data import preferences, rows
from volition.data.labels import ASSIGNMENTS, IMAGES, PROMPTS, RANKINGS, Store, clean
from volition.data.preferences import Preference
from volition.data.rows import Row, cue, listed, text
from volition.errors import VolitionError
from volition.web import people, work

IMAGE_BYTES = 20_000_000
KINDS = ("PNG", "JPEG", "WEBP", "GIF")  # SVG is a program


@dataclass
class Asked:
    """A prompt with completions, each `{"text": …}` or `{"image": digest.kind}` and perhaps a model's name."""

    prompt: str
    completions: list[dict[str, Any]]
    meta: dict[str, Any] = field(default_factory=dict)
    rankings: list[Preference] = field(default_factory=list)


@dataclass
class Brought:
    """What an import did."""

    prompts: int = 0
    shared: int = 0
    known: int = 0
    rankings: int = 0
    repeated: int = 0
    empty: int = 0
    few: int = 0


def read(paths: Iterable[Path], found: Brought, rankings: bool = True) -> tuple[list[Asked], dict[str, tuple]]:
    """Prompts of all files, in order, and the images they name as {digest: (kind, bytes)}.

    Rows with one completion each are put together by prompt, across files too: one file per model is common.
    """
    asked: list[Asked] = []
    single: dict[str, Asked] = {}
    images: dict[str, tuple] = {}
    for path in paths:
        every = list(rows.read(path))
        if every and _ranked(every[0][1]):  # told by its first row: a file of rankings
            asked += [_from(p, rankings, path.stem) for p in preferences.read(path)]
            continue
        for where, row in every:
            data = row.get("data", row)
            if not isinstance(data, dict):
                raise VolitionError(f"{where}: 'data' must be an object with prompt and items")
            if "items" in data:
                answers = listed(data["items"], where, "items")
                asked.append(_asked(data, answers, where, path, images, row.get("meta")))
            elif "completions" in row:
                answers = listed(row["completions"], where, "completions")
                asked.append(_asked(row, answers, where, path, images, row.get("meta")))
            else:
                name = next((n for n in ("completion", "response", "image") if n in row), None)
                if name is None or "prompt" not in row:
                    has = ", ".join(map(str, row)) or "none"
                    raise VolitionError(f"{where}: nothing to rank in the fields {has}; give prompt and completions")
                answer = {"image" if name == "image" else "text": row[name], "model": row.get("model", path.stem)}
                new = _asked(row, [answer], where, path, images, row.get("meta"))
                if (old := single.get(new.prompt)) is None:
                    single[new.prompt] = new
                    asked.append(new)
                else:
                    old.completions += new.completions
    return [whole for one in asked if (whole := _whole(one, found)) is not None], images


def _ranked(row: Row) -> bool:
    """Whether a row holds a ranking, so that it is one of the forms of volition.data.preferences."""
    if "annotations" in row or ("items" in row and "rank" in row):
        return bool(row.get("annotations") or row.get("rank"))
    if "completions" in row:
        return "rank" in row or "context" in row
    return not {"completion", "response", "image", "items", "data"} & row.keys() or "label" in row


def _asked(row: Row, answers: list[Any], where: str, path: Path, images: dict, meta: Any) -> Asked:
    prompt = cue(row.get("prompt"), text(row.get("prompt"), where, "prompt"))
    completions = [_completion(a, f"{where}", f"completion {i + 1}", path, images) for i, a in enumerate(answers)]
    if meta is not None and not isinstance(meta, dict):
        raise VolitionError(f"{where}: 'meta' is {json.dumps(meta)[:40]}; it must be an object")
    return Asked(clean(prompt), completions, meta or {})


def _completion(given: Any, where: str, field: str, path: Path, images: dict) -> dict[str, Any]:
    if not isinstance(given, dict) or "role" in given:
        return {"text": clean(text(given, where, field, empty=True))}
    model = {"model": clean(str(given["model"]))} if given.get("model") else {}
    if "image" in given:
        if not isinstance(given["image"], str):
            raise VolitionError(f"{where}: the image of {field} must be the name of a file")
        return {"image": _image(path.parent / given["image"], where, images)} | model
    said = next((given[name] for name in ("text", "completion", "body", "title") if given.get(name) is not None), None)
    return {"text": clean(text(said, where, field, empty=True))} | model


def _image(path: Path, where: str, images: dict) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=KINDS) as image:
            kind = str(image.format).lower()
            image.load()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise VolitionError(f"{where}: {path} is no image of {', '.join(KINDS)} ({error})") from None
    if len(data) > IMAGE_BYTES:
        raise VolitionError(f"{where}: {path} has more than {IMAGE_BYTES // 1_000_000} MB; make it smaller")
    digest = hashlib.sha256(data).hexdigest()
    images[digest] = (kind, data)
    return f"{digest}.{kind}"


def _from(p: Preference, rankings: bool, stem: str) -> Asked:
    """A ranking as a prompt; a labeler without a name is called after the file."""
    texts = tuple(map(clean, p.completions))
    made = Preference(clean(p.prompt), texts, p.rank, clean(p.labeler or stem)[:100], p.seconds, p.meta)
    kept = {name: value for name, value in p.meta.items() if name not in ("models", "ratings", "flags", "note")}
    models = p.meta.get("models")
    if not isinstance(models, list) or len(models) != len(texts):
        models = [None] * len(texts)
    completions = [{"text": t} | ({"model": m} if m else {}) for t, m in zip(texts, models, strict=True)]
    return Asked(made.prompt, completions, kept, [made] if rankings else [])


def _content(completion: dict[str, Any]) -> str:
    return completion.get("image") or completion["text"].strip()


def _whole(one: Asked, found: Brought) -> Asked | None:
    """Without empty completions and with each only once: equal ones cannot be ranked; None if fewer than two stay."""
    different: dict[str, dict[str, Any]] = {}
    for completion in one.completions:
        content = _content(completion)
        if not content:
            found.empty += 1
        elif content in different:
            found.repeated += 1
            if "model" in completion and "model" in different[content]:
                different[content] = different[content] | {
                    "model": f"{different[content]['model']}, {completion['model']}"
                }
        else:
            different[content] = completion
    if len(different) > work.MOST:
        raise VolitionError(
            f"{len(different)} completions of {one.prompt[:60]!r}: at most {work.MOST} can be ranked; leave some out"
        )
    if len(different) < 2:
        found.few += 1
        return None
    return Asked(one.prompt, list(different.values()), one.meta, one.rankings)


def bring(
    store: Store, asked: list[Asked], images: dict[str, tuple], found: Brought, share: float, copies: int
) -> None:
    """Put prompts, images and rankings into the store, in one transaction; what is there already stays as it is.

    Of the new prompts the share `share`, drawn by chance, goes to `copies` labelers each, the others to one.
    """
    with store.write() as connection:
        for digest, (kind, data) in images.items():
            if connection.scalar(sa.select(IMAGES.c.kind).where(IMAGES.c.digest == digest)) is None:
                connection.execute(IMAGES.insert().values(digest=digest, kind=kind, data=data))
        ids = {row.digest: row.id for row in connection.execute(sa.select(PROMPTS.c.digest, PROMPTS.c.id))}
        new: dict[str, Asked] = {}
        for one in asked:
            if (digest := _digest(one)) not in ids:
                new.setdefault(digest, one)
        found.known += len({_digest(one) for one in asked} & ids.keys())
        chosen = set(random.Random(0).sample(list(new), round(share * len(new))))
        found.prompts, found.shared = len(new), len(chosen)
        for digest, one in new.items():
            row = {"digest": digest, "prompt": one.prompt, "completions": one.completions, "meta": one.meta}
            wanted = copies if digest in chosen else 1
            ids[digest] = connection.scalar(PROMPTS.insert().values(row | {"wanted": wanted}).returning(PROMPTS.c.id))
        for one in asked:
            for ranking in one.rankings:
                found.rankings += _keep(connection, ids[_digest(one)], ranking)


def _digest(one: Asked) -> str:
    words = json.dumps([one.prompt, sorted(map(_content, one.completions))])
    return hashlib.sha256(words.encode()).hexdigest()


def _keep(connection: sa.Connection, prompt: int, made: Preference) -> bool:
    """Keep a ranking that came from a file, unless this labeler has one of this prompt; whether it was kept."""
    who = people.labeler(connection, made.labeler)
    mine = (ASSIGNMENTS.c.prompt == prompt, ASSIGNMENTS.c.labeler == who)
    if connection.execute(sa.select(ASSIGNMENTS.c.id).where(*mine)).first():
        return False
    completions = connection.scalar(sa.select(PROMPTS.c.completions).where(PROMPTS.c.id == prompt))
    places = [[c.strip() for c in made.completions].index(_content(c)) for c in completions or ()]
    steps = sorted({made.rank[place] for place in places})

    def each(name: str, none: Any) -> list[Any]:
        values = made.meta.get(name)
        return [values[p] if isinstance(values, list) and len(values) == len(made.rank) else none for p in places]

    flags = [some if isinstance(some, list) else [] for some in each("flags", [])]
    now = time.time()
    row = {"prompt": prompt, "labeler": who, "rank": [steps.index(made.rank[place]) + 1 for place in places],
           "ratings": [r if type(r) is int and r in work.OVERALL else None for r in each("ratings", None)],
           "flags": [[f for f in some if f in work.FLAGS] for some in flags],
           "note": clean(str(made.meta.get("note", ""))), "seconds": made.seconds, "at": now, "current": True,
           "key": people.digest(f"import {prompt} {who}")}  # fmt: skip
    connection.execute(RANKINGS.insert().values(row))
    order = list(range(len(places)))
    done = {"prompt": prompt, "labeler": who, "state": "ranked", "order": order, "begun": now, "given": now}
    connection.execute(ASSIGNMENTS.insert().values(done))  # without `done`: nothing that undo would reopen
    return True
