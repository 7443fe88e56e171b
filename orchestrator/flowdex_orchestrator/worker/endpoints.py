"""The endpoints of an executor: its `@requests` methods, and where they run.

    Call --Conversion--> arguments --method--> DocList | dict | None --Conversion--> Outcome

As in Jina, an executor's synchronous methods run one call at a time in a thread, unless it allows more (class attribute
`concurrent = True`, or `allow_concurrent: true` in the flow), and its asynchronous ones run on the event loop. A call
whose caller goes away while it waits for its turn is never started; an asynchronous one is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, InvalidInput, NotFound
from flowdex.proto import flowdex_pb2 as pb
from flowdex.queue_clock import QueueClock
from flowdex.work_notes import note
from flowdex_orchestrator.worker.conversion import Conversion

if TYPE_CHECKING:
    from jina import Executor

__all__ = ["Call", "Endpoint", "EndpointTable", "Outcome", "parameters_for"]

HIDDEN_ENDPOINTS = ("_jina_dry_run_",)
_OFFLOAD_FROM = 16  # documents; fewer are converted faster than a thread is woken
_END = object()


class Call(NamedTuple):
    """What an endpoint is called with.

    Attributes:
        batches: The documents of each request; more than one only where branches of a flow meet unmerged.
        sources: For each, the executor that sent it (empty where none did).
        parameters: The request's parameters, as `parameters_for` makes them.
    """

    batches: Sequence[DocumentBatch]
    sources: Sequence[str]
    parameters: dict[str, Any]


class Outcome(NamedTuple):
    """What an endpoint answered: documents, and the dictionary if it returned one."""

    documents: DocumentBatch
    results: Mapping[str, Any] | None = None


def parameters_for(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as one executor sees them.

    `{"limit": 5, "encoder": {"limit": 3}}` and `{"limit": 5, "encoder__limit": 3}` both mean 3 to the encoder.

    Args:
        names: The executor's names; the last one counts most.
        values: The request's parameters.
    """
    merged: dict[str, Any] = {}
    specific: dict[str, Any] = {}
    for key, value in values.items():
        owner, separator, rest = key.partition("__")
        if not (separator and owner and rest):
            merged[key] = value
        elif owner in names:
            specific[rest] = value
    merged.update(specific)
    for name in names:
        override = values.get(name)
        if isinstance(override, Mapping):
            merged.update(override)
    return merged


