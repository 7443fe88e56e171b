"""The ranker: passages to documents, reranking, and ranking of texts without an index; see `executor`."""

from flowdex_executors.ranker.executor import Ranker

__all__ = ["Ranker"]
