"""The gradients by hand are those of autograd, also on and beside the edges of clipping."""

import math
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.testing import assert_close

from volition.core import gradients, losses

number = st.floats(-3, 3, width=32)
rows = st.lists(st.tuples(number, number, number), min_size=1, max_size=8)


def columns(values: list[tuple[float, float, float]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(column, dtype=dtype) for column in zip(*values, strict=True)]


def by_autograd(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    x = at.clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@settings(deadline=None)
@given(rows)
def test_policy_gradient(values: list[tuple[float, float, float]]) -> None:
    log_prob, advantage, _ = columns(values)
    loss, gradient = gradients.policy_gradient(log_prob, advantage)
    expected = by_autograd(lambda x: losses.policy_gradient(x, advantage), log_prob)
    assert_close((loss, gradient), expected)


@settings(deadline=None)
@given(rows, st.floats(0.01, 0.9))
def test_clipped_surrogate(values: list[tuple[float, float, float]], clip: float) -> None:
    log_prob, old, advantage = columns(values)
    loss, gradient, ratio = gradients.clipped_surrogate(log_prob, old, advantage, clip)
    expected = by_autograd(lambda x: losses.clipped_surrogate(x, old, advantage, clip), log_prob)
    assert_close((loss, gradient), expected)
    assert_close(ratio, (log_prob - old).exp())


def test_clipped_surrogate_by_hand() -> None:
    # ε = 0.2; ratios ½, 1, 1.3 and advantages ±1: clipped where the ratio has already gone the advantage's way
    ratio, advantage = torch.tensor([0.5, 0.5, 1.0, 1.0, 1.3, 1.3]), torch.tensor([1.0, -1.0] * 3)
    loss, gradient, _ = gradients.clipped_surrogate(ratio.log(), torch.zeros(6), advantage, 0.2)
    assert_close(loss, torch.tensor([-0.5, 0.8, -1.0, 1.0, -1.2, 1.3]))
    assert_close(gradient, torch.tensor([-0.5, 0.0, -1.0, 1.0, 0.0, 1.3]))


def test_the_edge_of_the_clip_still_pulls() -> None:
    # r = 1 + ε and 1 − ε to the last bit, of which nothing has been cut off
    log_prob = torch.tensor([1.5, 0.5], dtype=torch.float64).log()
    advantage = torch.tensor([2.0, -2.0], dtype=torch.float64)
    r = log_prob.exp()
    for a, clip in ((advantage[:1], r[0].item() - 1), (advantage[1:], 1 - r[1].item())):
        i = 0 if a > 0 else 1
        _, gradient, ratio = gradients.clipped_surrogate(log_prob[i : i + 1], torch.zeros(1).double(), a, clip)
        assert_close(gradient, -ratio * a)
        assert gradient.abs() > 0.9


def test_a_ratio_beyond_all_numbers_does_not_spoil_what_is_clipped() -> None:
    # e^100 is ∞ in float32: clipped where A > 0, so nothing pulls, rather than 0·∞
    loss, gradient, _ = gradients.clipped_surrogate(torch.tensor([100.0]), torch.zeros(1), torch.tensor([2.0]), 0.2)
    assert gradient.item() == 0 and loss.item() == pytest.approx(-2.4)


@settings(deadline=None)
@given(rows)
def test_value_loss(values: list[tuple[float, float, float]]) -> None:
    value, target, _ = columns(values)
    assert_close(gradients.value_loss(value, target), by_autograd(lambda x: losses.value_loss(x, target), value))


@settings(deadline=None)
@given(rows, st.floats(0.01, 2))
def test_clipped_value_loss(values: list[tuple[float, float, float]], clip: float) -> None:
    value, old, target = columns(values)
    ours = gradients.clipped_value_loss(value, old, target, clip)
    assert_close(ours, by_autograd(lambda x: losses.clipped_value_loss(x, old, target, clip), value))


def test_clipped_value_loss_in_single_precision() -> None:
    # within ±ε both terms are one but for rounding, which must not decide whether V learns
    generator = torch.Generator().manual_seed(0)
    value, target, step = torch.randn(3, 5000, generator=generator).unbind(0)
    old = value + 0.19 * step.clamp(-1, 1)
    _, gradient = gradients.clipped_value_loss(value, old, target, 0.2)
    assert_close(gradient, value - target, rtol=0, atol=0)


def test_clipped_value_loss_by_hand() -> None:
    # ε = 1, V_old = 0, G = 3 as in test_losses: V = 2 is held at 1, V = ½ is near, V = −4 is worse than held at −1
    value = torch.tensor([2.0, 0.5, -4.0])
    loss, gradient = gradients.clipped_value_loss(value, torch.zeros(3), torch.full((3,), 3.0), 1.0)
    assert_close(loss, torch.tensor([2.0, 3.125, 24.5]))
    assert_close(gradient, torch.tensor([0.0, -2.5, -7.0]))


def test_nothing_given_is_written_to() -> None:
    given_ = [torch.tensor([0.3, -1.0]), torch.tensor([-0.2, 0.5]), torch.tensor([1.0, -2.0])]
    kept = [x.clone() for x in given_]
    for result in (
        gradients.policy_gradient(*given_[:2]),
        gradients.clipped_surrogate(*given_, 0.2),
        gradients.value_loss(*given_[:2]),
        gradients.clipped_value_loss(*given_, 0.2),
    ):
        for x in result:
            x.fill_(math.nan)
    assert_close(given_, kept, rtol=0, atol=0)


def test_wrong_shapes_are_refused() -> None:
    one, two = torch.zeros(3), torch.zeros(3, 1)
    for call in (
        lambda: gradients.policy_gradient(one, two),
        lambda: gradients.clipped_surrogate(one, one, two, 0.2),
        lambda: gradients.value_loss(one, two),
        lambda: gradients.clipped_value_loss(one, two, one, 0.2),
    ):
        with pytest.raises(ValueError, match="shapes differ"):
            call()
