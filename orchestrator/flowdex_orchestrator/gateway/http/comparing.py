"""POST /compare: what several encoders, or modes of search, find for one query. GET /compare: what there is to choose.

    query --/search, each mode--> rankings of the whole index
          --/search--> best hits ---+
    an even sample of the index --+--/sample--> candidates (or texts of the request)
          --/encode of each encoder, what is not known yet--> vectors --cosine--> rankings of the candidates
    rankings --> hits of each, with their ranks in the others; agreement of each pair

An index holds the vectors of one encoder, so what another finds there must be encoded first: hence candidates rather
than all of it. What the index does hold is taken from there, and everything else is encoded once, as long as there is
room for it (`vector_cache.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Response

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, InvalidInput, NotFound
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.access.tenants import current_tenant
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.call import ERRORS, Call, FlowCall
from flowdex_orchestrator.gateway.http.comparison import Ranking, agreement, rank
from flowdex_orchestrator.gateway.http.compat.served import Served, choose
from flowdex_orchestrator.gateway.http.mapping import before_index, check_indexed, one_document
from flowdex_orchestrator.gateway.http.vector_cache import Key, VectorCache, key_of

__all__ = ["add_compare_routes"]

_CACHE_BYTES = 64 * 2**20  # 35,000 vectors of 384 dimensions
_DEPTH = 100  # hits of a search: more than are shown, so that a hit of one column has a rank in the other
_BATCH = 64  # texts in a request to an encoder: what it has done is kept when the caller goes away
_PROMPTS = {"query": ("query",), "passage": ("document", "passage", "corpus")}  # as the encoders' own endpoints choose
_FEWEST = 2

Role = Literal["query", "passage"]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Candidates:
    """What encoders rank.

    Attributes:
        passages: Their ids, texts and contexts; by id, what is shown of each.
        total: How many there are to choose from.
        vectors: By id, those that the index holds.
        fingerprint: Of the encoder that made those.
    """

    passages: dict[str, dict[str, Any]]
    total: int
    vectors: dict[str, Vectors]
    fingerprint: str | None


@dataclass(frozen=True)
class _Column:
    """What one of them found, and how."""

    name: str
    kind: Literal["encoder", "mode"]
    ranking: Ranking
    passages: dict[str, dict[str, Any]]
    took_ms: float
    model: str | None = None
    dimensions: int | None = None
    encoded: int = 0


def add_compare_routes(router: APIRouter) -> None:
    """Add the routes."""
    cache = VectorCache(_CACHE_BYTES)

    @router.get("/compare", tags=["flow"], responses={404: ERRORS[404]})
    async def choices(call: Call) -> models.CompareChoices:
        """What can be put side by side: the flow's encoders, and the modes of its search."""
        encoders = [models.ComparedEncoder(**_about(each)) for each in await call.directory.encoders()]
        return models.CompareChoices(encoders=encoders, modes=list(models.MODES) if _searches(call) else [])

    @router.post("/compare", tags=["flow"], response_model=models.CompareResponse, responses=ERRORS)
    async def compare(body: models.CompareRequest, call: Call) -> Response:
        """Put side by side what several encoders, or modes of search, find for a query."""
        encoders, modes = await _chosen(call, body)
        if modes or not body.texts:
            check_indexed(call.gateway, "/sample", "a comparison without `texts` in the request")
        hybrid = "hybrid" if before_index(call.gateway) else "sparse"
        searches = list(dict.fromkeys([*modes, *([hybrid] if encoders and not body.texts else [])]))
        found = dict(
            zip(searches, await asyncio.gather(*(_search(call, body.query, m) for m in searches)), strict=True)
        )
        candidates = await _candidates(call, body, found.get(hybrid)) if encoders else _Candidates({}, 0, {}, None)
        columns = [await _encode_and_rank(call, body.query, each, candidates, cache) for each in encoders]
        columns += [found[mode] for mode in modes]
        content = await asyncio.to_thread(_content, body, columns, candidates)
        return Response(replies.dump({**content, "took_ms": call.took_ms()}), media_type="application/json")


# ---- what to compare ----


def _searches(call: FlowCall) -> bool:
    endpoints = call.gateway.router.endpoints()
    return "/search" in endpoints and "/sample" in endpoints


