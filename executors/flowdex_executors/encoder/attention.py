"""Where each token looks: the attention of a text, or of two that are read as one sequence, for people to see.

    text, text_pair --tokenizer--> one sequence --batcher--> AttentionSource's backend --> (layers, heads, n, n)

The fused operators of ONNX Runtime and CTranslate2 keep the weights to themselves. An encoder on one of them names
another way to compute its model (`AttentionModel`), which is loaded when attention is first asked for and then kept;
what it gives is the attention of the folder's own weights, not of their 8-bit copies.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from flowdex.errors import InvalidInput, TooLarge
from flowdex_executors.encoder.backend import Backend
from flowdex_executors.encoder.tokenising import TokenSequence
from flowdex_executors.encoder.views import View

__all__ = [
    "ATTENTION_VIEW",
    "AttentionModel",
    "AttentionParameters",
    "AttentionSource",
    "check_size",
    "chosen_layers",
]

ATTENTION_VIEW = View(layers=(), average=False, pooling=(), tokens=False, attention=True)
"""Of a sequence whose attention is wanted, and no vector."""

_BYTES = 32 * 2**20  # of one request: a reply of 64 MiB is the default limit


class AttentionParameters(BaseModel):
    """What a request to /attention may choose.

    Attributes:
        layers: Layers of attention, from 0; negative numbers count from the top. None for all.
        dtype: Number type of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=64)
    dtype: Literal["float32", "float16"] = "float32"

    @field_validator("layers", mode="before")
    @classmethod
    def _one_layer(cls, value: Any) -> Any:
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class AttentionModel:
    """A model that tells its attention, for an encoder whose backend does not.

    Attributes:
        shape: Its layers, and heads of a layer.
        load: Loads it; blocking. Raises `InvalidInput` where it cannot be, with the remedy.
    """

    shape: tuple[int, int]
    load: Callable[[], Backend]


class AttentionSource:
    """What gives attention: the encoder's own backend, or a model that is loaded when it is first needed.

    Args:
        backend: The encoder's own.
        model: In its place, where it has none to give; None for none.

    Attributes:
        shape: Layers, and heads of a layer; None where there is no attention.
    """

    def __init__(self, backend: Backend, model: AttentionModel | None = None) -> None:
        own: tuple[int, int] | None = getattr(backend, "attention_shape", None)
        self.shape = own or (model.shape if model else None)
        self._backend = backend if own else None
        self._model = model
        self._loading = threading.Lock()

    @property
    def backend(self) -> Backend | None:
        """What computes it; None where it is yet to be loaded."""
        return self._backend

    def load(self) -> None:
        """Load the model, unless it is there; blocking, and safe to call from several threads."""
        with self._loading:
            if self._backend is None and self._model is not None:
                self._backend = self._model.load()


def chosen_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    """Layers of attention as numbers from 0; all for None.

    Raises:
        InvalidInput: There is no such layer.
    """
    if layers is None:
        return list(range(count))
    for layer in layers:
        if not -count <= layer < count:
            raise InvalidInput(
                f"layers: there is no layer {layer} of attention; this model has {count}: 0 to {count - 1}, or "
                f"-{count} to -1, counted from the top"
            )
    return [layer % count for layer in layers]


def check_size(sequences: Sequence[TokenSequence], shape: tuple[int, int]) -> None:
    """Refuse sequences whose attention does not fit into a reply.

    Raises:
        TooLarge: It does not.
    """
    layers, heads = shape
    size = sum(4 * layers * heads * len(sequence) ** 2 for sequence in sequences)
    if size > _BYTES:
        raise TooLarge(
            f"the attention of these documents is {size >> 20} MiB, more than the {_BYTES >> 20} MiB that a request "
            "may ask for; send fewer or shorter texts, or lower max_length"
        )
