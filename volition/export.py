"""A run's policy for others: safetensors and JSON, which hold no code."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from volition.errors import VolitionError
from volition.folder import read_config
from volition.run import Run


def write(folder: Path, out: Path, force: bool = False, name: str = "policy", half: bool = False) -> list[Path]:
    """Write OUT/NAME.safetensors and OUT/NAME.json of the run in `folder`, with `half` in float16; the two paths.

    `name` is what the recipe tracks: `policy` of most, `value_net` of alphago, `net` of alphazero.
    """
    run = Run.open(folder, device="cpu")
    state = run.saved(name)
    weights, settings = out / f"{name}.safetensors", out / f"{name}.json"
    for path in (weights, settings):
        if path.exists() and not force:
            raise VolitionError(f"{path} is there already; give --force to replace it, or another folder")
    odd = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd or not state:
        raise VolitionError(f"the {name} in {folder} holds {odd[0] if odd else 'nothing'!r}, not only tensors")
    about = {key: value for key, value in read_config(folder).items() if key not in ("data", "command")}
    about |= {"updates": run.step, "trained_on": run.trained_on}
    try:
        out.mkdir(parents=True, exist_ok=True)
        # a copy each: safetensors refuses tensors that share memory
        tensors = {key: value.clone().contiguous() for key, value in state.items()}
        if half:
            tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        save_file(tensors, weights, metadata={"recipe": run.recipe, "variant": run.variant})
        settings.write_text(json.dumps(about, indent=2) + "\n")
    except Exception as error:  # safetensors wraps a full disk in an error of its own
        raise VolitionError(f"cannot write to {out} ({' '.join(str(error).split())[:200]}): mend it") from None
    return [weights, settings]
