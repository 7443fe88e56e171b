"""What bert-as-service does, done by a flow: texts to one array, and the status. Without sockets, so HTTP shares it.

    texts --cut (max_batch_size)--> requests to /encode --router--> replies --> float32 (B, D) or (B, T, D)

Each request goes the way of those over gRPC and HTTP, so their batches, priorities, replicas and limits are the same.
"""

from __future__ import annotations

import asyncio
import platform
import random
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowdex import wire
from flowdex.compat.bert_texts import documents_of
from flowdex.errors import ExecutorError, Overloaded
from flowdex_orchestrator.flow.bert import ENCODER, STRATEGIES, Bert
from flowdex_orchestrator.gateway.bert.frames import Text
from flowdex_orchestrator.gateway.bert.parameters import encode_parameters
from flowdex_orchestrator.gateway.bert.sessions import Statistic
from flowdex_orchestrator.gateway.limits import check_count

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["PROTOCOL_VERSION", "BertService", "Encoded"]

PROTOCOL_VERSION = "1.10.0"
"""What clients compare with their own version."""

_ENDPOINT = "/encode"
_PATIENCE = (0.25, 0.5)  # of what callers are told to wait: this one knows sooner that it may come
_ASIDE = 64  # texts: more are read and written in a thread


class Encoded(NamedTuple):
    """The answer to one request.

    Attributes:
        vectors: float32 of shape (B, D); (B, T, D) with strategy NONE, where rows beyond a text's tokens are zero.
        tokens: Tokens of each text, special ones included; None where clients do not get them.
    """

    vectors: npt.NDArray[np.float32]
    tokens: list[list[str]] | None


class _Part(NamedTuple):
    vectors: list[npt.NDArray[Any]]
    tokens: list[list[str]] | None


