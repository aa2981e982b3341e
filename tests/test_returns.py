import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from volition.core.returns import discounted_return, gae, lambda_return, n_step_return, vtrace

GAMMA = 0.9
JUNK = 1e6  # V after termination: its discount is 0, so it must never show


@st.composite
def segments(draw: st.DrawFn) -> dict[str, Tensor]:
    """A random `[T, B]` segment in which every step goes on, terminates or is truncated."""
    t, b = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    kinds = draw(st.lists(st.sampled_from("gggtx"), min_size=t * b, max_size=t * b))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    terminated = torch.tensor([kind == "t" for kind in kinds]).view(t, b)
    truncated = torch.tensor([kind == "x" for kind in kinds]).view(t, b)
    reward, value, final = (torch.randn(t, b, generator=generator, dtype=torch.float64) for _ in range(3))
    next_value = torch.cat([value[1:], final[-1:]])
    next_value = torch.where(truncated, final, torch.where(terminated, JUNK, next_value))
    return {
        "reward": reward,
        "discount": GAMMA * (~terminated).double(),
        "done": terminated | truncated,
        "next_value": next_value,
        "value": value,
    }


def shared(s: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return s["reward"], s["discount"], s["done"], s["next_value"]


def window(done: Tensor, t: int, b: int) -> int:
    """The number of steps from t to the end of its episode or of the segment, whichever comes first."""
    length = 1
    while not done[t + length - 1, b] and t + length < done.shape[0]:
        length += 1
    return length


def naive_n_step(s: dict[str, Tensor], t: int, b: int, n: int) -> float:
    """Σ_{k<m} γᵏ r_{t+k} + γᵐ V, with m = min(n, window)."""
    m = min(n, window(s["done"], t, b))
    total, weight = 0.0, 1.0
    for k in range(m):
        total += weight * s["reward"][t + k, b].item()
        weight *= s["discount"][t + k, b].item()
    return total + weight * s["next_value"][t + m - 1, b].item()


def naive_lambda(s: dict[str, Tensor], t: int, b: int, lam: float) -> float:
    """(1 − λ) Σ_{n<m} λ^{n−1} G^(n) + λ^{m−1} G^(m), with m = window."""
    m = window(s["done"], t, b)
    mixture = sum((1 - lam) * lam ** (n - 1) * naive_n_step(s, t, b, n) for n in range(1, m))
    return mixture + lam ** (m - 1) * naive_n_step(s, t, b, m)


def naive_delta(s: dict[str, Tensor], t: int, b: int) -> float:
    return (s["reward"] + s["discount"] * s["next_value"] - s["value"])[t, b].item()


def table(s: dict[str, Tensor], cell) -> Tensor:
    t, b = s["reward"].shape
    return torch.tensor([[cell(i, j) for j in range(b)] for i in range(t)], dtype=torch.float64)


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


# Six steps, γ = ½: terminated at t = 1, truncated at t = 3, and the segment ends in mid-episode.
# t            0    1    2    3    4    5
# reward       1    2    3    4    5    6
# V(s_t)       8   10   12   14   16   18
# next_value  10   99   14   40   18   20      (99 must not show; 40 = V(final obs); 20 = V(s_6))
HAND = {
    "reward": column(1, 2, 3, 4, 5, 6),
    "discount": column(0.5, 0, 0.5, 0.5, 0.5, 0.5),
    "done": torch.tensor([0, 1, 0, 1, 0, 0]).bool().unsqueeze(1),
    "next_value": column(10, 99, 14, 40, 18, 20),
    "value": column(8, 10, 12, 14, 16, 18),
}


def test_discounted_return_by_hand() -> None:
    # G5 = 6 + ½·20 = 16; G4 = 5 + ½·16 = 13; G3 = 4 + ½·40 = 24; G2 = 3 + ½·24 = 15; G1 = 2; G0 = 1 + ½·2 = 2
    assert_close(discounted_return(*shared(HAND)), column(2, 2, 15, 24, 13, 16))


def test_n_step_return_by_hand() -> None:
    # n = 1: r + γV': 1+5, 2, 3+7, 4+20, 5+9, 6+10
    assert_close(n_step_return(*shared(HAND), n=1), column(6, 2, 10, 24, 14, 16))
    # n = 2: t=0: 1 + ½·2 (terminates inside) = 2; t=2: 3 + ½·4 + ¼·40 (truncated inside) = 15;
    #        t=4: 5 + ½·6 + ¼·20 = 13; t=5: one step is left, 6 + ½·20 = 16; t=1, t=3: one step each
    assert_close(n_step_return(*shared(HAND), n=2), column(2, 2, 15, 24, 13, 16))


def test_n_step_return_shorter_than_the_episode() -> None:
    # γ = ½, no end, n = 2: 1 + ½·2 + ¼·V(s_2) = 2 + ¼·8 = 4; 2 + ½·4 + ¼·16 = 8; last: 4 + ½·16 = 12
    s = (column(1, 2, 4), column(0.5, 0.5, 0.5), torch.zeros(3, 1).bool(), column(4, 8, 16))
    assert_close(n_step_return(*s, n=2), column(4, 8, 12))
    # n = 3: 1 + ½·2 + ¼·4 + ⅛·16 = 5
    assert_close(n_step_return(*s, n=3), column(5, 8, 12))


def test_lambda_return_by_hand() -> None:
    # λ = ½: G5 = 16; G4 = 5 + ½(½·18 + ½·16) = 13.5; G3 = 24; G2 = 3 + ½(½·14 + ½·24) = 12.5; G1 = 2;
    #        G0 = 1 + ½(½·10 + ½·2) = 4
    assert_close(lambda_return(*shared(HAND), lam=0.5), column(4, 2, 12.5, 24, 13.5, 16))


def test_gae_by_hand() -> None:
    # δ = r + γV' − V: 6−8, 2−10, 10−12, 24−14, 14−16, 16−18 = −2, −8, −2, 10, −2, −2; γλ = ¼
    # A5 = −2; A4 = −2 − ½ = −2.5; A3 = 10; A2 = −2 + 2.5 = 0.5; A1 = −8; A0 = −2 − 2 = −4
    assert_close(gae(*shared(HAND), HAND["value"], lam=0.5), column(-4, -8, 0.5, 10, -2.5, -2))


def test_vtrace_by_hand() -> None:
    # ratios 2, ½, ½, 2, ½, 2 at ρ̄ = 1.5, c̄ = 1: ρ = 1.5, .5, .5, 1.5, .5, 1.5; c = 1, .5, .5, 1, .5, 1
    # ρδ = −3, −4, −1, 15, −1, −3. x = v − V: x5 = −3; x4 = −1 + ½·½·(−3) = −1.75; x3 = 15;
    # x2 = −1 + ½·½·15 = 2.75; x1 = −4; x0 = −3 + ½·1·(−4) = −5
    log_rho = column(2, 0.5, 0.5, 2, 0.5, 2).log()
    target, advantage = vtrace(log_rho, *shared(HAND), HAND["value"], rho_clip=1.5, c_clip=1.0)
    assert_close(target, column(3, 6, 14.75, 29, 14.25, 15))
    # A = ρ(r + γ·v' − V): 1.5(1+3−8) = −6; .5(2−10) = −4; .5(3+14.5−12) = 2.75; 1.5(4+20−14) = 15;
    #     .5(5+7.5−16) = −1.75; 1.5(6+10−18) = −3
    assert_close(advantage, column(-6, -4, 2.75, 15, -1.75, -3))


@settings(deadline=None)
@given(segments())
def test_discounted_return_is_the_definition(s: dict[str, Tensor]) -> None:
    assert_close(discounted_return(*shared(s)), table(s, lambda t, b: naive_n_step(s, t, b, 99)))


@settings(deadline=None)
@given(segments(), st.integers(1, 9))
def test_n_step_return_is_the_definition(s: dict[str, Tensor], n: int) -> None:
    assert_close(n_step_return(*shared(s), n=n), table(s, lambda t, b: naive_n_step(s, t, b, n)))


@settings(deadline=None)
@given(segments(), st.floats(0, 1))
def test_lambda_return_is_the_definition(s: dict[str, Tensor], lam: float) -> None:
    assert_close(lambda_return(*shared(s), lam=lam), table(s, lambda t, b: naive_lambda(s, t, b, lam)))


@settings(deadline=None)
@given(segments(), st.floats(0, 1))
def test_gae_is_the_definition(s: dict[str, Tensor], lam: float) -> None:
    def cell(
        t: int, b: int
    ) -> float:  # Σ_l (γλ)^l δ_{t+l}: only a window's last step can have ended, so γ_t = γ before it
        return sum((GAMMA * lam) ** l * naive_delta(s, t + l, b) for l in range(window(s["done"], t, b)))

    assert_close(gae(*shared(s), s["value"], lam=lam), table(s, cell))


@settings(deadline=None)
@given(segments(), st.integers(0, 2**31), st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0, 1))
def test_vtrace_is_the_definition(s, seed: int, rho_clip: float, c_clip: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_rho = torch.randn(s["reward"].shape, generator=generator, dtype=torch.float64)

    def ratio(t: int, b: int, most: float) -> float:
        return min(most, log_rho[t, b].exp().item())

    def v(t: int, b: int) -> float:  # eq. 1: V(s_t) + Σ_k γ^k (Π_{i<k} c_{t+i}) ρ_{t+k} δ_{t+k}
        total, weight = s["value"][t, b].item(), 1.0
        for k in range(window(s["done"], t, b)):
            total += weight * ratio(t + k, b, rho_clip) * naive_delta(s, t + k, b)
            weight *= GAMMA * lam * ratio(t + k, b, c_clip)
        return total

    def a(t: int, b: int) -> float:
        last = window(s["done"], t, b) == 1
        after = s["next_value"][t, b].item() if last else v(t + 1, b)
        step = s["reward"][t, b].item() + s["discount"][t, b].item() * after - s["value"][t, b].item()
        return ratio(t, b, rho_clip) * step

    target, advantage = vtrace(log_rho, *shared(s), s["value"], rho_clip, c_clip, lam)
    assert_close(target, table(s, v))
    assert_close(advantage, table(s, a))


@settings(deadline=None)
@given(segments())
def test_the_ends_of_lambda(s: dict[str, Tensor]) -> None:
    value = s["value"]
    assert_close(gae(*shared(s), value, lam=1.0), discounted_return(*shared(s)) - value)
    assert_close(gae(*shared(s), value, lam=0.0), s["reward"] + s["discount"] * s["next_value"] - value)
    assert_close(lambda_return(*shared(s), lam=0.0), n_step_return(*shared(s), n=1))
    assert_close(lambda_return(*shared(s), lam=0.7), gae(*shared(s), value, lam=0.7) + value)


@settings(deadline=None)
@given(segments())
def test_vtrace_on_policy_is_the_longest_n_step_return(s: dict[str, Tensor]) -> None:
    target, advantage = vtrace(torch.zeros_like(s["reward"]), *shared(s), s["value"])
    longest = n_step_return(*shared(s), n=len(s["reward"]))
    assert_close(target, longest)
    assert_close(advantage, longest - s["value"])


@settings(deadline=None)
@given(segments(), st.integers(1, 4), st.data())
def test_nothing_leaks_across_an_end(s: dict[str, Tensor], n: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(s["reward"]) - 1))
    s["done"][cut] = True
    other = {k: x.clone() for k, x in s.items()}
    for key in ("reward", "next_value", "value"):
        other[key][cut + 1 :] = 1e9
    zero = torch.zeros_like(s["reward"])
    for estimate in (
        lambda s: n_step_return(*shared(s), n=n),
        lambda s: lambda_return(*shared(s), lam=0.9),
        lambda s: gae(*shared(s), s["value"], lam=0.9),
        lambda s: vtrace(zero, *shared(s), s["value"])[0],
        lambda s: vtrace(zero, *shared(s), s["value"])[1],
    ):
        assert_close(estimate(other)[: cut + 1], estimate(s)[: cut + 1], rtol=0, atol=0)


