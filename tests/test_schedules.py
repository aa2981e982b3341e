import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from volition.core.schedules import boltzmann, constant, cosine, epsilon_greedy, exponential, linear


def test_linear_by_hand() -> None:
    # From 1 to .1 in 10 steps: .09 less each.
    assert [round(linear(t, 1.0, 0.1, 10), 9) for t in (0, 1, 5, 10, 99)] == [1.0, 0.91, 0.55, 0.1, 0.1]
    assert linear(-5, 1.0, 0.1, 10) == 1.0
    assert linear(0, 1.0, 0.1, 0) == 0.1
    assert constant(7, 0.3) == 0.3


def test_cosine_by_hand() -> None:
    # half way down in the middle, 1/4 of the way (cos 60° = ½) at a third
    found = [cosine(t, 1.0, 0.1, 6) for t in (0, 2, 3, 6, 9)]
    assert found == pytest.approx([1, 0.1 + 0.9 * 0.75, 0.55, 0.1, 0.1])
    assert cosine(0, 1.0, 0.5, 0) == 0.5


def test_exponential_by_hand() -> None:
    # From 1 to 1/16 in 4 steps: halved each.
    assert [exponential(t, 1.0, 1 / 16, 4) for t in (0, 1, 2, 4, 9)] == [1, 0.5, 0.25, 1 / 16, 1 / 16]
    assert exponential(0, 1.0, 0.5, 0) == 0.5
    with pytest.raises(ValueError, match="positive"):
        exponential(0, 1.0, 0.0, 4)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(1, 50), st.integers(0, 100))
def test_schedules_stay_between_their_ends(start: float, end: float, steps: int, step: int) -> None:
    for schedule in (linear, exponential):
        here, there = schedule(step, start, end, steps), schedule(step + 1, start, end, steps)
        low, high = sorted((start, end))
        assert low - 1e-12 <= here <= high + 1e-12
        assert (there - here) * (end - start) >= -1e-12  # never turns back


def frequencies(action: torch.Tensor, actions: int) -> torch.Tensor:
    return torch.bincount(action, minlength=actions) / len(action)


def test_epsilon_greedy_frequencies() -> None:
    # ε = .3 over three actions: the best has .7 + .1, the others .1. 40,000 draws: sd of each ≤ .0025.
    g = torch.Generator().manual_seed(0)
    q = torch.tensor([0.0, 2.0, 1.0]).expand(40_000, 3)
    assert_close(frequencies(epsilon_greedy(q, 0.3, g), 3), torch.tensor([0.1, 0.8, 0.1]), atol=0.01, rtol=0)
    # with the best forbidden: 2 is best of {0, 2}: .7 + .15 and .15
    mask = torch.tensor([True, False, True])
    masked = epsilon_greedy(q, 0.3, g, mask.expand_as(q))
    assert_close(frequencies(masked, 3), torch.tensor([0.15, 0.0, 0.85]), atol=0.01, rtol=0)


def test_epsilon_greedy_at_its_ends() -> None:
    g = torch.Generator().manual_seed(0)
    q = torch.randn(64, 5, generator=g)
    assert epsilon_greedy(q, 0.0, g).equal(q.argmax(-1))
    # one ε per row: even rows greedy, odd rows anything
    epsilon = (torch.arange(64) % 2).float()
    action = epsilon_greedy(q, epsilon, g)
    assert action[::2].equal(q[::2].argmax(-1)) and not action[1::2].equal(q[1::2].argmax(-1))
    # the generator ends at the same place whatever ε is
    states = []
    for e in (0.0, 0.5, 1.0):
        g.manual_seed(1)
        epsilon_greedy(q, e, g)
        states.append(g.get_state())
    assert states[0].equal(states[1]) and states[0].equal(states[2])


def test_boltzmann_frequencies() -> None:
    # Q/τ = 0, log 2, log 5 → 1/8, 2/8, 5/8; with the last forbidden 1/3, 2/3.
    g = torch.Generator().manual_seed(0)
    q = (0.5 * torch.tensor([1.0, 2.0, 5.0]).log()).expand(40_000, 3)
    assert_close(frequencies(boltzmann(q, 0.5, g), 3), torch.tensor([1, 2, 5]) / 8, atol=0.012, rtol=0)
    mask = torch.tensor([True, True, False]).expand_as(q)
    assert_close(frequencies(boltzmann(q, 0.5, g, mask), 3), torch.tensor([1 / 3, 2 / 3, 0]), atol=0.012, rtol=0)
    assert (boltzmann(q, 1e-4, g) == 2).all()  # cold: greedy
    with pytest.raises(ValueError, match="temperature"):
        boltzmann(q, 0.0, g)
