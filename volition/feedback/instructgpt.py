"""InstructGPT: fine-tuning, a reward model, and PPO-ptx against it, in one command and one folder.

Ouyang et al. (2022), "Training language models to follow instructions with human feedback".

step 1   sft: a language model imitates demonstrations
step 2   reward_model: completions of that model are ranked, and a copy of it learns the ranking
step 3   ppo_ptx: another copy learns to please the reward model, near itself and without forgetting what it had read;
         beside it PPO without pretraining text, to see what that costs
Each step is its own recipe, in the folders sft, reward, ppo and ptx; every model there is one that transformers reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from volition.data import preferences
from volition.errors import VolitionError
from volition.feedback import ppo_ptx, reward_model
from volition.feedback import sft as tuning
from volition.feedback._models import complete
from volition.feedback._outcome import judges
from volition.feedback._show import draw_frontier, read_history, side_by_side
from volition.feedback._text import sources
from volition.run import Run
from volition.stage import Stage


@dataclass(frozen=True)
class Config:
    sft: tuning.Config = field(default_factory=lambda: replace(tuning.VARIANTS["laptop"], mix=0.1))
    """Step 1; a tenth of pretraining text is mixed in, as for the model that PPO begins from (appendix C.3)."""
    reward: reward_model.Config = field(default_factory=lambda: reward_model.VARIANTS["laptop"])
    """Step 2; `model` is what step 1 leaves."""
    ppo: ppo_ptx.Config = field(default_factory=lambda: ppo_ptx.VARIANTS["laptop"])
    """Step 3; `model`, `reward` and, where not given, prompts and pretraining text are those of the steps before."""
    plain: bool = True
    """Train PPO with ptx 0 as well."""

    def __post_init__(self) -> None:
        given = {"reward.model": self.reward.model, "ppo.model": self.ppo.model, "ppo.reward": self.ppo.reward}
        for name, folder in given.items():
            if folder:
                raise VolitionError(f"--{name} is what the step before makes: leave it out, or train that recipe alone")
        if (self.sft.demonstrations or self.ppo.prompts) and not self.reward.preferences:
            raise VolitionError("prompts of one's own need rankings by people: give --reward.preferences FILE")


VARIANTS = {
    "tiny": Config(tuning.VARIANTS["tiny"], reward_model.VARIANTS["tiny"], ppo_ptx.VARIANTS["tiny"]),
    "laptop": Config(),
}
DISTRIBUTED = True
PAPER = {
    "metric": "ptx_gold",
    "unit": "",
    "better": "higher",
    "baselines": ("sft_gold", "ppo_gold"),
    "data": "",
    "source": "Ouyang 2022",
    "rows": {},
}


def steps(config: Config, run: Run) -> Iterator[tuple[str, Any, Any]]:
    """Name, recipe and settings of each step, those of a step with the folders that the steps before it leave."""
    own, reward = str(run.path("sft") / "model"), str(run.path("reward") / "model")
    yield "sft", tuning, config.sft
    shown = config.reward.demonstrations or config.sft.demonstrations
    yield "reward", reward_model, replace(config.reward, model=own, demonstrations=shown)
    ppo = replace(
        config.ppo, model=own, reward=reward, prompts=config.ppo.prompts or config.sft.demonstrations,
        pretraining=config.ppo.pretraining or config.sft.pretraining,
    )  # fmt: skip
    if config.plain and config.ppo.ptx:
        yield "ppo", ppo_ptx, replace(ppo, ptx=0.0)
    yield "ptx", ppo_ptx, ppo


def train(config: Config, run: Run | None = None) -> Any:
    """One step after the other; the last one's policy."""
    run = run or Run()
    check(config)
    first, model = 0, None
    for name, recipe, settings in steps(config, run):
        stage = Stage(run, name, first)
        model = recipe.train(settings, stage)
        first = stage.end
    return model


def check(config: Config) -> None:
    """Read what a later step will read: a mistake in it is told before the first."""
    files = config.sft.demonstrations, config.ppo.prompts, config.ppo.pretraining
    if any(files):
        sources(*files)
    if config.reward.preferences:
        preferences.read(config.reward.preferences)


def evaluate(config: Config, run: Run) -> dict[str, float]:
    """What `ppo_ptx` measures, for each policy, and the reward model's accuracy."""
    found: dict[str, float] = {}
    for name, recipe, settings in steps(config, run):
        measured = recipe.evaluate(settings, Stage(run, name, 0))
        if recipe is ppo_ptx:  # both policies are set beside the same model, which each measures
            found |= {(what if what.startswith("sft_") else f"{name}_{what}"): x for what, x in measured.items()}
        elif recipe is reward_model:
            found |= measured
    return found


def watch(config: Config, run: Run) -> list[Path]:
    """Completions of all policies side by side with their scores, and reward against √KL."""
    said: dict[str, list[str]] = {}
    shown: list[str] = []
    marks: dict[str, Any] = {}
    seed = int(torch.randint(2**31, (), generator=run.generator, device=run.device))
    for name, recipe, settings in steps(config, run):
        if recipe is not ppo_ptx:
            continue
        stage: Any = Stage(run, name, 0)
        team = ppo_ptx.trained(settings, stage)
        shown, marks = team.text.prompts["test"][:12], judges(team)

        def say(model: Any, team: Any = team, most: int = settings.completion) -> list[str]:
            generator = torch.Generator(run.device).manual_seed(seed)
            return complete(model, team.text.prompts["test"][:12], team.text.tokens, most, generator)

        with team.reference() as reference:
            said.setdefault("SFT", say(reference))
        said["PPO-ptx" if settings.ptx else "PPO"] = say(team.policy)
    history = read_history(run.path("metrics.jsonl"))
    curves = {
        name: [{k.removeprefix(f"{key}_"): v for k, v in row.items() if k.startswith(f"{key}_")} for row in history]
        for key, name in (("ppo", "PPO"), ("ptx", "PPO-ptx"))
    }
    return [
        side_by_side(shown, said, marks, run.path("completions.txt")),
        draw_frontier(curves, run.path("kl_reward.png")),
    ]
