import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from volition.core.normalize import ReturnNormalizer, RunningMoments, normalize_advantage


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=8),
    st.sampled_from([(), (3,), (2, 2)]),
    st.floats(-1e4, 1e4),
    st.integers(0, 1000),
)
def test_moments_are_those_of_all_the_data(sizes: list[int], shape: tuple[int, ...], offset: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    parts = [offset + torch.randn(n, *shape, generator=g, dtype=torch.float64) for n in sizes]
    moments = RunningMoments(shape)
    for part in parts:
        moments.update(part)
    data = torch.cat(parts).numpy()
    assert moments.count.item() == len(data)
    if len(data) == 0:
        assert (moments.variance == 1).all() and (moments.mean == 0).all()
        return
    np.testing.assert_allclose(moments.mean.numpy(), data.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.variance.numpy(), data.var(0), rtol=1e-6, atol=1e-9)


def test_moments_by_hand() -> None:
    # {1, 3} then {5, 7, 9}: μ = 25/5 = 5, σ² = (16 + 4 + 0 + 4 + 16)/5 = 8
    moments = RunningMoments()
    moments.update(torch.tensor([1.0, 3.0]))
    moments.update(torch.tensor([[5.0], [7.0], [9.0]]))
    assert moments.mean.item() == 5 and moments.variance.item() == pytest.approx(8)
    assert_close(moments.normalize(torch.tensor([5.0, 13.0])), torch.tensor([0.0, 8**0.5]))
    assert_close(moments.normalize(torch.tensor([1e6, -1e6]), clip=3.0), torch.tensor([3.0, -3.0]))
    assert moments.normalize(torch.tensor([5], dtype=torch.uint8)).dtype == torch.float32


def test_float32_would_lose_the_variance() -> None:
    moments = RunningMoments()
    for _ in range(100):
        moments.update(torch.tensor([1e6 - 1.0, 1e6 + 1.0]))
    assert moments.variance.item() == pytest.approx(1.0, rel=1e-9)


def test_returns_by_hand() -> None:
    # γ = ½, rewards 1, 2, then 4 in a new episode: R = 1, ½ + 2 = 2.5, 4; mean 2.5, Var = (2.25 + 0 + 2.25)/3
    scale = ReturnNormalizer(1, 0.5)
    for reward, done in ((1.0, False), (2.0, True), (4.0, False)):
        scale.update(torch.tensor([reward]), torch.tensor([done]))
    assert scale.moments.mean.item() == 2.5 and scale.moments.variance.item() == pytest.approx(1.5)
    assert_close(scale.normalize(torch.tensor([3.0, -1000.0])), torch.tensor([3 / 1.5**0.5, -10.0]))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 30), st.integers(0, 1000))
def test_returns_against_a_loop(envs: int, steps: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    reward, done = torch.randn(steps, envs, generator=g), torch.rand(steps, envs, generator=g) < 0.2
    scale, seen, total = ReturnNormalizer(envs, 0.9), [], [0.0] * envs
    for t in range(steps):
        if t == steps // 2:  # a checkpoint in mid-stream changes nothing
            file = io.BytesIO()
            torch.save(scale.state_dict(), file)
            file.seek(0)
            scale = ReturnNormalizer(envs, 0.9)
            scale.load_state_dict(torch.load(file, weights_only=True))
        scale.update(reward[t], done[t])
        for b in range(envs):
            total[b] = 0.9 * total[b] + reward[t, b].item()
            seen.append(total[b])
            total[b] = 0.0 if done[t, b] else total[b]
    assert scale.moments.variance.item() == pytest.approx(np.var(seen), rel=1e-6, abs=1e-9)


def test_state_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="fit"):
        RunningMoments((2,)).load_state_dict(RunningMoments((3,)).state_dict())
    with pytest.raises(ValueError, match="fit"):
        ReturnNormalizer(2, 0.9).load_state_dict(ReturnNormalizer(3, 0.9).state_dict())


def test_advantage_by_hand() -> None:
    # {1, 3, 5} with the 100 masked: μ = 3, σ² = 8/3
    advantage = torch.tensor([[1.0, 3.0], [5.0, 100.0]])
    mask = torch.tensor([[True, True], [True, False]])
    z = 2 / (8 / 3) ** 0.5
    assert_close(normalize_advantage(advantage, mask), torch.tensor([[-z, 0.0], [z, 0.0]]))
    assert normalize_advantage(torch.tensor([[7.0]])).item() == 0
    whole = normalize_advantage(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    assert_close(whole.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert_close(whole.std(correction=0), torch.tensor(1.0))
