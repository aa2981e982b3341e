"""VGG-16 from a file on this machine: the convolutions as a backbone and fc6 as the head of windows (Simonyan 2015)."""

from pathlib import Path

import torch
from torch import Tensor, nn

from volition.errors import VolitionError
from volition.nets.regions import RegionHead

PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # channels; 0: a 2 × 2 maximum
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that torchvision's weights were trained on


class VGGBackbone(nn.Module):
    """conv1_1 … conv5_3 with ReLU: images `[N, 3, H, W]` of bytes → `[N, 512, ⌊H/16⌋, ⌊W/16⌋]`."""

    stride = 16

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in PLAN:
            if outputs:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)  # numbered as torchvision's are
        self.channels = inputs

    def forward(self, image: Tensor) -> Tensor:
        """Bytes `[N, 3, H, W]` → features."""
        mean, std = (torch.tensor(x, device=image.device)[:, None, None] for x in (MEAN, STD))
        x = (image.to(memory_format=torch.channels_last, dtype=torch.float32) / 255 - mean) / std
        return self.features(x)


def load_vgg16(path: Path) -> tuple[VGGBackbone, RegionHead]:
    """Backbone and fc6 of the weights in `path`, in torchvision's names: .safetensors, or a state_dict of torch.save.

    fc6's columns are put in the order of `roi_max_pool`, channels last. Errors name the file and what is wrong in it.
    """
    state = _read(path)
    with torch.device("meta"):  # no first weights: these would take longer than the file
        backbone, head = VGGBackbone(), RegionHead(512, 4096)
    conv = backbone.state_dict()
    wanted = {name: tuple(p.shape) for name, p in conv.items()}
    wanted |= {"classifier.0.weight": (4096, 512 * 7 * 7), "classifier.0.bias": (4096,)}
    missing = [name for name in wanted if name not in state]
    if missing:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise VolitionError(f"{path} lacks {some}: it must hold VGG-16 in torchvision's names, without batch norm")
    for name, shape in wanted.items():
        found = state[name]
        if not isinstance(found, Tensor) or tuple(found.shape) != shape:
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise VolitionError(f"{path}: {name} is {what}, of VGG-16 it would be {list(shape)}")
        if not bool(torch.isfinite(found).all()):
            raise VolitionError(f"{path}: {name} holds numbers that are not finite; fetch the file again")
    backbone.load_state_dict({name: state[name].float() for name in conv}, assign=True)
    weight = state["classifier.0.weight"].float().unflatten(1, (512, 7, 7)).permute(0, 2, 3, 1).flatten(1)
    bias = state["classifier.0.bias"].float()
    head.linear.load_state_dict({"weight": weight.contiguous(), "bias": bias}, assign=True)
    return backbone.requires_grad_(False).eval(), head.requires_grad_(False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise VolitionError(f"there is no file {path}; give the weights of VGG-16 as .safetensors or .pth")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each library complains of damage in its own way
        raise VolitionError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(state, dict):
        raise VolitionError(f"{path} holds {type(state).__name__}, not a state_dict of names and tensors")
    return state
