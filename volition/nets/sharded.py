"""Language models whose weights lie in parts in several processes (FSDP2, torch's `fully_shard`).

The parameters of a layer are gathered when it computes and let go after it; gradients come back summed, in parts, and
an optimiser's moments are in parts as well: a process holds 1/size of all, and one layer at a time. For speaking, a
policy's weights are gathered once and stay for all tokens.
"""

import copy
import functools
import types
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from volition.errors import VolitionError

P = ParamSpec("P")
T = TypeVar("T")
Function = Callable[Concatenate[Any, P], T]


def shard(model: Any, device: torch.device) -> Any:
    """The model, layer by layer in parts on `device`s; how all lies together is kept for `unsharded`."""
    from torch.distributed import get_world_size, init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if any("lora_" in name for name, _ in model.named_parameters()):
        raise VolitionError("adapters are not sharded: leave out --sharded, or --lora")
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    skeleton = copy.deepcopy(model, empty)
    mesh = init_device_mesh(device.type, (get_world_size(),))
    layers: set[str] = set().union(*(getattr(m, "_no_split_modules", None) or () for m in model.modules()))
    for part in [*(m for m in model.modules() if type(m).__name__ in layers), model]:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        part.set_gradient_divide_factor(1.0)  # shares of a loss are summed, not averaged
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other sum
    model.within = types.MethodType(lambda self, function, *args, **kwargs: function(self, *args, **kwargs), model)
    register_fsdp_forward_method(model, "within")
    model.unsharded = functools.partial(_together, skeleton)
    return model


def lends(function: Function[P, T]) -> Function[P, T]:
    """`function(model, …)` may use a sharded model's weights outside its layers (embedding, last layer) too."""

    @functools.wraps(function)
    def call(model: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return model.within(function, *args, **kwargs) if hasattr(model, "within") else function(model, *args, **kwargs)

    return call


def lends_all(function: Function[P, T]) -> Function[P, T]:
    """`function(model, …)` finds all weights of a sharded model gathered, and calls no process to help."""

    @functools.wraps(function)
    def call(model: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        layers = [m for m in model.modules() if hasattr(m, "unshard") and m is not model]
        for layer in layers:
            layer.unshard()
            layer.set_reshard_after_forward(False)
        try:
            return function(model, *args, **kwargs)
        finally:
            for layer in layers:
                layer.set_reshard_after_forward(True)
                layer.reshard()

    return lends(call)


def unsharded(model: Any) -> Any:
    """The model, or a sharded one's copy in one piece in the first process; to be called by all."""
    return model.unsharded(model) if hasattr(model, "unsharded") else model


def _together(skeleton: Any, model: Any) -> Any:
    from torch.distributed import get_rank

    pieces: dict[int, torch.Tensor] = {}
    names = model.state_dict(keep_vars=True)
    for x in names.values():
        if id(x) not in pieces:  # weights with two names stay one
            piece = x.full_tensor() if hasattr(x, "full_tensor") else x
            pieces[id(x)] = piece.detach().cpu() if get_rank() == 0 else torch.empty(0)
    if get_rank() == 0:
        skeleton.load_state_dict({name: pieces[id(x)] for name, x in names.items()}, assign=True)
    return skeleton


def spread(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state as it was saved, its moments in parts like the parameters they belong to."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(hasattr(p, "full_tensor") for p in parameters):
        return state
    from torch.distributed.tensor import distribute_tensor

    def part(p: Any, x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or x.shape != p.shape:
            return x
        return distribute_tensor(x.to(p.device), p.device_mesh, p.placements, src_data_rank=None)

    moments = {i: {name: part(parameters[i], x) for name, x in some.items()} for i, some in state["state"].items()}
    return state | {"state": moments}
