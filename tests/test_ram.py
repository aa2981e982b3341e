"""RAM learns what the paper says it learns, from where the paper says it may."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from volition.applications import ram
from volition.applications.ram import Baseline, Config
from volition.core.policy import tree_stack
from volition.core.rollout import rollout, unroll
from volition.core.trajectory import Trajectory
from volition.data.images import LabelledImages
from volition.envs.glimpse import GlimpseVectorEnv
from volition.errors import VolitionError
from volition.nets.attention import Memory, RecurrentAttention
from volition.run import Run

SMALL = Config(task="centred", glimpses=4, size=8, scales=2, batch=16, bf16=False, location_units=0, std=0.5)


def play(config: Config, seed: int = 0) -> tuple[RecurrentAttention, Baseline, Trajectory, Tensor]:
    """An untrained agent, its baseline, one batch of its episodes and their labels."""
    torch.manual_seed(seed)
    env = GlimpseVectorEnv(config.batch, config.task, config.glimpses, config.size, config.scales, tensors=True)
    env.reset(seed=seed)
    label = env.label
    policy = RecurrentAttention(config.scales * config.size**2, 10, config.location_units, config.std)
    start, generator = policy.initial_state(config.batch), torch.Generator().manual_seed(seed)
    episode, _, _ = rollout(env, policy, env.obs, start, config.glimpses, generator=generator)
    return policy, Baseline(10, config.baseline == "privileged"), episode, label


def touched(module: torch.nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters that the gradient of `loss` reaches."""
    module.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("baseline", ["state", "privileged"])
def test_each_loss_reaches_its_own_parameters_only(baseline) -> None:
    config = replace(SMALL, baseline=baseline)
    policy, critic, episode, label = play(config)
    losses = ram.hybrid_loss(config, policy, critic, episode, label, 2.0)
    locate = {name for name, _ in policy.named_parameters() if name.startswith("locate")}
    everything = {name for name, _ in policy.named_parameters()}
    assert touched(policy, losses["cross_entropy"]) == everything - locate
    assert touched(policy, losses["early"]) == everything - locate
    assert touched(policy, losses["location"]) == locate
    assert touched(policy, losses["baseline"]) == set()
    assert touched(critic, losses["baseline"]) == {name for name, _ in critic.named_parameters()}
    assert touched(critic, losses["location"]) == set()


def test_last_location_teaches_nothing_and_log_prob_is_of_the_unclipped_sample() -> None:
    config = replace(SMALL, std=2.0)
    policy, critic, episode, label = play(config)
    chosen = episode.action["location"]
    assert chosen.abs().max() > 1 and episode.obs["location"].abs().max() <= 1
    torch.testing.assert_close(episode.obs["location"][1:], chosen[:-1].clamp(-1, 1))
    before = ram.hybrid_loss(config, policy, critic, episode, label, 2.0)["location"]
    last = chosen.clone()
    last[-1] += 3
    changed = replace_action(episode, last)
    torch.testing.assert_close(ram.hybrid_loss(config, policy, critic, changed, label, 2.0)["location"], before)
    # by hand: log N(l; μ, 2²) in two dimensions of the sample as drawn
    mean = policy.sequence(episode.obs, policy.initial_state(16), episode.done).distribution.parts["location"].mean
    by_hand = -((chosen - mean) ** 2).sum(-1) / (2 * 4) - math.log(2 * math.pi * 4)
    label_part = episode.distribution.parts["label"].log_prob(episode.action["label"])
    torch.testing.assert_close(episode.log_prob - label_part, by_hand, rtol=1e-4, atol=1e-4)


def replace_action(episode: Trajectory, location: Tensor) -> Trajectory:
    return replace(episode, action=episode.action | {"location": location})


def test_a_sequence_at_once_equals_glimpse_by_glimpse() -> None:
    policy, _, episode, _ = play(SMALL)
    output = policy.sequence(episode.obs, policy.initial_state(16), episode.done)
    state = policy.initial_state(16)
    for t in range(SMALL.glimpses):
        step = policy({key: value[t] for key, value in episode.obs.items()}, state)
        state = step.state
        torch.testing.assert_close(output.state.h[t], state.h)
        for key, field in (("location", "mean"), ("label", "logits")):
            one, all_ = step.distribution.parts[key], output.distribution.parts[key]
            torch.testing.assert_close(getattr(all_, field)[t], getattr(one, field))


