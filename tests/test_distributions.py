import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributions as td
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.testing import assert_close

from volition.core.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    Product,
    SquashedGaussian,
)

seeds = st.integers(0, 2**31)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def check_frequencies(counts: Tensor, probs: Tensor) -> None:
    """χ² = Σ (count − n·p)²/(n·p) stays below its mean k − 1 plus five standard deviations √(2(k − 1))."""
    expected = counts.sum() * probs
    possible = probs > 0
    assert bool((counts[~possible] == 0).all())
    chi2 = ((counts - expected)[possible].square() / expected[possible]).sum().item()
    freedom = int(possible.sum()) - 1
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def check_gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    assert torch.autograd.gradcheck(f, (x.clone().requires_grad_(),))


# Categorical


def test_categorical_by_hand() -> None:
    # probabilities ½, ¼, ¼: H = ½·log 2 + ½·log 4 = 1.5 log 2; KL to uniform = log 3 − H; to ¼, ¼, ½: ¼ log 2
    p = Categorical(row(2, 1, 1).log())
    assert_close(p.probs, row(0.5, 0.25, 0.25))
    assert_close(p.log_prob(torch.tensor(1)), torch.tensor(-math.log(4), dtype=torch.float64))
    assert_close(p.entropy().item(), 1.5 * math.log(2))
    assert_close(p.kl(Categorical(row(0, 0, 0))).item(), math.log(3) - 1.5 * math.log(2))
    # ½ log(½/¼) + ¼ log(¼/¼) + ¼ log(¼/½) = ½ log 2 − ¼ log 2
    assert_close(p.kl(Categorical(row(1, 1, 2).log())).item(), 0.25 * math.log(2))
    assert p.mode().item() == 0


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), seeds)
def test_categorical_agrees_with_torch(b: int, k: int, seed: int) -> None:
    x, y = 3 * draw(2, b, k, seed=seed), draw(2, b, k, seed=seed + 1)
    mine, other, theirs = Categorical(x), Categorical(y), td.Categorical(logits=x)
    action = mine.sample(seeded(seed))
    assert action.shape == (2, b) and action.dtype == torch.int64
    assert_close(mine.log_prob(action), theirs.log_prob(action))
    assert_close(mine.entropy(), theirs.entropy())
    assert_close(mine.kl(other), td.kl_divergence(theirs, td.Categorical(logits=y)), atol=1e-9, rtol=1e-7)
    assert_close(mine.mode(), theirs.mode)


def test_categorical_frequencies() -> None:
    logits, mask = row(1, -1, 0.5, 2, 0), torch.tensor([True, True, False, True, True])
    for distribution in (Categorical(logits), Categorical(logits, mask), Categorical(logits.float() - 1e4)):
        many = Categorical(distribution.logits.expand(50_000, 5))
        counts = torch.bincount(many.sample(seeded(1)), minlength=5).double()
        check_frequencies(counts, distribution.probs.double())


@pytest.mark.parametrize("by_logits", [False, True])
def test_masked_actions_are_impossible_and_gradients_finite(by_logits: bool) -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])

    def masked(x: Tensor) -> Categorical:
        return Categorical(torch.where(mask, x, -math.inf)) if by_logits else Categorical(x, mask)

    x = row(2, 9, 1, 5, 3, 7).view(2, 3).requires_grad_()
    p = masked(x)
    assert bool((p.probs[~mask] == 0).all())
    assert p.log_prob(torch.tensor([1, 0])).tolist() == [-math.inf, -math.inf]
    # What is left of row 0 is softmax(2, 1) alone; row 1 is certain.
    alone = Categorical(row(2, 1))
    assert_close(p.probs[0, [0, 2]], alone.probs)
    assert_close(p.entropy(), torch.stack([alone.entropy(), row(0)[0]]).detach())
    assert p.mode().tolist() == [0, 1]
    q = masked(2 * x.detach() + 1)
    assert_close(p.kl(q)[0], alone.kl(Categorical(row(5, 3))))
    for f in (
        lambda x: masked(x).entropy(),
        lambda x: masked(x).log_prob(torch.tensor([2, 1])),
        lambda x: masked(x).kl(q),
        lambda x: q.kl(masked(x)),
    ):
        (g,) = torch.autograd.grad(f(x).sum(), x)
        assert bool(g.isfinite().all()) and bool((g[~mask] == 0).all())
        check_gradient(f, x.detach())


