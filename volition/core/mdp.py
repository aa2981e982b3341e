"""Markov decision processes small enough to write down, and the Bellman equation that solves them exactly.

Episodes end inside the table: P(s'|s,a) is *sub-stochastic*, Σ_s' P(s'|s,a) ≤ 1, and the mass that is missing
is the probability that the episode terminates on this step. A terminal transition has its reward and no
bootstrap, so every equation below stays free of special cases.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from volition.errors import VolitionError

ROUNDING = 1e-6  # float32 tables and decimals (0.3333333) miss their sum by less than this


@dataclass(frozen=True)
class MDP:
    """A finite Markov decision process (S, A, P, R, γ, ρ); float64 throughout.

    transition P(s'|s,a) `[S, A, S]`, sub-stochastic (see the module); reward r(s,a) = E[r | s,a] `[S, A]`,
    terminal transitions included; gamma in [0, 1]; start ρ(s) `[S]`, uniform when None. Raises VolitionError
    when the arrays are not such a process.
    """

    transition: Tensor
    reward: Tensor
    gamma: float
    start: Tensor | None = None

    def __post_init__(self) -> None:
        P = self.transition.double()
        if P.ndim != 3 or P.shape[0] != P.shape[2] or 0 in P.shape:
            raise VolitionError(f"MDP: transition P must be [S, A, S] with S, A ≥ 1; it is {list(P.shape)}")
        if self.reward.shape != P.shape[:2]:
            raise VolitionError(
                f"MDP: reward must be [S, A] = {list(P.shape[:2])} like P; it is {list(self.reward.shape)}"
            )
        start = P.new_full(P.shape[:1], 1 / len(P)) if self.start is None else self.start.to(P)
        if start.shape != P.shape[:1]:
            raise VolitionError(f"MDP: start must be [S] = [{len(P)}]; it is {list(start.shape)}")
        reward = self.reward.to(P)
        for name, array in (("P", P), ("reward", reward), ("start", start)):
            if not array.isfinite().all():
                raise VolitionError(f"MDP: {name} holds NaN or infinity at {_first(~array.isfinite())}")
        if (P < 0).any():
            raise VolitionError(f"MDP: P is negative at [s, a, s'] = {_first(P < 0)}; probabilities are ≥ 0")
        total = P.sum(-1)
        if (total > 1 + ROUNDING).any():
            where = _first(total > 1 + ROUNDING)
            raise VolitionError(
                f"MDP: P sums to {total[tuple(where)]:.6g} > 1 over s' at [s, a] = {where}; "
                "each row sums to 1, or to less where the episode may terminate"
            )
        if (start < 0).any() or abs(start.sum() - 1) > ROUNDING:
            raise VolitionError(f"MDP: start must be probabilities, ≥ 0 with sum 1; it is {start.tolist()[:8]}")
        if not 0 <= self.gamma <= 1:
            raise VolitionError(f"MDP: gamma must lie in [0, 1]; it is {self.gamma}")
        for name, array in (("transition", P), ("reward", reward), ("start", start)):
            object.__setattr__(self, name, array)

    @property
    def states(self) -> int:
        """|S|."""
        return self.transition.shape[0]

    @property
    def actions(self) -> int:
        """|A|."""
        return self.transition.shape[1]

    @property
    def termination(self) -> Tensor:
        """Probability that the step terminates the episode, 1 − Σ_s' P(s'|s,a); `[S, A]`."""
        missing = 1 - self.transition.sum(-1)
        return torch.where(missing > ROUNDING, missing, 0)


def _first(mask: Tensor) -> list[int]:
    return mask.nonzero()[0].tolist()


def bellman_q(mdp: MDP, value: Tensor) -> Tensor:
    """One look ahead, Q(s,a) = r(s,a) + γ Σ_s' P(s'|s,a) V(s'); V `[S]` → Q `[S, A]`."""
    return mdp.reward + mdp.gamma * (mdp.transition @ value)


def start_value(mdp: MDP, value: Tensor) -> Tensor:
    """Expected return of an episode, Σ_s ρ(s) V(s); V `[S]` → scalar."""
    assert mdp.start is not None  # __post_init__ filled it in
    return mdp.start @ value


def greedy_policy(q: Tensor) -> Tensor:
    """π(s) = argmax_a Q(s,a), the lowest index among equals (to 1e-10); Q `[S, A]` → π `[S]`.

    Values that are equal in theory differ by rounding; the slack makes the answer the same on every machine.
    """
    best = q.amax(-1, keepdim=True)
    return (q >= best - 1e-10 * (1 + best.abs())).int().argmax(-1)


def as_probabilities(mdp: MDP, policy: Tensor) -> Tensor:
    """π(a|s) `[S, A]` from a table of actions `[S]` (integers) or of probabilities `[S, A]`."""
    if policy.shape == (mdp.states,) and not policy.is_floating_point():
        return torch.nn.functional.one_hot(policy.long(), mdp.actions).to(mdp.reward)
    if policy.shape != mdp.reward.shape:
        raise ValueError(f"policy must be integers [S] or probabilities [S, A]; it is {list(policy.shape)}")
    return policy.to(mdp.reward)


def uniform_policy(mdp: MDP) -> Tensor:
    """π(a|s) = 1/|A|; `[S, A]`."""
    return torch.full_like(mdp.reward, 1 / mdp.actions)


def _under(mdp: MDP, policy: Tensor) -> tuple[Tensor, Tensor]:
    """P_π(s'|s) `[S, S]` and r_π(s) `[S]`."""
    pi = as_probabilities(mdp, policy)
    return torch.einsum("sa,sat->st", pi, mdp.transition), (pi * mdp.reward).sum(-1)


def _check_terminates(mdp: MDP, policy: Tensor) -> None:
    """With γ = 1 a value is finite only where the episode surely ends: every state must reach an end."""
    pi = as_probabilities(mdp, policy)
    ends = (pi * mdp.termination).sum(-1) > 0
    edges = (_under(mdp, pi)[0] > 0).to(mdp.reward)
    for _ in range(mdp.states):
        grown = ends | (edges @ ends.to(edges) > 0)
        if grown.equal(ends):
            break
        ends = grown
    if not ends.all():
        raise VolitionError(
            f"gamma = 1 and this policy never terminates from state {_first(~ends)[0]}, so its value has no "
            "unique finite solution; use gamma < 1 (or policy iteration, which keeps policies that terminate)"
        )


def policy_evaluation(mdp: MDP, policy: Tensor) -> Tensor:
    """V^π by linear solve, (I − γ P_π) V = r_π; π `[S]` or `[S, A]` → V `[S]`.

    Raises VolitionError when γ = 1 and π does not terminate from every state (I − P_π is singular).
    """
    if mdp.gamma == 1:
        _check_terminates(mdp, policy)
    P, r = _under(mdp, policy)
    return torch.linalg.solve(torch.eye(mdp.states).to(P) - mdp.gamma * P, r)


def stopping_residual(gamma: float, tolerance: float) -> float:
    """Largest step ‖V_{i+1} − V_i‖_∞ that proves ‖V_{i+1} − V‖_∞ ≤ tolerance: tolerance · (1 − γ)/γ.

    From the contraction ‖TV − TU‖_∞ ≤ γ ‖V − U‖_∞ (Puterman 1994, theorem 6.3.1). With γ = 1 there is no such
    proof: the tolerance itself is returned, and the iteration stops when it has nearly come to rest.
    """
    if tolerance <= 0:
        raise VolitionError(f"tolerance must be positive; it is {tolerance}")
    if gamma == 1:
        return tolerance
    return tolerance * (1 - gamma) / gamma if gamma > 0 else float("inf")


def value_sweeps(mdp: MDP, value: Tensor | None = None) -> Iterator[tuple[Tensor, float]]:
    """V_{i+1}(s) = max_a [r(s,a) + γ Σ_s' P(s'|s,a) V_i(s')], for ever.

    Yields V_{i+1} `[S]` and the Bellman residual ‖V_{i+1} − V_i‖_∞.
    Starts from `value` (zeros when None), so a stored V goes on where it stopped (Bellman 1957).
    """
    value = torch.zeros_like(mdp.reward[:, 0]) if value is None else value
    while True:
        new = bellman_q(mdp, value).amax(-1)
        residual = (new - value).abs().max().item()
        value = new
        yield value, residual


def _settle(sweeps: Iterator[tuple[Tensor, float]], stop: float, limit: int, gamma: float) -> Tensor:
    residual = float("inf")
    for i, (value, residual) in enumerate(sweeps):
        if residual <= stop:
            return value
        if i + 1 >= limit:
            break
    raise VolitionError(
        f"no convergence in {limit} sweeps with gamma = {gamma}: the last sweep moved V by {residual:.3g}, "
        f"the bound needs {stop:.3g}; use gamma < 1, a larger tolerance or more sweeps"
    )


def value_iteration(mdp: MDP, tolerance: float = 1e-8, value: Tensor | None = None, sweeps: int = 100_000) -> Tensor:
    """V* by Bellman sweeps; V `[S]` with ‖V − V*‖_∞ ≤ tolerance for γ < 1 (see `stopping_residual`)."""
    return _settle(value_sweeps(mdp, value), stopping_residual(mdp.gamma, tolerance), sweeps, mdp.gamma)


def iterative_policy_evaluation(
    mdp: MDP, policy: Tensor, tolerance: float = 1e-8, value: Tensor | None = None, sweeps: int = 100_000
) -> Tensor:
    """V^π by V_{i+1} = r_π + γ P_π V_i; V `[S]` with ‖V − V^π‖_∞ ≤ tolerance for γ < 1."""
    P, r = _under(mdp, policy)
    # one action per state: the process that π leaves, whose maximum over actions is the only one
    only = MDP(P[:, None], r[:, None], mdp.gamma, mdp.start)
    return value_iteration(only, tolerance, value, sweeps)


def policy_improvement(mdp: MDP, policy: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """π'(s) = argmax_a Q^π(s,a) where that beats V^π(s), else π(s); V^π `[S]` → π' `[S, A]`, changed `[S]`.

    States that gain nothing keep their π: with γ = 1 a tie may hide an action that never terminates.
    """
    q = bellman_q(mdp, value)
    changed = q.amax(-1) > value + 1e-10 * (1 + value.abs())
    greedy = as_probabilities(mdp, greedy_policy(q))
    return torch.where(changed[:, None], greedy, as_probabilities(mdp, policy)), changed


def policy_iteration(mdp: MDP, policy: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """V* `[S]` and an optimal π* `[S, A]`: solve V^π, improve π, until no state changes (Howard 1960).

    Starts from the uniform policy when None; with γ = 1 that one terminates wherever any policy does.
    """
    pi = uniform_policy(mdp) if policy is None else as_probabilities(mdp, policy)
    while True:
        value = policy_evaluation(mdp, pi)
        pi, changed = policy_improvement(mdp, pi, value)
        if not changed.any():
            return value, pi


def sample(mdp: MDP, state: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One step of B copies: r(s,a), discount γ·(1 − terminated), next state s' ~ P(·|s,a); each `[B]`.

    state, action `[B]` integers. The reward is its expectation; where terminated, the next state is s itself.
    """
    rows = mdp.transition[state, action]
    rows = torch.cat([rows, (1 - rows.sum(-1, keepdim=True)).clamp(min=0)], -1)  # what is missing ends the episode
    drawn = torch.multinomial(rows, 1, generator=generator).squeeze(-1)
    terminated = drawn == mdp.states
    discount = mdp.gamma * (~terminated).to(rows)
    return mdp.reward[state, action], discount, torch.where(terminated, state, drawn)


def q_learning_update(
    q: Tensor,
    state: Tensor,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_state: Tensor,
    step_size: Tensor | float,
) -> Tensor:
    """Q(s,a) ← Q(s,a) + α [r + γ(1 − terminated) max_a' Q(s',a') − Q(s,a)]; returns the new Q `[S, A]`.

    The rest is `[B]`; a pair (s,a) that occurs several times in the batch moves by the mean of its changes.
    (Watkins & Dayan 1992, eq. 1)
    """
    change = step_size * (reward + discount * q[next_state].amax(-1) - q[state, action])
    total = torch.zeros_like(q).index_put((state, action), change.to(q), accumulate=True)
    count = torch.zeros_like(q).index_put((state, action), torch.ones_like(change).to(q), accumulate=True)
    return q + total / count.clamp(min=1)


def robbins_monro(visits: Tensor, power: float = 0.8) -> Tensor:
    """α = N(s,a)^−power at the N-th visit: Σ α = ∞, Σ α² < ∞ if ½ < power ≤ 1 (Robbins & Monro 1951)."""
    if not 0.5 < power <= 1:
        raise ValueError("power must lie in (1/2, 1]")
    return visits.clamp(min=1).double() ** -power