def test_the_backward_pass_by_hand_equals_autograds() -> None:
    policy, _, episode, _ = play(SMALL)
    weigh = torch.randn(SMALL.glimpses, 16, 256, generator=torch.Generator().manual_seed(5))
    found = []
    for by_hand in (True, False):
        policy.zero_grad(set_to_none=True)
        if by_hand:
            h = policy.replayed(episode.obs, tree_stack([output.state for output in episode.outputs]))
        else:
            h = policy.sequence(episode.obs, policy.initial_state(16), episode.done).state.h
        (weigh * h).sum().backward()
        found.append([h.detach()] + [p.grad for p in policy.parameters() if p.grad is not None])
    assert len(found[0]) == 1 + 9  # h; weights and biases of four layers and the core's weight
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_unroll_reads_what_was_played() -> None:
    policy, _, episode, _ = play(SMALL)
    torch.testing.assert_close(unroll(policy, episode).log_prob, episode.log_prob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("baseline", ["state", "privileged"])
def test_location_gradient_is_that_of_the_expected_reward(baseline) -> None:
    """The mean of the estimator equals ∂J/∂μ, J = Σ_cells P(cell; μ)·R(cell), enumerated exactly.

    Two glimpses, the first given, and a sensor that rounds to pixels: the second glimpse takes 9×9 values, each with a
    probability that is a product of differences of the normal distribution function, the outer ones with the tails.
    """
    torch.manual_seed(1)
    size, sigma, count = 8, 0.4, 40_000
    config = Config(task="centred", glimpses=2, size=4, scales=1, bf16=False, location_units=0, std=sigma,
                    baseline=baseline, auxiliary=0.0)  # fmt: skip
    policy, critic = RecurrentAttention(16, 10, std=sigma), Baseline(10, baseline == "privileged")
    torch.nn.init.zeros_(policy.where.weight)  # so that within a cell the reward is constant
    torch.nn.init.constant_(policy.locate[0].bias, 0.3)
    image = torch.randint(256, (1, size, size), dtype=torch.uint8)
    only = LabelledImages("one", image, torch.tensor([3]), image, torch.tensor([3]), 10)
    env = GlimpseVectorEnv(count, "centred", 2, 4, 1, images=only, tensors=True)
    env.reset(seed=0)
    label = env.label
    env._look(torch.zeros(count, 2))  # the first glimpse of every episode: the centre
    env.taken = 1  # _look counts
    generator = torch.Generator().manual_seed(0)
    episode, _, _ = rollout(env, policy, env.obs, policy.initial_state(count), 2, generator=generator)
    policy.zero_grad()
    ram.hybrid_loss(config, policy, critic, episode, label, 2.0)["location"].backward()
    estimate = -policy.locate[0].bias.grad  # the loss descends, the reward ascends

    # the exact gradient with respect to μ = bias + W h₁, which for the bias is ∂J/∂μ itself
    first = {key: value[0, :1] for key, value in episode.obs.items()}
    h1 = policy(first, policy.initial_state(1)).state.h.detach()
    mean = policy.locate(h1)[0].detach().double().requires_grad_()
    edges = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1  # where rounding changes cell
    cdf = 0.5 * (1 + torch.erf((edges[:, None] - mean) / (sigma * math.sqrt(2))))
    full = torch.cat([torch.zeros(1, 2), cdf, torch.ones(1, 2)])
    p = full.diff(dim=0)  # [9, 2]: probability of each centre in x and in y
    cells = torch.cartesian_prod(torch.arange(9), torch.arange(9))  # (x, y)
    location = cells / size * 2 - 1
    sums = env.sensor.prepare(image.expand(81, -1, -1))
    glimpse = env.sensor.look(sums, location.float()).flatten(1)
    with torch.no_grad():
        second = policy({"glimpse": glimpse, "location": location.float()}, Memory(h1.expand(81, -1), h1, h1))
        reward = second.distribution.parts["label"].probs[:, 3].double()
    objective = (p[cells[:, 0], 0] * p[cells[:, 1], 1] * reward).sum()
    (exact,) = torch.autograd.grad(objective, mean)
    assert exact.abs().min() > 1e-4  # there is something to find

    # the standard error of the estimator's mean, from its samples (R − b)(l − μ)/σ²
    chosen = episode.action["location"][0].double()
    rewards = policy.sequence(episode.obs, policy.initial_state(count), episode.done)
    r = rewards.distribution.parts["label"].probs[-1, :, 3].detach().double()
    error = (r[:, None] * (chosen - mean.detach()) / sigma**2).std(0) / math.sqrt(count)
    assert ((estimate - exact).abs() < 4 * error).all()


def test_paper_reward_is_what_the_environment_pays() -> None:
    config = replace(SMALL, reward="right", baseline="state")
    policy, critic, episode, label = play(config)
    assert set(episode.reward[-1].tolist()) <= {0.0, 1.0} and not episode.reward[:-1].any()
    torch.testing.assert_close(episode.reward[-1], (episode.action["label"][-1] == label).float())
    b = critic(policy.sequence(episode.obs, policy.initial_state(16), episode.done).state.h[:-1], label, None)
    expected = (episode.reward[-1] - b).square().sum(0).mean()
    torch.testing.assert_close(ram.hybrid_loss(config, policy, critic, episode, label, 2.0)["baseline"], expected)


def test_learns_to_see_and_evaluation_repeats(tmp_path) -> None:
    config = replace(ram.VARIANTS["tiny"], updates=150, batch=64)
    with Run(tmp_path / "run", recipe="ram", config=config, seed=0, log_every=10, quiet=True) as run:
        ram.train(config, run)
    history = run.history
    assert history[-1]["cross_entropy"] < 0.75 * history[0]["cross_entropy"]
    first, again = (ram.evaluate(config, Run.open(tmp_path / "run", Config)) for _ in range(2))
    assert first == again
    assert first["error"] < first["error_random_glimpses"] < first["error_chance"]
    assert len(first["error_by_glimpse"]) == config.glimpses and first["error_by_glimpse"][-1] == first["error"]


@pytest.mark.parametrize("model", ["fc", "conv", "random"])
def test_baselines_of_the_table_train(model, tmp_path) -> None:
    config = replace(ram.VARIANTS["tiny"], model=model, updates=40, batch=64)
    with Run(tmp_path / "run", recipe="ram", config=config, log_every=10, quiet=True) as run:
        ram.train(config, run)
    assert run.history[-1]["cross_entropy"] < run.history[0]["cross_entropy"]
    results = ram.evaluate(config, Run.open(tmp_path / "run", Config))
    assert 0 <= results["error"] < results["error_chance"]


@pytest.mark.parametrize(("name", "value"), [("rolls", 0), ("lr", -1.0), ("units", 0), ("validation", -1)])
def test_impossible_settings_are_named(name, value) -> None:
    with pytest.raises(VolitionError, match=name):
        replace(SMALL, **{name: value})
