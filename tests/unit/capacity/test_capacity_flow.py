"""What a plan reads of a flow file, and the command around it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.capacity.cli import plan
from flowdex_orchestrator.capacity.flow import FlowShape, read_flow
from flowdex_orchestrator.capacity.table import shown
from flowdex_orchestrator.flow.load import parse_flow

ROOT = Path(__file__).resolve().parents[3]
FLOW = str(ROOT / "flow.yml")


def read(text: str, gpu: str | None = None) -> FlowShape:
    return read_flow(parse_flow(f"jtype: Flow\n{text}", env={}), gpu=gpu)


def test_the_default_flow() -> None:
    shape = read_flow(parse_flow((ROOT / "flow.yml").read_text(encoding="utf-8")))
    assert shape.encoder
    assert shape.encoder.kind == "BertEncoder"
    assert shape.segmenter
    assert (shape.segmenter.mode, shape.segmenter.max_tokens, shape.segmenter.overlap) == ("passage", 254, 25)
    assert shape.index
    assert shape.index.embedded
    assert shape.ranker
    assert shape.reranks is None


def test_what_makes_an_encoder_cost_something_else_is_in_its_kind() -> None:
    shape = read(
        """
executors:
  - name: encoder
    uses: flowdex_executors.BertEncoder
    uses_with: {model: BAAI/bge-small-en-v1.5, backend: onnx, threads: 3}
    replicas: 2
"""
    )
    assert shape.encoder
    assert shape.encoder.kind == "BertEncoder BAAI/bge-small-en-v1.5 onnx"
    assert (shape.encoder.cores, shape.encoder.replicas) == (3.0, 2)
    assert shape.index is None


def test_gpus_cpus_and_autoscale() -> None:
    shape = read(
        """
executors:
  - name: encoder
    uses: flowdex_executors.BertEncoder
    gpus: 1
    autoscale: {min: 2, max: 6}
    kubernetes:
      gpu_resource: nvidia.com/mig-1g.10gb
      resources: {requests: {cpu: 1500m}}
"""
    )
    assert shape.encoder
    assert shape.encoder.kind == "BertEncoder on a GPU"
    assert (shape.encoder.gpus, shape.encoder.gpu_resource) == (1, "nvidia.com/mig-1g.10gb")
    assert (shape.encoder.replicas, shape.encoder.cores) == (6, 1.5)


def test_the_option_puts_the_encoder_on_a_gpu() -> None:
    shape = read("executors: [{name: encoder, uses: flowdex_executors.BertEncoder}]", gpu="L4")
    assert shape.encoder
    assert (shape.encoder.kind, shape.encoder.gpus, shape.encoder.gpu_name) == ("BertEncoder on L4", 1, "L4")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("{}", (None, 1, None, 1.0, False)),
        ("{shards: 6, replication_factor: 2}", (6, 2, None, 1.0, False)),
        ("{quantization: scalar, on_disk: {vectors: true}}", (None, 1, "scalar", 4.0, True)),
        ("{quantization: {method: product, compression: x64}, on_disk: true}", (None, 1, "product", 64.0, True)),
        ("{quantization: {method: binary}}", (None, 1, "binary", 32.0, False)),
    ],
)
def test_settings_of_a_server(server: str, expected: tuple[object, ...]) -> None:
    shape = read(
        f"""
executors:
  - name: indexer
    uses: flowdex_executors.QdrantIndexer
    uses_with: {{uri: 'grpc://qdrant:6334', dimensions: 100, server: {server}}}
