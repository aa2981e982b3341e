"""Fully connected networks of the same sizes side by side, with a backward pass written by hand."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Activation = Literal["tanh", "relu"]


class Stack(nn.Module):
    """`count` networks x → h that share nothing but their input: h_l = σ(h_{l−1}·W_l + b_l).

    The weights of all are together, W_l `[count, in, out]`, b_l `[count, 1, out]`, so that
    one batched product per layer does all of them. `forward` is for autograd; `remember` and `backward` are the same
    mathematics without its bookkeeping, which for small networks costs more than the arithmetic.
    First weights are orthogonal with gain √2, biases 0 (Andrychowicz 2021).
    """

    def __init__(self, count: int, sizes: Sequence[int], activation: Activation = "tanh") -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError("a stack needs at least one layer: sizes are those of input and of each layer")
        self.count, self.sizes, self.activation = count, tuple(sizes), activation
        shapes = list(pairwise(sizes))
        first = [torch.stack([orthogonal(*s, math.sqrt(2)) for _ in range(count)]) for s in shapes]
        self.weights = nn.ParameterList(first)
        self.biases = nn.ParameterList(torch.zeros(count, 1, out) for _, out in shapes)
        self._layers = list(zip(self.weights, self.biases, strict=True))  # ParameterList takes its time to look up

    def forward(self, x: Tensor) -> Tensor:
        """`[…, in]` → `[count, …, out]`."""
        h = x.reshape(-1, x.shape[-1]).expand(self.count, -1, -1)
        for weight, bias in self._layers:
            h = torch.baddbmm(bias, h, weight)
            h = h.tanh() if self.activation == "tanh" else h.relu()
        return h.reshape(self.count, *x.shape[:-1], self.sizes[-1])

    @torch.no_grad()
    def remember(self, x: Tensor) -> list[Tensor]:
        """The input `[count, B, in]` and what each layer made of it, the last being the output; x `[B, in]`."""
        memory = [x.expand(self.count, -1, -1)]
        for weight, bias in self._layers:
            memory.append(_activate(torch.baddbmm(bias, memory[-1], weight), self.activation))
        return memory

    @torch.no_grad()
    def backward(self, memory: list[Tensor], gradient: Tensor) -> None:
        """Write ∂L/∂W and ∂L/∂b into the parameters' `.grad`, given ∂L/∂h of the output `[count, B, out]`.

        ∂L/∂z = ∂L/∂h · σ′, with σ′ = 1 − h² or [h > 0];  ∂L/∂W = h_{l−1}ᵀ·∂L/∂z;  ∂L/∂h_{l−1} = ∂L/∂z·Wᵀ.
        """
        if self._layers[0][0].grad is None:
            raise ValueError("there is no .grad to write to: make volition.core.flat.Flat of the module first")
        for l in reversed(range(len(self._layers))):
            (weight, bias), h = self._layers[l], memory[l + 1]
            if self.activation == "tanh":
                gradient = torch.ops.aten.tanh_backward(gradient, h)
            else:
                gradient = torch.ops.aten.threshold_backward(gradient, h, 0.0)
            torch.bmm(memory[l].transpose(1, 2), gradient, out=weight.grad)  # pyrefly: ignore
            torch.sum(gradient, 1, True, out=bias.grad)  # pyrefly: ignore
            if l:
                gradient = torch.bmm(gradient, weight.transpose(1, 2))

    def arrays(self, which: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights `[in, out]` and biases `[out]` of one network as NumPy arrays over the same memory (CPU)."""
        return [(w.detach()[which].numpy(), b.detach()[which, 0].numpy()) for w, b in self._layers]


def orthogonal(inputs: int, outputs: int, gain: float) -> Tensor:
    """A matrix `[inputs, outputs]` with orthogonal rows or columns of length `gain` (Saxe 2014)."""
    return nn.init.orthogonal_(torch.empty(inputs, outputs), gain)


def _activate(z: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return z.clamp_min_(0.0)
    if z.is_cuda:
        return z.tanh_()
    array = z.numpy()
    np.tanh(array, out=array)  # much faster than torch's on AVX-512, both to float32's last bits
    return z
