"""What the recipes that learn from rankings do with them."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_language import gpt  # pyrefly: ignore

from volition.core.completions import group_advantage
from volition.data import instructions, preferences
from volition.data.labelers import TEAM
from volition.data.preferences import Preference
from volition.data.tokens import Tokens
from volition.errors import VolitionError
from volition.feedback import dpo, reward_model
from volition.feedback._rankings import batch, rankings, rows_of_pairs, shared_scores
from volition.nets.language import Scalar, small_gpt
from volition.run import Run


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    shown = instructions.demonstrations("train", 100)
    return Tokens.train([text for d in shown for text in (d.prompt, d.completion)], 300)


def people(count: int) -> list[Preference]:
    """Rankings of demonstrators' answers."""
    rng = random.Random(0)
    rows = (
        TEAM[0].rank(p, [instructions.answer(p, rng) for _ in range(4)], rng)
        for p in instructions.prompts("train", count)
    )
    return [row for row in rows if preferences.pairs(row)]


def read(path: Path, tokens: Tokens, room: int) -> dict[str, list[Preference]]:
    return rankings(preferences.read(path), None, tokens, 0, 0, 0, room, Run())


def test_no_prompt_is_both_learned_from_and_tested_with(tmp_path: Path, tokens: Tokens) -> None:
    rows = people(100)
    preferences.write(tmp_path / "a.jsonl", rows + rows)  # as when two people rank each prompt
    found = read(tmp_path / "a.jsonl", tokens, 1000)
    learned, tested = ({p.prompt for p in found[split]} for split in ("train", "test"))
    assert learned and tested and not learned & tested
    assert len(found["train"]) + len(found["test"]) == 2 * len(rows)


def test_long_and_tied_rankings_are_told_and_counted(
    tmp_path: Path, tokens: Tokens, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = people(60)
    long = [Preference(f"{i} {'name ' * 200}\n", ("a", "b"), (1, 2)) for i in range(30)]
    tied = [Preference(f"{i}\n", ("a", "b"), (1, 1)) for i in range(30)]
    preferences.write(tmp_path / "a.jsonl", rows + long + tied)
    found = read(tmp_path / "a.jsonl", tokens, 150)
    assert sum(map(len, found.values())) == len(rows)
    told = capsys.readouterr().err.splitlines()
    assert sum(int(line.split()[1]) for line in told if "exceed 150 tokens" in line) == 30
    assert sum(int(line.split()[1]) for line in told if "nothing but ties" in line) == 30


def test_too_few_rankings_are_refused(tmp_path: Path, tokens: Tokens) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "p", "completions": ["a", "b"], "rank": [1, 2]}))
    with pytest.raises(VolitionError, match="rankings are left: give more"):
        read(tmp_path / "a.jsonl", tokens, 100)


def test_simulated_rankings_are_made_once_and_repeat(tmp_path: Path, tokens: Tokens) -> None:
    torch.manual_seed(0)
    model = small_gpt(len(tokens), tokens.eos, tokens.pad, 160, 1, 16, 2)
    kept = []
    for name in ("a", "b"):
        run = Run(tmp_path / name, config={}, quiet=True)
        before = run.generator.get_state()
        first = rankings([], model, tokens, 20, 3, 6, 160, run)
        assert rankings([], None, tokens, 20, 3, 6, 160, run) == first  # from the file, where no model is asked
        assert torch.equal(run.generator.get_state(), before)
        kept.append((tmp_path / name / "rankings.jsonl").read_bytes())
        run.close()
    assert kept[0] == kept[1]
    assert {p.labeler for p in first["train"]} <= {labeler.name for labeler in TEAM[:-1]}


def test_scores_of_a_batch_stand_beside_their_ranks(tokens: Tokens) -> None:
    rows = [Preference("why?\n", (" so.", " no", " because it is."), (2, 3, 1)), Preference("ay\n", (" x", ""), (1, 2))]
    torch.manual_seed(0)
    model = Scalar(small_gpt(len(tokens), tokens.eos, tokens.pad, 160, 1, 16, 2), std=0.5)
    shared, rank = batch(rows, tokens, torch.device("cpu"))
    assert rank.tolist() == [[2, 3, 1], [1, 2, 0]]
    found = shared_scores(model, shared)
    for row, score in zip(rows, found, strict=True):
        for said, s in zip(row.completions, score, strict=False):
            ids = torch.tensor([[*tokens.encode(row.prompt), *tokens.encode(said), tokens.eos]])
            assert s.item() == pytest.approx(model.score(ids, torch.ones_like(ids, dtype=torch.bool)).item(), abs=1e-5)


def test_pairs_apart_are_the_same_pairs() -> None:
    row = Preference("p", ("a", "b", "c"), (2, 1, 2), "ann")
    assert rows_of_pairs([row]) == [
        Preference("p", ("b", "a"), (1, 2), "ann"), Preference("p", ("b", "c"), (1, 2), "ann"),
    ]  # fmt: skip


@pytest.mark.parametrize("recipe", [reward_model, dpo])
def test_rankings_of_ones_own_are_evaluated_on_their_own_prompts(recipe: Any, tmp_path: Path) -> None:
    """Not on the built-in task, whose hidden score knows nothing of them."""
    rows = [Preference(f"say {i}\n", ("a", "b"), (1, 2)) for i in range(60)]
    preferences.write(tmp_path / "a.jsonl", rows)
    config = replace(recipe.VARIANTS["tiny"], preferences=str(tmp_path / "a.jsonl"))
    begun = recipe.begin(config, Run(tmp_path / "run", quiet=True))
    text = begun[0] if recipe is reward_model else begun[0].text
    assert text.gold is None
    for split in ("train", "test"):
        assert set(text.prompts[split]) == {p.prompt for p in begun[-1][split]} <= {p.prompt for p in rows}
    run = Run(tmp_path / "run", config=config, quiet=True)
    recipe.train(config, run)
    found = recipe.evaluate(config, Run.open(tmp_path / "run", recipe.Config))
    assert "accuracy" in found and not any("gold" in name for name in found)


def test_group_advantage_by_hand() -> None:
    found = group_advantage(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert found[0].tolist() == pytest.approx([-1, 0, 1], abs=1e-3) and found[1].tolist() == [0, 0, 0]


def test_grpo_without_clip_or_kl_is_the_policy_gradient() -> None:
    """−∇ mean over completions of mean over tokens of A·log π, where π is still the policy that spoke."""
    from volition.feedback import grpo
    from volition.nets.language import log_probs

    model = gpt()
    torch.manual_seed(0)
    ids, mask = torch.randint(3, 20, (4, 7)), torch.ones(4, 7, dtype=torch.bool)
    mask[1, 5:] = False
    spoken = mask & (torch.arange(7) >= 3)
    with torch.no_grad():
        old = log_probs(model, ids, mask, spoken)
    rows = {"ids": ids, "mask": mask, "spoken": spoken, "log_prob": old, "ref_log_prob": old}
    rows["advantage"] = torch.randn(4, 1).expand(4, 7)
    grpo.gradient(grpo.Config(beta=0.0, clip=1e9), model, rows)
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    mean = (log_probs(model, ids, mask, spoken) * rows["advantage"]).sum(1) / spoken.sum(1)
    (-mean.mean()).backward()
    wanted = [p.grad for p in model.parameters() if p.grad is not None]
    for mine, other in zip(found, wanted, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
