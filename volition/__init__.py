"""Volition: learning by reward."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volition.envs.agent import Agent

__version__ = "0.1.0"


def load(folder: str | Path, env: Any = None, *, device: str = "auto") -> "Agent":
    """The agent that the run in `folder` has trained so far, ready to act; no random state is changed.

    `env` is needed where the run was given an environment object of the user's own.
    VolitionError where there is no run, no checkpoint, or a recipe that cannot load.
    """
    from volition import zoo  # all inside: importing volition imports nothing heavy
    from volition.errors import VolitionError
    from volition.folder import read_config

    recipe, _ = zoo.resolve(read_config(folder)["recipe"])
    module = recipe.load()
    if not hasattr(module, "load"):
        raise VolitionError(f"{recipe.name} cannot be loaded: {recipe.path} has no load(config, run, env)")
    import torch

    from volition.checkpoint import undisturbed
    from volition.run import Run

    with undisturbed(torch.Generator()):
        run = Run.open(folder, module.Config, device=device)
        return module.load(run.config, run, env)
