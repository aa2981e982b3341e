"""What learning from reward came to: scores, wins, distance and forgetting, beside the model it began from."""

from pathlib import Path
from typing import Any

import torch

from volition.feedback._models import ROWS, complete, mean_loss, scores, texts
from volition.feedback._show import draw_frontier, read_history, side_by_side, win_rate
from volition.feedback._start import Team, averaged, gather_team
from volition.nets.generate import generate
from volition.nets.language import log_probs
from volition.run import Run


def trained(config: Any, run: Run) -> Team:
    """The models of a trained run, the policy with its averaged weights."""
    team = gather_team(config, run)
    averaged(team, run.saved("average")["values"], run.folder)
    return team


def evaluate(config: Any, run: Run) -> dict[str, float]:
    """What `measure` finds of a trained run."""
    return measure(config, run, trained(config, run))


def measure(config: Any, run: Run, team: Team) -> dict[str, float]:
    """On test prompts, one completion each: the judge's score, of the built-in task the hidden one, and how often the
    policy wins by it; KL per completion in nats; loss on pretraining text. `sft_` is the model at the start."""
    text, prompts = team.text, team.text.prompts["test"]
    seed = int(torch.randint(2**31, (), generator=run.generator, device=run.device))

    def again() -> torch.Generator:  # both policies answer with the same luck
        return torch.Generator(run.device).manual_seed(seed)

    told = [([], ids) for ids in text.pretraining["test"]]
    said, kl = answers(config, team, prompts, again())
    found = {"pretraining_loss": mean_loss(team.policy, told, text.tokens.pad)}
    with team.reference() as reference:
        before = complete(reference, prompts, text.tokens, config.completion, again(), config.temperature)
        found["sft_pretraining_loss"] = mean_loss(reference, told, text.tokens.pad)
    judges = {}
    if team.judge is not None:
        judges["reward"] = lambda words: scores(team.judge, prompts, words, text.tokens)
    if text.gold is not None:
        judges["gold"] = lambda words: team.gold(prompts, words)
        judges.setdefault("reward", judges["gold"])
    for name, score in judges.items():
        mine, theirs = score(said), score(before)
        found |= {name: mine.mean().item(), f"sft_{name}": theirs.mean().item(), f"{name}_wins": win_rate(mine, theirs)}
    return found | {"kl": kl}


@torch.no_grad()
def answers(config: Any, team: Team, prompts: list[str], generator: torch.Generator) -> tuple[list[str], float]:
    """A completion of each prompt, and KL(π‖π_ref) of whole completions in nats: the mean of log(π/π_ref) over them."""
    total, words, tokens = 0.0, [], team.text.tokens
    for i in range(0, len(prompts), ROWS):
        start, real = team.prompts(prompts[i : i + ROWS])
        said = generate(team.policy, start, real, config.completion, eos=tokens.eos, pad=tokens.pad,
            generator=generator, temperature=config.temperature)  # fmt: skip
        ids, mask = torch.cat([start, said.ids], 1), torch.cat([real, said.mask], 1)
        spoken = torch.cat([torch.zeros_like(real), said.mask], 1)
        with team.reference() as reference:
            other = log_probs(reference, ids, mask, spoken, temperature=config.temperature)
        total += (said.log_prob.sum() - other.sum()).item()
        words += texts(said, tokens)
    return words, total / len(prompts)


def watch(config: Any, run: Run) -> list[Path]:
    """Completions before and after with their scores, and reward against √KL over training."""
    return show(config, run, trained(config, run), "PPO-ptx" if config.ptx else "PPO")


def show(config: Any, run: Run, team: Team, name: str) -> list[Path]:
    """The same of the policy `name`."""
    tokens, prompts = team.text.tokens, team.text.prompts["test"][:12]
    seed = int(torch.randint(2**31, (), generator=run.generator, device=run.device))
    with team.reference() as reference:
        before = complete(reference, prompts, tokens, config.completion, torch.Generator(run.device).manual_seed(seed))
    after = complete(team.policy, prompts, tokens, config.completion, torch.Generator(run.device).manual_seed(seed))
    said = {"SFT": before, name: after}
    pictures = [side_by_side(prompts, said, judges(team), run.path("completions.txt"))]
    history = read_history(run.path("metrics.jsonl"))
    return [*pictures, draw_frontier({run.name: history}, run.path("kl_reward.png"))]


def judges(team: Team) -> dict[str, Any]:
    """Each judge by its name, scoring one prompt and completion."""
    found: dict[str, Any] = {}
    if team.judge is not None:
        found["reward"] = lambda prompt, said: scores(team.judge, [prompt], [said], team.text.tokens).item()
    if team.text.gold is not None:
        found["gold"] = team.text.gold
    return found
