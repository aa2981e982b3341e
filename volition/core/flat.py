"""All parameters of a module as one vector: clipping and a step are then a handful of operations on it."""

from typing import Any

import torch
from torch import Tensor, nn

ALIGN = 16  # floats: each parameter begins on a cache line of its own
TINY = 1e-30  # keeps what a root is taken of above 0: roots of 0 take several times as long, and √TINY is far below ε


class Flat:
    """`data` and `grad` `[P]`, of which every parameter of `module` and its `.grad` become views.

    The module must be where it will stay and of one dtype: moving it afterwards would part it from the vector.
    Autograd adds to the views as it does to any `.grad`, so call `zero_grad` before each backward pass; a backward
    pass written by hand may write them instead.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        places, size = [], 0
        for p in parameters:
            places.append(size)
            size += -(-p.numel() // ALIGN) * ALIGN
        first = parameters[0]
        if any(p.dtype != first.dtype or p.device != first.device for p in parameters):
            raise ValueError("the parameters of one vector must have one dtype and be on one device")
        self.data = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.grad = torch.zeros_like(self.data)
        self.parameters = parameters
        for p, place in zip(parameters, places, strict=True):
            view = self.data[place : place + p.numel()].view(p.shape)
            view.copy_(p.data)
            p.data = view
            p.grad = self.grad[place : place + p.numel()].view(p.shape)

    def zero_grad(self) -> None:
        """Gradient 0 everywhere."""
        self.grad.zero_()

    def clip_grad_norm(self, limit: float) -> Tensor:
        """g ← g·min(1, limit/‖g‖₂), in place, 0 being no limit; returns ‖g‖₂ before, on the device (Pascanu 2013)."""
        norm = torch.linalg.vector_norm(self.grad)
        if limit:
            self.grad.mul_((limit / (norm + 1e-6)).clamp_(max=1.0))
        return norm


class FlatAdam:
    """Adam on one vector (Kingma 2015, algorithm 1).

    m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − lr·m̂/(√v̂ + ε), hats divide by 1 − βᵗ.
    """

    def __init__(self, flat: Flat, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.flat, self.lr, self.betas, self.eps = flat, lr, betas, eps
        self.m, self.v = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
        self.scratch = torch.empty_like(flat.data)
        self.steps = 0

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """One step along `flat.grad`, with another learning rate if one is given."""
        self.steps += 1
        beta1, beta2 = self.betas
        grad, correction = self.flat.grad, 1 - beta2**self.steps
        self.m.lerp_(grad, 1 - beta1)
        self.v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = torch.add(self.v, TINY, out=self.scratch).sqrt_().add_(self.eps * correction**0.5)
        rate = (self.lr if lr is None else lr) * correction**0.5 / (1 - beta1**self.steps)
        self.flat.data.addcdiv_(self.m, root, value=-rate)

    def state_dict(self) -> dict[str, Any]:
        """Both moments and the number of steps."""
        return {"m": self.m, "v": self.v, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.steps = state["steps"]


class FlatRMSProp:
    """RMSProp without momentum on one vector, ε inside the root: v ← αv + (1−α)g²;  θ ← θ − lr·g/√(v + ε).

    (Mnih 2016, eq. S2–S3); v starts at `start`: 0 in the paper, 1 in TensorFlow, which tames the first steps.
    """

    def __init__(self, flat: Flat, lr: float, alpha: float = 0.99, eps: float = 0.1, start: float = 0.0) -> None:
        self.flat, self.lr, self.alpha, self.eps = flat, lr, alpha, eps
        self.v = torch.full_like(flat.data, start)
        self.scratch = torch.empty_like(flat.data)

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """One step along `flat.grad`, with another learning rate if one is given."""
        grad = self.flat.grad
        self.v.mul_(self.alpha).addcmul_(grad, grad, value=1 - self.alpha)
        root = torch.add(self.v, self.eps, out=self.scratch).sqrt_()
        self.flat.data.addcdiv_(grad, root, value=-(self.lr if lr is None else lr))

    def state_dict(self) -> dict[str, Any]:
        """The running mean of g²."""
        return {"v": self.v}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.v.copy_(state["v"])
