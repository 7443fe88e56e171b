"""Texts to vectors for the contracts that have embeddings, with what the encoder says of the work.

inputs --> /encode of the chosen encoder, with a receipt --> Embedded(vectors, tokens, times) --> the contract's JSON
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import Response

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http import replies
from flowdex_orchestrator.gateway.http.call import FlowCall
from flowdex_orchestrator.gateway.http.compat.contract import TextOrIds, input_documents, timing_headers
from flowdex_orchestrator.gateway.http.compat.served import Served

__all__ = ["Embedded", "embed"]


@dataclass(frozen=True)
class Embedded:
    """What became of the inputs.

    Attributes:
        vectors: One for each input, float32: of shape (dimensions,), or (tokens, dimensions) where not pooled.
        tokens: Computed for all of them, special tokens included; 0 where the encoder does not say.
    """

    vectors: Sequence[npt.NDArray[np.float32]]
    tokens: int


async def embed(
    call: FlowCall,
    inputs: Sequence[TextOrIds],
    encoder: Served,
    parameters: Mapping[str, Any],
    content: Callable[[Embedded], Any],
) -> Response:
    """Answer with what `content` makes of the vectors of the inputs.

    Args:
        call: The request.
        inputs: Texts, or their token ids.
        encoder: Which one.
        parameters: For it; those that are None are left out.
        content: Makes JSON values, which may hold arrays; in a thread where there is much.

    Raises:
        ExecutorError: There is not one vector for each input.
        InvalidInput: The vectors of tokens are asked for, and the encoder has none.
    """
    chosen = {name: value for name, value in parameters.items() if value is not None}
    pooled = chosen.get("pooling") != "none"

    def respond(reply: pb.DataRequestProto) -> Response:
        batch = wire.documents_of(reply)
        vectors = _vectors(batch, pooled)
        if len(vectors) != len(inputs):
            raise ExecutorError(f"the flow answered {len(vectors)} vectors to {len(inputs)} inputs")
        receipts = [receipt or {} for receipt in batch.column("receipt")]
        tokens = sum(int(receipt.get("tokens") or 0) for receipt in receipts)
        body = replies.dump(content(Embedded(vectors, tokens)))
        headers = timing_headers(
            call,
            reply,
            tokens=tokens,
            characters=sum(len(each) for each in inputs if isinstance(each, str)),
            queue_ms=max((receipt.get("queue_ms", 0.0) for receipt in receipts), default=0.0),
            compute_ms=max((receipt["compute_ms"] for receipt in receipts if "compute_ms" in receipt), default=None),
        )
        return Response(body, media_type="application/json", headers=headers)

    return await call.ask(
        "/encode",
        lambda: input_documents(inputs),
        {"dtype": "float32", "receipt": True, **chosen},  # the contracts know no other number type
        respond,
        target=encoder.target,
    )


def _vectors(batch: DocumentBatch, pooled: bool) -> Sequence[npt.NDArray[np.float32]]:
    if not pooled:
        matrices = [np.asarray(matrix, dtype=np.float32) for matrix in batch.column("embedding") if matrix is not None]
        if any(matrix.ndim != 2 for matrix in matrices):
            raise InvalidInput("the encoder gives no vectors of single tokens; name another one as `model`")
        return matrices
    vectors = batch.embeddings
    return [] if vectors is None else list(vectors)
