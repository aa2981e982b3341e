"""A task to talk about without any download: small instructions, and a scorer that knows what was wanted.

Six use cases in a small vocabulary (after those of Ouyang 2022, table 1): brainstorm, generate, rewrite, extract,
classify, closed question answering. The scorer's answers are known from the prompt's own words, so any prompt of the
form below is scored, and the score is what no learner sees: it judges the policy and makes the labelers' rankings.
"""

import random
from collections import Counter
from collections.abc import Sequence

from volition.data.demonstrations import Demonstration
from volition.errors import VolitionError

KINDS = {
    "animals": "cat dog cow pig hen fox owl bear wolf goat".split(),
    "foods": "bread soup rice cake pear plum corn nut egg fish".split(),
    "tools": "saw hammer rake knife rope spoon brush nail drill axe".split(),
    "colours": "red blue green black white pink brown grey gold purple".split(),
    "places": "house wood river field hill shop school lake town barn".split(),
}
OPPOSITE = {"big": "small", "hot": "cold", "old": "new", "fast": "slow", "soft": "hard", "dark": "bright"}
OPPOSITE |= {after: before for before, after in OPPOSITE.items()}
KIND = {word: kind for kind, words in KINDS.items() for word in words}
SPLITS = ("train", "valid", "test")
USES = ("brainstorm", "generate", "rewrite", "extract", "classify", "answer")


def prompt(rng: random.Random) -> str:
    """One instruction, of a use case drawn at random."""
    use = rng.choice(USES)
    thing, place = rng.choice(KINDS["animals"] + KINDS["tools"]), rng.choice(KINDS["places"])
    if use == "brainstorm":
        return f"brainstorm: name {rng.choice((2, 3, 4))} {rng.choice(list(KINDS))}.\n"
    if use == "generate":
        return f"generate: write a sentence with {thing} and {place}.\n"
    if use == "rewrite":
        return f"rewrite: say the opposite. the {thing} is {rng.choice(list(OPPOSITE))}.\n"
    if use == "extract":
        a, b = rng.sample(KINDS["colours"], 2)
        return f"extract: which colours? the {a} {thing} is in the {b} {place}.\n"
    if use == "classify":
        return f"classify: what kind is {rng.choice(list(KIND))}?\n"
    return f"answer: where is it? the {thing} is in the {place}.\n"


def prompts(split: str, count: int, seed: int = 0) -> list[str]:
    """Prompts of one split; none is in two splits, which part by a checksum of the text."""
    if split not in SPLITS:
        raise VolitionError(f"no split {split!r}: the splits are {', '.join(SPLITS)}")
    rng, found = random.Random(f"{split} {seed}"), []
    while len(found) < count:
        text = prompt(rng)
        part = sum(i * b for i, b in enumerate(text.encode(), 1)) % 10
        if split == ("test" if part == 0 else "valid" if part == 1 else "train"):
            found.append(text)
    return found


def wanted(text: str) -> tuple[Sequence[str], int]:
    """The words that a good completion holds, and how many words it has in all; of a brainstorm, all that may serve."""
    use, words = text.partition(":")[0], text.replace(".", " ").replace("?", " ").replace(":", " ").split()
    if use == "brainstorm":
        return KINDS.get(words[3], []), int(words[2])
    if use == "generate":
        return [words[-3], words[-1]], 6
    if use == "rewrite":
        return [words[-3], OPPOSITE.get(words[-1], "")], 4
    if use == "extract":
        found = [word for word in words if KIND.get(word) == "colours"]
        return found, len(found)
    if use == "classify":
        return [KIND.get(words[-1], "")], 1
    return [words[-1]], 1


def gold(text: str, completion: str) -> float:
    """How good a completion is: F₁ of wanted words − 0.1·repeats − 0.05·|words too many or few| + 0.2·[one full stop].

    Within about −1 and 1.2. Repeats and length cost little beside a hit: a reward model that saw few of them misses it.
    """
    words = completion.replace(".", " ").split()
    want, length = wanted(text)
    need = length if text.startswith("brainstorm") else len(want)
    counts = Counter(words)
    hits = min(need, sum(word in counts for word in dict.fromkeys(want)))
    extra = length if text.startswith(("generate", "rewrite")) else max(1, len(words))
    f1 = 2 * hits / (need + max(extra if extra != length else need, hits)) if need else 0.0
    repeats = sum(n - 1 for n in counts.values())
    stop = completion.rstrip().endswith(".") and completion.count(".") == 1
    return max(-1.0, f1 - 0.1 * repeats - 0.05 * abs(len(words) - length) + 0.2 * stop)


def answer(text: str, rng: random.Random) -> str:
    """A completion that gets everything right."""
    want, length = wanted(text)
    use = text.partition(":")[0]
    if use == "brainstorm":
        words = rng.sample(want, length)
    elif use == "generate":
        words = ["the", want[0], "is", "in", "the", want[1]]
    elif use == "rewrite":
        words = ["the", want[0], "is", want[1]]
    else:
        words = want
    return f" {' '.join(words)}."


def demonstrations(split: str, count: int, seed: int = 0, right: float = 0.5) -> list[Demonstration]:
    """Completions as people give them: a share `right` is perfect; in others a word is wrong, doubled or missing."""
    rng = random.Random(f"demonstrations {split} {seed}")
    every = [word for words in KINDS.values() for word in words]
    found = []
    for text in prompts(split, count, seed):
        words = answer(text, rng)[1:-1].split()
        if rng.random() >= right:
            i, how = rng.randrange(len(words)), rng.randrange(3)
            words[i : i + 1] = ([rng.choice(every)], [words[i]] * 2, [])[how]
        end = "." if rng.random() < 0.9 else ""
        found.append(Demonstration(text, f" {' '.join(words)}{end}", text.partition(":")[0]))
    return found


def pretraining(count: int, seed: int = 0) -> list[str]:
    """Little stories in the same words, with no instruction in them: what a model read before it was taught."""
    rng, found = random.Random(f"pretraining {seed}"), []
    for _ in range(count):
        who, place, food = rng.choice(KINDS["animals"]), rng.choice(KINDS["places"]), rng.choice(KINDS["foods"])
        feel, tool, colour = rng.choice(list(OPPOSITE)), rng.choice(KINDS["tools"]), rng.choice(KINDS["colours"])
        lines = [
            f"the {who} went to the {place} and found a {tool}.",
            f"there it ate {food} with a {rng.choice(KINDS['animals'])}.",
            f"the {feel} {who} saw a {colour} {tool} in the {place}.",
            f"it was not {OPPOSITE[feel]} but {feel}.",
        ]
        rng.shuffle(lines)
        found.append(" ".join(lines[: rng.randint(2, 4)]) + "\n")
    return found
