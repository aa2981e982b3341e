"""TRL: its SFTTrainer, RewardTrainer and PPOTrainer (1.12, the last that has one) on the same weights and tokens."""

import argparse
import importlib.metadata
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # pyrefly: ignore
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from benchmarks.peers.feedback_common import BETAS, CASES, CLIP, EPSILON, GAMMA, KL, LAM, LR, MAX_NORM, Case, pacer

FOREVER = 10**6


class Paced(TrainerCallback):
    """Waits before the first step and after each."""

    def __init__(self, **more: float) -> None:
        self.more = more

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        pace(
            packages={name: importlib.metadata.version(name) for name in ("trl", "transformers", "torch")}, **self.more
        )

    def on_step_end(self, *_: Any, **__: Any) -> None:
        pace()


def shared(arguments: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Settings of every trainer: Adam as ours, nothing saved, logged or drawn."""
    return {
        "output_dir": tempfile.mkdtemp(), "use_cpu": True, "per_device_train_batch_size": batch, "bf16": arguments.bf16,
        "gradient_checkpointing": arguments.checkpointing, "learning_rate": LR, "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1], "adam_epsilon": EPSILON, "max_grad_norm": MAX_NORM, "save_strategy": "no",
        "logging_strategy": "no", "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip


def supervised(case: Case, arguments: argparse.Namespace, rows: list[dict[str, Any]], tokens: Any, load: Any) -> Any:
    """All that packing needs is TRL's own."""
    from trl import SFTConfig, SFTTrainer  # pyrefly: ignore

    texts = [(tokens.encode(row["prompt"]), [*tokens.encode(row["completion"]), tokens.eos_token_id]) for row in rows]
    packed = case.shortest > 0
    config = SFTConfig(
        **shared(arguments, 16), max_steps=FOREVER, max_length=case.prompt + case.completion, packing=packed
    )
    data = Dataset.from_dict(
        {"input_ids": [p + c for p, c in texts], "labels": [[-100] * len(p) + c for p, c in texts]}
    )
    trainer = SFTTrainer(load(AutoModelForCausalLM, "model"), config, train_dataset=data, processing_class=tokens)
    held = sum(len(p) + len(c) for p, c in texts)
    trainer.add_callback(Paced(work=held / len(trainer.train_dataset) * 16))
    return trainer


def reward(case: Case, arguments: argparse.Namespace, rows: list[dict[str, Any]], tokens: Any, load: Any) -> Any:
    """Every pair of a ranking is a row."""
    from trl import RewardConfig, RewardTrainer  # pyrefly: ignore

    pairs: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
    for row in rows:
        prompt = tokens.encode(row["prompt"])
        said = [[*prompt, *tokens.encode(c), tokens.eos_token_id] for c in row["completions"]]
        for better, worse in itertools.combinations(said, 2):
            pairs["chosen_ids"].append(better)
            pairs["rejected_ids"].append(worse)
    count = case.batch * case.ways * (case.ways - 1) // 2
    trainer = RewardTrainer(
        load(AutoModelForSequenceClassification, "reward"),
        RewardConfig(**shared(arguments, count), max_steps=FOREVER, max_length=None),
        train_dataset=Dataset.from_dict(pairs), processing_class=tokens,
    )  # fmt: skip
    trainer.add_callback(Paced())
    return trainer


def ppo(case: Case, arguments: argparse.Namespace, rows: list[dict[str, Any]], tokens: Any, load: Any) -> Any:
    """No accumulation, under which it ignores its minibatches; no completion ends early, no samples are shown."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyrefly: ignore

    config = PPOConfig(
        **shared(arguments, case.batch), total_episodes=FOREVER * case.batch, num_mini_batches=case.minibatches,
        num_ppo_epochs=case.epochs, response_length=case.completion, temperature=1.0, num_sample_generations=0,
        gamma=GAMMA, lam=LAM, cliprange=CLIP, cliprange_value=CLIP, kl_coef=KL,
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": [tokens.encode(row["prompt"]) for row in rows]})
    scored = AutoModelForSequenceClassification
    return PPOTrainer(
        config, tokens, load(AutoModelForCausalLM, "model"), load(AutoModelForCausalLM, "model"),
        load(scored, "reward"), data, load(scored, "reward"), eval_dataset=data, callbacks=[Paced()],
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--fused", action="store_true", help="GELU as one operation, as ours makes it")
    arguments = parser.parse_args()
    case, pace = CASES[arguments.case], pacer()
    torch.set_num_threads(1)

    def load(kind: Any, name: str) -> Any:
        more = {"activation_function": "gelu_pytorch_tanh"} if arguments.fused else {}
        return kind.from_pretrained(arguments.data / name, dtype=torch.float32, **more)

    given = [json.loads(line) for line in (arguments.data / "rows.jsonl").read_text().splitlines()]
    tokens = AutoTokenizer.from_pretrained(arguments.data / "model")
    make = {"sft": supervised, "reward": reward, "ppo": ppo}[case.kind]
    make(case, arguments, given, tokens, load).train()
