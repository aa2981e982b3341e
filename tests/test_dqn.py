import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from volition.algorithms import dqn as recipe
from volition.algorithms._off_policy import Explorer, Memory
from volition.core.categorical import cross_entropy, project
from volition.core.centred import CentredRMSProp
from volition.core.collect import Collector
from volition.core.flat import Flat
from volition.core.losses import huber
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.nets.conv import NatureCNN, image_shape
from volition.nets.q import NoisyLinear, QNetwork, QStack
from volition.run import Run


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- one update


def constant(*values: float) -> QStack:
    """Q(s,·) = values, whatever s is."""
    net = QStack(lambda x: x, 1, len(values), (1,))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.last_bias.copy_(torch.tensor(values))
    return net


def transition(reward: float, discount: float, action: int = 0, **more: Any) -> dict[str, Any]:
    one = torch.ones(1, 1)
    numbers = {"reward": torch.tensor([reward]), "discount": torch.tensor([discount])}
    return {"obs": one, "action": torch.tensor([action]), "next_obs": one, **numbers, **more}


@pytest.mark.parametrize(
    ("double", "discount", "mask", "target"),
    [
        (False, 0.5, None, 1 + 0.5 * 5),  # max of Q⁻ = (5, 3)
        (True, 0.5, None, 1 + 0.5 * 3),  # Q = (1, 2) chooses 1, Q⁻ says 3
        (False, 0.5, [False, True], 1 + 0.5 * 3),  # of the legal ones
        (True, 0.5, [True, False], 1 + 0.5 * 5),
        (False, 0.0, None, 1.0),  # terminated
        (True, 0.25, None, 1 + 0.25 * 3),  # γ² of two steps
    ],
)
@pytest.mark.parametrize("autograd", [False, True])
def test_targets_by_hand(double: bool, discount: float, mask: list[bool] | None, target: float, autograd: bool) -> None:
    config = recipe.Config(double=double, loss="squared")
    if autograd:
        net, still = (QNetwork(nn.Identity(), 1, 2, 3) for _ in range(2))
        for network, values in ((net, (1.0, 2.0)), (still, (5.0, 3.0))):
            with torch.no_grad():
                for p in network.parameters():
                    p.zero_()
                network.advantage[2].bias.copy_(torch.tensor(values))  # pyrefly: ignore
    else:
        net, still = constant(1.0, 2.0), constant(5.0, 3.0)
    more = {} if mask is None else {"next_mask": torch.tensor([mask])}
    q, error = recipe.learn(config, net, still, Flat(net), transition(1.0, discount, **more), None, generator())
    assert q.item() == 1.0
    assert error.item() == pytest.approx(1.0 - target)