def test_lambda_per_step_and_trailing_dimensions() -> None:
    # λ = (0, 1, 1): G2 = 24, G1 = 2 + ½·24 = 14, G0 = 1 + ½·10 = 6, as γ = ½ and nothing ends
    s = (column(1, 2, 4), column(0.5, 0.5, 0.5), torch.zeros(3, 1).bool(), column(10, 7, 40))
    lam = column(0, 1, 1)
    assert_close(lambda_return(*s, lam=lam), column(6, 14, 24))
    deep = tuple(x.view(3, 1, 1).expand(3, 2, 4) for x in s)
    assert_close(lambda_return(*deep, lam=lam.unsqueeze(-1)), column(6, 14, 24).view(3, 1, 1).expand(3, 2, 4))
    assert_close(n_step_return(*deep, n=2)[:, 1, 3:], n_step_return(*s, n=2))


def test_gradients_pass_through() -> None:
    # dG_0/dr_t = 1, γ, γ² and dG_0/dV' = γ³ in the last row only
    reward, next_value = torch.ones(3, 1, requires_grad=True), torch.ones(3, 1, requires_grad=True)
    discounted_return(reward, torch.full((3, 1), 0.5), torch.zeros(3, 1).bool(), next_value)[0].sum().backward()
    assert reward.grad is not None and next_value.grad is not None
    assert_close(reward.grad, torch.tensor([[1.0], [0.5], [0.25]]))
    assert_close(next_value.grad, torch.tensor([[0.0], [0.0], [0.125]]))


def test_wrong_arguments_are_refused() -> None:
    reward, discount, done, next_value = shared(HAND)
    with pytest.raises(ValueError, match="shapes differ"):
        gae(reward, discount, done, next_value, HAND["value"].unsqueeze(-1), lam=0.9)
    with pytest.raises(ValueError, match="n must be"):
        n_step_return(reward, discount, done, next_value, n=0)
