"""Networks side by side: forward, remember and NumPy are one function, and the backward pass by hand is autograd's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from volition.core.flat import Flat
from volition.nets.stack import Activation, Stack, orthogonal

every_kind = pytest.mark.parametrize("activation", ["tanh", "relu"])
every_depth = pytest.mark.parametrize("sizes", [(3, 5), (3, 5, 4), (3, 6, 5, 4)])


def stack(sizes: tuple[int, ...], activation: Activation, dtype: torch.dtype = torch.float64) -> tuple[Stack, Flat]:
    torch.manual_seed(0)
    net = Stack(2, sizes, activation).to(dtype)
    flat = Flat(net)
    flat.data.add_(0.3 * torch.randn(flat.data.shape, dtype=dtype))  # biases too are something
    return net, flat


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)


def numeric(loss: Callable[[], Tensor], flat: Flat, step: float = 1e-6) -> Tensor:
    """Central differences along each parameter (float64)."""
    found = torch.zeros_like(flat.data)
    for i in range(len(flat.data)):
        values = []
        for sign in (1, -1):
            flat.data[i] += sign * step
            values.append(loss().detach())
            flat.data[i] -= sign * step
        found[i] = (values[0] - values[1]) / (2 * step)
    return found


@every_kind
def test_forward_by_hand(activation: Activation) -> None:
    net = Stack(2, (1, 2), activation)
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor([[[1.0, -2.0]], [[0.5, 3.0]]]))
        net.biases[0].copy_(torch.tensor([[[0.5, 0.0]], [[-1.0, -9.0]]]))
    # first network: 2·1 + 0.5, 2·(−2); second: 2·0.5 − 1, 2·3 − 9
    z = torch.tensor([[2.5, -4.0], [0.0, -3.0]])
    expected = z.tanh() if activation == "tanh" else torch.tensor([[2.5, 0.0], [0.0, 0.0]])
    assert_close(net(torch.tensor([2.0])), expected)


@every_kind
@every_depth
def test_forward_remember_and_numpy_are_one(sizes: tuple[int, ...], activation: Activation) -> None:
    net, _ = stack(sizes, activation, torch.float32)
    x = inputs(torch.float32)
    h = net(x)
    assert h.shape == (2, 7, sizes[-1]) and net(x.view(7, 1, 3)).shape == (2, 7, 1, sizes[-1])
    assert_close(net(x.view(7, 1, 3)).squeeze(2), h)
    memory = net.remember(x)
    assert [m.shape[-1] for m in memory] == list(sizes)
    assert_close(memory[-1], h, rtol=0, atol=1e-6)
    for which in (0, 1):
        y = x.numpy()
        for w, b in net.arrays(which):
            y = y @ w + b
            y = np.tanh(y) if activation == "tanh" else np.maximum(y, 0)
        assert_close(torch.from_numpy(y), h[which].detach(), rtol=0, atol=1e-6)


@every_kind
@every_depth
def test_backward_is_autograd_and_finite_differences(sizes: tuple[int, ...], activation: Activation) -> None:
    net, flat = stack(sizes, activation)
    x = inputs()
    weight = torch.randn(2, 7, sizes[-1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (net(x) * weight).sum().backward()
    expected = flat.grad.clone()
    for p in flat.parameters:
        p.grad.fill_(9.0)  # pyrefly: ignore  what stood there before is written over
    net.backward(net.remember(x), weight)
    assert_close(flat.grad, expected, rtol=1e-10, atol=1e-10)
    assert_close(flat.grad, numeric(lambda: (net(x) * weight).sum(), flat), rtol=1e-6, atol=1e-6)
    assert min(p.grad.abs().max().item() for p in flat.parameters if p.grad is not None) > 0.01


def test_networks_share_nothing() -> None:
    net, flat = stack((3, 5, 4), "tanh")
    x, gradient = inputs(), torch.zeros(2, 7, 4, dtype=torch.float64)
    gradient[1] = 1.0
    net.backward(net.remember(x), gradient)
    for p in flat.parameters:
        assert p.grad is not None and not p.grad[0].any() and p.grad[1].any()
    before = net(x)
    with torch.no_grad():
        for p in flat.parameters:
            p[1] += 1.0
    after = net(x)
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_memory_is_not_written_to_by_backward() -> None:
    net, _ = stack((3, 5, 4), "relu")
    memory = net.remember(inputs())
    before = [m.clone() for m in memory]
    gradient = torch.ones(2, 7, 4, dtype=torch.float64)
    net.backward(memory, gradient)
    assert_close(memory, before, rtol=0, atol=0)
    assert bool((gradient == 1).all())


def test_arrays_are_a_live_view() -> None:
    net, flat = stack((3, 5), "tanh", torch.float32)
    ((w, b),) = net.arrays(1)
    flat.data.fill_(7.0)
    assert (w == 7).all() and (b == 7).all()


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    w = orthogonal(*shape, 2.0)
    # WᵀW or WWᵀ, whichever is the smaller, is 2² times the identity
    square = w @ w.T if shape[0] <= shape[1] else w.T @ w
    assert_close(square, 4 * torch.eye(min(shape)), rtol=0, atol=1e-5)


def test_first_weights_are_orthogonal_and_biases_nothing() -> None:
    torch.manual_seed(0)
    net = Stack(3, (4, 6))
    for w in net.weights[0]:
        assert_close(w @ w.T, 2 * torch.eye(4), rtol=0, atol=1e-5)  # gain √2
    assert not net.biases[0].any()
    assert not torch.allclose(net.weights[0][0], net.weights[0][1])  # each drawn by itself


def test_a_stack_has_a_layer() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        Stack(2, (3,))
