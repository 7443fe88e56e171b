"""An experiment: a collection indexed into a running flow, its queries searched in several settings, and measured.

    Dataset --index--> Indexing
    queries x settings (mode, reranker) --search, one by one--> rankings, latencies --measure--> Run

Queries are sent as a person would send them, one in a request; the latency is what the client waits for, encoding
included. Each setting begins with a query that is not timed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from flowdex.async_client import SearchMode
from flowdex.client import Client
from flowdex.errors import InvalidInput
from flowdex.evaluation.dataset import Dataset
from flowdex.evaluation.metrics import DEFAULT_METRICS, Metric, PerQuery, mean, measure
from flowdex.progress import Progress, open_progress
from flowdex.results import SearchResult, counted

__all__ = ["MODES", "Evaluation", "Indexing", "Options", "Run", "Setting", "evaluate"]

MODES: tuple[SearchMode, ...] = ("dense", "sparse", "hybrid")
_SHOWN_FAILURES = 3


@dataclass(frozen=True)
class Setting:
    """How queries are searched.

    Attributes:
        mode: Of the search.
        rerank: The reranker: its name, or its name as `method` with options; None for none.
    """

    mode: SearchMode
    rerank: str | Mapping[str, Any] | None = None

    @property
    def reranker(self) -> str:
        """The reranker in words: "late_interaction", "late_interaction (top 20)", or nothing."""
        if self.rerank is None or isinstance(self.rerank, str):
            return self.rerank or ""
        options = ", ".join(f"{key} {value}" for key, value in self.rerank.items() if key != "method")
        return f"{self.rerank.get('method', '')}{f' ({options})' if options else ''}"

    @property
    def label(self) -> str:
        """Both in words."""
        return f"{self.mode} + {self.reranker}" if self.rerank else self.mode

    @property
    def tag(self) -> str:
        """Both in one word, for files."""
        return "-".join(re.findall(r"[\w.]+", self.label))

    @classmethod
    def product(cls, modes: Sequence[SearchMode], rerankers: Sequence[str | Mapping[str, Any]]) -> list[Setting]:
        """Each mode without a reranker, and with each of them."""
        return [cls(mode, rerank) for mode in modes for rerank in (None, *rerankers)]


@dataclass(frozen=True)
class Options:
    """What an experiment does.

    Attributes:
        settings: The ways to search; each is a run.
        metrics: What is measured.
        index: Whether to index the collection; False where the flow holds it already.
        index_parameters: Passed on to the flow's executors when indexing.
        search_parameters: Passed on to them when searching.
        limit: Most hits of a query; None for as many as the metrics look at.
        batch_size: Most documents in a request.
        concurrency: Queries in flight; latencies with more than one are those under load.
        ignore_identical_ids: Whether a hit with the query's own id is left out: where queries are documents.
        progress: As for `Client.index`, for each stage.
    """

    settings: Sequence[Setting] = field(default_factory=lambda: Setting.product(MODES, ()))
    metrics: Sequence[Metric] = DEFAULT_METRICS
    index: bool = True
    index_parameters: Mapping[str, Any] = field(default_factory=dict)
    search_parameters: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    batch_size: int = 64
    concurrency: int = 1
    ignore_identical_ids: bool = False
    progress: Progress = None


@dataclass(frozen=True)
class Indexing:
    """What indexing did.

    Attributes:
        documents: How many were indexed.
        passages: How many passages they have.
        seconds: From the first document read to the last answer.
        failures: (id, reason) of those that the flow refused.
    """

    documents: int
    passages: int
    seconds: float
    failures: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "documents": self.documents,
            "passages": self.passages,
            "seconds": self.seconds,
            "documents_per_second": self.documents / max(self.seconds, 1e-9),
            "failures": [{"id": name, "reason": reason} for name, reason in self.failures],
        }


@dataclass(frozen=True)
class Run:
    """One setting, searched and measured.

    Attributes:
        setting: The way to search.
        rankings: Query id -> (document id, score), best first.
        values: Metric -> query id -> value.
        latencies_ms: One a query.
        seconds: For all queries, as many in flight as asked for.
        notes: What the flow remarked on answers (such as that there was no time to rerank), and for how many queries.
    """

    setting: Setting
    rankings: Mapping[str, Sequence[tuple[str, float]]]
    values: Mapping[Metric, PerQuery]
    latencies_ms: Sequence[float]
    seconds: float
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def means(self) -> dict[Metric, float]:
        """The mean of each metric over the queries."""
        return {metric: mean(values) for metric, values in self.values.items()}

    def latency(self, percent: float) -> float:
        """A percentile of the latencies, in milliseconds."""
        import numpy as np

        return float(np.percentile(self.latencies_ms, percent))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "mode": self.setting.mode,
            "rerank": self.setting.rerank if isinstance(self.setting.rerank, str | None) else dict(self.setting.rerank),
            "metrics": {str(metric): value for metric, value in self.means.items()},
            "latency_ms": {f"p{percent}": self.latency(percent) for percent in (50, 95, 99)},
            "queries_per_second": len(self.latencies_ms) / max(self.seconds, 1e-9),
            "notes": dict(self.notes),
        }


@dataclass(frozen=True)
class Evaluation:
    """All runs of a flow over a collection.

    Attributes:
        flow: Its name.
        dataset: The collection.
        indexing: None where it was indexed before.
        runs: One a setting.
        remarks: What the reader of the figures should know.
    """

    flow: str
    dataset: Dataset
    indexing: Indexing | None
    runs: Sequence[Run]
    remarks: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "flow": self.flow,
            "dataset": {
                "name": self.dataset.name,
                "documents": self.dataset.documents,
                "queries": len(self.dataset.queries),
            },
            "index": self.indexing.to_dict() if self.indexing is not None else None,
            "runs": [run.to_dict() for run in self.runs],
            "remarks": list(self.remarks),
        }


def evaluate(client: Client, dataset: Dataset, options: Options, *, flow: str = "") -> Evaluation:
    """Run an experiment.

    Args:
        client: Of the flow.
        dataset: The collection.
        options: What is done.
        flow: A name for the flow in reports; its own by default.

    Raises:
        InvalidInput: The flow refuses every document, or a parameter.
        FlowdexError: Whatever indexing or searching raises.
    """
    indexing = _index(client, dataset, options) if options.index else None
    runs = [_run(client, dataset, setting, options) for setting in options.settings]
    status = client.status()
    remarks = [*_remarks(dataset, indexing), *_foreign(dataset, indexing, status.executors)]
    remarks += [
        f"{run.setting.label}, {counted(count, 'time')}: {note}" for run in runs for note, count in run.notes.items()
    ]
    return Evaluation(flow or status.name, dataset, indexing, runs, remarks)


def _index(client: Client, dataset: Dataset, options: Options) -> Indexing:
    with open_progress(options.progress, "index", dataset.documents, options.batch_size) as advance:
        result = client.index(
            (document.to_index() for document in dataset.read_corpus()),
            batch_size=options.batch_size,
            show_progress=advance,
            on_error="collect",
            return_ids=False,
            parameters=options.index_parameters,
        )
    failures = [(failure.id or f"document {failure.position}", failure.error.message) for failure in result.failures]
    if not result.documents:
        raise InvalidInput(f"no document could be indexed; the first, {failures[0][0]!r}: {failures[0][1]}")
    return Indexing(result.documents, result.passages, result.took_ms / 1e3, failures)


def _run(client: Client, dataset: Dataset, setting: Setting, options: Options) -> Run:
    depth = options.limit or max(metric.cutoff for metric in options.metrics)
    parameters = {**options.search_parameters, **({} if setting.rerank is None else {"rerank": setting.rerank})}

    def search(text: str) -> SearchResult:
        limit = depth + 1 if options.ignore_identical_ids else depth
        return client.search(text, limit, mode=setting.mode, parameters=parameters)

    texts = list(dataset.queries.values())
    search(texts[0])
    answers: list[SearchResult] = []
    with (
        open_progress(options.progress, setting.label, len(texts), 1) as advance,
        ThreadPoolExecutor(options.concurrency) as callers,
    ):
        started = perf_counter()
        try:
            for answer in callers.map(search, texts):
                answers.append(answer)
                advance(1)
        except BaseException:  # an error or Ctrl-C: the queries that have not been sent are not
            callers.shutdown(cancel_futures=True)
            raise
        seconds = perf_counter() - started
    rankings = {
        query: [(hit.id, hit.score) for hit in answer if not (options.ignore_identical_ids and hit.id == query)][:depth]
        for query, answer in zip(dataset.queries, answers, strict=True)
    }
    values = measure(
        {query: [document for document, _ in ranking] for query, ranking in rankings.items()},
        dataset.qrels,
        options.metrics,
    )
    notes = Counter(note for answer in answers for note in answer.notes)
    return Run(setting, rankings, values, [answer.took_ms for answer in answers], seconds, notes)


# ---- what the reader should know ----


def _remarks(dataset: Dataset, indexing: Indexing | None) -> list[str]:
    found = []
    if dataset.blank:
        found.append(f"{counted(len(dataset.blank), 'document')} of the corpus without any text: not indexed")
    if dataset.unanswerable:
        found.append(f"{counted(dataset.unanswerable, 'query')} without a relevant document: left out")
    if dataset.unknown_documents:
        found.append(
            f"{counted(dataset.unknown_documents, 'relevant document')} not in the corpus: counted as not found"
        )
    if indexing is not None and indexing.failures:
        shown = "; ".join(f"{name}: {reason}" for name, reason in indexing.failures[:_SHOWN_FAILURES])
        found.append(f"{counted(len(indexing.failures), 'document')} refused by the flow: {shown}")
    return found


def _foreign(dataset: Dataset, indexing: Indexing | None, executors: Sequence[Any]) -> list[str]:
    """A remark where the index holds more than the collection."""
    stored = [held for each in executors if isinstance(held := each.status.get("documents"), int | float)]
    if indexing is None or not stored or max(stored) <= indexing.documents:
        return []
    return [f"the index holds {int(max(stored)) - indexing.documents:,} other documents, which compete with these"]


def read_rerank(text: str) -> str | Mapping[str, Any]:
    """Read a reranker from a command line: its name, or a JSON object with its `method` and options.

    Raises:
        InvalidInput: It is neither.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the reranker {text!r} is not JSON: {error}") from None
    if not isinstance(value.get("method"), str):
        raise InvalidInput(f'the reranker {text!r} names no "method", such as "late_interaction"')
    found: Mapping[str, Any] = value
    return found
