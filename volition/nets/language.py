"""Causal language models of transformers: loaded, saved, and asked only for what learning by reward needs.

A batch is ids `[N, T]` int64 and mask `[N, T]` bool, True at real tokens. Prompts are padded on the left and
completions on the right, so that a completion begins in one column; positions are counted over real tokens, and what
a padded place holds reaches nothing. Packed rows give a mask `[N, 1, T, T]` (True where a token looks) and positions.
Models are in evaluation mode from the start: with dropout, what samples and what learns would be two policies.
"""

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from volition.errors import VolitionError
from volition.nets.sharded import lends

try:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
    )
    from transformers.activations import NewGELUActivation
    from transformers.utils import logging
except ImportError:
    raise VolitionError("language models need more packages: pip install 'volition[feedback]'") from None

LOGITS = 2**25  # as many are kept for the gradient (128 MiB); more are made again
SHORT = 512  # tokens of rows whose attention may be a matrix; its memory grows with their square
PART = 256  # tokens whose logits a CPU makes at once: they stay in its cache, and their memory is used again


def small_gpt(
    vocab: int, eos: int, pad: int, context: int = 256, layers: int = 4, width: int = 256, heads: int = 4
) -> GPT2LMHeadModel:
    """GPT-2's architecture (Radford 2019) with weights drawn from torch's random state; 5.3 M at vocab 8,192."""
    if width % heads:
        raise VolitionError(f"width {width} must be a multiple of heads {heads}")
    settings = GPT2Config(
        vocab_size=vocab, n_positions=context, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=eos, eos_token_id=eos, pad_token_id=pad,
        activation_function="gelu_pytorch_tanh",  # the published function as one operation
    )  # fmt: skip
    return GPT2LMHeadModel(settings).eval()


