"""What Tree-RL's backbone learns by: the losses of cells and of windows, by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from volition.applications._tree_sight import Sight
from volition.nets.regions import Detector, RegionHead, SmallBackbone


class Given(nn.Module):
    """Says what it was told to, whatever it is shown."""

    stride = 8

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, image: Tensor) -> Tensor:
        return self.answer


def sight(answer: Tensor, classes: int = 2) -> Sight:
    made = Sight(SmallBackbone(4, 1), RegionHead(4, 8), classes)
    made.backbone, made.cell = Given(answer), nn.Identity()  # pyrefly: ignore
    return made


def test_a_cell_learns_the_smallest_object_around_its_centre() -> None:
    """Cells of 8 pixels; a small object fills the first, a large one the picture; e⁰ of a reach is 5 strides.

    Centredness of the large one's cells: 4/20 across and 4/12 down, twice, and 12/12, 4/12 in the middle column.
    """
    reach = torch.tensor(
        [[4, 4, 4, 4], [12, 4, 12, 12], [20, 4, 4, 12], [4, 12, 20, 4], [12, 12, 12, 4], [20, 12, 4, 4.0]]
    )
    reach[1:] /= 2  # half of each side is IoU ¼
    logits = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.0]])
    answer = torch.cat([logits, (reach / 40).log()], 1).T.reshape(1, 7, 2, 3)
    boxes, label = torch.tensor([[[0, 0, 24, 16], [0, 0, 8, 8.0]]]), torch.tensor([[0, 1]])
    losses = sight(answer).cell_loss(torch.zeros(1, 3, 16, 24), boxes, label)
    told = math.log(2 + math.e) - 1  # cross-entropy where the right one of three has a 1
    middle, corner = math.sqrt(1 / 3), math.sqrt(1 / 15)
    large = (middle * told + (middle + 3 * corner) * math.log(3)) / (2 * middle + 3 * corner)
    assert losses["cell_class"].item() == pytest.approx((told + large) / 2)
    assert losses["cell_box"].item() == pytest.approx(math.log(4) / 2, rel=1e-5)


def test_cells_outside_of_all_objects_are_ground() -> None:
    """With no object in the batch the boxes cost nothing, and no gradient is NaN."""
    made = sight(torch.zeros(1, 7, 2, 2))
    losses = made.cell_loss(torch.zeros(1, 3, 16, 16), torch.zeros(1, 2, 4), torch.full((1, 2), -1))
    assert losses["cell_class"].item() == pytest.approx(math.log(3))
    assert losses["cell_box"].item() == 0
    (losses["cell_class"] + losses["cell_box"]).backward()
    assert made.backbone.answer.grad.isfinite().all()  # pyrefly: ignore


def test_windows_learn_class_and_deltas() -> None:
    """A window with IoU ½ or more is its object's, another is nothing; only the first learns where the box is."""
    made = sight(torch.zeros(1, 7, 2, 2))
    made.detector = Detector(8, 2)
    nn.init.zeros_(made.detector.score.weight)
    nn.init.zeros_(made.detector.box.weight)
    window = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 20], [30, 30, 40, 40.0]]])
    boxes, label = torch.tensor([[[1, 0, 11, 10.0]]]), torch.tensor([[1]])
    losses = made.window_loss(torch.zeros(3, 7, 7, 4), window, boxes, label)
    assert losses["window_class"].item() == pytest.approx(math.log(3))
    # IoU 9/11, 9/21, 0: only the first is the object's; its centre is 1/10 of a side off, over 0.1 a delta of 1
    assert losses["window_box"].item() == pytest.approx(0.5 / 3)
