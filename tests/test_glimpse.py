"""The sensor equals crop-and-average; canvases are what the paper says; the environment keeps Gymnasium's contract."""

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import volition.envs  # noqa: F401 - registers Glimpse-v0
from volition.core import glimpse
from volition.core.glimpse import GlimpseSensor
from volition.core.policy import tree_map
from volition.data.canvas import Canvas
from volition.envs.glimpse import GlimpseVectorEnv
from volition.errors import VolitionError


def crop_and_average(images: Tensor, location: Tensor, size: int, scales: int) -> Tensor:
    """The plain way, one image and one scale at a time: pad with zeros, crop, average-pool."""
    batch, height, width = images.shape
    out = torch.zeros(batch, scales, size, size)
    for b in range(batch):
        x, y = torch.round((location[b] + 1) / 2 * torch.tensor([width, height])).long().tolist()
        for s in range(scales):
            side = size << s
            padded = F.pad(images[b][None, None], (side,) * 4)
            top, left = y - side // 2 + side, x - side // 2 + side
            out[b, s] = F.avg_pool2d(padded[:, :, top : top + side, left : left + side], 2**s)[0, 0]
    return out


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 7), scales=st.integers(1, 5),
    seed=st.integers(0, 1000), bytes_=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_sensor_equals_crop_and_average(height, width, size, scales, seed, bytes_) -> None:
    size = 2 * size if scales > 1 else size
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (4, height, width), generator=generator, dtype=torch.uint8)
    location = torch.rand(4, 2, generator=generator) * 2 - 1
    location[0], location[1] = -1, 1  # the corners, where three quarters of a patch lie outside
    sensor = GlimpseSensor(height, width, size, scales)
    given_images = images if bytes_ else images.double() / 255
    found = sensor.look(sensor.prepare(given_images), location)
    expected = crop_and_average(images.double() / 255, location, size, scales).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_sensor_by_hand() -> None:
    # A 4×4 image with 255 at row 1, column 2; a 2×2 glimpse at the centre (0, 0) covers pixels 1 and 2 both ways:
    # fine [[0, 1], [0, 0]]. The coarse patch covers all 4×4 as four 2×2 means: the top right one holds the pixel, 1/4.
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    image[0, 1, 2] = 255
    sensor = GlimpseSensor(4, 4, 2, 2)
    seen = sensor.look(sensor.prepare(image), torch.zeros(1, 2))
    assert seen.tolist() == [[[[0, 1], [0, 0]], [[0, 0.25], [0, 0]]]]
    # x is horizontal: one pixel to the right is 2/4 = 0.5 in x, and the lit pixel moves one to the left.
    seen = sensor.look(sensor.prepare(image), torch.tensor([[0.5, 0.0]]))
    assert seen[0, 0].tolist() == [[1, 0], [0, 0]]


def test_prepared_memory_can_be_used_again() -> None:
    sensor, generator = GlimpseSensor(20, 30, 4, 3), torch.Generator().manual_seed(0)
    first, second = (torch.randint(256, (3, 20, 30), generator=generator, dtype=torch.uint8) for _ in range(2))
    fresh = sensor.prepare(second)
    reused = sensor.prepare(second, out=sensor.prepare(first))
    assert torch.equal(fresh, reused)


def test_a_few_images_at_a_time_have_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor, images = GlimpseSensor(20, 30, 4, 4), torch.full((5, 20, 30), 255, dtype=torch.uint8)
    whole = sensor.prepare(images)
    monkeypatch.setattr(glimpse, "IN_CACHE", 1)
    assert torch.equal(sensor.prepare(images), whole) and int(whole.max()) == 64 * 255


def test_digit_lies_whole_at_every_place_and_clutter_comes_over_it() -> None:
    # A 3×3 digit of ones on 5×5: nine places, all equally likely; chi-square over 9,000 draws has 8 degrees of freedom
    # and exceeds 26.1 with probability 0.001.
    canvas, generator = Canvas(torch.ones(2, 3, 3, dtype=torch.uint8), 5), torch.Generator().manual_seed(0)
    drawn = canvas.draw(torch.zeros(9_000, dtype=torch.int64), generator)
    assert (drawn.sum((1, 2)) == 9).all()
    first = drawn.flatten(1).float().argmax(1)  # the top-left pixel of the digit
    counts = torch.stack([(first == 5 * r + c).sum() for r in range(3) for c in range(3)]).float()
    assert counts.sum() == 9_000
    assert ((counts - 1_000).square() / 1_000).sum() < 26.1


