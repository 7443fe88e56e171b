"""The synchronous client: `AsyncClient` on an event loop in a thread of its own.

    caller's thread --coroutine--> loop thread --requests--> flow
          ^                            |
          +------ next(iterable) ------+      the caller's iterables run in the caller's thread

So it works inside a running event loop (a notebook, a web handler), and iterables that belong to a thread, such as a
database cursor, are safe to hand in.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from flowdex.async_client import AsyncClient, OnError
from flowdex.attention import Attention
from flowdex.encodings import EncodeChoices, Encodings, TextInput, VectorChoices
from flowdex.errors import Cancelled
from flowdex.loop_thread import LoopThread
from flowdex.progress import Progress
from flowdex.ranking import RankedText, RankMethod
from flowdex.results import FlowStatus, IndexResult, SearchResult
from flowdex.searching import SearchChoices, SearchMode
from flowdex.snapshots import RestoreResult, SnapshotResult
from flowdex.stored import Page, StoredDocument

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client"]

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]


class Client:
    """A flow, from ordinary code. `AsyncClient` has the same methods to be awaited.

    A client keeps one connection, opened by the first call; make one, use it from any thread, close it (or use it in a
    `with` block).

    Args:
        url: "grpc://HOST:PORT", "grpcs://", "http://" or "https://". Default: the environment variable FLOWDEX_URL, or
            else grpc://127.0.0.1:51000.
        timeout: Seconds that each request may take, its retries included; None for no limit. `encode` and `index` send
            many requests; a method's own `timeout` limits the whole call instead.
        retries: How often a request is tried again when the flow is overloaded or unavailable.
        api_key: Sent as a bearer token. Default: the environment variable FLOWDEX_API_KEY, if set.
        headers: Sent with every request, as HTTP headers or gRPC metadata.
        ca: PEM file of the certificate authorities to trust with grpcs:// and https://. Default: the environment
            variable FLOWDEX_CA, or else the system's.
        certificate: PEM file of the client's own certificate, where the gateway asks for one. It is read again when it
            changes. Default: the environment variable FLOWDEX_CERTIFICATE.
        key: PEM file of its key. Default: the environment variable FLOWDEX_KEY.

    Raises:
        ConfigurationError: The address or a file cannot be used.
    """

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
        self._client = AsyncClient(
            url,
            timeout=timeout,
            retries=retries,
            api_key=api_key,
            headers=headers,
            ca=ca,
            certificate=certificate,
            key=key,
        )
        self._thread = LoopThread()
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def url(self) -> str:
        """The address of the flow."""
        return self._client.url

    @overload
    def encode(  # type: ignore[overload-overlap]  # texts first: T would take them too
        self,
        content: Iterable[TextInput],
        *,
        batch_size: int = ...,
        prefetch: int = ...,
        show_progress: Progress = ...,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
        **choices: Unpack[VectorChoices],
    ) -> Vectors: ...
    @overload
    def encode(  # type: ignore[overload-overlap]
        self,
        content: Iterable[TextInput],
        *,
        batch_size: int = ...,
        prefetch: int = ...,
        show_progress: Progress = ...,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
        **choices: Unpack[EncodeChoices],
    ) -> Encodings: ...
    @overload
    def encode(
        self,
        content: Iterable[T],
        *,
        batch_size: int = ...,
        prefetch: int = ...,
        show_progress: Progress = ...,
        parameters: Mapping[str, Any] | None = ...,
        timeout: float | None = ...,
        **choices: Unpack[EncodeChoices],
    ) -> list[T]: ...
    def encode(
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
        """Turn texts into vectors.

        Args:
            content: Texts, or documents (docarray's of any class with `text` and `embedding`, or `Document`s): a list,
                a DocList or any iterable. A text is a string, a pair of texts (a tuple of two strings, for models that
                read pairs) or a list of words. A generator is read no further ahead than needed.
            batch_size: Most texts in a request.
            prefetch: Most requests in flight.
            show_progress: Whether to draw a progress bar on standard error; None draws one for input of known size that
                takes several requests, on a terminal. Or a function that is called with the number of texts done since
                its last call.
            parameters: Passed on to the flow's executors.
            timeout: Seconds for the whole call; None leaves the client's limit for each request.
            **choices: What becomes of a text; what is left out is as the encoder is set up. `pooling` ("mean", "max",
                "cls", ..., several to concatenate, or "none" for the token vectors), `layers` (negative ones count from
                the top) and `layer_mode` ("concat", "mean"), `normalize`, `truncation` ("head", "tail", "window_mean",
                "error"), `max_length`, `dimensions` (leading ones), `dtype` ("float32", "float16", "int8", "binary"),
                `prompt` (its name), `tokens`, `attention`, `receipt` (True to have them). See docs/encoders.md.

        Returns:
            For texts, float32 of shape (n, dim), row i for text i (float16 is of half the size on its way only). With
            tokens, attention, receipt, pooling "none", or dtype int8 or binary: `Encodings`. For documents, copies of
            them, of the same class and in the same order, with their `embedding` and what else the class has fields
            for; a DocList for a DocList.

        Raises:
            WrongType: `content` is a bare string or another single thing, or an item is neither text nor document.
            InvalidInput: It is empty, or a text is blank; the message names its position.
            Unavailable, Overloaded, DeadlineExceeded: After the retries.
        """
        return self._run(
            self._client.encode(
                content,
                batch_size=batch_size,
                prefetch=prefetch,
                show_progress=show_progress,
                parameters=parameters,
                timeout=timeout,
                **choices,
            )
        )

    def index(
        self,
        documents: Iterable[Any],
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
        """Add documents to the index; one whose id is there already is replaced.

        Args:
            documents: Strings, mappings {"text" or "fields", "id"?, "tags"?, "embedding"?}, `Document`s or docarray
                documents: a list, a DocList or any iterable, also an endless one. An id may occur once in a call.
            batch_size: Most documents in a request.
            prefetch: Most requests in flight.
            show_progress: As for `encode`.
            on_error: "raise" stops at the first document that is refused (what was sent before it stays indexed);
                "collect" goes on and lists the refused ones in the result's `failures`. Either way the other documents
                of the same request are stored.
            return_ids: Whether the result lists all ids; False saves the memory on endless input.
            resume: Whether to leave alone documents that are in the index with the same content, such as those of a run
                that was interrupted. It goes by a digest of id, text or fields, tags and embedding, which is stored
                with every document; documents without an id of their own are new each time.
            parameters: Passed on to the flow's executors.
            timeout: As for `encode`.

        Raises:
            InvalidInput: A document is refused, and `on_error` is "raise". For a list, the client's own checks (blank
                text, wrong type) are made before anything is sent.
            Conflict: The flow's vectors do not fit those of the index.
            Unavailable, Overloaded, DeadlineExceeded: After the retries.
        """
        return self._run(
            self._client.index(
                documents,
                batch_size=batch_size,
                prefetch=prefetch,
                show_progress=show_progress,
                on_error=on_error,
                return_ids=return_ids,
                resume=resume,
                parameters=parameters,
                timeout=timeout,
            )
        )

    @overload
    def search(  # type: ignore[overload-overlap]  # a string is an iterable of strings
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
    def search(
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
    def search(
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
        """Find the documents that answer a query, or each of several queries.

        Args:
            query: A string, or an iterable of them, which are searched for as one batch.
            limit: Most hits.
            offset: Hits to leave out at the front.
            filter: Conditions on tags, such as {"lang": "en"} or {"year": {"$gte": 2020}}.
            mode: "dense" (by vectors), "sparse" (by words), or "hybrid", both; None is the flow's default.
            parameters: Passed on to the flow's executors.
            timeout: Seconds for the whole call; None is the client's limit.
            **choices: `passages` (most of one document), `threshold` (least score of a hit), `fusion` ("rrf", "dbsf",
                or {"method": "rrf", "k": 60, "weights": {"dense": 1, "sparse": 1}}), `candidates` (how many documents
                the ranker chooses from), `explain` (True: hits say where their scores come from), `diversity` (from 0
                to 1, or {"weight": 0.5, "candidates": 50}), `group` ("document", or "passage": hits are passages),
                `highlight` (False: none), `aggregate` ("max", "mean", "sum", "softmax", or {"method": "sum",
                "top": 3}), `rerank` ("late_interaction", "cross_encoder", or {"method": ..., "top": 50,
                "timeout": seconds}). What is left out is as the flow is set up.
                See docs/search.md.

        Returns:
            A `SearchResult` for a string, otherwise a list with one for each query, in order.

        Raises:
            InvalidInput: A query is blank, or the filter cannot be understood.
            Unavailable, Overloaded, DeadlineExceeded: After the retries.
        """
        return self._run(
            self._client.search(query, limit, offset, filter, mode, parameters=parameters, timeout=timeout, **choices)
        )

    @overload
    def get(  # type: ignore[overload-overlap]  # a string is an iterable of strings
        self, ids: str, *, passages: bool = ..., embeddings: bool = ..., timeout: float | None = ...
    ) -> StoredDocument: ...
    @overload
    def get(
        self, ids: Iterable[str], *, passages: bool = ..., embeddings: bool = ..., timeout: float | None = ...
    ) -> list[StoredDocument]: ...
    def get(
        self,
        ids: str | Iterable[str],
        *,
        passages: bool = False,
        embeddings: bool = False,
        timeout: float | None = None,
    ) -> StoredDocument | list[StoredDocument]:
        """Read documents out of the index, as they were sent.

        Args:
            ids: One id, or several.
            passages: Whether to read the passages too that each was cut into.
            embeddings: Whether to read vectors: a document's where it was the caller's own, and those of `passages`.
            timeout: Seconds for the whole call; None is the client's limit for each request.

        Returns:
            The document for a string; otherwise a list of those that are there, in the order of the ids.

        Raises:
            NotFound: The one id is not in the index.
        """
        if isinstance(ids, str):
            return self._run(self._client.get(ids, passages=passages, embeddings=embeddings, timeout=timeout))
        return self._run(self._client.get(ids, passages=passages, embeddings=embeddings, timeout=timeout))

    def scroll(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        passages: bool = False,
        embeddings: bool = False,
        page_size: int = 100,
    ) -> Iterator[StoredDocument]:
        """Read all documents, or those that match a filter, in the order in which they were last written.

        One that is written while this goes on may come a second time, at the end; none is missed.

        Args:
            filter: As for `search`.
            passages: As for `get`.
            embeddings: As for `get`.
            page_size: Most documents in a request.
        """
        cursor: str | None = None
        while True:
            page = self.page(cursor, filter=filter, passages=passages, embeddings=embeddings, page_size=page_size)
            yield from page.documents
            cursor = page.cursor
            if cursor is None:
                return

    def page(
        self,
        cursor: str | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        passages: bool = False,
        embeddings: bool = False,
        page_size: int = 100,
        timeout: float | None = None,
    ) -> Page:
        """Read one page of what `scroll` goes through, for those who keep the place themselves.

        Args:
            cursor: `cursor` of the page before; None for the first.
            filter: As for `search`; the same for all pages.
            passages: As for `get`.
            embeddings: As for `get`.
            page_size: Most documents; a page may have fewer without being the last.
            timeout: Seconds for the call; None is the client's limit.

        Returns:
            `documents`, and the `cursor` of the next page, None where there is none.
        """
        return self._run(
            self._client.page(
                cursor, filter=filter, passages=passages, embeddings=embeddings, page_size=page_size, timeout=timeout
            )
        )

    def count(self, filter: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> int:
        """Count the documents in the index, or those that match a filter."""
        return self._run(self._client.count(filter, timeout=timeout))

    def rank(
        self,
        query: str,
        texts: Iterable[str],
        *,
        method: RankMethod | None = None,
        top: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> list[RankedText]:
        """Order texts by how well they answer a query, without an index.

        Args:
            query: What they are to answer.
            texts: Any number of them, in one request.
            method: "late_interaction" (token by token, with the flow's own encoder), "cross_encoder" (where the flow
                has one), or "dense" (cosine of the encoder's vectors). None for a cross-encoder where there is one,
                otherwise late interaction.
            top: Most texts to return; None for all.
            parameters: Further parameters of the ranker.
            timeout: Seconds for the whole call.

        Returns:
            The texts, best first, each with its score and its position in `texts`.

        Raises:
            InvalidInput: A text is blank, there are none, or the flow has no such method.
        """
        return self._run(
            self._client.rank(query, texts, method=method, top=top, parameters=parameters, timeout=timeout)
        )

    def attention(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        layers: int | Sequence[int] | None = None,
        executor: str | None = None,
        timeout: float | None = None,
    ) -> Attention:
        """See where each token of a text looks, or of two texts that are read as one sequence.

        Args:
            text: The text.
            text_pair: The second text.
            layers: Layers to see, from 0, negative ones counted from the top; None for all.
            executor: Name of the encoder, where the flow has several.
            timeout: Seconds for the whole call.

        Returns:
            `weights` as float32 of shape (layers, heads, tokens, tokens), with the tokens, and `to_html()`.

        Raises:
            InvalidInput: A text is blank, the encoder has no attention, or no such layer.
            TooLarge: The text has more tokens than the encoder's `attention_tokens`.
        """
        return self._run(self._client.attention(text, text_pair, layers=layers, executor=executor, timeout=timeout))

    def delete(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Remove documents, by their ids or by a filter on their tags.

        Returns:
            How many were removed; ids that are not in the index are passed over.

        Raises:
            InvalidInput: Both or neither are given, or an empty filter.
        """
        return self._run(self._client.delete(ids, filter=filter, timeout=timeout))

    def snapshot(
        self, path: str | Path, *, progress: Callable[[int, int], None] | None = None, timeout: float | None = None
    ) -> SnapshotResult:
        """Save all that is indexed to one file, while the flow goes on. Over gRPC only.

        Args:
            path: The file to make; one that is there is replaced when the snapshot has arrived as a whole.
            progress: Called with the bytes that have arrived, and all of them.
            timeout: Seconds for one request; taking the snapshot is one, fetching a piece of it another.

        Raises:
            NotFound: The flow has no index, or nothing is stored in it.
        """
        return self._run(self._client.snapshot(path, progress=progress, timeout=timeout))

    def restore(
        self, path: str | Path, *, progress: Callable[[int, int], None] | None = None, timeout: float | None = None
    ) -> RestoreResult:
        """Put a snapshot in the place of all that is indexed, at once, while the flow goes on. Over gRPC only.

        Args:
            path: The snapshot.
            progress: Called with the bytes that are sent, and all of them.
            timeout: Seconds for one request.

        Raises:
            InvalidInput: It is damaged, or of another format; nothing has changed.
            Conflict: The flow's settings do not agree with it; nothing has changed.
        """
        return self._run(self._client.restore(path, progress=progress, timeout=timeout))

    def status(self, *, timeout: float | None = None) -> FlowStatus:
        """Ask for the state of the flow: its executors, their models, and how much is indexed."""
        return self._run(self._client.status(timeout=timeout))

    def is_ready(self, *, timeout: float | None = 5.0) -> bool:
        """Whether the flow takes requests now; False also when it cannot be reached within `timeout` seconds."""
        return self._run(self._client.is_ready(timeout=timeout))

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the flow takes requests.

        Raises:
            DeadlineExceeded: It does not within `timeout` seconds.
        """
        return self._run(self._client.wait_ready(timeout))

    def close(self) -> None:
        """Close the connection; calls in flight in other threads end with `Cancelled`."""
        if not self._closed:
            self._run(self._client.close())
            self._closed = True
            self._thread.stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            coroutine.close()
            raise Cancelled("the client is closed")
        return self._thread.run(coroutine)
