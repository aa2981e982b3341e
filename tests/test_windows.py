"""Windows: geometry and rewards by hand, the order of the tree, the oracles' places, and Gymnasium's contract."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import volition.envs  # noqa: F401 - registers Windows-v0
from volition.applications import _tree_limits as limits
from volition.applications import _tree_rows as rows
from volition.core.policy import tree_map
from volition.core.windows import (
    ACTIONS,
    CAICEDO,
    SMALLEST,
    area,
    best_apart,
    best_iou,
    best_of_each,
    iou,
    moves,
    remember,
    rewards,
    transform,
    tree,
    trigger_rewards,
    whole,
)
from volition.data.boxes import Box, BoxedImages, pack
from volition.envs.windows import WindowsVectorEnv
from volition.errors import VolitionError

IMAGE = torch.tensor([400.0, 200.0])


def pictures(objects: list[list[Box]], size: tuple[int, int] = (400, 200)) -> BoxedImages:
    """Pictures of one colour each."""
    names = tuple(map(str, range(len(objects))))
    colour = [torch.full((3, size[1], size[0]), 10 * i + 5, dtype=torch.uint8) for i in range(len(objects))]
    return pack("test", ("cat", "dog"), names, [size] * len(objects), objects, colour.__getitem__)


CAT, DOG = Box(0, 0, 220, 110, 0), Box(300, 100, 400, 200, 1)


def test_iou_by_hand() -> None:
    # 10×10 against 10×10 moved by 5: 50 of 150; against itself, against one that only touches it, and against padding
    box = torch.tensor([[0.0, 0, 10, 10]])
    others = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 0, 0]])
    assert iou(box, others).tolist() == [[pytest.approx(1 / 3), 1, 0, 0]]
    assert not iou(others[-1:], others[-1:]).any()
    assert iou(box.expand(7, 2, 1, 4), others).shape == (7, 2, 1, 4)


def test_moves_by_hand() -> None:
    # A window of 200×100 at (100, 50): sub-windows of 110×55, steps of 50 and 25.
    window = torch.tensor([100.0, 50, 300, 150])
    found = dict(zip(ACTIONS, moves(window, IMAGE).int().tolist(), strict=True))
    assert found == {
        "top-left": [100, 50, 210, 105], "top-right": [190, 50, 300, 105],
        "bottom-left": [100, 95, 210, 150], "bottom-right": [190, 95, 300, 150],
        "centre": [145, 72, 255, 128],
        "right": [150, 50, 350, 150], "left": [50, 50, 250, 150],
        "down": [100, 75, 300, 175], "up": [100, 25, 300, 125],
        "shrink-vertical": [100, 75, 300, 125], "shrink-horizontal": [150, 50, 250, 150],
        "stretch-vertical": [100, 25, 300, 175], "stretch-horizontal": [50, 50, 350, 150],
    }  # fmt: skip


def test_what_lies_outside_is_cut_and_small_windows_stay_inside() -> None:
    found = dict(zip(ACTIONS, moves(whole(IMAGE), IMAGE).int().tolist(), strict=True))
    assert found["right"] == [100, 0, 400, 200] and found["up"] == [0, 0, 400, 150]
    assert found["stretch-vertical"] == found["stretch-horizontal"] == [0, 0, 400, 200]
    corner = torch.tensor([392.0, 192, 400, 200])  # 8×8: what would become smaller keeps 8, within the image
    found = dict(zip(ACTIONS, moves(corner, IMAGE).int().tolist(), strict=True))
    assert found["centre"] == found["right"] == found["bottom-right"] == [392, 192, 400, 200]
    assert found["left"] == [390, 192, 398, 200]
    thin = torch.tensor([5.0, 300.0])  # an image thinner than the smallest window
    assert moves(whole(thin), thin)[..., [0, 2]].tolist() == [[0, 5]] * 13


@given(seed=st.integers(0, 10_000), width=st.integers(1, 900), height=st.integers(1, 900))
@settings(max_examples=50, deadline=None)
def test_windows_stay_whole_inside_and_large_enough(seed, width, height) -> None:
    generator, size = torch.Generator().manual_seed(seed), torch.tensor([[width, height]])
    for change in (moves, transform):
        window = whole(size)
        for _ in range(30):
            after = change(window, size)[0]
            assert torch.equal(after, after.round())
            assert (after >= 0).all() and (after[:, 2:] <= size).all()
            assert (after[:, 2:] - after[:, :2] >= size.clamp(max=SMALLEST)).all()
            window = after[torch.randint(len(after), (1,), generator=generator)]


def test_caicedos_transformations_by_hand() -> None:
    window = torch.tensor([100.0, 50, 200, 150])  # 100×100: α = 0.2 is 20 pixels
    found = dict(zip(CAICEDO, transform(window, IMAGE).int().tolist(), strict=False))
    assert found == {
        "right": [120, 50, 220, 150], "left": [80, 50, 180, 150], "down": [100, 70, 200, 170],
        "up": [100, 30, 200, 130], "bigger": [80, 30, 220, 170], "smaller": [120, 70, 180, 130],
        "fatter": [80, 50, 220, 150], "taller": [100, 30, 200, 170],
    }  # fmt: skip


def test_rewards_by_hand() -> None:
    before = torch.tensor([0.4, 0.3, 0.0])  # the last one is padding
    after = torch.tensor(
        [[0.6, 0.3, 0.0], [0.5, 0.3, 0.0], [0.4, 0.3, 0.0], [0.1, 0.31, 0.0], [0.1, 0.2, 0.0], [0.1, 0.7, 0.0]]
    )
    hit = torch.tensor([False, True, False])
    # the first is found; 0.5 is not above 0.5, but a rise; nothing changed; the second rose; none rose; found before
    assert rewards(before, after, hit).tolist() == [5, 1, -1, 1, -1, 1]
    assert rewards(before, after, hit & False).tolist() == [5, 1, -1, 1, -1, 5]
    assert rewards(before, after, hit | True).tolist() == [1, 1, -1, 1, -1, 1]
    assert trigger_rewards(before, after).tolist() == [1, 1, -1, -1, -1, 1, -3]
    assert trigger_rewards(torch.tensor([0.0, 0.6, 0.0]), after)[-1] == 3


def test_remember() -> None:
    history = torch.zeros(2, 3, dtype=torch.int8)
    for action in (0, 12, 4, 7):
        history = remember(history, torch.tensor([action, 0]))
    assert history.tolist() == [[13, 5, 8], [1, 1, 1]] and history.dtype == torch.int8


def test_tree_is_a_heap_and_begins_with_the_smaller_tree() -> None:
    seen = []

    def choose(windows: Tensor, history: Tensor) -> Tensor:
        seen.append(history)
        scores = torch.rand(*windows.shape[:2], 13, generator=torch.Generator().manual_seed(windows.shape[1]))
        return best_of_each(scores)

    size = torch.tensor([[400, 200], [300, 500]])
    found = tree(choose, whole(size), size, 5)
    assert found.shape == (2, 31, 4) and torch.equal(found[:, 0], whole(size))
    assert torch.equal(tree(choose, whole(size), size, 3), found[:, :7])
    after = moves(found, size.unsqueeze(1))
    for child in range(1, 31):
        parent, group = (child - 1) // 2, slice(0, 5) if child % 2 else slice(5, 13)
        assert (after[:, parent, group] == found[:, child, None]).all(-1).any(1).all()
    assert [h.shape for h in seen[:4]] == [(2, w, 50) for w in (1, 2, 4, 8)]
    # the histories of the last level replay the tree
    window = found[:, 7:15]
    replayed = whole(size).unsqueeze(1).expand(-1, 8, -1)
    for step in (-3, -2, -1):
        action = seen[3][..., step].long() - 1
        replayed = moves(replayed, size.unsqueeze(1)).gather(2, action[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
    assert torch.equal(replayed, window)


def test_one_child_each_makes_a_path() -> None:
    size = torch.tensor([[400, 200]])
    found = tree(lambda w, h: torch.full((1, 1, 1), ACTIONS.index("top-left")), whole(size), size, 4)
    assert found.int().tolist() == [[[0, 0, 400, 200], [0, 0, 220, 110], [0, 0, 121, 60], [0, 0, 67, 33]]]


def test_best_iou_counts_the_first_windows() -> None:
    windows = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 20, 10]]])
    boxes = torch.tensor([[[0.0, 0, 20, 10], [0, 0, 0, 0]]])
    assert best_iou(windows, boxes, (1, 2, 3)).tolist() == [[[0.5, 0]], [[0.5, 0]], [[1, 0]]]


def test_recall_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 50, 50], [0, 0, 40, 50], [0, 0, 0, 0]]])  # 2500 is large, 2000 not, then padding
    difficult = torch.tensor([[True, False, False]])
    found = rows.recall(torch.tensor([[[0.65, 0.5, 0.0]]]), boxes, difficult, (7,))
    assert found == {
        "7 large": [100, 100, 0], "7 small": [0, 0, 0], "7 all": [50, 50, 0],
        "7 small, no difficult": [0, 0, 0], "7 all, no difficult": [0, 0, 0],
    }  # fmt: skip


def test_children_keep_apart_where_they_can() -> None:
    """The second window would repeat the first one's child and takes its next best; where all repeat, the best."""
    size = torch.tensor([[400, 400]])
    windows = whole(size).unsqueeze(1).expand(-1, 2, -1)
    after, scores = moves(windows, size.unsqueeze(1)), torch.zeros(1, 2, len(ACTIONS))
    scores[..., 3], scores[..., 2], scores[..., 9], scores[..., 10] = 2.0, 1.0, 5.0, 4.0
    found = windows[:, :1]
    assert best_apart(scores, after, found, 1.0).tolist() == [[[3, 9], [3, 9]]]
    apart = best_apart(scores, after, found, 0.7)
    assert apart[0, 0].tolist() == [3, 9] and apart[0, 1].tolist() == [2, 10]
    assert best_apart(scores, after, after[0, :1], 0.0).tolist() == [[[3, 9], [3, 9]]]
    chosen = after[0].gather(1, apart[0, ..., None].expand(-1, -1, 4)).flatten(0, 1)
    overlap = iou(chosen[None], chosen[None])[0] - torch.eye(4)
    assert overlap.max() <= 0.7


