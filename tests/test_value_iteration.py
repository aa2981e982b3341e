import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from volition.algorithms import value_iteration as recipe
from volition.core import mdp as M
from volition.envs.grid import Grid, draw_values, grid_of, lake, strip_grid
from volition.envs.tabular import MDPEnv, from_gymnasium, read_npz
from volition.envs.vector import make_one
from volition.errors import VolitionError
from volition.run import Run

ENVS: list[tuple[str, dict[str, Any]]] = [
    ("FrozenLake-v1", {"map_name": "4x4"}),
    ("FrozenLake-v1", {"map_name": "8x8"}),
    ("FrozenLake-v1", {"map_name": "4x4", "is_slippery": False}),
    ("FrozenLake-v1", {"desc": ["SFHF", "FFFG"]}),
    ("CliffWalking-v1", {}),
    ("CliffWalking-v1", {"is_slippery": True}),
    ("Taxi-v4", {}),
]


@pytest.mark.parametrize(("env_id", "options"), ENVS)
def test_three_ways_to_v_star_agree(env_id: str, options: dict[str, Any]) -> None:
    mdp = from_gymnasium(make_one(env_id, options), 0.97)
    value = M.value_iteration(mdp, 1e-9)
    exact, policy = M.policy_iteration(mdp)
    assert (value - exact).abs().max() <= 1e-9 + 1e-11
    assert_close(M.policy_evaluation(mdp, M.greedy_policy(M.bellman_q(mdp, value))), exact, rtol=0, atol=1e-8)
    assert_close(M.policy_evaluation(mdp, policy.argmax(-1)), exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("env_id", "options"), ENVS)
def test_tables_against_a_loop(env_id: str, options: dict[str, Any]) -> None:
    env: Any = make_one(env_id, options)
    mdp = from_gymnasium(env, 0.9)
    value = torch.randn(mdp.states, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = M.bellman_q(mdp, value)
    for s, row in env.unwrapped.P.items():
        for a, outcomes in row.items():
            target = sum(p * (r + 0.9 * (not end) * value[t].item()) for p, t, r, end in outcomes)
            assert q[s, a].item() == pytest.approx(target, abs=1e-9)
    assert_close(mdp.start, torch.from_numpy(env.unwrapped.initial_state_distrib))


def test_known_values() -> None:
    # CliffWalking: up, 11 to the right, down: 13 steps of −1. Firm 4×4 lake: the goal is 6 steps away, γ^5.
    cliff = from_gymnasium("CliffWalking-v1", 1.0)
    assert M.start_value(cliff, M.value_iteration(cliff)).item() == -13
    ice = from_gymnasium(make_one("FrozenLake-v1", dict(is_slippery=False)), 0.9)
    assert M.start_value(ice, M.value_iteration(ice, 1e-10)).item() == pytest.approx(0.9**5)
    # The slippery 4×4 lake without discount: 14/17, the well-known 0.82.
    slippery = from_gymnasium("FrozenLake-v1", 1.0)
    assert M.start_value(slippery, M.policy_iteration(slippery)[0]).item() == pytest.approx(14 / 17)


def test_unfit_environments() -> None:
    with pytest.raises(VolitionError, match="CartPole-v1' has no transition table"):
        from_gymnasium("CartPole-v1", 0.9)
    with pytest.raises(VolitionError, match="no env 'NoSuch-v0'"):
        make_one("NoSuch-v0", {})
    with pytest.raises(VolitionError, match="refused"):
        make_one("FrozenLake-v1", dict(wings=2))
    with pytest.raises(VolitionError, match="refused"):
        make_one("FrozenLake-v1", dict(map_name="5x5"))

    class Odd(gymnasium.Env):
        P = {0: {0: [(1.0, 7, 0.0, False)]}}  # noqa: RUF012  # leads to a state that is not there

    with pytest.raises(VolitionError, match="its transition table is not"):
        from_gymnasium(Odd(), 0.9)


@pytest.mark.parametrize("text", ["5x5", "SFF/F", "SFX", "FFG", "", "/"])
def test_bad_maps(text: str) -> None:
    with pytest.raises(VolitionError, match="neither 4x4 nor 8x8"):
        lake(text)


def test_grids_number_the_states() -> None:
    lake_grid = grid_of(make_one("FrozenLake-v1", dict(desc=["SFH", "FFG"])))
    assert lake_grid is not None and lake_grid.letters.tolist() == [["S", "", "H"], ["", "", "G"]]
    assert lake_grid.panels[""].tolist() == [[0, 1, 2], [3, 4, 5]]
    taxi: Any = make_one("Taxi-v4", {})
    grid = grid_of(taxi)
    assert grid is not None and [grid.letters[r, c] for r, c in taxi.unwrapped.locs] == ["R", "G", "Y", "B"]
    # a wall on the right means that going east stays where it is; everywhere else it moves
    cells = next(iter(grid.panels.values()))
    for row in range(5):
        for column in range(4):
            stays = taxi.unwrapped.P[cells[row, column]][2][0][1] == cells[row, column]
            assert stays == ((row, column) in grid.walls)
    assert grid_of(make_one("CartPole-v1", {})) is None
    assert strip_grid(7, 2).panels[""].tolist() == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]


