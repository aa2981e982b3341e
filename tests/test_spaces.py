"""Spaces to vectors and back: one-hot codes by hand, actions through the space and back, unfit spaces named."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch.testing import assert_close

from volition.core.distributions import DiagonalGaussian, MultiCategorical, Product, SquashedGaussian
from volition.core.policy import Tree, tree_map
from volition.envs.spaces import action_head, encoder, from_space, to_space
from volition.errors import VolitionError

MIXED = spaces.Dict(
    move=spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
    pair=spaces.Tuple([spaces.Discrete(3, start=-1), spaces.MultiBinary([2, 2])]),
    pick=spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[1, 0], [0, -7]])),
)
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=10),
    "multi": MIXED["pick"],
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1.0, 3.0, (2, 3)),
    "scalar": spaces.Box(0.0, 1.0, ()),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "double": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "mixed": MIXED,
    "tuple": spaces.Tuple([spaces.Discrete(2), spaces.Box(-1.0, 1.0, (1,))]),
}


def batch_of(space: spaces.Space[Any], n: int) -> Tree:
    batched = batch_space(space, n)
    batched.seed(3)
    return tree_map(torch.as_tensor, batched.sample())


def test_codes_by_hand() -> None:
    def code(space: spaces.Space[Any], obs: Tree) -> list[float]:
        e = encoder(space)
        x = e.encode(obs)
        assert x.shape == (1, e.size) and x.dtype == torch.float32
        return x[0].tolist()

    assert code(spaces.Box(0.0, 9.0, (2, 2)), torch.tensor([[[1.0, 2], [3, 4]]])) == [1, 2, 3, 4]
    assert code(spaces.Box(0.0, 9.0, ()), torch.tensor([7.0])) == [7]
    assert code(spaces.Box(0, 255, (2,), np.uint8), torch.tensor([[0, 255]], dtype=torch.uint8)) == [0, 1]
    assert code(spaces.Discrete(3, start=5), torch.tensor([6])) == [0, 1, 0]
    assert code(spaces.MultiDiscrete([2, 3]), torch.tensor([[1, 2]])) == [0, 1, 0, 0, 1]
    assert code(spaces.MultiBinary(3), torch.tensor([[1, 0, 1]])) == [1, 0, 1]
    both = spaces.Dict(b=spaces.Discrete(2), a=spaces.Tuple([spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2)]))
    # in the space's order: b = (1, 0), a = (−0.5 | 0, 1)
    obs = {"b": torch.tensor([0]), "a": (torch.tensor([[-0.5]]), torch.tensor([1]))}
    assert code(both, obs) == [1, 0, -0.5, 0, 1]
    start = np.array([[1, 0], [0, -7]])
    index = code(MIXED["pick"], torch.tensor(start + np.array([[1, 2], [0, 4]]))[None])
    assert [i for i, x in enumerate(index) if x] == [1, 2 + 2, 5 + 0, 9 + 4]  # nvec 2, 3, 4, 5 begin at 0, 2, 5, 9


@pytest.mark.parametrize("name", ACTIONS)
def test_time_and_batch_lead(name: str) -> None:
    space = ACTIONS[name]
    e, rows = encoder(space), batch_of(space, 6)
    flat = e.encode(rows)
    assert flat.shape == (6, e.size)
    assert_close(e.encode(tree_map(lambda x: x.unflatten(0, (2, 3)), rows)), flat.unflatten(0, (2, 3)))
    if name != "unbounded":
        assert len({tuple(row) for row in flat.tolist()}) > 1


@pytest.mark.parametrize("name", ACTIONS)
def test_a_sampled_action_is_in_the_space_and_comes_back(name: str) -> None:
    space, generator = ACTIONS[name], torch.Generator().manual_seed(0)
    head = action_head(space)
    assert len(head.varies) == head.size
    pi = head.distribution(torch.randn(5, head.size, generator=generator))
    action = pi.sample(generator)
    assert pi.log_prob(action).shape == pi.entropy().shape == (5,)
    native = to_space(space, action)
    assert batch_space(space, 5).contains(native)
    again = from_space(space, native)
    assert batch_space(space, 5).contains(to_space(space, again))
    tree_map(lambda a, b: assert_close(a, b, check_dtype=False) if not b.is_floating_point() else None, again, action)
    inside = from_space(space, batch_space(space, 5).sample())
    assert pi.log_prob(inside).isfinite().all()
    tree_map(lambda a, b: assert_close(a, b), from_space(space, to_space(space, inside)), inside)


def test_a_new_network_acts_uniformly_or_in_the_middle() -> None:
    for space, chance in ((ACTIONS["discrete"], 1 / 4), (MIXED["pick"], 1 / 120), (ACTIONS["binary"], 1 / 8)):
        head = action_head(space)
        pi = head.distribution(torch.zeros(1, head.size))
        action = pi.sample(torch.Generator().manual_seed(0))
        assert pi.log_prob(action).item() == pytest.approx(math.log(chance), abs=1e-6)
    head = action_head(ACTIONS["box"])
    pi = head.distribution(torch.zeros(1, head.size))
    assert isinstance(pi, DiagonalGaussian)
    assert_close(pi.mean, torch.ones(1, 6))  # middle of [−1, 3]
    assert_close(pi.std, torch.full((1, 6), 2 * math.exp(-0.5)))  # of the half width 2
    assert head.varies == (True,) * 6 + (False,) * 6
    assert action_head(ACTIONS["box"], state_dependent_std=True).varies == (True,) * 12


@pytest.mark.parametrize("name", ACTIONS)
def test_an_environment_may_keep_its_actions(name: str) -> None:
    space = ACTIONS[name]
    action = tree_map(torch.Tensor.numpy, from_space(space, batch_space(space, 5).sample()))
    native = to_space(space, action)
    leaves: list[np.ndarray] = []
    tree_map(leaves.append, action)
    tree_map(lambda x: [np.testing.assert_(not np.shares_memory(x, leaf)) for leaf in leaves], native)


def test_bounds() -> None:
    half_open = spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, np.inf], np.float32))
    pi = action_head(half_open).distribution(torch.zeros(1, 4))
    assert isinstance(pi, DiagonalGaussian)
    assert_close(pi.mean, torch.zeros(1, 2))
    assert_close(pi.std, torch.full((1, 2), math.exp(-0.5)))
    clipped = to_space(half_open, torch.tensor([[-3.0, -3.0]]))
    assert clipped.tolist() == [[0.0, -3.0]] and clipped.dtype == np.float32
    huge = spaces.Box(-3e38, 3e38, (1,))  # high − low would overflow
    assert action_head(huge).distribution(torch.zeros(1, 2)).mode().isfinite().all()
    squashed = action_head(ACTIONS["box"], squash=True).distribution(torch.full((2, 12), 50.0))
    assert isinstance(squashed, SquashedGaussian)
    assert squashed.sample(torch.Generator()).max() <= 3.0
    with pytest.raises(VolitionError, match="infinite bound"):
        action_head(half_open, squash=True)


def test_products_keep_the_structure() -> None:
    head = action_head(MIXED)
    pi = head.distribution(torch.zeros(3, head.size))
    assert isinstance(pi, Product) and isinstance(pi.parts, dict)
    assert list(pi.parts) == ["move", "pair", "pick"]
    assert isinstance(pi.parts["pair"], Product) and isinstance(pi.parts["pick"], MultiCategorical)
    # 2 + 2 for the box, 3, 4 coins, 2 + 3 + 4 + 5
    assert head.size == 4 + 3 + 4 + 14


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Sequence(spaces.Discrete(2)), spaces.Dict({}), spaces.Tuple([spaces.Text(3)])],
)
def test_unfit_spaces_are_named(space: spaces.Space[Any]) -> None:
    for make in (encoder, action_head):
        with pytest.raises(VolitionError, match=r"Text|Sequence|Dict"):
            make(space)
    with pytest.raises(VolitionError, match="whole numbers"):
        action_head(spaces.Box(0, 9, (2,), np.int64))
