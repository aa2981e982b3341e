"""Language models: what padding, packing, saving and loading must not change."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.activations import NewGELUActivation

from volition.errors import VolitionError
from volition.nets import language
from volition.nets.language import Scalar, at_last, load, log_probs, positions, save, small_gpt

EOS, PAD, VOCAB = 0, 1, 50


def gpt(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return sharp(small_gpt(VOCAB, EOS, PAD, context=32, layers=2, width=16, heads=2))


def llama() -> Any:
    torch.manual_seed(0)
    return sharp(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, max_position_embeddings=32, eos_token_id=EOS, pad_token_id=PAD,
            )
        ).eval()
    )  # fmt: skip


def sharp(model: Any) -> Any:
    """Weights ten times larger: attention that looks somewhere, probabilities that differ."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(10)
    return model


def rows(*lengths: int, left: bool, width: int = 9, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The same tokens, padded on one side or the other."""
    g = torch.Generator().manual_seed(seed)
    ids, mask = torch.full((len(lengths), width), PAD), torch.zeros(len(lengths), width, dtype=torch.bool)
    for i, n in enumerate(lengths):
        place = slice(width - n, width) if left else slice(0, n)
        ids[i, place], mask[i, place] = torch.randint(2, VOCAB, (n,), generator=g), True
    return ids, mask


def second_on(mask: torch.Tensor) -> torch.Tensor:
    """All real tokens but the first of each row."""
    return mask & (positions(mask) > 0)


@pytest.mark.parametrize("model", [gpt(), llama()], ids=["gpt2", "llama"])
def test_log_probs_are_those_of_the_full_softmax(model: Any) -> None:
    ids, mask = rows(9, 9, left=True)
    full = model(ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(log_probs(model, ids, mask, second_on(mask))[:, 1:], full)
    warm = (model(ids).logits / 0.7).log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(log_probs(model, ids, mask, second_on(mask), temperature=0.7)[:, 1:], warm)


@pytest.mark.parametrize("model", [gpt(), llama()], ids=["gpt2", "llama"])
def test_the_side_of_the_padding_changes_nothing(model: Any) -> None:
    (left, at), (right, there) = (rows(9, 4, 6, left=side) for side in (True, False))
    for f in (lambda i, m: log_probs(model, i, m, second_on(m)), Scalar(model)):
        torch.testing.assert_close(f(left, at)[at], f(right, there)[there], atol=1e-5, rtol=1e-5)
    scalar = Scalar(model)
    torch.testing.assert_close(scalar.score(left, at), scalar.score(right, there), atol=1e-5, rtol=1e-5)
    assert scalar.score(left, at).std() > 1e-3


@pytest.mark.parametrize("left", [True, False])
def test_what_padding_holds_changes_nothing_not_even_a_gradient(left: bool) -> None:
    model, found = gpt(), []
    scalar = Scalar(model)
    ids, mask = rows(9, 4, 6, left=left)
    for filling in (PAD, EOS, 17):
        model.zero_grad()
        log_prob = log_probs(model, ids.masked_fill(~mask, filling), mask, second_on(mask))
        score = scalar.score(ids.masked_fill(~mask, filling), mask)
        (log_prob.sum() + score.sum()).backward()
        found.append([log_prob.detach(), *(p.grad.clone() for p in model.parameters())])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_logits_in_parts_give_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch derives it from all logits at once; kept or made again."""
    model, grads = gpt(), []
    ids, mask = rows(9, 4, 6, left=True)
    asked = second_on(mask)
    for kept, part in ((0, 0), (2**25, 256), (2**25, 3), (3 * VOCAB, 2)):
        monkeypatch.setattr(language, "LOGITS", kept)
        monkeypatch.setattr(language, "PART", part)
        model.zero_grad()
        if part:
            log_prob = log_probs(model, ids, mask, asked, temperature=0.7)[asked]
        else:
            logits = model(ids, attention_mask=mask, position_ids=positions(mask)).logits[:, :-1] / 0.7
            log_prob = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0][asked[:, 1:]]
        log_prob.square().sum().backward()
        grads.append([log_prob.detach(), *(p.grad.clone() for p in model.parameters())])
    for other in grads[1:]:
        for whole, parts in zip(grads[0], other, strict=True):
            torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_attention_sees_what_it_sees_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    scalar = Scalar(gpt())
    ids, mask = rows(9, 4, 6, left=True)
    sees = mask[:, None, None] & torch.ones(9, 9, dtype=torch.bool).tril() | torch.eye(9, dtype=torch.bool)
    for seen in (mask, sees):
        exact = scalar(ids, seen, positions(mask))
        for short in (language.SHORT, 0):  # by products, and by torch's one operation
            monkeypatch.setattr(language, "SHORT", short)
            with torch.autocast("cpu", torch.bfloat16), torch.profiler.profile() as seen_by:
                low = scalar(ids, seen, positions(mask))
            one = any("scaled_dot_product" in event.key for event in seen_by.key_averages())
            assert one == (short == 0)
            assert scalar.trunk.config._attn_implementation == "sdpa"
            assert (low - exact)[mask].abs().max() < 0.05 * exact[mask].std()


