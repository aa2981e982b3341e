"""The policy gradient against the exact gradient of the expected return of an enumerated MDP."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from volition.core.distributions import Categorical
from volition.core.losses import clipped_surrogate, policy_gradient
from volition.core.returns import discounted_return, gae

STATES, ACTIONS, HORIZON, EXIT = 3, 2, 3, 3


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


START = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MOVE = random(STATES, ACTIONS, STATES + 1, seed=0).softmax(-1)  # P(s'|s, a); the fourth s' is the exit
REWARD = 2 + random(STATES, ACTIONS, seed=1)
LOGITS = random(STATES, ACTIONS, seed=2)


@dataclass
class Enumerated:
    """All N trajectories as one `[T, N]` batch; rows after the exit are padding, mask False."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    mask: Tensor
    chance: Tensor  # `[N]`: the environment's factor of P(τ)

    def discount(self, gamma: float) -> Tensor:
        return gamma * (~self.done).double()

    def log_prob(self, logits: Tensor) -> Tensor:
        return Categorical(logits[self.obs]).log_prob(self.action) * self.mask

    def probability(self, logits: Tensor) -> Tensor:
        """P(τ; θ) as a plain product of softmax probabilities, `[N]`: no logarithm is involved."""
        picked = logits.softmax(-1)[self.obs, self.action]
        return self.chance * torch.where(self.mask, picked, 1.0).prod(0)

    def future(self, table: Tensor) -> Tensor:
        """table[t + 1, s_{t+1}] `[T, N]`; the last row is only ever multiplied by a discount of 0."""
        steps = torch.arange(1, HORIZON).unsqueeze(1)
        return torch.cat([table[steps, self.obs[1:]], torch.zeros_like(self.reward[:1])])

    def now(self, table: Tensor) -> Tensor:
        return table[torch.arange(HORIZON).unsqueeze(1), self.obs]


def enumerate_trajectories() -> Enumerated:
    paths: list[tuple[list[tuple[int, int]], float]] = []

    def extend(path: list[tuple[int, int]], s: int, chance: float) -> None:
        if s == EXIT or len(path) == HORIZON:
            paths.append((path, chance))
            return
        for a in range(ACTIONS):
            if len(path) == HORIZON - 1:  # where the last action leads makes no difference
                extend([*path, (s, a)], EXIT, chance)
            else:
                for after in range(STATES + 1):
                    extend([*path, (s, a)], after, chance * MOVE[s, a, after].item())

    for s in range(STATES):
        extend([], s, START[s].item())
    shape = (HORIZON, len(paths))
    e = Enumerated(
        obs=torch.zeros(shape, dtype=torch.long),
        action=torch.zeros(shape, dtype=torch.long),
        reward=torch.full(shape, 1e3, dtype=torch.float64),  # padding must not count
        done=torch.ones(shape, dtype=torch.bool),
        mask=torch.zeros(shape, dtype=torch.bool),
        chance=torch.tensor([chance for _, chance in paths], dtype=torch.float64),
    )
    for n, (path, _) in enumerate(paths):
        for t, (s, a) in enumerate(path):
            e.obs[t, n], e.action[t, n], e.reward[t, n] = s, a, REWARD[s, a]
            e.done[t, n], e.mask[t, n] = t == len(path) - 1, True
    return e


ALL = enumerate_trajectories()


def reward_to_go(gamma: float) -> Tensor:
    """G_t `[T, N]` by the library; every trajectory ends by termination, so V plays no part."""
    junk = torch.full_like(ALL.reward, 1e6)
    return discounted_return(ALL.reward, ALL.discount(gamma), ALL.done, junk)


def naive_return(gamma: float) -> Tensor:
    """Σ_t γᵗ r_t `[N]`."""
    powers = gamma ** torch.arange(HORIZON, dtype=torch.float64).unsqueeze(1)
    return (powers * ALL.reward * ALL.mask).sum(0)


def expected_return(logits: Tensor, gamma: float) -> Tensor:
    """J(θ) = Σ_τ P(τ; θ) R(τ)."""
    return (ALL.probability(logits) * naive_return(gamma)).sum()


