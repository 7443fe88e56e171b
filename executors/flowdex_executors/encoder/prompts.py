"""Prompts: texts that go before the text, because the model was trained so ("query: ", "passage: ").

    request's `prompt`, or the endpoint's --Prompts.name--> name --Prompts.text--> "query: " + text -> tokenizer

A document's `context` stands between the two: prompt, context, line break, text. Pairs of texts and words have neither:
the former are the input of models without prompts, and the latter no running text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.encoder.tokenising import Text, TokenSequence

__all__ = ["Prompts", "with_prefix", "without_prefix"]

# Names that sentence-transformers knows for what is searched with and what is searched.
_NAMES = {"search": ("query",), "index": ("document", "passage", "corpus")}


@dataclass(frozen=True)
class Prompts:
    """An encoder's prompts.

    Attributes:
        texts: The prompts by their names.
        default: Name of the one that /encode uses, and any endpoint that has none of its own.

    Raises:
        ConfigurationError: They are not texts, or the default is none of them.
    """

    texts: Mapping[str, str]
    default: str | None = None

    def __post_init__(self) -> None:
        texts = self.texts
        if not isinstance(texts, Mapping) or not all(isinstance(each, str) for pair in texts.items() for each in pair):
            raise ConfigurationError(f"prompts must be texts by their names, such as query: 'query: ', got {texts!r}")
        if self.default is not None and self.default not in texts:
            raise ConfigurationError(f"prompt {self.default!r} is none of the prompts: {self._choices()}")

    def name(self, asked: str | None, endpoint: str) -> str | None:
        """Name of the prompt to use at an endpoint ("encode", "index", "search"); None for none.

        What is asked for goes before the endpoint's own; an empty name asks for none.

        Raises:
            InvalidInput: The one asked for does not exist.
        """
        if asked and asked not in self.texts:
            raise InvalidInput(f"prompt {asked!r} is unknown; this encoder has: {self._choices()}")
        if asked == "":
            return None
        own = next((name for name in _NAMES.get(endpoint, ()) if name in self.texts), None)
        return asked or own or self.default

    def text(self, name: str | None) -> str:
        """The prompt of that name; nothing for None."""
        return "" if name is None else self.texts[name]

    def _choices(self) -> str:
        return ", ".join(self.texts) or "none"


def with_prefix(prefix: str, text: Text) -> Text:
    """The text with a prompt, a context or both before it."""
    return prefix + text if isinstance(text, str) else text


def without_prefix(prefix: str, text: Text, sequence: TokenSequence) -> TokenSequence:
    """The sequence of `with_prefix(prefix, text)` with spans in the text itself: those of the prefix are empty."""
    if not prefix or not isinstance(text, str):
        return sequence
    spans = [(max(0, start - len(prefix)), max(0, end - len(prefix))) for start, end in sequence.spans or ()]
    return replace(sequence, spans=spans)