def scattered(count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sizes and up to three boxes in each image."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randint(200, 500, (count, 2), generator=generator)
    corners = torch.rand(count, 3, 2, 2, generator=generator).sort(2).values * size[:, None, None]
    boxes = corners.flatten(2).round()
    boxes[::2, 2] = 0
    return size, boxes


def test_who_knows_more_finds_more_and_none_beats_the_bound() -> None:
    size, boxes = scattered()
    generator, counts = torch.Generator().manual_seed(0), (7, 15)
    random = rows.search(lambda i: rows.at_random(generator), size, boxes, counts)
    known = {
        f: rows.search(lambda i, f=f: f(size[i], boxes[i], generator), size, boxes, counts, chunk=7)
        for f in (rows.greedy, rows.gain, rows.coverage)
    }
    limit = limits.bound(size, boxes, counts)
    real = area(boxes) > 0
    for best in (random, *known.values()):
        assert (best <= limit + 1e-6).all() and (best[0] <= best[1]).all()
        assert not best[:, ~real].any()

    def recalled(best: Tensor) -> float:
        return float((best[real] > 0.5).float().mean())

    found = [recalled(best[1]) for best in known.values()]
    assert recalled(random[1]) < min(found)
    assert found[0] <= found[2] <= recalled(limit[1])


def test_all_rows_come_with_as_many_windows_as_they_say() -> None:
    size, boxes = scattered(4)
    found = {
        name: (counts, best().shape)
        for name, (counts, best) in rows.floors(
            size, boxes, torch.Generator().manual_seed(0), (7, 15), (size, boxes)
        ).items()
    }
    assert len(found) == 11 and {"random", "fitted windows", "bound"} <= found.keys()
    assert all(value == ((7, 15), (2, 4, 3)) for value in found.values())


def test_bound_is_that_of_all_paths() -> None:
    size, boxes = scattered(3)
    level = whole(size).unsqueeze(1)
    every = [level]
    for _ in range(2):
        level = moves(level, size.unsqueeze(1)).flatten(1, 2)
        every.append(level)
    assert torch.equal(limits.bound(size, boxes, (7,))[0], iou(torch.cat(every, 1), boxes).amax(1))


def test_a_perfect_q_finds_a_lone_object_wherever_two_steps_can() -> None:
    """r + γ V: finding it in the second step is worth at least −1 + 0.9·5, all without it at most 1 + 0.9."""
    size, boxes = scattered(40, seed=1)
    boxes, generator = boxes[:, :1], torch.Generator().manual_seed(0)
    boxes[0] = 0
    best = limits.planned(size, boxes, (3, 7), 0.9, lambda q: q.amax(-1), generator)
    reach = limits.bound(size, boxes, (3, 7))
    assert torch.equal(best > 0.5, reach > 0.5) and (best <= reach + 1e-6).all()
    assert 10 < (reach[1] > 0.5).sum() < 40
    myopic = limits.planned(size, boxes, (7,), 0.0, lambda q: q.amax(-1), generator)
    assert (myopic > 0.5).sum() < (best[1] > 0.5).sum()


def test_coverage_takes_the_other_object_when_one_is_served() -> None:
    # Two objects in opposite corners: the scaling child goes to one, and the other child's way to the other one.
    size = torch.tensor([[400, 400]])
    boxes = torch.tensor([[[0.0, 0, 121, 121], [279, 279, 400, 400]]])
    best = rows.search(lambda i: rows.coverage(size, boxes, torch.Generator().manual_seed(0)), size, boxes, (31,))
    assert (best > 0.5).all()


@pytest.mark.parametrize("count", [1, 15, 31, 63, 255])
def test_grid_has_as_many_windows_as_asked_for_all_inside(count) -> None:
    found = limits.grid(count)
    assert found.shape == (count, 4) and len(found.unique(dim=0)) == count
    assert (found >= 0).all() and (found <= 1 + 1e-6).all() and (found[:, :2] < found[:, 2:]).all()
    assert found[0].tolist() == [0, 0, 1, 1]


def test_fitted_windows_serve_most_first() -> None:
    # Three objects fill the left half, one a small corner: a window for the first three comes first.
    size = torch.tensor([[100, 100], [200, 50]])
    boxes = torch.tensor([[[0.0, 0, 50, 100], [0, 0, 50, 100]], [[0, 0, 100, 50], [180, 45, 200, 50]]])
    found = limits.fitted(size, boxes, 2)
    first, both = rows.fixed(found, size, boxes, (1, 2)) > 0.7
    assert first.tolist() == [[True, True], [True, False]] and both.all()


def test_single_environment_passes_gymnasiums_checks() -> None:
    for agent in ("tree", "trigger"):
        env = gym.make("volition/Windows-v0", images=pictures([[CAT], [CAT, DOG]]), agent=agent, steps=5)
        check_env(env.unwrapped, skip_render_check=True)


def test_single_environment_shows_what_is_in_the_window() -> None:
    images = pictures([[CAT]])
    left = torch.zeros(3, 200, 400, dtype=torch.uint8)
    left[:, :110, :220] = 200
    images = pack("test", images.classes, images.ids, [(400, 200)], [[CAT]], lambda i: left)
    env = gym.make("volition/Windows-v0", images=images, steps=2, side=8, render_mode="rgb_array")
    obs, info = env.reset(seed=0)
    assert info == {"image": 0, "found": 0} and obs["whole"][0, 0, 0] == 200 and not obs["whole"][-1].any()
    obs, reward, terminated, truncated, info = env.step(ACTIONS.index("top-left"))
    assert (obs["patch"] == 200).all() and obs["window"].tolist() == pytest.approx([0, 0, 0.55, 0.55])
    assert reward == 5 and info["found"] == 1 and not terminated and not truncated
    assert obs["history"].reshape(50, 13)[-1].argmax() == 0 and obs["history"].sum() == 1
    frame = env.render()
    assert frame.shape == (200, 400, 3) and (frame[0, 5] == (255, 0, 0)).all()
    obs, reward, terminated, truncated, info = env.step(ACTIONS.index("left"))
    assert (
        reward == -1 and truncated and not terminated and obs["window"].tolist() == pytest.approx([0, 0, 0.4125, 0.55])
    )
    assert (env.render()[50, 164] == (255, 0, 0)).all()  # the last picture is still this episode's


def test_vector_environment_in_numpy_keeps_its_spaces() -> None:
    env = gym.make_vec("volition/Windows-v0", num_envs=3, images=pictures([[CAT], [DOG], [CAT, DOG]]), steps=3)
    obs, info = env.reset(seed=1)
    assert sorted(obs["image"].tolist()) == [0, 1, 2]  # each image once
    env.action_space.seed(0)
    for step in range(9):
        assert env.observation_space.contains(obs)
        before = obs
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert set(reward.tolist()) <= {-1.0, 1.0, 5.0} and not terminated.any()
        assert truncated.tolist() == [step % 3 == 2] * 3
        if truncated.any():  # SAME_STEP: obs is the next episode's, final_obs what ended this one
            assert env.observation_space.contains(info["final_obs"])
            assert (info["final_obs"]["image"] == before["image"]).all() and not obs["history"].any()
            assert sorted(obs["image"].tolist()) == [0, 1, 2]


def test_five_only_the_first_time_and_the_whole_image_may_have_found_it() -> None:
    whole_box = Box(0, 0, 390, 200, 0)
    env = WindowsVectorEnv(2, pictures([[CAT], [whole_box]]), tensors=True)
    _, info = env.reset(seed=0, options={"images": [0, 1]})
    assert info["found"].tolist() == [0, 1]
    pays = []
    for name in ("top-left", "right", "left"):  # the window leaves the first object and comes back
        pays.append(env.payoffs[0, ACTIONS.index(name)].item())
        _, reward, *_ = env.step(torch.full((2,), ACTIONS.index(name)))
        assert reward[0] == pays[-1] and reward[1] < 5
    assert pays == [5, -1, 1]


def test_trigger_ends_the_episode_and_is_paid_by_the_iou() -> None:
    env = WindowsVectorEnv(2, pictures([[CAT, DOG], [Box(0, 0, 400, 150, 0)], [DOG]]), agent="trigger", label="cat")
    assert env.single_action_space.n == 9
    obs, _ = env.reset(seed=0, options={"images": [0, 1]})  # the dog in image 0 does not count, 75 % is enough for 1
    trigger = CAICEDO.index("trigger")
    obs, reward, terminated, truncated, info = env.step(np.array([trigger, CAICEDO.index("up")]))
    assert reward.tolist() == [-3, 1] and terminated.tolist() == [True, False] and not truncated.any()
    assert info["final_obs"]["history"][0, -1] == 9 and not obs["history"][0].any() and obs["history"][1, -1] == 4
    assert set(obs["image"].tolist()) <= {0, 1}  # never the one without a cat
    assert obs["window"][1].tolist() == [0, 0, 400, 160]
    _, reward, terminated, _, info = env.step(np.array([0, trigger]))
    assert reward[1] == 3 and terminated[1]
    assert (info["final_obs"]["window"][1] == [0, 0, 400, 160]).all()  # the trigger leaves the window


@pytest.mark.parametrize("agent", ["tree", "trigger"])
def test_same_seed_same_episodes_and_state_dict_resumes_mid_episode(agent) -> None:
    objects = [[CAT, DOG] if i % 2 else [DOG] for i in range(7)]

    def make() -> WindowsVectorEnv:
        return WindowsVectorEnv(4, pictures(objects), agent=agent, steps=5, tensors=True)

    def play(env: WindowsVectorEnv, steps: int, generator: torch.Generator) -> list[Tensor]:
        seen = []
        for _ in range(steps):
            obs, reward, *_ = env.step(torch.randint(env.single_action_space.n, (4,), generator=generator))
            seen += [*obs.values(), reward, env.payoffs]
        return seen

    one, two, three = make(), make(), make()
    one.reset(seed=7), two.reset(seed=7), three.reset(seed=99)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for a, b in zip(play(one, 8, generators[0]), play(two, 8, generators[1]), strict=True):
        assert torch.equal(a, b)
    saved = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, one.state_dict())
    after = play(one, 23, generators[0])
    three.load_state_dict(saved)
    assert all(torch.equal(three.obs[name], two.obs[name]) for name in two.obs)
    for a, b in zip(after, play(three, 23, generators[1]), strict=True):
        assert torch.equal(a, b)


def test_stable_baselines3_trains_on_it_unmodified() -> None:
    dqn = pytest.importorskip("stable_baselines3").DQN
    env = gym.make("volition/Windows-v0", images=pictures([[CAT], [DOG]]), steps=5, side=36)
    model = dqn("MultiInputPolicy", env, learning_starts=8, buffer_size=64, batch_size=8, device="cpu", seed=0)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(24)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


def test_wrong_settings_are_refused() -> None:
    images = pictures([[CAT], []])
    with pytest.raises(VolitionError, match="agent 'trea'"):
        WindowsVectorEnv(images=images, agent="trea")
    with pytest.raises(VolitionError, match=r"label 'cow' .* cat, dog"):
        WindowsVectorEnv(images=images, label="cow")
    with pytest.raises(VolitionError, match="no image of test has an object dog"):
        WindowsVectorEnv(images=images, label="dog")
    with pytest.raises(VolitionError, match=r"reset wants one image .* \[2\]"):
        WindowsVectorEnv(images=images).reset(options={"images": [2]})
