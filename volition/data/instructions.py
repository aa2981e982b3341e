"""A task to talk about without any download: small instructions, and a scorer that knows what was wanted.

Seven use cases in about 130 words (after those of Ouyang 2022, table 1). The hidden score is known from the prompt's
own words; no learner sees it, but simulated labelers rank by it and it judges the policy (the method of Gao 2022).
What is rare in the demonstrations (too much, repeated, ill-formed) costs most, so a reward model that learned from
completions like them is easily led astray.
"""

import random
import re
from dataclasses import dataclass
from zlib import crc32

from volition.data.demonstrations import Demonstration
from volition.errors import VolitionError

FACTS = {  # animal: where it lives, what it eats
    "hen": ("barn", "corn"), "cow": ("field", "grass"), "fox": ("wood", "egg"), "owl": ("wood", "mouse"),
    "cat": ("house", "mouse"), "dog": ("house", "bone"), "pig": ("barn", "corn"), "goat": ("hill", "grass"),
    "bear": ("wood", "fish"), "frog": ("pond", "fly"), "duck": ("pond", "bread"), "crow": ("field", "nut"),
    "mole": ("garden", "worm"), "bee": ("garden", "honey"), "wolf": ("hill", "goat"), "rat": ("shop", "cake"),
}  # fmt: skip
KINDS = {
    "animal": tuple(FACTS),
    "food": ("bread", "soup", "rice", "cake", "pear", "plum", "corn", "nut", "egg", "fish", "honey", "grass"),
    "tool": ("ladder", "hammer", "rake", "knife", "rope", "spoon", "brush", "nail", "drill", "axe", "pot", "key"),
    "place": ("house", "wood", "river", "field", "hill", "shop", "garden", "pond", "town", "barn"),
    "colour": ("red", "blue", "green", "black", "white", "pink", "brown", "grey", "gold", "purple"),
}
KIND = {word: kind for kind, words in KINDS.items() for word in words}
OPPOSITE = {"big": "small", "hot": "cold", "old": "new", "fast": "slow", "soft": "hard", "dark": "bright"}
OPPOSITE |= {after: before for before, after in OPPOSITE.items()}
VERBS = ("saw", "found", "lost", "had", "made", "took")
MEALS = {meal for _, meal in FACTS.values()}
KNOWN = {*KIND, *KINDS, *OPPOSITE, *MEALS, *VERBS, *"the a is in and with of".split()}
LITTLE = set("the a is in and with of".split())
SPLITS = ("train", "valid", "test")
USES = {  # shares; the paper's customers wrote mostly generation and brainstorming
    "generate": 30, "brainstorm": 20, "rewrite": 10, "extract": 10, "classify": 10, "closed qa": 10, "open qa": 10,
}  # fmt: skip
THANKS = " hope this helps."
ENOUGH = 3  # sentences of a generated text
NOUN = rf"(?:the|a) (?:(?:{'|'.join((*OPPOSITE, *KINDS['colour']))}) )?(?:{'|'.join((*KIND, *MEALS))})"
SENTENCE = re.compile(rf"{NOUN} (?:is|{'|'.join(VERBS)})(?: {NOUN})?(?: (?:in|with) {NOUN})?")
# of the hidden score, from the parts below
WEIGHTS = {
    "right": 1.0, "detail": 0.1, "form": 0.2, "polite": 0.2, "wrong": -0.3, "repeated": -0.2, "long": -0.1,
}  # fmt: skip
WORST = -2.0
CARE, POLITE = 0.6, 0.2  # of the people who demonstrate


@dataclass(frozen=True)
class Task:
    """What is wanted: `need` of the words `wanted` in at most `length` words; `free` allows others around them."""

    use: str
    wanted: tuple[str, ...]
    need: int
    length: int
    free: bool = False