def test_update_by_hand() -> None:
    # Q(x) = (2h + 1, 3h), h = max(x·½ + 1, 0); x = 2 → h = 2, Q = (5, 6). r = 1, γ = ½, x' = −2 → h = 0, Q⁻ = (1, 0).
    # a = 0: y = 1 + ½·1 = 1.5, error 3.5. ∂Q(x,0): last row 0: h = 2, bias 1; h: 2; W: 2·x = 4; b: 2.
    net = constant(1.0, 0.0)
    with torch.no_grad():
        net.weights[0].fill_(0.5)
        net.biases[0].fill_(1.0)
        net.last.copy_(torch.tensor([[2.0], [3.0]]))
    batch = transition(1.0, 0.5) | {"obs": torch.tensor([[2.0]]), "next_obs": torch.tensor([[-2.0]])}
    for loss, e in (("squared", 3.5), ("huber", 1.0)):
        flat = Flat(net)
        config = recipe.Config(loss=loss)  # pyrefly: ignore
        q, error = recipe.learn(config, net, net, flat, batch, None, generator())
        assert (q.item(), error.item()) == (5.0, 3.5)
        grads = [p.grad.flatten().tolist() for p in (net.last, net.last_bias, net.weights[0], net.biases[0])]
        assert grads == [[2 * e, 0], [e, 0], [4 * e], [2 * e]]
        recipe.learn(config, net, net, flat, batch, torch.tensor([0.25]), generator())  # a weight of ¼
        assert net.biases[0].grad.item() == 0.5 * e  # pyrefly: ignore


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_backward_by_hand_is_autograds(double: bool, loss: Any) -> None:
    torch.manual_seed(0)
    net, still = (QStack(lambda x: x, 4, 3, (16, 8)) for _ in range(2))
    flat, config = Flat(net), recipe.Config(double=double, loss=loss)
    batch = {
        "obs": torch.randn(32, 4), "next_obs": torch.randn(32, 4), "action": torch.randint(3, (32,)),
        "reward": 3 * torch.randn(32), "discount": 0.9 * (torch.rand(32) < 0.8),
    }  # fmt: skip
    weight = torch.rand(32)
    _, error = recipe.learn(config, net, still, flat, batch, weight, generator())
    by_hand = flat.grad.clone()
    with torch.no_grad():
        following = still.q(batch["next_obs"])
        best = (net.q(batch["next_obs"]) if double else following).argmax(-1)
        y = batch["reward"] + batch["discount"] * following[torch.arange(32), best]
    e = net.q(batch["obs"])[torch.arange(32), batch["action"]] - y
    flat.zero_grad()
    (weight * (huber(e) if loss == "huber" else e.square() / 2)).mean().backward()
    assert_close(error, e.detach())
    assert_close(by_hand, flat.grad, rtol=1e-5, atol=1e-6)
    assert by_hand.abs().max() > 0.01


def test_numpy_forward_is_torchs() -> None:
    net = QStack(lambda x: x, 4, 3, (16, 8))
    Flat(net)
    forward, x = net.in_numpy(), torch.randn(5, 4)
    assert_close(torch.from_numpy(forward(x.numpy())), net.q(x).detach())
    with torch.no_grad():
        net.last_bias += 1  # a live view
    assert_close(torch.from_numpy(forward(x.numpy())), net.q(x).detach())


def test_centred_rmsprop_by_hand() -> None:
    # ρ = ½, ε = 0, lr = 1. ∇ = 2: g = 1, v = 2, θ −= 2/√(2 − 1) = 2; ∇ = 0: g = ½, v = 1, 0.
    # ∇ = 1: g = ¾, v = 1, θ −= 1/√(1 − 9/16) = 4/√7
    module = nn.Linear(1, 1, bias=False)
    flat = Flat(module)
    flat.data.zero_()
    optimizer = CentredRMSProp(flat, 1.0, rho=0.5, eps=0.0)
    seen = []
    for gradient in (2.0, 0.0, 1.0):
        flat.grad[0] = gradient
        flat.grad[1:] = 1.0  # padding moves, but is nobody's
        optimizer.step()
        seen.append(module.weight.item())
    assert seen == pytest.approx([-2, -2, -2 - 4 / 7**0.5])


# ---- the parts of Rainbow


