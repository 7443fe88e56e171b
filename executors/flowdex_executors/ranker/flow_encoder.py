"""The encoder of the flow that the ranker is part of, asked through the flow's own gateway.

    texts --/encode {tokens, dtype: float16}--> gateway (FLOWDEX_URL) --> encoder --> token vectors, fingerprint

The gateway refuses at once what is beyond its limit of requests in flight, and nothing is tried again here: a search
that holds one of its places never waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, InvalidInput
from flowdex.results import FlowStatus
from flowdex.transport import Target, open_transport
from flowdex_executors.encoder.prompts import Prompts

__all__ = ["FlowEncoder", "Role", "TokenMatrix"]

Role: TypeAlias = Literal["search", "index"]
"""What texts are: what is searched with, or what is searched. Some models want another prompt for each."""


class TokenMatrix(NamedTuple):
    """The tokens of a text, without special ones.

    Attributes:
        vectors: Of length 1, float16 of shape (n, D).
        lengths: Of the vectors as the model gave them, float32 of shape (n,).
    """

    vectors: npt.NDArray[np.float16]
    lengths: npt.NDArray[np.float32]


class FlowEncoder:
    """Asks a flow to encode.

    Args:
        url: Address of its gateway; None for FLOWDEX_URL.

    Raises:
        ConfigurationError: The address cannot be read.
    """

    def __init__(self, url: str | None = None) -> None:
        self._target = Target.parse(url)
        self._transport = open_transport(self._target)
        self._prompts: dict[Role, str | None] | None = None
        self._asking = asyncio.Lock()

    def __str__(self) -> str:
        return str(self._target)

    async def tokens(self, texts: Sequence[str], role: Role, timeout: float) -> tuple[list[TokenMatrix], str]:
        """The token vectors of texts, and the fingerprint of what made them.

        Raises:
            InvalidInput: The flow's encoder gives none.
            FlowdexError: The flow cannot be reached, or refuses.
        """
        reply = await self._encode(
            texts, role, {"tokens": True, "dtype": "float16", "truncation": "head", "receipt": True}, timeout
        )
        vectors, spans = reply.column("token_vectors"), reply.column("token_spans")
        if any(each is None for each in (*vectors, *spans)):
            raise InvalidInput(
                f"the encoder of the flow at {self} gives no token vectors (over HTTP none does); "
                "use another method, or name a gRPC address in uses_with.url of the ranker"
            )
        receipt = reply.column("receipt")[0]
        fingerprint = str(receipt.get("fingerprint", "")) if isinstance(receipt, dict) else ""
        return await asyncio.to_thread(_matrices, vectors, spans), fingerprint

    async def vectors(self, texts: Sequence[str], role: Role, timeout: float) -> npt.NDArray[np.float32]:
        """One vector for each text, of length 1: float32 of shape (n, D).

        Raises:
            FlowdexError: The flow cannot be reached, or refuses.
        """
        reply = await self._encode(texts, role, {"normalize": True}, timeout)
        found = reply.embeddings
        if found is None:
            raise ExecutorError(f"the flow at {self} has no encoder that gives vectors")
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        units: npt.NDArray[np.float32] = found / np.maximum(lengths, np.float32(1e-12))
        return units

    async def close(self) -> None:
        """Let go of the connection."""
        await self._transport.close()

    async def _encode(
        self, texts: Sequence[str], role: Role, parameters: dict[str, Any], timeout: float
    ) -> DocumentBatch:
        prompt = (await self._prompts_of(timeout))[role]
        if prompt is not None:
            parameters = {**parameters, "prompt": prompt}
        return await self._transport.encode(DocumentBatch.from_columns(texts=texts), parameters, timeout)

    async def _prompts_of(self, timeout: float) -> dict[Role, str | None]:
        """Names of the prompts that the encoder has for the roles; asked once."""
        async with self._asking:
            if self._prompts is None:
                self._prompts = _prompts(await self._transport.status(timeout))
            return self._prompts

    def forget(self) -> None:
        """Ask anew about the encoder: it is another one than before."""
        self._prompts = None


def _prompts(status: FlowStatus) -> dict[Role, str | None]:
    names = status.endpoints.get("/encode", ())
    for executor in status.executors:
        texts = executor.status.get("prompts")
        if executor.name in names and isinstance(texts, dict) and texts:
            prompts = Prompts(texts)
            return {"search": prompts.name(None, "search"), "index": prompts.name(None, "index")}
    return {"search": None, "index": None}


def _matrices(vectors: Iterable[Any], spans: Iterable[Any]) -> list[TokenMatrix]:
    """What has no place in the text is a special token, a prompt or its like, and left out."""
    matrices = []
    for rows, places in zip(vectors, spans, strict=True):
        kept = np.asarray(rows, dtype=np.float32)[places[:, 1] > places[:, 0]]
        lengths = np.linalg.norm(kept, axis=1)
        units = kept / np.maximum(lengths, np.float32(1e-12))[:, None]
        matrices.append(TokenMatrix(units.astype(np.float16), lengths.astype(np.float32)))
    return matrices
