"""More than a vector a text: what `encode` takes and returns when it is asked for more than float32 rows.

    str | (text, text_pair) | [word, ...] --texts_batch--> documents --/encode--> documents --read_encodings--> Encoding

`EncodeChoices` are the parameters of a request; an encoder refuses those that its family does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, overload

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError, InvalidInput
from flowdex.inputs import WrongType, check_text

__all__ = [
    "EncodeChoices",
    "Encoding",
    "Encodings",
    "Receipt",
    "TextInput",
    "Tokens",
    "VectorChoices",
    "check_choices",
    "check_input",
    "read_encodings",
    "texts_batch",
    "wants_details",
]

T = TypeVar("T")

TextInput = str | tuple[str, str] | list[str]
"""A text, a pair of texts (a tuple), or a text that is cut into words already (a list)."""
Mode = Literal["mean", "max", "mean_max", "cls", "sep", "last", "weighted_mean", "mean_sqrt_len", "idf"]


# ---- what is asked for ----


class _Choices(TypedDict, total=False):
    layers: int | Sequence[int]
    layer_mode: Literal["concat", "mean"]
    normalize: bool
    truncation: Literal["error", "head", "tail", "window_mean"]
    max_length: int
    dimensions: int
    prompt: str


class VectorChoices(_Choices, total=False):
    """Choices with which a text still becomes one float32 vector."""

    pooling: Mode | Sequence[Mode]
    dtype: Literal["float32", "float16"]


class EncodeChoices(_Choices, total=False):
    """All choices; see `Client.encode`."""

    pooling: Mode | Literal["none"] | Sequence[Mode]
    dtype: Literal["float32", "float16", "int8", "binary"]
    tokens: bool
    attention: bool
    receipt: bool


_FIELDS = ("embedding", "scale", "token_texts", "token_spans", "token_vectors", "attention", "receipt")
_DETAILS = ("tokens", "attention", "receipt")


def check_choices(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices that are made; what they may be is for the encoder to say.

    Raises:
        TypeError: A name is none of `EncodeChoices`, as for any keyword argument that a function does not have.
    """
    for name in choices:
        if name not in EncodeChoices.__annotations__:
            raise TypeError(
                f"encode() has no argument {name!r}: it has {', '.join(EncodeChoices.__annotations__)}; parameters of "
                "an executor of your own go into `parameters`"
            )
    return {name: value for name, value in choices.items() if value is not None}


def wants_details(choices: Mapping[str, Any]) -> bool:
    """Whether the answer is more than a float32 vector a text."""
    return (
        any(choices.get(name) for name in _DETAILS)
        or choices.get("dtype") in ("int8", "binary")
        or choices.get("pooling") in ("none", ["none"], ("none",))
    )


def check_input(item: Any, where: str) -> int:
    """Check a text, a pair or words; `where` names it in the message.

    Returns:
        Its size in UTF-8 bytes.

    Raises:
        WrongType: It is none of these.
        InvalidInput: It is blank, or cannot be sent.
    """
    if isinstance(item, str):
        return check_text(item, where)
    if isinstance(item, tuple) and len(item) == 2 and all(isinstance(each, str) for each in item):
        return sum(check_text(each, f"{where}, part {part}") for part, each in enumerate(item, 1))
    if isinstance(item, list) and item and all(isinstance(each, str) for each in item):
        return check_text(" ".join(item), where)
    raise WrongType(
        f"{where} must be a string, a pair of texts (a tuple of two strings), a text as words (a list of strings) or a "
        f"document, got {type(item).__name__}"
    )


def texts_batch(items: Sequence[TextInput], ids: Sequence[str]) -> DocumentBatch:
    """Texts, pairs and words that `check_input` has passed, as documents."""
    texts = [_text_of(item) for item in items]
    batch = DocumentBatch.from_columns(ids=ids, texts=texts)
    if any(isinstance(item, tuple) for item in items):
        batch.set_column("text_pair", [item[1] if isinstance(item, tuple) else None for item in items])
    if any(isinstance(item, list) for item in items):
        batch.set_column("words", [item if isinstance(item, list) else None for item in items])
    return batch


def _text_of(item: TextInput) -> str:
    if isinstance(item, str):
        return item
    return item[0] if isinstance(item, tuple) else " ".join(item)


# ---- what comes back ----


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text, special ones included.

    Attributes:
        texts: Their strings, as the model's vocabulary has them.
        spans: int32, shape (tokens, 2): [start, end) in characters of the text, (0, 0) for special tokens. In the
            second part of a pair they are in the second text, for words in the words joined by single spaces.
        vectors: Shape (tokens, dim), of the chosen layers, neither pooled nor normalised; float16 where that was
            chosen, else float32.
    """

    texts: list[str]
    spans: npt.NDArray[np.int32]
    vectors: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {"texts": self.texts, "spans": self.spans.tolist(), "vectors": self.vectors.tolist()}


@dataclass(frozen=True)
class Receipt:
    """What was done for a text.

    Attributes:
        tokens: Tokens computed, special ones included; None where the encoder has none.
        dropped: Tokens that truncation cut off; None where the encoder has none.
        queue_ms: Milliseconds from the request's arrival at the encoder until its first text was computed.
        compute_ms: Milliseconds from then until its last text was.
        fingerprint: Short hash of what made the vector.
    """

    tokens: int | None = None
    dropped: int | None = None
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    fingerprint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Encoding:
    """One text's part of the answer: what was not asked for is None.

    Attributes:
        embedding: Shape (dim,); (tokens, dim) with pooling "none". float32, or what `dtype` says: float16, int8, or
            uint8 with eight signs a byte, the first in the highest bit.
        scale: With int8: the vector is about `embedding * scale`. One number; with pooling "none" one for each token.
        tokens: The tokens.
        attention: Shape (layers, heads, tokens, tokens).
        receipt: What was done.
    """

    embedding: npt.NDArray[Any]
    scale: float | npt.NDArray[np.float32] | None = None
    tokens: Tokens | None = None
    attention: npt.NDArray[Any] | None = None
    receipt: Receipt | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values, without what was not asked for."""
        values: dict[str, Any] = {"embedding": self.embedding.tolist()}
        if self.scale is not None:
            values["scale"] = self.scale if isinstance(self.scale, float) else self.scale.tolist()
        if self.tokens is not None:
            values["tokens"] = self.tokens.to_dict()
        if self.attention is not None:
            values["attention"] = self.attention.tolist()
        if self.receipt is not None:
            values["receipt"] = self.receipt.to_dict()
        return values


