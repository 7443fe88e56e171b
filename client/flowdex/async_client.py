"""The client. This is the one implementation; `flowdex.Client` runs it on a thread of its own.

    caller's items --batches--> [batch] --at most `prefetch` at a time, each with retries--> Transport
                                         <--results in the order of the items--

The methods are documented at `flowdex.Client`, which has the same ones without `await`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from flowdex.attention import Attention
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
from flowdex.errors import ConfigurationError, DeadlineExceeded, FlowdexError, InvalidInput, NotFound, TooLarge
from flowdex.inputs import (
    Document,
    WrongType,
    check_collection,
    check_text,
    digest_of,
    is_docarray,
    length_of,
    to_message,
)
from flowdex.outputs import Rows, check_takes_embedding, same_class, vectors_of, with_embeddings
from flowdex.pipeline import batches, check_all, ordered
from flowdex.progress import Progress, open_progress
from flowdex.proto import flowdex_pb2 as pb
from flowdex.ranking import RankedText, RankMethod
from flowdex.results import FlowStatus, IndexFailure, IndexResult, SearchResult
from flowdex.retry import Deadline, RetryBudget, RetryPolicy, with_retries
from flowdex.searching import SearchChoices, SearchMode, search_parameters, whole_number
from flowdex.snapshots import Post, RestoreResult, SnapshotResult, load_snapshot, save_snapshot
from flowdex.stored import Page, StoredDocument
from flowdex.transport import Target, open_transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncClient", "OnError", "SearchMode"]

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]
OnError = Literal["raise", "collect"]

# Texts are also cut by bytes: about 30,000 tokens, seconds of work for a small model on a CPU, so that progress,
# retries and deadlines stay fine-grained. A gateway splits a batch further across replicas.
BATCH_BYTES = 128 * 2**10
_QUERIES_A_REQUEST = 64
_IDS_A_REQUEST = 1000
_SNAPSHOT_SECONDS = 600.0  # for taking or restoring one, which is one request
_DOCUMENTS_A_REQUEST = 100
_DIGEST_BYTES = 64  # about, on the wire


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
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        self._target = Target.parse(url, api_key=api_key, headers=headers, ca=ca, certificate=certificate, key=key)
        if timeout is not None and timeout <= 0:
            raise InvalidInput(f"timeout must be positive or None, got {timeout!r}")
        if retries < 0:
            raise InvalidInput(f"retries must not be negative, got {retries!r}")
        self._timeout = timeout
        self._policy = RetryPolicy(retries=retries)
        self._budget = RetryBudget()
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
            message, size = to_message(item, position, as_text=True)
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

    # ---- index, search, get, scroll, count, delete ----

    async def index(
        self,
        documents: Iterable[Any] | AsyncIterable[Any],
        *,
        batch_size: int = 64,
        prefetch: int = 4,
        show_progress: Progress = None,
        on_error: OnError = "raise",
        return_ids: bool = True,
        resume: bool = False,
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
            DocumentBatch([message]).set_column("digest", [digest_of(message)])
            return _Entry(position, None, message), size + _DIGEST_BYTES

        async def store(entries: list[_Entry]) -> tuple[int, list[_Entry]]:
            """Index entries; returns the passages, and the entries that were stored."""
            if not entries:
                return 0, []
            batch = _batch(entries)
            try:
                reply = await self._call(lambda left: self._transport.index(batch, parameters or {}, left), deadline)
            except InvalidInput as error:
                if on_error == "raise":
                    raise _located(error, entries) from None
                if len(entries) == 1:
                    result.failures.append(IndexFailure(batch.ids[0], entries[0].position, error))
                    return 0, []
                # An executor that refuses the request as a whole: halve until the document at fault stands alone.
                half = len(entries) // 2
                first, last = await store(entries[:half]), await store(entries[half:])
                return first[0] + last[0], first[1] + last[1]
            if reply.errors and on_error == "raise":
                raise _located(next(iter(reply.errors.values())), entries)
            for row, refusal in reply.errors.items():
                result.failures.append(IndexFailure(batch.ids[row], entries[row].position, refusal))
            return reply.passages, [entry for row, entry in enumerate(entries) if row not in reply.errors]

        async def work(entries: list[_Entry]) -> tuple[int, int, list[_Entry]]:
            changed = await self._changed(entries, deadline) if resume else entries
            result.unchanged += len(entries) - len(changed)
            return len(entries), *await store(changed)

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
        if not (result.documents or result.failures or result.unchanged):
            raise InvalidInput("there are no documents: the iterable is empty")
        result.failures.sort(key=lambda failure: failure.position)
        result.took_ms = _milliseconds_since(started)
        return result

    async def _changed(self, entries: list[_Entry], deadline: Deadline | None) -> list[_Entry]:
        """Those entries that are not in the index with the same content."""
        batch = _batch(entries)
        sent = {"content": False}
        stored = await self._call(lambda left: self._transport.get(batch.ids, sent, left), deadline)
        known = {document.id: document.digest for document in stored}
        columns = zip(entries, batch.ids, batch.column("digest"), strict=True)
        return [entry for entry, id_, digest in columns if known.get(id_) != digest]

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
        **choices: Unpack[SearchChoices],
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
        **choices: Unpack[SearchChoices],
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
        **choices: Unpack[SearchChoices],
    ) -> SearchResult | list[SearchResult]:
        """See `Client.search`."""
        if not isinstance(query, str):
            check_collection(query, "queries")
        queries = [query] if isinstance(query, str) else list(query)
        for position, each in enumerate(queries):
            check_text(each, "the query" if isinstance(query, str) else f"query {position}")
        sent = {**(parameters or {}), **search_parameters(limit, offset, filter, mode, choices)}
        deadline = self._deadline(timeout)

        async def work(batch: list[str]) -> list[SearchResult]:
            started = time.monotonic()
            answers = await self._call(lambda left: self._transport.search(batch, sent, left), deadline)
            took = _milliseconds_since(started)
            return [SearchResult(text, hits, took, notes) for text, (hits, notes) in zip(batch, answers, strict=True)]

        results: list[SearchResult] = []
        source = batches(queries, lambda each, _: (each, len(each)), count=_QUERIES_A_REQUEST, size=BATCH_BYTES)
        async with aclosing(ordered(source, work, 4)) as replies:
            async for reply in replies:
                results += reply
        return results[0] if isinstance(query, str) else results

    @overload
    async def get(  # type: ignore[overload-overlap]  # a string is an iterable of strings
        self, ids: str, *, passages: bool = ..., embeddings: bool = ..., timeout: float | None = ...
    ) -> StoredDocument: ...
    @overload
    async def get(
        self, ids: Iterable[str], *, passages: bool = ..., embeddings: bool = ..., timeout: float | None = ...
    ) -> list[StoredDocument]: ...
    async def get(
        self,
        ids: str | Iterable[str],
        *,
        passages: bool = False,
        embeddings: bool = False,
        timeout: float | None = None,
    ) -> StoredDocument | list[StoredDocument]:
        """See `Client.get`."""
        names = _checked_ids(ids)
        deadline, sent = self._deadline(timeout), {"passages": passages, "embeddings": embeddings}
        found: list[StoredDocument] = []
        for start in range(0, len(names), _DOCUMENTS_A_REQUEST):
            found += await self._get_some(names[start : start + _DOCUMENTS_A_REQUEST], sent, deadline)
        if isinstance(ids, str):
            if not found:
                raise NotFound(f"there is no document with the id {ids!r}")
            return found[0]
        return found

    async def _get_some(
        self, ids: list[str], sent: Mapping[str, Any], deadline: Deadline | None
    ) -> list[StoredDocument]:
        try:
            return await self._call(lambda left: self._transport.get(ids, sent, left), deadline)
        except TooLarge:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return await self._get_some(ids[:half], sent, deadline) + await self._get_some(ids[half:], sent, deadline)

    async def scroll(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        passages: bool = False,
        embeddings: bool = False,
        page_size: int = 100,
    ) -> AsyncGenerator[StoredDocument, None]:
        """See `Client.scroll`."""
        cursor: str | None = None
        while True:
            page = await self.page(cursor, filter=filter, passages=passages, embeddings=embeddings, page_size=page_size)
            for document in page.documents:
                yield document
            cursor = page.cursor
            if cursor is None:
                return

    async def page(
        self,
        cursor: str | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        passages: bool = False,
        embeddings: bool = False,
        page_size: int = 100,
        timeout: float | None = None,
    ) -> Page:
        """See `Client.page`."""
        sent: dict[str, Any] = {
            "limit": whole_number(page_size, "page_size", 1),
            "passages": passages,
            "embeddings": embeddings,
            **({"filter": dict(filter)} if filter else {}),
            **({"cursor": cursor} if cursor is not None else {}),
        }
        return await self._call(lambda left: self._transport.scroll(sent, left), self._deadline(timeout))

    async def count(self, filter: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> int:
        """See `Client.count`."""
        sent = {"filter": dict(filter)} if filter else {}
        return await self._call(lambda left: self._transport.count(sent, left), self._deadline(timeout))

    async def rank(
        self,
        query: str,
        texts: Iterable[str],
        *,
        method: RankMethod | None = None,
        top: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> list[RankedText]:
        """See `Client.rank`."""
        check_text(query, "the query")
        check_collection(texts, "texts")
        sent_texts = list(texts)
        for position, each in enumerate(sent_texts):
            check_text(each, f"text {position}")
        if not sent_texts:
            raise InvalidInput("there are no texts: the iterable is empty")
        sent = dict(parameters or {})
        sent.update({name: value for name, value in (("method", method), ("top", top)) if value is not None})
        return await self._call(
            lambda left: self._transport.rank(query, sent_texts, sent, left), self._deadline(timeout)
        )

    async def attention(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        layers: int | Sequence[int] | None = None,
        executor: str | None = None,
        timeout: float | None = None,
    ) -> Attention:
        """See `Client.attention`."""
        check_text(text, "the text")
        if text_pair is not None:
            check_text(text_pair, "the second text")
        chosen = [layers] if isinstance(layers, int) else layers
        sent = {"dtype": "float32", **({} if chosen is None else {"layers": list(chosen)})}
        return await self._call(
            lambda left: self._transport.attention(text, text_pair, sent, left, executor=executor),
            self._deadline(timeout),
        )

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
        names = _checked_ids(ids or ())
        removed = 0
        for start in range(0, len(names), _IDS_A_REQUEST):
            removed += await self._delete_some(names[start : start + _IDS_A_REQUEST], deadline)
        return removed

    async def _delete_some(self, ids: list[str], deadline: Deadline | None) -> int:
        return await self._call(lambda left: self._transport.delete(ids, {}, left), deadline)

    async def snapshot(
        self, path: str | Path, *, progress: Callable[[int, int], None] | None = None, timeout: float | None = None
    ) -> SnapshotResult:
        """See `Client.snapshot`."""
        return await save_snapshot(self._poster(timeout), Path(path), progress or (lambda done, total: None))

    async def restore(
        self, path: str | Path, *, progress: Callable[[int, int], None] | None = None, timeout: float | None = None
    ) -> RestoreResult:
        """See `Client.restore`."""
        return await load_snapshot(self._poster(timeout), Path(path), progress or (lambda done, total: None))

    def _poster(self, timeout: float | None) -> Post:
        """Ask any endpoint, with retries: `timeout` is for each request."""
        from flowdex.transport.grpc import GrpcTransport

        transport = self._transport
        if not isinstance(transport, GrpcTransport):
            raise ConfigurationError(
                f"{self._target}: a snapshot goes over gRPC; name the gateway's gRPC address (grpc://...)"
            )

        async def post(
            endpoint: str, batch: DocumentBatch | None, parameters: Mapping[str, Any]
        ) -> tuple[DocumentBatch, dict[str, dict[str, Any]]]:
            deadline = Deadline(_SNAPSHOT_SECONDS if timeout is None else timeout)
            return await self._call(lambda left: transport.post(endpoint, batch, parameters, left), deadline)

        return post

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
            budget=self._budget,
        )


def _checked_ids(ids: str | Iterable[str]) -> list[str]:
    names = [ids] if isinstance(ids, str) else list(ids)
    for position, each in enumerate(names):
        check_text(each, f"id {position}")
    if not names:
        raise InvalidInput("there are no ids: the list is empty")
    return names


def _batch(entries: list[_Entry]) -> DocumentBatch:
    return DocumentBatch([entry.message for entry in entries if entry.message is not None])


def _located(error: FlowdexError, entries: list[_Entry]) -> FlowdexError:
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


def _least(left: float | None, most: float) -> float:
    return most if left is None else min(left, most)


def _milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1e3
