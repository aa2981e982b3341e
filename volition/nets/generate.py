"""Completions from a language model: batched, cached, each token drawn by inverse CDF, its log-probability kept.

GPT-2's architecture is decoded by code of our own on a cache made once, all others by transformers with its cache. What
calls `generate` sees only ids and masks, so generation may move elsewhere without the learner noticing.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, GPT2Model

from volition.errors import VolitionError
from volition.nets.language import head, hidden, merged, positions, trunk
from volition.nets.sharded import lends_all

KEEP = 0.75  # finished rows leave the batch when the others are no more than this share of it


@dataclass(frozen=True)
class Completions:
    """What was said: ids `[N, R]`, pad after the end; mask True up to and with EOS; log π of each token, else 0."""

    ids: Tensor
    mask: Tensor
    log_prob: Tensor


class Decoder(Protocol):
    """A model in the middle of its sentences."""

    def begin(self, ids: Tensor, mask: Tensor, most: int) -> Tensor:
        """Take in the prompts `[N, P]`; logits `[N, V]` of what follows them."""
        ...

    def step(self, token: Tensor) -> Tensor:
        """Take in one token `[N]` each; logits `[N, V]` of the next."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        ...


@torch.no_grad()
@lends_all
def generate(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    most: int,
    *,
    eos: int,
    pad: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    low_precision: bool = False,
    share: slice = slice(None),
) -> Completions:
    """Up to `most` tokens after each prompt (ids, mask `[N, P]`, padded on the left), the last being EOS where it came.

    a_t ~ softmax(logits/temperature), log_prob of that distribution; at temperature 0 the mode, log_prob at 1.
    A row's numbers are the same whatever the others do: they are drawn before anything is said, also where only
    the rows `share` of the batch are to be completed.
    `low_precision` multiplies in bfloat16 (GPT-2 only); log_prob is then off by up to about 1e-2.
    """
    room = getattr(trunk(model).config, "max_position_embeddings", None)
    if room and (longest := int(mask.sum(-1).max())) + most > room:
        raise VolitionError(
            f"a prompt of {longest} tokens and {most} to come exceed the model's context of {room}: shorten either"
        )
    uniform = torch.rand(len(ids), most, generator=generator, device=ids.device)[share]
    ids, mask = ids[share], mask[share]
    count = len(ids)
    out = Completions(
        torch.full((count, most), pad, device=ids.device),
        torch.zeros(count, most, dtype=torch.bool, device=ids.device),
        torch.zeros(count, most, device=ids.device),
    )
    decoder = make_decoder(model, low_precision)
    logits = decoder.begin(ids, mask, most)
    rows, going = torch.arange(count, device=ids.device), torch.ones(count, dtype=torch.bool, device=ids.device)
    for t in range(most):
        token, log_prob = sample(logits, uniform[rows, t], temperature)
        said = rows[going]
        out.ids[said, t], out.mask[said, t], out.log_prob[said, t] = token[going], True, log_prob[going]
        going = going & (token != eos)
        left = int(going.sum())
        if left == 0 or t + 1 == most:
            break
        if left <= KEEP * len(rows):
            decoder.keep(going)
            rows, token, going = rows[going], token[going], going[going]
        logits = decoder.step(token)
    return out


def sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The token with C(a − 1) ≤ u·C(V) < C(a), C the cumulated probabilities, and its log-probability.

    logits `[N, V]`, u `[N]` uniform on [0, 1) → `[N]`, `[N]`. One sum and one search: a twelfth of torch.multinomial.
    """
    if temperature == 0:
        token = logits.argmax(-1, keepdim=True)
        return token.squeeze(1), logits.float().log_softmax(-1).gather(1, token).squeeze(1)
    p = (logits.float() / temperature).softmax(-1)
    below = p.cumsum(-1)
    # right: of equal sums the last, so that a token of probability 0 is never drawn
    token = torch.searchsorted(below, uniform.unsqueeze(1) * below[:, -1:], right=True)
    # u·C(V) may round up to C(V) itself: then the last token that has any probability
    token = torch.minimum(token, torch.searchsorted(below, below[:, -1:].contiguous()))
    return token.squeeze(1), p.gather(1, token).log().squeeze(1)


def make_decoder(model: Any, low_precision: bool = False) -> Decoder:
    """Our own for GPT-2 as it was published, transformers' for all others."""
    body = merged(trunk(model))
    settings = body.config
    ours = (
        type(body) is GPT2Model
        and settings.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        and settings.scale_attn_weights
        and not (settings.scale_attn_by_inverse_layer_idx or settings.add_cross_attention)
    )
    if ours:
        vocab: Any = head(model).weight
        return GPT2Decoder(body, vocab, torch.bfloat16 if low_precision else torch.float32)
    return AnyDecoder(body, head(model))


