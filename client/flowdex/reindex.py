"""Embed all documents of a running flow anew, and let the result take the place of what is searched, at once.

    flow --/reindex/pending--> documents --/index {reindex}--> flow                     (its encoder was changed)
                                         --/index--> another flow --/reindex/store--> flow   (its encoder is to change)
    until none is pending, then swap; what was written in the meantime is pending again; then the former one goes

The indexer keeps the state: stop at any moment, and run it again to go on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, Conflict, NotFound
from flowdex.pipeline import ordered
from flowdex.retry import Deadline, RetryPolicy, with_retries
from flowdex.transport.grpc import GrpcTransport
from flowdex.transport.target import Target

__all__ = ["Progress", "ReindexResult", "Reindexer", "Steering"]

Steering = Literal["status", "swap", "finish", "abort", "forget"]
Progress = Callable[[str, int, int], None]
"""Called with the stage, the documents that are done, and all of them."""

_RETRIES = RetryPolicy(retries=10)
_ROUNDS = 20
"""How often to look for what was written meanwhile, before the swap comes nevertheless."""


@dataclass
class ReindexResult:
    """What a reindex did.

    Attributes:
        documents: How many were copied, one that was written meanwhile perhaps twice.
        passages: How many passages they have.
        failures: Why documents could not be embedded, by id.
        swapped: Whether the new collection is now what is searched.
        took_ms: Milliseconds.
    """

    documents: int = 0
    passages: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    swapped: bool = False
    took_ms: float = 0.0


class _Page(NamedTuple):
    """Documents to copy, and their versions."""

    documents: DocumentBatch
    versions: dict[str, int]


class Reindexer:
    """Drives a reindex.

    Args:
        url: The flow's gateway.
        encoder: Gateway of another flow, which splits and encodes (an index of its own is left alone); None for the
            flow itself.
        api_key: For both.
        batch_size: Documents in a request.
        in_flight: Requests at once.
        timeout: Seconds for one request.

    Attributes:
        result: What `run` has done so far.

    Raises:
        ConfigurationError: An address is not one of gRPC.
    """

    def __init__(
        self,
        url: str | None,
        *,
        encoder: str | None = None,
        api_key: str | None = None,
        batch_size: int = 64,
        in_flight: int = 2,
        timeout: float = 300.0,
    ) -> None:
        self._flow = _transport(url, api_key)
        self._encoder = None if encoder is None else _transport(encoder, api_key)
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._timeout = timeout
        self.result = ReindexResult()

    async def close(self) -> None:
        """Close the connections."""
        await self._flow.close()
        if self._encoder is not None:
            await self._encoder.close()

    async def steer(self, action: Steering, **parameters: Any) -> dict[str, Any]:
        """Ask the indexer for a step; answers what `flowdex_executors.indexer.reindexing.steer` says.

        Raises:
            NotFound: The flow has no indexer that can.
        """
        _, told = await self._post(self._flow, "/reindex", None, {"action": action, **parameters})
        if not told:
            raise NotFound("the flow has no index that could be embedded anew")
        return next(iter(told.values()))

    async def run(
        self, *, keep: bool = False, skip_failed: bool = False, progress: Progress | None = None
    ) -> ReindexResult:
        """Copy, swap, copy what came last, and let the former collection go.

        Args:
            keep: Keep the former collection, for searches with the encoder that made it.
            skip_failed: Swap also where documents could not be embedded, which are then missing.
            progress: See `Progress`.

        Raises:
            Conflict: Documents could not be embedded, see `result.failures`; nothing was swapped.
        """
        started = time.monotonic()
        result = self.result
        status = await self.steer("status")
        if status["stage"] != "finishing":
            if status["source"] == 0:
                return result
            for _ in range(_ROUNDS):
                copied = await self._round("embedding", status, progress)
                if copied <= self._batch_size // 2:
                    break
            if result.failures and not skip_failed:
                raise Conflict(
                    f"{len(result.failures)} of {status['source']} documents could not be embedded, so nothing was "
                    "swapped: mend or delete them and run this again, or swap without them (--skip-failed)"
                )
            await self.steer("swap")
        result.swapped = True
        while await self._round("finishing", status, progress):
            pass
        await self.steer("finish", keep=keep)
        result.took_ms = 1e3 * (time.monotonic() - started)
        return result

    # ---- how ----

    async def _round(self, stage: str, status: Mapping[str, Any], progress: Progress | None) -> int:
        """Copy what is pending now; how many documents that were."""
        total, copied = int(status["source"]), 0
        before = int(status["target"]) if stage == "embedding" else 0
        async with aclosing(ordered(self._pending(), self._copy, self._in_flight)) as replies:
            async for stored, passages, failures in replies:
                copied += stored
                self.result.documents += stored
                self.result.passages += passages
                self.result.failures.update(failures)
                if progress is not None:
                    progress(stage, min(total, before + self.result.documents), total)
        return copied

    async def _pending(self) -> AsyncIterator[_Page]:
        cursor: str | None = None
        while True:
            wanted = {"limit": self._batch_size, **({} if cursor is None else {"cursor": cursor})}
            documents, _ = await self._post(self._flow, "/reindex/pending", None, wanted)
            if not documents:
                return
            versions = {
                name: int(version) for name, version in zip(documents.ids, documents.column("version"), strict=True)
            }
            cursor = documents.column("cursor")[-1]
            documents.drop("version", "cursor")
            yield _Page(documents, versions)
            if cursor is None:
                return

    async def _copy(self, page: _Page) -> tuple[int, int, dict[str, str]]:
        """Embed and store a page; how many documents, passages, and what failed."""
        if self._encoder is None:
            reply, _ = await self._post(self._flow, "/index", page.documents, {"reindex": {"versions": page.versions}})
        else:
            encoded, _ = await self._post(self._encoder, "/index", page.documents, {"reindex": {"store": False}})
            reply, _ = await self._post(self._flow, "/reindex/store", encoded, {"versions": page.versions})
        failures = {
            name: str(error.get("message"))
            for name, error in zip(reply.ids, reply.column("error"), strict=True)
            if isinstance(error, dict)
        }
        passages = sum(int(each or 0) for each in reply.column("passages"))
        return len(page.documents) - len(failures), passages, failures

    async def _post(
        self, transport: GrpcTransport, endpoint: str, batch: DocumentBatch | None, parameters: Mapping[str, Any]
    ) -> tuple[DocumentBatch, dict[str, dict[str, Any]]]:
        return await with_retries(
            lambda left: transport.post(endpoint, batch, parameters, left), _RETRIES, Deadline(self._timeout)
        )


def _transport(url: str | None, api_key: str | None) -> GrpcTransport:
    target = Target.parse(url, api_key=api_key)
    if target.scheme not in ("grpc", "grpcs"):
        raise ConfigurationError(f"{target}: a reindex goes over gRPC; name the gateway's gRPC address (grpc://...)")
    return GrpcTransport(target)
