import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from volition.core import losses
from volition.core.distributions import Categorical

number = st.floats(-3, 3)


def row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(x).sum(), x)
    return g


def finite_difference(loss: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    flat = torch.empty(x.numel(), dtype=x.dtype)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[i] = h
        flat[i] = (loss(x + step.view_as(x)).sum() - loss(x - step.view_as(x)).sum()) / (2 * h)
    return flat.view_as(x)


def test_policy_gradient_by_hand() -> None:
    # −log π·A: log ½·3 and log ¼·(−2)
    loss = losses.policy_gradient(row(0.5, 0.25).log(), row(3, -2))
    assert_close(loss, row(3 * math.log(2), -2 * math.log(4)))


def test_clipped_surrogate_by_hand() -> None:
    # ε = 0.2. ratio 1.5: A = 1 → −min(1.5, 1.2) = −1.2; A = −1 → −min(−1.5, −1.2) = 1.5
    #          ratio 0.5: A = 1 → −min(0.5, 0.8) = −0.5; A = −1 → −min(−0.5, −0.8) = 0.8
    #          ratio 1.1: A = 2 → −2.2
    ratio, advantage = row(1.5, 1.5, 0.5, 0.5, 1.1), row(1, -1, 1, -1, 2)
    old = row(-1, -2, -0.5, -1, -3)
    loss = losses.clipped_surrogate(old + ratio.log(), old, advantage, clip=0.2)
    assert_close(loss, row(-1.2, 1.5, -0.5, 0.8, -2.2))
    # No gradient where clipping won (first and fourth); −A·ratio elsewhere: 1.5, −0.5, −2.2
    g = gradient(lambda x: losses.clipped_surrogate(x, old, advantage, 0.2), old + ratio.log())
    assert_close(g, row(0, 1.5, -0.5, 0, -2.2))


def test_clipped_surrogate_at_the_old_policy_is_the_policy_gradient() -> None:
    log_prob, advantage = draw(4, 3) - 2, draw(4, 3, seed=1)
    surrogate = gradient(lambda x: losses.clipped_surrogate(x, log_prob, advantage, 0.2), log_prob)
    assert_close(surrogate, gradient(lambda x: losses.policy_gradient(x, advantage), log_prob))


def test_huber_by_hand() -> None:
    # δ = 2: ½·1² = ½; 2·(3 − 1) = 4; at the joint ½·2² = 2; δ = ½: ½·(3 − ¼) = 1.375
    assert_close(losses.huber(row(0, -1, 3, -3, 2), delta=2.0), row(0, 0.5, 4, 4, 2))
    assert_close(losses.huber(row(-3), delta=0.5), row(1.375))
    assert_close(gradient(lambda e: losses.huber(e, 2.0), row(0, -1, 3, -3, 2)), row(0, -1, 2, -2, 2))


@settings(deadline=None)
@given(st.lists(number, min_size=1, max_size=6), st.floats(0.1, 2))
def test_huber_agrees_with_torch_and_becomes_squared(errors: list[float], delta: float) -> None:
    e = row(*errors)
    assert_close(
        losses.huber(e, delta),
        torch.nn.functional.huber_loss(e, torch.zeros_like(e), reduction="none", delta=delta),
    )
    assert_close(losses.huber(e, 10.0), losses.squared(e))


def test_td_by_hand() -> None:
    # r + γV' − V: 1 + ½·4 − 2 = 1 → ½; terminated: 3 + 0·99 − 5 = −2 → 2; Huber δ = 1: 1·(2 − ½) = 1.5
    arguments = (row(2, 5), row(1, 3), row(0.5, 0), row(4, 99))
    assert_close(losses.td(*arguments), row(0.5, 2))
    assert_close(losses.td(*arguments, delta=1.0), row(0.5, 1.5))


def test_clipped_value_by_hand() -> None:
    # ε = 1, V_old = 0, G = 3. V = 2 → V_clip = 1: ½·max(1, 4) = 2; V = ½ is near: ½·2.5² = 3.125;
    # V = −4 → V_clip = −1: ½·max(49, 16) = 24.5
    v, old, target = row(2, 0.5, -4), row(0, 0, 0), row(3, 3, 3)
    assert_close(losses.clipped_value_loss(v, old, target, clip=1.0), row(2, 3.125, 24.5))
    # Where clipping won there is no pull: first 0; then V − G = −2.5, −7
    g = gradient(lambda x: losses.clipped_value_loss(x, old, target, 1.0), v)
    assert_close(g, row(0, -2.5, -7))


def test_q_learning_and_double_q_by_hand() -> None:
    q, action = row(1, 2, 3, 4).view(2, 2), torch.tensor([1, 0])
    reward, discount = row(1, 1), row(0.5, 0)
    online, target = row(8, 6, 9, 9).view(2, 2), row(2, 10, 99, 99).view(2, 2)
    # Q: 1 + ½·max(2, 10) − 2 = 4 → 8; terminated: 1 − 3 = −2 → 2
    assert_close(losses.q_learning(q, action, reward, discount, target), row(8, 2))
    # double Q: online's best is action 0, worth 2 to the target: 1 + ½·2 − 2 = 0 → 0
    assert_close(losses.double_q(q, action, reward, discount, online, target), row(0, 2))
    assert_close(losses.double_q(q, action, reward, discount, online, target, delta=1.0), row(0, 1.5))
    assert_close(losses.q_learning(q, action, reward, discount, target, delta=1.0), row(3.5, 1.5))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_q_losses_are_their_loops(b: int, a: int, seed: int) -> None:
    q, online, target = (draw(b, a, seed=seed + i) for i in range(3))
    reward, discount = draw(b, seed=seed + 3), draw(b, seed=seed + 4).sigmoid()
    action = torch.randint(a, (b,), generator=torch.Generator().manual_seed(seed))
    single, double = [], []
    for i in range(b):
        here, r, d = q[i, action[i]].item(), reward[i].item(), discount[i].item()
        best = max(range(a), key=lambda j: online[i, j].item())
        single.append(0.5 * (r + d * max(target[i].tolist()) - here) ** 2)
        double.append(0.5 * (r + d * target[i, best].item() - here) ** 2)
    assert_close(losses.q_learning(q, action, reward, discount, target), row(*single))
    assert_close(losses.double_q(q, action, reward, discount, online, target), row(*double))


def test_actor_critic_by_hand() -> None:
    # −log ½·2 + ½·½·(5 − 3)² − 0.1·log 2 = 2 log 2 + 1 − 0.1 log 2 = 1.9 log 2 + 1
    log2 = math.log(2)
    loss = losses.actor_critic(row(-log2), row(2), row(3), row(5), row(log2), value_coef=0.5, entropy_coef=0.1)
    assert_close(loss, row(1.9 * log2 + 1))
    assert_close(losses.entropy_bonus(row(3), 0.1), row(-0.3))


def test_targets_and_advantages_are_constants() -> None:
    names = ("x", "advantage", "target", "old", "reward", "discount", "next_value", "entropy")
    t = {name: draw(3, seed=i).requires_grad_() for i, name in enumerate(names)}
    q, next_q, online = (draw(3, 2, seed=i).requires_grad_() for i in (10, 11, 12))
    action = torch.tensor([0, 1, 0])
    total = torch.stack(
        [
            losses.policy_gradient(t["x"], t["advantage"]),
            losses.clipped_surrogate(t["x"], t["old"], t["advantage"], 0.2),
            losses.td(t["x"], t["reward"], t["discount"], t["next_value"]),
            losses.clipped_value_loss(t["x"], t["old"], t["target"], 0.2),
            losses.q_learning(q, action, t["reward"], t["discount"], next_q),
            losses.double_q(q, action, t["reward"], t["discount"], online, next_q),
            losses.actor_critic(t["x"], t["advantage"], t["x"], t["target"], t["entropy"], 0.5, 0.1),
        ]
    )
    total.sum().backward()
    learned = {name for name in names if t[name].grad is not None}
    assert learned == {"x", "entropy"}
    assert q.grad is not None and next_q.grad is None and online.grad is None


@pytest.mark.parametrize("delta", [None, 0.7])
def test_gradients_agree_with_finite_differences(delta: float | None) -> None:
    x, old, advantage, target = (draw(3, 4, seed=i) for i in range(4))
    q, next_q, online = (draw(5, 3, seed=i) for i in range(4, 7))
    action, reward, discount = torch.tensor([0, 2, 1, 1, 0]), draw(5, seed=8), draw(5, seed=9).sigmoid()
    cases: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (lambda x: losses.policy_gradient(x, advantage), x),
        (lambda x: losses.clipped_surrogate(x, old, advantage, 0.2), x),
        (lambda x: losses.value_loss(x, target, delta), x),
        (lambda x: losses.clipped_value_loss(x, old, target, 0.3), x),
        (lambda x: losses.td(x, old, advantage.sigmoid(), target, delta), x),
        (lambda q: losses.q_learning(q, action, reward, discount, next_q, delta), q),
        (lambda q: losses.double_q(q, action, reward, discount, online, next_q, delta), q),
        (lambda x: losses.actor_critic(x, advantage, x, target, x, 0.5, 0.01), x),
        (lambda x: losses.kl_k1(x, old), x),
        (lambda x: losses.kl_k3(x, old), x),
    ]
    for loss, at in cases:
        assert_close(gradient(loss, at), finite_difference(loss, at), rtol=1e-6, atol=1e-8)


