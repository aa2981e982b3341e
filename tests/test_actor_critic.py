"""The actor-critic without autograd: what it says and what it learns are those of its differentiable twin."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.testing import assert_close

from volition.core.distributions import Categorical, DiagonalGaussian
from volition.core.flat import Flat, FlatAdam
from volition.core.policy import tree_map, tree_where
from volition.envs.spaces import action_head, encoder
from volition.nets.actor_critic import ActorCritic, judge
from volition.nets.recurrent_actor_critic import RecurrentActorCritic
from volition.nets.stack import Activation

B, A = 9, 4
every_kind = pytest.mark.parametrize("activation", ["tanh", "relu"])
every_depth = pytest.mark.parametrize("hidden", [(5,), (6, 5), (6, 5, 4)])

BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))
SPACES = {
    "discrete": spaces.Discrete(A, start=2),
    "box": BOX,
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary(3),
    "dict": spaces.Dict({"move": BOX, "shoot": spaces.Discrete(3)}),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.MultiDiscrete([3, 2]))),
}


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian(y: Tensor) -> DiagonalGaussian:
    mean, log_std = y.chunk(2, -1)
    return DiagonalGaussian(mean, log_std.exp())


def shaken(net: ActorCritic) -> Flat:
    """Weights far from the first ones, but those of outputs that do not vary, which are 0."""
    flat = Flat(net)
    with torch.no_grad():
        for i, p in enumerate(flat.parameters):
            p.add_(0.3 * draw(*p.shape, seed=50 + i, dtype=p.dtype))
        if net.varies is not None:
            net.actor.mul_(net.varies)
    return flat


def make(
    distribution: Any, varies: tuple[bool, ...], hidden: tuple[int, ...], activation: Activation
) -> tuple[ActorCritic, Flat]:
    torch.manual_seed(0)
    net = ActorCritic(lambda x: x, 3, distribution, varies, hidden, activation).double()
    return net, shaken(net)


def compare(net: Any, flat: Flat, obs: Any, action: Any, mask: Tensor | None = None, differences: bool = True) -> None:
    """judge against autograd, and finite differences where all is float64."""
    dtype = flat.data.dtype
    weights = [draw(B, seed=i, dtype=dtype) for i in (20, 21, 22)]  # ∂L/∂log π, ∂L/∂H, ∂L/∂V

    def loss() -> Tensor:
        pi, _, value = net(obs, None, mask)
        return (weights[0] * pi.log_prob(action) + weights[1] * pi.entropy() + weights[2] * value).sum()

    flat.zero_grad()
    loss().backward()
    expected = flat.grad.clone()
    assert min(p.grad.abs().max().item() for p in flat.parameters if p.grad is not None) > 1e-3
    for p in flat.parameters:
        p.grad.fill_(9.0)  # pyrefly: ignore  what stood there before is written over
    now = net.judge(obs, action, mask)
    now.backward(*weights)
    exact = dtype == torch.float64
    assert_close(flat.grad, expected, rtol=0, atol=1e-10 if exact else 1e-5)
    pi, _, value = net(obs, None, mask)
    for ours, theirs in ((now.log_prob, pi.log_prob(action)), (now.entropy, pi.entropy()), (now.value, value)):
        assert_close(ours, theirs.detach(), rtol=0, atol=1e-10 if exact else 1e-5)
        assert not ours.requires_grad
    assert_close(net.values(obs), value.detach(), rtol=0, atol=1e-10 if exact else 1e-5)
    if differences:
        assert_close(flat.grad, numeric(loss, net, flat), rtol=1e-5, atol=1e-6)


def numeric(loss: Callable[[], Tensor], net: ActorCritic, flat: Flat, step: float = 1e-6) -> Tensor:
    """Central differences along each parameter (float64)."""
    found = torch.zeros_like(flat.data)
    for i in range(len(flat.data)):
        values = []
        for sign in (1, -1):
            flat.data[i] += sign * step
            values.append(loss().detach())
            flat.data[i] -= sign * step
        found[i] = (values[0] - values[1]) / (2 * step)
    return found


@every_kind
@every_depth
@pytest.mark.parametrize("masked", [False, True])
def test_categorical(hidden: tuple[int, ...], activation: Activation, masked: bool) -> None:
    net, flat = make(Categorical, (True,) * A, hidden, activation)
    obs = draw(B, 3, seed=1)
    mask = draw(B, A, seed=2) > 0
    mask[torch.arange(B), torch.arange(B) % A] = True
    mask[0] = torch.tensor([True, False, False, False])  # one choice is left: no entropy, no gradient
    action = torch.arange(B) % A if masked else torch.randint(A, (B,), generator=torch.Generator().manual_seed(3))
    compare(net, flat, obs, action, mask if masked else None)


@every_kind
@every_depth
def test_gaussian(hidden: tuple[int, ...], activation: Activation) -> None:
    net, flat = make(gaussian, (True, True, False, False), hidden, activation)
    compare(net, flat, draw(B, 3, seed=1), draw(B, 2, seed=2))
    assert not net.actor[:, 2:].any() and net.actor.grad is not None and not net.actor.grad[:, 2:].any()


def of_space(name: str, hidden: tuple[int, ...] = (6, 5), activation: Activation = "tanh") -> tuple[Any, Flat, Any]:
    torch.manual_seed(0)
    see = encoder(spaces.Dict({"x": spaces.Box(-9, 9, (3,)), "n": spaces.Discrete(3)}))
    act = action_head(SPACES[name])
    net = ActorCritic(see.encode, see.size, act.distribution, act.varies, hidden, activation)
    obs = {"x": draw(B, 3, seed=1, dtype=torch.float32), "n": torch.arange(B) % 3}
    return net, shaken(net), obs


@every_kind
@pytest.mark.parametrize("name", SPACES)
def test_every_action_space(name: str, activation: Activation) -> None:
    net, flat, obs = of_space(name, (6, 5), activation)
    action = net(obs).distribution.sample(torch.Generator().manual_seed(0))
    compare(net, flat, obs, action, differences=False)


@pytest.mark.parametrize("name", ["discrete", "multidiscrete"])
def test_masks_of_every_space_that_has_them(name: str) -> None:
    net, flat, obs = of_space(name)
    mask = torch.ones(B, len(net.actor_bias), dtype=torch.bool)
    mask[:, 1] = False
    action = net(obs, None, mask).distribution.sample(torch.Generator().manual_seed(0))
    first = action if name == "discrete" else action[:, 0]
    assert bool((first != 1).all())
    compare(net, flat, obs, action, mask, differences=False)
    assert net.actor.grad is not None and not net.actor.grad[:, 1].any()


def test_numpy_outputs_are_torchs_and_follow_the_weights() -> None:
    for activation in ("tanh", "relu"):
        net, flat, obs = of_space("discrete", activation=activation)
        outputs = net.outputs()  # made once, used after every step of the optimiser
        x = net.encode(obs)
        kept = x.clone()
        optimizer = FlatAdam(flat, 0.1)
        seen = []
        for seed in range(3):
            y = outputs(x.numpy())
            seen.append(y.copy())
            assert_close(torch.from_numpy(y), net(obs).distribution.logits.detach(), rtol=0, atol=1e-5)
            flat.grad.copy_(draw(len(flat.grad), seed=seed, dtype=torch.float32))
            optimizer.step()
        assert abs(seen[2] - seen[0]).max() > 0.1
        assert_close(x, kept, rtol=0, atol=0)  # obs are the collector's memory
        net.load_state_dict(of_space("discrete", activation=activation)[0].state_dict())  # as a resumed run does
        np.testing.assert_allclose(outputs(x.numpy()), seen[0], atol=1e-6)


def test_outputs_that_do_not_vary_stay_so_while_learning() -> None:
    net, flat, obs = of_space("dict")
    optimizer = FlatAdam(flat, 0.1)
    varies = net.varies
    assert varies is not None and varies.tolist() == [True, True, False, False, True, True, True]
    for seed in range(5):
        action = net(obs).distribution.sample(torch.Generator().manual_seed(seed))
        net.judge(obs, action).backward(*(draw(B, seed=i + seed, dtype=torch.float32) for i in range(3)))
        optimizer.step()
    assert not net.actor[:, ~varies].any() and bool(net.actor[:, varies].any(0).all())
    std = net(obs).distribution.parts["move"].std
    assert_close(std, std[:1].expand_as(std), rtol=0, atol=0)
    assert net.actor_bias[~varies].abs().min() > 0.01


def test_the_first_policy_is_near_uniform_and_forward_takes_any_batch() -> None:
    torch.manual_seed(0)
    net = ActorCritic(lambda x: x, 3, Categorical, (True,) * A)
    x = draw(2, 5, 3, seed=1, dtype=torch.float32)
    pi, state, value = net(x)
    assert pi.probs.shape == (2, 5, A) and value.shape == (2, 5) and state is None and net.initial_state(5) is None
    assert (pi.probs - 1 / A).abs().max() < 0.02
    flat = net(x.flatten(0, 1))
    assert_close(flat.value.view(2, 5), value)


def test_judge_of_a_graph_adds_the_same_gradients() -> None:
    net, flat, obs = of_space("dict")
    action = net(obs).distribution.sample(torch.Generator().manual_seed(0))
    weights = [draw(B, seed=i, dtype=torch.float32) for i in range(3)]
    now = net.judge(obs, action)
    now.backward(*weights)
    by_hand = flat.grad.clone()
    flat.zero_grad()
    other = judge(net(obs), action)
    for a, b in zip(other[:3], now[:3], strict=True):
        assert not a.requires_grad
        assert_close(a, b, rtol=0, atol=1e-5)
    other.backward(*weights)
    assert_close(flat.grad, by_hand, rtol=0, atol=1e-5)


def test_judging_leaves_actions_and_obs_alone() -> None:
    net, _, obs = of_space("box")
    action = net(obs).distribution.sample(torch.Generator().manual_seed(0))
    kept = tree_map(torch.clone, (obs, action))
    gradients = [torch.ones(B) for _ in range(3)]
    net.judge(obs, action).backward(*gradients)
    assert_close((obs, action), kept, rtol=0, atol=0)
    assert all(bool((g == 1).all()) for g in gradients)


# ---- with a memory


def remembering(name: str = "discrete") -> RecurrentActorCritic:
    torch.manual_seed(0)
    act = action_head(SPACES[name])
    net = RecurrentActorCritic(lambda x: x, 3, act.distribution, act.varies, (5,), 4)
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(0.3 * draw(*p.shape, seed=50 + i, dtype=torch.float32))
    return net


def test_each_memory_is_torchs_gru() -> None:
    net = remembering()
    x, h = draw(B, 3, seed=1, dtype=torch.float32), draw(B, 2, 4, seed=2, dtype=torch.float32)
    pi, state, value = net(x, h)
    seen = net.stack(x)
    for i in (0, 1):
        cell = nn.GRUCell(5, 4)
        with torch.no_grad():
            for theirs, ours in (
                (cell.weight_ih, net.see[i].T), (cell.weight_hh, net.recall[i].T),
                (cell.bias_ih, net.see_bias[i, 0]), (cell.bias_hh, net.recall_bias[i, 0]),
            ):  # fmt: skip
                theirs.copy_(ours)
            assert_close(state[:, i], cell(seen[i], h[:, i]), rtol=0, atol=1e-6)
    assert_close(value, (state[:, 1] @ net.critic + net.critic_bias).squeeze(-1))
    assert_close(pi.logits, state[:, 0] @ net.actor + net.actor_bias)


def test_sequence_is_step_by_step_with_its_gradients() -> None:
    net = remembering("dict")
    x, h = draw(6, B, 3, seed=1, dtype=torch.float32), draw(B, 2, 4, seed=2, dtype=torch.float32)
    done = torch.rand(6, B, generator=torch.Generator().manual_seed(3)) < 0.3
    weight = draw(6, B, seed=4, dtype=torch.float32)
    action = net.sequence(x, h, done).distribution.sample(torch.Generator().manual_seed(5))

    def at_once() -> tuple[Tensor, Tensor, Tensor]:
        pi, states, value = net.sequence(x, h, done)
        return pi.log_prob(action), value, states

    def by_steps() -> tuple[Tensor, Tensor, Tensor]:
        state, found = h, []
        for t in range(6):
            pi, state, value = net(x[t], state)
            found.append((pi.log_prob(tree_map(lambda a, t=t: a[t], action)), value, state))
            state = tree_where(done[t], net.initial_state(B), state)
        return tuple(torch.stack(column) for column in zip(*found, strict=True))  # pyrefly: ignore

    gradients = []
    for way in (at_once, by_steps):
        log_prob, value, states = way()
        gradients.append(torch.autograd.grad(((log_prob + value) * weight).sum(), list(net.parameters())))
        assert_close((log_prob, value, states), at_once(), rtol=0, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, rtol=0, atol=1e-5)
    leaked = net.sequence(x, h, torch.zeros_like(done))[2]
    assert (leaked - at_once()[1]).abs().max() > 1e-3


def test_memories_of_actor_and_critic_share_nothing() -> None:
    net = remembering()
    x, done = draw(3, B, 3, seed=1, dtype=torch.float32), torch.zeros(3, B, dtype=torch.bool)
    pi, _, value = net.sequence(x, net.initial_state(B), done)
    for what, mine in ((pi.logits, 0), (value, 1)):
        net.zero_grad()
        (what * draw(*what.shape, seed=2, dtype=torch.float32)).sum().backward(retain_graph=True)
        for p in (net.see, net.recall, net.see_bias, net.recall_bias, *net.stack.parameters()):
            assert p.grad is not None and p.grad[mine].any() and not p.grad[1 - mine].any()


def test_spread_of_a_remembering_policy_does_not_vary() -> None:
    net = remembering("box")
    pi = net(draw(B, 3, seed=1, dtype=torch.float32), draw(B, 2, 4, seed=2, dtype=torch.float32)).distribution
    assert_close(pi.std, pi.std[:1].expand_as(pi.std), rtol=0, atol=0)
    assert (pi.mean - pi.mean[:1]).abs().max() > 0.01
