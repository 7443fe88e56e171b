r"""Vector index: passages go in with their vectors, the best passages for a query come out.

    DocumentColumns --executor.py--> points.py --collection.py--> AsyncQdrantClient (http, grpc)  -> Qdrant server
                       |                                     \--> edge.py -> shards.py -> engine_process.py -> engine.py
                       +-- search.py <- filters.py, sparse.py

`QdrantIndexer` is the executor. It is written once against `AsyncQdrantClient` and `qdrant_client.models`; where the
index lives is a URI, see `settings.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdex_executors.indexer.executor import QdrantIndexer

__all__ = ["QdrantIndexer"]


def __getattr__(name: str) -> Any:
    # Lazy, because the engine's child process imports this package too, and must not pay for jina.
    if name == "QdrantIndexer":
        from flowdex_executors.indexer.executor import QdrantIndexer

        return QdrantIndexer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