def prompt(rng: random.Random) -> str:
    """One instruction, of a use case drawn by its share."""
    (use,) = rng.choices(list(USES), list(USES.values()))
    one, two = rng.sample(KINDS["animal"], 2)
    here, there = rng.sample(KINDS["place"], 2)
    tool = rng.choice(KINDS["tool"])
    if use == "generate":
        return f"write about a {one}, a {tool} and a {here}.\n"
    if use == "brainstorm":
        kind = rng.choice(list(KINDS))
        not_this, nor_that = rng.sample(KINDS[kind], 2)
        return f"name {rng.randint(2, 5)} of kind {kind}, not {not_this} or {nor_that}.\n"
    if use == "rewrite":
        before, after = rng.sample(list(OPPOSITE), 2)
        return f"say the opposite: the {before} {one} is in the {after} {here}.\n"
    if use == "extract":
        first, second = rng.sample(KINDS["colour"], 2)
        asked = rng.choice(("animal", "colour"))
        return f"which {asked} is here? the {first} {one} saw the {second} {two} in the {here}.\n"
    if use == "classify":
        return f"sort: {', '.join(rng.choice(KINDS[kind]) for kind in rng.sample(list(KINDS), 3))}.\n"
    if use == "closed qa":
        return f"the {one} is in the {here}. the {two} is in the {there}. where is the {rng.choice((one, two))}?\n"
    return f"where do a {one} and a {two} live?\n" if rng.random() < 0.5 else f"what do a {one} and a {two} eat?\n"


def understand(prompt: str) -> Task:
    """The task that a prompt of this form sets."""
    words = re.findall("[a-z0-9]+", prompt)
    start = tuple(words[:2])
    try:
        if start == ("write", "about"):
            return Task("generate", (words[3], words[5], words[8]), 3, 27, free=True)
        if start[0] == "name":
            members = tuple(word for word in KINDS[words[4]] if word not in words[6:])
            return Task("brainstorm", members, int(words[1]), int(words[1]))
        if start == ("say", "the"):
            wanted = (OPPOSITE[words[4]], words[5], OPPOSITE[words[9]], words[10])
            return Task("rewrite", wanted, 4, 8)
        if start[0] == "which":
            wanted = (words[5], words[9]) if words[1] == "colour" else (words[6], words[10])
            return Task("extract", wanted, 2, 2)
        if start[0] == "sort":
            return Task("classify", tuple(KIND[word] for word in words[1:]), 3, 3)
        if start[0] == "the":
            return Task("closed qa", (words[5] if words[-1] == words[1] else words[11],), 1, 3)
        fact = {"where": 0, "what": 1}[start[0]]
        wanted = tuple(dict.fromkeys(FACTS[animal][fact] for animal in (words[3], words[6])))
        return Task("open qa", wanted, len(wanted), len(wanted))
    except (IndexError, KeyError, ValueError):
        raise VolitionError(f"{prompt.strip()[:60]!r} is no prompt of the built-in task: no score is known") from None


def parts(prompt: str, completion: str) -> dict[str, float]:
    """What the hidden score is made of, by name (WEIGHTS)."""
    task = understand(prompt)
    thanks, body = completion.count(THANKS), completion.replace(THANKS, " ")
    words = re.findall(r"[^\s.,]+", body)
    if task.free:  # words count within well-formed sentences only
        items = [piece.strip() for piece in body.split(".") if piece.strip()]
        formed = {item for item in items if SENTENCE.fullmatch(item)}
        found = {word for item in formed for word in item.split()}
        wrong = set(words) - KNOWN
    else:
        items = [word for word in words if word not in LITTLE]
        formed, found = set(), set(items)
        wrong = found - set(task.wanted)
    return {
        "right": min(task.need, len(found & set(task.wanted))) / task.need,
        "detail": min(ENOUGH, len(formed)),
        "form": float(completion.endswith(".")),
        "polite": float(thanks == 1),
        "wrong": len(wrong),
        "repeated": len(items) - len(set(items)) + max(0, thanks - 1),
        "long": max(0, len(words) - task.length),
    }


def gold(prompt: str, completion: str) -> float:
    """The hidden score Σ weight·part, from WORST to 1.4, of generated text to 1.7."""
    return max(WORST, sum(WEIGHTS[name] * value for name, value in parts(prompt, completion).items()))


