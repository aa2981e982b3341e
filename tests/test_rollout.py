"""rollout and unroll on environments and policies whose every number is known."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.testing import assert_close

from volition.core.distributions import Categorical, DiagonalGaussian
from volition.core.policy import PolicyOutput, Tree
from volition.core.returns import discounted_return
from volition.core.rollout import EpisodeStatistics, rollout, unroll
from volition.nets.actor import Actor, RecurrentActor


class Count:
    """obs = steps since the episode began `[B, 1]`; reward 1, 2, 3, …; row b ends after length[b] steps.

    `late` is Gymnasium's NEXT_STEP as TensorEnv tells it: a step after each end takes no action and only resets.
    """

    def __init__(self, length: list[int], truncates: list[bool], late: bool = False) -> None:
        self.length, self.truncates, self.late = torch.tensor(length), torch.tensor(truncates), late
        self.t, self.ended = torch.zeros(len(length), dtype=torch.long), torch.zeros(len(length), dtype=torch.bool)
        self.actions: list[Tensor] = []

    @property
    def obs(self) -> Tensor:
        return self.t[:, None].float()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        self.actions.append(action)
        ignored = self.ended.clone()
        self.t = torch.where(ignored, 0, self.t + 1)
        reward = self.t.float()
        done = (self.t == self.length) & ~ignored
        final = self.obs
        info = {"final_obs": final}
        if self.late:
            self.ended, info["ignored"] = done, ignored
        else:
            self.t = torch.where(done, 0, self.t)
        return self.obs, reward, (done & ~self.truncates) | ignored, done & self.truncates, info


class Plain(nn.Module):
    """Fair coin; V(s) = 100 + obs."""

    def forward(self, obs: Tensor, state: None) -> PolicyOutput:
        return PolicyOutput(Categorical(torch.zeros(*obs.shape[:-1], 2)), None, 100 + obs[..., 0])

    def initial_state(self, batch: int) -> None:
        return None


class Memory(nn.Module):
    """h counts its calls since the last reset; V = h."""

    def forward(self, obs: Tensor, state: dict[str, Tensor]) -> PolicyOutput:
        h = state["h"] + 1
        return PolicyOutput(Categorical(torch.zeros(len(obs), 2)), {"h": h}, h.clone())

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"h": torch.zeros(batch)}


def play(env: Any, policy: Any, steps: int, **options: Any) -> tuple[Any, Tree, Tree]:
    generator = torch.Generator().manual_seed(0)
    return rollout(env, policy, env.obs, policy.initial_state(2), steps, generator=generator, **options)


def test_every_column_by_hand() -> None:
    env = Count([2, 3], [False, True])  # row 0 terminates after 2 steps, row 1 is cut off after 3
    tau, obs, state = play(env, Plain(), 6, gamma=0.9)
    yes, no = True, False
    assert_close(tau.obs[..., 0].T, torch.tensor([[0.0, 1, 0, 1, 0, 1], [0, 1, 2, 0, 1, 2]]))
    assert_close(tau.reward.T, torch.tensor([[1.0, 2, 1, 2, 1, 2], [1, 2, 3, 1, 2, 3]]))
    assert_close(tau.done.T, torch.tensor([[no, yes, no, yes, no, yes], [no, no, yes, no, no, yes]]))
    assert_close(tau.discount.T, torch.tensor([[0.9, 0, 0.9, 0, 0.9, 0], [0.9] * 6]))
    assert_close(tau.value.T, torch.tensor([[100.0, 101, 100, 101, 100, 101], [100, 101, 102, 100, 101, 102]]))
    # truncated at obs 3: V = 103, the value of the obs that ended it, not the 100 of the next episode
    assert_close(tau.next_value[:, 1], torch.tensor([101.0, 102, 103, 101, 102, 103]))
    assert_close(tau.next_value[::2, 0], torch.tensor([101.0, 101, 101]))
    assert tau.mask.all() and tau.steps == 12 and state is None and len(tau.outputs) == 6
    assert_close(tau.log_prob, torch.full((6, 2), 0.5).log())
    assert_close(torch.stack(env.actions), tau.action)
    assert_close(obs, torch.zeros(2, 1))
    assert not tau.log_prob.requires_grad


def test_the_last_row_bootstraps_from_the_obs_to_go_on_from() -> None:
    env = Count([9, 9], [False, True])
    tau, obs, _ = play(env, Plain(), 4)
    assert_close(tau.next_value[-1], torch.tensor([104.0, 104.0]))
    assert_close(obs[:, 0], torch.tensor([4.0, 4.0]))
    again, _, _ = rollout(env, Plain(), obs, None, 2, greedy=True)  # and goes on from there
    assert_close(again.obs[:, 0, 0], torch.tensor([4.0, 5.0]))


def test_memory_starts_anew_after_done_and_sees_the_final_obs_before() -> None:
    tau, _, state = play(Count([2, 3], [False, True]), Memory(), 4)
    # V = h: 1, 2 | 1, 2 | and 1, 2, 3 | 1; V(final) of the truncated row is the fourth call of its episode
    assert_close(tau.value.T, torch.tensor([[1.0, 2, 1, 2], [1, 2, 3, 1]]))
    assert_close(tau.next_value[:, 1], torch.tensor([2.0, 3, 4, 2]))
    assert_close(state["h"], torch.tensor([0.0, 1.0]))
    assert_close(tau.state["h"], torch.zeros(2))


def test_until_done_plays_one_episode_in_each_row() -> None:
    env = Count([2, 5], [False, True])
    tau, _, _ = play(env, Plain(), 50, until_done=True)
    assert tau.reward.shape == (5, 2) and tau.steps == 7
    assert_close(tau.mask[:, 0], torch.tensor([True, True, False, False, False]))
    assert tau.mask[:, 1].all()
    assert_close((tau.reward * tau.mask).sum(0), torch.tensor([3.0, 15.0]))  # 1 + 2 and 1 + … + 5
    short, _, _ = play(Count([2, 5], [False, True]), Plain(), 3, until_done=True)
    assert short.reward.shape == (3, 2) and short.mask[:, 1].all()


def test_steps_that_took_no_action_are_masked_and_change_no_return() -> None:
    early, _, _ = play(Count([2, 3], [False, True]), Plain(), 12, gamma=0.9)
    late, _, _ = play(Count([2, 3], [False, True], late=True), Plain(), 12, gamma=0.9)
    # rows of one dummy step per episode: a a - a a - … and b b b - b b b -
    assert_close(late.mask[:, 0], torch.tensor([True, True, False] * 4))
    assert_close(late.mask[:, 1], torch.tensor([True, True, True, False] * 3))
    for b, count in ((0, 8), (1, 9)):
        g = [discounted_return(x.reward, x.discount, x.done, x.next_value)[:, b] for x in (early, late)]
        assert_close(g[1][late.mask[:, b]], g[0][:count])
    memory, _, _ = play(Count([2, 3], [False, True], late=True), Memory(), 12)
    assert_close(memory.value[:, 0][late.mask[:, 0]], torch.tensor([1.0, 2.0] * 4))


def test_sampling_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="generator"):
        rollout(Count([2], [True]), Plain(), torch.zeros(1, 1), None, 2)


def test_greedy_takes_the_mode_and_leaves_the_generator_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    policy = Actor(lambda x: x, 1, Categorical, [True] * 3, (8,))
    env = Count([4, 5], [False, True])
    tau, _, _ = rollout(env, policy, env.obs, None, 6, generator=generator, greedy=True)
    assert_close(tau.action, policy(tau.obs).distribution.logits.argmax(-1))
    assert torch.equal(generator.get_state(), before)


class Noisy(Count):
    """Count, with obs that differ in every step."""

    @property
    def obs(self) -> Tensor:
        t = self.t[:, None].float()
        return torch.cat([torch.sin(3 * t + torch.arange(2.0)[:, None]), torch.cos(t)], -1)


def gaussian(y: Tensor) -> DiagonalGaussian:
    return DiagonalGaussian(y[..., :2], y[..., 2:].exp())


def agents() -> dict[str, Any]:
    torch.manual_seed(5)
    found: dict[str, Any] = {
        "stateless": Actor(lambda x: x, 2, Categorical, [True] * 3, (16,)),
        "gaussian": Actor(lambda x: x, 2, gaussian, [True, True, False, False], (16,)),
        "recurrent": RecurrentActor(lambda x: x, 2, Categorical, [True] * 3, (16,), memory=8),
    }
    for agent in found.values():
        with torch.no_grad():  # policies far from uniform
            for p in agent.parameters():
                p.add_(0.3 * torch.randn(p.shape))
    return found


@pytest.mark.parametrize("name", ["stateless", "gaussian", "recurrent"])
def test_unroll_repeats_what_the_policy_said_and_its_gradients(name: str) -> None:
    policy = agents()[name]
    env = Noisy([3, 4], [False, True])
    tau, obs, state = play(env, policy, 5)
    tau, _, _ = rollout(env, policy, obs, state, 7, generator=torch.Generator().manual_seed(1))  # from mid-episode
    again = unroll(policy, tau)
    assert_close(again.log_prob, tau.log_prob, rtol=0, atol=1e-6)
    assert_close(again.value, tau.value, rtol=0, atol=1e-6)
    assert tau.distribution is not None
    assert_close(again.entropy, tau.distribution.entropy(), rtol=0, atol=1e-6)

    env = Noisy([3, 4], [False, True])
    env.t = torch.tensor([1, 2])
    kept, _, _ = rollout(env, policy, env.obs, policy.initial_state(2), 9, generator=torch.Generator(), grad=True)
    assert len(kept.outputs) == 9 and kept.log_prob.requires_grad and not kept.action.requires_grad
    assert not kept.next_value.requires_grad
    weight = torch.linspace(-1, 1, 18).view(9, 2)
    through_time = torch.autograd.grad(((kept.log_prob + kept.value) * weight).sum(), list(policy.parameters()))
    now = unroll(policy, kept)
    read_again = torch.autograd.grad(((now.log_prob + now.value) * weight).sum(), list(policy.parameters()))
    for a, b in zip(through_time, read_again, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert max(g.abs().max().item() for g in read_again) > 0.01


def test_sequence_equals_step_by_step() -> None:
    policy = agents()["recurrent"]

    class Stepwise(nn.Module):
        """The same policy without its `sequence`."""

        def __init__(self) -> None:
            super().__init__()
            self.forward, self.initial_state = policy.forward, policy.initial_state

    env = Noisy([3, 4], [False, True])
    tau, _, _ = play(env, policy, 10)
    slow, fast = unroll(Stepwise(), tau), unroll(policy, tau)
    assert_close(slow.log_prob, tau.log_prob, rtol=0, atol=0)  # the very same calls
    assert_close(slow.value, tau.value, rtol=0, atol=0)
    for a, b in zip(slow, fast, strict=True):
        assert_close(a, b, rtol=0, atol=1e-6)
    # and a memory that did not start anew would be told apart
    leaked = policy.sequence(tau.obs, tau.state, torch.zeros_like(tau.done))
    assert (leaked.value - tau.value).abs().max() > 1e-3


def test_outputs_that_should_not_vary_do_not() -> None:
    policy = agents()["gaussian"]
    a, b = (policy(x).distribution for x in (torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, -1.0]])))
    assert_close(a.std, b.std, rtol=0, atol=0)
    assert (a.mean - b.mean).abs().max() > 1e-3


def test_episode_statistics_count_only_finished_real_steps() -> None:
    statistics = EpisodeStatistics(2, window=3)
    tau, _, _ = play(Count([2, 3], [False, True], late=True), Plain(), 12)
    statistics.update(tau.reward, tau.done, tau.mask)
    # row 0: 4 episodes of return 3; row 1: 3 of return 6, ended at steps 2 5 8 11 and 3 7 11
    assert statistics.episodes == 7 and statistics.returns == [3.0, 3.0, 6.0] and statistics.lengths == [2, 2, 3]
    copy = EpisodeStatistics(2, window=3)
    copy.load_state_dict(statistics.state_dict())
    more, _, _ = play(Count([5, 2], [False, True]), Plain(), 3)
    for s in (statistics, copy):  # which share nothing
        s.update(more.reward, more.done, more.mask)
        assert s.returns == [3.0, 6.0, 3.0] and s.running_return.tolist() == [6.0, 1.0]
        assert s.mean_return == pytest.approx(4.0) and s.mean_length == pytest.approx(7 / 3)


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**31))
def test_episode_statistics_are_their_loop(steps: int, batch: int, window: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    statistics, totals, lengths = EpisodeStatistics(batch, window), [0.0] * batch, [0] * batch
    ended: list[tuple[float, int]] = []
    for _ in range(3):  # episodes go on from one call to the next
        reward = torch.randint(-3, 4, (steps, batch), generator=generator).float()
        done, valid = (torch.rand(steps, batch, generator=generator) < p for p in (0.4, 0.8))
        statistics.update(reward, done, valid)
        for t in range(steps):
            for b in range(batch):
                if valid[t, b]:
                    totals[b], lengths[b] = totals[b] + reward[t, b].item(), lengths[b] + 1
                    if done[t, b]:
                        ended.append((totals[b], lengths[b]))
                        totals[b], lengths[b] = 0.0, 0
        assert list(zip(statistics.returns, statistics.lengths, strict=True)) == ended[-window:]
        assert statistics.episodes == len(ended)
        assert statistics.running_return.tolist() == totals and statistics.running_length.tolist() == lengths
