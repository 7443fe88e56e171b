"""Encoders on a real GPU: the CPU's vectors, no memory, replicas dealt, speed. Run by `pytest tests/gpu`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_support import ROOT, start_flow, stop_flow
from gpu_support import DEALT, dealt_devices

from flowdex import Client
from flowdex.documents import DocumentBatch
from flowdex_executors import BertEncoder, DocumentColumns, ElmoEncoder
from flowdex_orchestrator.gpus import count_gpus

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine")

TEXTS = [f"sentence {number}: " + "neural search finds passages " * (number % 23) for number in range(300)]
ON_GPU = """\
    uses_with:
      compute_dtype: float16
      batch_tokens: 16384
"""


def encode(encoder: BertEncoder | ElmoEncoder, texts: list[str]) -> np.ndarray[Any, Any]:
    batch = DocumentBatch.from_columns(texts=texts)
    asyncio.run(encoder.encode(docs=DocumentColumns(batch)))
    vectors = batch.embeddings
    assert vectors is not None
    return vectors


def cosines(ours: Any, theirs: Any) -> np.ndarray[Any, Any]:
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@pytest.fixture(scope="module")
def expected() -> Iterator[np.ndarray[Any, Any]]:
    """The vectors of the CPU."""
    encoder = BertEncoder(device="cpu")
    yield encode(encoder, TEXTS)
    encoder.close()


@pytest.mark.parametrize("backend", ["packed", "transformers"])
@pytest.mark.parametrize(("compute_dtype", "least"), [("float32", 0.99999), ("float16", 0.9995), ("bfloat16", 0.995)])
def test_the_vectors_are_those_of_the_cpu(
    expected: np.ndarray[Any, Any], backend: str, compute_dtype: str, least: float
) -> None:
    encoder = BertEncoder(backend=backend, compute_dtype=compute_dtype, batch_tokens=16384)
    try:
        assert encoder.device == "cuda" and encoder.threads == 1
        assert ("compute_dtype" in encoder.fingerprint(encoder.defaults)) is (compute_dtype != "float32")
        found = encode(encoder, TEXTS)
        assert cosines(found, expected).min() > least
        alone = np.concatenate([encode(encoder, [text]) for text in TEXTS[:20]])
        assert cosines(alone, found[:20]).min() > least, "batching changes nothing"
    finally:
        encoder.close()


def test_no_memory_splits_the_batch(expected: np.ndarray[Any, Any]) -> None:
    encoder = BertEncoder(backend="packed", batch_tokens=1_000_000)
    long = ["neural search finds passages " * 60] * 2000  # 512,000 tokens: gigabytes in one batch
    try:
        encode(encoder, TEXTS[:4])
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        used = torch.cuda.memory_allocated()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (used + 512 * 2**20) / total))
        found = encode(encoder, long)
        assert cosines(found, found[:1].repeat(len(found), 0)).min() > 0.9999
        status = asyncio.run(encoder.status())
        assert status["batch_tokens"] < 1_000_000, "later batches are smaller"
        assert cosines(encode(encoder, TEXTS), expected).min() > 0.99999, "and it goes on"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        encoder.close()


def test_recurrent_families(shared_data: Path) -> None:
    files = {"options": str(shared_data / "elmo/options.json"), "weights": str(shared_data / "elmo/lm_weights.hdf5")}
    here, there = ElmoEncoder(device="cpu", **files), ElmoEncoder(device="cuda:0", **files)
    try:
        np.testing.assert_allclose(encode(there, TEXTS[:40]), encode(here, TEXTS[:40]), atol=1e-4)
    finally:
        here.close()
        there.close()


def test_replicas_are_dealt_to_gpus(tmp_path: Path, expected: np.ndarray[Any, Any]) -> None:
    uses = "    uses: flowdex_executors.BertEncoder\n"
    text = (ROOT / "flows/encode.yml").read_text()
    assert uses in text
    flow = start_flow(tmp_path, text.replace(uses, uses + DEALT + ON_GPU))
    try:
        with Client(flow.grpc_url) as client:
            found = client.encode(TEXTS, batch_size=32)
            status = client.status().executors[0]
        assert cosines(found, expected).min() > 0.9995
        assert len(status.replicas) == 2 and status.status["device"] == "cuda"
        assert dealt_devices(flow.flow_file) == sorted(str(replica % count_gpus()) for replica in range(2))
    finally:
        stop_flow(flow)


def test_a_gpu_is_faster(expected: np.ndarray[Any, Any]) -> None:
    texts = TEXTS * 4

    def seconds(**options: Any) -> float:
        encoder = BertEncoder(**options)
        try:
            encode(encoder, TEXTS)
            started = time.perf_counter()
            encode(encoder, texts)
            return time.perf_counter() - started
        finally:
            encoder.close()

    gpu = seconds(compute_dtype="float16", batch_tokens=16384)
    cpu = seconds(device="cpu")
    print(f"{len(texts)} texts: {gpu:.2f} s on the GPU, {cpu:.2f} s on the CPU")
    assert gpu < cpu