class AnyDecoder:
    """transformers' module with the cache that it makes itself."""

    def __init__(self, trunk: Any, head: Any) -> None:
        self.trunk, self.head = trunk, head

    def begin(self, ids: Tensor, mask: Tensor, most: int) -> Tensor:
        self.cache, self.mask = DynamicCache(config=self.trunk.config), mask
        return self._logits(ids, positions(mask))

    def step(self, token: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        return self._logits(token.unsqueeze(1), self.mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows.nonzero().squeeze(1))
        self.mask = self.mask[rows]

    def _logits(self, ids: Tensor, where: Tensor) -> Tensor:
        return self.head(hidden(self.trunk, ids, self.mask, where, self.cache)[:, -1])


class GPT2Decoder:
    """GPT-2 on a cache `[layers, 2, N, heads, P + R, width/heads]`; products in `dtype`, all else in float32."""

    def __init__(self, trunk: GPT2Model, vocab: Tensor, dtype: torch.dtype) -> None:
        settings = trunk.config
        self.trunk, self.dtype = trunk, dtype
        self.heads, self.epsilon = settings.n_head, settings.layer_norm_epsilon
        self.vocab = vocab.to(dtype).t()  # [width, V]
        self.layers = []
        blocks: Any = trunk.h
        for block in blocks:
            parts = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
            self.layers.append([(part.weight.to(dtype), part.bias.to(dtype)) for part in parts])

    def begin(self, ids: Tensor, mask: Tensor, most: int) -> Tensor:
        count, length = ids.shape
        self.length, self.place = length, mask.sum(-1)
        size = self.trunk.config.n_embd // self.heads
        self.cache = torch.zeros(len(self.layers), 2, count, self.heads, length + most, size, device=ids.device)
        unseen = torch.zeros(count, 1, 1, length + most, device=ids.device)
        unseen[:, 0, 0, :length].masked_fill_(~mask, -torch.inf)
        self.unseen = unseen
        # what stands in a padded place looks at itself, so that its sums are not empty
        eye = torch.eye(length, dtype=torch.bool, device=ids.device)
        sees = (mask[:, None, None] | eye) & torch.ones_like(eye).tril()

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.view(count, length, self.heads, size).transpose(1, 2) for x in (q, k, v))
            self.cache[layer, 0, :, :, :length], self.cache[layer, 1, :, :, :length] = k, v
            return F.scaled_dot_product_attention(q, k, v, attn_mask=sees).transpose(1, 2)

        x = self.trunk.wte(ids) + self.trunk.wpe(positions(mask))
        return self._logits(self._blocks(x.flatten(0, 1), attend).view(count, length, -1)[:, -1])

    def step(self, token: Tensor) -> Tensor:
        end, size = self.length + 1, self.cache.shape[-1]
        unseen = self.unseen[..., :end]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.reshape(len(token), self.heads, 1, size) for x in (q, k, v))
            keys, values = self.cache[layer, 0, :, :, :end], self.cache[layer, 1, :, :, :end]
            keys[:, :, -1:], values[:, :, -1:] = k, v
            weight = (q @ keys.transpose(-1, -2)).mul_(size**-0.5).add_(unseen)
            return weight.softmax(-1) @ values

        x = self._blocks(self.trunk.wte(token) + self.trunk.wpe(self.place), attend)
        self.length, self.place = end, self.place + 1
        return self._logits(x)

    def keep(self, rows: Tensor) -> None:
        self.cache, self.unseen, self.place = self.cache[:, :, rows], self.unseen[rows], self.place[rows]

    def _blocks(self, x: Tensor, attend: Any) -> Tensor:
        """x `[M, width]` through all layers; attend(layer, q, k, v), each `[M, width]`, gives what was looked up."""
        for l, (block, (look, combine, widen, narrow)) in enumerate(zip(self.trunk.h, self.layers, strict=True)):
            seen = attend(l, *self._product(self._norm(x, block.ln_1), look).chunk(3, -1))
            x = x + self._product(seen.reshape(x.shape), combine)
            wide = F.gelu(self._product(self._norm(x, block.ln_2), widen), approximate="tanh")
            x = x + self._product(wide, narrow)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return (self._norm(x, self.trunk.ln_f).to(self.dtype) @ self.vocab).float()

    def _product(self, x: Tensor, part: tuple[Tensor, Tensor]) -> Tensor:
        weight, bias = part
        return torch.addmm(bias, x.to(self.dtype), weight).float()

    def _norm(self, x: Tensor, norm: Any) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, self.epsilon)