def load(folder: str | Path, lora: int = 0) -> Any:
    """The causal language model in a folder of transformers or peft, float32, in evaluation mode.

    With `lora` > 0 its weights are kept and adapters W + (α/r)·B·A of that rank r, α = 2r, learn (Hu 2022, §4.1).
    A folder that peft wrote goes on with the adapters it holds.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    folder = Path(folder)
    adapters = (folder / "adapter_config.json").exists()
    with _one_line(folder, "language model"):
        if adapters:
            from peft import PeftConfig

            base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
            inner = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
            model = PeftModel.from_pretrained(inner, str(folder), is_trainable=True)
        else:
            model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
            if lora:
                wanted = LoraConfig(
                    r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM",
                    fan_in_fan_out=model.config.model_type == "gpt2",
                )  # fmt: skip
                model = get_peft_model(model, wanted)
    _check_head(model, folder)
    return _fused(model).eval()


def context(folder: str | Path) -> int:
    """How many tokens the model in `folder` can look back on; 1,024 where it does not say."""
    from peft import PeftConfig

    folder = Path(folder)
    with _one_line(folder, "language model"):
        if (folder / "adapter_config.json").exists():
            folder = Path(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path or "")
        settings = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    return getattr(settings, "max_position_embeddings", None) or 1024


def save(model: Any, folder: str | Path) -> None:
    """Write the folder that `load`, transformers and, with adapters, peft read; a Scalar as one score per sequence.

    transformers' classes for scores have no constant: `shift` lies in config.json as volition_shift.
    """
    with _one_line(Path(folder), "language model", "write"):
        (model.classifier() if isinstance(model, Scalar) else model).save_pretrained(str(folder))


def positions(mask: Tensor) -> Tensor:
    """How many real tokens stand before each; 0 where there are none. mask `[N, T]` → `[N, T]`."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def trunk(model: Any) -> Any:
    """The model without its last layer, adapters included: ids → hidden states."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


def head(model: Any) -> nn.Module:
    """The last layer: hidden states → logits."""
    return model.get_output_embeddings()


def hidden(trunk: Any, ids: Tensor, mask: Tensor, where: Tensor | None = None, cache: Any = None) -> Tensor:
    """Hidden states `[N, T, width]`; `where` are the positions `[N, T]`, counted from a mask `[N, T]` when None.

    With a cache of transformers, which it fills, ids and positions are those after it and the mask covers both.
    """
    if where is None:
        where = positions(mask)
    extra = {"position_ids": where} if _takes_positions(trunk) else {}
    if cache is not None:
        extra |= {"past_key_values": cache}
    with _attention(trunk, ids):
        if mask.dim() == 4:
            mask = _attention_mask(trunk, mask)
        return trunk(input_ids=ids, attention_mask=mask, use_cache=cache is not None, **extra).last_hidden_state


@lends
def log_probs(
    model: Any, ids: Tensor, mask: Tensor, asked: Tensor, where: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """log π(ids_t | ids before t)/temperature for the tokens asked for, 0 elsewhere; asked `[N, T]` bool → `[N, T]`.

    Logits are made for these tokens only. Nothing stands before the first column, so it cannot be asked for.
    """
    if bool(asked[:, 0].any()):
        raise ValueError("the first column has no probability: nothing stands before it")
    after = asked[:, 1:]
    h = hidden(trunk(model), ids, mask, where)[:, :-1][after]
    found = token_log_probs(head(model), h, ids[:, 1:][after], temperature)
    return found.new_zeros(ids.shape).masked_scatter(asked, found)


def token_log_probs(head: nn.Module, h: Tensor, token: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(head(h)/temperature)[token]; h `[M, width]`, token `[M]` → `[M]` float32.

    No more than LOGITS logits exist at a time.
    """

    def some(h: Tensor, token: Tensor) -> Tensor:
        logits = head(h).float()
        return -F.cross_entropy(logits if temperature == 1 else logits / temperature, token, reduction="none")

    rows = most = max(1, LOGITS // head.weight.shape[0])  # pyrefly: ignore
    if h.device.type == "cpu":
        rows = min(most, PART)
    parts = zip(h.split(rows), token.split(rows), strict=True)
    if len(h) <= most:
        return torch.cat([some(*part) for part in parts])
    return torch.cat([checkpoint(some, *part, use_reentrant=False) for part in parts])  # pyrefly: ignore


class Scalar(nn.Module):
    """One number per token, head·h_t + shift: a reward model at the last real token, a value function at any other.

    `model` is a causal language model, whose trunk this one takes over (give a copy to keep it).
    The head's first weights have standard deviation 1/√(width + 1) (Stiennon 2020, code), or `std`.
    """

    def __init__(self, model: Any, std: float | None = None) -> None:
        super().__init__()
        self.trunk = trunk(model)
        width = int(self.trunk.config.hidden_size)
        self.head = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.head.weight, std=(width + 1) ** -0.5 if std is None else std)
        self.register_buffer("shift", torch.zeros(()))
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor, where: Tensor | None = None) -> Tensor:
        """Scores `[N, T]` float32 of all places, those of padding meaningless."""
        return self.head(hidden(self.trunk, ids, mask, where)).squeeze(-1).float() + self.shift

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The score of each row at its last real token; `[N, T]` → `[N]`."""
        return at_last(self(ids, mask), mask)

    def classifier(self) -> Any:
        """The same trunk and head as a model of transformers for classification with one label; adapters are merged."""
        settings = copy.deepcopy(self.trunk.config)
        settings.num_labels, settings.volition_shift = 1, self.shift.item()
        try:
            with torch.random.fork_rng():  # it draws weights that are replaced at once; saving is to change nothing
                model = AutoModelForSequenceClassification.from_config(settings)
        except ValueError:
            raise VolitionError(
                f"transformers has no {settings.model_type} that gives scores: use another model"
            ) from None
        getattr(model, model.base_model_prefix).load_state_dict(merged(self.trunk).state_dict())
        model.score.weight.data.copy_(self.head.weight)
        return model

    @classmethod
    def load(cls, folder: str | Path) -> "Scalar":
        """The model that `save` wrote, or any of transformers for classification with one label."""
        with _one_line(Path(folder), "reward model"):
            model: Any = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True
            )
        score = getattr(model, "score", None)
        if not isinstance(score, nn.Linear) or score.out_features != 1:
            raise VolitionError(f"{folder} holds no model with one score: train one with volition train reward_model")
        scalar = cls.__new__(cls)
        nn.Module.__init__(scalar)
        scalar.trunk, scalar.head = _fused(model.base_model), score
        scalar.register_buffer("shift", torch.tensor(float(getattr(model.config, "volition_shift", 0.0))))
        return scalar.eval()


def at_last(x: Tensor, mask: Tensor) -> Tensor:
    """x at the last real token of each row, padded on any side: x, mask `[N, T]` → `[N]`."""
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(-1)
    return x.gather(1, last.unsqueeze(1)).squeeze(1)


def merged(trunk: Any) -> Any:
    """A copy of the trunk with its adapters added to its weights; the trunk itself where it has none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(module, BaseTunerLayer) for module in trunk.modules()):
        return trunk
    trunk = copy.deepcopy(trunk)
    for name, module in list(trunk.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(trunk.get_submodule(parent), own, module.get_base_layer())
    return trunk


def _fused(model: Any) -> Any:
    """The model with GELU's tanh form as one operation; the library's five passes cost a third of an update here."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, NewGELUActivation):
                setattr(module, name, nn.GELU("tanh"))
    return model


@contextlib.contextmanager
def _attention(trunk: Any, ids: Tensor) -> Iterator[None]:
    """In bfloat16 on a CPU attention by plain products, where the backward pass of torch's one operation is slow."""
    settings = trunk.config
    kept = settings._attn_implementation
    plain = kept == "sdpa" and ids.device.type == "cpu" and torch.is_autocast_enabled("cpu") and ids.shape[1] <= SHORT
    if plain:
        settings._attn_implementation = "eager"
    try:
        yield
    finally:
        settings._attn_implementation = kept


def _takes_positions(trunk: Any) -> bool:
    return "position_ids" in inspect.signature(trunk.forward).parameters


def _attention_mask(trunk: Any, mask: Tensor) -> Tensor:
    """A mask `[N, 1, T, T]` as the trunk's attention takes it: added to the scores where it is not torch's own."""
    if trunk.config._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)


@torch.no_grad()
def _check_head(model: Any, folder: Path) -> None:
    """Some architectures do more to their logits than one product; log-probabilities here would not be theirs."""
    ids = torch.arange(3).unsqueeze(0)
    own = model(input_ids=ids, use_cache=False).logits
    ours = head(model)(hidden(trunk(model), ids, torch.ones_like(ids, dtype=torch.bool)))
    if own.shape != ours.shape or not torch.allclose(own, ours, atol=1e-3, rtol=1e-3):
        kind = model.config.model_type
        raise VolitionError(
            f"{folder}: the logits of a {kind} are not one product with its last layer: use another model"
        )


@contextlib.contextmanager
def _one_line(folder: Path, what: str, verb: str = "read") -> Iterator[None]:
    """The library's many errors as one line, and its progress bars off."""
    if verb == "read" and not folder.is_dir():
        raise VolitionError(f"there is no folder {folder} with a {what}: give one that transformers wrote")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except VolitionError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise VolitionError(f"cannot {verb} the {what} in {folder} ({reason}): mend or remove it") from None
    finally:
        if shown:
            logging.enable_progress_bar()