def exact_gradient(gamma: float) -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    (g,) = torch.autograd.grad(expected_return(logits, gamma), logits)
    return g


def values(gamma: float) -> Tensor:
    """V_t(s) of the policy `[T, S]`, by backward induction on the MDP itself."""
    table, after = [], torch.zeros(STATES + 1, dtype=torch.float64)
    for _ in range(HORIZON):
        v = (LOGITS.softmax(-1) * (REWARD + gamma * MOVE @ after)).sum(-1)
        table.append(v)
        after = torch.cat([v, torch.zeros(1, dtype=torch.float64)])
    return torch.stack(table[::-1])


def discounted(advantage: Tensor, gamma: float) -> Tensor:
    """γᵗ·A_t: a G_t discounted from t counts γᵗ towards J, which practice drops and an exact test may not."""
    return advantage * gamma ** torch.arange(HORIZON, dtype=torch.float64).unsqueeze(1)


def lambda_advantage(table: Tensor, gamma: float, lam: float) -> Tensor:
    discount, next_value = ALL.discount(gamma), ALL.future(table)
    return gae(ALL.reward, discount, ALL.done, next_value, ALL.now(table), lam=lam)


# Each gives the weight `[T, N]` of ∇ log π(a_t|s_t); the baselines are arbitrary numbers on purpose.
ESTIMATORS: dict[str, Callable[[float], Tensor]] = {
    "total return": lambda g: reward_to_go(g)[0].expand_as(ALL.reward),
    "reward-to-go": lambda g: discounted(reward_to_go(g), g),
    "constant baseline": lambda g: discounted(reward_to_go(g) - 3.7, g),
    "time-dependent baseline": lambda g: discounted(reward_to_go(g) - random(HORIZON, 1, seed=5), g),
    "state baseline": lambda g: discounted(reward_to_go(g) - random(STATES, seed=6)[ALL.obs], g),
    "state and time baseline": lambda g: discounted(reward_to_go(g) - ALL.now(values(g)), g),
    "gae, λ = 1, any V": lambda g: discounted(lambda_advantage(random(HORIZON, STATES, seed=7), g, 1.0), g),
    "gae, λ = 0.6, exact V": lambda g: discounted(lambda_advantage(values(g), g, 0.6), g),
    "gae, λ = 0, exact V": lambda g: discounted(lambda_advantage(values(g), g, 0.0), g),
}


def estimates(weight: Tensor) -> Tensor:
    """The score-function estimate of every single trajectory, `[N, S, A]`, through the library's loss."""

    def loss(logits: Tensor) -> Tensor:
        return policy_gradient(ALL.log_prob(logits), weight).sum(0)

    return -torch.func.jacrev(loss)(LOGITS)


def moments(weight: Tensor) -> tuple[Tensor, float]:
    """Exact mean `[S, A]` and total variance of the estimate under P(τ)."""
    g, p = estimates(weight).flatten(1), ALL.probability(LOGITS)
    mean = p @ g
    return mean.view_as(LOGITS), (p @ (g - mean).square()).sum().item()


