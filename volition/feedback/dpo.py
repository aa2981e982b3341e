"""DPO: a language model learns a ranking directly, its own log-probabilities being the reward model.

Rafailov et al. (2023), "Direct preference optimization: your language model is secretly a reward model".

data     prompts with K completions in the order that a labeler prefers, ties allowed
network  π, the fine-tuned model; π_ref, the same as it was at the start
training L = −1/C(K,2)·Σ log σ(r_w − r_l), r = β·log(π(y|x)/π_ref(y|x)): the reward model's loss of the reward for
         which π is the best answer to a KL penalty β (eq. 7, for K = 2)
Without --model a small GPT is fine-tuned first; without --preferences simulated labelers rank what it says.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volition import distributed
from volition.core.preferences import dpo_loss, pairs_right
from volition.core.schedules import cosine
from volition.data.order import Order
from volition.data.preferences import read
from volition.data.sharing import Shared
from volition.errors import VolitionError
from volition.feedback import _outcome
from volition.feedback._models import Learned, adam, leave, step
from volition.feedback._rankings import Rankings, batch, own_prompts, rankings, shared_log_probs
from volition.feedback._start import Team, gather_team
from volition.feedback._text import Gpt
from volition.machine import multiplies_bf16
from volition.nets.language import context
from volition.run import Run


@dataclass(frozen=True)
class Config:
    model: str = ""
    """Folder of the fine-tuned model to begin from, as volition train sft leaves it; none fine-tunes a small GPT."""
    reward: str = ""
    """Folder of a reward model, which evaluate asks too; nothing is learned from it."""
    lora: int = 0
    """Rank of adapters that learn in place of the model's own weights; 0 for none."""
    preferences: str = ""
    """File of rankings, of volition label or in any known form; none simulates labelers."""
    prompts: str = ""
    """File of prompts that evaluate has answered; none takes those of the rankings."""
    pretraining: str = ""
    """Text like that which the model read before, for evaluate; none takes built-in stories."""
    gpt: Gpt = field(default_factory=Gpt)
    """The model that is made where no folder is given."""
    start: int = 300
    """Updates of reading, and as many of fine-tuning, of that small model."""
    ranked: int = 6000
    """Prompts whose completions the simulated labelers rank."""
    ways: int = 6
    """Completions of each that they rank, K."""
    completion: int = 48
    """Tokens that a completion may have."""
    temperature: float = 1.0
    """What divides the logits when evaluate has prompts answered."""
    batch: int = 16
    """Prompts per update, with all pairs of their completions (64 pairs in the paper)."""
    epochs: int = 1
    """Passes over the rankings."""
    beta: float = 0.3
    """β, the price of a nat of KL from the model at the start; 0.1 in the paper takes a small model far away."""
    lr: float = 2e-4
    """Learning rate of Adam, which falls by a cosine to a tenth (1e-6 in the paper)."""
    max_norm: float = 1.0
    """Length to which a longer gradient is cut; 0 for no such bound."""
    low_precision: bool = False
    """Compute products in bfloat16, where the processor has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("start", "ranked", "completion", "batch", "epochs"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lora", "lr", "max_norm"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.ways < 2 or self.beta <= 0 or self.temperature <= 0:
            raise VolitionError("ways must be 2 or more, beta and temperature above 0")


VARIANTS = {
    "tiny": Config(gpt=Gpt(300, 1, 16, 2, 160), start=3, ranked=48, ways=4, completion=6, batch=4),
    "laptop": Config(),
}
DISTRIBUTED = True
PAPER = {
    "metric": "accuracy",
    "unit": "",
    "better": "higher",
    "baselines": ("chance",),
    "data": "",
    "source": "Rafailov 2023",
    "rows": {},
}


def train(config: Config, run: Run | None = None) -> Any:
    """Learn from every ranking; the model lies in the run's folder `model` as transformers reads it."""
    run = run or Run()
    team, rows = begin(config, run)
    optimizer, order = adam(team.policy, config.lr), Order(len(rows["train"]), run.generator)
    run.track(policy=Learned(team.policy), optimizer=optimizer, order=order)
    updates = -(-len(rows["train"]) * config.epochs // config.batch)
    for update in run.loop(updates):
        some = [rows["train"][i] for i in order.take(config.batch)][distributed.mine(config.batch)]
        shared, rank = batch(some, team.text.tokens, run.device)
        log_prob, ref_log_prob = both(config, team, shared)
        loss = dpo_loss(log_prob, ref_log_prob, rank, config.beta).mean() * distributed.fraction(len(some))
        loss.backward()
        norm = step(optimizer, cosine(update, config.lr, config.lr / 10, updates), config.max_norm)
        right, pairs = pairs_right(log_prob.detach() - ref_log_prob, rank)
        seen = distributed.summed({"loss": loss, "right": right.sum(), "pairs": pairs.sum()})
        run.log(update, loss=seen["loss"], accuracy=seen["right"] / seen["pairs"], gradient=norm)
    leave(team.policy, team.text.tokens, run)
    return team.policy


def begin(config: Config, run: Run) -> tuple[Team, Rankings]:
    """The policy as it was, and rankings to learn from and to test with."""
    own = read(config.preferences) if config.preferences else []  # a mistake in it is told before anything is trained
    team = gather_team(config, run, critic=False)
    room = context(config.model or run.path("start"))
    rows = rankings(own, team.policy, team.text.tokens, config.ranked, config.ways, config.completion, room, run)
    if own:
        run.dataset = Path(config.preferences).name
    if own and not config.prompts:
        team.text = own_prompts(team.text, rows, config.completion, room)
    return team, rows


def both(config: Config, team: Team, shared: Shared) -> tuple[Tensor, Tensor]:
    """log π and log π_ref of each completion, `[B, K]`; the second without gradient."""
    device = shared.ids.device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.low_precision and multiplies_bf16(device)):
        with torch.no_grad(), team.reference() as reference:
            ref_log_prob = shared_log_probs(reference, shared)
        return shared_log_probs(team.policy, shared), ref_log_prob


def trained(config: Config, run: Run) -> tuple[Team, Rankings]:
    """The policy as it was trained, and the rankings."""
    team, rows = begin(config, run)
    Learned(team.policy).load_state_dict(run.saved("policy"))
    return team, rows


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float]:
    """The share of test pairs that the implied reward orders as the labelers did, and what the policy's answers are."""
    team, rows = trained(config, run)
    right = pairs = 0.0
    for i in range(0, len(rows["test"]), config.batch):
        shared, rank = batch(rows["test"][i : i + config.batch], team.text.tokens, run.device)
        log_prob, ref_log_prob = both(config, team, shared)
        some = pairs_right(log_prob - ref_log_prob, rank)
        right, pairs = right + some[0].sum().item(), pairs + some[1].sum().item()
    return {"accuracy": right / pairs, "chance": 0.5} | _outcome.measure(config, run, team)


def watch(config: Config, run: Run) -> list[Path]:
    """Completions before and after with their scores."""
    return _outcome.show(config, run, trained(config, run)[0], "DPO")[:1]
