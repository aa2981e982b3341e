from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from volition.core import mdp as M
from volition.core.mdp import MDP
from volition.errors import VolitionError


def random_mdp(seed: int, states: int, actions: int, gamma: float, endings: bool = True) -> MDP:
    g = torch.Generator().manual_seed(seed)
    P = torch.rand(states, actions, states, generator=g, dtype=torch.float64)
    P = P * (torch.rand(P.shape, generator=g) < 0.6) + 1e-3 * torch.eye(states)[:, None]
    P = P / P.sum(-1, keepdim=True)
    if endings:
        P = P * (1 - 0.5 * torch.rand(states, actions, 1, generator=g, dtype=torch.float64))
    return MDP(P, torch.randn(states, actions, generator=g, dtype=torch.float64), gamma)


def chain(gamma: float = 0.5) -> MDP:
    """Actions stay (0) and go (1): stay pays 1; go from 0 leads to 1 for 0; go from 1 terminates for 10."""
    P = torch.zeros(2, 2, 2)
    P[0, 0, 0] = P[0, 1, 1] = P[1, 0, 1] = 1
    return MDP(P, torch.tensor([[1.0, 0.0], [1.0, 10.0]]), gamma, torch.tensor([1.0, 0.0]))


random_mdps = st.builds(
    random_mdp,
    seed=st.integers(0, 10_000),
    states=st.integers(1, 6),
    actions=st.integers(1, 4),
    gamma=st.floats(0, 0.95),
    endings=st.booleans(),
)


def test_chain_by_hand() -> None:
    # V(1) = max(1 + ½V(1), 10) = 10 (stay for ever pays 2); V(0) = max(1 + ½V(0), 0 + ½·10) = 5: go, go.
    mdp = chain()
    value = torch.tensor([5.0, 10.0]).double()
    q = torch.tensor([[3.5, 5.0], [6.0, 10.0]]).double()  # 1 + ½5, ½10, 1 + ½10, 10 and no bootstrap
    assert_close(M.value_iteration(mdp, 1e-10), value)
    assert_close(M.bellman_q(mdp, value), q)
    assert M.greedy_policy(q).tolist() == [1, 1]
    # Uniform policy: V(1) = ½(1 + ½V(1)) + ½10 → ¾V(1) = 5.5, V(1) = 22/3;
    # V(0) = ½(1 + ½V(0)) + ½·½V(1) → ¾V(0) = ½ + 22/12, V(0) = 28/9.
    assert_close(M.policy_evaluation(mdp, M.uniform_policy(mdp)), torch.tensor([28 / 9, 22 / 3]).double())
    solved, policy = M.policy_iteration(mdp)
    assert_close(solved, value)
    assert policy.tolist() == [[0, 1], [0, 1]]
    assert M.start_value(mdp, value).item() == 5
    # Short-sighted: γ = 0 takes the larger reward at once.
    assert M.value_iteration(chain(0.0), 1e-10).tolist() == [1, 10]


def test_chain_gamma_one() -> None:
    # With γ = 1 staying pays 1 for ever: no finite value. Negative pay for staying: go, go earns 10.
    with pytest.raises(VolitionError, match="no convergence"):
        M.value_iteration(chain(1.0), sweeps=100)
    mdp = chain(1.0)
    mdp = MDP(mdp.transition, torch.tensor([[-1.0, 0.0], [-1.0, 10.0]]), 1.0)
    assert_close(M.value_iteration(mdp), torch.tensor([10.0, 10.0]).double())
    assert_close(M.policy_iteration(mdp)[0], torch.tensor([10.0, 10.0]).double())
    with pytest.raises(VolitionError, match="never terminates from state 0"):
        M.policy_evaluation(mdp, torch.tensor([0, 1]))


def test_gamma_one_policy_iteration_keeps_terminating_policies_on_ties() -> None:
    # One state, stay for nothing or end for nothing: all ties, and "stay" (the lowest index) would never end.
    P = torch.tensor([[[1.0], [0.0]]])
    value, policy = M.policy_iteration(MDP(P, torch.zeros(1, 2), 1.0))
    assert value.item() == 0 and policy[0, 1] > 0


