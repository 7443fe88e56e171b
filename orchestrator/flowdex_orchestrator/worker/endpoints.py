"""The endpoints of an executor: what its `@requests` methods take and give, and where they run.

    DocumentBatch --decode--> DocumentColumns | DocList[T] | T --method--> ... --encode--> DocumentBatch

A columnar method gets the batch as it is. An ordinary one gets docarray objects, which cost some hundred microseconds
each; they are made and unmade off the event loop. As in Jina, an executor's synchronous methods run one call at a time
in a thread, unless it allows more (class attribute `concurrent = True`, or `allow_concurrent: true` in the flow), and
its asynchronous ones run on the event loop.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, InvalidInput, NotFound
from flowdex.proto import flowdex_pb2 as pb

if TYPE_CHECKING:
    from jina import Executor

__all__ = ["Call", "Endpoint", "EndpointTable", "Outcome", "parameters_for"]

HIDDEN_ENDPOINTS = ("_jina_dry_run_",)
_OFFLOAD_FROM = 16  # documents; fewer are decoded faster than a thread is woken
_DECODING_ERRORS = (ValueError, TypeError, AttributeError, KeyError)
_END = object()


@dataclass(frozen=True)
class Call:
    """What an endpoint is called with.

    Attributes:
        batches: The documents of each request; more than one only where branches of a flow meet unmerged.
        sources: For each, the executor that sent it (empty where none did).
        parameters: The request's parameters, as `parameters_for` makes them.
    """

    batches: Sequence[DocumentBatch]
    sources: Sequence[str]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an endpoint answered: documents, and the dictionary if it returned one."""

    documents: DocumentBatch
    results: Mapping[str, Any] | None = None


@dataclass
class _Arguments:
    """The decoded documents and the other keyword arguments of one call."""

    docs: Any
    keywords: dict[str, Any] = field(default_factory=dict)


