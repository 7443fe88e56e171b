"""The segmenter: documents to passages that fit the encoder."""

from flowdex_executors.segmenter.executor import Segmenter

__all__ = ["Segmenter"]
