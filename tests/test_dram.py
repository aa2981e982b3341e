"""DRAM: digits lie apart, each pair has one name, and what is answered rests only on what was looked at."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from volition.applications import dram
from volition.applications.dram import Baseline, Config, Look
from volition.data.canvas import Canvas
from volition.envs.glimpse import GlimpseVectorEnv, named
from volition.errors import VolitionError
from volition.nets.deep_attention import DeepAttention
from volition.run import Run

SMALL = Config(units=24, batch=16, bf16=False, size=12, scales=2, glimpses=3)


def test_digits_lie_whole_and_apart_at_every_place() -> None:
    # Two 2×2 digits of 1s and 2s on 4×4, nine places each. They lie apart where rows or columns differ by 2: of 81
    # ordered pairs of places the 49 overlap whose rows and columns differ by less (7 of 9 each), so 32 are left.
    images = torch.stack([torch.full((2, 2), 1), torch.full((2, 2), 2)]).to(torch.uint8)
    canvas, generator = Canvas(images, 4, digits=2), torch.Generator().manual_seed(0)
    drawn = canvas.draw(torch.tensor([[0, 1]]).expand(16_000, -1), generator).flatten(1)
    assert ((drawn == 1).sum(1) == 4).all() and ((drawn == 2).sum(1) == 4).all()
    first = (drawn == 1).byte().argmax(1) * 16 + (drawn == 2).byte().argmax(1)
    _, counts = first.unique(return_counts=True)
    assert len(counts) == 32
    assert ((counts - 500.0).square() / 500).sum() < 61.1  # chi-square with 31 degrees of freedom, p = 0.001


def test_a_canvas_too_small_for_two_is_refused() -> None:
    with pytest.raises(VolitionError, match="2 images of 28×28 may not fit a canvas of 50×50"):
        Canvas(torch.zeros(2, 28, 28, dtype=torch.uint8), 50, digits=2)


def test_names_of_pairs_and_sums() -> None:
    digit = torch.arange(10)
    pairs = torch.cartesian_prod(digit, digit)
    names = named("pairs-100", pairs)
    assert torch.equal(names, named("pairs-100", pairs.flip(1)))
    assert names.unique().tolist() == list(range(55))
    assert named("pairs-100", torch.tensor([[0, 0], [0, 1], [1, 1], [9, 9]])).tolist() == [0, 1, 2, 54]
    assert named("addition-100", torch.tensor([[7, 5], [0, 0], [9, 9]])).tolist() == [12, 0, 18]


@pytest.mark.parametrize(("task", "classes"), [("pairs-100", 55), ("addition-100", 19)])
def test_the_environment_asks_for_the_name_and_resumes(task: str, classes: int) -> None:
    env = GlimpseVectorEnv(40, task, 2, 12, 2, tensors=True)
    obs, _ = env.reset(seed=3)
    assert env.classes == classes and env.single_action_space["label"].n == classes
    assert env.pictures.shape == (40, 100, 100) and obs["glimpse"].shape == (40, 288)
    assert env.label.min() >= 0 and env.label.max() < classes
    place = torch.full((40, 2), 0.25)
    assert torch.equal(env.first(4 * place)["location"], torch.ones(40, 2))
    other = GlimpseVectorEnv(40, task, 2, 12, 2, tensors=True)
    other.reset(seed=9)
    other.load_state_dict(env.state_dict())
    for one in (env, other):
        one.step({"location": place, "label": env.label})
    assert torch.equal(env.obs["glimpse"], other.obs["glimpse"])
    _, reward, terminated, *_ = env.step({"location": place, "label": env.label})
    _, again, *_ = other.step({"location": place, "label": other.label})
    assert reward.all() and again.all() and terminated.all()
    assert torch.equal(env.pictures, other.pictures) and torch.equal(env.label, other.label)


def play(config: Config, seed: int = 0) -> tuple[DeepAttention, Baseline, Look, Tensor, GlimpseVectorEnv]:
    """An untrained agent, its baseline, one batch of its episodes, their labels and where they were played."""
    run = Run(None, config=config, seed=seed)
    env = dram.make_env(config, run, "train", config.batch)
    env.reset(seed=seed)
    policy = dram.make_policy(config, run, env)
    label = env.label
    critic = Baseline(2 * config.units, env.classes, config.baseline == "privileged")
    return policy, critic, dram.look(env, policy, run.generator), label, env


def touched(module: nn.Module, loss: Tensor) -> set[str]:
    """First names of the parameters that the gradient of `loss` reaches."""
    module.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("baseline", ["state", "privileged"])
@pytest.mark.parametrize("context", [True, False])
def test_each_loss_reaches_its_own_parameters_only(baseline, context) -> None:
    config = replace(SMALL, baseline=baseline, context=context)
    policy, critic, seen, label, _ = play(config)
    losses = dram.hybrid_loss(config, critic, seen, label, 1.0)
    sees, chooses = {"what", "where", "lower", "answer"}, {"upper", "locate"} | ({"context"} if context else set())
    assert touched(policy, losses["cross_entropy"]) == touched(policy, losses["early"]) == sees
    assert touched(policy, losses["location"]) == chooses
    assert touched(policy, losses["baseline"]) == set() and touched(critic, losses["baseline"]) == {"net"}
    assert touched(critic, losses["location"]) == set()


def test_the_context_chooses_places_and_never_answers() -> None:
    policy, _, seen, _, env = play(SMALL)
    bright, dark = (torch.full((5, 100, 100), v, dtype=torch.uint8) for v in (255, 0))
    obs = {"glimpse": torch.rand(5, 288), "location": torch.zeros(5, 2)}
    one, two = (dram.parts(policy(obs, policy.begin(pictures)).distribution) for pictures in (bright, dark))
    assert not torch.allclose(one[0].mean, two[0].mean) and torch.equal(one[1].logits, two[1].logits)
    # before the first glimpse nothing is known of the label, but already where to look
    assert torch.equal(seen.before.logits[0, 0], seen.before.logits[0, 1])
    assert not torch.equal(seen.where.mean[0, 0], seen.where.mean[0, 1])
    without = DeepAttention(288, env.classes, 24, 0.1, 0.4, False, (100, 100))
    assert not without.begin(bright).upper.h.any()


def test_every_place_was_drawn_from_what_stands_beside_it() -> None:
    config = replace(SMALL, std=0.5)
    policy, _, seen, _, env = play(config)
    assert seen.place.shape == (3, 16, 2) and seen.memory.shape == (3, 16, 48) and seen.reward.shape == (16,)
    units = policy.locate(seen.memory[..., 24:])  # f_l of r⁽²⁾ before each glimpse, in units of 0.4 half widths
    torch.testing.assert_close(seen.where.mean, 0.4 * units)
    assert torch.allclose(seen.where.std, torch.tensor(0.2))
    # and the environment looked there
    policy, _, _, _, env = play(replace(SMALL, glimpses=1))
    pictures = env.pictures
    seen = dram.look(env, policy, torch.Generator().manual_seed(0))
    glimpse = env.sensor.look(env.sensor.prepare(pictures), seen.place[0]).flatten(1)
    assert torch.equal(seen.glimpse[0], glimpse)


def test_paper_reward_is_what_the_environment_pays() -> None:
    config = replace(SMALL, reward="right", baseline="state")
    _, critic, seen, label, _ = play(config)
    assert set(seen.reward.tolist()) <= {0.0, 1.0}
    b = critic(seen.memory, label, seen.reward.expand(3, -1))
    expected = (seen.reward - b).square().sum(0).mean()
    torch.testing.assert_close(dram.hybrid_loss(config, critic, seen, label, 0.0)["baseline"], expected)
    log_prob = seen.where.log_prob(seen.place)
    by_hand = -(log_prob * (seen.reward - b).detach()).sum(0).mean()
    torch.testing.assert_close(dram.hybrid_loss(config, critic, seen, label, 0.0)["location"], by_hand)


def test_chance_is_the_most_common_answer() -> None:
    run = Run(None)
    for task, common in (("pairs-100", 2.0), ("addition-100", 10.0)):
        env = dram.make_env(replace(SMALL, task=task), run, "train", 1)
        env.labels = torch.arange(10)  # each digit once: a pair of two has 2 of 100, the sum 9 ten
        assert dram.chance(env) == pytest.approx(100 - common, abs=1e-3)


def test_one_batch_can_be_learned_by_heart() -> None:
    config = replace(SMALL, task="addition-100", units=64, std=0.02, lr=3e-3, location_lr=1e-5)
    policy, critic, _, _, env = play(config)
    pictures, label = env.pictures, env.label
    optimizer, generator = dram.make_optimizer(config, policy, critic), torch.Generator().manual_seed(0)
    losses = {}
    for _ in range(80):
        env.reset(options={"images": pictures, "labels": label})
        losses = dram.hybrid_loss(config, critic, dram.look(env, policy, generator), label, 0.0)
        optimizer.zero_grad()
        sum(losses.values(), start=torch.zeros(())).backward()
        optimizer.step()
    assert losses["cross_entropy"] < 1.5 < torch.tensor(19.0).log()


@pytest.mark.parametrize(("name", "value"), [("rolls", 0), ("lr", -1.0), ("unit", 0.0), ("validation", -1)])
def test_impossible_settings_are_named(name, value) -> None:
    with pytest.raises(VolitionError, match=name):
        replace(SMALL, **{name: value})