def test_mdp_as_environment() -> None:
    # From 0: stay .5, go to 1 .3, terminate .2 (reward 2); 1 leads back to 0.
    P = torch.tensor([[[0.5, 0.3]], [[1.0, 0.0]]])
    env = MDPEnv(M.MDP(P, torch.tensor([[2.0], [3.0]]), 0.9, torch.tensor([0.25, 0.75])))
    starts = [env.reset(seed=0)[0]] + [env.reset()[0] for _ in range(3999)]
    assert abs(np.mean(starts) - 0.75) < 0.035  # sd .0068
    counts = {(0, False): 0, (1, False): 0, (0, True): 0}
    for _ in range(4000):
        while env.reset()[0] != 0:
            pass
        obs, reward, terminated, truncated, _ = env.step(0)
        assert reward == 2 and not truncated
        counts[obs, terminated] += 1
    for (key, count), p in zip(counts.items(), (0.5, 0.3, 0.2), strict=True):
        assert abs(count / 4000 - p) < 0.04, key  # sd ≤ .008


# ---- your own file


def corridor() -> dict[str, np.ndarray]:
    """0 – 1 – 2 – 3, left and right; 3 is terminal; −1 a step."""
    P = np.zeros((4, 2, 4))
    for s in range(4):
        P[s, 0, max(s - 1, 0)] = P[s, 1, min(s + 1, 3)] = 1
    return {"P": P, "R": np.full((4, 2), -1.0), "terminal": np.array([0, 0, 0, 1])}


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_own_file(tmp_path: Path) -> None:
    mdp, grid = read_npz(write(tmp_path / "a.npz", **corridor()), 1.0)
    assert grid is None
    # 3, 2, 1 steps to the end; start is uniform over the three: −2
    assert_close(M.value_iteration(mdp), torch.tensor([-3.0, -2, -1, 0]).double())
    assert M.start_value(mdp, M.value_iteration(mdp)).item() == pytest.approx(-2)

    # R(s,a,s') is averaged with the whole P, that into the terminal state included: here −1 + 10 on arrival
    per_outcome = np.full((4, 2, 4), -1.0)
    per_outcome[:, :, 3] = 9
    per_outcome[0, 0, 2] = np.nan  # cannot happen
    more = {"R": per_outcome, "gamma": 0.5, "shape": [2, 2], "start": [1.0, 0, 0, 0]}
    mdp, grid = read_npz(write(tmp_path / "b.npz", **corridor() | more), 0.9)
    assert mdp.gamma == 0.5 and grid is not None and grid.panels[""].tolist() == [[0, 1], [2, 3]]
    # V(2) = 9, V(1) = −1 + 4.5 = 3.5, V(0) = −1 + 1.75
    assert_close(M.value_iteration(mdp, 1e-10), torch.tensor([0.75, 3.5, 9, 0]).double())
    # float32 thirds do not make an episode end
    thirds = np.full((3, 1, 3), 1 / 3, dtype=np.float32)
    mdp, _ = read_npz(write(tmp_path / "c.npz", P=thirds, R=np.zeros((3, 1))), 0.9)
    assert (mdp.termination == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P": None}, "P and R are needed; the file has R, terminal"),
        ({"P": np.zeros((2, 3))}, "P must be"),
        ({"R": np.zeros(4)}, "reward must be"),
        ({"P": np.full((4, 2, 4), 0.5)}, "sums to 2 > 1"),
        ({"P": np.full((4, 2, 4), 0.1)}, "sums to 0.4 over s' at .s, a. = .0, 0.; with `terminal`"),
        ({"R": np.full((4, 2), np.inf)}, "NaN or infinity"),
        ({"terminal": np.array([0, 1])}, "terminal must be"),
        ({"terminal": np.array([0, 0, 0, 2])}, "terminal must be"),
        ({"terminal": np.ones(4)}, "every state is terminal"),
        ({"gamma": np.array([0.9, 0.8])}, "gamma must be one number"),
        ({"gamma": 7}, "gamma must lie"),
        ({"shape": np.array([3, 2])}, "shape must be two whole numbers"),
        ({"shape": np.array([1.6, 2.5])}, "shape must be two whole numbers"),
        ({"start": np.array([1.0])}, "start must be"),
        ({"Q": np.zeros(2)}, "unknown array 'Q'"),
        ({"R": np.array([["a", "b"]] * 4)}, "R holds <U1"),
        ({"R": np.array([[None, 1]] * 4)}, "not a readable"),  # objects would need a pickle
        ({"R": np.zeros((4, 2), dtype=complex)}, "R holds complex128"),
    ],
)
def test_unfit_files(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {name: x for name, x in (corridor() | change).items() if x is not None}
    path = write(tmp_path / "own.npz", **arrays)
    with pytest.raises(VolitionError, match=message) as caught:
        read_npz(path, 0.9)
    assert "own.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("P = 1")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    np.savez(tmp_path / "none.npz")
    for name in ("array", "text", "empty", "folder", "none", "missing"):
        with pytest.raises(VolitionError, match=rf"{name}\.npz: "):
            read_npz(tmp_path / f"{name}.npz", 0.9)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("npz") / "whole.npz"
    arrays: dict[str, Any] = {**corridor()}
    np.savez_compressed(path, **arrays)
    write(path.with_name("plain.npz"), **arrays)
    return path


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_give_one_error(whole_file: Path, data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([whole_file, whole_file.with_name("plain.npz")])).read_bytes()
    if data.draw(st.booleans()):
        damaged = original[: data.draw(st.integers(0, len(original) - 1))]
    else:
        damaged = bytearray(original)
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = whole_file.with_name("damaged.npz")
    path.write_bytes(damaged)
    try:
        mdp, _ = read_npz(path, 0.9)
    except VolitionError as error:
        assert "damaged.npz" in str(error) and "\n" not in str(error)
    else:  # a flipped bit that means nothing, a time stamp say
        assert_close(mdp.reward[:3], torch.full((3, 2), -1.0).double())


# ---- the recipe


def test_recipe_solves_every_variant_that_is_quick() -> None:
    for name in ("tiny", "policy", "cliff"):
        config = recipe.VARIANTS[name]
        policy = recipe.train(config)
        mdp = recipe.problem(config, Run())[0]
        exact = M.policy_iteration(mdp)[0]
        assert (policy.value - exact).abs().max() <= config.tolerance
        output = policy(torch.tensor([0]), policy.initial_state(1))
        assert output.value is not None and output.value.equal(policy.value[:1])
        assert output.distribution.mode().tolist() == [M.greedy_policy(M.bellman_q(mdp, exact))[0].item()]


def run_in(folder: Path, config: recipe.Config) -> Run:
    return Run(folder, recipe="value_iteration", variant="tiny", config=config, device="cpu", quiet=True)


def test_recipe_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe.VARIANTS["tiny"]
    with run_in(tmp_path / "whole", config) as run:
        whole = recipe.train(config, run)
    updates = run.step
    assert 100 < updates < config.updates  # it stopped by itself
    monkeypatch.setenv("VOLITION_SAVE_UPDATES", "7")

    class Killed(Exception):
        pass

    calls = []

    def look(*args: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 40:
            raise Killed
        return M.bellman_q(*args)

    monkeypatch.setattr(recipe, "bellman_q", look)
    with pytest.raises(Killed), run_in(tmp_path / "killed", config) as run:
        recipe.train(config, run)
    with run_in(tmp_path / "killed", config) as run:
        resumed = recipe.train(config, run)
    assert run.step == updates
    assert len(calls) == 40 + updates - 35  # the last checkpoint was after update 35
    assert resumed.value.equal(whole.value) and resumed.pi.equal(whole.pi)
    with run_in(tmp_path / "killed", config) as run:  # once more: nothing is left to do
        again = recipe.train(config, run)
    assert len(calls) == 40 + updates - 35 and again.value.equal(whole.value)


def test_recipe_evaluates_and_draws(tmp_path: Path) -> None:
    config = recipe.VARIANTS["tiny"]
    with run_in(tmp_path / "run", config) as run:
        recipe.train(config, run)
    results = recipe.evaluate(config, Run.open(tmp_path / "run", recipe.Config))
    numbers = {name: x for name, x in results.items() if isinstance(x, float)}
    assert numbers.keys() == results.keys()
    assert numbers["error"] <= 2 * config.tolerance / (1 - config.gamma)
    # the game agrees with the table: V counts what the 100 steps of the game cut off, so it is a little above
    assert (
        -4 * numbers["discounted_se"] < numbers["value"] - numbers["discounted"] < 0.04 + 4 * numbers["discounted_se"]
    )
    # random play almost never lasts 100 steps: exact and played agree
    off = numbers["random_discounted"] - numbers["random_exact_value"]
    assert abs(off) < 4 * numbers["random_discounted_se"]
    assert numbers["return"] > 0.6 and numbers["random_return"] < 0.05
    assert numbers["return"] == numbers["success"]  # on the lake the goal is the only reward
    assert recipe.evaluate(config, Run.open(tmp_path / "run", recipe.Config)) == results  # seeded
    (picture,) = recipe.watch(config, Run.open(tmp_path / "run", recipe.Config))
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


def test_recipe_on_your_own_file(tmp_path: Path) -> None:
    path = write(tmp_path / "corridor.npz", **corridor(), shape=[1, 4])
    config = recipe.Config(env=str(path), gamma=1.0, episodes=50)
    with run_in(tmp_path / "run", config) as run:
        recipe.train(config, run)
        assert run.dataset == "corridor.npz"
    results = recipe.evaluate(config, Run.open(tmp_path / "run", recipe.Config))
    # 1, 2 or 3 steps, equally likely: −2 exactly, and success every time
    assert results["value"] == pytest.approx(-2) and results["success"] == 1
    assert isinstance(results["return"], float) and abs(results["return"] + 2) < 0.5
    assert recipe.watch(config, Run.open(tmp_path / "run", recipe.Config))[0].exists()


def test_recipe_refuses_what_cannot_be(tmp_path: Path) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"episodes": 1}, "episodes"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"gamma": 1.5}, "gamma must lie"),
        ({"map": "what"}, "neither 4x4"),
        ({"env": "CartPole-v1"}, "no transition table"),
    ]
    for change, message in changes:
        with pytest.raises(VolitionError, match=message):
            recipe.train(dataclasses.replace(recipe.VARIANTS["tiny"], **change))


def test_pictures_of_odd_shapes(tmp_path: Path) -> None:
    for states, actions in ((1, 1), (7, 3), (1000, 2)):
        value = torch.linspace(0, 1, states).double()
        draw_values(tmp_path / "a.png", value, torch.ones(states, actions), strip_grid(states, actions), "x")
        assert (tmp_path / "a.png").exists()
    all_solid = Grid({"": np.zeros((1, 1), dtype=int)}, np.array([["G"]]), ("←",), solid="G")
    draw_values(tmp_path / "b.png", torch.zeros(1), torch.ones(1, 1), all_solid, "x")
