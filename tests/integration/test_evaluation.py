"""`flowdex eval` and `flowdex compare` on flows that run for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flow_support import ROOT, RunningFlow, run_flowdex

from flowdex import Client

pytest.importorskip("pytrec_eval")
pytest.importorskip("matplotlib")

TEXTS = {
    "moon": ("Apollo 11", "The first crew walked on the Moon in 1969."),
    "saturn": ("Cassini", "The probe orbited Saturn and its rings for thirteen years."),
    "bread": ("", "Knead the dough, let it rise, and bake it in a hot oven."),
    "chess": ("", "A knight moves two squares one way and one square the other."),
}
QUERIES = {"q1": ("astronauts on the lunar surface", "moon"), "q2": ("how to make a loaf", "bread")}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "title": title, "text": text} for name, (title, text) in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": name, "text": text} for name, (text, _) in QUERIES.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    judged = "".join(f"{name}\t{answer}\t1\n" for name, (_, answer) in QUERIES.items())
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def run_of(found: dict[str, Any], mode: str, rerank: Any = None) -> dict[str, Any]:
    (run,) = [run for run in found["runs"] if (run["mode"], run["rerank"]) == (mode, rerank)]
    metrics: dict[str, Any] = run["metrics"]
    return metrics


def test_a_running_flow(default_flow: RunningFlow, collection: Path, tmp_path: Path) -> None:
    with Client(default_flow.grpc_url) as client:  # what other tests left there would compete
        if others := [document.id for document in client.scroll()]:
            client.delete(others)
    files = ["--plot", str(tmp_path / "plot.png"), "--run", str(tmp_path / "run.trec")]
    rerank = {"method": "late_interaction", "top": 2, "timeout": 60}
    done = default_flow.flowdex("eval", str(collection), "--json", "--rerank", json.dumps(rerank), *files)
    try:
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["dataset"] == {"name": "tiny", "documents": 4, "queries": 2}
        assert (found["index"]["documents"], found["index"]["failures"]) == (4, [])
        assert [(run["mode"], run["rerank"]) for run in found["runs"]] == [
            (mode, each) for mode in ("dense", "sparse", "hybrid") for each in (None, rerank)
        ]
        for mode in ("dense", "hybrid"):
            expected = {"ndcg@10": 1.0, "recall@10": 1.0, "recall@100": 1.0, "mrr@10": 1.0}
            assert run_of(found, mode) == run_of(found, mode, rerank) == expected
        assert all(0 < run["latency_ms"]["p50"] <= run["latency_ms"]["p99"] for run in found["runs"])
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
        names = sorted(file.name for file in tmp_path.glob("*.trec"))
        assert len(names) == 6
        assert names[0] == "run.dense-late_interaction-top-2-timeout-60.trec"
        first = (tmp_path / "run.dense.trec").read_text().splitlines()[0].split()
        assert (first[:4], first[5]) == (["q1", "Q0", "moon", "1"], "dense")

        table = default_flow.flowdex("eval", str(collection), "--no-index", "--mode", "dense", "--metric", "mrr@5")
        assert table.returncode == 0, table.stderr
        lines = table.stdout.splitlines()
        assert lines[0].split()[:3] == ["mode", "reranker", "MRR@5"]
        assert lines[1].split()[:2] == ["dense", "1.0000"]
        assert lines[-1] == "tiny: 2 queries"
    finally:
        default_flow.flowdex("delete", *TEXTS)


def test_mistakes_are_found_before_anything_starts(default_flow: RunningFlow, collection: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "b"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n')
    (tmp_path / "qrels.tsv").write_text("q\ta\t1\n")
    for arguments, code, message in (
        ([str(tmp_path)], 1, 'corpus.jsonl:2: no "text"; expected'),
        ([str(collection), "--metric", "ndgc@10"], 1, "no metric 'ndgc@10'"),
        ([str(collection), "--plot", "plot.docx"], 1, "ending such as .png"),
        ([str(collection), "--rerank", "{}"], 1, 'names no "method"'),
        ([str(collection), "--parameters", "[]"], 2, "must be a JSON object"),
        ([str(collection), "--flow", "flow.yml", "--no-index"], 2, "--no-index cannot hold"),
        ([str(collection), "--split", "dev"], 1, "choose with --split from test"),
    ):
        done = default_flow.flowdex("eval", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_flows_each_with_an_index_of_its_own(collection: Path, tmp_path: Path) -> None:
    for name, overlap in (("one", 0), ("two", 5)):
        text = (ROOT / "flow.yml").read_text()
        segmenter = "uses: flowdex_executors.Segmenter"
        (tmp_path / f"{name}.yml").write_text(
            text.replace(segmenter, f"{segmenter}\n    uses_with: {{overlap: {overlap}}}")
        )
    done = run_flowdex(
        *("compare", str(tmp_path / "one.yml"), str(tmp_path / "two.yml"), str(collection)),
        *("--mode", "dense", "--metric", "mrr@10", "--json"),
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["first"]["flow"], found["second"]["flow"]) == ("one", "two")
    (difference,) = found["differences"]
    assert (difference["first"], difference["delta"], difference["p"]) == (1, 0, 1)
    assert not (tmp_path / ".flowdex").exists()


def test_the_collection_of_the_standard_library(tmp_path: Path) -> None:
    from flowdex.evaluation.dataset import load_dataset

    command = [sys.executable, str(ROOT / "examples" / "stdlib_collection.py"), str(tmp_path), "--limit", "30"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    dataset = load_dataset(tmp_path)
    assert (dataset.documents, len(dataset.queries)) == (30, 30)
    texts = {document.id: document.text for document in dataset.read_corpus()}
    for query, (answer,) in ((query, list(judged)) for query, judged in dataset.qrels.items()):
        assert dataset.queries[query] not in texts[answer]
