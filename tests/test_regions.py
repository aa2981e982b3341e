"""Windows: RoI pooling is the plain loop's, the split first layer is the whole one's, VGG-16's file is checked."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from volition.errors import VolitionError
from volition.nets.regions import RegionQ, SmallBackbone, range_maxima, roi_max_pool
from volition.nets.vgg import VGGBackbone, load_vgg16


def plain(features: Tensor, image: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    """Window by window, bin by bin, as Fast R-CNN's own code goes."""
    count, (_, channels, height, width) = len(boxes), features.shape
    out = features.new_zeros(count, size, size, channels)
    for k in range(count):
        x1, y1, x2, y2 = boxes[k].tolist()
        left, top = (min(math.floor(v / stride + 0.5), n - 1) for v, n in ((x1, width), (y1, height)))
        right = max(min(math.floor((x2 - 1) / stride + 0.5), width - 1), left)
        bottom = max(min(math.floor((y2 - 1) / stride + 0.5), height - 1), top)
        wide, tall = right - left + 1, bottom - top + 1
        for i in range(size):
            for j in range(size):
                rows = slice(top + math.floor(i * tall / size), top + math.ceil((i + 1) * tall / size))
                columns = slice(left + math.floor(j * wide / size), left + math.ceil((j + 1) * wide / size))
                out[k, i, j] = features[image[k], :, rows, columns].amax((1, 2))
    return out