"""
    )
    index = shape.index
    assert index
    assert not index.embedded
    found = (index.shards, index.replication, index.quantization, index.compression, index.vectors_on_disk)
    assert found == expected
    assert index.dimensions == 100


def test_rerankers_are_seen() -> None:
    flow = "executors: [{{name: i, uses: flowdex_executors.QdrantIndexer}}, {}]"
    ranker = "{name: ranker, uses: flowdex_executors.Ranker, uses_with: {rerank: {method: late_interaction}}}"
    assert read(flow.format(ranker)).reranks == "late_interaction"
    cross = "{name: ranker, uses: flowdex_executors.Ranker, uses_with: {cross_encoder: {model: m}}}"
    assert read(flow.format(cross)).reranks == "cross_encoder"


def test_a_flow_without_encoder_and_index_has_nothing_to_plan() -> None:
    with pytest.raises(ConfigurationError, match="nothing to plan"):
        read("executors: [{name: cleaner, uses: mine.Cleaner}]")


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "bytes", "0 B"),
        (1536, "bytes", "1.5 KiB"),
        (2**42, "bytes", "4.0 TiB"),
        (1234.0, "", "1,234"),
        (1.25, "ms", "1.2 ms"),
    ],
)
def test_numbers_as_a_reader_wants_them(value: float, unit: str, expected: str) -> None:
    assert shown(value, unit) == expected


# ---- the command ----


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(plan, list(arguments))
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


@pytest.mark.parametrize(
    ("written", "documents"), [("10k", 10_000), ("100M", 10**8), ("1.5B", 1_500_000_000), ("12,500", 12_500)]
)
def test_numbers_of_documents(written: str, documents: int) -> None:
    code, output = run(FLOW, "--documents", written, "--json")
    assert code == 0
    answer = json.loads(output)
    assert answer["lines"][0]["value"] == documents
    assert answer["dimensions"] == 384
    assert set(answer["totals"]) == {"cores", "memory", "disk", "nodes", "gpus"}


@pytest.mark.parametrize("wrong", ["many", "0", "-5", "10x", "1e6"])
def test_wrong_numbers_are_refused(wrong: str) -> None:
    code, output = run(FLOW, "--documents", wrong)
    assert code == 2
    assert "100M" in output


def test_the_table_has_reasons_and_remedies() -> None:
    code, output = run(FLOW, "--documents", "100M", "--rps", "500", "--index-within", "48")
    assert code == 0
    text = " ".join(output.split())
    for part in (
        "vectors",
        "nodes",
        "grpc://HOST:6334",
        "reference machine",
        "within 48 hours",
    ):
        assert part in text


def test_a_gpu_has_no_cost_until_one_is_given() -> None:
    code, output = run(FLOW, "--documents", "1M", "--gpu", "H100")
    assert code == 1
    assert "on H100 has not been measured" in output
    assert "--encoder-tokens-per-second" in output
    code, output = run(
        FLOW,
        "--documents",
        "1M",
        "--gpu",
        "H100",
        "--encoder-tokens-per-second",
        "100k",
        "--index-within",
        "1",
        "--json",
    )
    assert code == 0
    values = {line["key"]: line["value"] for line in json.loads(output)["lines"]}
    assert values["gpus"] == 1
    assert values["bulk_gpus"] == 3  # 2.7 million passages of 195 tokens are 1.45 GPU hours, 30 % of it kept free


def test_an_unknown_model_asks_for_its_cost(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    file.write_text(
        "jtype: Flow\n"
        "executors: [{name: encoder, uses: flowdex_executors.BertEncoder, uses_with: {model: some/model}}]\n"
    )
    code, output = run(str(file), "--documents", "1M")
    assert code == 1
    assert "BertEncoder some/model" in output
    assert "--measure" in output
    code, _ = run(str(file), "--documents", "1M", "--encoder-tokens-per-second", "2k", "--dimensions", "768")
    assert code == 0


def test_characters_are_tokens() -> None:
    def passages(*arguments: str) -> float:
        lines = json.loads(run(FLOW, "--documents", "1M", "--json", *arguments)[1])["lines"]
        return next(line["value"] for line in lines if line["key"] == "passages")

    assert passages("--characters", "37k") == passages("--tokens", "10k")
    assert passages("--passages", "7") == 7_000_000
    assert run(FLOW, "--documents", "1M", "--tokens", "1", "--characters", "1")[0] == 2


def test_planning_imports_no_executor() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from flowdex_orchestrator.capacity.cli import plan; "
        f"assert CliRunner().invoke(plan, [{FLOW!r}, '--documents', '1M']).exit_code == 0; "
        "print(*sorted({'jina', 'torch', 'qdrant_client', 'flowdex_executors', 'docarray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
