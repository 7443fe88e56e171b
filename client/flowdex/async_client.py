"""The client. This is the one implementation; `flowdex.Client` runs it on a thread of its own.

    caller's items --batches--> [batch] --at most `prefetch` at a time, each with retries--> Transport
                                         <--results in the order of the items--

The methods are documented at `flowdex.Client`, which has the same ones without `await`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.encodings import (
    EncodeChoices,
    Encoding,
    Encodings,
    TextInput,
    VectorChoices,
    check_choices,
    check_input,
    read_encodings,
    texts_batch,
    wants_details,
)
from flowdex.errors import DeadlineExceeded, FlowdexError, InvalidInput
from flowdex.inputs import (
    Document,
    WrongType,
    check_collection,
    check_text,
    is_docarray,
    length_of,
    to_message,
)
from flowdex.outputs import Rows, check_takes_embedding, same_class, vectors_of, with_embeddings
from flowdex.pipeline import batches, check_all, ordered
from flowdex.progress import Progress, open_progress
from flowdex.proto import flowdex_pb2 as pb
from flowdex.results import FlowStatus, IndexFailure, IndexResult, SearchResult
from flowdex.retry import Deadline, RetryPolicy, with_retries
from flowdex.transport import Target, open_transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncClient", "OnError", "SearchMode"]

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]
SearchMode = Literal["hybrid", "dense", "sparse"]
OnError = Literal["raise", "collect"]

# Texts are also cut by bytes: about 30,000 tokens, seconds of work for a small model on a CPU, so that progress,
# retries and deadlines stay fine-grained. A gateway splits a batch further across replicas.
BATCH_BYTES = 128 * 2**10
_QUERIES_A_REQUEST = 64
_IDS_A_REQUEST = 1000


class _Entry(NamedTuple):
    """An item of the caller's input on its way out."""

    position: int
    item: Any
    message: pb.DocProto | None = None