@settings(max_examples=40, deadline=None)
@given(random_mdps, st.floats(1e-9, 1.0))
def test_value_iteration_keeps_its_bound(mdp: MDP, tolerance: float) -> None:
    exact, policy = M.policy_iteration(mdp)
    assert_close(M.bellman_q(mdp, exact).amax(-1), exact, rtol=1e-9, atol=1e-9)  # the Bellman equation holds
    value = M.value_iteration(mdp, tolerance)
    assert (value - exact).abs().max() <= tolerance + 1e-11
    # and the policy found is worth V*
    assert_close(M.policy_evaluation(mdp, policy), exact, rtol=1e-8, atol=1e-8)
    assert_close(M.policy_evaluation(mdp, policy.argmax(-1)), exact, rtol=1e-8, atol=1e-8)


def test_stopping_residual_is_the_contraction_bound() -> None:
    # One state, reward 1, γ = .9: V* = 10, V_i = 10(1 − .9^i); step i+1 moves by .9^i and leaves 9·.9^i.
    mdp = MDP(torch.ones(1, 1, 1), torch.ones(1, 1), 0.9)
    for value, residual in M.value_sweeps(mdp):
        left = 10 - value.item()
        assert residual * 0.9 / 0.1 == pytest.approx(left, rel=1e-9)  # the bound is tight here
        if residual <= M.stopping_residual(0.9, 0.5):
            assert left <= 0.5 + 1e-9 and left / 0.9 > 0.5  # stopped at the first sweep that proves it
            break


