"""The capacity model: cases that can be worked out by hand, and what must hold for any demand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowdex_orchestrator.capacity.costs import REFERENCE, EncoderCost
from flowdex_orchestrator.capacity.flow import EncoderShape, FlowShape, IndexShape, SegmenterShape
from flowdex_orchestrator.capacity.index import engine_ms, fit_server, size_index
from flowdex_orchestrator.capacity.model import make_plan, passages_per_document, replicas_for
from flowdex_orchestrator.capacity.plan import GIB, Demand, Plan

ENCODER = EncoderCost(tokens_per_second=1000.0, query_ms=10.0, memory=GIB, source="a test")
ROUND = replace(
    REFERENCE.index,
    value_ns=1.0,
    posting_ns=10.0,
    fixed_ms=2.0,
    graph_ms=4.0,
    graph_growth=0.5,
    graph_points=1000,
    graph_dimensions=100,
    payload_fixed=100.0,
    payload_text=1.0,
    term_disk=10.0,
    heap_fixed=50.0,
    term_heap=20.0,
)
DEMAND = Demand(
    documents=1000, rps=100.0, query_terms=5.0, term_share=0.01, node_cpus=10.0, node_memory=100.0, headroom=0.5
)
SERVER = IndexShape(embedded=False, shards=None)


def shape(**index: Any) -> FlowShape:
    return FlowShape(EncoderShape("encoder", "BertEncoder"), SegmenterShape(), IndexShape(**index), ranker=True)


def plan(flow: FlowShape, demand: Demand, encoder: EncoderCost = ENCODER) -> Plan:
    return make_plan(flow, demand, REFERENCE, dimensions=384, encoder=encoder)


# ---- by hand ----


@pytest.mark.parametrize(
    ("segmenter", "tokens", "expected"),
    [
        (None, 10_000, 1.0),
        (SegmenterShape(mode="document"), 10_000, 1.0),
        (SegmenterShape(), 50, 1.0),  # shorter than a passage
        (SegmenterShape(max_tokens=100, overlap=0), 760, 10.0),  # 76 of the 100 are used
        (SegmenterShape(max_tokens=100, overlap=8), 740, 10.0),  # a quarter of the overlap is there
        (SegmenterShape(mode="sentence"), 276, 10.0),
        (SegmenterShape(mode="sentence", sentences=2), 276, 5.0),
        (SegmenterShape(mode="markdown"), 1670, 10.0),
    ],
)
def test_passages_of_a_document(segmenter: SegmenterShape | None, tokens: float, expected: float) -> None:
    assert passages_per_document(segmenter, REFERENCE, tokens) == pytest.approx(expected)


def test_bytes_of_an_index_on_a_server() -> None:
    size = size_index(SERVER, ROUND, passages=1000, dimensions=100, text=500.0, terms=30.0)
    assert size.vectors == 400_000
    assert (size.quantised, size.graph) == (0, 0)  # compared one by one up to 100,000
    assert size.payload == 600_000
    assert size.words == 300_000
    assert size.memory == 600_000 + 1000 * (50 + 30 * 20)  # Qdrant's rule, and ids and words
    assert size.disk == 1_300_000


def test_small_vectors_in_memory_and_the_full_ones_on_disk() -> None:
    index = replace(SERVER, quantization="scalar", compression=4.0, vectors_on_disk=True, exact_up_to=0)
    size = size_index(index, ROUND, passages=1000, dimensions=100, text=500.0, terms=30.0)
    assert size.quantised == 100_000
    assert size.graph == 1000 * 2 * 16 * 4
    assert size.memory == 150_000 + 128_000 + 1000 * 50  # the index of words is on disk with the vectors
    on_disk = size_index(replace(index, graph_on_disk=True), ROUND, passages=1000, dimensions=100, text=0, terms=0)
    assert on_disk.memory == 150_000 + 1000 * 50


def test_time_of_a_search() -> None:
    exact = engine_ms(SERVER, ROUND, DEMAND, shard=50_000, passages=100_000, dimensions=100)
    # 50,000 x 100 values of 1 ns; 50,000 x 5 words in a hundredth of the passages of 10 ns
    assert exact == pytest.approx(2.0 + 5.0 + 0.025)
    graph = engine_ms(SERVER, ROUND, DEMAND, shard=4000, passages=100_001, dimensions=100)
    assert graph == pytest.approx(2.0 + 4.0 * (1 + 2 * 0.5) + 0.002)  # two doublings


def test_nodes_by_memory_and_by_cpu() -> None:
    size = size_index(SERVER, ROUND, passages=1000, dimensions=100, text=0, terms=0)
    assert size.memory == 650_000
    room = replace(DEMAND, node_memory=2 * 217_000.0, rps=1.0)  # half of it is usable: three nodes
    layout = fit_server(SERVER, size, ROUND, room, passages=1000, dimensions=100)
    assert (layout.nodes, layout.shards, layout.copies) == (3, 6, 1)
    twice = fit_server(replace(SERVER, replication=2), size, ROUND, room, passages=1000, dimensions=100)
    assert (twice.nodes, twice.shards, twice.copies) == (6, 6, 2)
    # One shard of 2.1005 ms: 10,000 searches a second are 21 cores, where a node has five to use.
    busy = replace(DEMAND, node_memory=1e9, rps=10_000.0)
    layout = fit_server(SERVER, size, ROUND, busy, passages=1000, dimensions=100)
    assert layout.cores == pytest.approx(21.005)
    assert (layout.nodes, layout.shards, layout.copies) == (5, 1, 5)


@pytest.mark.parametrize(
    ("rps", "ms", "cores", "usable", "expected"),
    [(100, 10, 1, 1.0, 1), (101, 10, 1, 1.0, 2), (100, 10, 1, 0.5, 2), (100, 10, 2, 0.5, 1), (0.001, 1, 1, 1.0, 1)],
)
def test_replicas(rps: float, ms: float, cores: float, usable: float, expected: int) -> None:
    assert replicas_for(rps, ms, cores, usable) == expected


def test_replicas_to_index_in_time() -> None:
    flow = FlowShape(EncoderShape("encoder", "BertEncoder"), None, None)
    demand = Demand(documents=3_600_000, tokens=98.0, headroom=0.5, index_within=10.0)
    made = make_plan(flow, demand, REFERENCE, dimensions=1, encoder=ENCODER)
    assert made.value("encoder_hours") == pytest.approx(100.0)  # 98 tokens, [CLS] and [SEP]
    assert made.value("bulk_encoders") == 20


def test_gpus_are_counted_by_replica() -> None:
    flow = FlowShape(EncoderShape("encoder", "on H100", gpus=2, gpu_name="H100"), None, None)
    gpu = replace(ENCODER, query_ms=10.0 - REFERENCE.encoder_call_ms)
    made = make_plan(flow, Demand(documents=1000, rps=500.0, headroom=0.0), REFERENCE, dimensions=1, encoder=gpu)
    assert (made.value("encoders"), made.totals.gpus) == (3, 6)  # five GPUs busy, two a replica


# ---- warnings ----


def test_a_small_index_stays_embedded() -> None:
    made = plan(shape(), Demand(documents=10_000))
    assert made.warnings == ()
    assert made.totals.nodes == 1


@pytest.mark.parametrize(
    ("demand", "problem"),
    [
        (Demand(documents=100_000_000), "of memory"),
        (Demand(documents=10_000, rps=500.0), "searches a second at most"),
        (Demand(documents=30_000, latency_ms=10.0), "ms a search"),
    ],
)
def test_what_an_embedded_index_cannot_do_is_said(demand: Demand, problem: str) -> None:
    made = plan(shape(), demand)
    assert problem in made.warnings[0].problem
    assert "uri: grpc://HOST:6334" in made.warnings[0].remedy
    assert f"shards: {made.value('shards'):g}" in made.warnings[0].remedy
    with pytest.raises(KeyError):
        plan(shape(), Demand(documents=10_000)).value("copies")  # an embedded index has no copies


def test_too_few_shards_and_copies_of_a_server() -> None:
    flow = shape(embedded=False, shards=2)
    remedies = [warning.remedy for warning in plan(flow, Demand(documents=100_000_000, rps=1.0)).warnings]
    assert any(remedy.startswith("uses_with.server.shards") for remedy in remedies)
    assert any("quantization: scalar" in remedy for remedy in remedies)
    busy = plan(shape(embedded=False, shards=1), Demand(documents=10_000, rps=5000.0))
    assert any("replication_factor" in warning.remedy for warning in busy.warnings)


def test_vectors_on_disk_alone_wait_for_it() -> None:
    made = plan(shape(embedded=False, vectors_on_disk=True), Demand(documents=1000))
    assert any("wait for the disk" in warning.problem for warning in made.warnings)


def test_reranking_is_not_counted() -> None:
    made = plan(replace(shape(), reranks="late_interaction"), Demand(documents=1000))
    assert any("late_interaction" in warning.problem for warning in made.warnings)


# ---- for any demand ----

GROWING = ("passages", "index_memory", "index_disk", "engine_cores", "gateways", "encoders", "indexers", "rankers")
demands = st.builds(
    Demand,
    documents=st.integers(1, 10**10),
    rps=st.floats(0.01, 1e5),
    tokens=st.floats(1, 1e5),
    node_cpus=st.floats(1, 256),
    node_memory=st.floats(GIB, 1024 * GIB),
    headroom=st.floats(0, 0.9),
    index_within=st.none() | st.floats(0.1, 1e4),
)
shapes = st.builds(
    shape,
    embedded=st.just(False),
    shards=st.none() | st.integers(1, 64),
    replication=st.integers(1, 3),
    vectors_on_disk=st.booleans(),
)


def assert_no_less(more: Plan, less: Plan, *, but: tuple[str, ...] = ()) -> None:
    for key in set(GROWING) - set(but):
        assert more.value(key) >= less.value(key) * (1 - 1e-9), key


@given(shapes, demands, st.integers(1, 10**9))
@example(
    shape(embedded=False, shards=None, vectors_on_disk=True),
    Demand(documents=393_298_999, rps=126.0, tokens=22_036.0, node_cpus=1.0, node_memory=504_148_592_780.0, headroom=0),
    1,
)
@settings(max_examples=150)
def test_more_documents_need_no_less(flow: FlowShape, demand: Demand, more: int) -> None:
    # Past `exact_up_to` a graph takes over, and a search may well be faster then.
    always = replace(flow, index=replace(flow.index, exact_up_to=0)) if flow.index else flow
    larger = plan(always, replace(demand, documents=demand.documents + more))
    smaller = plan(always, demand)
    if copies(larger) < copies(smaller):
        # Memory has asked for more shards, which share the searches too: fewer copies of all will do. Each is larger.
        shared = ("index_memory", "index_disk")
        assert_no_less(larger, smaller, but=shared)
        assert larger.value("shards") > smaller.value("shards")
        assert larger.value("index_disk") / copies(larger) >= smaller.value("index_disk") / copies(smaller)
    else:
        assert_no_less(larger, smaller)
    assert larger.value("encoder_hours") >= smaller.value("encoder_hours")


def copies(made: Plan) -> float:
    return next((line.value for line in made.lines if line.key == "copies"), 1)


@given(shapes, demands, st.floats(0.01, 1e5))
@settings(max_examples=150)
def test_more_searches_need_no_less(flow: FlowShape, demand: Demand, more: float) -> None:
    busier, calmer = plan(flow, replace(demand, rps=demand.rps + more)), plan(flow, demand)
    assert_no_less(busier, calmer)
    assert busier.totals.nodes >= calmer.totals.nodes
    assert busier.totals.cores >= calmer.totals.cores


@given(st.builds(shape, shards=st.integers(1, 64)) | shapes, demands)
@settings(max_examples=150)
def test_a_plan_is_enough(flow: FlowShape, demand: Demand) -> None:
    made = plan(flow, demand)
    totals = made.totals
    assert totals.nodes * demand.node_cpus >= totals.cores * (1 - 1e-9)
    assert (
        totals.nodes * demand.node_memory * demand.usable
        >= made.value("index_memory") * 0.99 - 2**20 * 90 * totals.nodes
    )
    assert all(math.isfinite(line.value) and line.value >= 0 for line in made.lines)
    assert len({line.key for line in made.lines}) == len(made.lines)
