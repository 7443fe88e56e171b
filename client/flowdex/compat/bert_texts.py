"""Texts as bert-as-service takes them, in the encoder's terms: for the gateway and for our own BertClient.

"A ||| B" -> ("A", "B")        ["un", "##able"] -> ["unable"]
"""

from __future__ import annotations

from collections.abc import Sequence

from flowdex.documents import DocumentBatch, new_ids
from flowdex.encodings import TextInput, texts_batch

__all__ = ["documents_of", "read_text"]

_PAIR = "|||"
_CONTINUED = "##"


def read_text(text: str | list[str]) -> TextInput:
    """A text, a pair of texts `A ||| B`, or tokens, in which the token `|||` makes a pair too."""
    if isinstance(text, list):
        words = _joined([word for word in text if word.strip()])
        if _PAIR in words[1:-1]:
            at = words.index(_PAIR, 1)
            return " ".join(words[:at]), " ".join(words[at + 1 :])
        return words
    stripped = text.strip()
    first, _, second = stripped.rpartition(f" {_PAIR} ")
    return (first.strip(), second.strip()) if first.strip() and second.strip() else stripped


def documents_of(texts: Sequence[str | list[str]]) -> DocumentBatch:
    """The texts as documents.

    Raises:
        InvalidInput: One cannot be sent.
    """
    return texts_batch([read_text(text) for text in texts], new_ids(len(texts)))


def _joined(tokens: Sequence[str]) -> list[str]:
    """Words of BERT's word pieces: the encoder cuts words itself, and a piece such as `##able` is no word."""
    words: list[str] = []
    for token in tokens:
        if words and token.startswith(_CONTINUED) and len(token) > len(_CONTINUED):
            words[-1] += token[len(_CONTINUED) :]
        else:
            words.append(token)
    return words
