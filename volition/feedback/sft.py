"""SFT, supervised fine-tuning: a language model learns to answer from demonstrations.

Ouyang et al. (2022), "Training language models to follow instructions with human feedback", step 1.

state    s_t, a prompt and the tokens of its completion so far
action   a_t, the next token
training L = −mean log π(a_t|s_t, θ) over the completions' tokens, those of the prompts not; the learning rate falls
         by a cosine to a tenth. Kept are the weights that a reward model likes best, where one is given, else the last.
Without --model a small GPT first reads text (`reading` updates), as the paper's GPT-3 had read the web.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volition import distributed
from volition.core.schedules import cosine
from volition.errors import VolitionError
from volition.feedback._models import (
    Learned,
    adam,
    complete,
    leave,
    make,
    mean_loss,
    place,
    scores,
    step,
    texts_loss,
)
from volition.feedback._show import judge, side_by_side
from volition.feedback._start import Lessons
from volition.feedback._text import Gpt, Text, gather
from volition.machine import multiplies_bf16
from volition.nets.language import Scalar
from volition.run import Run


@dataclass(frozen=True)
class Config:
    model: str = ""
    """Folder of a causal language model that transformers or peft reads; none makes a small GPT."""
    lora: int = 0
    """Rank of adapters that learn in place of the model's own weights; 0 for none."""
    demonstrations: str = ""
    """File of JSON lines with prompt and completion; none takes the built-in instructions."""
    pretraining: str = ""
    """Text like that which the model read before, to be mixed in; none takes built-in stories."""
    reward: str = ""
    """Folder of a reward model, by whose score of validation completions the weights are chosen."""
    gpt: Gpt = field(default_factory=Gpt)
    """The model that is made where no folder is given."""
    reading: int = 600
    """Updates of the small GPT on pretraining text before its first demonstration."""
    updates: int = 4000
    """Updates on demonstrations."""
    batch: int = 32
    """Texts per update."""
    mix: float = 0.0
    """Share of them that is pretraining text; a tenth where PPO is to begin from the result (appendix C.3)."""
    lr: float = 2e-3
    """Learning rate of Adam, which falls by a cosine to a tenth (appendix C.1)."""
    max_norm: float = 1.0
    """Length to which a longer gradient is cut; 0 for no such bound."""
    choices: int = 8
    """Times that the reward model is asked, evenly over the updates on demonstrations."""
    completion: int = 48
    """Tokens that a completion may have."""
    low_precision: bool = False
    """Compute products in bfloat16, where the processor has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "choices", "completion"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lora", "reading", "lr", "max_norm"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.mix < 1:
            raise VolitionError(f"mix is {self.mix}; it is a share, from 0 to below 1")


VARIANTS = {
    "tiny": Config(gpt=Gpt(300, 1, 16, 2, 160), reading=4, updates=8, batch=8, completion=6),
    "laptop": Config(),
    # the constants of appendix C.1 for 1.3 B and 6 B parameters, 16 epochs of 12,725 demonstrations
    "paper": Config(updates=6363, batch=32, lr=9.65e-6, choices=16, completion=1024),
}
DISTRIBUTED = True
PAPER = {
    "metric": "gold",
    "unit": "",
    "better": "higher",
    "baselines": ("demonstrations_gold",),
    "data": "",
    "source": "Ouyang 2022",
    "rows": {},
}


def train(config: Config, run: Run | None = None) -> Any:
    """Read, imitate, and keep the best; the model lies in the run's folder `model` as transformers reads it."""
    run = run or Run()
    low = config.low_precision and multiplies_bf16(run.device)
    text = read(config)
    run.dataset = text.name
    model = place(make(config.model, config.gpt, config.lora, text.tokens), run)
    reward = place(Scalar.load(config.reward), run) if config.reward else None
    optimizer = adam(model, config.lr)
    lessons, best = Lessons(text, config.batch, run.generator), Best(model)
    run.track(policy=Learned(model), optimizer=optimizer, lessons=lessons, best=best)
    reading = 0 if config.model else config.reading
    for update in run.loop(reading + config.updates):
        at, length = (update, reading) if update < reading else (update - reading, config.updates)
        packed = lessons.take(at, 1.0 if update < reading else config.mix, distributed.mine(config.batch))
        loss = texts_loss(model, packed, low) * distributed.fraction(int(packed.asked.sum()))
        loss.backward()
        norm = step(optimizer, cosine(at, config.lr, config.lr / 10, length), config.max_norm)
        run.log(update, **distributed.summed({"loss": loss}), gradient=norm)
        chosen = (at + 1) * config.choices // length > at * config.choices // length
        if reward is not None and update >= reading and chosen:
            score = distributed.agreed(mean_score(config, model, reward, text, run.seed))
            run.log(update, reward=best.offer(score))
    best.restore()
    leave(model, text.tokens, run)
    return model


def read(config: Config) -> Text:
    """What is learned from."""
    return gather(
        config.model, config.gpt, config.completion, config.demonstrations, pretrained=config.pretraining
    )  # fmt: skip


def mean_score(config: Config, model: Any, reward: Scalar, text: Text, seed: int) -> float:
    """The reward model's mean score of one completion of each validation prompt."""
    prompts = text.prompts["valid"]
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)  # the same numbers for each choice
    said = complete(model, prompts, text.tokens, config.completion, generator)
    return scores(reward, prompts, said, text.tokens).mean().item()


class Best:
    """The weights with the highest score so far."""

    def __init__(self, model: Any) -> None:
        self.now, self.score = Learned(model), -torch.inf
        self.weights: dict[str, Tensor] = {}

    def offer(self, score: float) -> float:
        """Keep the weights as they are now if none were better; the score."""
        if score > self.score:
            self.score = score
            self.weights = {name: x.clone() for name, x in self.now.state_dict().items()}
        return score

    def restore(self) -> None:
        """Make the model the best one, if one was chosen."""
        if self.weights:
            self.now.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.weights = state["score"], dict(state["weights"])


def trained(config: Config, run: Run) -> tuple[Any, Text]:
    """The model as it was kept, and what it learned from."""
    text = read(config)
    run.dataset = text.name
    model = make(config.model, config.gpt, config.lora, text.tokens)
    state = run.saved("best")["weights"] if config.reward else run.saved("policy")
    Learned(model).load_state_dict(state)
    return model.to(run.device), text


def evaluate(config: Config, run: Run) -> dict[str, float]:
    """Losses on what was kept aside and, of the built-in task, the hidden score, the demonstrations' own beside it."""
    model, text = trained(config, run)
    found = {
        "loss": mean_loss(model, text.demonstrations["test"], text.tokens.pad),
        "pretraining_loss": mean_loss(model, [([], ids) for ids in text.pretraining["test"]], text.tokens.pad),
    }
    if text.gold:
        prompts = text.prompts["test"]
        said = complete(model, prompts, text.tokens, config.completion, run.generator)
        pairs = [(text.tokens.decode(p), text.tokens.decode(c)) for p, c in text.demonstrations["test"]]
        found["gold"] = judge(text.gold, prompts, said).mean().item()
        found["demonstrations_gold"] = judge(text.gold, *map(list, zip(*pairs, strict=True))).mean().item()
    return found


def watch(config: Config, run: Run) -> list[Path]:
    """Prompts that were kept aside, with completions."""
    model, text = trained(config, run)
    prompts = text.prompts["test"][:12]
    said = {"SFT": complete(model, prompts, text.tokens, config.completion, run.generator)}
    return [side_by_side(prompts, said, {"gold": text.gold} if text.gold else {}, run.path("completions.txt"))]
