"""What a flow file says that its size depends on.

    Flow --read_flow--> FlowShape(encoder, segmenter, index, ...)

Nothing is imported or started for it: what only the classes know, such as the dimensions of an encoder of one's own,
comes from `facts_of_class`, which takes some seconds and is asked only where the file and the shipped costs are silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export.roles import Role, role_of
from flowdex_orchestrator.flow.model import Executor, Flow

__all__ = ["EncoderShape", "FlowShape", "IndexShape", "SegmenterShape", "facts_of_class", "parse_cpu", "read_flow"]

_DEFAULT_MAX_TOKENS = 254  # all-MiniLM-L6-v2, the tokenizer of a segmenter that names none
_DEFAULT_OVERLAP = 10  # parts
_MODULE = "flowdex_executors."


@dataclass(frozen=True)
class EncoderShape:
    """The encoder of a flow.

    Attributes:
        name: Its name in the flow.
        kind: What its cost depends on: class, and model, backend and quantisation where they are not the defaults.
        cores: Cores of a replica.
        gpus: GPUs of a replica.
        gpu_name: What to call them, None where there are none.
        gpu_resource: What they are called in a cluster.
        replicas: As the file says, at most.
        dimensions: Where the file says.
    """

    name: str
    kind: str
    cores: float = 1.0
    gpus: int = 0
    gpu_name: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    replicas: int = 1
    dimensions: int | None = None


@dataclass(frozen=True)
class SegmenterShape:
    """How documents are cut.

    Attributes:
        name: Its name in the flow.
        mode: passage, sentence, markdown or document.
        max_tokens: Most tokens of a passage.
        overlap: Tokens of it that the one before has, too.
        sentences: In the mode `sentence`, by which each passage moves on.
    """

    name: str = "segmenter"
    mode: str = "passage"
    max_tokens: int = _DEFAULT_MAX_TOKENS
    overlap: int = _DEFAULT_MAX_TOKENS // _DEFAULT_OVERLAP
    sentences: int = 1


@dataclass(frozen=True)
class IndexShape:
    """Where passages are kept.

    Attributes:
        name: Its name in the flow.
        embedded: Whether the engine runs inside the flow, on one machine.
        shards: Parts of the collection; None where a server decides.
        replication: Copies of each part.
        quantization: Method, None for none.
        compression: How many times smaller than float32 the quantised vectors are.
        quantised_in_memory: Whether they are kept in memory.
        vectors_on_disk: Whether the vectors (and the index of words) are read from disk.
        graph_on_disk: Whether the graph is.
        payload_in_memory: Whether texts and tags are held in memory.
        edges: `m` of the graph.
        exact_up_to: Passages up to which all vectors are compared.
        dimensions: Where the file says.
        replicas: Of the indexer.
    """

    name: str = "indexer"
    embedded: bool = True
    shards: int | None = 1
    replication: int = 1
    quantization: str | None = None
    compression: float = 1.0
    quantised_in_memory: bool = True
    vectors_on_disk: bool = False
    graph_on_disk: bool = False
    payload_in_memory: bool = False
    edges: int = 16
    exact_up_to: int = 100_000
    dimensions: int | None = None
    replicas: int = 1


@dataclass(frozen=True)
class FlowShape:
    """All of it.

    Attributes:
        encoder: None where the flow has none.
        segmenter: None where the flow has none: then a document is a passage.
        index: None where the flow has none.
        ranker: Whether it has one.
        reranks: What makes the ranker compute with a model, None for nothing.
        gateways: Replicas of the gateway.
    """

    encoder: EncoderShape | None
    segmenter: SegmenterShape | None
    index: IndexShape | None
    ranker: bool = False
    reranks: str | None = None
    gateways: int = 1


def read_flow(flow: Flow, *, gpu: str | None = None) -> FlowShape:
    """Read what the size of a flow depends on.

    Args:
        flow: The flow.
        gpu: Name of the GPUs that the encoder is to run on, whatever the file says; None for what it says.

    Raises:
        ConfigurationError: It has neither an encoder nor an index, so there is nothing to size.
    """
    roles = {id(executor): role_of(executor, gpu=_gpus(executor) > 0) for executor in flow.executors}

    def first(*wanted: Role) -> Executor | None:
        return next((each for each in flow.executors if roles[id(each)] in wanted), None)

    indexer, segmenter, ranker = first(Role.INDEXER), first(Role.SEGMENTER), _ranker(flow)
    encoder = first(Role.ENCODER, Role.GPU_ENCODER) or _own_encoder(flow, first(Role.OWN))
    if encoder is None and indexer is None:
        raise ConfigurationError("the flow has neither an encoder nor an index, so there is nothing to plan")
    return FlowShape(
        encoder=_encoder(encoder, gpu) if encoder else None,
        segmenter=_segmenter(segmenter) if segmenter else None,
        index=_index(indexer) if indexer else None,
        ranker=ranker is not None,
        reranks=_reranks(ranker.uses_with) if ranker else None,
        gateways=flow.gateway.kubernetes.replicas,
    )


def facts_of_class(flow: Flow, name: str, timeout: float) -> Mapping[str, Any]:
    """What the class of an executor says of itself, such as `dimensions`: imports it, in another process.

    Raises:
        FlowFileError: The class cannot be imported.
    """
    from flowdex_orchestrator.flow.classes import inspect_classes
    from flowdex_orchestrator.flow.findings import FlowFileError

    index = flow.executors.index(flow.executor(name))
    findings, facts = inspect_classes(flow, flow.folder, timeout)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise FlowFileError(errors)
    return facts.get(index, {})


def parse_cpu(quantity: str) -> float:
    """Cores of a quantity of Kubernetes: "500m" is 0.5."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


