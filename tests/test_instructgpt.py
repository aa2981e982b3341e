"""The whole of InstructGPT is its three steps: the same models, in one run that goes on within and between them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_recipes import assert_same, final  # pyrefly: ignore
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from volition.cli import main
from volition.feedback import instructgpt, ppo_ptx, reward_model, sft
from volition.run import Run
from volition.stage import Stage

NAMES = ("sft", "reward", "ppo", "ptx")


class Interruption(Exception):
    """What ends a process between two steps."""


def test_stopped_before_any_step_it_goes_on_to_the_same_end(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "instructgpt:tiny", "--quiet", "--log-every", "4", "--run"]
    assert main([*words, "whole"]) == 0

    def stop(*_: Any) -> None:
        raise Interruption

    for module in (reward_model, ppo_ptx):
        with monkeypatch.context() as patch, pytest.raises(Interruption):
            patch.setattr(module, "train", stop)
            main([*words, "stopped"])
    assert main([*words, "stopped"]) == 0
    assert_same(final(toy / "whole"), final(toy / "stopped"))
    assert (toy / "whole" / "metrics.jsonl").read_bytes() == (toy / "stopped" / "metrics.jsonl").read_bytes()
    for name in NAMES:
        one, other = (toy / run / name / "model" / "model.safetensors" for run in ("whole", "stopped"))
        assert one.read_bytes() == other.read_bytes()


def test_every_model_is_there_for_transformers_and_the_first_is_that_of_sft_alone(toy: Path) -> None:
    assert main(["train", "instructgpt:tiny", "--run", "a", "--quiet"]) == 0
    for name in ("sft", "ppo", "ptx"):
        AutoModelForCausalLM.from_pretrained(f"a/{name}/model")
    assert AutoModelForSequenceClassification.from_pretrained("a/reward/model").num_labels == 1
    assert main(["train", "sft:tiny", "--run", "alone", "--quiet"]) == 0
    weights = [(toy / f / "model" / "model.safetensors").read_bytes() for f in ("a/sft", "alone")]
    assert weights[0] == weights[1]
    assert main(["watch", "a"]) == 0
    shown = (toy / "a" / "completions.txt").read_text()
    assert all(f"  {name:<7}  " in shown for name in ("SFT", "PPO", "PPO-ptx")) and "[reward " in shown


def test_stages_keep_names_updates_and_folders_apart() -> None:
    run, seen = Run(log_every=1), []
    for name, first, updates in (("one", 0, 3), ("two", 3, 2)):
        stage = Stage(run, name, first)
        layer = torch.nn.Linear(1, 1)
        stage.track(policy=layer)
        for update in stage.loop(updates):
            seen.append((name, update))
            stage.log(update, loss=update)
        assert stage.end == first + updates and stage.path("x").parent.name == name
    assert seen == [("one", 0), ("one", 1), ("one", 2), ("two", 0), ("two", 1)]
    assert [sorted(line) for line in run.history] == [["one_loss", "update"]] * 3 + [["two_loss", "update"]] * 2
    assert run.step == 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ppo.model", "x"], "--ppo.model is what the step before makes"),
        (["--ppo.prompts", "x.txt"], "give --reward.preferences FILE"),
        (["--sft.mix", "2"], "mix is 2.0"),
    ],
)
def test_mistakes_are_told_in_one_line(words: list[str], told: str, toy: Path, capsys: Any) -> None:
    assert main(["train", "instructgpt:tiny", *words]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("prompts", "told"), [("nowhere.txt", "nowhere.txt cannot be read"), ("ten.txt", "nowhere.jsonl cannot be read")]
)
def test_a_later_steps_file_is_read_before_the_first_step(prompts: str, told: str, toy: Path, capsys: Any) -> None:
    (toy / "ten.txt").write_text("\n".join(f"say {i}" for i in range(10)))
    words = ["--ppo.prompts", prompts, "--reward.preferences", "nowhere.jsonl", "--run", "one"]
    assert main(["train", "instructgpt:tiny", *words]) == 2
    assert told in capsys.readouterr().err and not (toy / "one" / "sft").exists()


def test_the_steps_begin_where_the_others_ended() -> None:
    config = instructgpt.VARIANTS["tiny"]
    run = Run()
    found = {name: settings for name, _, settings in instructgpt.steps(config, run)}
    assert list(found) == list(NAMES) and found["sft"] == sft.VARIANTS["tiny"]
    assert found["reward"].model == found["ppo"].model == found["ptx"].model == str(run.path("sft") / "model")
    assert found["ppo"].reward == found["ptx"].reward == str(run.path("reward") / "model")
    assert found["ppo"].ptx == 0 and found["ptx"].ptx == config.ppo.ptx > 0
