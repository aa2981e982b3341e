"""Texts that share a row learn as they would alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_language import PAD, gpt  # pyrefly: ignore

from volition.data.packing import first_fit, pack, pad_left
from volition.nets.language import log_probs


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_every_text_has_one_place_and_rows_are_never_too_long(lengths: list[int]) -> None:
    rows = first_fit(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)
    half_empty = [row for row in rows if 2 * sum(lengths[i] for i in row) <= 20]
    assert len(half_empty) <= 1  # two of them would have been one


def test_a_text_longer_than_the_row_is_refused() -> None:
    with pytest.raises(ValueError, match="21 tokens does not fit"):
        first_fit([3, 21], 20)


def test_left_padding() -> None:
    ids, mask = pad_left([[5, 6, 7], [8]], PAD)
    assert ids.tolist() == [[5, 6, 7], [PAD, PAD, 8]] and mask.tolist() == [[True] * 3, [False, False, True]]


def test_packed_gradient_is_that_of_each_text_alone() -> None:
    model = gpt()
    g = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, 50, (n,), generator=g).tolist() for n in (9, 4, 5, 2, 7)]
    prompts = [t[:1] if i else [] for i, t in enumerate(texts)]
    completions = [t[len(p) :] for p, t in zip(prompts, texts, strict=True)]
    packed = pack(prompts, completions, PAD)
    assert packed.ids.shape == (3, 9)  # 9, 7 + 2, 5 + 4
    assert int(packed.asked.sum()) == 8 + 3 + 4 + 1 + 6

    def gradient(loss: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    together = gradient(log_probs(model, packed.ids, packed.sees, packed.asked, packed.where).sum())
    alone = 0
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([[*prompt, *completion]])
        asked = (torch.arange(ids.shape[1]) >= max(1, len(prompt))).unsqueeze(0)
        alone = alone + log_probs(model, ids, torch.ones_like(asked), asked).sum()
    for a, b in zip(together, gradient(alone), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
