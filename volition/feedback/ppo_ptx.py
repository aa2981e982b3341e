"""PPO-ptx: a language model learns to please a reward model without drifting far, and without forgetting how to read.

Ouyang et al. (2022), "Training language models to follow instructions with human feedback", step 3.

state    s_t, a prompt and the tokens of its completion so far
action   a_t ~ π(a|s_t, θ), the next token
reward   r_t = [t is the last]·score − β·(log π(a_t|s_t) − log π_ref(a_t|s_t)), π_ref the policy at the start
network  π, the fine-tuned model; V, begun as the reward model, with an optimiser of its own
training A_t by GAE(λ), whitened; L = −min(r·A, clip(r, 1 ± ε)·A) − γ_ptx·mean log π of pretraining text (eq. 2), both
         gradients summed before a step; V by ½(V − G)², clipped. With ptx 0 it is PPO.
The result is the moving average of the weights. Without --model a small GPT is fine-tuned first; without --reward the
hidden score of the built-in task is the reward.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from volition import distributed
from volition.core.average import Average
from volition.core.completions import Beta, token_advantage, token_reward
from volition.core.losses import clipped_surrogate, clipped_value_loss, kl_k3, masked_mean
from volition.core.normalize import normalize_advantage
from volition.core.schedules import linear
from volition.data.order import Order
from volition.data.packing import pack
from volition.errors import VolitionError
from volition.feedback._models import Learned, adam, leave, step, texts, texts_loss
from volition.feedback._outcome import evaluate, trained, watch
from volition.feedback._start import Team, gather_team
from volition.feedback._text import Gpt, Text
from volition.machine import multiplies_bf16
from volition.nets.generate import generate
from volition.nets.language import log_probs
from volition.run import Run

__all__ = ["PAPER", "VARIANTS", "Config", "evaluate", "train", "trained", "watch"]


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
    """Text like that which the model read before; none takes built-in stories."""
    gpt: Gpt = field(default_factory=Gpt)
    """The model that is made where no folder is given."""
    start: int = 300
    """Updates of reading, and as many of fine-tuning, of that small model."""
    episodes: int = 16_384
    """Completions to learn from."""
    batch: int = 128
    """Completions of one policy (512 in the paper)."""
    minibatches: int = 4
    """Parts of a batch, each one step of the optimisers (8 in the paper)."""
    epochs: int = 1
    """Passes over a batch (appendix C.4)."""
    parts: int = 1
    """Parts of a minibatch that are computed one after the other, to save memory; the gradient is the same."""
    completion: int = 48
    """Tokens that a completion may have."""
    temperature: float = 1.0
    """What divides the logits, in acting and in learning (appendix C.4: 1)."""
    lr: float = 2e-4
    """Learning rate of the policy, after the first batches."""
    warmup: int = 10
    """Batches over which it rises from a tenth (appendix C.4)."""
    critic_lr: float = 5e-4
    """Learning rate of V, constant."""
    gamma: float = 1.0
    """Discount γ (appendix C.4)."""
    lam: float = 0.95
    """λ of the generalised advantage estimate (Ziegler 2019)."""
    clip: float = 0.2
    """ε: how far the probability of a token may move before its advantage stops counting (appendix C.4)."""
    clip_value: float = 0.2
    """How far V may move from what it was, likewise; 0 for no such bound (Ziegler 2019, code)."""
    whiten: bool = True
    """Shift and scale the advantages of a batch to mean 0 and standard deviation 1."""
    unended: float = 1.0
    """Taken from the score of a completion that was cut off; Huang 2024 puts −1 in its place, the paper nothing."""
    beta: float = 0.1
    """β, the price of a nat of KL from the model at the start; 0.02 in the paper leads a small reward model astray."""
    target_kl: float = 0.0
    """KL per completion to which β is steered (Ziegler 2019, §2.2); 0 keeps β."""
    horizon: int = 10_000
    """Completions over which β is steered."""
    ptx: float = 1.0
    """γ_ptx, weight of the language-modelling loss on pretraining text (27.8 in the paper); 0 is PPO."""
    ratio: float = 1.0
    """Pretraining texts per completion (8 in the paper)."""
    average: float = 0.95
    """Decay per batch of the moving average of weights (0.992 in the paper, of thousands of batches); 0 for none."""
    max_norm: float = 1.0
    """Length to which a longer gradient is cut; 0 for no such bound."""
    low_precision: bool = False
    """Compute products in bfloat16, where the processor has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("episodes", "batch", "minibatches", "epochs", "parts", "completion", "start", "horizon"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lora", "lr", "critic_lr", "warmup", "clip", "clip_value", "unended", "beta", "target_kl", "ptx",
                     "ratio", "max_norm"):  # fmt: skip
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1 and 0 <= self.average < 1 and self.temperature > 0):
            raise VolitionError("gamma and lam must lie in 0 … 1, average in 0 … below 1, temperature above 0")
        if self.minibatches * self.parts > self.batch:
            raise VolitionError(f"a batch of {self.batch} has no {self.minibatches} minibatches of {self.parts} parts")