def windows(count: int, width: int, height: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    low, high = corner.amin(1).floor(), corner.amax(1).ceil()
    return torch.cat([low, torch.maximum(high, low + 1)], -1)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("size", [2, 7])
def test_roi_max_pool_is_the_plain_loop(levels: int, size: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    features = torch.randn(3, 5, 24, 32, generator=generator)
    boxes = torch.cat([windows(60, 500, 375, generator), torch.tensor([[0, 0, 500, 375], [499, 374, 500, 375.0]])])
    image = torch.randint(3, (len(boxes),), generator=generator)
    found = roi_max_pool(range_maxima(features, levels), image, boxes, 16, size)
    assert torch.equal(found, plain(features, image, boxes, 16, size))


def test_roi_max_pool_of_no_windows_and_of_bfloat16() -> None:
    maxima = range_maxima(torch.randn(1, 3, 4, 5)).bfloat16()
    assert roi_max_pool(maxima, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 16).shape == (0, 7, 7, 3)
    whole = roi_max_pool(maxima, torch.zeros(1, dtype=torch.int64), torch.tensor([[0.0, 0, 80, 64]]), 16, size=1)
    assert torch.equal(whole[0, 0, 0], maxima[0, 0, 0].amax((0, 1)))


def test_the_gradient_of_a_maximum_goes_to_its_place() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes, image = windows(6, 176, 144, generator), torch.tensor([0, 1, 0, 1, 0, 1])
    weight = torch.randn(6, 3, 3, 3, generator=generator, dtype=torch.float64)
    pooled = roi_max_pool(range_maxima(features), image, boxes, 16, size=3)
    (pooled * weight).sum().backward()
    by_hand = torch.zeros_like(features)
    reference = plain(features.detach(), image, boxes, 16, 3)
    for k in range(6):  # values are all different: each bin's gradient belongs to the one cell that has its value
        for i, j, c in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
            here = features.detach()[image[k], c] == reference[k, i, j, c]
            by_hand[image[k], c] += here * weight[k, i, j, c]
    assert_close(features.grad, by_hand)


@pytest.mark.parametrize("place", [0, 4])
def test_the_split_first_layer_is_the_whole_one(place: int) -> None:
    torch.manual_seed(0)
    net = RegionQ(6, 5, 4, 3, (8, 7), place)
    nn.init.normal_(net.past[1:])
    history = torch.tensor([[0, 0, 0, 0], [0, 0, 3, 1], [2, 1, 1, 3]])
    window, whole, corners = torch.randn(3, 6), torch.randn(3, 5), torch.randn(3, place)
    bits = torch.nn.functional.one_hot(history, 4)[..., 1:].flatten(1).float()  # 4 actions back × 3 kinds
    weights = [net.window.weight, net.whole.weight, net.past[1:].T]
    weights += [net.place.weight] if net.place is not None else []
    joint = torch.cat([window, whole, bits, corners], -1) @ torch.cat(weights, 1).T + net.window.bias
    expected = net.rest(joint.relu())
    assert_close(net(window, net.image_part(whole), history, corners if place else None), expected)
    few = net(window[:2], net.image_part(whole)[:2], history[:2, 2:], corners[:2] if place else None)
    assert_close(few, expected[:2])


def test_no_action_is_no_row_and_gets_no_gradient() -> None:
    net = RegionQ(2, 2, 3, 4, (5,))
    x = torch.zeros(1, 2)
    net(x, net.image_part(x), torch.tensor([[0, 0, 2]])).sum().backward()
    assert net.past.grad is not None
    assert not net.past[0].any() and not net.past.grad[0].any()
    assert set(net.past.grad.any(1).nonzero().flatten().tolist()) <= {1 + 2 * 4 + 1}


def test_the_paper_s_sizes() -> None:
    net = RegionQ(4096, 4096, 50, 13, (4096, 1024, 1024, 1024)).to("meta")
    first = 8842 * 4096 + 4096
    rest = 4096 * 1024 + 1024 + 2 * (1024 * 1024 + 1024) + 1024 * 13 + 13
    assert sum(p.numel() for p in net.parameters()) == first + rest + 4096  # and the row of no action


def test_a_cell_for_every_8_pixels() -> None:
    net = SmallBackbone(8, 4).eval()
    for height, width in ((375, 500), (64, 48), (17, 33)):
        image = torch.zeros(2, 3, height, width, dtype=torch.uint8)
        assert net(image).shape == (2, 8, -(-height // 8), -(-width // 8))


def test_vgg_16_from_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = {k: 0.1 * torch.randn(v.shape) for k, v in VGGBackbone().state_dict().items()}
    weight = torch.zeros(4096, 25088, dtype=torch.float16)
    weight[0, 3 * 49 + 2 * 7 + 5] = 2.0  # channel 3, row 2, column 5 in torchvision's order
    bias = {"classifier.0.bias": torch.zeros(4096), "classifier.6.bias": torch.ones(1)}
    save_file(state | bias | {"classifier.0.weight": weight}, tmp_path / "vgg16.safetensors")
    torch.save(state, tmp_path / "vgg16.pth")
    image = torch.randint(256, (1, 3, 40, 50), dtype=torch.uint8)
    backbone, head = load_vgg16(tmp_path / "vgg16.safetensors")
    assert backbone(image).shape == (1, 512, 2, 3)
    assert not any(p.requires_grad for p in [*backbone.parameters(), *head.parameters()])
    pooled = torch.zeros(1, 7, 7, 512)
    pooled[0, 2, 5, 3] = 1.5
    assert head(pooled)[0, 0] == 3.0 and not head(pooled)[0, 1:].any()

    (tmp_path / "short.pth").write_bytes((tmp_path / "vgg16.pth").read_bytes()[:5000])
    with pytest.raises(VolitionError, match="cannot be read as weights"):
        load_vgg16(tmp_path / "short.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.0.weight": None}, "lacks features.0.weight"),
        ({"features.2.weight": torch.zeros(64, 3, 3, 3)}, r"features.2.weight is \[64, 3, 3, 3\]"),
        ({"features.0.bias": torch.full((64,), torch.nan)}, "features.0.bias holds numbers that are not finite"),
    ],
)
def test_weights_that_are_not_vgg_16(change: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    state = {k: torch.zeros(v.shape) for k, v in VGGBackbone().state_dict().items()} | change
    state |= {"classifier.0.weight": torch.zeros(1).expand(4096, 25088), "classifier.0.bias": torch.zeros(4096)}
    path = tmp_path / "vgg16.pth"
    torch.save({k: v for k, v in state.items() if v is not None}, path)
    with pytest.raises(VolitionError, match=message):
        load_vgg16(path)


def test_no_file_and_no_state_dict(tmp_path: Path) -> None:
    with pytest.raises(VolitionError, match="there is no file"):
        load_vgg16(tmp_path / "nowhere.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(VolitionError, match="not a state_dict"):
        load_vgg16(tmp_path / "tensor.pth")