def test_kl_to_a_stricter_mask_is_infinite() -> None:
    free, strict = Categorical(row(0, 0)), Categorical(row(0, 0), torch.tensor([True, False]))
    assert free.kl(strict).item() == math.inf
    assert_close(strict.kl(free).item(), math.log(2))


def test_categorical_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="allows no action"):
        Categorical(draw(2, 3), torch.tensor([[True, True, False], [False, False, False]]))
    p = Categorical(draw(4, 3))
    with pytest.raises(ValueError, match="shape"):
        p.log_prob(torch.zeros(2).long())
    with pytest.raises(ValueError, match="shape"):
        p.log_prob(torch.zeros(4, 1).long())
    with pytest.raises(ValueError, match="integer"):
        p.log_prob(torch.zeros(4))


def test_extreme_logits_stay_finite() -> None:
    p = Categorical(torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True))
    loss = p.entropy() + p.log_prob(torch.tensor([0])) + p.kl(Categorical(torch.zeros(1, 3)))
    assert_close(loss.item(), math.log(3))  # certain: H = 0, log π = 0, KL to uniform = log 3
    (g,) = torch.autograd.grad(loss.sum(), p.logits)
    assert bool(g.isfinite().all())
    assert p.sample(seeded()).tolist() == [0]


def test_half_precision_is_raised() -> None:
    logits = torch.zeros(100_000, 2, dtype=torch.bfloat16)
    p = Categorical(logits)
    assert p.entropy().dtype == torch.float32
    check_frequencies(torch.bincount(p.sample(seeded()), minlength=2).double(), row(0.5, 0.5))
    assert DiagonalGaussian(logits, 1.0).sample(seeded()).dtype == torch.float32


# MultiCategorical


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), seeds)
def test_multi_categorical_is_its_parts(nvec: list[int], masked: bool, seed: int) -> None:
    x, y = draw(2, 3, sum(nvec), seed=seed), draw(2, 3, sum(nvec), seed=seed + 1)
    mask = torch.rand(x.shape, generator=seeded(seed)) < 0.5
    for part in mask.split(nvec, -1):
        part[..., 0] = True
    ours = MultiCategorical(x, nvec, mask if masked else None)
    other = MultiCategorical(y, nvec, mask if masked else None)
    masks = mask.split(nvec, -1) if masked else [None] * len(nvec)
    parts = [Categorical(a, m) for a, m in zip(x.split(nvec, -1), masks, strict=True)]
    others = [Categorical(a, m) for a, m in zip(y.split(nvec, -1), masks, strict=True)]
    action = ours.sample(seeded(seed))
    assert action.shape == (2, 3, len(nvec)) and bool((action < torch.tensor(nvec)).all())
    assert_close(ours.log_prob(action), sum_of(p.log_prob(a) for p, a in zip(parts, action.unbind(-1), strict=True)))
    assert_close(ours.entropy(), sum_of(p.entropy() for p in parts))
    assert_close(ours.kl(other), sum_of(p.kl(o) for p, o in zip(parts, others, strict=True)))
    assert_close(ours.mode(), torch.stack([p.mode() for p in parts], -1))


def sum_of(terms) -> Tensor:
    return torch.stack(list(terms)).sum(0)


def test_multi_categorical_gradients_frequencies_and_errors() -> None:
    nvec, x = [2, 3], draw(2, 5)
    action = torch.tensor([[1, 2], [0, 1]])
    check_gradient(lambda x: MultiCategorical(x, nvec).log_prob(action), x)
    check_gradient(lambda x: MultiCategorical(x, nvec).entropy(), x)
    many = MultiCategorical(x[:1].expand(50_000, 5), nvec).sample(seeded(2))
    joint = torch.bincount(many[:, 0] * 3 + many[:, 1], minlength=6).double()
    a, b = (part.softmax(-1) for part in x[0].split(nvec))
    check_frequencies(joint, torch.outer(a, b).flatten())  # the joint: independence is tested too
    with pytest.raises(ValueError, match="adds up to 6"):
        MultiCategorical(x, [3, 3])
    mask = torch.tensor([True, True, False, False, False]).expand(2, 5)
    with pytest.raises(ValueError, match="allows no action"):
        MultiCategorical(x, nvec, mask)


