"""STS benchmark through the running service: as good as the model by itself, and as good as published.

sts-dev.csv: pairs of sentences, similarity as people see it
    --running flow: /encode--> cosines --Spearman--> rho      = (within 1e-4)
    --the encoder's own forward pass, no service--> rho       > what the model is known for
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flow_support import ROOT, start_flow, stop_flow

from flowdex import Client
from flowdex_orchestrator.flow import load_flow
from flowdex_orchestrator.worker.load import load_executor

Array = npt.NDArray[Any]
# Spearman's rho that the encoder of a flow reaches at least.
FLOWS = {"flow.yml": 0.85, "flows/glove.yml": 0.5}


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> tuple[list[str], list[str], Array]:
    """First sentences, second sentences, and their similarity from 0 to 5."""
    lines = (shared_data / "sts" / "sts-dev.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [row[5] for row in rows], [row[6] for row in rows], np.array([float(row[4]) for row in rows])


@pytest.fixture(scope="module", params=list(FLOWS))
def flow_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(flow_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of the flow, running."""
    flow = start_flow(tmp_path_factory.mktemp("sts"), (ROOT / flow_name).read_text())
    with Client(flow.grpc_url) as client:
        yield client
    stop_flow(flow)


def encode_by_itself(flow_name: str, texts: list[str]) -> Array:
    """Vectors of the flow's encoder without batcher, worker, gateway and client."""
    encoder: Any = load_executor(load_flow(ROOT / flow_name).executor("encoder"), ROOT)
    sequences = encoder.tokenise(texts)
    parts = [sequences[start : start + 32] for start in range(0, len(sequences), 32)]
    with ThreadPoolExecutor(1, initializer=encoder.use_cores, initargs=(1,)) as thread:
        vectors = np.concatenate(list(thread.map(encoder.encode_batch, parts)))
    encoder.close()
    return vectors


def ranks(values: Array) -> Array:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def spearman(first: Array, second: Array, similarity: Array) -> float:
    """Rank correlation of the vectors' cosines with the similarity."""
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return float(np.corrcoef(ranks(cosines), ranks(similarity))[0, 1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_spearman(flow_name: str, client: Client, pairs: tuple[list[str], list[str], Array]) -> None:
    first, second, similarity = pairs
    served = spearman(client.encode(first), client.encode(second), similarity)
    count = len(first)
    alone = encode_by_itself(flow_name, first + second)
    expected = spearman(alone[:count], alone[count:], similarity)
    print(f"\nSTS-B dev, {flow_name}: Spearman {served:.4f} served, {expected:.4f} in process, {count} pairs")
    assert served == pytest.approx(expected, abs=1e-4)
    assert served > FLOWS[flow_name]


def test_ranks() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    first, second = np.ones((3, 2)), np.array([[1.0, 1.0], [1.0, 0.5], [1.0, 0.0]])
    assert spearman(first, second, np.array([5.0, 4.0, 1.0])) == pytest.approx(1)
    assert spearman(first, second, np.array([1.0, 2.0, 5.0])) == pytest.approx(-1)
