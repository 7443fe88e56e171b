"""The client's HTTP transport: the gateway's JSON API over one connection pool.

    DocumentBatch --JSON--> POST /encode, /index, /search, /get, ..., DELETE /documents --JSON | problem--> results

Vectors travel as base64 of little-endian float32, errors as RFC 9457 problem documents.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx

from flowdex.attention import Attention
from flowdex.attention import from_json as attention_from_json
from flowdex.documents import DocumentBatch
from flowdex.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    Unavailable,
    error_from_name,
)
from flowdex.fields import read_fields
from flowdex.ranking import RankedText
from flowdex.results import ExecutorStatus, FlowStatus, Hit, Passage, Span
from flowdex.searching import SEARCH_FIELDS
from flowdex.stored import Page, StoredDocument, from_json
from flowdex.timeouts import within
from flowdex.trace_context import carried
from flowdex.transport import IndexReply, SearchReply
from flowdex.transport.handshake import explain_handshake
from flowdex.transport.http_encode import encode_body, write_reply
from flowdex.transport.problems import error_from_problem
from flowdex.transport.target import Target

__all__ = ["HttpTransport", "client_context"]

_LOOK_SECONDS = 1.0  # between two looks whether certificate files are new


class HttpTransport:
    """See `flowdex.transport.Transport`.

    Args:
        target: A target of scheme http or https.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: ssl.SSLContext | None = None
        self._generation = 0
        self._look_at = 0.0
        self._reached = False
        self._closed = False

    @property
    def reached(self) -> bool:
        """Whether the service has ever answered."""
        return self._reached

    # ---- calls ----

    async def encode(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> DocumentBatch:
        """Send the texts to POST /encode; what it answers is written into `batch`."""
        write_reply(await self._json("POST", "/encode", encode_body(batch, parameters), timeout), batch)
        return batch

    async def index(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> IndexReply:
        """Send documents to POST /index."""
        columns = {
            "id": batch.ids,
            "text": batch.texts,
            "fields": read_fields(batch),
            "tags": batch.tags,
            "embedding": [None if row is None else row.tolist() for row in batch.column("embedding")],
            "digest": batch.column("digest"),
            "segment": batch.column("segment"),
        }
        documents = [
            {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            for row in zip(*columns.values(), strict=True)
        ]
        reply = await self._json("POST", "/index", {"documents": documents, **_extra(parameters)}, timeout)
        errors = {
            int(each["index"]): error_from_name(each["error"]["name"], each["error"]["message"])
            for each in reply.get("failed") or ()
        }
        return IndexReply(int(reply["passages"]), errors)

    async def get(
        self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[StoredDocument]:
        """Send ids to POST /get."""
        reply = await self._json("POST", "/get", {"ids": list(ids), **parameters}, timeout)
        return from_json(reply["documents"]).documents

    async def scroll(self, parameters: Mapping[str, Any], timeout: float | None) -> Page:
        """Ask POST /scroll."""
        reply = await self._json("POST", "/scroll", dict(parameters), timeout)
        return from_json(reply["documents"], reply.get("cursor"))

    async def count(self, parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Ask POST /count."""
        return int((await self._json("POST", "/count", dict(parameters), timeout))["documents"])

    async def search(
        self, queries: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[SearchReply]:
        """Send queries to POST /search."""
        fields = {name: parameters[name] for name in SEARCH_FIELDS if name in parameters}
        others = {name: value for name, value in parameters.items() if name not in fields}
        body = {"query": list(queries), **fields, **_extra(others)}
        results = (await self._json("POST", "/search", body, timeout))["results"]
        if len(results) != len(queries):
            raise InternalError(f"/search answered {len(results)} results to {len(queries)} queries")
        return [SearchReply([_hit(hit) for hit in each["hits"]], list(each.get("notes") or ())) for each in results]

    async def rank(
        self, query: str, texts: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[RankedText]:
        """Ask POST /rank."""
        fields = {name: parameters[name] for name in ("method", "top") if name in parameters}
        others = {name: value for name, value in parameters.items() if name not in fields}
        body = {"query": query, "texts": list(texts), **fields, **_extra(others)}
        results = (await self._json("POST", "/rank", body, timeout))["results"]
        return [RankedText(int(each["index"]), float(each["score"]), each["text"]) for each in results]

    async def attention(
        self,
        text: str,
        text_pair: str | None,
        parameters: Mapping[str, Any],
        timeout: float | None,
        *,
        executor: str | None = None,
    ) -> Attention:
        """Ask POST /attention."""
        body = {"text": text, "text_pair": text_pair, "model": executor, **parameters}
        sent = {name: value for name, value in body.items() if value is not None}
        return attention_from_json(await self._json("POST", "/attention", sent, timeout))

    async def delete(self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Send ids, or a filter, to DELETE /documents."""
        body = {"ids": list(ids), **_extra(parameters)} if ids else dict(parameters)
        return int((await self._json("DELETE", "/documents", body, timeout))["deleted"])

    async def status(self, timeout: float | None) -> FlowStatus:
        """Read GET /status."""
        reply = await self._json("GET", "/status", None, timeout)
        return FlowStatus(
            name=reply.get("name") or "",
            version=reply.get("version") or "",
            uptime_s=float(reply.get("uptime_s") or 0.0),
            endpoints=reply.get("endpoints") or {},
            executors=[
                ExecutorStatus(
                    name=each["name"],
                    uses=each.get("uses") or "",
                    needs=each.get("needs") or (),
                    replicas=each.get("replicas") or (),
                    status=each.get("status") or {},
                )
                for each in reply.get("executors") or ()
            ],
        )

    async def read(self, path: str, timeout: float | None) -> dict[str, Any]:
        """Read a JSON object from any path."""
        return await self._json("GET", path, None, timeout)

    async def ready(self, timeout: float | None) -> bool:
        """Read GET /health/ready."""
        try:
            return (await self._request("GET", "/health/ready", None, timeout)).status_code == 200
        except (Unavailable, DeadlineExceeded):
            return False

    async def close(self) -> None:
        """Close the connection pool."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    # ---- how ----

    def _open(self) -> httpx.AsyncClient:
        if self._closed:
            raise Cancelled("the client is closed")
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # pooled connections belong to the loop that opened them
            self._context = client_context(self._target)
            self._client = httpx.AsyncClient(  # nosec B113 # `_request` bounds it
                base_url=str(self._target),
                headers=dict(self._target.headers),
                verify=True if self._context is None else self._context,
                timeout=None,  # `_request` bounds the whole exchange, not its phases
                trust_env=not self._target.loopback,  # a proxy from the environment cannot reach this machine
            )
            self._loop = loop
        return self._client

    def _renew(self) -> None:
        """Let new connections present what the certificate files hold now."""
        files = self._target.certificates
        if self._context is None or files is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        files.current()
        if files.generation != self._generation:
            with suppress(ssl.SSLError, OSError):  # being written: the next look reads them again
                files.load_pair(self._context)
                if files.ca is not None:
                    self._context.load_verify_locations(files.ca)
                self._generation = files.generation

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> httpx.Response:
        headers = dict(carried())
        if timeout is not None:
            headers["x-request-timeout-ms"] = str(max(1, int(timeout * 1000)))
        client = self._open()
        self._renew()
        try:
            response = await within(client.request(method, path, json=body, headers=headers), timeout)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"{self._target} did not answer within {timeout:g} s") from None
        except httpx.TransportError as error:
            if (not self._reached or "SSL" in str(error)) and (
                found := await asyncio.to_thread(explain_handshake, self._target)
            ):
                raise found from None
            if isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol)):
                raise Unavailable(self._target.unreachable(str(error) or "no connection")) from None
            raise Unavailable(f"the connection to {self._target} broke: {error or type(error).__name__}") from None
        except ValueError as error:  # a body that has no JSON form, such as NaN in a tag
            raise InvalidInput(f"the request cannot be written as JSON: {error}") from None
        self._reached = True
        return response

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> dict[str, Any]:
        response = await self._request(method, path, body, timeout)
        try:
            answer: object = response.json()
        except ValueError:
            answer = None
        content = answer if isinstance(answer, dict) else None
        if response.is_error:
            raise error_from_problem(response.status_code, content, retry_after=_retry_after(response))
        if content is None:
            raise InternalError(f"{self._target}{path} did not answer as a flowdex gateway does: is the address right?")
        return content


def client_context(target: Target) -> ssl.SSLContext | None:
    """What a target of scheme https is trusted by, and shown; None for the system's authorities and nothing."""
    if target.certificates is None:
        return None
    try:
        return target.certificates.client_context()
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"the certificate files cannot be read just now: {error}") from None


def _extra(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"parameters": dict(parameters)} if parameters else {}


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _hit(hit: Mapping[str, Any]) -> Hit:
    return Hit(
        id=hit["id"],
        score=hit["score"],
        text=hit.get("text") or "",
        tags=hit.get("tags") or {},
        location=_span(hit.get("location")),
        highlights=[(start, end) for start, end in hit.get("highlights") or ()],
        scores=hit.get("scores") or {},
        passages=[
            Passage(
                id=each["id"],
                text=each.get("text") or "",
                location=_span(each.get("location")),
                score=each.get("score") or 0.0,
                scores=each.get("scores") or {},
                explain=each.get("explain") or {},
            )
            for each in hit.get("passages") or ()
        ],
        explain=hit.get("explain") or {},
        parent_id=hit.get("parent_id"),
    )


def _span(value: Sequence[int] | None) -> Span | None:
    return None if value is None else (int(value[0]), int(value[1]))