# ---- executors ----


def _gpus(executor: Executor) -> int:
    if executor.gpus is None:
        return 1 if executor.env.get("CUDA_VISIBLE_DEVICES", "").startswith("RR") else 0
    return int(executor.gpus) if executor.gpus.isdigit() else max(1, len(executor.gpus.split(",")))


def _bare(executor: Executor) -> str:
    return str(executor.uses).removeprefix(_MODULE) if isinstance(executor.uses, str) else executor.name


def _ranker(flow: Flow) -> Executor | None:
    return next((each for each in flow.executors if _bare(each).rpartition(".")[2] == "Ranker"), None)


def _own_encoder(flow: Flow, own: Executor | None) -> Executor | None:
    """An executor of one's own in the encoder's place: of the name, or a class whose name says so."""
    candidates = [each for each in flow.executors if each.name == "encoder" or _bare(each).endswith("Encoder")]
    return candidates[0] if candidates else None


def _encoder(executor: Executor, gpu: str | None) -> EncoderShape:
    options = executor.uses_with
    traits = [_bare(executor)]
    model = options.get("model")
    traits += [str(model)] if model not in (None, "default") else []
    traits += [str(options[key]) for key in ("backend", "quantization") if options.get(key) not in (None, "auto")]
    traits += [f"{key} {options[key]}" for key in ("vectors", "weights") if key in options]
    gpus = _gpus(executor) or (1 if gpu else 0)
    if gpus:
        traits.append(f"on {gpu or 'a GPU'}")
    requests = executor.kubernetes.resources.requests
    threads = options.get("threads")
    cores = parse_cpu(requests["cpu"]) if "cpu" in requests else float(threads) if threads and not gpus else 1.0
    return EncoderShape(
        name=executor.name,
        kind=" ".join(traits),
        cores=max(cores, 0.1),
        gpus=gpus,
        gpu_name=(gpu or "a GPU") if gpus else None,
        gpu_resource=executor.kubernetes.gpu_resource,
        replicas=executor.autoscale.max if executor.autoscale else executor.replicas,
        dimensions=_integer(options.get("dimensions")),
    )


def _segmenter(executor: Executor) -> SegmenterShape:
    options = executor.uses_with
    most = _integer(options.get("max_tokens")) or _DEFAULT_MAX_TOKENS
    overlap = _integer(options.get("overlap"))
    step = (_integer(options.get("sentences")) or 1) - (_integer(options.get("sentence_overlap")) or 0)
    return SegmenterShape(
        name=executor.name,
        mode=str(options.get("mode", "passage")),
        max_tokens=most,
        overlap=min(most // _DEFAULT_OVERLAP if overlap is None else overlap, most - 1),
        sentences=max(step, 1),
    )


def _index(executor: Executor) -> IndexShape:
    options = executor.uses_with
    uri = str(options.get("uri", "edge://.flowdex/index"))
    common: dict[str, Any] = {
        "name": executor.name,
        "exact_up_to": options.get("exact_up_to", 100_000),
        "dimensions": _integer(options.get("dimensions")),
    }
    if uri.startswith(("edge://", "memory://")):
        return IndexShape(shards=_integer(options.get("shards")) or 1, **common)
    server = _mapping(options.get("server"))
    quantization = server.get("quantization")
    small = {"method": quantization} if isinstance(quantization, str) else _mapping(quantization)
    on_disk = server.get("on_disk")
    disk = dict.fromkeys(("vectors", "payload", "graph"), on_disk) if isinstance(on_disk, bool) else _mapping(on_disk)
    return IndexShape(
        embedded=False,
        shards=_integer(server.get("shards")),
        replication=_integer(server.get("replication_factor")) or 1,
        quantization=small.get("method"),
        compression=_compression(small),
        quantised_in_memory=bool(small.get("always_ram", True)),
        vectors_on_disk=bool(disk.get("vectors")),
        graph_on_disk=bool(disk.get("graph")),
        payload_in_memory=disk.get("payload") is False,
        edges=_integer(_mapping(server.get("hnsw")).get("m")) or 16,
        replicas=executor.autoscale.max if executor.autoscale else executor.replicas,
        **common,
    )


def _compression(quantization: Mapping[str, Any]) -> float:
    method = quantization.get("method")
    if method == "product":
        return float(str(quantization.get("compression", "x16")).removeprefix("x"))
    return {"scalar": 4.0, "binary": 32.0}.get(str(method), 1.0)


def _reranks(options: Mapping[str, Any]) -> str | None:
    if options.get("cross_encoder") is not None:
        return "cross_encoder"
    rerank = options.get("rerank")
    method = rerank.get("method") if isinstance(rerank, Mapping) else rerank
    return str(method) if method else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
