"""π(a|s) and V(s) from images, on one convolutional trunk."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from volition.core.distributions import Distribution
from volition.core.policy import PolicyOutput
from volition.nets.conv import NatureCNN
from volition.nets.stack import orthogonal

START = 0.01  # gain of the policy's last layer: π begins near uniform


class ConvActorCritic(nn.Module):
    """Two linear layers on Nature's convolutional network, which they share (Mnih 2016, §8); stateless.

    `shape` is that of an image, `[C, H, W]`, or `[H, W, C]` with `last`; `varies` as in `ActorCritic`. `low` computes
    the trunk in bfloat16, which is faster on processors with the instructions for it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        distribution: Callable[..., Distribution],
        varies: Sequence[bool],
        units: int = 512,
        last: bool = False,
        low: bool = False,
    ) -> None:
        super().__init__()
        self.distribution, self.last, self.low = distribution, last, low
        self.trunk = NatureCNN((shape[2], *shape[:2]) if last else shape, units)
        self.actor, self.critic = nn.Linear(units, len(varies)), nn.Linear(units, 1)
        self.register_buffer("varies", None if all(varies) else torch.tensor(varies), persistent=False)
        with torch.no_grad():
            for layer in self.trunk.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.orthogonal_(layer.weight, 2**0.5)
                    nn.init.zeros_(layer.bias)  # pyrefly: ignore
            for layer, gain in ((self.actor, START), (self.critic, 1.0)):
                layer.weight.copy_(orthogonal(units, layer.out_features, gain).T)
                nn.init.zeros_(layer.bias)

    varies: Tensor | None

    def forward(self, obs: Tensor, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        """Images `[…, *shape]` → π(·|s) and V(s) `[…]`; mask `[…, A]` is True where an action is allowed."""
        image = obs.movedim(-1, -3) if self.last else obs
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.low):
            h = self.trunk(image)
        h = h.float()
        y = self.actor(h)
        if self.varies is not None:
            y = torch.where(self.varies, y, self.actor.bias)
        pi = self.distribution(y) if mask is None else self.distribution(y, mask)
        return PolicyOutput(pi, None, self.critic(h).squeeze(-1))

    def initial_state(self, batch: int) -> None:
        """Nothing is remembered."""
        return None


def is_image(shape: Sequence[int]) -> bool:
    """Whether an obs of bytes of this shape is an image large enough for these convolutions."""
    return len(shape) == 3 and sorted(shape)[1] >= 36