@settings(max_examples=40, deadline=None)
@given(random_mdps, st.integers(0, 10_000))
def test_bellman_is_a_contraction_and_monotone(mdp: MDP, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    v, u = 10 * torch.randn(2, mdp.states, generator=g, dtype=torch.float64)
    tv, tu = M.bellman_q(mdp, v).amax(-1), M.bellman_q(mdp, u).amax(-1)
    assert (tv - tu).abs().max() <= mdp.gamma * (v - u).abs().max() + 1e-12
    assert (M.bellman_q(mdp, torch.maximum(v, u)).amax(-1) >= torch.maximum(tv, tu) - 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(random_mdps, st.integers(0, 10_000))
def test_bellman_and_evaluation_against_loops(mdp: MDP, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    value = torch.randn(mdp.states, generator=g, dtype=torch.float64)
    q = M.bellman_q(mdp, value)
    for s in range(mdp.states):
        for a in range(mdp.actions):
            expected = mdp.reward[s, a].item()
            for t in range(mdp.states):
                expected += mdp.gamma * mdp.transition[s, a, t].item() * value[t].item()
            assert q[s, a].item() == pytest.approx(expected, abs=1e-10)
    pi = torch.rand(mdp.states, mdp.actions, generator=g, dtype=torch.float64)
    pi = pi / pi.sum(-1, keepdim=True)
    solved = M.policy_evaluation(mdp, pi)
    assert_close((pi * M.bellman_q(mdp, solved)).sum(-1), solved)  # V^π = Σ_a π(a|s) Q^π(s,a)
    assert (M.iterative_policy_evaluation(mdp, pi, 1e-6) - solved).abs().max() <= 1e-6
    # policy improvement never loses
    better, _ = M.policy_improvement(mdp, pi, solved)
    assert (M.policy_evaluation(mdp, better) >= solved - 1e-8).all()


def test_greedy_breaks_ties_by_lowest_index() -> None:
    q = torch.tensor([[1.0, 1.0, 0.5], [0.1 + 0.2, 0.3, 0.3 + 1e-15], [-3.0, -2.0, -2.0], [0.0, 1e-9, 0.0]])
    assert M.greedy_policy(q.double()).tolist() == [0, 0, 1, 1]


def test_sweeps_resume() -> None:
    mdp = random_mdp(0, 5, 3, 0.9)
    sweeps = M.value_sweeps(mdp)
    values = [next(sweeps)[0] for _ in range(10)]
    resumed = M.value_sweeps(mdp, values[3])
    assert next(resumed)[0].equal(values[4]) and next(resumed)[0].equal(values[5])


def test_sample_frequencies() -> None:
    P = torch.tensor([[[0.5, 0.3]], [[1.0, 0.0]]])  # from 0: stay .5, go .3, terminate .2
    mdp = MDP(P, torch.tensor([[2.0], [3.0]]), 0.9)
    g = torch.Generator().manual_seed(0)
    n = 40_000
    state = torch.zeros(n, dtype=torch.long)
    reward, discount, nxt = M.sample(mdp, state, state, g)
    assert (reward == 2).all()
    ended = discount == 0
    assert_close(discount[~ended].unique(), torch.tensor([0.9]).double())
    # each count has sd ≤ √(n/4) = 100; five of them
    assert abs(ended.sum().item() - 0.2 * n) < 500
    assert abs((nxt == 1).sum().item() - 0.3 * n) < 500
    assert (nxt[ended] == 0).all()
    assert (M.sample(mdp, state + 1, state, g)[1] == 0.9).all()  # a full row never terminates


def test_q_learning_update_by_hand() -> None:
    # Q = 0 but Q(1,0) = 4. Step (0,0): r = 1, γ = .5, s' = 1 → target 1 + .5·4 = 3; twice in the batch, with
    # targets 3 and (terminal) 1: mean change ½(.1·3 + .1·1) = .2. Step (1,1): r = 2, s' = 0 → target 2: .2.
    q = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    new = M.q_learning_update(
        q,
        torch.tensor([0, 0, 1]),
        torch.tensor([0, 0, 1]),
        torch.tensor([1.0, 1.0, 2.0]),
        torch.tensor([0.5, 0.0, 0.5]),
        torch.tensor([1, 1, 0]),
        0.1,
    )
    assert_close(new, torch.tensor([[0.2, 0.0], [4.0, 0.2]]))


def test_q_learning_converges_to_q_star() -> None:
    mdp = random_mdp(3, 4, 2, 0.7)
    exact = M.bellman_q(mdp, M.value_iteration(mdp, 1e-10))
    g = torch.Generator().manual_seed(1)
    q, visits = torch.zeros(4, 2).double(), torch.zeros(4, 2).double()
    errors = []
    state = torch.randint(4, (64,), generator=g)
    for step in range(4000):
        action = torch.randint(2, (64,), generator=g)
        reward, discount, nxt = M.sample(mdp, state, action, g)
        visits[state, action] += 1
        step_size = M.robbins_monro(visits[state, action], 0.8)
        q = M.q_learning_update(q, state, action, reward, discount, nxt, step_size)
        state = torch.where(discount == 0, torch.randint(4, (64,), generator=g), nxt)
        if step in (100, 3999):
            errors.append((q - exact).abs().max().item())
    assert errors[1] < 0.01 and errors[1] < 0.3 * errors[0]
    assert M.greedy_policy(q).equal(M.greedy_policy(exact))


def test_robbins_monro() -> None:
    assert_close(M.robbins_monro(torch.tensor([1, 2, 4]), 1.0), torch.tensor([1, 0.5, 0.25]).double())
    with pytest.raises(ValueError):
        M.robbins_monro(torch.ones(1), 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": torch.zeros(2, 2, 3)}, "must be .S, A, S."),
        ({"transition": torch.zeros(0, 2, 0), "reward": torch.zeros(0, 2)}, "S, A ≥ 1"),
        ({"reward": torch.zeros(2, 3)}, "reward must be"),
        ({"transition": torch.full((2, 2, 2), 0.6)}, "sums to 1.2 > 1 over s' at .s, a. = .0, 0."),
        ({"transition": torch.tensor([[[-0.1, 0.2]] * 2] * 2)}, "negative at"),
        ({"reward": torch.full((2, 2), torch.nan)}, "NaN or infinity"),
        ({"gamma": 1.1}, "gamma must lie"),
        ({"gamma": float("nan")}, "gamma must lie"),
        ({"start": torch.tensor([0.5, 0.6])}, "with sum 1"),
        ({"start": torch.ones(3) / 3}, "start must be"),
    ],
)
def test_validation(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "transition": torch.full((2, 2, 2), 0.4),
        "reward": torch.zeros(2, 2),
        "gamma": 0.9,
    }
    MDP(**good)
    with pytest.raises(VolitionError, match=message):
        MDP(**(good | change))
