"""What the recipes of this chapter do with models: make, track, ask, save."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from volition import distributed
from volition.data.packing import Packed, pack, pad_left
from volition.data.tokens import Tokens
from volition.errors import VolitionError
from volition.feedback._text import Gpt
from volition.nets.generate import Completions, generate
from volition.nets.language import load, log_probs, save, small_gpt
from volition.nets.sharded import shard, spread, unsharded
from volition.run import Run

BETAS = (0.9, 0.95)  # Ouyang 2022, appendix C
ROWS = 128  # completions that are made at once where nothing is learned


class Learned:
    """The parameters of a module that learn, under their names: what a checkpoint keeps of it."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def state_dict(self) -> dict[str, Any]:
        return {name: p.detach() for name, p in self.parameters.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if {n: p.shape for n, p in self.parameters.items()} != {n: x.shape for n, x in state.items()}:
            raise ValueError("weights of another model")
        with distributed.filling():
            for name, p in self.parameters.items():
                p.copy_(state[name])


def make(folder: str, gpt: Gpt, lora: int, tokens: Tokens) -> Any:
    """The model in `folder`, or a small GPT; a tokenizer that knows more tokens than the model is refused."""
    if not folder:
        if lora:
            raise VolitionError("adapters need a trained model beneath them: give --model DIR, or --lora 0")
        return small_gpt(len(tokens), tokens.eos, tokens.pad, gpt.context, gpt.layers, gpt.width, gpt.heads)
    model = load(folder, lora)
    known = model.get_input_embeddings().num_embeddings
    if known < len(tokens):
        raise VolitionError(f"{folder}: the tokenizer has {len(tokens)} tokens, the model {known}: they belong apart")
    return model


def write(model: Any, tokens: Tokens, folder: Path) -> None:
    """The model and its tokenizer, as transformers reads them."""
    save(model, folder)
    tokens.save(folder)


def place(model: Any, run: Run) -> Any:
    """The model on the run's device, in parts over all processes where the run is sharded."""
    return shard(model, run.device) if run.sharded else model.to(run.device)


def leave(model: Any, tokens: Tokens, run: Run) -> None:
    """The model that was learned, in the run's folder `model`."""
    if run.folder is not None:
        model = unsharded(model)
        if distributed.first():
            write(model, tokens, run.path("model"))
        distributed.wait()


def adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with the paper's β on what learns."""
    optimizer = torch.optim.Adam(
        [p for p in module.parameters() if p.requires_grad], lr=lr, betas=BETAS, eps=1e-5, fused=True
    )
    optimizer.register_load_state_dict_pre_hook(spread)
    return optimizer


def step(optimizer: torch.optim.Optimizer, lr: float, max_norm: float, alone: bool = False) -> Tensor:
    """One step of this length on the gradient, cut to max_norm (0: as it is), which is then empty; its norm before.

    The gradient is that of all processes together, or of one that learns `alone`.
    """
    (group,) = optimizer.param_groups
    if not alone:
        distributed.sum_gradients(group["params"])
    norm = distributed.whole(nn.utils.clip_grad_norm_(group["params"], max_norm or torch.inf))
    group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()
    return norm


def texts_loss(model: Any, packed: Packed, low: bool = False) -> Tensor:
    """−mean log π of the tokens asked for, over all texts together."""
    device = next(model.parameters()).device
    ids, sees, asked, where = (x.to(device) for x in (packed.ids, packed.sees, packed.asked, packed.where))
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
        return -log_probs(model, ids, sees, asked, where).sum() / asked.sum()


@torch.no_grad()
def mean_loss(model: Any, pairs: Sequence[tuple[list[int], list[int]]], pad: int) -> float:
    """The same over all `pairs` of prompt and completion, a batch at a time."""
    total = count = 0.0
    for i in range(0, len(pairs), ROWS):
        prompts, completions = zip(*pairs[i : i + ROWS], strict=True)
        packed = pack(prompts, completions, pad)
        asked = int(packed.asked.sum())
        total, count = total + texts_loss(model, packed).item() * asked, count + asked
    return total / count


def prompt_batch(prompts: Sequence[str], tokens: Tokens, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask, padded on the left."""
    ids, mask = pad_left([tokens.encode(text) for text in prompts], tokens.pad)
    return ids.to(device), mask.to(device)


def complete(
    model: Any, prompts: Sequence[str], tokens: Tokens, most: int, generator: Generator, temperature: float = 1.0
) -> list[str]:
    """A completion of each prompt as text."""
    device, said = next(model.parameters()).device, []
    for i in range(0, len(prompts), ROWS):
        ids, mask = prompt_batch(prompts[i : i + ROWS], tokens, device)
        some = generate(model, ids, mask, most, eos=tokens.eos, pad=tokens.pad, generator=generator,
            temperature=temperature)  # fmt: skip
        said += texts(some, tokens)
    return said


def texts(said: Completions, tokens: Tokens) -> list[str]:
    """Completions as text, without marks."""
    return [tokens.decode(ids[mask].tolist()) for ids, mask in zip(said.ids, said.mask, strict=True)]


@torch.no_grad()
def scores(reward: Any, prompts: Sequence[str], said: Sequence[str], tokens: Tokens) -> Tensor:
    """The reward model's score of each completion, read at its EOS."""
    device, found = next(reward.parameters()).device, []
    for i in range(0, len(prompts), ROWS):
        pairs = zip(prompts[i : i + ROWS], said[i : i + ROWS], strict=True)
        ids, mask = pad_left([[*tokens.encode(p), *tokens.encode(c), tokens.eos] for p, c in pairs], tokens.pad)
        found.append(reward.score(ids.to(device), mask.to(device)).cpu())
    return torch.cat(found)
