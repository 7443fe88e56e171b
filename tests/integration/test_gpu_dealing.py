"""Replicas of a running flow are dealt to GPUs, as far as that can be seen without one: each process gets its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flow_support import ROOT, start_flow, stop_flow
from gpu_support import DEALT, dealt_devices

from flowdex import Client


def test_replicas_are_dealt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("nvidia-smi") is not None:
        pytest.skip("tests/gpu does this on a machine with GPUs")
    monkeypatch.setenv("CUDA_TOTAL_DEVICES", "4")  # what Jina takes where there is no nvidia-smi
    uses = "    uses: flowdex_executors.BertEncoder\n"
    text = (ROOT / "flows/encode.yml").read_text()
    assert uses in text
    flow = start_flow(tmp_path, text.replace(uses, uses + DEALT.replace("RR", "RR1:3")))
    try:
        assert dealt_devices(flow.flow_file) == ["1", "2"]
        with Client(flow.grpc_url) as client:
            assert client.encode(["auto means the CPU where torch sees no GPU"]).shape == (1, 384)
            assert client.status().executors[0].status["device"] == "cpu"
    finally:
        stop_flow(flow)