async def _chosen(call: FlowCall, body: models.CompareRequest) -> tuple[list[Served], list[str]]:
    """Encoders and modes that the request means.

    Raises:
        InvalidInput: They are fewer than two, or modes are to rank texts that are not in the index.
        NotFound: An encoder of that name does not exist.
    """
    wanted = list(dict.fromkeys(body.encoders or ()))
    known = await call.directory.encoders(wanted[0] if wanted else None)
    if body.texts and body.modes:
        raise InvalidInput("modes search the index and cannot rank the texts of a request: leave out one of the two")
    if wanted and not known:
        raise NotFound(f"no executor of this flow serves '/encode', so there is no encoder {wanted[0]!r}")
    encoders = [choose(known, name) for name in wanted]
    modes: list[str] = list(dict.fromkeys(body.modes or ()))
    if body.encoders is None and body.modes is None:
        encoders = known[:_FEWEST]
        if len(encoders) < _FEWEST and not body.texts:
            encoders, modes = [], ["dense", "sparse"]
    if len({each.names[:1] for each in encoders}) + len(modes) < _FEWEST:
        names = ", ".join(each.names[0] for each in known) or "none"
        more = "" if len(known) >= _FEWEST else "; flows/compare.yml shows how to give a flow a second encoder"
        raise InvalidInput(
            f"a comparison takes two or more: encoders of this flow ({names}) and modes of its search "
            f"({', '.join(models.MODES)}){more}"
        )
    return encoders, modes


def _about(encoder: Served) -> dict[str, Any]:
    said = encoder.about
    model, dimensions = said.get("model"), said.get("dimensions")
    return {
        "name": encoder.names[0] if encoder.names else "",
        "model": model if isinstance(model, str) else None,
        "dimensions": int(dimensions) if dimensions else None,
    }


# ---- what modes find ----


async def _search(call: FlowCall, query: str, mode: str) -> _Column:
    """The passages that a search of this mode finds."""
    started = time.perf_counter()
    parameters = {"mode": mode, "limit": _DEPTH, "group": "passage", "highlight": False}
    hits = await call.ask("/search", lambda: DocumentBatch.from_columns(texts=[query]), parameters, _hits)
    ranking = Ranking([hit["id"] for hit in hits], [hit.pop("score") for hit in hits])
    return _Column(mode, "mode", ranking, {hit["id"]: hit for hit in hits}, _since(started))


def _hits(reply: pb.DataRequestProto) -> list[dict[str, Any]]:
    matches = wire.documents_of(reply).nested("matches")
    found = _shown(matches[0]) if matches else {}
    scores = matches[0].column("scores", {}) if matches else []
    return [{**hit, "score": float(score.get("score", 0.0))} for hit, score in zip(found.values(), scores, strict=True)]


def _shown(passages: DocumentBatch) -> dict[str, dict[str, Any]]:
    """What an answer tells of passages, by their ids."""
    columns = zip(
        passages.ids,
        passages.column("parent_id"),
        passages.column("text", ""),
        passages.column("location"),
        passages.tags,
        strict=True,
    )
    return {
        id_: {"id": id_, "document_id": parent, "text": text, "location": location, "tags": tags}
        for id_, parent, text, location, tags in columns
    }


# ---- what encoders find ----


async def _candidates(call: FlowCall, body: models.CompareRequest, best: _Column | None) -> _Candidates:
    """The texts of the request; else a sample of the index, and the best hits of a search."""
    if body.texts:
        call.check_count(len(body.texts), "texts")
        passages: dict[str, dict[str, Any]] = {
            str(row): {"id": str(row), "document_id": None, "text": text, "location": None, "tags": {}, "context": ""}
            for row, text in enumerate(body.texts)
        }
        return _Candidates(passages, len(passages), {}, None)

    def read(reply: pb.DataRequestProto) -> _Candidates:
        batch = one_document(reply, "/sample")
        found = DocumentBatch.concatenate([*batch.nested("matches"), *batch.nested("chunks")])
        passages, vectors = _shown(found), found.embeddings
        for name, context in zip(found.ids, found.column("context", ""), strict=True):
            passages[name]["context"] = context
        held = {} if vectors is None else dict(zip(found.ids, vectors, strict=True))
        return _Candidates(passages, int(batch.column("total")[0]), held, batch.column("fingerprint")[0])

    wanted = {"limit": body.candidates, "vectors": True, "ids": list(best.ranking.ids) if best else []}
    return await call.ask("/sample", DocumentBatch, wanted, read)


