"""Who takes part in learning from reward: the policy, what it was, its critic and its judge."""

import contextlib
import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volition import distributed
from volition.checkpoint import undisturbed
from volition.core.schedules import cosine
from volition.data.order import Order
from volition.data.packing import Packed, pack
from volition.data.tokens import Tokens
from volition.errors import VolitionError
from volition.feedback._models import adam, make, place, prompt_batch, step, texts_loss, write
from volition.feedback._show import judge
from volition.feedback._text import Gpt, Text, gather
from volition.nets.language import Scalar
from volition.progress import say
from volition.run import Run

LR, BATCH, MIX = 2e-3, 32, 0.1  # of the small model that is made where none is given


@dataclass
class Team:
    """All models of one run on one device; `frozen` is None where the policy is adapters on its own reference."""

    text: Text
    policy: Any
    critic: Any
    judge: Scalar | None
    frozen: Any

    @contextlib.contextmanager
    def reference(self) -> Iterator[Any]:
        """The policy as it was at the start, for the length of the block."""
        if self.frozen is not None:
            yield self.frozen
        else:
            with self.policy.disable_adapter():
                yield self.policy

    def prompts(self, rows: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids and mask, padded on the left."""
        return prompt_batch(rows, self.text.tokens, next(self.policy.parameters()).device)

    @torch.no_grad()
    def scores(self, prompts: Sequence[str], said: Sequence[str], ids: Tensor, mask: Tensor) -> Tensor:
        """The judge's score of each whole text `[N, T]`, or the hidden score where there is no judge; `[N]`."""
        return self.gold(prompts, said).to(ids.device) if self.judge is None else self.judge.score(ids, mask)

    def gold(self, prompts: Sequence[str], said: Sequence[str]) -> Tensor:
        """The hidden score of each completion; `[N]`."""
        assert self.text.gold is not None
        return judge(self.text.gold, prompts, said)


class Lessons:
    """Demonstrations in a new order each pass, a share of each batch being pretraining text."""

    def __init__(self, text: Text, batch: int, generator: torch.Generator) -> None:
        self.demonstrations, self.stories = text.demonstrations["train"], text.pretraining["train"]
        self.batch, self.pad = batch, text.tokens.pad
        self.shown, self.told = Order(len(self.demonstrations), generator), Order(len(self.stories), generator)

    def take(self, update: int, mix: float, rows: slice = slice(None)) -> Packed:
        """These rows of the batch of this update; over many updates `mix` of all texts are stories."""
        count = round(mix * self.batch * (update + 1)) - round(mix * self.batch * update)
        pairs = [self.demonstrations[i] for i in self.shown.take(self.batch - count)]
        pairs += [([], self.stories[i]) for i in self.told.take(count)]
        prompts, completions = zip(*pairs[rows], strict=True)
        return pack(prompts, completions, self.pad)

    def state_dict(self) -> dict[str, Any]:
        return {"shown": self.shown.state_dict(), "told": self.told.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shown.load_state_dict(state["shown"])
        self.told.load_state_dict(state["told"])


def small_model(gpt: Gpt, updates: int, completion: int, run: Run) -> str:
    """The folder of a small GPT that has read and was fine-tuned on the built-in task; made once in the run's folder.

    It is the same whenever it is made, and no random state of the run is touched.
    """
    folder = run.path("start")
    if not distributed.agreed(folder.exists()):
        if distributed.first():
            _raise(folder, gpt, updates, completion, run)
        distributed.wait()
    return str(folder)


def _raise(folder: Path, gpt: Gpt, updates: int, completion: int, run: Run) -> None:
    half = folder.with_name(f".start-{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    with undisturbed(run.generator):
        torch.manual_seed(run.seed)
        text = gather("", gpt, completion)
        if not run.quiet:
            say(f"volition: a small GPT reads and is fine-tuned first, {2 * updates} updates (or give --model)")
        model = make("", gpt, 0, text.tokens).to(run.device)
        lessons = Lessons(text, BATCH, torch.Generator(run.device).manual_seed(run.seed))
        optimizer = adam(model, LR)
        for update in range(2 * updates):
            at, share = update % updates, 1.0 if update < updates else MIX
            texts_loss(model, lessons.take(at, share)).backward()
            step(optimizer, cosine(at, LR, LR / 10, updates), 1.0, alone=True)
        write(model, text.tokens, half)
    half.rename(folder)


def gather_team(config: Any, run: Run, critic: bool = True) -> Team:
    """Everyone as they begin, from the folders and files that the settings name; without a critic it is None."""
    own = config.prompts and not config.reward
    if own:
        raise VolitionError("prompts of one's own need someone to score completions: give --reward DIR")
    folder = config.model or small_model(config.gpt, config.start, config.completion, run)
    text = gather(folder, config.gpt, config.completion, prompted=config.prompts, pretrained=config.pretraining)
    run.dataset = text.name
    policy = make(folder, config.gpt, config.lora, text.tokens)
    judge = value = None
    if config.reward:
        judge = place(Scalar.load(config.reward).requires_grad_(False), run)
        _same_tokens(text.tokens, config.reward)
    if critic:
        value = Scalar.load(config.reward) if config.reward else Scalar(copy.deepcopy(policy), std=0.0)
        value = place(value, run)
    adapters = hasattr(policy, "disable_adapter")
    frozen = None if adapters else place(copy.deepcopy(policy).requires_grad_(False), run)
    return Team(text, place(policy, run), value, judge, frozen)


def _same_tokens(tokens: Tokens, reward: str) -> None:
    """A reward model that numbers its tokens otherwise would score something else than was said."""
    theirs = Tokens.load(reward)
    if theirs.inner.get_vocab() != tokens.inner.get_vocab() or theirs.eos != tokens.eos:
        raise VolitionError(f"the reward model in {reward} has other tokens than the policy: train it from that model")


def averaged(team: Team, values: list[Tensor], where: Path | None) -> None:
    """Give the policy the weights `values`, one for each parameter that learns."""
    learns = [p for p in team.policy.parameters() if p.requires_grad]
    if [p.shape for p in learns] != [x.shape for x in values]:
        raise VolitionError(f"the checkpoint in {where} holds weights of another model: give the model it began from")
    with torch.no_grad():
        for p, x in zip(learns, values, strict=True):
            p.copy_(x)