TINY = Config(
    gpt=Gpt(300, 1, 16, 2, 160), start=3, episodes=24, batch=8, minibatches=2, epochs=2, completion=6, warmup=2, parts=2
)
VARIANTS = {
    "tiny": TINY,
    "laptop": Config(),
    "ppo": Config(ptx=0.0),
    # appendix C.4, 1.3 B; the learning rate is of the range that was searched
    "paper": Config(
        episodes=256_000, batch=512, minibatches=8, completion=1024, lr=8.05e-6, critic_lr=9e-6, beta=0.02, ptx=27.8,
        ratio=8.0, average=0.992, unended=0.0,
    ),
    # Ziegler 2019, code: adaptive KL, four passes of one minibatch
    "ziegler": Config(
        episodes=1_000_000, batch=512, minibatches=1, epochs=4, completion=24, temperature=0.7, lr=1e-5, critic_lr=1e-5,
        warmup=0, beta=0.15, target_kl=6.0, ptx=0.0, average=0.0, unended=0.0,
    ),
}  # fmt: skip
DISTRIBUTED = True
PAPER = {
    "metric": "reward",
    "unit": "",
    "better": "higher",
    "baselines": ("sft_reward",),
    "data": "",
    "source": "Ouyang 2022",
    "rows": {},
}


class Rollout:
    """The batch that is being learned from, `[N, …]` each, and the order of its rows in this pass."""

    def __init__(self) -> None:
        self.batch: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch = dict(state["batch"])


