"""What the contracts have in common: routes with an error shape, lenient requests, inputs, timing headers.

inputs: "text" | [1, 2] | ["text", [1, 2], ...] --Inputs--> ["text", [1, 2], ...] --input_documents--> DocumentBatch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http.models.base import checked_text, kind
from flowdex_orchestrator.gateway.topology import GATEWAY

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.http.call import FlowCall

__all__ = ["ContractRequest", "Inputs", "TextOrIds", "input_documents", "path_of", "timing_headers"]

TextOrIds = str | list[int]
_LARGEST_ID = 2**31 - 1


class ContractRequest(BaseModel):
    """A request's body; keys that this server does not know are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


def _inputs(value: Any) -> list[Any]:
    if isinstance(value, str) or _is_ids(value):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError(
            "inputs", "must be a string, a list of token ids, or a list of these, not {kind}", {"kind": kind(value)}
        )
    return value


def _input(value: Any) -> TextOrIds:
    if not isinstance(value, list):
        return checked_text(value)
    if not _is_ids(value):
        raise PydanticCustomError("token_ids", "must be one or more token ids, whole numbers from 0 on")
    return value


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(each) is int and 0 <= each <= _LARGEST_ID for each in value)
    )


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_ONE = [{"type": "string", "minLength": 1}, _IDS]
Inputs = Annotated[
    list[Annotated[TextOrIds, BeforeValidator(_input)]],
    BeforeValidator(_inputs),
    WithJsonSchema({"anyOf": [*_ONE, {"type": "array", "items": {"anyOf": _ONE}}]}),
]
"""One text or a list; in the place of a text, its token ids."""


def input_documents(inputs: Sequence[TextOrIds]) -> DocumentBatch:
    """The inputs as documents."""
    batch = DocumentBatch.from_columns(
        ids=[str(index) for index in range(len(inputs))],
        texts=[each if isinstance(each, str) else None for each in inputs],
    )
    if not all(isinstance(each, str) for each in inputs):
        ids = [None if isinstance(each, str) else np.array(each, dtype=np.int32) for each in inputs]
        batch.set_column("token_ids", ids)
    return batch


def timing_headers(
    call: FlowCall,
    reply: pb.DataRequestProto | None = None,
    *,
    tokens: int = 0,
    characters: int = 0,
    queue_ms: float = 0.0,
    compute_ms: float | None = None,
) -> dict[str, str]:
    """What text-embeddings-inference tells of a request in headers: milliseconds, tokens and characters.

    Args:
        call: The request.
        reply: The flow's, whose routes say how long the executors took.
        tokens: Computed.
        characters: Of the inputs.
        queue_ms: What the request waited in the executor.
        compute_ms: What its model took; None for all of the executors' time.
    """
    served = 0.0
    for route in reply.routes if reply is not None else ():
        if route.executor != GATEWAY:
            served += route.end_time.ToNanoseconds() / 1e6 - route.start_time.ToNanoseconds() / 1e6
    compute = served if compute_ms is None else compute_ms
    total = call.took_ms()
    times = {
        "x-compute-time": total - queue_ms,
        "x-total-time": total,
        # What is neither waiting nor the model's work: reading the texts, and writing the answer.
        "x-tokenization-time": served - queue_ms - compute,
        "x-queue-time": queue_ms,
        "x-inference-time": compute,
    }
    return {
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(tokens),
        **{name: str(round(max(0.0, value))) for name, value in times.items()},
    }


def path_of(pointer: str) -> str:
    """A JSON pointer such as `#/input/0` as OpenAI names a parameter: `input[0]`."""
    first, *rest = pointer.removeprefix("#").strip("/").split("/")
    return first + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in rest)
