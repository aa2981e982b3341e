"""A reward model: one score for a prompt and a completion, learned from rankings.

Ouyang et al. (2022), "Training language models to follow instructions with human feedback", step 2.

data     prompts with K = 2 … 9 completions in the order that a labeler prefers, ties allowed
network  the fine-tuned model with a number in place of logits, r = head·h + shift, read at the last token
training L = −1/C(K,2)·Σ log σ(r_w − r_l), all pairs of a prompt as one element of the batch (eq. 1): each completion is
         computed once, and the prompt once for all of them; one pass, the learning rate falling by a cosine to a tenth.
         Then shift makes demonstrations score 0 in the mean (§3.5).
Without --model a small GPT is fine-tuned first; without --preferences simulated labelers rank what it says.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volition import distributed
from volition.core.preferences import best_of, pairs_right, ranking_loss
from volition.core.schedules import cosine
from volition.data.instructions import gold
from volition.data.order import Order
from volition.data.packing import pad_left
from volition.data.preferences import Preference, read
from volition.errors import VolitionError
from volition.feedback._models import ROWS, Learned, adam, complete, leave, make, place, scores, step
from volition.feedback._rankings import HELD_OUT, Rankings, batch, own_prompts, rankings, rows_of_pairs, shared_scores
from volition.feedback._show import draw_calibration, judge, side_by_side
from volition.feedback._start import small_model
from volition.feedback._text import Gpt, Text, gather
from volition.machine import multiplies_bf16
from volition.nets.language import Scalar, context
from volition.run import Run


@dataclass(frozen=True)
class Config:
    model: str = ""
    """Folder of the fine-tuned model to begin from, as volition train sft leaves it; none fine-tunes a small GPT."""
    lora: int = 0
    """Rank of adapters that learn in place of the model's own weights; 0 for none."""
    preferences: str = ""
    """File of rankings, of volition label or in any known form; none simulates labelers."""
    demonstrations: str = ""
    """File of demonstrations, which are to score 0; none takes the built-in, with --preferences the best ranked."""
    gpt: Gpt = field(default_factory=Gpt)
    """The model that is made where no folder is given."""
    start: int = 300
    """Updates of reading, and as many of fine-tuning, of that small model."""
    best_of: int = 16
    """Completions, N, of each test prompt from which evaluate takes the best of n = 1, 2, 4, … N; 0 for none."""
    ranked: int = 6000
    """Prompts whose completions the simulated labelers rank."""
    ways: int = 6
    """Completions of each that they rank, K (4 to 9 in the paper)."""
    completion: int = 48
    """Tokens that those completions may have."""
    batch: int = 16
    """Prompts per update, with all pairs of their completions (64 in the paper)."""
    apart: bool = False
    """Learn from single pairs in random order instead: each completion then comes K − 1 times, and is overfitted."""
    epochs: int = 1
    """Passes over the rankings (appendix C.2: the loss is very sensitive to more)."""
    lr: float = 5e-4
    """Learning rate of Adam (9e-6 in the paper)."""
    max_norm: float = 1.0
    """Length to which a longer gradient is cut; 0 for no such bound."""
    low_precision: bool = False
    """Compute products in bfloat16, where the processor has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("start", "ranked", "completion", "batch", "epochs"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lora", "lr", "max_norm", "best_of"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.ways < 2:
            raise VolitionError(f"ways is {self.ways}; one completion cannot be ranked, give 2 or more")


VARIANTS = {
    "tiny": Config(gpt=Gpt(300, 1, 16, 2, 160), start=3, ranked=48, ways=4, best_of=2, completion=6, batch=4),
    "laptop": Config(),
    "paper": Config(ranked=33_207, ways=9, completion=1024, batch=64, lr=9e-6),  # appendix C.2
}
DISTRIBUTED = True
PAPER = {
    "metric": "accuracy",
    "unit": "",
    "better": "higher",
    "baselines": ("chance", "longer"),
    "data": "",
    "source": "Ouyang 2022",
    "rows": {},
}


def train(config: Config, run: Run | None = None) -> Scalar:
    """Learn from every ranking; the model lies in the run's folder `model` as transformers reads it."""
    run = run or Run()
    text, model, rows = begin(config, run)
    learned, size = rows["train"], config.batch
    if config.apart:
        learned = rows_of_pairs(learned)
        size = round(size * len(learned) / len(rows["train"]))  # as many pairs in each update
    optimizer, order = adam(model, config.lr), Order(len(learned), run.generator)
    run.track(policy=Learned(model), shift=Shift(model), optimizer=optimizer, order=order)
    updates, low = -(-len(learned) * config.epochs // size), config.low_precision and multiplies_bf16(run.device)
    for update in run.loop(updates):
        some = [learned[i] for i in order.take(size)][distributed.mine(size)]
        shared, rank = batch(some, text.tokens, run.device)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=low):
            score = shared_scores(model, shared)
        loss = ranking_loss(score, rank).mean() * distributed.fraction(len(some))
        loss.backward()
        norm = step(optimizer, cosine(update, config.lr, config.lr / 10, updates), config.max_norm)
        right, pairs = pairs_right(score.detach(), rank)
        seen = distributed.summed({"loss": loss, "right": right.sum(), "pairs": pairs.sum()})
        run.log(update, loss=seen["loss"], accuracy=seen["right"] / seen["pairs"], gradient=norm)
        if update + 1 == updates:
            model.shift -= demonstrated(config, text, model, rows)
    leave(model, text.tokens, run)
    return model