def train(config: Config, run: Run | None = None) -> Any:
    """Speak, be judged, improve on it; the averaged model lies in the run's folder `model`."""
    run = run or Run()
    config = replace(config, low_precision=config.low_precision and multiplies_bf16(run.device))
    team = gather_team(config, run)
    text, policy, critic = team.text, team.policy, team.critic
    actor_adam, critic_adam = adam(policy, config.lr), adam(critic, config.critic_lr)
    average = Average(policy.parameters(), config.average)
    beta = Beta(config.beta, config.target_kl, config.horizon)
    rollout = Rollout()
    prompts, stories = text.prompts["train"], text.pretraining["train"]
    asked, told = Order(len(prompts), run.generator), Order(len(stories), run.generator)
    run.track(
        policy=Learned(policy), critic=Learned(critic), actor_adam=actor_adam, critic_adam=critic_adam, average=average,
        beta=beta, rollout=rollout, asked=asked, told=told,
    )  # fmt: skip
    steps = config.epochs * config.minibatches
    for update in run.loop(-(-config.episodes // config.batch) * steps):
        number, part = divmod(update, steps)
        if part == 0:
            rows = [prompts[i] for i in asked.take(config.batch)]
            rollout.batch, seen = speak(config, team, rows, beta, run.generator)
            run.log(update, **seen, episodes=(number + 1) * config.batch)
        if part % config.minibatches == 0:
            device = run.device
            rollout.batch["order"] = torch.randperm(config.batch, generator=run.generator, device=device)
        chosen = rollout.batch["order"].tensor_split(config.minibatches)[part % config.minibatches]
        batch = {name: x[chosen] for name, x in rollout.batch.items() if name != "order"}
        parts = gradients(config, policy, critic, batch)
        if config.ptx:
            count = max(1, round(config.ratio * len(chosen)))
            told_now = [stories[i] for i in told.take(count)]
            parts["ptx_loss"] = ptx_gradient(config, policy, told_now, text)
        lr = linear(number, config.lr / 10, config.lr, config.warmup)
        parts["gradient"] = step(actor_adam, lr, config.max_norm)
        step(critic_adam, config.critic_lr, config.max_norm)
        run.log(update, **parts)
        if part == steps - 1:
            average.update()
    with average.inside():
        leave(policy, text.tokens, run)
    return policy


@torch.no_grad()
def speak(
    config: Config, team: Team, prompts: list[str], beta: Beta, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor | float]]:
    """A completion of each prompt with all that learning from it needs, and what is to be logged."""
    tokens, policy = team.text.tokens, team.policy
    start, real = team.prompts(prompts)
    rows = distributed.mine(len(prompts))
    said = generate(
        policy, start, real, config.completion, eos=tokens.eos, pad=tokens.pad, generator=generator,
        temperature=config.temperature, low_precision=config.low_precision, share=rows,
    )  # fmt: skip
    start, real, asked = start[rows], real[rows], prompts[rows]
    batch = {"ids": torch.cat([start, said.ids], 1), "mask": torch.cat([real, said.mask], 1)}
    spoken = torch.cat([torch.zeros_like(real), said.mask], 1)
    batch["spoken"] = spoken

    def now(model: Any) -> Tensor:
        with torch.autocast(start.device.type, torch.bfloat16, enabled=config.low_precision):
            return log_probs(model, batch["ids"], batch["mask"], spoken, temperature=config.temperature)

    with team.reference() as reference:
        batch["ref_log_prob"] = now(reference)
    # of a generator in bfloat16 the learner's own, so that the first ratio is 1
    batch["log_prob"] = (
        now(policy)
        if config.low_precision
        else torch.cat([torch.zeros_like(start, dtype=torch.float), said.log_prob], 1)
    )
    words = texts(said, tokens)
    score = team.scores(asked, words, batch["ids"], batch["mask"])
    ended = (said.ids.eq(tokens.eos) & said.mask).any(1)
    batch["score"] = score - config.unended * ~ended
    batch["value"] = values(config, team.critic, batch)
    if team.text.gold is not None:
        batch["gold"] = team.gold(asked, words)
    if config.low_precision:
        batch["gap"] = (batch["log_prob"][:, start.shape[1] :] - said.log_prob).abs()
    batch = distributed.gather(batch, len(prompts))  # what follows is of all, in all processes
    spoken, old, value = batch["spoken"], batch["log_prob"], batch["value"]
    score, ref_log_prob = batch.pop("score"), batch.pop("ref_log_prob")
    reward = token_reward(score, old, ref_log_prob, spoken, beta.value)
    advantage, target = token_advantage(reward, value, spoken, config.gamma, config.lam)
    if config.whiten:
        advantage = normalize_advantage(advantage, spoken)
    batch |= {"advantage": advantage, "target": target}
    kl = (old - ref_log_prob).sum(1).mean()
    seen: dict[str, Tensor | float] = {"reward": score.mean(), "kl": kl, "length": spoken.sum(1).float().mean()}
    if team.text.gold is not None:
        seen["gold"] = batch.pop("gold").mean()
    if config.low_precision:
        seen["gap"] = masked_mean(batch.pop("gap"), spoken[:, start.shape[1] :])
    if config.target_kl:
        seen["beta"] = beta.value
        beta.update(kl.item(), len(prompts))
    return batch, seen


def values(config: Config, critic: Any, batch: dict[str, Tensor]) -> Tensor:
    """V of the state in which each token was chosen, in that token's column; 0 elsewhere, `[N, P + R]`."""
    with torch.autocast(batch["ids"].device.type, torch.bfloat16, enabled=config.low_precision):
        value = critic(batch["ids"], batch["mask"])
    before = torch.cat([torch.zeros_like(value[:, :1]), value[:, :-1]], 1)
    return torch.where(batch["spoken"], before, 0.0)


def gradients(config: Config, policy: Any, critic: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add ∂L/∂θ of π and of V, means over the minibatch's tokens, in `parts` parts; means of what there is to see."""
    total, sums, count = batch["spoken"].sum(), {}, len(batch["ids"])
    own = torch.arange(count, device=total.device)[distributed.mine(count)]
    for rows in own.tensor_split(min(config.parts, count // distributed.size())):
        some = {name: x[rows] for name, x in batch.items()}
        spoken = some["spoken"]
        with torch.autocast(spoken.device.type, torch.bfloat16, enabled=config.low_precision):
            log_prob = log_probs(policy, some["ids"], some["mask"], spoken, temperature=config.temperature)
        value = values(config, critic, some)
        loss = clipped_surrogate(log_prob, some["log_prob"], some["advantage"], config.clip)
        error = clipped_value_loss(value, some["value"], some["target"], config.clip_value or torch.inf)
        parts = {
            "policy_loss": loss,
            "value_loss": error,
            "entropy": -log_prob,
            "step_kl": kl_k3(some["log_prob"], log_prob),
        }
        parts["clipped"] = ((log_prob - some["log_prob"]).exp() - 1).abs().gt(config.clip).float()
        means = {name: torch.where(spoken, x, 0.0).sum() / total for name, x in parts.items()}
        (means["policy_loss"] + means["value_loss"]).backward()
        sums = {name: x.detach() + sums.get(name, 0.0) for name, x in means.items()}
    return distributed.summed(sums)


def ptx_gradient(config: Config, policy: Any, stories: list[list[int]], text: Text) -> Tensor:
    """Add γ_ptx·∂/∂θ(−mean log π) of pretraining texts, in `parts` parts; the loss without γ_ptx."""
    asked, total = sum(len(ids) - 1 for ids in stories), torch.zeros(())
    own = stories[distributed.mine(len(stories))]
    parts = min(config.parts, len(stories) // distributed.size())
    for part in range(parts):
        some = own[part::parts]
        packed = pack([[]] * len(some), some, text.tokens.pad)
        loss = texts_loss(policy, packed, config.low_precision) * (packed.asked.sum() / asked)
        (config.ptx * loss).backward()
        total = total + loss.detach().cpu()
    return distributed.summed({"ptx_loss": total})["ptx_loss"]