def test_the_critic_gradient_is_the_error() -> None:
    # d/dV ½(G − V)² = V − G
    assert_close(gradient(lambda v: losses.value_loss(v, row(5, 1)), row(3, 4)), row(-2, 3))


@settings(deadline=None)
@given(st.lists(number, min_size=2, max_size=5), st.integers(0, 2**31))
def test_kl_estimators_are_unbiased(logits: list[float], seed: int) -> None:
    p, q = Categorical(row(*logits)), Categorical(draw(len(logits), seed=seed))
    for estimate in (losses.kl_k1, losses.kl_k3):
        assert_close((p.probs * estimate(p.log_probs, q.log_probs)).sum(), p.kl(q), atol=1e-9, rtol=1e-6)
    assert bool((losses.kl_k3(p.log_probs, q.log_probs) >= 0).all())


def test_k3_by_hand_and_near_zero() -> None:
    # r = ½: ½ − 1 − log ½ = log 2 − ½; log r = x = 1e−6: e^x − 1 − x = ½x² = 5e−13
    assert_close(losses.kl_k3(row(0), row(0.5).log()), row(math.log(2) - 0.5))
    assert_close(losses.kl_k3(row(0), row(1e-6)), row(5e-13), rtol=1e-6, atol=0)


def test_masked_mean() -> None:
    x, mask = row(1, 2, math.nan, 6), torch.tensor([True, True, False, True])
    assert_close(losses.masked_mean(x, mask), row(3)[0])  # (1 + 2 + 6)/3
    assert_close(losses.masked_mean(x, mask.double()), row(3)[0])
    assert losses.masked_mean(x, torch.zeros(4).bool()).item() == 0.0
    assert_close(gradient(lambda x: losses.masked_mean(x, mask), x), row(1, 1, 0, 1) / 3)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        losses.policy_gradient(draw(3, 1), draw(3))
    with pytest.raises(ValueError, match="shapes differ"):
        losses.td(draw(3, 1), draw(3), draw(3), draw(3))
    with pytest.raises(ValueError, match="shapes differ"):
        losses.q_learning(draw(3, 2), torch.zeros(2).long(), draw(3), draw(3), draw(3, 2))
    with pytest.raises(ValueError, match="shapes differ"):
        losses.masked_mean(draw(3, 2), torch.ones(3))
