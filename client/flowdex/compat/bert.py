"""BertClient and ConcurrentBertClient of bert-serving-client 1.10, over gRPC or HTTP instead of ZeroMQ.

    encode(texts) --AsyncClient: batches, retries--> /encode --> array, padded where there is a row for each token
    server_status --/bert/status--> the flags under `gateway: bert:` of the flow file, which say how to encode

Methods, arguments, warnings and kinds of errors are those of the original. What differs: there is one port, an error of
the server is raised as such, a flow that is not there raises instead of waiting for ever, and a client may be shared by
threads.
"""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowdex.async_client import AsyncClient
from flowdex.compat.bert_texts import read_text
from flowdex.encodings import Encodings
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex.inputs import WrongType
from flowdex.loop_thread import LoopThread
from flowdex.transport.target import Target

__all__ = ["BertClient", "ConcurrentBertClient", "Response"]

_VERSION = "1.10.0"
_DEFAULT_PORT = 51000
_AT_ONCE = 8  # requests of encode(blocking=False) in flight
_BATCH = 256


class Response(NamedTuple):
    """One answer of `fetch`: which request, its vectors, its tokens ("" where the server shows none)."""

    id: int
    embedding: Any
    tokens: Any


class BertClient:
    """A flow in the shape of a bert-as-service server.

    Args:
        ip: Host of the flow's gateway.
        port: Its gRPC port.
        port_out: Not used: replies come on the same connection.
        output_fmt: "ndarray", or "list" for lists of numbers.
        show_server_config: Whether to print the server's configuration.
        identity: Name of this client, for `status`.
        check_version: Not used: the flow and its client agree by their protocol.
        check_length: Whether to warn of texts that have more words than the server takes tokens.
        check_token_info: Whether to ask if the server shows tokens, which `show_tokens` needs.
        ignore_all_checks: Whether to make no call now, for a flow that is not ready yet.
        timeout: Milliseconds for each call; -1 for no limit.
        url: Address of the gateway in place of ip and port, such as "https://host".
        api_key: Sent as a bearer token.

    Raises:
        Unavailable: The flow cannot be reached.
    """

    def __init__(  # noqa: PLR0917 - as in the original
        self,
        ip: str = "localhost",
        port: int = _DEFAULT_PORT,
        port_out: int | None = None,
        output_fmt: str = "ndarray",
        show_server_config: bool = False,
        identity: bytes | str | None = None,
        check_version: bool = True,
        check_length: bool = True,
        check_token_info: bool = True,
        ignore_all_checks: bool = False,
        timeout: int = -1,
        *,
        url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        if output_fmt not in ("ndarray", "list"):
            raise AttributeError('"output_fmt" must be "ndarray" or "list"')
        self.identity = identity or str(uuid.uuid4()).encode()
        self.ip, self.port, self.port_out, self.output_fmt = ip, port, port_out, output_fmt
        self.timeout = timeout
        self._target = Target.parse(url or f"grpc://{f'[{ip}]' if ':' in ip else ip}:{port}", api_key=api_key)
        self._client = AsyncClient(str(self._target), timeout=None, api_key=api_key)
        self._thread = LoopThread()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._requests = 0
        self._pending: dict[Future[tuple[Any, Any]], int] = {}
        self._config: dict[str, Any] | None = None
        self._checks = (check_length and not ignore_all_checks, check_token_info and not ignore_all_checks)
        if not ignore_all_checks and (check_version or show_server_config or check_length or check_token_info):
            config = self._configured()
            if show_server_config:
                print("server config:")
                for key, value in config.items():
                    print(f"{key:>30}\t=\t{value!s:<30}")

    # ---- encoding ----

    def encode(self, texts: Any, blocking: bool = True, is_tokenized: bool = False, show_tokens: bool = False) -> Any:
        """Encode texts.

        Args:
            texts: A list of strings; `A ||| B` is a pair.
            blocking: Whether to wait; otherwise the answer comes through `fetch` or `fetch_all`.
            is_tokenized: Whether `texts` is a list of lists of tokens.
            show_tokens: Whether to return the tokens too, if the server shows them.

        Returns:
            float32 of shape (B, D), or (B, T, D) with the server's strategy NONE; with tokens a pair of that and the
            tokens of each text; None where not blocking.

        Raises:
            TypeError: `texts` is not a list of strings (of lists of strings).
            ValueError: It is empty, or a text is blank.
            TimeoutError: No answer came in time.
            FlowdexError: What the flow says.
        """
        _check(texts, is_tokenized)
        self._warn_of_length(texts, is_tokenized)
        with self._lock:
            self._requests += 1
            number = self._requests
        if not blocking:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bert-client")
            self._pending[self._pool.submit(self._encode, list(texts))] = number
            return None
        vectors, tokens = self._encode(texts)
        shown = self._checks[1] and bool(self._configured().get("show_tokens_to_client"))
        if show_tokens and not shown:
            warnings.warn(
                '"show_tokens=True", but the server does not send tokens: set show_tokens_to_client: true under '
                "`gateway: bert:` of its flow file",
                stacklevel=2,
            )
        return (vectors, tokens) if show_tokens and shown else vectors

    def fetch(self, delay: float = 0.0) -> Generator[Response, None, None]:
        """Yield the answers to `encode(blocking=False)` as they come, in any order.

        Args:
            delay: Seconds to wait first.
        """
        time.sleep(delay)
        while self._pending:
            done, _ = wait(list(self._pending), return_when=FIRST_COMPLETED)
            for future in done:
                number = self._pending.pop(future)
                vectors, tokens = future.result()
                yield Response(number, vectors, tokens)

    def fetch_all(self, sort: bool = True, concat: bool = False) -> Any:
        """All answers to `encode(blocking=False)`; None where nothing is pending.

        Args:
            sort: Whether they come in the order of the requests.
            concat: Whether they are joined into one.
        """
        if not self._pending:
            return None
        found = list(self.fetch())
        if sort:
            found.sort(key=lambda response: response.id)
        parts = [response.embedding for response in found]
        if not concat:
            return parts
        if self.output_fmt == "list":
            return [row for part in parts for row in part]
        return np.concatenate(parts, axis=0)

    def encode_async(
        self, batch_generator: Iterable[Any], max_num_batch: int | None = None, delay: float = 0.1, **kwargs: Any
    ) -> Generator[Response, None, None]:
        """Encode batches from a generator, some at the same time; yields answers as they come.

        Args:
            batch_generator: Lists of texts.
            max_num_batch: Most batches to take.
            delay: As in the original; not needed here.
            **kwargs: As for `encode`.
        """
        for taken, texts in enumerate(batch_generator, 1):
            self.encode(texts, blocking=False, **kwargs)
            if max_num_batch and taken >= max_num_batch:
                break
            if len(self._pending) >= _AT_ONCE:
                yield next(self.fetch())
        yield from self.fetch()

    def _encode(self, texts: list[Any]) -> tuple[Any, Any]:
        config = self._configured()
        items = [read_text(text) for text in texts]
        choices = config.get("encode_parameters") or {}
        found = self._run(
            self._client.encode(
                items, batch_size=_BATCH, parameters=None, timeout=self._seconds(), show_progress=False, **choices
            )
        )
        if isinstance(found, Encodings):
            length = int(config.get("max_seq_len") or 0) if config.get("fixed_embed_length") else 0
            vectors = _stack([each.embedding for each in found], length)
            tokens: Any = [each.tokens.texts for each in found if each.tokens is not None] or ""
        else:
            vectors, tokens = found, ""
        return (vectors.tolist() if self.output_fmt == "list" else vectors), tokens

    # ---- the server and the client ----

    @property
    def server_status(self) -> dict[str, Any]:
        """What the server says of itself: its flags, versions and statistic."""
        found: dict[str, Any] = self._run(self._ask())
        return found

    @property
    def server_config(self) -> dict[str, Any]:
        """The server's flags and versions."""
        status = self.server_status
        return {key: value for key, value in status.items() if key not in ("statistic", "server_current_time")}

    @property
    def status(self) -> dict[str, Any]:
        """What this client has done."""
        return {
            "identity": self.identity,
            "num_request": self._requests,
            "num_pending_request": len(self._pending),
            "pending_request": set(self._pending.values()),
            "output_fmt": self.output_fmt,
            "port": self.port,
            "port_out": self.port_out,
            "server_ip": self.ip,
            "client_version": _VERSION,
            "timeout": self.timeout,
        }

    def close(self) -> None:
        """Close the connection; what is pending is cancelled."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._run(self._client.close())
        self._thread.stop()

    def __enter__(self) -> BertClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _configured(self) -> dict[str, Any]:
        """The server's configuration, asked for once."""
        if self._config is None:
            self._config = self.server_config
        return self._config

    async def _ask(self) -> dict[str, Any]:
        from flowdex.transport.grpc import GrpcTransport
        from flowdex.transport.http import HttpTransport

        seconds = self._seconds()
        if self._target.scheme.startswith("grpc"):
            grpc = GrpcTransport(self._target)
            try:
                _, results = await grpc.post("/bert/status", None, {}, seconds)
            finally:
                await grpc.close()
            found = results.get("gateway")
        else:
            http = HttpTransport(self._target)
            try:
                found = await http.read("/status/server", seconds)
            finally:
                await http.close()
        if not found:
            raise ConfigurationError(f"{self._target} does not answer as a flowdex gateway does: is the address right?")
        return found

    def _run(self, coroutine: Any) -> Any:
        return self._thread.run(coroutine)

    def _seconds(self) -> float | None:
        return None if self.timeout is None or self.timeout < 0 else self.timeout / 1000

    def _warn_of_length(self, texts: list[Any], is_tokenized: bool) -> None:
        if not self._checks[0]:
            return
        limit = self._configured().get("max_seq_len")
        if limit is None:
            warnings.warn(
                'the server sets no "max_seq_len": texts are cut at the encoder\'s own limit only; shorter texts are '
                "faster",
                stacklevel=3,
            )
        elif any(len(text if is_tokenized else text.split()) > limit for text in texts):
            warnings.warn(
                f'some texts have more tokens than "max_seq_len={limit}" of the server, and are cut there: raise it '
                "under `gateway: bert:` of its flow file, or create the client with check_length=False to see no "
                "warning",
                stacklevel=3,
            )


class ConcurrentBertClient(BertClient):
    """A client for at most so many threads at the same time.

    Args:
        max_concurrency: Most calls at the same time; one more is a RuntimeError.
        **kwargs: As for `BertClient`.
    """

    def __init__(self, max_concurrency: int = 10, **kwargs: Any) -> None:
        self.max_concurrency = max_concurrency
        self._places = threading.BoundedSemaphore(max_concurrency)
        super().__init__(**kwargs)

    def encode(self, texts: Any, blocking: bool = True, is_tokenized: bool = False, show_tokens: bool = False) -> Any:
        """See `BertClient.encode`; always blocking.

        Raises:
            RuntimeError: `max_concurrency` calls are being made.
        """
        if not blocking:
            raise NotImplementedError("ConcurrentBertClient has no encode(blocking=False); use BertClient")
        if not self._places.acquire(blocking=False):
            raise RuntimeError(
                f"more than {self.max_concurrency} calls at the same time: raise max_concurrency of the client"
            )
        try:
            return super().encode(texts, True, is_tokenized, show_tokens)
        finally:
            self._places.release()

    def fetch(self, delay: float = 0.0) -> Generator[Response, None, None]:
        """Not there, as in the original."""
        raise NotImplementedError("ConcurrentBertClient has no fetch; use BertClient")

    def fetch_all(self, sort: bool = True, concat: bool = False) -> Any:
        """Not there, as in the original."""
        raise NotImplementedError("ConcurrentBertClient has no fetch_all; use BertClient")

    def encode_async(
        self, batch_generator: Iterable[Any], max_num_batch: int | None = None, delay: float = 0.1, **kwargs: Any
    ) -> Generator[Response, None, None]:
        """Not there, as in the original."""
        raise NotImplementedError("ConcurrentBertClient has no encode_async; use BertClient")


def _check(texts: Any, is_tokenized: bool) -> None:
    if not isinstance(texts, list):
        raise WrongType(f'"texts" must be a list, got {type(texts).__name__}')
    if not texts:
        raise InvalidInput('"texts" must not be empty')
    for index, text in enumerate(texts):
        parts = text if is_tokenized else [text]
        if not isinstance(parts, list):
            raise WrongType(f"with is_tokenized, text {index} must be a list of strings, got {type(text).__name__}")
        if not parts:
            raise InvalidInput(f"text {index} has no tokens")
        for part in parts:
            if not isinstance(part, str):
                raise WrongType(f"text {index} must be made of strings, got {type(part).__name__}")
            if not part.strip():
                raise InvalidInput(f"text {index} must not be blank, got {part!r}")


def _stack(rows: list[npt.NDArray[Any]], length: int) -> npt.NDArray[np.float32]:
    """Vectors, or matrices that are padded with zeros to the longest one or to `length` rows."""
    if rows[0].ndim == 1:
        return np.stack(rows).astype(np.float32, copy=False)
    found = np.zeros((len(rows), max(length, *map(len, rows)), rows[0].shape[1]), dtype=np.float32)
    for target, row in zip(found, rows, strict=True):
        target[: len(row)] = row
    return found