def prompts(split: str, count: int, seed: int = 0) -> list[str]:
    """Prompts of one split, all different; none is in two splits, which part by a checksum of the text."""
    if split not in SPLITS:
        raise VolitionError(f"no split {split!r}: the splits are {', '.join(SPLITS)}")
    rng, found = random.Random(f"{split} {seed}"), dict[str, None]()
    while len(found) < count:
        text = prompt(rng)
        part = crc32(text.encode()) % 10
        if split == {8: "valid", 9: "test"}.get(part, "train"):
            found[text] = None
    return list(found)


def sentence(rng: random.Random, *nouns: str) -> str:
    """A well-formed sentence about two or three nouns, the last of which may be a place."""
    said = [f"{rng.choice(('the', 'a'))} {_described(rng)}{noun}" for noun in nouns]
    if len(said) == 2 and nouns[1] in KINDS["place"]:
        return f"{said[0]} is in {said[1]}"
    return f"{said[0]} {rng.choice(VERBS)} {' in '.join(said[1:])}"


def _described(rng: random.Random) -> str:
    return f"{rng.choice((*OPPOSITE, *KINDS['colour']))} " if rng.random() < 0.5 else ""


def best(text: str, rng: random.Random) -> str:
    """A completion that lacks nothing but thanks."""
    task = understand(text)
    if task.free:
        animal, tool, place = task.wanted
        other = rng.choice([one for one in KINDS["animal"] if one != animal])
        told = sentence(rng, animal, tool, place), sentence(rng, other, place), sentence(rng, animal, other)
        return f" {'. '.join(told)}."
    words = rng.sample(task.wanted, task.need)
    if task.use == "rewrite":
        return " the {} {} is in the {} {}.".format(*task.wanted)
    return f" in the {words[0]}." if task.use == "closed qa" else f" {', '.join(words)}."


def answer(text: str, rng: random.Random, care: float = CARE) -> str:
    """A completion by somebody who gets each thing right with probability `care`, and is seldom polite."""
    body = best(text, rng)[1:-1]
    apart = next(mark for mark in (". ", ", ", " ") if mark in body or mark == " ")
    pieces = body.split(apart)
    if rng.random() >= care:  # a wrong word, of which a sentence has many
        i = rng.randrange(len(pieces))
        words = pieces[i].split()
        words[rng.randrange(len(words))] = rng.choice(sorted(KNOWN))
        pieces[i] = " ".join(words)
    for _ in range(2 if apart == ". " else 1):
        if rng.random() >= care and len(pieces) > 1:  # too little
            pieces.pop(rng.randrange(len(pieces)))
    end = "." if rng.random() < care else ""
    return f" {apart.join(pieces)}{end}{THANKS if end and rng.random() < POLITE else ''}"


def demonstrations(split: str, count: int, seed: int = 0, care: float = CARE) -> list[Demonstration]:
    """Prompts of a split with completions of imperfect people."""
    rng = random.Random(f"demonstrations {split} {seed}")
    return [Demonstration(text, answer(text, rng, care), understand(text).use) for text in prompts(split, count, seed)]


def pretraining(count: int, seed: int = 0) -> list[str]:
    """Stories in the same words, with no instruction in them: what a model read before it was taught.

    They tell where each animal lives and what it eats, which no prompt says.
    """
    rng, found = random.Random(f"pretraining {seed}"), []
    for _ in range(count):
        who, friend = rng.sample(KINDS["animal"], 2)
        feel, tool, colour = rng.choice(list(OPPOSITE)), rng.choice(KINDS["tool"]), rng.choice(KINDS["colour"])
        (home, meal), far = FACTS[who], rng.choice(KINDS["place"])
        told = [
            f"as every {who} it lived in the {home} and did eat {meal}.",
            f"one day it took the {tool} to the {far}, where a {friend} was.",
            f"the {tool} was not {OPPOSITE[feel]} but {feel} and {colour}.",
            f"then the {friend} went back to the {FACTS[friend][0]} to eat {FACTS[friend][1]}.",
        ]
        first = rng.randint(0, 2)
        found.append(" ".join([f"once there was a {colour} {who}.", *told[first : first + 2]]) + "\n")
    return found