def parameters_for(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as one executor sees them.

    `{"limit": 5, "encoder": {"limit": 3}}` and `{"limit": 5, "encoder__limit": 3}` both mean 3 to the encoder.

    Args:
        names: The executor's names, the last one counts most.
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
        self.name = name
        self.parameter_names = (getattr(executor.metas, "name", None) or type(executor).__name__, name)
        self._endpoints = {
            path: Endpoint(executor, name, path, binding, self._threads) for path, binding in executor.requests.items()
        }

    @property
    def paths(self) -> list[str]:
        """The endpoints that callers may use."""
        return sorted(path for path in self._endpoints if path not in HIDDEN_ENDPOINTS)

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
    """

    def __init__(self, executor: Executor, name: str, path: str, binding: Any, threads: ThreadPoolExecutor) -> None:
        from docarray import DocList

        from flowdex_executors.schema import DocumentColumns

        method: Callable[..., Any] = binding.fn
        self._method = method.__get__(executor)
        self._executor_name = name
        self._path = path
        self._threads = threads
        self._is_async = inspect.iscoroutinefunction(method)
        self._by_document: bool = not binding.is_batch_docs and not binding.is_generator
        self._is_columnar = isinstance(binding.request_schema, type) and issubclass(
            binding.request_schema, DocumentColumns
        )
        self._list_type = binding.request_schema if binding.is_batch_docs else DocList[binding.request_schema]
        self._response_schema = binding.response_schema
        self._parameters_model = binding.parameters_model if binding.parameters_is_pydantic_model else None
        self._accepted = _accepted_keywords(method)
        self.is_generator: bool = binding.is_generator

    # ---- one request, one reply ----

    async def __call__(self, call: Call) -> Outcome:
        """Call the method.

        Raises:
            InvalidInput: The documents or parameters do not fit what the method is annotated with.
            ExecutorError: The method returned something that is no answer.
            Exception: Whatever the method raises.
        """
        if self.is_generator:
            raise InvalidInput(f"the endpoint {self._path!r} streams its answer: call it with a streaming client")
        if not self._is_async:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, call)
        if self._is_columnar or sum(map(len, call.batches)) < _OFFLOAD_FROM:
            arguments = self._decode(call)
            return self._encode(await self._await(arguments), arguments)
        arguments = await asyncio.to_thread(self._decode, call)
        return await asyncio.to_thread(self._encode, await self._await(arguments), arguments)

    def _run(self, call: Call) -> Outcome:
        arguments = self._decode(call)
        if not self._by_document:
            return self._encode(self._method(docs=arguments.docs, **arguments.keywords), arguments)
        answers = [(doc, self._method(doc=doc, **arguments.keywords)) for doc in arguments.docs]
        return self._encode(self._joined(answers), arguments)

    async def _await(self, arguments: _Arguments) -> Any:
        if not self._by_document:
            return await self._method(docs=arguments.docs, **arguments.keywords)
        return self._joined([(doc, await self._method(doc=doc, **arguments.keywords)) for doc in arguments.docs])

    def _joined(self, answers: Sequence[tuple[Any, Any]]) -> Any:
        """The answers of a method that takes one document at a time; None means that it changed the document."""
        from docarray import BaseDoc, DocList

        docs = [doc if answer is None else answer for doc, answer in answers]
        for doc in docs:
            if not isinstance(doc, BaseDoc):
                raise self._wrong_type("a document or None", doc)
        return DocList(docs)

    # ---- one document, a stream of replies ----

    async def stream(self, document: pb.DocProto, parameters: Mapping[str, Any]) -> AsyncIterator[pb.DocProto]:
        """Call a generator method with one document and yield the documents that it yields.

        Raises:
            InvalidInput: The endpoint is no generator, or the document or parameters do not fit its annotations.
            ExecutorError: It yielded something else than the document type it is annotated with.
        """
        if not self.is_generator:
            raise InvalidInput(f"the endpoint {self._path!r} does not stream: call it with an ordinary request")
        arguments = self._decode(Call([DocumentBatch([document])], [""], parameters))
        answers = self._method(doc=arguments.docs[0], **arguments.keywords)
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
        if not isinstance(answer, self._response_schema):
            raise self._wrong_type(self._response_schema.__name__, answer)
        return pb.DocProto.FromString(answer.to_protobuf().SerializeToString())

    # ---- in and out ----

    def _decode(self, call: Call) -> _Arguments:
        per_request = [self._documents(batch) for batch in call.batches]
        docs = per_request[0] if len(per_request) == 1 else self._documents(DocumentBatch.concatenate(call.batches))
        keywords: dict[str, Any] = {"parameters": self._parameters(call.parameters)}
        for name, value in (
            ("docs_matrix", per_request if any(map(len, per_request)) else None),
            ("docs_map", dict(zip(call.sources, per_request, strict=True))),
            ("tracing_context", None),
        ):
            if self._accepted is None or name in self._accepted:
                keywords[name] = value
        return _Arguments(docs, keywords)

    def _documents(self, batch: DocumentBatch) -> Any:
        if self._is_columnar:
            return self._list_type(batch)
        message = batch.to_proto()
        try:
            return self._list_type.from_protobuf(message)
        except _DECODING_ERRORS as error:
            reason = _first_reason(error)
        for index, doc in enumerate(message.docs):  # only now: which one is it?
            try:
                self._list_type.from_protobuf(pb.DocListProto(docs=[doc]))
            except _DECODING_ERRORS as error:
                reason = f"document {index}: {_first_reason(error)}"
                break
        raise InvalidInput(f"{self._path} takes {_name_of(self._list_type)}: {reason}")

    def _parameters(self, values: Mapping[str, Any]) -> Any:
        if self._parameters_model is None:
            return dict(values)
        try:
            return self._parameters_model(**values)
        except _DECODING_ERRORS as error:
            raise InvalidInput(f"parameters of {self._path}: {_first_reason(error)}") from None

    def _encode(self, answer: Any, arguments: _Arguments) -> Outcome:
        from docarray import DocList

        if answer is None:
            return Outcome(_batch_of(arguments.docs))
        if isinstance(answer, DocList):
            return Outcome(_batch_of(answer))
        if isinstance(answer, Mapping):
            return Outcome(_batch_of(arguments.docs), answer)
        raise self._wrong_type("a DocList, a dictionary or None", answer)

    def _wrong_type(self, expected: str, answer: Any) -> ExecutorError:
        return ExecutorError(
            f"the endpoint {self._path!r} must return {expected}, but returned a value of type {type(answer).__name__}",
            executor=self._executor_name,
        )


def _batch_of(docs: Any) -> DocumentBatch:
    from flowdex_executors.schema import DocumentColumns

    if isinstance(docs, DocumentColumns):
        return docs.batch
    return DocumentBatch.from_bytes(docs.to_protobuf().SerializeToString())


def _accepted_keywords(method: Callable[..., Any]) -> frozenset[str] | None:
    """Names of the keyword arguments that `method` takes; None where it takes any."""
    parameters = inspect.signature(inspect.unwrap(method)).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _first_reason(error: Exception) -> str:
    """What is wrong, with the field's name where pydantic found it."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error) or type(error).__name__
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"field {'.'.join(map(str, first['loc']))!r}: {first['msg']}"


def _name_of(list_type: Any) -> str:
    doc_type = getattr(list_type, "doc_type", None)
    return f"documents of type {doc_type.__name__}" if doc_type is not None else "documents of another type"
