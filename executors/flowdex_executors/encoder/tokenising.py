"""Texts to token ids, with a model's own tokenizer.

    texts --prefix of over-long ones--> tokenizers.encode_batch_fast --> TokenSequence(ids, dropped)

Blocking code that releases the GIL: call it in a thread. A text far longer than the model's limit costs no more than
a prefix of it that holds enough tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from flowdex_executors.encoder.model_files import ModelFiles

__all__ = ["TextTokenizer", "TokenSequence", "load_tokenizer"]

# Few tokens of any language are longer than 16 characters on average, and if a text's are, its prefix grows.
_PREFIX_CHARACTERS_PER_TOKEN = 16
_PREFIX_GROWTH = 16
# A prefix ends inside of the text, where the cut may change the tokens next to it: so many must be to spare.
_SPARE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One tokenised text.

    Attributes:
        ids: Token ids, special tokens included.
        dropped: Whether truncation dropped tokens.
    """

    ids: list[int]
    dropped: bool = False

    def __len__(self) -> int:
        return len(self.ids)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a model folder, without padding and truncation.

    Raises:
        ConfigurationError: The folder holds no usable tokenizer.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:  # an older folder (vocab.txt, sentencepiece): transformers knows how to convert it
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True).backend_tokenizer
    except Exception as error:  # the library raises bare Exception
        raise ConfigurationError(f"{path} has no tokenizer that can be loaded: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class TextTokenizer:
    """Tokenises texts up to a limit.

    Args:
        files: The model.
        max_tokens: Longest sequence, special tokens included; longer ones are cut at the end.
    """

    def __init__(self, files: ModelFiles, max_tokens: int) -> None:
        self._tokenizer = load_tokenizer(files.path)
        self._tokenizer.enable_truncation(max_tokens)
        self._lower_case = files.lower_case
        self._special = self._tokenizer.num_special_tokens_to_add(False)
        self._prefix = max(2048, _PREFIX_CHARACTERS_PER_TOKEN * max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[TokenSequence]:
        """Tokenise; the result has a sequence for each text, and none has more than `max_tokens` tokens."""
        encodings: dict[int, Encoding] = {}
        pending = list(range(len(texts)))
        size = self._prefix
        while pending:
            encoded = self._tokenizer.encode_batch_fast([self._prepare(texts[index], size) for index in pending])
            again = []
            for index, encoding in zip(pending, encoded, strict=True):
                if len(texts[index]) > size and self._overflow(encoding) < _SPARE_TOKENS:
                    again.append(index)
                else:
                    encodings[index] = encoding
            pending = again
            size *= _PREFIX_GROWTH
        return [
            TokenSequence(encoding.ids, bool(encoding.overflowing))
            for encoding in (encodings[index] for index in range(len(texts)))
        ]

    def _prepare(self, text: str, size: int) -> str:
        """At most `size` characters of the text, cut before a space where there is one near."""
        if len(text) > size:
            space = text.rfind(" ", size // 2, size)
            text = text[: space if space > 0 else size]
        return text.lower() if self._lower_case else text

    def _overflow(self, encoding: Encoding) -> int:
        """How many tokens of its own the text has beyond the limit."""
        return sum(len(part) - self._special for part in encoding.overflowing)
