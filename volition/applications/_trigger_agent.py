"""The agent with a trigger: Q of windows from what is seen of them."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from volition.applications._tree_agent import WindowQ
from volition.applications._tree_sight import Seen, Sight
from volition.applications._trigger_search import MEMORY, TRIGGER, Choose
from volition.core.windows import CAICEDO
from volition.nets.regions import RegionQ


class TriggerAgent(nn.Module):
    """Sight and Q together. The state is window and history (Caicedo 2015, section 3.2).

    The window is seen as many times as wide and high as `context` says, once for each; with `place` the state has its
    corners too. With `own` Q has a head of its own, which begins as sight's and learns on from rewards.
    """

    def __init__(self, sight: Sight, hidden: Sequence[int], context: Sequence[float], place: bool, own: bool) -> None:
        super().__init__()
        self.sight, self.context, self.place = sight, tuple(context), place
        units = sight.head.units * len(self.context)
        # the image as a whole is no part of this state: one feature stands for it that is always 0
        q = RegionQ(units, 1, MEMORY, len(CAICEDO), hidden, 4 if place else 0)
        self.net = WindowQ(copy.deepcopy(sight.head) if own else None, q)

    def values(
        self, seen: Seen, image: Tensor, window: Tensor, history: Tensor, other: WindowQ | None = None
    ) -> Tensor:
        """Q(s,·) `[K, 9]` of windows `[K, 4]` of images `[K]` with histories `[K, 10]`; or `other`'s Q."""
        net, size = other or self.net, seen.size[image].float()
        middle, half = (window[:, :2] + window[:, 2:]) / 2, (window[:, 2:] - window[:, :2]) / 2
        found = []
        with torch.autocast(image.device.type, torch.bfloat16, enabled=seen.bf16):
            for times in self.context:
                low, high = (middle - times * half).clamp(min=0), torch.minimum(middle + times * half, size)
                view = torch.cat([low, high], -1)
                found.append(net.look(seen, image, view))
            part = net.q.image_part(size.new_zeros(len(image), 1))
            q = net.q(torch.cat(found, -1), part, history, window / size.repeat(1, 2) if self.place else None)
        return q.float()

    def greedy(self, seen: Seen) -> Choose:
        """The best action in every image of `seen`, and Q of the trigger."""
        every = torch.arange(len(seen.size), device=seen.size.device)

        def choose(window: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
            q = self.values(seen, every, window, history)
            return q.argmax(-1), q[:, TRIGGER]

        return choose
