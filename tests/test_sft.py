"""Fine-tuning: what is learned from, how much of it, and which weights are kept."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_language import gpt  # pyrefly: ignore
from transformers import AutoModelForCausalLM

from volition.cli import main
from volition.data.order import Order
from volition.data.packing import pack
from volition.feedback import sft
from volition.feedback._models import Learned, texts_loss, write
from volition.feedback._start import Lessons
from volition.feedback._text import Gpt, gather
from volition.nets.language import Scalar
from volition.run import Run

TEXT = gather("", Gpt(300, 1, 16, 2, 160), 6)


def test_only_the_completion_is_learned() -> None:
    """The loss is −mean log π over the completions' tokens and EOS, all texts' tokens counting alike."""
    model = gpt()
    prompts, completions = [[5, 6, 7], [8, 9]], [[10, 0], [11, 12, 13, 0]]
    total = 0.0
    for prompt, completion in zip(prompts, completions, strict=True):
        logs = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
        total += sum(logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(completion))
    assert texts_loss(model, pack(prompts, completions, 1)).item() == pytest.approx(-total / 6, rel=1e-5)


def test_of_all_texts_the_share_that_was_asked_for_is_pretraining() -> None:
    lessons = Lessons(TEXT, 8, torch.Generator().manual_seed(0))
    stories = {tuple(ids) for ids in TEXT.pretraining["train"]}
    told = 0
    for update in range(10):
        packed = lessons.take(update, 0.1)
        for ids, where in zip(packed.ids.tolist(), packed.where.tolist(), strict=True):
            starts = [i for i, place in enumerate(where) if place == 0] + [len(where)]
            told += sum(tuple(ids[a:b]) in stories for a, b in pairwise(starts))
    assert told == 8


def test_every_row_comes_once_before_any_comes_again() -> None:
    order = Order(7, torch.Generator().manual_seed(0))
    drawn = [i for _ in range(7) for i in order.take(3)]
    assert all(sorted(drawn[k : k + 7]) == list(range(7)) for k in (0, 7, 14))
    again = Order(7, torch.Generator().manual_seed(1))
    order.take(2)
    again.load_state_dict(order.state_dict())
    assert again.take(5) == order.take(5)
    with pytest.raises(ValueError, match="more than the 3 rows"):
        Order(3, torch.Generator()).load_state_dict({"left": torch.tensor([5])})


def test_prompts_of_the_three_splits_are_different() -> None:
    sets = [set(TEXT.prompts[split]) for split in ("train", "valid", "test")]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_the_model_that_the_reward_model_likes_best_is_kept(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", "sft:tiny", "--run", "first", "--quiet"]) == 0
    model = AutoModelForCausalLM.from_pretrained("first/model")
    write(Scalar(model), TEXT.tokens.load("first/model"), toy / "reward")
    given = iter([0.5, 2.0, 1.0, -1.0])
    seen: list[dict[str, Any]] = []

    def score(config: Any, model: Any, *_: Any) -> float:
        seen.append({name: x.clone() for name, x in Learned(model).state_dict().items()})
        return next(given)

    monkeypatch.setattr(sft, "mean_score", score)
    assert main(["train", "sft:tiny", "--run", "a", "--quiet", "--reward", "reward", "--choices", "4"]) == 0
    assert len(seen) == 4
    kept = dict(AutoModelForCausalLM.from_pretrained("a/model").named_parameters())
    assert all(torch.equal(kept[name], x) for name, x in seen[1].items())
    assert not all(torch.equal(kept[name], x) for name, x in seen[2].items())
    assert Run.open("a", sft.Config).saved("best")["score"] == 2.0


def test_a_model_of_ones_own_is_read_and_saved_again(toy: Path) -> None:
    assert main(["train", "sft:tiny", "--run", "first", "--quiet"]) == 0
    own = [{"prompt": f"say {i}\n", "completion": f" {i}."} for i in range(20)]
    (toy / "own.jsonl").write_text("\n".join(map(json.dumps, own)))
    words = ["train", "sft:tiny", "--quiet", "--model", "first/model", "--demonstrations", "own.jsonl"]
    assert main([*words, "--run", "whole"]) == 0
    assert main([*words, "--run", "adapters", "--lora", "2", "--mix", "0.5"]) == 0
    assert (toy / "adapters" / "model" / "adapter_model.safetensors").exists()
    for folder in ("whole", "adapters"):
        assert main(["evaluate", folder]) == 0
        line = json.loads((toy / folder / "results.jsonl").read_text())
        assert line["data"] == "own.jsonl" and "gold" not in line["metrics"]


def test_answers_that_say_nothing_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """HH has such rows."""
    rows = [{"chosen": f"\n\nHuman: {i}?\n\nAssistant:{' so' if i else ''}", "rejected": "…"} for i in range(11)]
    (tmp_path / "hh.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = gather("", Gpt(300, 1, 16, 2, 160), 6, str(tmp_path / "hh.jsonl"))
    assert "1 of 11 demonstrations that say nothing are left out" in capsys.readouterr().err
    assert sum(map(len, text.demonstrations.values())) == 10


def test_long_texts_are_left_out_and_counted(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"say {i}\n" + str(7**600) * (i % 10 == 0), "completion": " yes."} for i in range(30)]
    (toy / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["train", "sft:tiny", "--quiet", "--demonstrations", "own.jsonl"]) == 0
    assert "3 of 24 train demonstrations longer than 160 tokens are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "nowhere"], "there is no folder nowhere"),
        (["--lora", "2"], "adapters need a trained model beneath them"),
        (["--mix", "1.0"], "mix is 1.0"),
        (["--demonstrations", "few.jsonl"], "few.jsonl holds 3 rows: ten are needed"),
        (["--demonstrations", "bad.jsonl"], "bad.jsonl, line 2"),
        (["--pretraining", "nothing.txt"], "nothing.txt cannot be read"),
        (["--gpt.vocab", "100"], "a vocabulary of 100 cannot hold"),
    ],
)
def test_mistakes_are_told_in_one_line(words: list[str], told: str, toy: Path, capsys: Any) -> None:
    row = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    (toy / "few.jsonl").write_text(row * 3)
    (toy / "bad.jsonl").write_text(row + '{"prompt": "a"}\n' + row)
    assert main(["train", "sft:tiny", *words]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1


def test_a_tokenizer_of_another_model_is_refused(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sft:tiny", "--run", "first", "--quiet"]) == 0
    TEXT.tokens.train(TEXT.prompts["train"], 400).save("first/model")
    assert main(["train", "sft:tiny", "--model", "first/model"]) == 2
    assert "tokens, the model 300: they belong apart" in capsys.readouterr().err
