"""Completions that share a row with their prompt are computed as they would be alone."""

import pytest
import torch
from test_language import PAD, gpt  # pyrefly: ignore

from volition.data.packing import pad_left
from volition.data.sharing import share
from volition.feedback._rankings import shared_log_probs, shared_scores
from volition.nets.language import Scalar, log_probs

PROMPTS = [[3, 4, 5, 6], [7], [8, 9]]
COMPLETIONS = [[[10, 11], [12], [13, 14, 15, 16]], [[17, 3], [4]], [[5, 6, 7]]]


def test_layout_by_hand() -> None:
    shared = share([[3, 4]], [[[5], [6, 7]]], PAD)
    assert shared.ids.tolist() == [[3, 4, 5, 4, 6, 7]]
    assert shared.where.tolist() == [[0, 1, 2, 1, 2, 3]]
    assert shared.asked.tolist() == [[False, False, True, False, True, True]]
    assert shared.last.tolist() == [[2, 5]]
    sees = [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0]]
    assert shared.sees[0, 0, :5].int().tolist() == sees


@pytest.mark.parametrize("row", range(3))
def test_scores_equal_those_of_rows(row: int) -> None:
    model = Scalar(gpt(), std=0.5)
    found = shared_scores(model, share(PROMPTS, COMPLETIONS, PAD))[row]
    alone = model.score(*pad_left([PROMPTS[row] + c for c in COMPLETIONS[row]], PAD))
    assert torch.allclose(found[: len(alone)], alone, atol=1e-5)


def test_log_probs_and_their_gradients_equal_those_of_rows() -> None:
    model = gpt()
    found = shared_log_probs(model, share(PROMPTS, COMPLETIONS, PAD))
    found.square().sum().backward()
    gradient = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    total = torch.zeros(())
    for b, (prompt, some) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        for k, completion in enumerate(some):
            ids = torch.tensor([prompt + completion])
            asked = torch.arange(ids.shape[1]).unsqueeze(0) >= len(prompt)
            alone = log_probs(model, ids, torch.ones_like(asked), asked).sum()
            assert torch.allclose(found[b, k], alone, atol=1e-5)
            total = total + alone.square()
    total.backward()
    for mine, p in zip(gradient, (p for p in model.parameters() if p.grad is not None), strict=True):
        assert torch.allclose(mine, p.grad, atol=1e-4)  # pyrefly: ignore
    assert not found[1, 2] and not found[2, 1:].any()  # prompts with fewer completions