def test_projection_by_hand() -> None:
    atoms = torch.tensor([0.0, 1.0, 2.0])
    p = torch.tensor([[0.2, 0.3, 0.5]]).expand(4, -1)
    reward, discount = torch.tensor([0.0, 0.25, 5.0, 0.5]), torch.tensor([1.0, 0.5, 1.0, 0.0])
    # 0 + z: as it was. ¼ + z/2 = ¼, ¾, 1¼: ¾·.2 + ¼·.3 = .225 on 0; ¼·.2 + ¾·.3 + ¾·.5 = .65 on 1; ¼·.5 = .125 on 2.
    # 5 + z: all on the last. Terminated with ½: half on 0, half on 1
    expected = [[0.2, 0.3, 0.5], [0.225, 0.65, 0.125], [0, 0, 1], [0.5, 0.5, 0]]
    assert_close(project(reward, discount, p, atoms), torch.tensor(expected))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_projection_against_a_loop(count: int, seed: int) -> None:
    g = generator(seed)
    atoms = torch.linspace(-2, 3, count, dtype=torch.float64)
    reward = torch.randn(6, generator=g, dtype=torch.float64)
    discount = torch.rand(6, generator=g, dtype=torch.float64)
    p = torch.rand(6, count, generator=g, dtype=torch.float64).softmax(-1)
    got = project(reward, discount, p, atoms)
    step = 5 / (count - 1)
    for b in range(6):
        row = [0.0] * count
        for j in range(count):
            z = min(max((reward[b] + discount[b] * atoms[j]).item(), -2.0), 3.0)
            for i in range(count):  # a triangle about each atom
                row[i] += p[b, j].item() * max(0.0, 1 - abs(z - atoms[i].item()) / step)
        assert_close(got[b], torch.tensor(row, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    assert_close(got.sum(-1), torch.ones(6, dtype=torch.float64))
    small = project(reward / 100, discount * 0.9, p, atoms)  # nothing is clipped: the mean is kept
    assert_close(small @ atoms, reward / 100 + 0.9 * discount * (p @ atoms), rtol=1e-9, atol=1e-9)


def test_distributional_loss_by_hand() -> None:
    # Q⁻ puts all on atom 1 of (0, 1, 2); r = ½, γ = ½ → z = 1: the target is atom 1. Q is uniform: loss log 3, Q = 1.
    atoms = torch.tensor([0.0, 1.0, 2.0])
    net, still = (QNetwork(nn.Identity(), 1, 2, 3, atoms=atoms) for _ in range(2))
    for network in (net, still):
        with torch.no_grad():
            for p in network.parameters():
                p.zero_()
    with torch.no_grad():
        still.advantage[2].bias.copy_(torch.tensor([0.0, 50, 0, 50, 0, 0]))  # pyrefly: ignore
    q, error = recipe.learn(
        recipe.Config(atoms=3, high=2.0), net, still, flat := Flat(net), transition(0.5, 0.5, 1), None, generator()
    )
    assert q.item() == pytest.approx(1.0) and error.item() == pytest.approx(np.log(3))
    # of the logits of action 1: p − m = (⅓, −⅔, ⅓); of action 0: nothing
    assert_close(net.advantage[2].bias.grad, torch.tensor([0, 0, 0, 1 / 3, -2 / 3, 1 / 3]))  # pyrefly: ignore
    assert flat.grad.abs().sum() > 0
    assert cross_entropy(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(
        np.log(2)
    )


@pytest.mark.parametrize("atoms", [None, torch.linspace(-1, 1, 5)])
def test_dueling_streams_are_told_apart(atoms: Tensor | None) -> None:
    torch.manual_seed(0)
    net, x = QNetwork(nn.Identity(), 3, 4, 8, dueling=True, atoms=atoms), torch.randn(6, 3)
    before = net.logits(x)
    advantage, value = net.advantage[2].bias, net.value[2].bias  # pyrefly: ignore
    with torch.no_grad():
        advantage += 7.0  # the same for every action: V cannot hide in A
    assert_close(net.logits(x), before)
    assert_close(before.mean(-2), net.value(x).detach())  # pyrefly: ignore
    with torch.no_grad():
        value += 1.0
    assert_close(net.logits(x), before + 1)


def test_noisy_layer() -> None:
    torch.manual_seed(0)
    layer, x = NoisyLinear(3, 2), torch.randn(5, 3)
    plain = nn.functional.linear(x, layer.weight, layer.bias)
    assert_close(layer(x), plain)  # zero noise
    e_in, e_out = torch.randn(3), torch.randn(2)
    layer.noise_in.copy_(e_in)
    layer.noise_out.copy_(e_out)
    weight = layer.weight + layer.weight_sigma * torch.outer(e_out, e_in)
    bias = layer.bias + layer.bias_sigma * e_out
    assert_close(layer(x), nn.functional.linear(x, weight, bias))  # eq. 9 with its matrix
    assert not torch.allclose(layer(x), plain)
    assert_close(layer.eval()(x), plain)  # the mean weights
    assert layer.weight_sigma.unique().tolist() == pytest.approx([0.5 / 3**0.5])
    assert "noise_in" not in layer.state_dict()


def test_noise_is_drawn_for_every_layer() -> None:
    net = QNetwork(nn.Identity(), 3, 2, 4, dueling=True, noisy=True)
    net.draw(generator())
    x = torch.randn(2 * (3 + 4) + 4 + 2 + 4 + 1, generator=generator())  # of 3→4→2 and 3→4→1
    layers = [layer for layer in net.modules() if isinstance(layer, NoisyLinear)]
    drawn = torch.cat([noise for layer in layers for noise in (layer.noise_in, layer.noise_out)])
    assert_close(drawn, x.sign() * x.abs().sqrt())  # f(x) = sgn(x)·√|x|
    net.draw(generator(1))
    assert not torch.equal(layers[0].noise_in, drawn[:3])


def test_noise_explores_and_the_greedy_agent_has_none() -> None:
    env = make("CartPole-v1", 2)
    env.reset(seed=0)
    agent = recipe.make_agent(recipe.Config(noisy=True, hidden=(8,)), env)
    obs = torch.randn(64, 4)
    explorer = Explorer(agent.net, env, generator(), 1)
    explorer.with_epsilon(0.0)
    noisy = [agent.net.q(obs), explorer.with_epsilon(0.0) and agent.net.q(obs)]
    assert not torch.allclose(*noisy)
    agent.eval()
    assert torch.equal(agent.net.q(obs), explorer.with_epsilon(0.0) and agent.net.q(obs))


# ---- acting


def test_epsilon_falls_and_acts() -> None:
    env = make("CartPole-v1", 4)
    env.reset(seed=0)
    net = QStack(lambda x: x, 4, 2, (8,))
    with torch.no_grad():
        net.last.zero_()
        net.last_bias.copy_(torch.tensor([0.0, 1.0]))  # action 1 is the best
    explorer, obs, fresh = Explorer(net, env, generator(), 500), np.zeros((4, 4), np.float32), np.zeros(4, bool)

    def share(epsilon: float) -> float:
        explorer.with_epsilon(epsilon)
        return float(np.mean([explorer(obs, fresh) for _ in range(500)]))

    assert share(0.0) == 1.0
    assert share(1.0) == pytest.approx(0.5, abs=0.04)
    assert share(0.4) == pytest.approx(0.8, abs=0.04)  # 1 − ε/2


def test_epsilon_schedule_of_a_run() -> None:
    config = dataclasses.replace(recipe.VARIANTS["tiny"], epsilon=1.0, epsilon_end=0.2, epsilon_steps=400, steps=640)
    run = Run(log_every=10)
    recipe.train(config, run)
    # 16 steps an update, logged at updates 9, 19, 29, 39: ε = 1 − 0.8·min(16u/400, 1)
    seen = [line["epsilon"] for line in run.history]
    assert seen == pytest.approx([1 - 0.8 * min(16 * u / 400, 1) for u in (9, 19, 29, 39)])


def test_agent_is_epsilon_greedy_among_the_legal() -> None:
    net = constant(1.0, 3.0, 2.0)
    net.epsilon = 0.3
    one = torch.ones(1, 1)
    assert_close(net(one).distribution.probs, torch.tensor([[0.1, 0.8, 0.1]]))
    masked = net(one, None, torch.tensor([[True, False, True]]))
    assert_close(masked.distribution.probs, torch.tensor([[0.15, 0.0, 0.85]]))
    assert masked.value is not None and masked.value.item() == 2.0
    assert net(one).distribution.mode().item() == 1


# ---- environments with a known optimum


class Identity(gymnasium.Env):
    """The right action is the number that is shown; 10 steps. Shown as the space asks: number, box, image or dict."""

    action_space = spaces.Discrete(3)

    def __init__(self, kind: str = "discrete", start: int = 0) -> None:
        image = spaces.Box(0, 255, (4, 36, 36), np.uint8)
        self.kind = kind
        self.observation_space = {
            "discrete": spaces.Discrete(3),
            "box": spaces.Box(0, 1, (3,), np.float32),
            "image": image,
            "dict": spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,), np.float32)}),
        }[kind]
        self.action_space = spaces.Discrete(3, start=start)

    def show(self) -> Any:
        self.right = int(self.np_random.integers(3))
        picture = np.full((4, 36, 36), 100 * self.right, np.uint8)
        one_hot = np.eye(3, dtype=np.float32)[self.right]
        both = {"a": self.right, "b": np.zeros(2, np.float32)}
        return {"discrete": self.right, "box": one_hot, "image": picture, "dict": both}[self.kind]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.show(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action - self.action_space.start == self.right)
        self.count += 1
        return self.show(), reward, False, self.count == 10, {}


