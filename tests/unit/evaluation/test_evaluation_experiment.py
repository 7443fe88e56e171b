"""An experiment on a flow that answers from a table: what is sent, what is measured, what is reported."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flowdex.errors import InvalidInput, Unavailable
from flowdex.evaluation import report
from flowdex.evaluation.dataset import Dataset, load_dataset
from flowdex.evaluation.experiment import Evaluation, Options, Setting, evaluate, read_rerank
from flowdex.evaluation.metrics import Metric
from flowdex.evaluation.plot import check_plot, draw
from flowdex.evaluation.trec import run_files, write_run
from flowdex.results import ExecutorStatus, FlowStatus, Hit, IndexFailure, IndexResult, SearchResult

pytest.importorskip("pytrec_eval")

ANSWERS = {"alpha": ["a", "b", "c"], "beta": ["c", "b"], "gamma": []}


class TableClient:
    """As much of a client as an experiment uses."""

    def __init__(self, *, extra: int = 0, refused: str | None = None) -> None:
        self.indexed: list[dict[str, Any]] = []
        self.index_parameters: Any = None
        self.searches: list[tuple[str, int, str | None, dict[str, Any]]] = []
        self.extra, self.refused = extra, refused

    def index(
        self, documents: Iterable[dict[str, Any]], *, parameters: Any, show_progress: Any, **_: Any
    ) -> IndexResult:
        self.index_parameters = parameters
        result = IndexResult(took_ms=500.0)
        for position, document in enumerate(documents):
            if document["id"] == self.refused:
                result.failures.append(IndexFailure(document["id"], position, InvalidInput("too odd")))
            else:
                self.indexed.append(document)
                result.documents += 1
                result.passages += 2
            show_progress(1)
        return result

    def search(self, query: str, limit: int, *, mode: str | None, parameters: dict[str, Any]) -> SearchResult:
        self.searches.append((query, limit, mode, parameters))
        found = ANSWERS[query] if mode != "sparse" else ANSWERS[query][::-1]
        hits = [Hit(name, 1.0 / rank) for rank, name in enumerate(found, 1)]
        return SearchResult(query, hits[:limit], took_ms=10.0 * len(self.searches))

    def status(self) -> FlowStatus:
        status = {"documents": float(len(self.indexed) + self.extra)}
        return FlowStatus("table", executors=[ExecutorStatus("encoder"), ExecutorStatus("indexer", status=status)])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": name, "title": name.upper(), "text": f"about {name}"}) + "\n" for name in "abcd")
    )
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{name}", "text": name}) + "\n" for name in ANSWERS)
    )
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nqalpha\ta\t1\nqbeta\tb\t1\nqgamma\td\t1\n")
    return load_dataset(tmp_path)


def run(client: TableClient, dataset: Dataset, **options: Any) -> Evaluation:
    options.setdefault("settings", [Setting("dense")])
    return evaluate(client, dataset, Options(progress=False, **options))  # type: ignore[arg-type]


def test_an_experiment(dataset: Dataset) -> None:
    client = TableClient()
    settings = Setting.product(["dense", "sparse"], ["late_interaction"])
    found = run(client, dataset, settings=settings, metrics=[Metric.parse("mrr@2"), Metric.parse("recall@10")])
    assert [document["id"] for document in client.indexed] == list("abcd")
    assert found.indexing is not None
    assert (found.indexing.documents, found.indexing.passages, found.indexing.seconds) == (4, 8, 0.5)
    assert [each.setting.label for each in found.runs] == [
        "dense",
        "dense + late_interaction",
        "sparse",
        "sparse + late_interaction",
    ]
    dense, _, sparse, _ = ({str(metric): value for metric, value in each.means.items()} for each in found.runs)
    assert dense == pytest.approx({"mrr@2": (1 + 1 / 2 + 0) / 3, "recall@10": 2 / 3})
    assert sparse == pytest.approx({"mrr@2": (0 + 1 + 0) / 3, "recall@10": 2 / 3})
    # Each setting asks its first query once more, untimed, and every query for as much as the metrics look at.
    assert [search[0] for search in client.searches[:4]] == ["alpha", "alpha", "beta", "gamma"]
    assert {search[1] for search in client.searches} == {10}
    assert [search[3] for search in client.searches[::4]] == [{}, {"rerank": "late_interaction"}] * 2
    assert found.runs[0].latencies_ms == [20.0, 30.0, 40.0]
    assert found.runs[0].latency(50) == 30.0
    assert found.remarks == []
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_options_reach_the_flow(dataset: Dataset) -> None:
    client = TableClient()
    run(client, dataset, index_parameters={"segment": "document"}, search_parameters={"candidates": 5}, limit=2)
    assert client.index_parameters == {"segment": "document"}
    assert client.searches[0][1:] == (2, "dense", {"candidates": 5})
    again = TableClient()
    assert run(again, dataset, index=False).indexing is None
    assert again.indexed == []


def test_what_disturbs_is_remarked(dataset: Dataset) -> None:
    remarks = run(TableClient(extra=3, refused="d"), dataset).remarks
    assert remarks == [
        "1 document refused by the flow: d: too odd",
        "the index holds 3 other documents, which compete with these",
    ]


def test_hits_with_the_querys_own_id_can_be_left_out(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "alpha", ["qalpha", "a", "b"])
    client = TableClient()
    found = run(client, dataset, ignore_identical_ids=True, limit=2)
    assert [name for name, _ in found.runs[0].rankings["qalpha"]] == ["a", "b"]
    assert client.searches[0][1] == 3


def test_an_error_ends_the_run(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TableClient()

    def search(query: str, *_: Any, **__: Any) -> SearchResult:
        if query == "beta":
            raise Unavailable("gone")
        return SearchResult(query)

    monkeypatch.setattr(client, "search", search)
    with pytest.raises(Unavailable, match="gone"):
        run(client, dataset, concurrency=2)


def test_nothing_indexed_is_an_error(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TableClient()
    failures = [IndexFailure("a", 0, InvalidInput("no encoder"))]
    monkeypatch.setattr(client, "index", lambda documents, **_: IndexResult(failures=failures))
    with pytest.raises(InvalidInput, match="no document could be indexed; the first, 'a': no encoder"):
        run(client, dataset)


def test_rerankers_of_the_command_line() -> None:
    assert read_rerank("late_interaction") == "late_interaction"
    options = read_rerank('{"method": "cross_encoder", "top": 20}')
    setting = Setting("hybrid", options)
    assert (setting.label, setting.tag) == ("hybrid + cross_encoder (top 20)", "hybrid-cross_encoder-top-20")
    for wrong in ('{"top": 20}', "{"):
        with pytest.raises(InvalidInput, match="the reranker"):
            read_rerank(wrong)


def text_of(renderable: Any) -> str:
    out = Console(file=io.StringIO(), width=140)
    out.print(renderable)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_table(dataset: Dataset) -> None:
    found = run(TableClient(), dataset, settings=Setting.product(["dense"], ["x"]), metrics=[Metric.parse("ndcg@10")])
    lines = text_of(report.evaluation_table(found)).splitlines()
    assert lines[0].split() == ["mode", "reranker", "nDCG@10", "p50", "ms", "p95", "ms", "p99", "ms"]
    assert lines[1].split() == ["dense", "0.5436", "30.0", "39.0", "39.8"]
    assert lines[2].split() == ["dense", "x", "0.5436", "70.0", "79.0", "79.8"]
    (line,) = report.summary(found)
    assert line.endswith(": 3 queries, 4 documents (8 passages) indexed in 0.5 s, 8/s")


def test_two_flows(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    metrics = [Metric.parse("mrr@10")]
    first = run(TableClient(), dataset, metrics=metrics)
    monkeypatch.setitem(ANSWERS, "gamma", ["d"])
    second = run(TableClient(), dataset, metrics=metrics)
    comparison = report.compare(first, second)
    (difference,) = comparison.differences
    assert (difference.first, difference.second, difference.delta) == pytest.approx((0.5, 5 / 6, 1 / 3))
    assert difference.p == 1  # one query differs: swapping it or not gives the same difference
    assert text_of(report.comparison_table(comparison)).splitlines()[1].split() == [
        *("dense", "MRR@10", "0.5000", "0.8333", "+0.3333", "1.000")
    ]
    assert json.loads(json.dumps(comparison.to_dict())) == comparison.to_dict()
    with pytest.raises(InvalidInput, match="same settings"):
        report.compare(first, run(TableClient(), dataset, settings=[Setting("sparse")], metrics=metrics))


def test_run_files_keep_the_order_for_tools_that_sort_by_score(tmp_path: Path) -> None:
    file = tmp_path / "run.trec"
    write_run(file, {"q1": [("z", 0.5), ("a", 0.5), ("m", 0.75), ("b", 0.25)], "q2": []}, "mine")
    rows = [line.split() for line in file.read_text().splitlines()]
    assert [(row[0], row[1], row[2], row[3], row[5]) for row in rows] == [
        ("q1", "Q0", name, str(rank), "mine") for rank, name in enumerate("zamb", 1)
    ]
    import numpy as np

    scores = [np.float32(row[4]) for row in rows]
    assert all(one > other for one, other in pairwise(scores))
    assert [float(score) for score in scores] == pytest.approx([0.5, 0.5, 0.5, 0.25])


def test_names_of_run_files() -> None:
    assert run_files(Path("out/run.trec"), ["a"]) == [Path("out/run.trec")]
    assert run_files(Path("out/run.trec"), ["a", "b"]) == [Path("out/run.a.trec"), Path("out/run.b.trec")]


def test_the_plot(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = run(TableClient(), dataset, settings=Setting.product(["dense", "sparse"], []))
    file = tmp_path / "plot.png"
    check_plot(file)
    draw({each.setting.label: each for each in found.runs}, file, title="tiny")
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInput, match=r"ending such as .png"):
        check_plot(tmp_path / "plot.docx")
    with pytest.raises(InvalidInput, match="there is no folder"):
        check_plot(tmp_path / "nowhere" / "plot.png")
