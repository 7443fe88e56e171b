"""POST /interaction: which token of a query met which token of a text, as late interaction sees it.

    query --/encode {tokens}--+
                              +--> token vectors, spans --cosine of each pair--> {query, text, cosines}
    text  --/encode {tokens}--+

It is what the ranker's late interaction sums up in one number; the web page shows it as a heat map. The same tokens
count: those that have a place in the text, each with the length of its vector as weight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Response

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.call import ERRORS, Call, FlowCall
from flowdex_orchestrator.gateway.http.compat.served import Served, choose

__all__ = ["TokenVectors", "add_interaction_route", "meet"]

# Names of the prompts for what is searched with and for what is searched, as encoders choose them by themselves when
# they take part in /search and /index.
_QUERY_PROMPTS = ("query",)
_TEXT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True)
class TokenVectors:
    """The tokens of one text, special ones included.

    Attributes:
        texts: As the vocabulary has them, n of them.
        spans: Characters of the text, of shape (n, 2); special tokens and prompts have no extent.
        vectors: As the model gave them, of shape (n, D).
        dropped: Tokens that truncation cut off; None where that is not known.
    """

    texts: Sequence[str]
    spans: npt.NDArray[np.integer[Any]]
    vectors: npt.NDArray[np.floating[Any]]
    dropped: int | None = None


def meet(query: TokenVectors, text: TokenVectors) -> dict[str, Any]:
    """The tokens of both that have a place, and the cosine of each pair: float32 of shape (query, text)."""
    asked, query_content = _unit_rows(query)
    found, text_content = _unit_rows(text)
    return {"query": query_content, "text": text_content, "cosines": asked @ found.T}


def _unit_rows(tokens: TokenVectors) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    placed = np.flatnonzero(tokens.spans[:, 1] > tokens.spans[:, 0])
    rows = np.asarray(tokens.vectors, dtype=np.float32)[placed]
    lengths = np.linalg.norm(rows, axis=1)
    content = {
        "texts": [tokens.texts[place] for place in placed.tolist()],
        "spans": tokens.spans[placed].tolist(),
        "weights": lengths / max(float(lengths.sum()), 1e-12),
        "dropped": tokens.dropped,
    }
    return rows / np.maximum(lengths, np.float32(1e-12))[:, None], content


def add_interaction_route(router: APIRouter) -> None:
    """Add the route."""

    @router.post("/interaction", tags=["flow"], response_model=models.InteractionResponse, responses=ERRORS)
    async def interaction(body: models.InteractionRequest, call: Call) -> Response:
        """Show which token of a query met which token of a text: the cosines of late interaction.

        Both are cut at the most tokens that the encoder takes.
        """
        encoder = choose(await call.directory.encoders(body.model), body.model)
        query, text = await _both(call, encoder, body.query, body.text)
        content = await asyncio.to_thread(meet, query, text)
        answer = replies.dump({"model": encoder.name, **content, "took_ms": call.took_ms()})
        return Response(answer, media_type="application/json")


async def _both(call: FlowCall, encoder: Served, query: str, text: str) -> Sequence[TokenVectors]:
    prompts: Mapping[str, str] = encoder.about.get("prompts") or {}
    for_query, for_text = (
        next((name for name in names if name in prompts), None) for names in (_QUERY_PROMPTS, _TEXT_PROMPTS)
    )
    if for_query == for_text:
        return await _tokens(call, encoder, [query, text], for_query)
    parts = await asyncio.gather(_tokens(call, encoder, [query], for_query), _tokens(call, encoder, [text], for_text))
    return [tokens for part in parts for tokens in part]


async def _tokens(call: FlowCall, encoder: Served, texts: Sequence[str], prompt: str | None) -> list[TokenVectors]:
    parameters = {"tokens": True, "truncation": "head", "receipt": True}
    if prompt is not None:
        parameters["prompt"] = prompt
    batch = await call.ask(
        "/encode",
        lambda: DocumentBatch.from_columns(texts=list(texts)),
        parameters,
        wire.documents_of,
        target=encoder.target,
    )
    columns = [batch.column(name) for name in ("token_texts", "token_spans", "token_vectors")]
    if len(batch) != len(texts) or any(value is None for column in columns for value in column):
        raise InvalidInput(
            f"the encoder {encoder.name or 'of this flow'} answers no token vectors, which late interaction needs; "
            "name another one as `model`"
        )
    dropped = [receipt.get("dropped") if isinstance(receipt, Mapping) else None for receipt in batch.column("receipt")]
    return [
        TokenVectors(
            list(words), np.asarray(spans).reshape(-1, 2), np.asarray(vectors), lost if lost is None else int(lost)
        )
        for words, spans, vectors, lost in zip(*columns, dropped, strict=True)
    ]