def test_the_enumeration_is_complete() -> None:
    # 2 actions that exit or reach 3 states: f₁ = 2, f₂ = 2(1 + 3f₁) = 14, f₃ = 2(1 + 3f₂) = 86; 3 starts: 258
    assert ALL.reward.shape == (3, 258)
    assert_close(ALL.probability(LOGITS).sum().item(), 1.0)
    for gamma in (1.0, 0.9):  # J by summing over trajectories and by backward induction
        assert_close(expected_return(LOGITS, gamma), START @ values(gamma)[0])
        assert_close(reward_to_go(gamma)[0], naive_return(gamma))
    assert_close(ALL.log_prob(LOGITS).sum(0).exp() * ALL.chance, ALL.probability(LOGITS))


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_exact_gradient_agrees_with_finite_differences(gamma: float) -> None:
    h, numeric = 1e-5, torch.zeros_like(LOGITS)
    for i in range(STATES):
        for j in range(ACTIONS):
            step = torch.zeros_like(LOGITS)
            step[i, j] = h
            up, down = expected_return(LOGITS + step, gamma), expected_return(LOGITS - step, gamma)
            numeric[i, j] = (up - down) / (2 * h)
    assert_close(exact_gradient(gamma), numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_estimator_is_unbiased(name: str, gamma: float) -> None:
    mean, _ = moments(ESTIMATORS[name](gamma))
    assert_close(mean, exact_gradient(gamma), rtol=0, atol=1e-12)


def test_a_wrong_estimator_is_told_apart() -> None:
    # λ < 1 with a wrong critic is biased, and so are a weight that looks at the action and a dropped γᵗ.
    gamma, exact = 0.9, exact_gradient(0.9)
    for wrong in (
        discounted(lambda_advantage(random(HORIZON, STATES, seed=7), gamma, 0.5), gamma),
        discounted(reward_to_go(gamma) - REWARD[ALL.obs, ALL.action], gamma),
        reward_to_go(gamma),
    ):
        assert (moments(wrong)[0] - exact).abs().max() > 1e-3


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_baselines_lower_the_variance(gamma: float) -> None:
    go = reward_to_go(gamma)
    mean = START @ values(gamma)[0]  # E[G_0]
    per_step = (ALL.probability(LOGITS) * go * ALL.mask).sum(1) / (ALL.probability(LOGITS) * ALL.mask).sum(1)
    total = moments(go[0].expand_as(go))[1]
    constant = moments((go[0] - mean).expand_as(go))[1]
    to_go = moments(discounted(go, gamma))[1]
    time = moments(discounted(go - per_step.unsqueeze(1), gamma))[1]
    state = moments(discounted(go - ALL.now(values(gamma)), gamma))[1]
    one_step = moments(discounted(lambda_advantage(values(gamma), gamma, 0.0), gamma))[1]
    assert total > 5 * constant and total > 1.5 * to_go  # subtracting E[G], or forgetting the past
    # V_t is not the best baseline (Greensmith 2004): here the time-dependent mean does a little better.
    assert to_go > 5 * max(time, state)
    assert state > one_step > 0  # with an exact critic the TD error is the advantage with the least noise


def test_the_best_constant_baseline_is_the_weighted_mean_return() -> None:
    # Var(b) = E|∇logP|²(R − b)² − |∇J|² is least at b* = E[|∇logP|² R]/E|∇logP|² (Greensmith 2004)
    total = reward_to_go(1.0)[0]
    score = estimates(torch.ones_like(ALL.reward)).flatten(1).square().sum(1) * ALL.probability(LOGITS)
    best = (score * total).sum() / score.sum()
    least, *others = (
        moments((total - best - shift).expand_as(ALL.reward))[1] for shift in (0.0, 0.1, -0.1, best.item())
    )
    assert least < min(others)


def test_the_surrogate_starts_as_the_policy_gradient() -> None:
    weight, old = ESTIMATORS["state and time baseline"](0.9), ALL.log_prob(LOGITS)
    p = ALL.probability(LOGITS)

    def mean_loss(logits: Tensor) -> Tensor:
        return (p * clipped_surrogate(ALL.log_prob(logits), old, weight, clip=0.2).sum(0)).sum()

    assert_close(-torch.func.grad(mean_loss)(LOGITS), exact_gradient(0.9), rtol=0, atol=1e-12)


def test_the_sampled_estimate_converges() -> None:
    # 20,000 sampled trajectories: the mean estimate within 5 standard errors of the exact gradient, in norm
    weight = ESTIMATORS["reward-to-go"](0.9)
    mean, variance = moments(weight)
    generator = torch.Generator().manual_seed(0)
    picked = torch.multinomial(ALL.probability(LOGITS), 20_000, replacement=True, generator=generator)
    sampled = estimates(weight)[picked].mean(0)
    assert (sampled - mean).norm().item() < 5 * (variance / 20_000) ** 0.5