# DiagonalGaussian


def test_gaussian_by_hand() -> None:
    # N(1, 2²) at 5: −½·(4/2)² − log 2 − ½ log 2π; a second dimension N(0, 1) at 0 adds −½ log 2π
    p = DiagonalGaussian(row(1, 0), row(2, 1))
    assert_close(p.log_prob(row(5, 0)).item(), -2 - math.log(2) - math.log(2 * math.pi))
    assert_close(p.entropy().item(), 1 + math.log(2 * math.pi) + math.log(2))
    # KL(N(1, 2²)‖N(0, 1)) = −log 2 + (4 + 1)/2 − ½ = 2 − log 2
    assert_close(p.kl(DiagonalGaussian(row(0, 0), 1.0)).item(), 2 - math.log(2))
    assert_close(p.mode(), row(1, 0))


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), seeds)
def test_gaussian_agrees_with_torch(b: int, d: int, seed: int) -> None:
    mean, action, mean2 = (draw(b, d, seed=seed + i) for i in range(3))
    std, std2 = draw(d, seed=seed + 3).exp(), draw(b, d, seed=seed + 4).exp()
    mine, other = DiagonalGaussian(mean, std), DiagonalGaussian(mean2, std2)
    theirs, others = td.Independent(td.Normal(mean, std), 1), td.Independent(td.Normal(mean2, std2), 1)
    assert_close(mine.log_prob(action), theirs.log_prob(action))
    assert_close(mine.entropy(), theirs.entropy())
    assert_close(mine.kl(other), td.kl_divergence(theirs, others))


def test_gaussian_samples() -> None:
    mean, std = row(3, -1), row(0.5, 2)
    x = DiagonalGaussian(mean.expand(50_000, 2), std).sample(seeded(3))
    # Five standard errors: σ/√n of the mean, and σ²·√(2/n) of the variance.
    assert bool(((x.mean(0) - mean).abs() < 5 * std / 50_000**0.5).all())
    assert bool(((x.var(0) - std**2).abs() < 5 * std**2 * (2 / 50_000) ** 0.5).all())
    assert abs(torch.corrcoef(x.T)[0, 1].item()) < 5 / 50_000**0.5


def test_gaussian_gradients() -> None:
    mean, std = draw(3, 2).requires_grad_(), draw(3, 2, seed=1).exp().requires_grad_()
    assert not DiagonalGaussian(mean, std).sample(seeded()).requires_grad
    for f in (
        lambda mean, std: DiagonalGaussian(mean, std).rsample(seeded()),
        lambda mean, std: DiagonalGaussian(mean, std).log_prob(draw(3, 2, seed=2)),
        lambda mean, std: DiagonalGaussian(mean, std).entropy() + 0 * mean.sum(),
        lambda mean, std: DiagonalGaussian(mean, std).kl(DiagonalGaussian(std, 0.7)),
    ):
        assert torch.autograd.gradcheck(f, (mean, std))
    # a = mean + std·ε: da/dmean = 1, da/dstd = ε
    a = DiagonalGaussian(mean, std).rsample(seeded())
    g_mean, g_std = torch.autograd.grad(a.sum(), (mean, std))
    assert_close(g_mean, torch.ones_like(mean))
    assert_close(g_std, ((a - mean) / std).detach())


def test_gaussian_refuses_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        DiagonalGaussian(draw(3, 3), 1.0).log_prob(draw(3))


# SquashedGaussian


def test_squashed_by_hand() -> None:
    # onto [−1, 1] from N(0, 1) at a = 0: da/du = 1 − tanh² 0 = 1, so −½ log 2π; onto [0, 4]: da/du = 2
    origin = torch.zeros(1, dtype=torch.float64)
    assert_close(SquashedGaussian(origin, 1.0).log_prob(origin).item(), -0.5 * math.log(2 * math.pi))
    wide = SquashedGaussian(origin, 1.0, 0.0, 4.0).log_prob(origin + 2).item()
    assert_close(wide, -0.5 * math.log(2 * math.pi) - math.log(2))
    # the mode is the squashed mean: 0 + 4·(tanh ½ + 1)/2
    assert_close(SquashedGaussian(origin + 0.5, 1.0, 0.0, 4.0).mode(), row(2 * (math.tanh(0.5) + 1)))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (1.0, 1.0), (-0.5, 1.5)])
