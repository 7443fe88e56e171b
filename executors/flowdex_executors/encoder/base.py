"""The encoder executor: what all encoders share.

    documents -> texts -> tokenise (a thread) -> batcher -> encode_batch (compute threads) -> cut, normalise -> fields

An encoder of one's own is a subclass that says how a batch of texts becomes vectors:

    class Vowels(Encoder):
        def encode_batch(self, batch):
            return np.array([[text.count(vowel) for vowel in "aeiou"] for text in batch], dtype=np.float32)

One that has a tokenizer overrides `tokenise` too, and then gets what that returned. Families of models that give token
vectors build on `token_encoder.TokenEncoder` instead, which pools them and lets a request choose how.
"""

import asyncio
import os
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from jina import Executor, requests
from pydantic import ValidationError

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, ExecutorError, FlowdexError, InvalidInput
from flowdex.priority import asked
from flowdex.queue_clock import QueueClock
from flowdex.work_notes import note
from flowdex_executors.encoder.batching import Batcher, SequenceFailed
from flowdex_executors.encoder.fingerprint import fingerprint, fingerprint_id
from flowdex_executors.encoder.memory import keep_freed_memory
from flowdex_executors.encoder.output import (
    OutputParameters,
    Vectors,
    check_finite,
    write_embeddings,
    write_receipts,
)
from flowdex_executors.encoder.targets import Targets, find_targets
from flowdex_executors.failures import mark, unmarked
from flowdex_executors.parameters import parse_parameters, remember
from flowdex_executors.schema import DocumentColumns

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["Encoder", "Endpoint", "Vectors", "available_cores", "check_options"]

T = TypeVar("T")
Endpoint: TypeAlias = Literal["encode", "index", "search"]

_CANARY = "The quick brown fox jumps over the lazy dog."
_TOKENISE_AT_ONCE = 256  # texts; a bulk request must not keep the tokeniser from an interactive one
_CHARACTERS_PER_TOKEN = 4
_LONGEST_KEY = 500  # characters of parameters that are kept
_NO_MEMORY = ("out of memory", "allocate memory", "failed to allocate", "alloc_failed")


