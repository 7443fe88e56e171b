"""Metrics of rankings, computed by trec_eval's own code (pytrec_eval): the figures agree with published ones.

    rankings {query: documents, best first} + judgements --measure--> {"ndcg@10": {query: value}, ...}

| name         | value of a query                                                                                  |
|--------------|---------------------------------------------------------------------------------------------------|
| ndcg@k       | sum of relevance / log2(1 + rank) over the first k, as a part of the best possible sum            |
| recall@k     | part of the relevant documents that are among the first k                                         |
| precision@k  | part of the first k that are relevant                                                             |
| map@k        | mean, over all relevant documents, of the precision at the rank of each (0 beyond k)              |
| mrr@k        | 1 / rank of the first relevant document, 0 where it is not among the first k                      |
| success@k    | 1 where a relevant document is among the first k                                                  |

Documents without a judgement count as not relevant, and a query without results has 0 in every metric. The order is the
one that the flow gave: trec_eval would break ties of scores by document id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from flowdex.evaluation.dataset import Qrels

__all__ = ["DEFAULT_METRICS", "Metric", "PerQuery", "mean", "measure", "optional_import", "p_value"]

Ranking = Sequence[str]
PerQuery = dict[str, float]
"""Query id -> value."""

# name -> trec_eval's name with a cut-off, and the one under which it answers
_MEASURES = {
    "ndcg": ("ndcg_cut", "nDCG"),
    "recall": ("recall", "recall"),
    "precision": ("P", "precision"),
    "map": ("map_cut", "MAP"),
    "mrr": ("recip_rank", "MRR"),
    "success": ("success", "success"),
}
_SPELLING = re.compile(rf"({'|'.join(_MEASURES)})@([1-9][0-9]{{0,3}})", re.IGNORECASE)
_RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True)
class Metric:
    """A metric and how many documents of a ranking it looks at."""

    kind: str
    cutoff: int

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read "ndcg@10".

        Raises:
            InvalidInput: There is no such metric.
        """
        match = _SPELLING.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(f"there is no metric {text!r}: write {', '.join(f'{name}@10' for name in _MEASURES)}")
        return cls(match[1].lower(), int(match[2]))

    def __str__(self) -> str:
        return f"{self.kind}@{self.cutoff}"

    @property
    def title(self) -> str:
        """As a heading of a table."""
        return f"{_MEASURES[self.kind][1]}@{self.cutoff}"


DEFAULT_METRICS = (Metric("ndcg", 10), Metric("recall", 10), Metric("recall", 100), Metric("mrr", 10))


def measure(rankings: Mapping[str, Ranking], qrels: Qrels, metrics: Sequence[Metric]) -> dict[Metric, PerQuery]:
    """Measure rankings.

    Args:
        rankings: Query id -> document ids, best first. A document that occurs twice counts where it comes first.
        qrels: The judgements; each of its queries gets a value.
        metrics: Which.

    Raises:
        ConfigurationError: pytrec_eval is not installed.
    """
    values: dict[Metric, PerQuery] = {}
    for metric in metrics:
        # trec_eval's reciprocal rank has no cut-off: the ranking is given one.
        depth = metric.cutoff if metric.kind == "mrr" else None
        name = _MEASURES[metric.kind][0]
        asked, answered = (name, name) if depth else (f"{name}.{metric.cutoff}", f"{name}_{metric.cutoff}")
        evaluator = optional_import("pytrec_eval").RelevanceEvaluator(
            {query: dict(judgements) for query, judgements in qrels.items()}, {asked}
        )
        found = evaluator.evaluate({query: _scored(rankings.get(query, ())[:depth]) for query in qrels})
        values[metric] = {query: float(found[query][answered]) if query in found else 0.0 for query in qrels}
    return values


def _scored(ranking: Ranking) -> dict[str, float]:
    """Scores that keep the order: trec_eval sorts by score, in single precision, and breaks ties by document id."""
    documents = list(dict.fromkeys(ranking))
    return {document: float(len(documents) - rank) for rank, document in enumerate(documents)}


def mean(values: PerQuery) -> float:
    """The mean over the queries."""
    return sum(values.values()) / len(values)


def p_value(first: PerQuery, second: PerQuery) -> float:
    """How likely a difference of the means at least this large is if the two systems are alike.

    The paired randomisation test, two-sided: in each of 10,000 resamples (all of them where there are fewer) the two
    systems swap their values for queries drawn at random. Smucker, Allan, Carterette 2007, "A Comparison of Statistical
    Significance Tests for Information Retrieval Evaluation".

    Raises:
        ConfigurationError: scipy is not installed.
        InvalidInput: They are not of the same queries.
    """
    if first.keys() != second.keys():
        raise InvalidInput("a paired test needs values of the same queries")
    import numpy as np

    pairs = np.array([[first[query], second[query]] for query in first])
    differences = pairs[:, 1] - pairs[:, 0]
    differences = differences[differences != 0]  # swapping equal values changes nothing
    if len(differences) < 2:
        return 1.0
    result = optional_import("scipy.stats").permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)


def optional_import(name: str) -> ModuleType:
    """Import a module of the extra `eval`.

    Raises:
        ConfigurationError: It is not installed; the message has the command that installs it.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        raise ConfigurationError(
            f"evaluation needs {package}, which is not installed: pip install 'flowdex[eval]'"
        ) from None