class AsyncClient:
    """A flow, from asyncio code. See `flowdex.Client` for the parameters and methods."""

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float | None = 120.0,
        retries: int = 6,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        root_certificates: str | Path | None = None,
    ) -> None:
        self._target = Target.parse(url, api_key=api_key, headers=headers, root_certificates=root_certificates)
        if timeout is not None and timeout <= 0:
            raise InvalidInput(f"timeout must be positive or None, got {timeout!r}")
        if retries < 0:
            raise InvalidInput(f"retries must not be negative, got {retries!r}")
        self._timeout = timeout
        self._policy = RetryPolicy(retries=retries)
        self._transport = open_transport(self._target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def url(self) -> str:
        """The address of the flow."""
        return str(self._target)

    # ---- encode ----

    @overload
    async def encode(  # type: ignore[overload-overlap]  # texts first: T would take them too
        self,
        content: Iterable[TextInput] | AsyncIterable[TextInput],
        *,
        batch_size: int = ...,
        prefetch: int = ...,
        show_progress: Progress = ...,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
        **choices: Unpack[VectorChoices],
    ) -> Vectors: ...
    @overload
    async def encode(  # type: ignore[overload-overlap]
        self,
        content: Iterable[TextInput] | AsyncIterable[TextInput],
        *,
        batch_size: int = ...,
        prefetch: int = ...,
        show_progress: Progress = ...,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
        **choices: Unpack[EncodeChoices],
    ) -> Encodings: ...
    @overload
    async def encode(
        self,
        content: Iterable[T] | AsyncIterable[T],
        *,
        batch_size: int = ...,
        prefetch: int = ...,
        show_progress: Progress = ...,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
        **choices: Unpack[EncodeChoices],
    ) -> list[T]: ...
    async def encode(
        self,
        content: Any,
        *,
        batch_size: int = 256,
        prefetch: int = 4,
        show_progress: Progress = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **choices: Unpack[EncodeChoices],
    ) -> Any:
        """See `Client.encode`."""
        check_collection(content, "texts")
        chosen = check_choices(choices)
        details, sent = wants_details(chosen), {**(parameters or {}), **chosen}
        deadline, total = self._deadline(timeout), length_of(content)
        is_text: bool | None = None  # what the first item is, all must be

        def convert(item: Any, position: int) -> tuple[_Entry, int]:
            nonlocal is_text
            is_document = isinstance(item, Document) or is_docarray(item)
            size = 0 if is_document else check_input(item, f"text {position}")
            is_text = not is_document if is_text is None else is_text
            if is_text is is_document:
                raise WrongType(f"text {position} is a {type(item).__name__}: texts and documents cannot be mixed")
            if not is_document:
                return _Entry(position, item), size
            if isinstance(item, Document) and details:
                raise InvalidInput(
                    f"document {position} is a flowdex.Document, which holds no more than a vector: pass its text, or "
                    "a docarray document whose class has fields for what you ask for"
                )
            if not isinstance(item, Document):
                check_takes_embedding(item, position)
            message, size = to_message(item, position)
            return _Entry(position, item, message), size

        async def work(entries: list[_Entry]) -> tuple[list[_Entry], DocumentBatch]:
            if is_text:
                ids = [str(entry.position) for entry in entries]
                batch = texts_batch([entry.item for entry in entries], ids)
            else:
                batch = _batch(entries)
            try:
                reply = await self._call(lambda left: self._transport.encode(batch, sent, left), deadline)
            except InvalidInput as error:
                raise _located(error, entries) from None
            return entries, reply

        await check_all(content, convert, count=batch_size)
        rows, encodings, documents = Rows(total), list[Encoding](), list[Any]()
        source = batches(content, convert, count=batch_size, size=BATCH_BYTES)
        with open_progress(show_progress, "encode", total, batch_size) as advance:
            async with aclosing(ordered(source, work, prefetch)) as replies:
                async for entries, reply in replies:
                    if is_text and details:
                        encodings += read_encodings(reply)
                    elif is_text:
                        rows.add(vectors_of(reply))
                    else:
                        documents += with_embeddings([entry.item for entry in entries], reply)
                    advance(len(entries))
        if is_text is None:
            raise InvalidInput("there are no texts: the iterable is empty")
        if is_text:
            return Encodings(encodings) if details else rows.array()
        return same_class(content, documents)

    # ---- index, search, delete ----

    async def index(
        self,
        documents: Iterable[Any] | AsyncIterable[Any],
        *,
        batch_size: int = 64,
        prefetch: int = 4,
        show_progress: Progress = None,
        on_error: OnError = "raise",
        return_ids: bool = True,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> IndexResult:
        """See `Client.index`."""
        check_collection(documents, "documents")
        if on_error not in ("raise", "collect"):
            raise InvalidInput(f"on_error must be 'raise' or 'collect', got {on_error!r}")
        started, deadline, total = time.monotonic(), self._deadline(timeout), length_of(documents)
        result = IndexResult()

        def convert(item: Any, position: int) -> tuple[_Entry, int] | None:
            try:
                message, size = to_message(item, position)
            except InvalidInput as error:
                if on_error == "raise":
                    raise
                result.failures.append(IndexFailure(_id_of(item), position, error))
                return None
            return _Entry(position, None, message), size

        async def store(entries: list[_Entry]) -> tuple[int, list[_Entry]]:
            """Index entries; returns the passages, and the entries that were stored."""
            batch = _batch(entries)
            try:
                _, passages = await self._call(
                    lambda left: self._transport.index(batch, parameters or {}, left), deadline
                )
            except InvalidInput as error:
                if on_error == "raise":
                    raise _located(error, entries) from None
                if len(entries) == 1:
                    result.failures.append(IndexFailure(batch.ids[0], entries[0].position, error))
                    return 0, []
                # Halve until the document at fault stands alone: the others go in.
                half = len(entries) // 2
                first, last = await store(entries[:half]), await store(entries[half:])
                return first[0] + last[0], first[1] + last[1]
            return passages, entries

        async def work(entries: list[_Entry]) -> tuple[int, int, list[_Entry]]:
            return len(entries), *await store(entries)

        if on_error == "raise":
            await check_all(documents, convert, count=batch_size)
        source = batches(documents, convert, count=batch_size, size=BATCH_BYTES)
        with open_progress(show_progress, "index", total, batch_size) as advance:
            async with aclosing(ordered(source, work, prefetch)) as replies:
                async for count, passages, stored in replies:
                    result.documents += len(stored)
                    result.passages += passages
                    if return_ids:
                        result.ids += _batch(stored).ids
                    advance(count)
        if not result.documents and not result.failures:
            raise InvalidInput("there are no documents: the iterable is empty")
        result.failures.sort(key=lambda failure: failure.position)
        result.took_ms = _milliseconds_since(started)
        return result

    @overload
    async def search(  # type: ignore[overload-overlap]  # a string is an iterable of strings
        self,
        query: str,
        limit: int = ...,
        offset: int = ...,
        filter: Mapping[str, Any] | None = ...,
        mode: SearchMode | None = ...,
        *,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
    ) -> SearchResult: ...
    @overload
    async def search(
        self,
        query: Iterable[str],
        limit: int = ...,
        offset: int = ...,
        filter: Mapping[str, Any] | None = ...,
        mode: SearchMode | None = ...,
        *,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
    ) -> list[SearchResult]: ...
    async def search(
        self,
        query: str | Iterable[str],
        limit: int = 10,
        offset: int = 0,
        filter: Mapping[str, Any] | None = None,
        mode: SearchMode | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> SearchResult | list[SearchResult]:
        """See `Client.search`."""
        if not isinstance(query, str):
            check_collection(query, "queries")
        queries = [query] if isinstance(query, str) else list(query)
        for position, each in enumerate(queries):
            check_text(each, "the query" if isinstance(query, str) else f"query {position}")
        sent = {**(parameters or {}), "limit": _whole(limit, "limit", 1), "offset": _whole(offset, "offset", 0)}
        if filter is not None:
            sent["filter"] = dict(filter)
        if mode is not None:
            sent["mode"] = mode
        deadline = self._deadline(timeout)

        async def work(batch: list[str]) -> list[SearchResult]:
            started = time.monotonic()
            answers = await self._call(lambda left: self._transport.search(batch, sent, left), deadline)
            took = _milliseconds_since(started)
            return [SearchResult(text, hits, took) for text, hits in zip(batch, answers, strict=True)]

        results: list[SearchResult] = []
        source = batches(queries, lambda each, _: (each, len(each)), count=_QUERIES_A_REQUEST, size=BATCH_BYTES)
        async with aclosing(ordered(source, work, 4)) as replies:
            async for reply in replies:
                results += reply
        return results[0] if isinstance(query, str) else results

    async def delete(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> int:
        """See `Client.delete`."""
        if (ids is None) == (filter is None):
            raise InvalidInput("delete either by ids or by filter: pass exactly one of them")
        deadline = self._deadline(timeout)
        if filter is not None:
            if not filter:
                raise InvalidInput("an empty filter would delete every document: name what to delete")
            sent = {"filter": dict(filter)}
            return await self._call(lambda left: self._transport.delete([], sent, left), deadline)
        names = [ids] if isinstance(ids, str) else list(ids or ())
        for position, each in enumerate(names):
            check_text(each, f"id {position}")
        if not names:
            raise InvalidInput("there are no ids: the list is empty")
        removed = 0
        for start in range(0, len(names), _IDS_A_REQUEST):
            removed += await self._delete_some(names[start : start + _IDS_A_REQUEST], deadline)
        return removed

    async def _delete_some(self, ids: list[str], deadline: Deadline | None) -> int:
        return await self._call(lambda left: self._transport.delete(ids, {}, left), deadline)

    # ---- the flow itself ----

    async def status(self, *, timeout: float | None = None) -> FlowStatus:
        """See `Client.status`."""
        return await self._call(self._transport.status, self._deadline(timeout))

    async def is_ready(self, *, timeout: float | None = 5.0) -> bool:
        """See `Client.is_ready`."""
        return await self._transport.ready(timeout)

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """See `Client.wait_ready`."""
        deadline, pause = Deadline(timeout), 0.05
        while not await self._transport.ready(_least(deadline.remaining(), 5.0)):
            left = deadline.remaining()
            if left is not None and left <= pause:
                raise DeadlineExceeded(
                    f"the flow at {self._target} was not ready within {timeout:g} s: "
                    "see 'flowdex ps' and 'flowdex logs'"
                )
            await asyncio.sleep(pause)
            pause = min(1.0, 2 * pause)

    async def close(self) -> None:
        """See `Client.close`."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- one request ----

    def _deadline(self, timeout: float | None) -> Deadline | None:
        """The deadline of a whole call; None where each request has one of its own."""
        return None if timeout is None else Deadline(timeout)

    async def _call(self, attempt: Callable[[float | None], Awaitable[T]], deadline: Deadline | None) -> T:
        return await with_retries(
            attempt,
            self._policy,
            deadline or Deadline(self._timeout),
            reachable=lambda: self._transport.reached,
        )


def _batch(entries: list[_Entry]) -> DocumentBatch:
    return DocumentBatch([entry.message for entry in entries if entry.message is not None])


def _located(error: InvalidInput, entries: list[_Entry]) -> FlowdexError:
    """The error of a batch, which knows positions in the batch alone, with the batch's own position."""
    start = entries[0].position
    if not start:
        return error
    message = f"{error.message} (in the batch of {len(entries)} that starts at position {start} of the input)"
    return type(error)(message, executor=error.executor)


def _id_of(item: Any) -> str | None:
    """The id of a document that was refused, if it has one."""
    value = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", None)
    return value if isinstance(value, str) else None


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def _least(left: float | None, most: float) -> float:
    return most if left is None else min(left, most)


def _milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1e3
