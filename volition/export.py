"""A run's policy for others: safetensors and JSON, which hold no code."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from volition.errors import VolitionError
from volition.folder import read_config
from volition.run import Run


def write(folder: Path, out: Path, force: bool = False) -> list[Path]:
    """Write OUT/policy.safetensors and OUT/policy.json of the run in `folder`; the two paths."""
    run = Run.open(folder, device="cpu")
    state = run.saved("policy")
    weights, settings = out / "policy.safetensors", out / "policy.json"
    for path in (weights, settings):
        if path.exists() and not force:
            raise VolitionError(f"{path} is there already; give --force to replace it, or another folder")
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd or not state:
        raise VolitionError(f"the policy in {folder} holds {odd[0] if odd else 'nothing'!r}, not only tensors")
    about = {name: value for name, value in read_config(folder).items() if name not in ("data", "command")}
    about |= {"updates": run.step, "trained_on": run.trained_on}
    try:
        out.mkdir(parents=True, exist_ok=True)
        # a copy each: safetensors refuses tensors that share memory
        tensors = {name: value.clone().contiguous() for name, value in state.items()}
        save_file(tensors, weights, metadata={"recipe": run.recipe, "variant": run.variant})
        settings.write_text(json.dumps(about, indent=2) + "\n")
    except Exception as error:  # safetensors wraps a full disk in an error of its own
        raise VolitionError(f"cannot write to {out} ({' '.join(str(error).split())[:200]}): mend it") from None
    return [weights, settings]