def test_squashed_density_integrates_to_one(mean: float, std: float) -> None:
    low, high = -0.5, 2.0
    # Midpoints of a grid in a itself, so that the change of variables is what is tested.
    n = 100_000
    a = low + (high - low) * (torch.arange(n, dtype=torch.float64).unsqueeze(1) + 0.5) / n
    p = SquashedGaussian(torch.full((n, 1), mean, dtype=torch.float64), std, low, high)
    log_density = p.log_prob(a)
    entropy = SquashedGaussian(row(mean), std, low, high).entropy()
    mass = log_density.exp() * (high - low) / n
    assert_close(mass.sum().item(), 1.0, rtol=0, atol=1e-4)
    assert_close(-(mass * log_density).sum().item(), entropy.item(), rtol=0, atol=1e-3)


@settings(deadline=None)
@given(st.integers(1, 3), seeds)
def test_squashed_agrees_with_torch(d: int, seed: int) -> None:
    mean, std = draw(4, d, seed=seed), draw(4, d, seed=seed + 1).clamp(-2, 0.5).exp()
    low = draw(d, seed=seed + 2)
    high = low + draw(d, seed=seed + 3).exp()
    mine = SquashedGaussian(mean, std, low, high)
    affine = td.AffineTransform((low + high) / 2, (high - low) / 2)
    onto: list[td.Transform] = [td.TanhTransform(), affine]
    theirs = td.Independent(td.TransformedDistribution(td.Normal(mean, std), onto), 1)
    action = mine.sample(seeded(seed))
    assert_close(mine.log_prob(action), theirs.log_prob(action), rtol=1e-5, atol=1e-5)


def test_squashed_stays_inside_and_inverts() -> None:
    low, high = torch.tensor([-0.1, 10.0]), torch.tensor([0.3, 10.7])
    p = SquashedGaussian(torch.zeros(100_000, 2), torch.tensor([1.0, 20.0]), low, high)
    a, log_prob = p.rsample_with_log_prob(seeded())
    assert bool(((a >= low) & (a <= high)).all())
    assert bool(log_prob.isfinite().all()) and bool(p.log_prob(a).isfinite().all())
    assert_close(p.sample(seeded()), a)
    gentle = SquashedGaussian(torch.zeros(1000, 2, dtype=torch.float64), 1.0, low.double(), high.double())
    a, log_prob = gentle.rsample_with_log_prob(seeded())
    assert_close(gentle.log_prob(a), log_prob)


def test_squashed_near_and_on_the_edges() -> None:
    # float32: on the edge u is clipped to ½ log(1/eps) ≈ 7.97; values and gradients stay finite
    mean = torch.tensor([[0.0], [8.0], [-8.0]], requires_grad=True)
    p = SquashedGaussian(mean, 1.0)
    for edge in (-1.0, 1.0, 1.0 - 6e-8, -2.0):
        log_prob = p.log_prob(torch.full((3, 1), edge))
        (g,) = torch.autograd.grad(log_prob.sum(), mean)
        assert bool(log_prob.isfinite().all()) and bool(g.isfinite().all())
    # far out, u = 30 + ε: log N(u) − log(1 − tanh² u) with 1 − tanh² u → 4e^{−2u}, 0 in float32 by then
    far = SquashedGaussian(torch.tensor([[30.0]]), 1.0)
    _, log_prob = far.rsample_with_log_prob(seeded())
    noise = DiagonalGaussian(torch.zeros(1, 1), 1.0).sample(seeded()).item()
    exact = -0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - (math.log(4) - 2 * (30 + noise))
    assert_close(log_prob.item(), exact, rtol=1e-6, atol=0)