def test_packed_rows_do_not_see_each_other() -> None:
    model = gpt()
    ids, mask = rows(5, 4, left=False, width=5)
    packed, part = ids[mask].unsqueeze(0), mask.nonzero()[:, 0]
    sees = (part[:, None] == part).tril()[None, None]
    where = positions(mask)[mask].unsqueeze(0)
    asked = second_on(mask)
    together = log_probs(model, packed, sees, asked[mask].unsqueeze(0), where)
    torch.testing.assert_close(together[0], log_probs(model, ids, mask, asked)[mask])


def test_nothing_precedes_the_first_token() -> None:
    ids, mask = rows(9, left=True)
    with pytest.raises(ValueError, match="first column"):
        log_probs(gpt(), ids, mask, mask)


def test_at_last_is_the_last_real_token_on_either_side() -> None:
    x = torch.arange(8.0).reshape(2, 4)
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    assert at_last(x, mask).tolist() == [3.0, 5.0]


def test_saved_and_loaded_by_us_and_by_transformers(tmp_path: Path) -> None:
    model = gpt()
    ids, _ = rows(9, 9, left=True)
    save(model, tmp_path)
    for again in (load(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path).eval()):
        assert torch.equal(again(ids).logits, model(ids).logits)
        assert not again.training


def test_a_published_gpt2_keeps_its_function_and_its_settings(tmp_path: Path) -> None:
    """Its activation is computed at once here, and is the library's in the folder that comes back."""
    torch.manual_seed(0)
    settings = GPT2Config(vocab_size=VOCAB, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    published = sharp(GPT2LMHeadModel(settings).eval())
    published.save_pretrained(tmp_path / "one")
    model = load(tmp_path / "one")
    ids, _ = rows(9, 9, left=True)
    assert not any(isinstance(part, NewGELUActivation) for part in model.modules())
    assert torch.allclose(model(ids).logits, published(ids).logits, atol=1e-5)
    save(model, tmp_path / "two")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two").eval()
    assert again.config.activation_function == "gelu_new"
    assert torch.equal(again(ids).logits, published(ids).logits)


def test_adapters_learn_alone_and_come_back(tmp_path: Path) -> None:
    base = gpt()
    ids, mask = rows(9, 6, left=True)
    save(base, tmp_path / "base")
    model = load(tmp_path / "base", lora=2)
    assert torch.equal(log_probs(model, ids, mask, second_on(mask)), log_probs(base, ids, mask, second_on(mask)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # B begins at 0: at the first step only B learns
        (-log_probs(model, ids, mask, second_on(mask)).mean()).backward()
        optimizer.step()
    learned = model(ids).logits
    assert not torch.allclose(learned, base(ids).logits, atol=1e-3)
    with model.disable_adapter():  # the weights beneath are as they were
        assert torch.equal(model(ids).logits, base(ids).logits)
    save(model, tmp_path / "adapters")
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    for again in (load(tmp_path / "adapters"), PeftModel.from_pretrained(fresh, tmp_path / "adapters").eval()):
        torch.testing.assert_close(again(ids).logits, learned)
    # a reward model begun from them is saved whole
    scalar = Scalar(model)
    save(scalar, tmp_path / "scores")
    torch.testing.assert_close(Scalar.load(tmp_path / "scores").score(ids, mask), scalar.score(ids, mask))
    torch.testing.assert_close(model(ids).logits, learned)


@pytest.mark.parametrize("model", [gpt(), llama()], ids=["gpt2", "llama"])
def test_a_score_comes_back_and_transformers_gives_it_but_for_the_shift(model: Any, tmp_path: Path) -> None:
    scalar = Scalar(model)
    scalar.shift.fill_(0.75)
    ids, mask = rows(9, 4, 6, left=False)
    save(scalar, tmp_path)
    assert torch.equal(Scalar.load(tmp_path).score(ids, mask), scalar.score(ids, mask))
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    scores = theirs(input_ids=ids, attention_mask=mask).logits.squeeze(-1)
    torch.testing.assert_close(scores + theirs.config.volition_shift, scalar.score(ids, mask))


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(VolitionError, match="there is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolitionError, match=r"cannot read the language model in .*empty"):
        load(tmp_path / "empty")
    save(gpt(), tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(VolitionError, match="cannot read the language model") as caught:
        load(tmp_path / "cut")
    assert "\n" not in str(caught.value)
    with pytest.raises(VolitionError, match="multiple of heads"):
        small_gpt(VOCAB, EOS, PAD, width=10, heads=3)


def test_a_model_that_bends_its_logits_is_refused(tmp_path: Path) -> None:
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.01,
        )
    )  # fmt: skip
    capped.save_pretrained(tmp_path)
    with pytest.raises(VolitionError, match="logits of a gemma2 are not one product"):
        load(tmp_path)


def test_saving_draws_no_random_number(tmp_path: Path) -> None:
    scalar = Scalar(gpt())
    before = torch.get_rng_state()
    save(scalar, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