class Encoder(Executor):  # type: ignore[misc]  # jina is untyped
    """Gives every document a vector; see the module's docstring for what a subclass adds.

    Args:
        batch_tokens: Tokens of a batch.
        threads: Compute threads; None for as many as there are cores (or `OMP_NUM_THREADS`).
        normalize: Whether vectors are scaled to length 1, where a request does not say; so for `dtype`.
        dtype: Number type of the vectors.
        output: Defaults of further parameters that a subclass lets a request give.
        fingerprint_parts: What else the vectors depend on, as JSON values: a version, or
            `{"weights": digest_files(path)}`.
        **kwargs: Jina's own.

    Attributes:
        dimensions: Size of a vector; None until the first one is computed, where the subclass does not set it.
        concurrent: Tells flowdex's worker that endpoints may run at the same time: the batcher lives on that.
        tenants: Tells it that documents of tenants do not mix here: an encoder keeps none.
        splittable: Tells flowdex's gateway that a large request at these endpoints may be divided between replicas.
        padded: Whether `encode_batch` computes on padding, so that it counts against `batch_tokens`.

    Raises:
        ConfigurationError: An option is out of range.
    """

    concurrent: ClassVar[bool] = True
    tenants: ClassVar[bool] = True
    splittable: ClassVar[frozenset[str]] = frozenset({"/encode", "/index", "/search"})
    parameters_model: ClassVar[type[OutputParameters]] = OutputParameters
    dimensions: int | None = None
    padded: bool = False

    def __init__(
        self,
        *,
        batch_tokens: int = 1024,
        threads: int | None = None,
        normalize: bool = False,
        dtype: str = "float32",
        output: Mapping[str, Any] | None = None,
        fingerprint_parts: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, problem in check_options({"batch_tokens": batch_tokens, "threads": threads}).items():
            raise ConfigurationError(f"{name} {problem}")
        self.batch_tokens = batch_tokens
        self.threads = threads or available_cores()
        self.defaults = self.checked_defaults({"normalize": normalize, "dtype": dtype, **(output or {})})
        self.fingerprint_parts = dict(fingerprint_parts or {})
        self._parsed: dict[str, OutputParameters] = {}
        self._encoded = 0
        self._batcher: Batcher[Any, Any] | None = None
        self._starting = threading.Lock()
        self._canary: npt.NDArray[np.float64] | None = None

    # ---- what a subclass adds ----

    @abstractmethod
    def encode_batch(self, batch: list[Any]) -> Vectors:
        """Vectors of a batch of texts, or of what `tokenise` made of them: numbers of shape (len(batch), dimensions).

        Called in the compute threads, several at the same time. A text's vector must not depend on its neighbours.
        """

    def tokenise(self, texts: Sequence[str]) -> Sequence[Any]:
        """Texts to what `encode_batch` takes, one each: the texts themselves, or sequences of tokens.

        Called in a thread. The length of a sequence is its number of tokens, that of a text is guessed.
        """
        return texts

    def use_cores(self, cores: int) -> None:
        """Called in a compute thread, before its first batch with 1, and when it is to use another number of cores.

        That is 1 while several batches are computed at the same time, and more for a short text alone. An encoder that
        always uses one core has nothing to do here.
        """

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {"model": type(self).__name__, "dimensions": self.dimensions}

    # ---- endpoints ----

    @requests(on="/encode")  # type: ignore[untyped-decorator]
    async def encode(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Give every document (where it has chunks: every chunk) the embedding of its text, replacing any it has.

        Where it has a `context`, the embedding is that of the context, a line break and the text.

        Raises:
            InvalidInput: A text is blank or absent, or a parameter is wrong; nothing was computed.
        """
        await self._embed(docs.batch, parameters, "encode")
        return docs

    @requests(on="/index")  # type: ignore[untyped-decorator]
    async def index(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """As `/encode`, but what has an embedding keeps it: a caller may index vectors of its own.

        A document of which something was encoded gets the field `fingerprint`. One that cannot be encoded gets an
        `error`, and one that has an error already is left as it is; the others are encoded.
        """
        await self._embed(docs.batch, parameters, "index")
        return docs

    @requests(on="/search")  # type: ignore[untyped-decorator]
    async def search(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """As `/index`, for queries."""
        await self._embed(docs.batch, parameters, "search")
        return docs

    @requests(  # type: ignore[untyped-decorator]
        on="/status", request_schema=DocumentColumns, response_schema=DocumentColumns
    )
    async def status(self, **kwargs: Any):  # type: ignore[no-untyped-def]  # of a dict, Jina would warn
        """What this encoder is and does."""
        return {
            **self.about(),
            "fingerprint": self.fingerprint(self.defaults),
            "threads": self.threads,
            "batch_tokens": self._batcher.budget if self._batcher else self.batch_tokens,
            "queue": self._batcher.waiting if self._batcher else 0,
            "queue_ms": round(self.queue_ms, 1),
            "documents_encoded": self._encoded,
        }

    # ---- for hosts ----

    @property
    def queue_ms(self) -> float:
        """Mean milliseconds that requests of the last seconds have waited for a compute thread; for autoscaling."""
        return self._batcher.queue.mean_ms() if self._batcher else 0.0

    @property
    def queue_clock(self) -> QueueClock | None:
        """Times how long requests wait for a compute thread; None before the first."""
        return self._batcher.queue if self._batcher else None

    @property
    def work_done(self) -> int:
        """Sequences computed so far: while it grows, a canary that waits is not late."""
        return self._batcher.counts.done if self._batcher else 0

    async def canary(self) -> float | None:
        """Encode a text of our own as callers' texts are, with the defaults, and compare it with the first time.

        Returns:
            The cosine of its vector with the one that was computed first; None where the tokenizer finds no token.
        """
        sequences = await asyncio.to_thread(self.tokenise, [_CANARY])
        if not len(sequences[0]):
            return None
        (row,) = await asyncio.wrap_future(self.submit_sequences(sequences))
        vector = np.ravel(self.vector_of(row)).astype(np.float64)
        if self._canary is None:
            self._canary = vector
        return _cosine(self._canary, vector)

    def submit_sequences(self, sequences: Sequence[Any]) -> Future[list[Any]]:
        """Queue what `tokenise` gave, to be encoded with the defaults; see `submit`."""
        return self.submit(sequences)

    def vector_of(self, row: Any) -> Vectors:
        """The numbers of one result of `submit_sequences`."""
        return np.asarray(row)

    def metrics(self) -> "Iterator[Metric]":
        """What Prometheus reads beside what it reads of every executor."""
        from prometheus_client.core import CounterMetricFamily, InfoMetricFamily

        from flowdex_executors.encoder.batch_metrics import batch_metrics

        about = {"fingerprint": fingerprint_id(self.fingerprint(self.defaults)), **self.about()}
        named = ("model", "backend", "device", "compute_dtype", "fingerprint", "dimensions")
        yield InfoMetricFamily(
            "flowdex_encoder", "The model.", {key: str(about[key]) for key in named if about.get(key) is not None}
        )
        yield CounterMetricFamily("flowdex_encoder_texts_total", "Texts that were encoded.", self._encoded)
        if self._batcher is not None:
            yield from batch_metrics(self._batcher)

    def warm_up(self) -> None:
        """Run real forward passes, a short and a long one in each thread, so that no caller pays for the first."""
        word, sentence = "warm", "warm up " * 64
        for text in (word, sentence):
            self.submit_sequences(self.tokenise([text] * self.threads)).result()

    def close(self) -> None:
        """Stop the compute threads; requests in the queue fail as unavailable."""
        if self._batcher is not None:
            self._batcher.close()
        super().close()

    # ---- the work ----

    async def _embed(self, documents: DocumentBatch, parameters: Mapping[str, Any] | None, endpoint: Endpoint) -> None:
        options = self.for_endpoint(self.options(parameters, keep=endpoint != "encode"), endpoint)
        if endpoint == "index":
            await self._embed_each(documents, options)
        else:
            await self._embed_all(documents, options, keep=endpoint == "search")

    async def _embed_all(
        self, documents: DocumentBatch, options: OutputParameters, *, keep: bool, rows: list[int] | None = None
    ) -> None:
        targets = find_targets(documents, keep=keep, rows=rows)
        if not targets:
            return
        await self.compute(targets, options)
        if keep:
            owners = targets.owners()
            owners.set_column("fingerprint", [self.fingerprint(options)] * len(owners))
        self._encoded += len(targets)

    async def _embed_each(self, documents: DocumentBatch, options: OutputParameters) -> None:
        """Embed the documents that nothing has failed on; mark those that cannot be, and only those."""
        failures: dict[int, FlowdexError] = {}

        async def embed(rows: list[int]) -> None:
            try:
                await self._embed_all(documents, options, keep=True, rows=rows)
            except (InvalidInput, ExecutorError) as error:
                if len(rows) == 1:
                    failures[rows[0]] = error
                    return
                # Halve until the document at fault stands alone: rare, and whatever it is that fails.
                await embed(rows[: len(rows) // 2])
                await embed(rows[len(rows) // 2 :])

        if rows := unmarked(documents):
            await embed(rows)
        mark(documents, failures)

    def options(self, parameters: Mapping[str, Any] | None, *, keep: bool) -> OutputParameters:
        """The parameters of a request, the encoder's defaults in the place of what is not given.

        Args:
            parameters: As they came.
            keep: Whether the vectors are for an index.

        Raises:
            InvalidInput: One is wrong.
        """
        if not parameters:
            return self.defaults
        key = repr(parameters)  # callers send the same few again and again
        options = self._parsed.get(key)
        if options is None:
            options = parse_parameters(self.parameters_model, {**self.defaults.model_dump(), **_given(parameters)})
            if len(key) <= _LONGEST_KEY:
                remember(self._parsed, key, options)
        return options

    def for_endpoint(self, options: OutputParameters, endpoint: Endpoint) -> OutputParameters:
        """The options as they are at an endpoint.

        Raises:
            InvalidInput: They are not for this one.
        """
        if endpoint != "encode" and options.dtype in ("int8", "binary"):
            raise InvalidInput(
                f"dtype: {options.dtype} is for /encode only; an index compares vectors of float32 or float16"
            )
        return options

    def fingerprint(self, options: OutputParameters) -> str:
        """What makes the vectors with these options, in one line; see `encoder.fingerprint`."""
        return fingerprint(
            {
                "model": type(self).__qualname__,
                "dimensions": options.dimensions or self.dimensions,
                "normalize": options.normalize,
                "dtype": options.dtype,
                **self.fingerprint_parts,
            }
        )

    async def compute(self, targets: Targets, options: OutputParameters) -> None:
        """Encode the targets and write their fields."""
        texts = [context + text for context, text in zip(targets.contexts(), targets.texts(), strict=True)]
        sequences = await self.in_parts(self.tokenise, texts)
        for index, sequence in enumerate(sequences):
            if not len(sequence):
                raise InvalidInput(f"{targets.name(index)} has a text in which the tokenizer finds no token")
        pending = self.submit(sequences)
        rows = await self.results(pending, targets.name)
        note_work(pending, sequences)
        write_embeddings(targets.batch, np.stack(rows), options)
        if options.receipt:
            tokens = None if isinstance(sequences[0], str) else [len(sequence) for sequence in sequences]
            write_receipts(targets.batch, pending, fingerprint_id(self.fingerprint(options)), tokens)

    async def in_parts(self, function: Callable[[Sequence[Any]], Sequence[T]], items: Sequence[Any]) -> list[T]:
        """Apply `function` in a thread, to not too many items at once."""
        done: list[T] = []
        for start in range(0, len(items), _TOKENISE_AT_ONCE):
            done += await asyncio.to_thread(function, items[start : start + _TOKENISE_AT_ONCE])
        return done

    async def results(self, pending: Future[list[Any]], name: Callable[[int], str]) -> list[Any]:
        """Wait for what was submitted.

        Raises:
            ExecutorError: The model fails on one sequence; `name` says how to call it.
        """
        try:
            return await asyncio.wrap_future(pending)
        except SequenceFailed as failure:
            cause = failure.__cause__
            if isinstance(cause, FlowdexError):
                raise cause from failure
            if cause is not None and _is_exhaustion(cause):
                raise ExecutorError(
                    f"{name(failure.index)} cannot be encoded: the device has no memory for a text of this length; "
                    "lower max_length, or use a larger device"
                ) from failure
            raise ExecutorError(
                f"{name(failure.index)} cannot be encoded: the model failed with {type(cause).__name__}; "
                "the encoder's log has the details"
            ) from failure

    def submit(self, sequences: Sequence[Any]) -> Future[list[Any]]:
        """Queue sequences, to be computed in batches with those of other requests; see `Batcher.submit`."""
        with self._starting:
            if self._batcher is None:  # not in the constructor, because the subclass's is not through then
                keep_freed_memory()
                self._batcher = Batcher(
                    self.run_batch,
                    cost=_tokens,
                    budget=self.batch_tokens,
                    threads=self.threads,
                    padded=self.padded,
                    use_cores=self.use_cores,
                    is_exhaustion=_is_exhaustion,
                )
        return self._batcher.submit(sequences, asked())

    def run_batch(self, batch: list[Any]) -> Sequence[Any]:
        """Compute a batch, sorted by length: a model that pads pads least."""
        order = sorted(range(len(batch)), key=lambda index: _tokens(batch[index]))
        computed = np.asarray(self.encode_batch([batch[index] for index in order]), dtype=np.float32)
        if computed.ndim != 2 or len(computed) != len(batch):
            raise ValueError(f"encode_batch gave an array of shape {computed.shape} for {len(batch)} texts")
        check_finite(computed)
        self.dimensions = computed.shape[1]
        vectors = np.empty_like(computed)
        vectors[order] = computed
        return list(vectors)

    @classmethod
    def checked_defaults(cls, output: Mapping[str, Any]) -> OutputParameters:
        """Options of the flow file as the defaults of the requests' parameters; None counts as not given.

        Raises:
            ConfigurationError: One is wrong.
        """
        try:
            return cls.parameters_model.model_validate({k: v for k, v in output.items() if v is not None})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"{where}: {message}" if where else message) from None


def check_options(options: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the options that all encoders share, by name."""
    return {
        name: f"must be a whole number of at least 1, got {value!r}"
        for name in ("batch_tokens", "threads", "attention_tokens")
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


def note_work(pending: Any, sequences: Sequence[Any]) -> None:
    """Note down for the request's span and receipt what was done for it."""
    note(
        queue_ms=round(pending.queue_ms, 3),
        compute_ms=round(pending.compute_ms, 3),
        texts=len(sequences),
        tokens=sum(map(_tokens, sequences)),
    )


def _cosine(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """The cosine of two vectors: 1 for two of zeros, 0 for one of them or for vectors of different sizes."""
    if first.shape != second.shape:
        return 0.0
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else float(not first.any() and not second.any())


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _is_exhaustion(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the device or here."""
    torch = sys.modules.get("torch")  # not loaded, it cannot have raised anything
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()  # ONNX Runtime, CTranslate2 and cuBLAS have no class for it
    return isinstance(error, Exception) and any(phrase in message for phrase in _NO_MEMORY)


def _tokens(sequence: Any) -> int:
    return 1 + len(sequence) // _CHARACTERS_PER_TOKEN if isinstance(sequence, str) else len(sequence)