class Encodings(Sequence[Encoding]):
    """The answer to `encode` where more than vectors was asked for: a sequence, and its columns.

    Args:
        items: One for each text, in order.
    """

    def __init__(self, items: Sequence[Encoding]) -> None:
        self._items = list(items)

    @classmethod
    def from_vectors(cls, vectors: npt.NDArray[Any]) -> Encodings:
        """The same for rows of an array, shape (n, dim)."""
        return cls([Encoding(row) for row in vectors])

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Encoding]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Encoding: ...
    @overload
    def __getitem__(self, index: slice) -> Encodings: ...
    def __getitem__(self, index: int | slice) -> Encoding | Encodings:
        return Encodings(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __repr__(self) -> str:
        first = self._items[0]
        given = ("scale", "tokens", "attention", "receipt")
        fields = ", ".join(["embedding", *(name for name in given if getattr(first, name) is not None)])
        return f"Encodings({len(self)} texts, {first.embedding.dtype} of {first.embedding.shape[-1]}; {fields})"

    @property
    def embeddings(self) -> npt.NDArray[Any]:
        """All vectors, shape (n, dim), of the number type that was chosen.

        Raises:
            InvalidInput: With pooling "none" each text has a matrix of its own.
        """
        if self._items[0].embedding.ndim != 1:
            raise InvalidInput("with pooling 'none' a text has a matrix: read `embedding` of each item")
        return np.stack([each.embedding for each in self._items])

    @property
    def scales(self) -> npt.NDArray[np.float32]:
        """With int8: what each row of `embeddings` is to be multiplied with, shape (n,)."""
        scales = self._column(lambda each: each.scale, "dtype='int8'")
        if not all(isinstance(scale, float) for scale in scales):
            raise InvalidInput("with pooling 'none' each token has a scale: read `scale` of each item")
        return np.array(scales, dtype=np.float32)

    @property
    def tokens(self) -> list[Tokens]:
        """The tokens of each text."""
        return self._column(lambda each: each.tokens, "tokens=True")

    @property
    def attentions(self) -> list[npt.NDArray[Any]]:
        """The attention of each text."""
        return self._column(lambda each: each.attention, "attention=True")

    @property
    def receipts(self) -> list[Receipt]:
        """The receipt of each text."""
        return self._column(lambda each: each.receipt, "receipt=True")

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON-like values, one a text."""
        return [each.to_dict() for each in self._items]

    def _column(self, read: Callable[[Encoding], T | None], asked: str) -> list[T]:
        values = [read(each) for each in self._items]
        found = [value for value in values if value is not None]
        if len(found) != len(values):
            raise InvalidInput(f"the answer has no such column: call encode with {asked}")
        return found


def read_encodings(reply: DocumentBatch) -> list[Encoding]:
    """What a reply to /encode holds of each text.

    Raises:
        InternalError: A document has no vector.
    """
    columns = {name: reply.column(name) for name in _FIELDS}
    return [_encoding(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _encoding(fields: Mapping[str, Any]) -> Encoding:
    embedding, scale, attention, receipt = (fields[name] for name in ("embedding", "scale", "attention", "receipt"))
    if not isinstance(embedding, np.ndarray):
        raise InternalError("the flow answered no vectors: does an executor of it bind /encode?")
    texts, spans, vectors = (fields[name] for name in ("token_texts", "token_spans", "token_vectors"))
    tokens = None
    if isinstance(spans, np.ndarray) and isinstance(vectors, np.ndarray):
        tokens = Tokens([str(text) for text in texts or ()], spans.astype(np.int32, copy=False), vectors)
    return Encoding(
        embedding=embedding,
        scale=scale if scale is None or isinstance(scale, np.ndarray) else float(scale),
        tokens=tokens,
        attention=attention if isinstance(attention, np.ndarray) else None,
        receipt=_receipt(receipt) if isinstance(receipt, Mapping) else None,
    )


def _receipt(values: Mapping[str, Any]) -> Receipt:
    return Receipt(
        tokens=None if values.get("tokens") is None else int(values["tokens"]),
        dropped=None if values.get("dropped") is None else int(values["dropped"]),
        queue_ms=float(values.get("queue_ms", 0.0)),
        compute_ms=float(values.get("compute_ms", 0.0)),
        fingerprint=str(values.get("fingerprint", "")),
    )
