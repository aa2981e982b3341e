"""PPO on completions: the gradients that the paper writes, whatever a batch is cut into and padding holds."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import steps  # pyrefly: ignore
from transformers import AutoModelForCausalLM, AutoTokenizer

from volition.cli import main
from volition.core.completions import Beta
from volition.data.packing import pack
from volition.errors import VolitionError
from volition.feedback import ppo_ptx
from volition.feedback._models import step, texts_loss, write
from volition.feedback._start import Team, gather_team
from volition.feedback.ppo_ptx import TINY, gradients, ptx_gradient, speak, values
from volition.nets.language import Scalar, log_probs, save
from volition.run import Run

CONFIG = replace(
    TINY,
    minibatches=1,
    epochs=1,
    parts=1,
    completion=8,
    batch=12,
    episodes=24,
    whiten=False,
    clip_value=0.0,
    unended=0.0,
)


@pytest.fixture(scope="module")
def everyone() -> tuple[Team, dict[str, torch.Tensor], dict[str, Any]]:
    """A team, a batch of its completions of many lengths, and what was seen of it."""
    run = Run()
    team = gather_team(CONFIG, run)
    eos = team.text.tokens.eos
    with torch.no_grad():
        for model in (team.policy, team.frozen):  # an end comes soon, but not at once
            model.transformer.ln_f.bias.add_(500 * model.transformer.wte.weight[eos])
        for p in team.critic.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    prompts = team.text.prompts["train"][: CONFIG.batch]
    return team, *speak(CONFIG, team, prompts, Beta(CONFIG.beta), torch.Generator().manual_seed(3))


@pytest.fixture
def cast(everyone: Any) -> Any:
    """The same, with no gradient left from another test."""
    everyone[0].policy.zero_grad(), everyone[0].critic.zero_grad()
    return everyone


def learned(model: Any) -> list[torch.Tensor]:
    """Its gradients, which are then empty."""
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


def assert_close(a: list[torch.Tensor], b: list[torch.Tensor], relative: float = 1e-4) -> None:
    for x, y in zip(a, b, strict=True):
        assert (x - y).norm() <= relative * max(1e-3, y.norm().item())


def test_one_minibatch_without_clip_is_the_policy_gradient(cast: Any) -> None:
    team, batch, _ = cast
    gradients(replace(CONFIG, clip=1e9), team.policy, team.critic, batch)
    found = learned(team.policy)
    log_prob = log_probs(team.policy, batch["ids"], batch["mask"], batch["spoken"])
    (-(batch["advantage"] * log_prob).sum() / batch["spoken"].sum()).backward()
    by_hand = learned(team.policy)
    assert_close(found, by_hand)
    assert max(x.norm().item() for x in by_hand) > 1e-3


def test_the_critic_learns_by_half_its_squared_error(cast: Any) -> None:
    team, batch, _ = cast
    gradients(CONFIG, team.policy, team.critic, batch)
    found = learned(team.critic)
    spoken = batch["spoken"]
    value = torch.cat([torch.zeros(len(spoken), 1), team.critic(batch["ids"], batch["mask"])[:, :-1]], 1)
    (0.5 * (batch["target"] - value)[spoken].square().mean()).backward()
    assert_close(found, learned(team.critic))


def test_an_update_in_parts_is_the_same_update(cast: Any) -> None:
    team, batch, _ = cast
    stories = team.text.pretraining["train"][:7]
    found = []
    for parts in (1, 3, 12):
        config = replace(CONFIG, parts=parts)
        seen = gradients(config, team.policy, team.critic, batch)
        seen["ptx_loss"] = ptx_gradient(config, team.policy, stories, team.text)
        found.append(([*learned(team.policy), *learned(team.critic)], seen))
    for grads, seen in found[1:]:
        assert_close(grads, found[0][0])
        for name, x in seen.items():
            torch.testing.assert_close(x, found[0][1][name], atol=1e-5, rtol=1e-4)


def test_ptx_adds_its_share_and_none_at_0(cast: Any) -> None:
    team, batch, _ = cast
    stories = team.text.pretraining["train"][:5]
    config = replace(CONFIG, ptx=27.8)
    gradients(config, team.policy, team.critic, batch)
    ptx_gradient(config, team.policy, stories, team.text)
    both = learned(team.policy)
    gradients(config, team.policy, team.critic, batch)
    ppo = learned(team.policy)
    texts_loss(team.policy, pack([[]] * 5, stories, team.text.tokens.pad)).backward()
    assert_close(both, [a + 27.8 * b for a, b in zip(ppo, learned(team.policy), strict=True)])


def test_with_ptx_0_pretraining_text_is_not_read(tmp_path: Path) -> None:
    """PPO with ptx 0 is PPO: whatever the text, the same weights to the last bit; with ptx 1 others."""
    other = tmp_path / "other.txt"
    other.write_text("\n\n".join(f"number {i} is not a story" for i in range(40)))
    found = {}
    for ptx in (0.0, 1.0):
        for ratio, text in ((1.0, ""), (3.0, str(other))):
            config = replace(TINY, ptx=ptx, ratio=ratio, pretraining=text, episodes=16)
            found[ptx, ratio] = [p.detach() for p in ppo_ptx.train(config).parameters()]
    assert all(torch.equal(a, b) for a, b in zip(found[0.0, 1.0], found[0.0, 3.0], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found[1.0, 1.0], found[1.0, 3.0], strict=True))


def test_nothing_after_the_end_matters(cast: Any) -> None:
    team, batch, _ = cast
    assert len(set(batch["spoken"].sum(1).tolist())) > 1, "all completions have one length"
    found = []
    for filling in (team.text.tokens.pad, team.text.tokens.eos, 17):
        other = batch | {"ids": batch["ids"].masked_fill(~batch["mask"], filling)}
        for name in ("log_prob", "value", "advantage", "target"):
            other[name] = batch[name].masked_fill(~batch["spoken"], 3.0)
        seen = gradients(CONFIG, team.policy, team.critic, other)
        found.append([*learned(team.policy), *learned(team.critic), *seen.values()])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_at_the_start_the_ratio_is_1_and_the_kl_0(cast: Any) -> None:
    team, batch, seen = cast
    assert abs(seen["kl"].item()) < 1e-4
    now = log_probs(team.policy, batch["ids"], batch["mask"], batch["spoken"])
    torch.testing.assert_close(now, batch["log_prob"], atol=1e-5, rtol=1e-5)
    parts = gradients(CONFIG, team.policy, team.critic, batch)
    assert parts["clipped"] == 0 and parts["step_kl"] < 1e-8


def test_score_and_price_are_where_they_belong(cast: Any) -> None:
    """With λ = 1 the critic's target at the first token is score − β·log(π/π_ref), which a drifted reference gives."""
    team, _, _ = cast
    config = replace(CONFIG, lam=1.0, beta=0.5)
    drifted = Team(team.text, team.policy, team.critic, None, gpt_like(team.policy))
    prompts = team.text.prompts["train"][:6]
    batch, seen = speak(config, drifted, prompts, Beta(0.5), torch.Generator().manual_seed(0))
    spoken, first = batch["spoken"], batch["spoken"].int().argmax(1)
    with torch.no_grad():
        ref = log_probs(drifted.frozen, batch["ids"], batch["mask"], spoken)
    said = [team.text.tokens.decode(ids[m].tolist()) for ids, m in zip(batch["ids"], spoken, strict=True)]
    price = 0.5 * (batch["log_prob"] - ref).sum(1)
    torch.testing.assert_close(
        batch["target"].gather(1, first[:, None]).squeeze(1), team.gold(prompts, said) - price, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(seen["kl"], 2 * price.mean())
    assert price.abs().max() > 0.01


def test_a_completion_that_was_cut_costs_what_was_said(cast: Any) -> None:
    """With β = 0 and λ = 1 the critic's targets are the scores: less by `unended` where no EOS was said."""
    team, _, _ = cast
    prompts, found = team.text.prompts["train"][:12], []
    for unended in (0.0, 0.75):
        config = replace(CONFIG, unended=unended, lam=1.0)
        batch, _ = speak(config, team, prompts, Beta(0.0), torch.Generator().manual_seed(3))
        found.append(batch["target"])
    ended = ((batch["ids"] == team.text.tokens.eos) & batch["spoken"]).any(1)
    assert 0 < ended.sum() < len(ended)
    torch.testing.assert_close(found[0] - found[1], 0.75 * (~ended[:, None] & batch["spoken"]), atol=1e-6, rtol=0)


def gpt_like(model: Any) -> Any:
    """A copy with other weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return other


def test_values_are_those_of_the_state_before_each_token(cast: Any) -> None:
    team, batch, _ = cast
    value = values(CONFIG, team.critic, batch)
    row, column = batch["spoken"].nonzero()[5].tolist()
    ids, mask = batch["ids"][row : row + 1, :column], batch["mask"][row : row + 1, :column]
    torch.testing.assert_close(value[row, column], team.critic.score(ids, mask)[0], atol=1e-5, rtol=1e-5)
    assert (value[~batch["spoken"]] == 0).all()


def test_it_learns_what_is_rewarded() -> None:
    run = Run(seed=1)
    config = replace(CONFIG, batch=64, lr=1e-2, beta=0.0, lam=1.0, whiten=True)
    team = gather_team(config, run)
    team.text = replace(team.text, gold=lambda prompt, said: said.count("e") / 4)
    actor, critic = (torch.optim.Adam(m.parameters(), lr=1e-2) for m in (team.policy, team.critic))
    found = []
    for _ in range(20):
        batch, seen = speak(config, team, team.text.prompts["train"][:64], Beta(0.0), run.generator)
        found.append(seen["reward"].item())
        gradients(config, team.policy, team.critic, batch)
        step(actor, 1e-2, 1.0), step(critic, 1e-2, 1.0)
    assert found[-1] > 3 * found[0], found


def test_in_bfloat16_the_learner_judges_its_own_words(cast: Any) -> None:
    team, _, _ = cast
    config = replace(CONFIG, low_precision=True)
    batch, seen = speak(config, team, team.text.prompts["train"][:12], Beta(0.0), torch.Generator().manual_seed(3))
    assert 0 < seen["gap"] < 0.05
    parts = gradients(config, team.policy, team.critic, batch)
    assert parts["clipped"] == 0 and parts["step_kl"] < 1e-6


def test_a_run_leaves_the_average_as_a_folder_for_transformers(toy: Path) -> None:
    assert main(["train", "ppo_ptx:tiny", "--run", "a", "--quiet", "--average", "0.5"]) == 0
    run = Run.open("a", ppo_ptx.Config)
    names = {"policy", "critic", "actor_adam", "critic_adam", "average", "beta", "rollout", "asked", "told"}
    for name in names:
        assert run.saved(name)
    assert run.saved("rollout")["batch"].keys() >= {"ids", "advantage", "order"}
    model = AutoModelForCausalLM.from_pretrained("a/model")
    for p, x in zip(model.parameters(), run.saved("average")["values"], strict=True):
        assert torch.equal(p, x)
    assert AutoTokenizer.from_pretrained("a/model").eos_token_id == model.config.eos_token_id
    assert steps(Path("a"))[-1] == 12


def test_a_reward_model_judges_and_becomes_the_critic(toy: Path) -> None:
    """The saved reward model gives the logged reward; the critic begins as it, and another's tokens are refused."""
    run = Run()
    team = gather_team(TINY, run)
    reward = Scalar(gpt_like(team.policy))
    save(reward, toy / "reward")
    team.text.tokens.save(toy / "reward")
    judged = gather_team(replace(TINY, model=str(run.path("start")), reward=str(toy / "reward")), Run())
    assert judged.judge is not None
    prompts = team.text.prompts["train"][:5]
    batch, seen = speak(replace(TINY, unended=0.0), judged, prompts, Beta(0.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen["reward"], reward.score(batch["ids"], batch["mask"]).mean(), atol=1e-5, rtol=1e-5)
    for a, b in zip(judged.critic.parameters(), reward.parameters(), strict=True):
        assert torch.equal(a, b) and a.requires_grad
    assert all(a is not b for a, b in zip(judged.critic.parameters(), judged.judge.parameters(), strict=True))
    other = team.text.tokens.train(["other text of other words"], 280)
    write(reward, other, toy / "other")
    with pytest.raises(VolitionError, match="has other tokens than the policy"):
        gather_team(replace(TINY, model=str(run.path("start")), reward=str(toy / "other")), Run())


def test_adapters_learn_against_the_model_beneath_them(toy: Path) -> None:
    run = Run()
    gather_team(TINY, run)
    config = replace(TINY, model=str(run.path("start")), lora=2, lr=1e-2)
    with Run("a", config=config, recipe="ppo_ptx", variant="tiny", quiet=True) as trained:
        ppo_ptx.train(config, trained)
    assert (toy / "a" / "model" / "adapter_model.safetensors").exists()
    lines = [json.loads(line) for line in (toy / "a" / "metrics.jsonl").read_text().splitlines()]
    assert lines and all(abs(line.get("kl", 0.0)) < 5 for line in lines)
    assert set(ppo_ptx.evaluate(config, Run.open("a", ppo_ptx.Config))) >= {"reward", "kl", "sft_reward"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch", "2", "--minibatches", "4"], "a batch of 2 has no 4 minibatches"),
        (["--prompts", "x.txt"], "give --reward DIR"),
        (["--lora", "4", "--model", "nowhere"], "there is no folder nowhere"),
        (["--completion", "160"], "leave no room for a prompt in a context of 160"),
        (["--lam", "1.5"], "must lie in 0 … 1"),
    ],
)
def test_mistakes_are_told_in_one_line(words: list[str], told: str, toy: Path, capsys: Any) -> None:
    assert main(["train", "ppo_ptx:tiny", *words]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1