def test_squashed_kl_and_gradients() -> None:
    mean, std = draw(3, 2).requires_grad_(), (draw(3, 2, seed=1) / 2).exp().requires_grad_()
    p, q = SquashedGaussian(mean, std, 0.0, 3.0), SquashedGaussian(std, mean.exp(), 0.0, 3.0)
    # by sampling: the mean of log p − log q within five standard errors of the exact KL
    one = SquashedGaussian(mean[0].expand(100_000, 2), std[0], 0.0, 3.0)
    two = SquashedGaussian(std[0].expand(100_000, 2), mean[0].exp(), 0.0, 3.0)
    a, log_p = one.rsample_with_log_prob(seeded())
    gap = log_p - two.log_prob(a)
    assert abs((gap.mean() - p.kl(q)[0]).item()) < 5 * gap.std().item() / 100_000**0.5
    assert not p.sample(seeded()).requires_grad
    for f in (
        lambda mean, std: SquashedGaussian(mean, std, 0.0, 3.0).rsample(seeded()),
        lambda mean, std: SquashedGaussian(mean, std, 0.0, 3.0).rsample_with_log_prob(seeded())[1],
        lambda mean, std: SquashedGaussian(mean, std, 0.0, 3.0).log_prob(torch.full_like(mean, 0.4)),
        lambda mean, std: SquashedGaussian(mean, std, 0.0, 3.0).entropy(),
    ):
        assert torch.autograd.gradcheck(f, (mean, std))


@pytest.mark.parametrize(("std", "error"), [(0.3, 1e-5), (2.0, 1e-5), (3.0, 1e-3), (10.0, 0.1)])
def test_squashed_entropy_is_as_exact_as_it_says(std: float, error: float) -> None:
    for mean in (0.0, 0.7, 3.0):
        # Riemann sum over u of N(u)·(−log π(a(u))), by the naive formula: −log N(u) + log(½·3·(1 − tanh² u))
        u = torch.linspace(mean - 9 * std, mean + 9 * std, 200_001, dtype=torch.float64)
        log_n = td.Normal(mean, std).log_prob(u)
        log_slope = math.log(1.5) + 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u, threshold=700))
        exact = torch.trapezoid(log_n.exp() * (log_slope - log_n), u)
        p = SquashedGaussian(row(mean), std, 0.0, 3.0)
        assert_close(p.entropy(), exact, rtol=0, atol=error)


# Bernoulli


def test_bernoulli_by_hand() -> None:
    # p = ¾ and ½; a = (1, 0): log ¾ + log ½. H = ¾ log 4/3 + ¼ log 4 + log 2. KL to ½, ½: log 4 − H
    p = Bernoulli(row(math.log(3), 0))
    h = 0.75 * math.log(4 / 3) + 0.25 * math.log(4) + math.log(2)
    assert_close(p.log_prob(torch.tensor([1, 0])).item(), math.log(3 / 8))
    assert_close(p.entropy().item(), h)
    assert_close(p.kl(Bernoulli(row(0, 0))).item(), math.log(4) - h)
    assert p.mode().tolist() == [1, 0] and p.mode().dtype == torch.int8


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), seeds)
def test_bernoulli_agrees_with_torch(b: int, d: int, seed: int) -> None:
    x, y = 4 * draw(b, d, seed=seed), draw(b, d, seed=seed + 1)
    theirs, others = (td.Independent(td.Bernoulli(logits=z), 1) for z in (x, y))
    action = Bernoulli(x).sample(seeded(seed))
    assert_close(Bernoulli(x).log_prob(action), theirs.log_prob(action.double()))
    assert_close(Bernoulli(x).log_prob(action.double()), theirs.log_prob(action.double()))
    assert_close(Bernoulli(x).entropy(), theirs.entropy())
    assert_close(Bernoulli(x).kl(Bernoulli(y)), td.kl_divergence(theirs, others))


def test_bernoulli_frequencies_extremes_and_gradients() -> None:
    x = row(-1, 2)
    many = Bernoulli(x.expand(50_000, 2)).sample(seeded(4)).long()
    p, q = x.sigmoid()
    joint = torch.outer(torch.stack([1 - p, p]), torch.stack([1 - q, q])).flatten()
    check_frequencies(torch.bincount(many[:, 0] * 2 + many[:, 1], minlength=4).double(), joint)
    sure = Bernoulli(torch.tensor([200.0, -200.0]))
    assert sure.log_prob(torch.tensor([0, 1])).item() == -400 and sure.entropy().item() == 0
    check_gradient(lambda x: Bernoulli(x).log_prob(torch.tensor([1, 0])), x)
    check_gradient(lambda x: Bernoulli(x).entropy(), x)
    check_gradient(lambda x: Bernoulli(x).kl(Bernoulli(row(0.3, -0.2))), x)
    with pytest.raises(ValueError, match="shape"):
        Bernoulli(draw(3, 3)).log_prob(torch.zeros(3))