class Shift:
    """The constant of the score, for checkpoints."""

    def __init__(self, model: Scalar) -> None:
        self.shift: Any = model.shift

    def state_dict(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shift.copy_(state["shift"])


def begin(config: Config, run: Run) -> tuple[Text, Scalar, Rankings]:
    """What there is to read, the model as it begins, and rankings to learn from and to test with."""
    own = read(config.preferences) if config.preferences else []  # a mistake in it is told before anything is trained
    folder = config.model or small_model(config.gpt, config.start, config.completion, run)
    text = gather(folder, config.gpt, config.completion, config.demonstrations)
    policy = make(folder, config.gpt, config.lora, text.tokens).to(run.device)
    room = context(folder)
    rows = rankings(own, policy, text.tokens, config.ranked, config.ways, config.completion, room, run)
    if own:
        run.dataset = Path(config.preferences).name
        text = own_prompts(text, rows, config.completion, room)
    return text, place(Scalar(policy), run), rows


@torch.no_grad()
def demonstrated(config: Config, text: Text, model: Scalar, rows: Rankings) -> Tensor:
    """The mean score of demonstrations that were kept aside, or else of what was ranked first."""
    if config.preferences and not config.demonstrations:
        encode, eos = text.tokens.encode, text.tokens.eos
        pairs = [(encode(p.prompt), [*encode(p.completions[p.rank.index(1)]), eos]) for p in rows["train"]]
    else:
        pairs = text.demonstrations["valid"]
    found = []
    for i in range(0, len(pairs), ROWS):
        ids, mask = pad_left([[*prompt, *said] for prompt, said in pairs[i : i + ROWS]], text.tokens.pad)
        found.append(model.score(ids.to(model.shift.device), mask.to(model.shift.device)))
    return torch.cat(found).mean()


@torch.no_grad()
def judged(
    config: Config, text: Text, model: Scalar, rows: Sequence[Preference]
) -> Iterator[tuple[Preference, Tensor, Tensor]]:
    """Each ranking with the model's scores and the ranks, `[K]` both."""
    for i in range(0, len(rows), config.batch):
        some = rows[i : i + config.batch]
        shared, rank = batch(some, text.tokens, model.shift.device)
        score = shared_scores(model, shared)
        for p, s, r in zip(some, score, rank, strict=True):
            yield p, s[: len(p.rank)].cpu(), r[: len(p.rank)].cpu()


def evaluate(config: Config, run: Run) -> dict[str, float]:
    """The share of test pairs ordered as labelers did, by labeler; of the built-in task also against the hidden score.

    Beside it chance, and the rule that longer is better; `accuracy` is over labelers who were learned from, and
    `learned_accuracy` over as many of the rankings that were learned: far above it, the model is overfitted. Then what
    the best of n completions by this score is worth, in this score and, of the built-in task, in the hidden one.
    """
    text, model, rows = trained(config, run)
    right, pairs = defaultdict[str, float](float), defaultdict[str, float](float)

    def count(name: str, score: Tensor, rank: Tensor) -> None:
        found = pairs_right(score.unsqueeze(0), rank.unsqueeze(0))
        right[name], pairs[name] = right[name] + found[0].item(), pairs[name] + found[1].item()

    for _, score, rank in judged(config, text, model, rows["train"][: len(rows["test"])]):
        count("learned_accuracy", score, rank)
    held_out = {labeler.name for labeler in HELD_OUT}
    for p, score, rank in judged(config, text, model, rows["test"]):
        own = not config.preferences
        count("held_out_accuracy" if own and p.labeler in held_out else "accuracy", score, rank)
        count("longer", torch.tensor([float(len(c)) for c in p.completions]), rank)
        if p.labeler:
            count(f"accuracy_{p.labeler}", score, rank)
        if own:
            worth = torch.tensor([gold(p.prompt, c) for c in p.completions], dtype=torch.float64)
            places = torch.unique(-worth, return_inverse=True)[1] + 1
            count("gold_accuracy", score, places)
            count("labelers_gold_accuracy", -rank.double(), places)
    found = {name: right[name] / pairs[name] for name in right if pairs[name]} | {"chance": 0.5}
    return found | best(config, run, text, model)


def best(config: Config, run: Run, text: Text, model: Scalar) -> dict[str, float]:
    """Mean reward and gold of the best of n by reward, of completions by the policy that this one began as."""
    if not config.best_of:
        return {}
    folder = config.model or str(run.path("start"))
    policy, prompts = make(folder, config.gpt, 0, text.tokens).to(run.device), text.prompts["test"]
    each = [prompt for prompt in prompts for _ in range(config.best_of)]
    said = complete(policy, each, text.tokens, config.completion, run.generator)
    measures = {"reward": scores(model, each, said, text.tokens)}
    if text.gold:
        measures["gold"] = judge(text.gold, each, said)
    measures = {name: x.view(len(prompts), -1) for name, x in measures.items()}
    counts = [n for n in (2**i for i in range(20)) if n <= config.best_of]
    return {
        f"best_of_{n}_{name}": best_of(measures["reward"], x, n).mean().item()
        for n in counts
        for name, x in measures.items()
    }


def trained(config: Config, run: Run) -> tuple[Text, Scalar, Rankings]:
    """What was read, the model as it was trained, and the rankings."""
    text, model, rows = begin(config, run)
    Learned(model).load_state_dict(run.saved("policy"))
    Shift(model).load_state_dict(run.saved("shift"))
    return text, model, rows


def watch(config: Config, run: Run) -> list[Path]:
    """Test rankings with the scores beside the ranks, and how often it is right by how sure it is."""
    text, model, rows = trained(config, run)
    seen = list(judged(config, text, model, rows["test"]))
    gaps, wins = [], []
    for _, score, rank in seen:
        w, l = (rank.unsqueeze(1) < rank.unsqueeze(0)).nonzero(as_tuple=True)
        gap = score[w] - score[l]
        gaps += gap.abs().tolist()
        wins += (gap > 0).float().tolist()
    prompts, said, notes = [], [], {}
    for p, score, rank in seen[:12]:
        for i in torch.argsort(rank, stable=True).tolist():
            prompts.append(p.prompt)
            said.append(p.completions[i])
            notes[p.prompt, p.completions[i]] = score[i].item(), float(rank[i])
    judges = {"score": lambda p, c: notes[p, c][0], "rank": lambda p, c: notes[p, c][1]}
    return [
        side_by_side(prompts, {"completion": said}, judges, run.path("rankings.txt")),
        draw_calibration(gaps, wins, run.path("calibration.png")),
    ]
