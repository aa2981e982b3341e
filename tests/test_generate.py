"""Generation: each token from the model's own distribution, whatever the padding, the cache and the other rows do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_language import EOS, PAD, VOCAB, gpt, llama, rows, sharp  # pyrefly: ignore

from volition.errors import VolitionError
from volition.nets import generate as module
from volition.nets.generate import AnyDecoder, GPT2Decoder, generate, make_decoder, sample
from volition.nets.language import head, load, log_probs, save, small_gpt, trunk

MODELS = pytest.mark.parametrize("model", [gpt(), llama()], ids=["gpt2", "llama"])
LENGTHS = (6, 3, 9, 1, 5, 9, 2, 8)


def speak(model: Any, most: int = 12, seed: int = 0, eos: int = EOS, **settings: Any) -> tuple[Any, Any, Any]:
    ids, mask = rows(*LENGTHS, left=True)
    said = generate(
        model, ids, mask, most, eos=eos, pad=PAD, generator=torch.Generator().manual_seed(seed), **settings
    )  # fmt: skip
    return said, torch.cat([ids, said.ids], 1), torch.cat([mask, said.mask], 1)


def common(model: Any) -> int:
    """A token that is said often: as EOS it ends many rows early."""
    return int(speak(model, eos=-1)[0].ids.flatten().mode().values)


def asked(mask: torch.Tensor) -> torch.Tensor:
    """The completions' tokens."""
    return mask & (torch.arange(mask.shape[1]) >= 9)


@MODELS
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_a_full_forward_pass(model: Any, temperature: float) -> None:
    said, ids, mask = speak(model, temperature=temperature)
    with torch.no_grad():
        full = log_probs(model, ids, mask, asked(mask), temperature=temperature)[:, 9:]
    torch.testing.assert_close(said.log_prob, full, atol=2e-5, rtol=1e-5)
    assert said.log_prob[said.mask].std() > 0.1


@MODELS
def test_a_completion_ends_with_eos_and_nothing_follows(model: Any) -> None:
    ended, eos = 0, common(model)
    for seed in range(5):
        said, _, _ = speak(model, seed=seed, eos=eos)
        for row, mask, log_prob in zip(said.ids, said.mask, said.log_prob, strict=True):
            length = int(mask.sum())
            assert mask[:length].all() and 1 <= length <= 12
            assert eos not in row[: length - 1]
            assert length == 12 or row[length - 1] == eos
            assert (row[length:] == PAD).all() and (log_prob[length:] == 0).all()
            ended += length < 12
    assert ended > 5


def test_both_decoders_say_the_same() -> None:
    model = gpt()
    ours, theirs = make_decoder(model), AnyDecoder(trunk(model), head(model))
    assert isinstance(ours, GPT2Decoder)
    ids, mask = rows(*LENGTHS, left=True)
    with torch.no_grad():
        torch.testing.assert_close(ours.begin(ids, mask, 4), theirs.begin(ids, mask, 4), atol=1e-4, rtol=1e-4)
        token = torch.arange(2, 2 + len(ids))
        for keep in (None, torch.arange(8) % 3 > 0, None):
            if keep is not None:
                ours.keep(keep), theirs.keep(keep)
                token = token[keep]
            torch.testing.assert_close(ours.step(token), theirs.step(token), atol=1e-4, rtol=1e-4)


@MODELS
def test_rows_that_leave_the_batch_change_nothing_for_the_others(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, eos = [], common(model)
    for keep in (0.0, 1.0):
        monkeypatch.setattr(module, "KEEP", keep)
        found.append(speak(model, eos=eos)[0])
    assert torch.equal(found[0].ids, found[1].ids) and torch.equal(found[0].mask, found[1].mask)
    assert not found[0].mask.all()


def test_the_mode_is_what_transformers_generates() -> None:
    model = gpt()
    said, ids, mask = speak(model, temperature=0, eos=-1)
    theirs = model.generate(ids[:, :9], attention_mask=mask[:, :9].long(), max_new_tokens=12, min_new_tokens=12,
        do_sample=False, eos_token_id=None, pad_token_id=PAD)  # fmt: skip
    assert torch.equal(theirs[:, 9:], said.ids)


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    p = torch.tensor([0.0, 0.5, 0.0, 0.125, 0.25, 0.125, 0.0])
    n = 2**14
    u = torch.arange(n) / n  # an even grid: shares are exact, no chance in it
    token, log_prob = sample(p.log().expand(n, -1), u, 1.0)
    assert (torch.bincount(token, minlength=7) / n).tolist() == p.tolist()
    torch.testing.assert_close(log_prob, p.log()[token])
    token, log_prob = sample((p * p).log().expand(n, -1), u, 2.0)  # √(p²) = p
    assert (torch.bincount(token, minlength=7) / n).tolist() == p.tolist()


def test_many_draws_of_a_large_vocabulary_fit_their_distribution() -> None:
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, generator=g)
    n = 200_000
    token = torch.cat(
        [sample(logits.expand(1000, -1), torch.rand(1000, generator=g), 1.0)[0] for _ in range(n // 1000)]
    )
    expected = logits.softmax(-1) * n
    common = expected > 5
    chi = ((torch.bincount(token, minlength=2000) - expected).square() / expected)[common].sum().item()
    degrees = int(common.sum())
    assert abs(chi - degrees) < 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_interval_draw_nothing_impossible(u: float) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 300, generator=g)
    logits[:, :3], logits[:, -5:] = -torch.inf, -torch.inf
    token, log_prob = sample(logits, torch.full((500,), u), 1.0)
    assert (token >= 3).all() and (token < 295).all() and log_prob.isfinite().all()


def test_low_precision_is_near() -> None:
    model = small_gpt(VOCAB, EOS, PAD, context=32, layers=2, width=64, heads=4)
    said, ids, mask = speak(sharp(model), low_precision=True)
    with torch.no_grad():
        full = log_probs(model, ids, mask, asked(mask))[:, 9:]
    gap = (said.log_prob - full).abs().max()
    assert 1e-5 < gap < 0.3  # weights are ten times GPT-2's here


def test_adapters_speak_too(tmp_path: Path) -> None:
    save(gpt(), tmp_path)
    model = load(tmp_path, lora=2)
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p)
    said, ids, mask = speak(model)
    with torch.no_grad():
        torch.testing.assert_close(said.log_prob, log_probs(model, ids, mask, asked(mask))[:, 9:], atol=2e-4, rtol=1e-4)
        with model.disable_adapter():
            assert (said.log_prob - log_probs(model, ids, mask, asked(mask))[:, 9:]).abs().max() > 0.1


def test_more_than_the_context_holds_is_told() -> None:
    with pytest.raises(VolitionError, match="a prompt of 9 tokens and 24 to come exceed the model's context of 32"):
        speak(gpt(), most=24)
    speak(gpt(), most=23)
