"""RMSProp as DQN's authors used it, on one flat vector."""

from typing import Any

import torch

from volition.core.flat import Flat


class CentredRMSProp:
    """g ← ρg + (1−ρ)∇;  v ← ρv + (1−ρ)∇²;  θ ← θ − lr·∇/√(v − g² + ε) (Graves 2013, eq. 38–41 without momentum).

    ρ = 0.95 and ε = 0.01 are those of DQN (Mnih 2015, extended data table 1).
    """

    def __init__(self, flat: Flat, lr: float, rho: float = 0.95, eps: float = 0.01) -> None:
        self.flat, self.lr, self.rho, self.eps = flat, lr, rho, eps
        self.g, self.v = torch.zeros_like(flat.data), torch.zeros_like(flat.data)

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """One step along `flat.grad`, with another learning rate if one is given."""
        grad = self.flat.grad
        self.g.lerp_(grad, 1 - self.rho)
        self.v.mul_(self.rho).addcmul_(grad, grad, value=1 - self.rho)
        # v − g² is a variance: only rounding could bring it below 0
        root = torch.addcmul(self.v, self.g, self.g, value=-1).clamp_min_(0).add_(self.eps).sqrt_()
        self.flat.data.addcdiv_(grad, root, value=-(self.lr if lr is None else lr))

    def state_dict(self) -> dict[str, Any]:
        """Both running means."""
        return {"g": self.g, "v": self.v}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.g.copy_(state["g"])
        self.v.copy_(state["v"])
