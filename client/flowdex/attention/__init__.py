"""Where each token of a text looks: what `Client.attention` returns, as numbers and as a page to look at.

    text, text_pair --to_batch--> document --/attention--> document --from_batch--> Attention --to_dict--> JSON
    JSON, with draw.js and draw.css --attention_html--> one HTML file that needs nothing else

The web page of the gateway draws with the same draw.js, from the same JSON.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError

__all__ = ["DRAWING", "Attention", "attention_html", "from_batch", "from_json", "to_batch"]

DRAWING = ("draw.js", "draw.css")
"""Files of this package that draw attention in a browser."""

_TITLE_CHARACTERS = 80


@dataclass(frozen=True)
class Attention:
    """The attention of a text, or of two texts that are read as one sequence.

    Attributes:
        text: The text.
        text_pair: The second one, if there is one.
        model: The model's name.
        tokens: The tokens, special ones included.
        spans: int32, shape (tokens, 2): [start, end) of each in characters of its own text, (0, 0) for special tokens.
        pair_start: Position of the first token of the second text.
        layers: Numbers of the layers in `weights`, from 0.
        weights: float32 or float16, shape (layers, heads, tokens, tokens): in each row, how much of each token went
            into the row's; a row sums to 1.
    """

    text: str
    text_pair: str | None
    model: str
    tokens: list[str]
    spans: npt.NDArray[np.int32]
    pair_start: int | None
    layers: tuple[int, ...]
    weights: npt.NDArray[Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values, as POST /attention answers; the weights are base64 of little-endian bytes."""
        weights = np.ascontiguousarray(self.weights, dtype=self.weights.dtype.newbyteorder("<"))
        return {
            "model": self.model,
            "text": self.text,
            "text_pair": self.text_pair,
            "tokens": self.tokens,
            "spans": self.spans.tolist(),
            "pair_start": self.pair_start,
            "layers": list(self.layers),
            "weights": {
                "dtype": str(self.weights.dtype),
                "shape": list(weights.shape),
                "data": base64.b64encode(weights.tobytes()).decode(),
            },
        }

    def to_html(self) -> str:
        """A page with the head view and the model view, which needs no other file and no network."""
        return attention_html(replace(self, weights=self.weights.astype(np.float16)).to_dict())


def to_batch(text: str, text_pair: str | None) -> DocumentBatch:
    """What is sent to /attention: one document, without an id, so that errors do not name one that nobody knows."""
    batch = DocumentBatch.from_columns(ids=[""], texts=[text])
    if text_pair is not None:
        batch.set_column("text_pair", [text_pair])
    return batch


def from_batch(reply: DocumentBatch) -> Attention:
    """Read the answer to `to_batch`.

    Raises:
        InternalError: It is none.
    """
    names = ("text_pair", "attention", "attention_about", "token_texts", "token_spans")
    columns = {name: reply.column(name) for name in names}
    weights = next(iter(columns["attention"]), None)
    if len(reply) != 1 or not isinstance(weights, np.ndarray) or weights.ndim != 4:
        raise InternalError("/attention answered no attention: does another executor of the flow change documents?")
    (pair,), (about,), (tokens,), (spans,) = (columns[name] for name in names if name != "attention")
    start = about.get("pair_start")
    return Attention(
        text=reply.texts[0] or "",
        text_pair=pair,
        model=str(about.get("model") or ""),
        tokens=[str(token) for token in tokens],
        spans=np.asarray(spans, dtype=np.int32).reshape(-1, 2),
        pair_start=None if start is None else int(start),
        layers=tuple(int(layer) for layer in about["layers"]),
        weights=weights,
    )


def from_json(reply: Mapping[str, Any]) -> Attention:
    """Read what POST /attention answers.

    Raises:
        InternalError: It is not the answer of a flowdex gateway.
    """
    from flowdex.transport.http_encode import read_array

    try:
        return Attention(
            text=reply["text"],
            text_pair=reply["text_pair"],
            model=reply["model"],
            tokens=reply["tokens"],
            spans=np.array(reply["spans"], dtype=np.int32).reshape(-1, 2),
            pair_start=reply["pair_start"],
            layers=tuple(reply["layers"]),
            weights=read_array(reply["weights"]),
        )
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise InternalError(f"/attention answered what a flowdex gateway does not ({type(error).__name__})") from None


def attention_html(values: Mapping[str, Any]) -> str:
    """A page that draws what `Attention.to_dict` gives, whatever its texts hold.

    Args:
        values: That.
    """
    folder = files(__package__)
    script, style, page = ((folder / name).read_text(encoding="utf-8") for name in (*DRAWING, "page.html"))
    text = " / ".join(filter(None, (values["text"], values["text_pair"])))
    title = text if len(text) <= _TITLE_CHARACTERS else f"{text[:_TITLE_CHARACTERS]}…"
    parts = {
        "title": html.escape(title),
        "model": html.escape(values["model"]),
        "style": style,
        "script": script,
        # In a script element only "<" can end it, and in JSON it stands in strings alone.
        "data": json.dumps(values).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)
