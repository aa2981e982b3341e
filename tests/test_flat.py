"""One vector for all parameters: it is the same memory, and its optimisers are the textbook's."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from volition.core.flat import ALIGN, Flat, FlatAdam, FlatRMSProp


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def gradient(model: nn.Module, seed: int) -> None:
    """Gradients of a loss that changes with `seed`, added to `.grad`."""
    x, y = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(seed)).unbind(0)
    (model(x) - y[:, :2]).square().mean().backward()


def test_parameters_are_views_of_the_vector_and_keep_their_values() -> None:
    model, same = net(), net()
    flat = Flat(model)
    for p, q in zip(model.parameters(), same.parameters(), strict=True):
        assert_close(p, q, rtol=0, atol=0)
        assert p.untyped_storage().data_ptr() == flat.data.untyped_storage().data_ptr()
        assert p.grad is not None and p.grad.untyped_storage().data_ptr() == flat.grad.untyped_storage().data_ptr()
        assert p.storage_offset() == p.grad.storage_offset() and p.storage_offset() % ALIGN == 0
    flat.data.fill_(2.0)
    flat.grad.fill_(-1.0)
    assert all(bool((p == 2).all()) and bool((p.grad == -1).all()) for p in model.parameters())
    with torch.no_grad():  # and the other way round; each parameter has a place of its own
        for i, p in enumerate(model.parameters()):
            p.fill_(i)
    # 15, 5, 10 and 2 numbers; the rest is padding, which still holds 2
    counts = [int((flat.data == i).sum()) for i in range(4)]
    assert counts == [15, 5, 10 + (len(flat.data) - 32), 2]


def test_autograd_adds_into_the_vector() -> None:
    model, same = net(), net()
    flat = Flat(model)
    views = [p.grad for p in model.parameters()]
    gradient(model, 1)
    gradient(same, 1)
    assert all(p.grad is view for p, view in zip(model.parameters(), views, strict=True))
    once = flat.grad.clone()
    for p, q in zip(model.parameters(), same.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert_close(p.grad, q.grad, rtol=0, atol=0)
    gradient(model, 1)
    assert_close(flat.grad, 2 * once, rtol=0, atol=0)
    assert once.abs().max() > 0.01
    flat.zero_grad()
    assert not flat.grad.any() and all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_loading_weights_keeps_the_views() -> None:
    model, other = net(), net(1)
    flat = Flat(model)
    model.load_state_dict(other.state_dict())
    before = model[0].weight.detach().clone()
    assert_close(before, other[0].weight)
    flat.data.mul_(3)
    assert_close(model[0].weight, 3 * before)


def test_clip_by_hand() -> None:
    model = nn.Linear(2, 1)
    flat = Flat(model)
    model.weight.grad.copy_(torch.tensor([[3.0, 0.0]]))  # pyrefly: ignore
    model.bias.grad.fill_(-4.0)  # pyrefly: ignore
    # ‖(3, 0, −4)‖ = 5, so that 10 leaves it and 1 shortens it fivefold
    assert flat.clip_grad_norm(10.0).item() == pytest.approx(5.0)
    assert_close(model.weight.grad, torch.tensor([[3.0, 0.0]]), rtol=0, atol=0)
    assert flat.clip_grad_norm(1.0).item() == pytest.approx(5.0)
    assert_close(model.weight.grad, torch.tensor([[0.6, 0.0]]))
    assert_close(model.bias.grad, torch.tensor([-0.8]))
    flat.zero_grad()
    assert flat.clip_grad_norm(1.0).item() == 0 and not flat.grad.any()  # no 0/0


def test_clip_equals_torch() -> None:
    model, same = net(), net()
    flat = Flat(model)
    gradient(model, 3)
    gradient(same, 3)
    norm = nn.utils.clip_grad_norm_(same.parameters(), 0.1)
    assert_close(flat.clip_grad_norm(0.1), norm)
    for p, q in zip(model.parameters(), same.parameters(), strict=True):
        assert_close(p.grad, q.grad)


@pytest.mark.parametrize("eps", [1e-8, 1e-5, 0.1])
def test_adam_equals_torch(eps: float) -> None:
    model, same = net(), net()
    flat = Flat(model)
    ours = FlatAdam(flat, 1e-2, (0.8, 0.95), eps)
    theirs = torch.optim.Adam(same.parameters(), 1e-2, (0.8, 0.95), eps)
    for i in range(20):
        flat.zero_grad()
        theirs.zero_grad()
        gradient(model, i)
        gradient(same, i)
        lr = 1e-2 * (1 - i / 30)  # annealed
        theirs.param_groups[0]["lr"] = lr
        theirs.step()
        ours.step(lr)
    for p, q, start in zip(model.parameters(), same.parameters(), net().parameters(), strict=True):
        assert_close(p, q, rtol=0, atol=1e-6)
        assert (p - start).abs().max() > 0.01


def test_the_first_step_of_adam_by_hand() -> None:
    # m̂ = g and v̂ = g² after one step, so θ moves by lr·g/(|g| + ε): 0.1·2/(2 + 2) = 0.05, and by nothing for g = 0
    model = nn.Linear(2, 1, bias=False)
    flat = Flat(model)
    flat.data.zero_()
    model.weight.grad.copy_(torch.tensor([[-2.0, 0.0]]))  # pyrefly: ignore
    FlatAdam(flat, 0.1, eps=2.0).step()
    assert_close(model.weight.detach(), torch.tensor([[0.05, 0.0]]))


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_rmsprop_by_hand(start: float) -> None:
    # v ← 0.9v + 0.1g², θ ← θ − lr·g/√(v + 0.01) for g = 2, then g = −1 at half the rate
    model = nn.Linear(1, 1, bias=False)
    flat = Flat(model)
    flat.data.fill_(1.0)
    optimizer = FlatRMSProp(flat, 0.5, alpha=0.9, eps=0.01, start=start)
    v1 = 0.9 * start + 0.4
    x1 = 1 - 0.5 * 2 / math.sqrt(v1 + 0.01)
    v2 = 0.9 * v1 + 0.1
    x2 = x1 + 0.25 * 1 / math.sqrt(v2 + 0.01)
    for g, lr, expected in ((2.0, None, x1), (-1.0, 0.25, x2)):
        flat.grad.fill_(g)
        optimizer.step(lr)
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [FlatAdam, FlatRMSProp])
def test_state_round_trip_is_exact(kind: Any, tmp_path: Any) -> None:
    model, other = net(), net(1)
    flat, second = Flat(model), Flat(other)
    first, again = kind(flat, 1e-2), kind(second, 1e-2)
    for i in range(3):
        flat.zero_grad()
        gradient(model, i)
        first.step()
    torch.save({"model": model.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    for i in range(3, 6):
        for f, m, o in ((flat, model, first), (second, other, again)):
            f.zero_grad()
            gradient(m, i)
            o.step()
    assert torch.equal(flat.data, second.data)
    saved["optimizer"]["v"].fill_(math.nan)  # what was loaded is a copy
    assert again.v.isfinite().all()


def test_parameters_of_two_kinds_are_refused() -> None:
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.float64)])
    with pytest.raises(ValueError, match="one dtype"):
        Flat(model)