class BertService:
    """bert-as-service in front of a flow's router.

    Args:
        gateway: The gateway; its router and limits are used.
        settings: The flags.
    """

    def __init__(self, gateway: Gateway, settings: Bert) -> None:
        self.settings = settings
        self.statistic = Statistic()
        self.ports: dict[str, int] = {}
        self._gateway = gateway
        self._parameters = encode_parameters(settings)
        self._started = datetime.now()

    async def encode(self, texts: Sequence[Text]) -> Encoded:
        """Encode the texts of one request.

        Raises:
            FlowdexError: The gateway's or the encoder's verdict.
        """
        check_count(len(texts), "texts", self._gateway.settings)
        size = self.settings.max_batch_size
        turns = asyncio.Semaphore(self.settings.prefetch_size)

        async def encode(part: Sequence[Text]) -> _Part:
            async with turns:
                return await self._encode_part(part)

        tasks = [asyncio.ensure_future(encode(texts[at : at + size])) for at in range(0, len(texts), size)]
        try:
            parts = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        rows = [row for part in parts for row in part.vectors]
        tokens = [words for part in parts for words in part.tokens or ()]
        return Encoded(
            await asyncio.to_thread(self._stack, rows) if len(rows) > _ASIDE else self._stack(rows),
            tokens if self.settings.show_tokens_to_client else None,
        )

    async def _encode_part(self, texts: Sequence[Text]) -> _Part:
        def write() -> bytes:
            return wire.build_request(_ENDPOINT, documents_of(texts), parameters=self._parameters)

        def read() -> _Part:
            batch = wire.documents_of(wire.read_reply(reply.data))
            vectors = batch.column("embedding")
            if len(vectors) != len(texts) or not all(isinstance(vector, np.ndarray) for vector in vectors):
                raise ExecutorError(f"the flow did not answer a vector for each of {len(texts)} texts")
            return _Part(vectors, batch.column("token_texts", []) if self.settings.show_tokens_to_client else None)

        aside = len(texts) > _ASIDE
        data = await asyncio.to_thread(write) if aside else write()
        while True:
            try:
                reply = await self._gateway.router.handle(data)
                break
            except Overloaded as error:  # its clients know no refusal: they wait, and no more are read than have a slot
                await asyncio.sleep((error.retry_after or 1.0) * random.uniform(*_PATIENCE))  # nosec B311 # spreads load, hides nothing
        return await asyncio.to_thread(read) if aside or len(reply.data) > 1 << 20 else read()

    def _stack(self, rows: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Vectors of equal length as one array; matrices padded with zeros, as bert-as-service does."""
        if len({row.shape[-1] for row in rows}) > 1 or len({row.ndim for row in rows}) > 1:
            raise ExecutorError("the flow answered vectors of different sizes")
        if rows[0].ndim == 1:
            return np.stack(rows).astype(np.float32, copy=False)
        length = max(len(row) for row in rows)
        if self.settings.fixed_embed_length and self.settings.max_seq_len is not None:
            length = max(length, self.settings.max_seq_len)
        vectors = np.zeros((len(rows), length, rows[0].shape[-1]), dtype=np.float32)
        for target, row in zip(vectors, rows, strict=True):
            target[: len(row)] = row
        return vectors

    # ---- what it says of itself ----

    def config(self) -> dict[str, Any]:
        """The flags and versions, under bert-as-service's names; what has no counterpart in a flow is None."""
        settings, addresses = self.settings, self._encoders()
        return {
            "port": self.ports.get("bert"),
            "port_out": self.ports.get("bert-out"),
            "max_seq_len": None if settings.pooling_strategy == ENCODER else settings.max_seq_len,
            "pooling_layer": list(settings.pooling_layer),
            "pooling_strategy": STRATEGIES[settings.pooling_strategy],
            "show_tokens_to_client": settings.show_tokens_to_client,
            "fixed_embed_length": settings.fixed_embed_length,
            "max_batch_size": settings.max_batch_size,
            "prefetch_size": settings.prefetch_size,
            "num_worker": len(addresses),
            "mask_cls_sep": settings.mask_cls_sep,
            "http_port": self._gateway.ports.get("http"),
            "cors": ",".join(sorted(self._gateway.settings.cors)),
            **dict.fromkeys(_WITHOUT_COUNTERPART),
            "ventilator -> worker": addresses,
            "worker -> sink": "",
            "ventilator <-> sink": "",
            "num_process": len(addresses) + 1,
            "num_concurrent_socket": len(addresses),
            "server_start_time": str(self._started),
            "server_version": PROTOCOL_VERSION,
            "flowdex_version": version("flowdex"),
            "python_version": platform.python_version(),
            **_zmq_versions(),
            "encode_parameters": self._parameters,
        }

    def status(self, client: bytes = b"") -> dict[str, Any]:
        """The configuration, and what has happened so far."""
        return {
            **self.config(),
            "client": client.decode("utf-8", "replace"),
            "server_current_time": str(datetime.now()),
            "statistic": self.statistic.values(),
        }

    def _encoders(self) -> list[str]:
        """Addresses of the replicas that encode."""
        names = self._gateway.router.endpoints().get(_ENDPOINT, ())
        return [replica.address for name in names for replica in self._gateway.pools[name].replicas if replica.ready]


_WITHOUT_COUNTERPART = (
    "ckpt_name",
    "config_name",
    "cpu",
    "device_map",
    "fp16",
    "gpu_memory_fraction",
    "graph_tmp_dir",
    "http_max_connect",
    "model_dir",
    "priority_batch_size",
    "tuned_model_dir",
    "verbose",
    "xla",
)


def _zmq_versions() -> dict[str, str | None]:
    """Versions of pyzmq and of the library in it; None where flows are served without it."""
    try:
        import zmq

        return {"pyzmq_version": version("pyzmq"), "zmq_version": zmq.zmq_version()}
    except (ImportError, PackageNotFoundError):
        return {"pyzmq_version": None, "zmq_version": None}
