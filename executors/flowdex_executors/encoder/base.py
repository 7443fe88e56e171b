"""The encoder executor: what all families of models share.

    documents -> texts -> tokenise (a thread) -> batcher -> forward, pool, normalise (compute threads) -> embeddings

A family subclasses `Encoder`, loads its model in the constructor and says how texts become sequences and how a batch of
sequences becomes vectors:

    class Lengths(Encoder):
        dimensions = 1

        def tokenise(self, texts):
            return [text.split() for text in texts]

        def encode_batch(self, batch):
            return np.array([[len(words)] for words in batch], dtype=np.float32)
"""

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jina import Executor, requests

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, ExecutorError, InvalidInput
from flowdex_executors.encoder.batching import Batcher, SequenceFailed
from flowdex_executors.schema import DocumentColumns

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["Encoder", "Vectors", "available_cores", "check_options"]

Vectors = npt.NDArray[np.float32]

_TOKENISE_AT_ONCE = 256  # texts; a bulk request must not keep the tokeniser from an interactive one


class Encoder(Executor):  # type: ignore[misc]  # jina is untyped
    """Gives every document a vector; see the module's docstring for what a subclass adds.

    Args:
        batch_tokens: Tokens of a batch.
        threads: Compute threads; None for as many as there are cores (or `OMP_NUM_THREADS`).
        **kwargs: Jina's own.

    Attributes:
        dimensions: Size of a vector. The subclass sets it.
        concurrent: Tells flowdex's worker that endpoints may run at the same time: the batcher lives on that.

    Raises:
        ConfigurationError: An option is out of range.
    """

    concurrent: ClassVar[bool] = True
    dimensions: int
    padded: bool = False

    def __init__(self, *, batch_tokens: int = 1024, threads: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, problem in check_options({"batch_tokens": batch_tokens, "threads": threads}).items():
            raise ConfigurationError(f"{name} {problem}")
        self.batch_tokens = batch_tokens
        self.threads = threads or available_cores()
        self._encoded = 0
        self._batcher: Batcher[Any, Vectors] | None = None
        self._starting = threading.Lock()

    # ---- what a family adds ----

    @abstractmethod
    def tokenise(self, texts: Sequence[str]) -> Sequence[Any]:
        """Texts to sequences, one each; a sequence has a length, its number of tokens. Called in a thread."""

    @abstractmethod
    def encode_batch(self, batch: list[Any]) -> Vectors:
        """Vectors of a batch of sequences, float32 of shape (len(batch), dimensions).

        Called in the compute threads, several at the same time. A sequence's vector must not depend on its neighbours.
        """

    def prepare_thread(self) -> None:
        """Called once in each compute thread, before its first batch."""

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {"model": type(self).__name__, "dimensions": self.dimensions}

    # ---- endpoints ----

    @requests(on="/encode")  # type: ignore[untyped-decorator]
    async def encode(self, docs: DocumentColumns, **kwargs: Any) -> DocumentColumns:
        """Give every document (where it has chunks: every chunk) the embedding of its text, replacing any it has.

        Raises:
            InvalidInput: A text is blank or absent; nothing was computed.
        """
        await self._embed(docs.batch, keep=False)
        return docs

    @requests(on=["/index", "/search"])  # type: ignore[untyped-decorator]
    async def embed(self, docs: DocumentColumns, **kwargs: Any) -> DocumentColumns:
        """As `/encode`, but what has an embedding keeps it: a caller may index and search vectors of its own."""
        await self._embed(docs.batch, keep=True)
        return docs

    @requests(  # type: ignore[untyped-decorator]
        on="/status", request_schema=DocumentColumns, response_schema=DocumentColumns
    )
    async def status(self, **kwargs: Any):  # type: ignore[no-untyped-def]  # of a dict, Jina would warn
        """What this encoder is and does."""
        return {
            **self.about(),
            "threads": self.threads,
            "batch_tokens": self.batch_tokens,
            "queue": self._batcher.waiting if self._batcher else 0,
            "documents_encoded": self._encoded,
        }

    # ---- for hosts ----

    def warm_up(self) -> None:
        """Run real forward passes, a short and a long one in each thread, so that no caller pays for the first."""
        word, sentence = "warm", "warm up " * 64
        for text in (word, sentence):
            self._submit(self.tokenise([text] * self.threads)).result()

    def close(self) -> None:
        """Stop the compute threads; requests in the queue fail as unavailable."""
        if self._batcher is not None:
            self._batcher.close()
        super().close()

    # ---- the work ----

    async def _embed(self, documents: DocumentBatch, *, keep: bool) -> None:
        targets, name = _targets(documents, keep=keep)
        if not targets:
            return
        sequences = await self._tokenise(_checked_texts(targets, name))
        for index, sequence in enumerate(sequences):
            if not len(sequence):
                raise InvalidInput(f"{name(index)} has a text in which the tokenizer finds no token")
        try:
            vectors = await asyncio.wrap_future(self._submit(sequences))
        except SequenceFailed as failure:
            raise ExecutorError(
                f"{name(failure.index)} cannot be encoded: the model failed with {type(failure.__cause__).__name__}; "
                "the encoder's log has the details"
            ) from failure
        targets.embeddings = np.stack(vectors)
        self._encoded += len(targets)

    async def _tokenise(self, texts: Sequence[str]) -> list[Any]:
        sequences: list[Any] = []
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            sequences += await asyncio.to_thread(self.tokenise, texts[start : start + _TOKENISE_AT_ONCE])
        return sequences

    def _submit(self, sequences: Sequence[Any]) -> Future[list[Vectors]]:
        with self._starting:
            if self._batcher is None:  # not in the constructor, because the subclass's is not through then
                self._batcher = Batcher(
                    self._run,
                    budget=self.batch_tokens,
                    threads=self.threads,
                    padded=self.padded,
                    prepare_thread=self.prepare_thread,
                )
        return self._batcher.submit(sequences)

    def _run(self, batch: list[Any]) -> Sequence[Vectors]:
        """Compute a batch, sorted by length: neighbours of equal length share an attention call, padding is least."""
        order = sorted(range(len(batch)), key=lambda index: len(batch[index]))
        vectors = np.empty((len(batch), self.dimensions), dtype=np.float32)
        vectors[order] = self.encode_batch([batch[index] for index in order])
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the model gave a vector that is not finite")
        return list(vectors)


def check_options(options: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the options that all encoders share, by name."""
    return {
        name: f"must be a whole number of at least 1, got {value!r}"
        for name in ("batch_tokens", "threads")
        if (value := options.get(name)) is not None
        and (isinstance(value, bool) or not isinstance(value, int) or value < 1)
    }


def available_cores() -> int:
    """Compute threads that fit: `OMP_NUM_THREADS`, or the cores this process may use, within a container's limit."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        pass
    return cores


def _targets(documents: DocumentBatch, *, keep: bool) -> tuple[DocumentBatch, Callable[[int], str]]:
    """The documents to encode, chunks in the place of documents that have them, and how to name each in an error."""
    chosen: list[Any] = []
    places: list[tuple[int, int | None]] = []
    for index, (document, chunks) in enumerate(zip(documents, documents.nested("chunks"), strict=True)):
        for position, target in enumerate(chunks or [document]):
            node = target.data.get("embedding") if keep else None
            if node is None or node.WhichOneof("content") is None:
                chosen.append(target)
                places.append((index, position if chunks else None))

    def name(target: int) -> str:
        index, position = places[target]
        identifier = documents.select([index]).ids[0]
        document = f"document {index}" + (f" (id {identifier!r})" if identifier else "")
        return document if position is None else f"{document}, chunk {position}"

    return DocumentBatch(chosen), name


def _checked_texts(targets: DocumentBatch, name: Callable[[int], str]) -> list[str]:
    texts: list[str] = []
    for index, text in enumerate(targets.texts):
        if text is None:
            raise InvalidInput(f"{name(index)} has no text to encode")
        if not text or text.isspace():
            raise InvalidInput(f"{name(index)} has a blank text; leave it out, or give it words")
        texts.append(text)
    return texts
