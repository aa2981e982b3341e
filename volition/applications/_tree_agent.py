"""Tree-RL's agent: Q of windows from what is seen of them, and how its states are remembered."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from volition.applications._tree_rows import Make
from volition.applications._tree_sight import Seen, Sight
from volition.core.windows import ACTIONS, HISTORY, Choose, best_apart, best_of_each, moves
from volition.nets.regions import RegionHead, RegionQ


class WindowQ(nn.Module):
    """Q of windows as they are pooled, through a `head` of its own, or of the features that `Seen` gives, without."""

    def __init__(self, head: RegionHead | None, q: RegionQ) -> None:
        super().__init__()
        self.head, self.q = head, q

    def look(self, seen: Seen, image: Tensor, window: Tensor) -> Tensor:
        """Features `[K, units]` of windows `[K, 4]` of images `[K]`."""
        return seen.look(image, window) if self.head is None else self.head(seen.maps.pool(image, window))

    def begin(self, sight: Sight) -> None:
        """Take over the features that sight has learned."""
        if self.head is not None:
            self.head.load_state_dict(sight.head.state_dict())


class TreeAgent(nn.Module):
    """Sight and Q together. The state is window, whole image and history (Jie 2016, section 3.1).

    With `place` it has the window's corners too. With `own` Q has a head of its own, which begins as sight's and learns
    on from rewards; else its features stay.
    """

    def __init__(self, sight: Sight, hidden: Sequence[int], place: bool, own: bool) -> None:
        super().__init__()
        self.sight, self.place = sight, place
        units = sight.head.units
        q = RegionQ(units, units, HISTORY, len(ACTIONS), hidden, 6 if place else 0)
        self.net = WindowQ(copy.deepcopy(sight.head) if own else None, q)

    def values(
        self, seen: Seen, image: Tensor, window: Tensor, history: Tensor, other: WindowQ | None = None
    ) -> Tensor:
        """Q(s,·) `[N, W, 13]` of windows `[N, W, 4]` of images `[N]` with histories `[N, W, 50]`; or `other`'s Q."""
        count, wide = window.shape[:2]
        net, used = other or self.net, max(1, int((history > 0).sum(-1).max()))
        each, window = image.repeat_interleave(wide), window.flatten(0, 1)
        size = seen.size[each].float()
        corners = window / size.repeat(1, 2)
        place = torch.cat([corners, (corners[:, 2:] - corners[:, :2]).log2() / 4], -1) if self.place else None

        with torch.autocast(image.device.type, torch.bfloat16, enabled=seen.bf16):
            found = net.look(seen, each, window)
            scene = seen.whole[image] if net.head is None else net.head(seen.pooled[image])
            part = net.q.image_part(scene).repeat_interleave(wide, 0)
            q = net.q(found, part, history[..., -used:].flatten(0, 1), place)
        return q.float().unflatten(0, (count, wide))

    def searcher(self, seen: Seen, apart: float = 1.0) -> Make:
        """Numbers of images → how the agent chooses the children of their windows.

        With `apart` below 1 no child's IoU with a window of the tree is more, where another child can be had.
        """

        def make(image: Tensor) -> Choose:
            found: list[Tensor] = []

            def choose(windows: Tensor, history: Tensor) -> Tensor:
                q = self.values(seen, image, windows, history)
                if apart == 1:
                    return best_of_each(q)
                found.append(windows)
                return best_apart(q, moves(windows, seen.size[image].unsqueeze(1)), torch.cat(found, 1), apart)

            return choose

        return make


def pack(history: Tensor) -> Tensor:
    """Two actions in a byte: `[…, 50]` of 0 … 13 → `[…, 25]` uint8."""
    history = history.to(torch.uint8)
    return history[..., ::2] | history[..., 1::2] << 4


def unpack(packed: Tensor) -> Tensor:
    """What `pack` was given, as int8."""
    return torch.stack([packed & 15, packed >> 4], -1).flatten(-2).to(torch.int8)
