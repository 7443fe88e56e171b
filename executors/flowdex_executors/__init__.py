"""The executors of a flow: segmenter, encoders, indexer, ranker.

Names are imported on first use, so that a process loads only what the executor it hosts needs, and a part whose extra
is not installed gets in nobody's way. Stock Jina is the exception: it imports this package and then looks for a class
that has been defined by then, so where jina is there already, all of them are.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdex_executors.encoder import BertEncoder
    from flowdex_executors.encoder.custom import CallableEncoder, OnnxEncoder, TorchScriptEncoder
    from flowdex_executors.encoder.elmo.executor import ElmoEncoder
    from flowdex_executors.encoder.gpt import GptEncoder
    from flowdex_executors.encoder.ulmfit.executor import UlmfitEncoder
    from flowdex_executors.encoder.word_vectors.executor import WordVectorEncoder
    from flowdex_executors.indexer import QdrantIndexer
    from flowdex_executors.ranker import Ranker
    from flowdex_executors.schema import DocumentColumns
    from flowdex_executors.segmenter import Segmenter

__all__ = [
    "BertEncoder",
    "CallableEncoder",
    "DocumentColumns",
    "ElmoEncoder",
    "GptEncoder",
    "OnnxEncoder",
    "QdrantIndexer",
    "Ranker",
    "Segmenter",
    "TorchScriptEncoder",
    "UlmfitEncoder",
    "WordVectorEncoder",
]

_MODULES = {
    "BertEncoder": "flowdex_executors.encoder",
    "CallableEncoder": "flowdex_executors.encoder.custom",
    "DocumentColumns": "flowdex_executors.schema",
    "ElmoEncoder": "flowdex_executors.encoder.elmo.executor",
    "GptEncoder": "flowdex_executors.encoder.gpt",
    "OnnxEncoder": "flowdex_executors.encoder.custom",
    "QdrantIndexer": "flowdex_executors.indexer",
    "Ranker": "flowdex_executors.ranker",
    "Segmenter": "flowdex_executors.segmenter",
    "TorchScriptEncoder": "flowdex_executors.encoder.custom",
    "UlmfitEncoder": "flowdex_executors.encoder.ulmfit.executor",
    "WordVectorEncoder": "flowdex_executors.encoder.word_vectors.executor",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # asked once only
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])


if "jina" in sys.modules:
    for _name in _MODULES:
        with suppress(ImportError):  # says so when it is used
            __getattr__(_name)
