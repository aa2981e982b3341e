"""GRPO: a language model learns from reward, each completion's baseline being the others of its prompt.

Shao et al. (2024), "DeepSeekMath: pushing the limits of mathematical reasoning in open language models", §4.1.

state    s_t, a prompt and the tokens of its completion so far
action   a_t ~ π(a|s_t, θ), the next token
reward   the score of the whole completion
training A = (r − mean)/sd among the K completions of a prompt, the same for all tokens of one;
         L = mean over completions and their tokens of −min(ρ·A, clip(ρ, 1 ± ε)·A) + β·(π_ref/π − 1 − log(π_ref/π))
There is no critic. Without --model a small GPT is fine-tuned first; without --reward the hidden score of the built-in
task is the reward.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volition import distributed
from volition.core.completions import group_advantage
from volition.core.losses import clipped_surrogate, kl_k3
from volition.core.schedules import linear
from volition.data.order import Order
from volition.errors import VolitionError
from volition.feedback import _outcome
from volition.feedback._models import Learned, adam, leave, step, texts
from volition.feedback._start import Team, gather_team
from volition.feedback._text import Gpt
from volition.machine import multiplies_bf16
from volition.nets.generate import generate
from volition.nets.language import log_probs
from volition.run import Run


@dataclass(frozen=True)
class Config:
    model: str = ""
    """Folder of the fine-tuned model to begin from, as volition train sft leaves it; none fine-tunes a small GPT."""
    reward: str = ""
    """Folder of the reward model; none takes the hidden score of the built-in task."""
    lora: int = 0
    """Rank of adapters that learn in place of the model's own weights; 0 for none."""
    prompts: str = ""
    """File of prompts, one a line or JSON lines with prompt; none takes the built-in ones."""
    pretraining: str = ""
    """Text like that which the model read before, for evaluate; none takes built-in stories."""
    gpt: Gpt = field(default_factory=Gpt)
    """The model that is made where no folder is given."""
    start: int = 300
    """Updates of reading, and as many of fine-tuning, of that small model."""
    episodes: int = 16_384
    """Completions to learn from."""
    batch: int = 16
    """Prompts per update."""
    group: int = 8
    """Completions of each, K (64 in the paper)."""
    minibatches: int = 1
    """Parts of the completions of an update, each one step of the optimiser (1 in the paper)."""
    completion: int = 48
    """Tokens that a completion may have."""
    temperature: float = 1.0
    """What divides the logits, in acting and in learning."""
    lr: float = 2e-4
    """Learning rate (1e-6 in the paper)."""
    warmup: int = 10
    """Updates over which it rises from a tenth."""
    clip: float = 0.2
    """ε: how far the probability of a token may move before its advantage stops counting."""
    beta: float = 0.2
    """β, the weight of the KL from the model at the start; 0.04 in the paper leads a small reward model astray."""
    max_norm: float = 1.0
    """Length to which a longer gradient is cut; 0 for no such bound."""
    low_precision: bool = False
    """Compute products in bfloat16, where the processor has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("episodes", "batch", "minibatches", "completion", "start"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lora", "lr", "warmup", "clip", "beta", "max_norm"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.group < 2 or self.temperature <= 0:
            raise VolitionError("group must be 2 or more, for one completion has no others; temperature above 0")
        if self.minibatches > self.batch * self.group:
            raise VolitionError(f"{self.batch * self.group} completions have no {self.minibatches} minibatches")


VARIANTS = {
    "tiny": Config(gpt=Gpt(300, 1, 16, 2, 160), start=3, episodes=96, batch=2, group=4, minibatches=2, completion=6),
    "laptop": Config(),
}
DISTRIBUTED = True
PAPER = {
    "metric": "reward",
    "unit": "",
    "better": "higher",
    "baselines": ("sft_reward",),
    "data": "",
    "source": "Shao 2024",
    "rows": {},
}


def train(config: Config, run: Run | None = None) -> Any:
    """Speak, be judged, improve on it; the model lies in the run's folder `model` as transformers reads it."""
    run = run or Run()
    config = replace(config, low_precision=config.low_precision and multiplies_bf16(run.device))
    team = gather_team(config, run, critic=False)
    policy, prompts = team.policy, team.text.prompts["train"]
    optimizer, asked = adam(policy, config.lr), Order(len(prompts), run.generator)
    run.track(policy=Learned(policy), optimizer=optimizer, asked=asked)
    each = config.batch * config.group
    for update in run.loop(-(-config.episodes // each)):
        rows = [prompts[i] for i in asked.take(config.batch) for _ in range(config.group)]
        batch, seen = speak(config, team, rows, run.generator)
        order = torch.randperm(each, generator=run.generator, device=run.device)
        lr = linear(update, config.lr / 10, config.lr, config.warmup)
        parts: dict[str, Tensor] = {}
        for chosen in order.tensor_split(config.minibatches):
            parts = gradient(config, policy, {name: x[chosen] for name, x in batch.items()})
            parts["gradient"] = step(optimizer, lr, config.max_norm)
        run.log(update, **seen, **parts, episodes=(update + 1) * each)
    leave(policy, team.text.tokens, run)
    return policy


@torch.no_grad()
def speak(
    config: Config, team: Team, prompts: list[str], generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A completion of each prompt with all that learning from it needs, and what is to be logged."""
    tokens = team.text.tokens
    start, real = team.prompts(prompts)
    rows = distributed.mine(len(prompts))
    said = generate(
        team.policy, start, real, config.completion, eos=tokens.eos, pad=tokens.pad, generator=generator,
        temperature=config.temperature, low_precision=config.low_precision, share=rows,
    )  # fmt: skip
    start, real, asked = start[rows], real[rows], prompts[rows]
    ids, mask = torch.cat([start, said.ids], 1), torch.cat([real, said.mask], 1)
    batch = {"ids": ids, "mask": mask, "spoken": torch.cat([torch.zeros_like(real), said.mask], 1)}
    with team.reference() as reference:
        batch["ref_log_prob"] = now(config, reference, batch)
    # not the generator's own, which in bfloat16 is another
    batch["log_prob"] = now(config, team.policy, batch)
    words = texts(said, tokens)
    batch["score"] = team.scores(asked, words, ids, mask)
    if team.text.gold is not None:
        batch["gold"] = team.gold(asked, words)
    batch = distributed.gather(batch, len(prompts))
    gold, score, ids = batch.pop("gold", None), batch.pop("score"), batch["ids"]
    batch["advantage"] = group_advantage(score.view(-1, config.group)).view(-1, 1).expand(ids.shape)
    kl = (batch["log_prob"] - batch["ref_log_prob"]).sum(1).mean()
    seen = {"reward": score.mean(), "kl": kl, "length": batch["spoken"].sum(1).float().mean()}
    return batch, seen if gold is None else seen | {"gold": gold.mean()}


def now(config: Config, model: Any, batch: dict[str, Tensor]) -> Tensor:
    """log π of the tokens spoken, 0 elsewhere, `[N, P + R]`."""
    with torch.autocast(batch["ids"].device.type, torch.bfloat16, enabled=config.low_precision):
        return log_probs(model, batch["ids"], batch["mask"], batch["spoken"], temperature=config.temperature)


def gradient(config: Config, policy: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add ∂L/∂θ of these completions; means of what there is to see."""
    count, rows = len(batch["ids"]), distributed.mine(len(batch["ids"]))
    batch = {name: x[rows] for name, x in batch.items()}
    log_prob, spoken = now(config, policy, batch), batch["spoken"]
    loss = clipped_surrogate(log_prob, batch["log_prob"], batch["advantage"], config.clip)
    # π_ref/π − 1 − log(π_ref/π); its gradient keeps π near π_ref, if not along that of the KL
    distance = kl_k3(log_prob, batch["ref_log_prob"])
    parts = {"policy_loss": loss, "token_kl": distance, "entropy": -log_prob}
    length = spoken.sum(1).clamp(min=1)
    share = len(spoken) / count
    means = {name: (torch.where(spoken, x, 0.0).sum(1) / length).mean() * share for name, x in parts.items()}
    (means["policy_loss"] + config.beta * means["token_kl"]).backward()
    return distributed.summed({name: x.detach() for name, x in means.items()})


def trained(config: Config, run: Run) -> Team:
    """The models of a trained run."""
    team = gather_team(config, run, critic=False)
    Learned(team.policy).load_state_dict(run.saved("policy"))
    return team


def evaluate(config: Config, run: Run) -> dict[str, float]:
    """On test prompts: the judge's and the hidden score, wins, KL, and loss on pretraining text, SFT's beside them."""
    return _outcome.measure(config, run, trained(config, run))


def watch(config: Config, run: Run) -> list[Path]:
    """Completions before and after with their scores, and reward against √KL over training."""
    return _outcome.show(config, run, trained(config, run), "GRPO")