class EndpointTable:
    """All endpoints of an executor, and the threads in which its synchronous ones run.

    Args:
        executor: The loaded executor.
        name: Its name in the flow.
    """

    def __init__(self, executor: Executor, name: str) -> None:
        concurrent = bool(getattr(executor, "concurrent", False)) or bool(
            getattr(executor.runtime_args, "allow_concurrent", False)
        )
        workers = min(32, (os.cpu_count() or 1) + 4) if concurrent else 1
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="endpoint")
        self._queue = QueueClock()
        self._executor = executor
        self.name = name
        self.parameter_names = (getattr(executor.metas, "name", None) or type(executor).__name__, name)
        self._endpoints = {
            path: Endpoint(executor, name, path, binding, self._threads, self._queue)
            for path, binding in executor.requests.items()
        }

    @property
    def paths(self) -> list[str]:
        """The endpoints that callers may use."""
        return sorted(path for path in self._endpoints if path not in HIDDEN_ENDPOINTS)

    @property
    def queue_ms(self) -> float:
        """Mean milliseconds that requests wait: for a thread, or as the executor's own attribute `queue_ms` says."""
        own = getattr(self._executor, "queue_ms", None)
        return float(own) if isinstance(own, (int, float)) else self._queue.mean_ms()

    @property
    def queue_clock(self) -> QueueClock:
        """Times how long requests wait: for a thread, or the executor's own attribute `queue_clock`."""
        own = getattr(self._executor, "queue_clock", None)
        return own if isinstance(own, QueueClock) else self._queue

    def find(self, path: str) -> Endpoint:
        """The endpoint bound to `path`, or the one for all others.

        Raises:
            NotFound: There is neither.
        """
        endpoint = self._endpoints.get(path) or self._endpoints.get(wire.DEFAULT_ENDPOINT)
        if endpoint is None:
            near = difflib.get_close_matches(path, self.paths, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise NotFound(
                f"the executor {self.name!r} has no endpoint {path!r}, only {', '.join(self.paths) or 'none'}{hint}",
                executor=self.name,
            )
        return endpoint

    def close(self) -> None:
        """Start no more calls; one that runs in a thread cannot be stopped and is left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Endpoint:
    """One bound method.

    Args:
        executor: Its executor.
        name: The executor's name in the flow.
        path: The endpoint, such as "/encode".
        binding: Jina's record of the method and its schemas.
        threads: Where it runs if it is synchronous.
        queue: Times how long it waits for one of them.
    """

    def __init__(  # noqa: PLR0917 - made in one place, by the table
        self, executor: Executor, name: str, path: str, binding: Any, threads: ThreadPoolExecutor, queue: QueueClock
    ) -> None:
        self._queue = queue
        method: Callable[..., Any] = binding.fn
        self._method = method.__get__(executor)
        self._executor_name = name
        self._path = path
        self._threads = threads
        self._conversion = Conversion(path, binding)
        self._is_async = inspect.iscoroutinefunction(method)
        self._is_generator: bool = binding.is_generator
        self._by_document: bool = not binding.is_batch_docs and not binding.is_generator
        self._extras = _extra_keywords(method, named_only=self._conversion.is_columnar)

    # ---- one request, one reply ----

    async def __call__(self, call: Call) -> Outcome:
        """Call the method.

        Raises:
            InvalidInput: The documents or parameters do not fit what the method is annotated with.
            ExecutorError: The method returned something that is no answer.
            Exception: Whatever the method raises.
        """
        if self._is_generator:
            raise InvalidInput(f"the endpoint {self._path!r} streams its answer: call it with a streaming client")
        if not self._is_async:
            ticket = self._queue.enter()
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, contextvars.copy_context().run, self._run, call, ticket
                )
            finally:
                self._queue.leave(ticket)
        if self._conversion.is_columnar or sum(map(len, call.batches)) < _OFFLOAD_FROM:
            docs, keywords = self._arguments(call)
            return self._outcome(await self._await(docs, keywords), docs)
        docs, keywords = await asyncio.to_thread(self._arguments, call)
        answer = await self._await(docs, keywords)
        return await asyncio.to_thread(self._outcome, answer, docs)

    def _run(self, call: Call, ticket: int) -> Outcome:
        note(queue_ms=round(1000 * self._queue.start(ticket), 3))
        docs, keywords = self._arguments(call)
        if not self._by_document:
            return self._outcome(self._method(docs=docs, **keywords), docs)
        return self._outcome(self._joined([(doc, self._method(doc=doc, **keywords)) for doc in docs]), docs)

    async def _await(self, docs: Any, keywords: Mapping[str, Any]) -> Any:
        if not self._by_document:
            return await self._method(docs=docs, **keywords)
        return self._joined([(doc, await self._method(doc=doc, **keywords)) for doc in docs])

    def _joined(self, answers: Sequence[tuple[Any, Any]]) -> Any:
        """The answers of a method that takes one document at a time; None means that it changed the document."""
        from docarray import BaseDoc

        docs = [doc if answer is None else answer for doc, answer in answers]
        for doc in docs:
            if not isinstance(doc, BaseDoc):
                raise self._wrong_type("a document or None", doc)
        return self._conversion.joined(docs)

    def _arguments(self, call: Call) -> tuple[Any, dict[str, Any]]:
        """The documents, and the keyword arguments beside them that the method takes."""
        convert = self._conversion.documents
        per_request = [convert(batch) for batch in call.batches]
        docs = per_request[0] if len(per_request) == 1 else convert(DocumentBatch.concatenate(call.batches))
        keywords: dict[str, Any] = {"parameters": self._conversion.parameters(call.parameters)}
        for name in self._extras:
            keywords[name] = _EXTRAS[name](call, per_request)
        return docs, keywords

    def _outcome(self, answer: Any, docs: Any) -> Outcome:
        if answer is None:
            return Outcome(self._conversion.batch(docs))
        if self._conversion.is_documents(answer):
            return Outcome(self._conversion.batch(answer))
        if isinstance(answer, Mapping):
            return Outcome(self._conversion.batch(docs), answer)
        raise self._wrong_type("a DocList, a dictionary or None", answer)

    # ---- one document, a stream of replies ----

    async def stream(self, document: pb.DocProto, parameters: dict[str, Any]) -> AsyncIterator[pb.DocProto]:
        """Call a generator method with one document and yield the documents that it yields.

        Raises:
            InvalidInput: The endpoint is no generator, or the document or parameters do not fit its annotations.
            ExecutorError: It yielded something else than the document type it is annotated with.
        """
        if not self._is_generator:
            raise InvalidInput(f"the endpoint {self._path!r} does not stream: call it with an ordinary request")
        docs, keywords = self._arguments(Call([DocumentBatch([document])], [""], parameters))
        answers = self._method(doc=docs[0], **keywords)
        if inspect.isasyncgen(answers):
            try:
                async for answer in answers:
                    yield self._streamed(answer)
            finally:
                await answers.aclose()
            return
        loop = asyncio.get_running_loop()
        iterator: Iterator[Any] = iter(answers)
        while (answer := await loop.run_in_executor(self._threads, next, iterator, _END)) is not _END:
            yield self._streamed(answer)

    def _streamed(self, answer: Any) -> pb.DocProto:
        expected = self._conversion.response_type
        if not isinstance(answer, expected):
            raise self._wrong_type(expected.__name__, answer)
        return pb.DocProto.FromString(answer.to_protobuf().SerializeToString())

    def _wrong_type(self, expected: str, answer: Any) -> ExecutorError:
        return ExecutorError(
            f"the endpoint {self._path!r} must return {expected}, but returned a value of type {type(answer).__name__}",
            executor=self._executor_name,
        )


# What Jina passes to a method beside `docs` and `parameters`.
_EXTRAS: dict[str, Callable[[Call, list[Any]], Any]] = {
    "docs_matrix": lambda call, per_request: per_request if any(map(len, per_request)) else None,
    "docs_map": lambda call, per_request: dict(zip(call.sources, per_request, strict=True)),
    "tracing_context": lambda call, per_request: None,
}


def _extra_keywords(method: Callable[..., Any], *, named_only: bool) -> tuple[str, ...]:
    """Which extras to pass to `method`: those it names, and unless `named_only` what falls under its `**kwargs`."""
    parameters = inspect.signature(inspect.unwrap(method)).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return tuple(name for name in _EXTRAS if name in parameters or (takes_any and not named_only))
