"""The glimpse sensor ρ(x, l): a few small patches of an image, each twice as wide and half as sharp as the last."""

import torch
from torch import Tensor

IN_CACHE = 2**18  # cells of which the sums are made at a time


class GlimpseSensor:
    """ρ(x, l) of Mnih et al. (2014), section 3.1: k square patches centred on l, all of g×g values in [0, 1].

    Patch s covers g·2ˢ × g·2ˢ pixels; each of its values is the exact mean of 2ˢ×2ˢ pixels, and pixels outside the
    image are 0. A location l = (x, y) is in units of half the image: (−1, −1) is the top-left corner, (0, 0) the
    centre; it is clipped to the image and rounded to whole pixels. `prepare` sums, once per image, every 2ˢ×2ˢ block
    at every position; a look then only copies rows. Images are uint8 (0 … 255) or float (0 … 1).
    """

    def __init__(self, height: int, width: int, size: int, scales: int) -> None:
        if size < 1 or scales < 1 or (scales > 1 and size % 2):
            raise ValueError(
                f"glimpses need size ≥ 1, even if there are several scales, and scales ≥ 1: {size}, {scales}"
            )
        self.height, self.width, self.size, self.scales = height, width, size, scales
        # Images lie end to end, and so do their rows, with one zero gap between two, half a patch wide: it is the right
        # border of one row and the left border of the next. Above an image lies a border of the largest block, below
        # it one zero row; the last image is followed by as much nothing as a block or a patch can reach.
        self._above, self._gap = 2 ** (scales - 1), ((size << (scales - 1)) + 1) // 2
        self._rows, self._columns = height + self._above + 1, width + self._gap
        self._tail = (self._above + 1) * (self._columns + self._gap)
        self._table: tuple[Tensor, Tensor, Tensor] | None = None

    def prepare(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Sums of all 2ˢ×2ˢ blocks: images `[B, H, W]` -> `[k, n]`, indexed by the block's first pixel.

        S_s(p) = S_{s−1}(p) + S_{s−1}(p + right) + S_{s−1}(p + down) + S_{s−1}(p + right + down), steps of 2ˢ⁻¹ pixels.
        `out`, the result for earlier images of the same number and type, is overwritten and saves fresh memory.
        """
        exact = torch.int16 if self.scales <= 4 else torch.int32  # 255·4³ still fits 16 bits
        dtype = images.dtype if images.is_floating_point() else exact
        cells = self._rows * self._columns
        shape = (self.scales, len(images) * cells + self._tail)
        if out is not None and out.shape == shape and out.dtype == dtype:
            sums = out  # its borders are zero already
        else:
            sums = torch.zeros(shape, dtype=dtype, device=images.device)
        # A few images at a time stay in a processor's cache. What blocks reach of the next image is its border: zeros,
        # in every scale.
        few = len(images) if images.is_cuda else max(1, IN_CACHE // cells)
        for first in range(0, len(images), few):
            some = images[first : first + few]
            begin, end = first * cells, (first + len(some)) * cells
            grid = sums[0, begin:end].view(-1, self._rows, self._columns)
            grid[:, self._above : -1, self._gap :] = some
            for s in range(1, self.scales):
                right, down = 2 ** (s - 1), 2 ** (s - 1) * self._columns
                below = sums[s - 1, begin : end + right + down]
                pairs = below[:-right] + below[right:]
                torch.add(pairs[:-down], pairs[down:], out=sums[s, begin:end])
        return sums

    def look(self, sums: Tensor, location: Tensor) -> Tensor:
        """The glimpse at location `[B, 2]` (x, y) -> `[B, k, g, g]` float32; sums come from `prepare`."""
        batch, cells = len(location), self._rows * self._columns
        if self._table is None or self._table[0].device != sums.device:
            self._table = self._offsets(sums.device)
        row, column, extent = self._table
        centre = ((location.clamp(-1, 1) + 1) * extent).round_().long()
        image = torch.arange(0, batch * cells, cells, device=sums.device)
        first = (centre[:, 1, None, None] + row).clamp_(0, self._rows - 1).mul_(self._columns)  # [B, k, g]
        first.add_(column).add_((centre[:, 0] + image)[:, None, None])
        glimpse = torch.empty(batch, self.scales, self.size, self.size, device=sums.device)
        unit = 1.0 if sums.is_floating_point() else 1 / 255
        for s in range(self.scales):
            side = self.size << s
            # All runs of `side` cells as overlapping rows of one matrix, so that a look copies rows, not single cells.
            runs = sums[s].as_strided((sums.shape[1] - side + 1, side), (1, 1))
            copied = runs.index_select(0, first[:, s].reshape(-1)).view(batch, self.size, side)
            torch.mul(copied[:, :, :: 2**s], unit / 4**s, out=glimpse[:, s])
        return glimpse

    def _offsets(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """From a centre to the first cell of each of a patch's rows: `[k, g]` rows, `[k, 1]` columns; half extents."""
        s = torch.arange(self.scales, device=device)[:, None]
        half = (self.size << s) // 2
        row = (torch.arange(self.size, device=device) << s) - half + self._above
        return row, self._gap - half, torch.tensor([self.width, self.height], device=device) / 2