# Product


def test_product_sums_its_parts() -> None:
    where, what = DiagonalGaussian(draw(4, 2), 0.5), Categorical(draw(4, 3))
    where2, what2 = DiagonalGaussian(draw(4, 2, seed=1), 0.7), Categorical(draw(4, 3, seed=1))
    p, q = Product({"where": where, "what": what}), Product({"what": what2, "where": where2})
    action = p.sample(seeded())
    assert action.keys() == {"where", "what"}
    assert action["where"].shape == (4, 2) and action["what"].shape == (4,)
    assert_close(p.log_prob(action), where.log_prob(action["where"]) + what.log_prob(action["what"]))
    assert_close(p.entropy(), where.entropy() + what.entropy())
    assert_close(p.kl(q), where.kl(where2) + what.kl(what2))
    assert_close(p.mode()["where"], where.mode())


def test_products_nest_and_tuples_stay_tuples() -> None:
    switch = Bernoulli(draw(4, 2))
    inner = Product({"a": Categorical(draw(4, 3)), "b": MultiCategorical(draw(4, 5), [2, 3])})
    p = Product([switch, inner])
    action = p.sample(seeded())
    assert isinstance(action, tuple) and isinstance(action[1], dict)
    assert_close(p.log_prob(action), switch.log_prob(action[0]) + inner.log_prob(action[1]))
    assert_close(p.log_prob(list(action)), p.log_prob(action))
    assert_close(p.entropy(), switch.entropy() + inner.entropy())
    assert_close(p.kl(p), torch.zeros(4, dtype=torch.float64))


def test_product_refuses_another_structure() -> None:
    p = Product({"a": Categorical(draw(4, 3)), "b": Categorical(draw(4, 3))})
    zero = torch.zeros(4).long()
    for wrong in ({"a": zero}, {"a": zero, "b": zero, "c": zero}, (zero, zero)):
        with pytest.raises(ValueError, match="keys"):
            p.log_prob(wrong)
    with pytest.raises(ValueError, match="tuple of 1"):
        Product((Categorical(draw(4, 3)),)).log_prob((zero, zero))
    with pytest.raises(ValueError, match="at least one"):
        Product({})


# All of them


EVERY: dict[str, Any] = {
    "categorical": Categorical(draw(5, 3).float()),
    "multi": MultiCategorical(draw(5, 5).float(), [2, 3]),
    "gaussian": DiagonalGaussian(draw(5, 2).float(), 0.5),
    "squashed": SquashedGaussian(draw(5, 2).float(), 0.5),
    "bernoulli": Bernoulli(draw(5, 2).float()),
    "product": Product((Categorical(draw(5, 3).float()), Bernoulli(draw(5, 2).float()))),
}


@pytest.mark.parametrize("name", EVERY)
def test_shapes_seeds_and_no_hidden_randomness(name: str) -> None:
    p = EVERY[name]
    state = torch.get_rng_state()
    one, two, three = p.sample(seeded(7)), p.sample(seeded(7)), p.sample(seeded(8))
    assert_close(one, two, rtol=0, atol=0)
    assert any(bool((a != b).any()) for a, b in zip(flat(one), flat(three), strict=True))
    for x in (p.log_prob(one), p.log_prob(p.mode()), p.entropy(), p.kl(p)):
        assert x.shape == (5,) and bool(x.isfinite().all())
    assert_close(p.kl(p), torch.zeros(5))
    assert_close(torch.get_rng_state(), state)


def flat(action: Any) -> list[Tensor]:
    return list(action) if isinstance(action, tuple) else [action]


def test_squashed_gaussians_can_be_stacked_over_time() -> None:
    from volition.core.policy import stack_distributions

    generator = Generator().manual_seed(0)
    parts = [
        SquashedGaussian(torch.randn(5, 2, generator=generator), 0.3, -2.0, torch.tensor([1.0, 3.0])) for _ in "abc"
    ]
    action = torch.stack([part.sample(generator) for part in parts])
    together = stack_distributions(list(parts)).log_prob(action)
    assert_close(together, torch.stack([part.log_prob(a) for part, a in zip(parts, action, strict=True)]))
