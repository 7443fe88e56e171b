"""What the parts of a flow cost, as measured: time, memory and disk for one text, passage or search.

    benchmarks/capacity.py, measure.py --measured--> EncoderCost, IndexCost, ServiceCost --> model.py

The figures below are of one machine, the reference: two cores without AVX-512 that other work used at the same time,
Python 3.11. They are CPU time, which other work disturbs least. On another machine `flowdex plan --measure` measures
again; what no machine has measured, such as a model of the caller's own or a GPU, has to be given.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "ENCODERS",
    "QUERY_TERMS",
    "QUERY_TOKENS",
    "REFERENCE",
    "UNKNOWN_MEMORY",
    "Costs",
    "EncoderCost",
    "IndexCost",
    "SegmenterCost",
    "ServiceCost",
]

CHARACTERS_PER_TOKEN = 3.7
"""English prose under the default model's tokenizer: 3.63 in Python's manual, 3.86 in its docstrings."""

QUERY_TERMS = 6
"""Words of a query that are no stop words: an assumption."""

QUERY_TOKENS = 10
"""Tokens of a query, where its time is not known: an assumption."""

UNKNOWN_MEMORY = 2 * 2**30
"""Bytes of a replica of an encoder that was not measured: Python, torch, and a model of some hundred megabytes."""

_REFERENCE = "measured on the 2-core reference machine"


@dataclass(frozen=True)
class EncoderCost:
    """An encoder on one core, or on one GPU.

    Attributes:
        tokens_per_second: In passages of the usual length, one batch after the other.
        query_ms: A query by itself, without the way to it.
        memory: Bytes that a replica takes.
        source: Where the figures come from.
    """

    tokens_per_second: float
    query_ms: float
    memory: int
    source: str


@dataclass(frozen=True)
class SegmenterCost:
    """How documents become passages.

    Attributes:
        fill: How much of a passage's room is used, in the mode `passage`: cuts are between paragraphs and sentences.
        overlap: How much of the overlap is there; none between passages that end with a paragraph.
        sentence_tokens: Tokens of a sentence.
        section_tokens: Tokens of a passage in the mode `markdown` at most: those of this project's pages.
        second_characters: Characters that one core cuts in a second.
        memory: Bytes that a replica takes.
    """

    fill: float
    overlap: float
    sentence_tokens: float
    section_tokens: float
    second_characters: float
    memory: int


@dataclass(frozen=True)
class IndexCost:
    """Qdrant's engine, which is the same code embedded and on a server.

    Attributes:
        value_ns: Comparing one number of a vector with the query's, where all are compared.
        graph_ms: A search of the graph among `graph_points` vectors of `graph_dimensions`.
        graph_growth: What each doubling of the vectors adds to that, as a share.
        graph_points: See `graph_ms`.
        graph_dimensions: See `graph_ms`.
        graph_build_ms: Putting one vector into the graph.
        posting_ns: Looking at one passage that has a word of the query.
        fixed_ms: A hybrid search of an index that is almost empty: fetching candidates and their payloads.
        write_ms: Storing a passage.
        payload_fixed: Bytes on disk of a payload beside its text: ids, places, their indexes.
        payload_text: Bytes on disk for each byte of text; made-up words do not compress, English takes 0.7.
        terms_text: Different words of a passage, without stop words, for each byte of its text.
        term_disk: Bytes on disk of one of these: the vector of words, and the inverted index.
        heap_fixed: Bytes of memory for a passage: its ids and payload indexes.
        term_heap: Bytes of memory for one of its words.
        base_memory: Bytes of an engine process without passages.
        log: Bytes of a shard's write-ahead log.
        host_ms: What the indexer's own process does in a search.
        host_write_ms: What it, the gateway and the ranker do for a passage that is written.
        host_memory: Bytes of that process.
    """

    value_ns: float
    graph_ms: float
    graph_growth: float
    graph_points: int
    graph_dimensions: int
    graph_build_ms: float
    posting_ns: float
    fixed_ms: float
    write_ms: float
    payload_fixed: float
    payload_text: float
    terms_text: float
    term_disk: float
    heap_fixed: float
    term_heap: float
    base_memory: int
    log: int
    host_ms: float
    host_write_ms: float
    host_memory: int


@dataclass(frozen=True)
class ServiceCost:
    """A process that passes on or sorts, on one core.

    Attributes:
        search_ms: CPU of a search.
        memory: Bytes that a replica takes.
    """

    search_ms: float
    memory: int


@dataclass(frozen=True)
class Costs:
    """All costs.

    Attributes:
        index: Of the index.
        segmenter: Of the segmenter.
        gateway: Of the gateway.
        ranker: Of the ranker, without reranking by a model.
        encoder_call_ms: Of an encoder's process for a search, beside what the model computes.
        source: Where the figures come from.
    """

    index: IndexCost
    segmenter: SegmenterCost
    gateway: ServiceCost
    ranker: ServiceCost
    encoder_call_ms: float
    source: str = _REFERENCE


_MIB = 2**20

REFERENCE = Costs(
    index=IndexCost(
        value_ns=0.65,
        graph_ms=2.3,
        graph_growth=0.4,
        graph_points=10_000,
        graph_dimensions=384,
        graph_build_ms=0.5,
        posting_ns=4.0,
        fixed_ms=3.9,
        write_ms=0.2,
        payload_fixed=400.0,
        payload_text=1.0,
        terms_text=0.06,
        term_disk=13.6,
        heap_fixed=600.0,
        term_heap=20.0,
        base_memory=90 * _MIB,
        log=40 * _MIB,
        host_ms=4.2,
        host_write_ms=2.1,
        host_memory=165 * _MIB,
    ),
    segmenter=SegmenterCost(
        fill=0.76,
        overlap=0.25,
        sentence_tokens=27.6,
        section_tokens=167.0,
        second_characters=0.57e6,
        memory=121 * _MIB,
    ),
    gateway=ServiceCost(search_ms=2.4, memory=82 * _MIB),
    ranker=ServiceCost(search_ms=4.7, memory=100 * _MIB),
    encoder_call_ms=2.8,
)
"""The default flow on the reference machine; `benchmarks/capacity.py` measures the index's figures again."""

ENCODERS: dict[str, tuple[EncoderCost, int]] = {
    "BertEncoder": (EncoderCost(3070.0, 8.8, 452 * _MIB, f"all-MiniLM-L6-v2, {_REFERENCE}"), 384),
    "WordVectorEncoder": (EncoderCost(138_000.0, 2.6, 316 * _MIB, f"GloVe 6B 50d, {_REFERENCE}"), 50),
}
"""Encoders that were measured there, by `EncoderShape.kind`, with the size of their vectors."""
