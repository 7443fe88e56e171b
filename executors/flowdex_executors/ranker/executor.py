"""The ranker: passages in, documents out; and texts ranked without an index.

/search  query {text, matches: passages, best first}
             --group by parent_id, aggregate--> hits --rerank--> --threshold--> --diversify--> --offset, limit-->
         query {text, matches: documents {id, text, location, tags, scores, highlights, chunks: passages}, notes}
/rank    query {text, matches: texts}  -->  query {text, matches: the same, best first, with scores}
/status                                -->  {"aggregate": ..., "rerank": ..., "cross_encoder": ..., ...}
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jina import Executor, requests

from flowdex.deadline import seconds_left
from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex.queue_clock import QueueClock
from flowdex_executors.encoder.model_files import NotDownloaded
from flowdex_executors.parameters import parse_parameters
from flowdex_executors.ranker import cross_encoder as cross
from flowdex_executors.ranker.aggregation import Hit, group_by_document, single_passages
from flowdex_executors.ranker.dense import Dense
from flowdex_executors.ranker.diversity import diversify
from flowdex_executors.ranker.documents import answer
from flowdex_executors.ranker.flow_encoder import FlowEncoder
from flowdex_executors.ranker.late_interaction import LateInteraction
from flowdex_executors.ranker.parameters import RankParameters, SearchParameters, settings_from
from flowdex_executors.ranker.rerank import Candidates, Scorer, rerank
from flowdex_executors.schema import DocumentColumns

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["Ranker"]

_MEBIBYTE = 2**20
_COMPONENTS = ("dense", "sparse")
_RANK_SECONDS = 60.0  # for /rank without a deadline
_WAY_BACK = 0.1  # of the time that is left, and at least ...
_WAY_BACK_LEAST = 0.02  # ... seconds, for the answer's way to the caller


class Ranker(Executor):  # type: ignore[misc]  # jina is untyped
    """Turns matching passages into ranked documents, and ranks texts.

    Args:
        aggregate: How passages make the score of their document: max, mean, sum, softmax, or an object; see
            `parameters.Aggregation`. A request may say otherwise; so for `rerank`.
        rerank: late_interaction, cross_encoder, or an object with `method`, `top` and `timeout`; None for none.
        cross_encoder: Folder or hub id of one, or an object; see `cross_encoder.CrossEncoderSettings`. None for none.
        url: Address of the flow whose encoder late interaction asks; None for FLOWDEX_URL, which `flowdex up` sets to
            the flow's own gateway.
        cache_mib: Most memory for the token vectors of texts.
        **kwargs: What Jina passes to every executor.

    Raises:
        ConfigurationError: A setting is wrong, or the cross-encoder cannot be loaded.
    """

    concurrent: ClassVar[bool] = True
    """Endpoints may run at the same time: they wait for models most of the time."""

    tenants = True
    """Keeps no documents, so none of one tenant reach another."""

    def __init__(
        self,
        *,
        aggregate: str | Mapping[str, Any] = "max",
        rerank: str | Mapping[str, Any] | None = None,
        cross_encoder: str | Mapping[str, Any] | None = None,
        url: str | None = None,
        cache_mib: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._aggregate, self._rerank = settings_from(aggregate, rerank)
        if isinstance(cache_mib, bool) or not isinstance(cache_mib, int) or cache_mib < 0:
            raise ConfigurationError(f"cache_mib must be a whole number of at least 0, got {cache_mib!r}")
        self._encoder = FlowEncoder(url)
        self._late = LateInteraction(self._encoder, cache_mib * _MEBIBYTE)
        self._cross = None if cross_encoder is None else cross.CrossEncoder(cross.settings_from(cross_encoder))
        if self._rerank is not None:
            self._scorer(self._rerank.method)

    # ---- life, and what can be known before ----

    async def warm_up(self) -> None:
        """Run the cross-encoder once, so that no caller pays for its first batch."""
        if self._cross is not None:
            await asyncio.to_thread(self._cross.warm_up)

    def close(self) -> asyncio.Task[None] | None:
        """Let go of the cross-encoder and of the flow.

        Returns:
            Within a running event loop, a task that closes the connection, to be awaited.
        """
        if self._cross is not None:
            self._cross.close()
        try:
            return asyncio.get_running_loop().create_task(self._encoder.close())
        except RuntimeError:
            asyncio.run(self._encoder.close())
            return None

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults, and the name of the cross-encoder.

        Raises:
            ConfigurationError: `uses_with` is wrong, or the cross-encoder cannot be found.
        """
        aggregate, default = settings_from(uses_with.get("aggregate", "max"), uses_with.get("rerank"))
        facts: dict[str, Any] = {"aggregate": aggregate.method, "rerank": None if default is None else default.method}
        if uses_with.get("cross_encoder") is not None:
            settings = cross.settings_from(uses_with["cross_encoder"])
            try:
                facts["cross_encoder"] = cross.read_files(settings, download=False).name
            except NotDownloaded:
                facts["cross_encoder"] = settings.path
            except ConfigurationError as error:
                raise ConfigurationError(f"cross_encoder: {error.message}") from None
        return facts

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """What is wrong with `uses_with` beyond what `describe` raises; nothing is loaded or contacted."""
        default = settings_from("max", uses_with.get("rerank"))[1]
        if default is not None and default.method == "cross_encoder" and uses_with.get("cross_encoder") is None:
            return ["rerank: cross_encoder is named, but there is none; add cross_encoder: FOLDER"]
        return []

    # ---- endpoints ----

    @requests(on="/search", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def search(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Regroup each query's `matches` into hits, best first; what could not be done is said in its `notes`.

        Raises:
            InvalidInput: A parameter is wrong, or a match has no score.
        """
        wanted = SearchParameters.of(parameters, self._aggregate, self._rerank)
        scorer = None if wanted.rerank is None else self._scorer(wanted.rerank.method)
        batch = docs.batch
        queries = [text or "" for text in batch.texts]
        found = batch.nested("matches")
        hits = [_hits(matches, wanted) for matches in found]
        notes: list[list[str]] = [list(each or ()) for each in batch.column("notes")]
        if scorer is not None and wanted.rerank is not None:
            candidates = [
                _candidates(query, matches, ranked, wanted)
                for query, matches, ranked in zip(queries, found, hits, strict=True)
            ]
            outcomes = await rerank(scorer, candidates, wanted.rerank, _budget())
            hits = [outcome.hits for outcome in outcomes]
            for said, outcome in zip(notes, outcomes, strict=True):
                said.extend([outcome.note] if outcome.note else [])
        answers = []
        for query, matches, ranked, said in zip(queries, found, hits, notes, strict=True):
            chosen = _diverse(_above(ranked, wanted.threshold), matches, wanted, said)
            answers.append(answer(matches, chosen[wanted.offset : wanted.offset + wanted.limit], query, wanted))
        batch.set_nested("matches", answers)
        if any(notes):
            batch.set_column("notes", [said or None for said in notes])
        return docs

    @requests(on="/rank", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def rank(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Order each query's `matches` by how well their texts answer it: best first, with `scores`.

        Raises:
            InvalidInput: A text is blank, or a parameter is wrong.
            FlowdexError: The texts cannot be ranked, because the encoder is away, for example.
        """
        wanted = parse_parameters(RankParameters, parameters)
        scorer = self._scorer(wanted.method or ("late_interaction" if self._cross is None else "cross_encoder"))
        batch = docs.batch
        queries, found = batch.texts, batch.nested("matches")
        for index, (query, matches) in enumerate(zip(queries, found, strict=True)):
            _check_texts(index, query, matches)
        left = seconds_left()
        timeout = _RANK_SECONDS if left is None else left
        answers = []
        for query, matches in zip(queries, found, strict=True):
            texts = [text or "" for text in matches.texts]
            scores = await scorer.score(query or "", texts, timeout) if texts else np.zeros(0)
            order = np.argsort(-scores, kind="stable")[: wanted.top]
            ranked = matches.select(order.tolist())
            ranked.set_column("scores", [{"score": float(scores[row])} for row in order])
            answers.append(ranked)
        batch.set_nested("matches", answers)
        return docs

    @requests(on="/status", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def status(self, **kwargs: Any):  # type: ignore[no-untyped-def]  # of a dict, Jina would warn
        """What the ranker does where a request does not say otherwise, its cross-encoder and its cache."""
        cache = self._late.cache
        return {
            "aggregate": self._aggregate.method,
            "rerank": None if self._rerank is None else self._rerank.model_dump(),
            "cross_encoder": None if self._cross is None else self._cross.about(),
            "encoder_url": str(self._encoder),
            "cached_texts": len(cache),
            "cached_mib": round(cache.size / _MEBIBYTE, 1),
        }

    @property
    def queue_clock(self) -> QueueClock | None:
        """Times how long requests wait for the cross-encoder; None without one."""
        return None if self._cross is None else self._cross.queue_clock

    def metrics(self) -> "Iterator[Metric]":
        """What Prometheus reads beside what it reads of every executor: the cross-encoder's batches."""
        return iter(()) if self._cross is None else self._cross.metrics()

    def _scorer(self, method: str) -> Scorer:
        if method == "late_interaction":
            return self._late
        if method == "dense":
            return Dense(self._encoder)
        if self._cross is None:
            raise InvalidInput(
                "this flow has no cross-encoder: name its folder or hub id in uses_with.cross_encoder of the ranker, "
                "or rerank by late_interaction"
            )
        return self._cross


def _hits(matches: DocumentBatch, wanted: SearchParameters) -> list[Hit]:
    ids, scores = matches.ids, _scores(matches)
    if wanted.group == "passage":
        return single_passages(ids, scores)
    parents = [parent or own for parent, own in zip(matches.column("parent_id"), ids, strict=True)]
    return group_by_document(parents, scores, wanted.aggregate)


def _scores(matches: DocumentBatch) -> list[float]:
    values: list[float] = []
    for match_id, scores in zip(matches.ids, matches.column("scores", {}), strict=True):
        score = scores.get("score") if isinstance(scores, dict) else None
        if not isinstance(score, (int, float)):
            raise InvalidInput(
                f"match {match_id!r} has no scores['score'] to rank by; put an indexer before the ranker"
            )
        values.append(float(score))
    return values


def _candidates(query: str, matches: DocumentBatch, hits: Sequence[Hit], wanted: SearchParameters) -> Candidates:
    """What the rerank stage sees: of each document its best passage, with the context that belongs to it."""
    best = matches.select(hit.rows[0] for hit in hits)
    evidence = []
    for hit, scores in zip(hits, best.column("scores"), strict=True):
        known = {name: float(scores[name]) for name in _COMPONENTS if scores.get(name) is not None}
        evidence.append(known or {"score": hit.score})
    texts = [
        f"{context}\n{text}" if context and text else text
        for context, text in zip(best.column("context"), best.texts, strict=True)
    ]
    return Candidates(query, hits, texts, evidence, wanted.fusion.weights)


def _above(hits: list[Hit], threshold: float | None) -> list[Hit]:
    return hits if threshold is None else [hit for hit in hits if hit.score >= threshold]


def _diverse(hits: list[Hit], matches: DocumentBatch, wanted: SearchParameters, notes: list[str]) -> list[Hit]:
    if wanted.diversity is None or not hits:
        return hits
    first, rest = hits[: wanted.diversity.candidates], hits[wanted.diversity.candidates :]
    vectors = matches.select(hit.rows[0] for hit in first).embeddings
    if vectors is None:
        notes.append("not diversified: the indexer gave no vectors of the hits")
        return hits
    order = diversify([hit.score for hit in first], vectors, wanted.diversity.weight)
    return [first[place] for place in order] + rest


def _budget() -> float | None:
    """Seconds that reranking may take for the answer to be in time; None for no limit."""
    left = seconds_left()
    return None if left is None else max(0.0, left - max(_WAY_BACK * left, _WAY_BACK_LEAST))


def _check_texts(index: int, query: str | None, matches: DocumentBatch) -> None:
    if not query or query.isspace():
        raise InvalidInput(f"query {index} has no text to rank by")
    for place, text in enumerate(matches.texts):
        if not text or text.isspace():
            raise InvalidInput(f"text {place} of query {index} is blank; leave it out")
