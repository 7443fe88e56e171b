"""The size of an index, and what searching it costs: embedded on one machine, or on a Qdrant server.

    passages, dimensions, text --size_index--> IndexSize: bytes of each part, on disk and in memory, one copy
    passages of a shard --engine_ms--> CPU of a search there
    IndexSize, searches a second --fit_embedded | fit_server--> shards, nodes, what does not fit

Qdrant's rule for memory is vectors x dimensions x 4 bytes x 1.5, where the half covers the graph, ids and versions, and
segments that are written anew. The same half is taken of quantised vectors; their graph is small beside full vectors
but not beside these, so it is counted by its edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowdex_orchestrator.capacity.costs import IndexCost
from flowdex_orchestrator.capacity.flow import IndexShape
from flowdex_orchestrator.capacity.plan import Demand

__all__ = ["IndexSize", "Layout", "engine_ms", "fit_embedded", "fit_server", "size_index"]

_FLOAT = 4  # bytes
_RULE = 1.5  # of Qdrant's documentation
_REWRITE_EMBEDDED = 3.0  # times a shard's files while it is packed, see docs/index-storage.md
_REWRITE_SERVER = 2.0  # segments are written anew beside the old ones
_EDGE = 4  # bytes of an edge in memory, two times `m` a vector on the lowest layer
_SHARDS_A_NODE = 2  # so that a further node has something to take over


@dataclass(frozen=True)
class IndexSize:
    """Bytes of an index, one copy of it.

    Attributes:
        vectors: float32.
        quantised: The small vectors, 0 where there are none.
        graph: Edges, 0 where there is no graph.
        payload: Texts, tags, ids and their indexes.
        words: The index of words.
        memory: What has to be in memory, for the embedded index or the server, without processes themselves.
        disk: Files, without the room to write them anew.
    """

    vectors: float
    quantised: float
    graph: float
    payload: float
    words: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Layout:
    """How an index is spread.

    Attributes:
        shards: Parts.
        copies: Of each.
        nodes: Machines it needs.
        cores: CPU in use for searches, without headroom.
        memory: Bytes, all copies and processes.
        disk: Bytes, all copies, with the room to write them anew.
        latency_ms: Of the engine, for one search, its shards at the same time.
        most_rps: Searches a second that it can take with headroom; None for no limit but the nodes.
        limit: What the number of nodes comes from.
    """

    shards: int
    copies: int
    nodes: int
    cores: float
    memory: float
    disk: float
    latency_ms: float
    most_rps: float | None
    limit: str


def size_index(
    index: IndexShape, cost: IndexCost, *, passages: int, dimensions: int, text: float, terms: float
) -> IndexSize:
    """Bytes of an index.

    Args:
        index: Where and how it is kept.
        cost: What its parts cost.
        passages: How many.
        dimensions: Of their vectors.
        text: Bytes of a passage's text.
        terms: Different words of a passage, without stop words.
    """
    vectors = float(passages) * dimensions * _FLOAT
    quantised = vectors / index.compression if index.quantization else 0.0
    has_graph = passages > index.exact_up_to
    graph = float(passages) * 2 * index.edges * _EDGE if has_graph else 0.0
    payload = passages * (cost.payload_fixed + cost.payload_text * text)
    words = passages * terms * cost.term_disk
    heap = passages * (cost.heap_fixed + terms * cost.term_heap)
    if index.embedded:
        memory = vectors + graph + heap
    else:
        memory = 0.0 if index.vectors_on_disk else vectors * _RULE
        memory += quantised * _RULE if index.quantised_in_memory else 0.0
        memory += graph if index.vectors_on_disk and not index.graph_on_disk else 0.0
        memory += passages * cost.heap_fixed if index.vectors_on_disk else heap
        memory += payload if index.payload_in_memory else 0.0
    return IndexSize(vectors, quantised, graph, payload, words, memory, vectors + quantised + graph + payload + words)


def engine_ms(
    index: IndexShape, cost: IndexCost, demand: Demand, *, shard: float, passages: int, dimensions: int
) -> float:
    """CPU milliseconds of a hybrid search in one shard.

    Args:
        index: How it is searched.
        cost: What that costs.
        demand: The words of a query.
        shard: Passages of the shard.
        passages: Of the whole collection, which decides whether a graph is used.
        dimensions: Of the vectors.
    """
    if passages <= index.exact_up_to:
        dense = shard * dimensions * cost.value_ns / 1e6
    else:
        doublings = max(math.log2(max(shard, 1.0) / cost.graph_points), 0.0)
        dense = cost.graph_ms * max(dimensions / cost.graph_dimensions, 1.0) * (1.0 + cost.graph_growth * doublings)
    words = shard * demand.query_terms * demand.term_share * cost.posting_ns / 1e6
    return cost.fixed_ms + dense + words


def fit_embedded(
    index: IndexShape, size: IndexSize, cost: IndexCost, demand: Demand, *, passages: int, dimensions: int
) -> Layout:
    """An embedded index as the flow writes it: one machine, an engine process a shard."""
    shards = index.shards or 1
    one = engine_ms(index, cost, demand, shard=passages / shards, passages=passages, dimensions=dimensions)
    return Layout(
        shards=shards,
        copies=1,
        nodes=1,
        cores=demand.rps * one * shards / 1e3,
        memory=size.memory + shards * cost.base_memory,
        disk=size.disk * _REWRITE_EMBEDDED + shards * cost.log,
        latency_ms=one * max(1.0, shards / demand.node_cpus),
        most_rps=demand.usable * 1e3 / max(one * max(1.0, shards / demand.node_cpus), cost.host_ms),
        limit="an embedded index is on one machine",
    )


def fit_server(
    index: IndexShape, size: IndexSize, cost: IndexCost, demand: Demand, *, passages: int, dimensions: int
) -> Layout:
    """As many nodes of a Qdrant server as memory and CPU ask for, with shards and copies for them.

    Memory decides how many shards there are. Each shard costs every search something, so what CPU asks for beyond that
    comes as copies, which share the searches.
    """
    room = demand.node_memory * demand.usable
    one_copy = max(1, math.ceil(size.memory / room))
    shards = index.shards or (_SHARDS_A_NODE * one_copy if one_copy > 1 else 1)
    one = engine_ms(index, cost, demand, shard=passages / shards, passages=passages, dimensions=dimensions)
    cores = demand.rps * one * shards / 1e3
    for_cpu = math.ceil(cores / (demand.node_cpus * demand.usable))
    copies = max(index.replication, math.ceil(for_cpu / shards))
    for_memory = math.ceil(size.memory * copies / room)
    nodes = max(for_cpu, for_memory, copies)
    return Layout(
        shards=shards,
        copies=copies,
        nodes=nodes,
        cores=cores,
        memory=size.memory * copies + nodes * cost.base_memory,
        disk=(size.disk * _REWRITE_SERVER + shards * cost.log) * copies,
        latency_ms=one,
        most_rps=None,
        limit=_limit(nodes, for_cpu, for_memory),
    )


def _limit(nodes: int, for_cpu: int, for_memory: int) -> str:
    if nodes == for_memory:
        return "of a Qdrant server, by its memory"
    if nodes == for_cpu:
        return "of a Qdrant server, by its CPU"
    return "of a Qdrant server: no two copies on one"
