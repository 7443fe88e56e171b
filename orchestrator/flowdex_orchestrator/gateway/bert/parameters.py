"""bert-as-service's flags and texts in the encoder's terms.

    Bert (section of the flow file) --encode_parameters--> {pooling, layers, max_length, normalize, tokens}
    "A ||| B", ["un", "##able"]     --documents_of-------> documents with text, text_pair, words

Layers are counted otherwise there: 0 is the first transformer layer, here it is the input embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flowdex.documents import DocumentBatch
from flowdex_orchestrator.flow.bert import ENCODER, Bert
from flowdex_orchestrator.gateway.bert.frames import Text

__all__ = ["Item", "documents_of", "encode_parameters", "read_text"]

_POOLING = {
    "NONE": "none",
    "REDUCE_MEAN": "mean",
    "REDUCE_MAX": "max",
    "REDUCE_MEAN_MAX": "mean_max",
    "FIRST_TOKEN": "cls",
    "CLS_TOKEN": "cls",
    "LAST_TOKEN": "sep",  # its last token is the last [SEP]
    "SEP_TOKEN": "sep",
}
_PAIR = "|||"
_CONTINUED = "##"


class Item(NamedTuple):
    """One text as the encoder takes it: alone, with a second one, or as words."""

    text: str
    pair: str | None = None
    words: list[str] | None = None


def encode_parameters(settings: Bert) -> dict[str, Any]:
    """The parameters of a request to `/encode`."""
    chosen: dict[str, Any] = {"tokens": True} if settings.show_tokens_to_client else {}
    if settings.pooling_strategy == ENCODER:
        return chosen
    chosen["pooling"] = _POOLING[settings.pooling_strategy]
    chosen["layers"] = [layer if layer < 0 else layer + 1 for layer in settings.pooling_layer]
    chosen["normalize"] = False
    if settings.max_seq_len is not None:
        chosen["max_length"] = settings.max_seq_len
    return chosen


def read_text(text: Text) -> Item:
    """A text, a pair of texts `A ||| B`, or tokens, in which the token `|||` makes a pair too."""
    if isinstance(text, list):
        words = _joined([word for word in text if word.strip()])
        if _PAIR in words[1:-1]:
            at = words.index(_PAIR, 1)
            return Item(" ".join(words[:at]), " ".join(words[at + 1 :]))
        return Item(" ".join(words), words=words)
    stripped = text.strip()
    first, separator, second = stripped.rpartition(f" {_PAIR} ")
    if separator and first.strip() and second.strip():
        return Item(first.strip(), second.strip())
    return Item(stripped)


def documents_of(texts: Sequence[Text]) -> DocumentBatch:
    """The texts as documents.

    Raises:
        InvalidInput: One cannot be sent.
    """
    items = [read_text(text) for text in texts]
    batch = DocumentBatch.from_columns(texts=[item.text for item in items])
    if any(item.pair is not None for item in items):
        batch.set_column("text_pair", [item.pair for item in items])
    if any(item.words is not None for item in items):
        batch.set_column("words", [item.words for item in items])
    return batch


def _joined(tokens: Sequence[str]) -> list[str]:
    """Words of BERT's word pieces: the encoder cuts words itself, and a piece such as `##able` is no word."""
    words: list[str] = []
    for token in tokens:
        if words and token.startswith(_CONTINUED) and len(token) > len(_CONTINUED):
            words[-1] += token[len(_CONTINUED) :]
        else:
            words.append(token)
    return words