SMALL = recipe.Config(
    num_envs=2, horizon=4, gradient_steps=2, steps=1_600, learning_starts=64, capacity=1_000, batch=32, gamma=0.0,
    lr=1e-2, anneal=True, loss="huber", epsilon_steps=800, hidden=(16,), high=2.0, low=-1.0, target_every=10, tau=1.0,
    double=False, n=1,
)  # fmt: skip
RAINBOW = {"double": True, "dueling": True, "prioritised": True, "n": 1, "atoms": 21, "noisy": True, "epsilon": 0.5}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("discrete", {}),
        ("box", {"double": True, "n": 2, "gamma": 0.1}),
        ("dict", {"prioritised": True}),
        ("box", RAINBOW),
        ("box", {"dueling": True, "loss": "squared"}),
        ("box", {"optimizer": "rmsprop", "lr": 1e-2, "steps": 3_200}),
    ],
)
def test_identity(kind: str, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(SMALL, **changes)
    agent = recipe.train(config, env=lambda: Identity(kind, start=5))
    env = Identity(kind, start=5)
    obs, _ = env.reset(seed=1)
    total = 0.0
    for _ in range(10):
        obs, reward, _, _, _ = env.step(agent.act(obs, greedy=True))
        total += reward
    assert total == 10
    q = agent.net.q(torch.eye(3)) if kind == "box" else None
    if q is not None and not changes.get("n"):  # γ = 0: Q is 1 for the right action and 0 for others
        assert_close(q.detach(), torch.eye(3), rtol=0, atol=0.2)


@pytest.mark.parametrize("changes", [{"frames": True}, {"frames": True, **RAINBOW, "n": 2}, {}])
def test_images(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(SMALL, steps=160, hidden=(16,), **changes)
    agent = recipe.train(config, env=lambda: Identity("image"))
    assert isinstance(agent.net, QNetwork) and isinstance(agent.net.trunk, NatureCNN)
    env = Identity("image")
    assert agent.act(env.reset(seed=0)[0]) in (0, 1, 2)


class Once(gymnasium.Env):
    """One step that pays 1, and then the end, by the world or by the clock."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, truncates: bool) -> None:
        self.truncates = truncates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.ones(1, np.float32), 1.0, not self.truncates, self.truncates, {}


@pytest.mark.parametrize("changes", [{}, {"n": 3}, {"frames": False, **RAINBOW, "n": 2, "high": 4.0, "atoms": 51}])
@pytest.mark.parametrize(("truncates", "value"), [(False, 1.0), (True, 2.0)])
def test_truncation_bootstraps_and_termination_does_not(truncates: bool, value: float, changes: dict[str, Any]) -> None:
    # γ = ½: terminated Q = 1; truncated Q = 1 + ½Q = 2
    config = dataclasses.replace(SMALL, gamma=0.5, steps=1_200, **changes)
    agent = recipe.train(config, env=lambda: Once(truncates))
    assert_close(agent.net.q(torch.ones(1, 1)).detach(), torch.full((1, 2), value), rtol=0, atol=0.15)


class Forbidden(Once):
    """Action 0 is never legal."""

    def __init__(self) -> None:
        super().__init__(True)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed)[0], {"action_mask": np.array([0, 1], np.int8)}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action == 1
        return np.ones(1, np.float32), 1.0, self.np_random.random() < 0.1, False, {"action_mask": np.array([0, 1])}


@pytest.mark.parametrize("changes", [{}, {"dueling": True}, {"n": 3, "prioritised": True, "double": True}])
def test_only_legal_actions(changes: dict[str, Any]) -> None:
    agent = recipe.train(dataclasses.replace(SMALL, steps=400, **changes), env=Forbidden)
    assert agent.act(np.ones(1, np.float32), mask=[False, True]) == 1


def test_late_resets_are_not_learned_from() -> None:
    # CartPole's own vector form spends a step on each reset; every transition kept must be one of the game
    env = make("CartPole-v1", 6)
    env.reset(seed=0)
    memory, collector = Memory(env, 2_000, 0.9, 1, None, False, 0.0), Collector(env, 50)
    net = recipe.make_agent(recipe.Config(), env).net
    steps = collector.collect(Explorer(net, env, generator(), 50).with_epsilon(1.0))
    memory.add(steps)
    assert memory.replay is not None
    kept = memory.replay.get(torch.arange(len(memory.replay)))  # pyrefly: ignore
    assert not steps.valid.all() and len(kept["reward"]) == int(steps.valid.sum())
    moved = (kept["next_obs"][:, 0] - kept["obs"][:, 0]) / 0.02  # x' = x + τ·ẋ, never through a reset
    assert_close(moved, kept["obs"][:, 1], rtol=1e-3, atol=1e-4)
    ended = (kept["discount"] == 0).sum()
    assert ended == int((steps.terminated & steps.valid).sum()) > 0


def test_user_errors() -> None:
    with pytest.raises(VolitionError, match="Discrete action space"):
        recipe.train(recipe.Config(env="Pendulum-v1"))
    with pytest.raises(VolitionError, match="stacks of frames"):
        recipe.train(recipe.Config(frames=True))
    for bad in ({"gamma": 2.0}, {"n": 0}, {"atoms": 2, "low": 1.0, "high": 1.0}, {"hidden": ()}, {"batch": 0}):
        with pytest.raises(VolitionError):
            recipe.Config(**bad)


def test_nature_cnn() -> None:
    # 84 → 20 → 9 → 7: 64·7·7 = 3,136; weights 4·32·64 + 32, 32·64·16 + 64, 64·64·9 + 64, 3136·512 + 512
    net = NatureCNN((4, 84, 84))
    assert sum(p.numel() for p in net.parameters()) == 8_224 + 32_832 + 36_928 + 1_606_144
    images = torch.randint(0, 256, (3, 2, 4, 84, 84), dtype=torch.uint8)
    assert net(images).shape == (3, 2, 512)
    last = NatureCNN((4, 84, 84), last=True)
    last.load_state_dict(net.state_dict())
    assert_close(last(images.movedim(-3, -1)), net(images))
    assert NatureCNN((4, 84, 84), units=0).size == 3136
    assert image_shape(spaces.Box(0, 255, (84, 96, 3), np.uint8)) == (3, 84, 96)
    assert image_shape(spaces.Box(0, 255, (4, 84, 96), np.uint8)) == (4, 84, 96)
    for space in (spaces.Box(0, 255, (4, 35, 84), np.uint8), spaces.Box(0, 1, (4, 84, 84)), spaces.Discrete(3)):
        assert image_shape(space) is None
    with pytest.raises(ValueError, match="36"):
        NatureCNN((4, 35, 84))


@pytest.mark.parametrize("name", [name for name in recipe.VARIANTS if not name.startswith(("atari", "lunar"))])
def test_every_variant_begins(name: str) -> None:
    config = dataclasses.replace(recipe.VARIANTS[name], steps=1_200, learning_starts=1_000, gradient_steps=1)
    agent = recipe.train(config)
    assert all(p.isfinite().all() for p in agent.parameters())
