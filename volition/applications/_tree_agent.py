"""Tree-RL's agent: Q of windows from what is seen of them, and how its states are remembered."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from volition.applications._tree_rows import Make
from volition.applications._tree_sight import Seen, Sight
from volition.core.windows import ACTIONS, HISTORY, Choose, best_of_each
from volition.nets.regions import RegionQ


class TreeAgent(nn.Module):
    """Sight and Q together. The state is window, whole image and history (Jie 2016, section 3.1).

    With `context` it has the features of a window so many times as wide and high too, with `place` its corners.
    """

    def __init__(self, sight: Sight, hidden: Sequence[int], context: float, place: bool) -> None:
        super().__init__()
        self.sight, self.context, self.place = sight, context, place
        units = sight.head.units
        features = 2 * units if context else units
        self.q = RegionQ(features, units, HISTORY, len(ACTIONS), hidden, 6 if place else 0)

    def features(self, seen: Seen, image: Tensor, window: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is seen of windows `[K, 4]` of images `[K]`, and where they are: `[K, units]`, `[K, 6]`."""
        size, found = seen.size[image].float(), seen.look(image, window)
        if self.context:
            middle, half = (window[:, :2] + window[:, 2:]) / 2, (window[:, 2:] - window[:, :2]) * self.context / 2
            wider = torch.cat([(middle - half).clamp(min=0), torch.minimum(middle + half, size)], -1)
            found = torch.cat([found, seen.look(image, wider)], -1)
        if not self.place:
            return found, None
        corners = window / size.repeat(1, 2)
        return found, torch.cat([corners, (corners[:, 2:] - corners[:, :2]).log2() / 4], -1)

    def values(
        self, seen: Seen, image: Tensor, window: Tensor, history: Tensor, other: RegionQ | None = None
    ) -> Tensor:
        """Q(s,·) `[N, W, 13]` of windows `[N, W, 4]` of images `[N]` with histories `[N, W, 50]`; or `other`'s Q."""
        count, wide = window.shape[:2]
        found, place = self.features(seen, image.repeat_interleave(wide), window.flatten(0, 1))
        net, used = other or self.q, max(1, int((history > 0).sum(-1).max()))
        with torch.autocast(image.device.type, torch.bfloat16, enabled=seen.bf16):
            part = net.image_part(seen.whole[image]).repeat_interleave(wide, 0)
            q = net(found, part, history[..., -used:].flatten(0, 1), place)
        return q.float().unflatten(0, (count, wide))

    def searcher(self, seen: Seen) -> Make:
        """Numbers of images → how the agent chooses the children of their windows."""

        def make(image: Tensor) -> Choose:
            return lambda windows, history: best_of_each(self.values(seen, image, windows, history))

        return make


def pack(history: Tensor) -> Tensor:
    """Two actions in a byte: `[…, 50]` of 0 … 13 → `[…, 25]` uint8."""
    history = history.to(torch.uint8)
    return history[..., ::2] | history[..., 1::2] << 4


def unpack(packed: Tensor) -> Tensor:
    """What `pack` was given, as int8."""
    return torch.stack([packed & 15, packed >> 4], -1).flatten(-2).to(torch.int8)
