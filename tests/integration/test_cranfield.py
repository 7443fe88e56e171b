"""Quality on the Cranfield collection, through a flow that runs for real: what the parts promise, the whole keeps.

    1,398 abstracts, 225 queries --flow.yml--> nDCG@10      against an in-process reference with exact search

The same figures come from ``flowdex eval ../shared/data/cranfield --flow flow.yml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_support import ROOT, start_flow, stop_flow

from flowdex import Client
from flowdex.evaluation.dataset import Dataset, load_dataset
from flowdex.evaluation.experiment import MODES, Evaluation, Options, Setting, evaluate
from flowdex.evaluation.metrics import Metric

pytest.importorskip("pytrec_eval")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NDCG = Metric("ndcg", 10)
# Whole abstracts, MiniLM at 256 tokens, exact search, no flow: dense vectors, and their fusion with BM25 by rank.
DENSE, HYBRID = 0.3955, 0.427
LATE_INTERACTION = {"method": "late_interaction", "top": 20, "timeout": 60}


@pytest.fixture(scope="module")
def dataset(shared_data: Path) -> Dataset:
    folder = shared_data / "cranfield"
    if not folder.is_dir():
        pytest.skip("the Cranfield collection (../shared/data/cranfield) is not on this machine")
    return load_dataset(folder)


@pytest.fixture(scope="module")
def client(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    flow = start_flow(tmp_path_factory.mktemp("cranfield"), (ROOT / "flow.yml").read_text())
    try:
        with Client(flow.grpc_url, timeout=300) as client:
            yield client
    finally:
        stop_flow(flow)


@pytest.fixture(scope="module")
def whole(client: Client, dataset: Dataset) -> Evaluation:
    """Whole documents in the index: everything that is measured on them."""
    settings = [*Setting.product(MODES, ()), Setting("hybrid", LATE_INTERACTION)]
    return evaluate(
        client,
        dataset,
        Options(settings, [NDCG], index_parameters={"segment": "document"}, limit=50, concurrency=4, progress=False),
    )


def ndcg(evaluation: Evaluation) -> dict[str, float]:
    found = {run.setting.label: run.means[NDCG] for run in evaluation.runs}
    print("".join(f"\n{label}: nDCG@10 {value:.4f}" for label, value in found.items()))
    return found


def test_whole_documents(whole: Evaluation) -> None:
    found = ndcg(whole)
    assert whole.indexing is not None
    assert whole.indexing.passages == 1398
    assert found["dense"] == pytest.approx(DENSE, abs=0.005)
    assert found["hybrid"] >= HYBRID
    assert found[Setting("hybrid", LATE_INTERACTION).label] > found["hybrid"]
    assert not any(run.notes for run in whole.runs)  # the reranker was always done in time


def test_passages(whole: Evaluation, client: Client, dataset: Dataset) -> None:
    """The flow's own way to cut, in place of the whole documents."""
    options = Options(Setting.product(MODES, ()), [NDCG], limit=50, concurrency=4, progress=False)
    passages = evaluate(client, dataset, options)
    assert passages.indexing is not None
    assert passages.indexing.passages > 1398
    cut, uncut = ndcg(passages), ndcg(whole)
    # As good, up to what the collection can tell: a standard error is about 0.02. BM25 by itself loses most, as words
    # of one document stand in two passages.
    for mode, less in {"dense": 0.002, "sparse": 0.01, "hybrid": 0.002}.items():
        assert cut[mode] > uncut[mode] - less
    assert cut["hybrid"] > max(cut["dense"], cut["sparse"])