def test_clutter_is_made_of_other_images_and_never_darkens() -> None:
    # Image 0 is all 10s, image 1 all 200s: on the canvas of image 0 clutter can only come from image 1, and wherever it
    # lies the brighter pixel stays.
    images = torch.stack([torch.full((8, 8), 10), torch.full((8, 8), 200)]).to(torch.uint8)
    generator = torch.Generator().manual_seed(0)
    drawn = Canvas(images, 20, clutter=2, patch=4).draw(torch.zeros(500, dtype=torch.int64), generator)
    assert set(drawn.unique().tolist()) == {0, 10, 200}
    bright = (drawn == 200).sum((1, 2))
    assert bright.max() == 32 and bright.min() >= 16  # two patches of 16, overlapping at most wholly
    drawn = Canvas(images, 20, clutter=2, patch=4).draw(torch.ones(500, dtype=torch.int64), generator)
    assert ((drawn == 200).sum((1, 2)) == 64).all()  # dim clutter never hides the bright digit


def test_single_environment_passes_gymnasiums_checks() -> None:
    env = gym.make("volition/Glimpse-v0", task="translated-60", glimpses=3)
    check_env(env.unwrapped, skip_render_check=True)
    assert isinstance(env.observation_space, gym.spaces.Box) and isinstance(env.action_space, gym.spaces.Box)


def test_render_frames_the_glimpse() -> None:
    env = gym.make("volition/Glimpse-v0", task="centred", size=8, scales=1, render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (28, 28, 3) and frame.dtype == np.uint8 and (frame == (255, 0, 0)).all(-1).any()


def test_vector_environment_in_numpy_keeps_its_spaces() -> None:
    env = gym.make_vec("volition/Glimpse-v0", num_envs=5, glimpses=2)
    obs, info = env.reset(seed=3)
    env.action_space.seed(0)
    for step in range(6):
        assert env.observation_space.contains(obs)
        label = info["label"]
        action = env.action_space.sample()
        action["label"] = label  # always right
        obs, reward, terminated, truncated, info = env.step(action)
        last = step % 2 == 1
        assert reward.tolist() == [1.0 * last] * 5
        assert terminated.tolist() == [last] * 5 and not truncated.any()
        if last:  # SAME_STEP: obs is the next episode's, final_obs what ended this one
            assert env.observation_space.contains(info["final_obs"])
            assert (info["final_info"]["label"] == label).all()


def test_same_seed_same_episodes_and_state_dict_resumes_mid_episode() -> None:
    def play(env: GlimpseVectorEnv, steps: int, generator: torch.Generator) -> list[Tensor]:
        seen = []
        for _ in range(steps):
            location = torch.rand(4, 2, generator=generator) * 2 - 1
            obs, *_ = env.step({"location": location, "label": torch.zeros(4, dtype=torch.int64)})
            seen += [obs["glimpse"].clone(), obs["location"], env.label]
        return seen

    def make() -> GlimpseVectorEnv:
        return GlimpseVectorEnv(4, glimpses=3, tensors=True)

    one, two = make(), make()
    one.reset(seed=7), two.reset(seed=7)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    first = play(one, 5, generators[0])
    for a, b in zip(first, play(two, 5, generators[1]), strict=True):
        assert torch.equal(a, b)
    saved = tree_map(lambda x: x.clone(), {k: v for k, v in one.state_dict().items() if isinstance(v, Tensor)})
    saved = one.state_dict() | saved
    after = play(one, 7, generators[0])
    three = make()
    three.reset(seed=99)
    three.load_state_dict(saved)
    assert torch.equal(three.obs["glimpse"], first[-3])
    for a, b in zip(after, play(three, 7, generators[1]), strict=True):
        assert torch.equal(a, b)


def test_given_canvases_are_looked_at() -> None:
    env = GlimpseVectorEnv(2, task="centred", size=28, scales=1, glimpses=2, tensors=True)
    images = torch.randint(256, (2, 28, 28), dtype=torch.uint8)
    env.reset(seed=0, options={"images": images, "labels": torch.tensor([3, 4])})
    centre = {"location": torch.zeros(2, 2), "label": torch.zeros(2, dtype=torch.int64)}
    obs, *_ = env.step(centre)
    torch.testing.assert_close(obs["glimpse"].view(2, 28, 28), images / 255)
    _, reward, *_ = env.step(centre | {"label": torch.tensor([3, 0])})
    assert reward.tolist() == [1.0, 0.0]


def test_stable_baselines3_trains_on_it_unmodified() -> None:
    ppo = pytest.importorskip("stable_baselines3").PPO
    env = gym.make("volition/Glimpse-v0", task="centred", size=8, scales=1, glimpses=3)
    model = ppo("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, device="cpu", seed=0)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(128)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(VolitionError, match="task 'clutered'"):
        GlimpseVectorEnv(task="clutered")


def test_the_last_render_shows_the_image_that_was_judged() -> None:
    env = gym.make("volition/Glimpse-v0", task="centred", size=8, scales=1, glimpses=1, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(env.action_space.sample())  # ends the episode; the next image waits for reset
    assert np.array_equal(before, env.render())
    env.reset()
    assert not np.array_equal(before, env.render())
