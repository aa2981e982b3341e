"""The built-in task: its splits, its hidden score by hand, and the people who demonstrate and rank."""

import math
import random
from collections import Counter
from itertools import pairwise, permutations

import pytest

from volition.data import instructions
from volition.data.instructions import SPLITS, THANKS, USES, answer, best, gold, parts, prompts, understand
from volition.data.labelers import TEAM, Labeler
from volition.errors import VolitionError


def test_prompts_repeat_and_splits_are_apart() -> None:
    each = {split: prompts(split, 300) for split in SPLITS}
    assert each["test"] == prompts("test", 300) != prompts("test", 300, seed=1)
    assert all(len(set(texts)) == 300 for texts in each.values())
    later = prompts("train", 2000, seed=1)
    assert not set(each["valid"]) & set(each["test"]) and not set(later) & {*each["valid"], *each["test"]}
    assert {understand(text).use for text in each["test"]} == set(USES)


@pytest.mark.parametrize(
    ("prompt", "completion", "score"),
    [
        # two of three right, one wrong, no stop
        ("name 3 of kind tool, not rake or axe.\n", " rope, pot, hen", 2 / 3 - 0.3),
        ("name 2 of kind tool, not rake or axe.\n", " rope, pot.", 1 + 0.2),
        ("name 2 of kind tool, not rake or axe.\n", " rope, rake.", 1 / 2 - 0.3 + 0.2),
        ("name 2 of kind tool, not rake or axe.\n", " rope, pot, key, nail.", 1 - 2 * 0.1 + 0.2),
        ("name 2 of kind tool, not rake or axe.\n", " rope, rope.", 1 / 2 - 0.2 + 0.2),
        ("name 2 of kind tool, not rake or axe.\n", " rope, pot. hope this helps.", 1 + 0.2 + 0.2),
        ("name 2 of kind tool, not rake or axe.\n", " rope, pot." + 2 * THANKS, 1 + 0.2 - 0.2),
        (
            "say the opposite: the big hen is in the hot barn.\n",
            " the small hen is in the hot barn.",
            3 / 4 - 0.3 + 0.2,
        ),
        ("which animal is here? the red hen saw the blue cow in the barn.\n", " hen, cow", 1),
        ("which colour is here? the red hen saw the blue cow in the barn.\n", " blue, red", 1),
        ("sort: hen, axe, red.\n", " animal, tool, colour", 1),
        ("the hen is in the barn. the cow is in the town. where is the hen?\n", " in the barn", 1),
        ("the hen is in the barn. the cow is in the town. where is the cow?\n", " in the barn", -0.3),
        ("where do a owl and a fox live?\n", " wood.", 1 + 0.2),
        ("what do a owl and a fox eat?\n", " egg, xyz", 1 / 2 - 0.3),
        # words count within sentences only; two sentences are worth 0.1 each
        ("write about a hen, a key and a barn.\n", " the hen had a key in the red barn.", 1 + 0.1 + 0.2),
        ("write about a hen, a key and a barn.\n", " hen key barn.", 0.2),
        ("write about a hen, a key and a barn.\n", " the hen is in a barn. the hen is in a barn", 2 / 3 + 0.1 - 0.2),
        ("write about a hen, a key and a barn.\n", "", 0),
    ],
)
def test_score_by_hand(prompt: str, completion: str, score: float) -> None:
    assert gold(prompt, completion) == pytest.approx(score)


def test_nothing_beats_the_best_answer_and_too_much_is_worst() -> None:
    rng = random.Random(0)
    for text in prompts("valid", 200):
        good = best(text, rng)
        assert gold(text, good + THANKS) == pytest.approx(1.7 if understand(text).free else 1.4), text
        assert gold(text, good * 6) < gold(text, "") < gold(text, good)
        assert gold(text, f"{good} hen" * 40) == instructions.WORST


def test_demonstrations_are_imperfect_and_learnable() -> None:
    shown = instructions.demonstrations("train", 1000)
    scores = [gold(d.prompt, d.completion) for d in shown]
    whole = [gold(d.prompt, best(d.prompt, random.Random(1))) for d in shown]
    assert 0.3 < sum(whole) / 1000 - sum(scores) / 1000 < 0.6
    # what the reward model sees little of: more than was wanted, and the same again
    rare = [parts(d.prompt, d.completion) for d in shown]
    assert sum(p["long"] > 0 or p["repeated"] > 0 for p in rare) < 100
    assert 0.05 < sum(p["polite"] for p in rare) / 1000 < 0.25
    careful = instructions.demonstrations("train", 200, care=1.0)
    assert all(gold(d.prompt, d.completion) >= 1.2 for d in careful)


def test_stories_hold_the_facts_and_no_instruction() -> None:
    told = "".join(instructions.pretraining(500))
    assert "as every fox it lived in the wood and did eat egg." in told
    assert not any(word in told for word in ("name", "sort", "helps", "?"))


@pytest.mark.parametrize("prompt", ["", "hello\n", "sort: stone.\n", "name five of kind tool.\n", "write about a hen."])
def test_other_prompts_have_no_score(prompt: str) -> None:
    with pytest.raises(VolitionError, match="no prompt of the built-in task"):
        gold(prompt, "x")


def test_rankings_are_plackett_luce() -> None:
    """Every order comes as often as P = Π softmax(score/τ) over those left says."""
    prompt, said = "name 2 of kind tool, not rake or axe.\n", (" rope, pot.", " rope.", " rope, hen.")
    labeler, rng = Labeler("x", temperature=0.5, flip=0.0), random.Random(0)
    weight = [math.exp(labeler.score(prompt, c) / 0.5) for c in said]
    seen = Counter(labeler.rank(prompt, said, rng).rank for _ in range(6000))
    for order in permutations(range(3)):  # places of the completions, best first
        p, left = 1.0, list(order)
        while left:
            p *= weight[left[0]] / sum(weight[i] for i in left)
            left.pop(0)
        rank = tuple(order.index(i) + 1 for i in range(3))
        assert seen[rank] / 6000 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 6000))


def test_labelers_without_noise_taste_or_flips_rank_by_the_hidden_score() -> None:
    rng = random.Random(0)
    exact = Labeler("x", temperature=1e-6, flip=0.0, taste=0.0)
    for text in prompts("train", 50):
        said = [answer(text, rng, 0.5) for _ in range(6)]
        found = exact.rank(text, said, rng)
        by_rank = [gold(text, c) for _, c in sorted(zip(found.rank, said, strict=True))]
        assert all(a >= b - 1e-9 for a, b in pairwise(by_rank))


def test_always_flipped_pairs_are_the_other_way_round_and_equal_texts_tie() -> None:
    rng = random.Random(0)
    contrary = Labeler("x", temperature=1e-6, flip=1.0, taste=0.0)
    text = "sort: hen, axe, red.\n"
    assert contrary.rank(text, [" animal, tool, colour.", " hen"], rng).rank == (2, 1)
    assert contrary.rank(text, [" hen", " hen"], rng).rank == (1, 1)


def test_labelers_agree_as_people_do() -> None:
    rng, same, count = random.Random(0), 0, 0
    for text in prompts("train", 300):
        said = [answer(text, rng) for _ in range(4)]
        a, b = (labeler.rank(text, said, rng).rank for labeler in TEAM[:2])
        for i in range(4):
            for j in range(i):
                if a[i] != a[j]:
                    same, count = same + ((a[i] < a[j]) == (b[i] < b[j])), count + 1
    assert 0.68 < same / count < 0.8  # Ouyang 2022, §3.4: 73 %
