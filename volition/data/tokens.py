"""Text as numbers: a byte-level BPE made on the spot, or the tokenizer of a model's folder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from volition.errors import VolitionError

try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
except ImportError:
    raise VolitionError("text needs more packages: pip install 'volition[feedback]'") from None

EOS, PAD = "<|endoftext|>", "<|pad|>"


class Tokens:
    """Encodes and decodes; `eos` ends a completion, `pad` fills rows, and the two are never the same."""

    def __init__(self, inner: Any, where: str = "the tokenizer") -> None:
        self.inner = inner
        if inner.eos_token_id is None:
            raise VolitionError(f"{where} has no token that ends a text: give it an eos_token")
        if inner.pad_token_id in (None, inner.eos_token_id):
            # whatever fills a row is never read; only it must not be taken for the end
            inner.pad_token = next(t for i, t in ((i, inner.convert_ids_to_tokens(i)) for i in (0, 1)) if i != self.eos)
        self.pad: int = inner.pad_token_id

    @property
    def eos(self) -> int:
        return self.inner.eos_token_id

    def __len__(self) -> int:
        return len(self.inner)

    @classmethod
    def train(cls, texts: Iterable[str], vocab: int = 8192) -> "Tokens":
        """Byte-level BPE (Sennrich 2016; Radford 2019) of at most `vocab` tokens, learned from `texts`."""
        if vocab < 258:
            raise VolitionError(f"a vocabulary of {vocab} cannot hold the 256 bytes and two marks: give 258 or more")
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        learn = trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=[EOS, PAD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )  # fmt: skip
        bpe.train_from_iterator(texts, learn)
        return cls(PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=EOS, pad_token=PAD))

    @classmethod
    def load(cls, folder: str | Path) -> "Tokens":
        """The tokenizer of a model's folder."""
        try:
            return cls(AutoTokenizer.from_pretrained(str(folder), local_files_only=True), str(folder))
        except VolitionError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise VolitionError(f"cannot read the tokenizer in {folder} ({reason}): mend the folder") from None

    def save(self, folder: str | Path) -> None:
        """Write what `load` and transformers' AutoTokenizer read."""
        self.inner.save_pretrained(str(folder))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, none added."""
        return self.inner.encode(text, add_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, without marks."""
        return self.inner.decode(list(ids), skip_special_tokens=True)
