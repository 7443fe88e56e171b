"""Encoders: executors that give every text a vector.

    texts --tokenise--> token sequences --batcher--> forward --> token vectors --pool, normalise--> vectors

`base.Encoder` is the executor and does everything but the first and the third step, which a family of models adds:
`bert.BertEncoder` for BERT and every other transformer encoder. The parts stand by themselves, free of Jina:
`batching` (who is computed next), `pooling` (token vectors to one), `model_files` (what a model's folder says),
`tokenising`, and the forward passes `packed_bert` and `transformers_backend`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdex_executors.encoder.base import Encoder
    from flowdex_executors.encoder.bert import BertEncoder
    from flowdex_executors.encoder.token_encoder import TokenEncoder

__all__ = ["BertEncoder", "Encoder", "TokenEncoder"]

_MODULES = {
    "BertEncoder": "flowdex_executors.encoder.bert",
    "Encoder": "flowdex_executors.encoder.base",
    "TokenEncoder": "flowdex_executors.encoder.token_encoder",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