async def _encode_and_rank(
    call: FlowCall, query: str, encoder: Served, candidates: _Candidates, cache: VectorCache
) -> _Column:
    """Rank the candidates by the cosine of their vectors with the query's; those without a vector come last.

    Raises:
        InvalidInput: The encoder cannot encode the query.
    """
    started = time.perf_counter()
    fingerprint = encoder.about.get("fingerprint")
    held = candidates.vectors if fingerprint and fingerprint == candidates.fingerprint else {}
    rows = [each for name, each in candidates.passages.items() if name not in held]
    (target,), one = await _encode(call, encoder, "query", [{"text": query, "context": ""}], cache)
    if target is None:
        raise InvalidInput(f"the encoder {encoder.name!r} finds nothing to encode in the query")
    computed, more = await _encode(call, encoder, "passage", rows, cache)
    vectors = {**held, **dict(zip((each["id"] for each in rows), computed, strict=True))}
    ids = list(candidates.passages)

    def ranked() -> Ranking:
        given = (vectors[name] for name in ids)
        matrix = [np.zeros_like(target) if each is None else each for each in given]
        return rank(ids, np.stack(matrix), target) if ids else Ranking([], [])

    return _Column(
        kind="encoder",
        ranking=await asyncio.to_thread(ranked),
        passages=candidates.passages,
        took_ms=_since(started),
        encoded=one + more,
        **_about(encoder),
    )


async def _encode(
    call: FlowCall, encoder: Served, role: Role, rows: Sequence[dict[str, Any]], cache: VectorCache
) -> tuple[list[Vectors | None], int]:
    """The vectors of texts, None of one that has nothing to encode; and how many of them were not known.

    Raises:
        ExecutorError: The encoder does not give one vector a text.
    """
    # A tenant's own: how many texts were `encoded` would tell what others have compared.
    maker = f"{current_tenant() or ''} {encoder.about.get('fingerprint') or encoder.names}"
    keys = [key_of(maker, role, row["text"], row["context"]) for row in rows]
    kept = {key: found for key in keys if (found := cache.get(key)) is not None}
    known: dict[Key, Vectors | None] = {key: found if found.size else None for key, found in kept.items()}
    missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
    prompts = encoder.about.get("prompts") or {}
    prompt = next((name for name in _PROMPTS[role] if name in prompts), None)
    parameters = {"dtype": "float32", **({} if prompt is None else {"prompt": prompt})}

    async def ask(part: Sequence[tuple[Key, dict[str, Any]]]) -> None:
        batch = DocumentBatch.from_columns(texts=[row["text"] for _, row in part])
        if any(row["context"] for _, row in part):
            batch.set_column("context", [row["context"] for _, row in part])
        try:
            vectors = await call.ask("/encode", lambda: batch, parameters, _vectors, target=encoder.target)
        except InvalidInput:
            if role == "query":
                raise
            if len(part) == 1:
                known[part[0][0]] = None
                cache.put(part[0][0], np.zeros(0, np.float32))
                return
            await ask(part[: len(part) // 2])  # word vectors, say, have nothing for a text without words
            await ask(part[len(part) // 2 :])
            return
        if vectors is None or len(vectors) != len(part):
            raise ExecutorError(f"the encoder {encoder.name!r} did not answer with one vector for each text")
        for (key, _), vector in zip(part, vectors, strict=True):
            known[key] = vector
            cache.put(key, vector)

    waiting = list(missing.items())
    for start in range(0, len(waiting), _BATCH):
        await ask(waiting[start : start + _BATCH])
    return [known[key] for key in keys], len(missing)


def _vectors(reply: pb.DataRequestProto) -> Vectors | None:
    return wire.documents_of(reply).embeddings


# ---- side by side ----


def _content(body: models.CompareRequest, columns: Sequence[_Column], candidates: _Candidates) -> dict[str, Any]:
    compared = len(candidates.passages)
    pairs = [
        {"columns": [a, b], **vars(agreement(columns[a].ranking, columns[b].ranking, body.limit))}
        for a, b in combinations(range(len(columns)), 2)
    ]
    return {
        "query": body.query,
        "total": candidates.total,
        "compared": compared,
        "columns": [_column(each, columns, body.limit) for each in columns],
        "agreement": pairs,
        "notes": [
            f"encoders rank {compared} of {candidates.total} passages: an even sample, and the best hits of a search"
        ]
        if 0 < compared < candidates.total
        else [],
    }


def _column(column: _Column, columns: Sequence[_Column], limit: int) -> dict[str, Any]:
    shown = zip(column.ranking.ids[:limit], column.ranking.scores[:limit], strict=True)
    return {
        "name": column.name,
        "kind": column.kind,
        "model": column.model,
        "dimensions": column.dimensions,
        "ranked": len(column.ranking.ids),
        "encoded": column.encoded,
        "took_ms": column.took_ms,
        "hits": [
            {
                **{key: value for key, value in column.passages[name].items() if key != "context"},
                "rank": place,
                "score": score,
                "ranks": [other.ranking.ranks.get(name) for other in columns],
            }
            for place, (name, score) in enumerate(shown, start=1)
        ],
    }


def _since(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 3)
