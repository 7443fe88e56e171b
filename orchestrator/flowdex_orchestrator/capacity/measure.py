"""Measuring costs on this machine: the encoder of a flow, and the embedded index at some size.

    Executor of the flow file --load--> passages, queries --CPU time--> EncoderCost       `flowdex plan --measure`
    seeded vectors and words --QdrantIndexer--> /proc, files --> IndexFigures             benchmarks/capacity.py, tests

Time is CPU time of the process that works, because other work on the machine disturbs it least.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.capacity.costs import QUERY_TERMS, EncoderCost
from flowdex_orchestrator.flow.model import Flow

if TYPE_CHECKING:
    from flowdex.documents import DocumentBatch
    from flowdex_executors.encoder.base import Encoder
    from flowdex_executors.indexer.executor import QdrantIndexer

__all__ = ["IndexFigures", "measure_encoder", "measure_index"]

_PASSAGE_CHARACTERS = 900
_PASSAGES = 48  # a round
_ROUNDS = 3
_QUERIES = 15
_QUERY_CHARACTERS = 40
_WRITE = 500  # documents a request
_WORD_LETTERS = "bcdfghjklmnpqrstvwxz"  # no vowels: no stop words, and no stems
_SETTLE_SECONDS = 1.5  # the engine flushes within one


# ---- encoder ----


def measure_encoder(flow: Flow, name: str) -> tuple[EncoderCost, int | None]:
    """Load an encoder here, for some seconds, and measure what passages and queries cost.

    Args:
        flow: The flow.
        name: Its encoder's name.

    Returns:
        Its cost on one core, and the size of its vectors.

    Raises:
        ConfigurationError: It cannot be loaded, is no encoder of flowdex, or runs on a GPU, whose time CPU time is not.
    """
    from flowdex_executors.encoder.base import Encoder
    from flowdex_orchestrator.worker.load import load_executor

    before = _memory(os.getpid())
    encoder = load_executor(flow.executor(name), flow.folder)
    if not isinstance(encoder, Encoder):
        raise ConfigurationError(
            f"{name} is not derived from flowdex_executors.encoder.Encoder, so it cannot be measured here; give "
            "--encoder-tokens-per-second and --encoder-query-ms"
        )
    try:
        if getattr(encoder, "device", "cpu") != "cpu":
            raise ConfigurationError(
                f"{name} runs on {encoder.device}, whose time cannot be told from here: measure with "
                "benchmarks/encoders.py, and give --encoder-tokens-per-second and --encoder-query-ms"
            )
        encoder.warm_up()
        passages = _prose(_PASSAGES, _PASSAGE_CHARACTERS)
        queries = iter(_prose(_QUERIES, _QUERY_CHARACTERS))
        tokens = sum(receipt["tokens"] for receipt in _encode(encoder, passages, receipt=True).column("receipt"))
        bulk = statistics.median(_cpu_of(lambda: _encode(encoder, passages), _ROUNDS))
        query = statistics.median(_cpu_of(lambda: _encode(encoder, [next(queries)]), _QUERIES))
        dimensions = encoder.dimensions
        memory = max(_memory(os.getpid()) - before, 0) + 100 * 2**20  # of the process around it
    finally:
        encoder.close()
    cost = EncoderCost(
        tokens_per_second=tokens / max(bulk, 1e-6),
        query_ms=query * 1e3,
        memory=memory,
        source=f"measured here ({tokens:,} tokens)",
    )
    return cost, dimensions


def _encode(encoder: Encoder, texts: list[str], **parameters: Any) -> DocumentBatch:
    """Encode texts as a request would."""
    from flowdex.documents import DocumentBatch
    from flowdex_executors import DocumentColumns

    documents = DocumentColumns(DocumentBatch.from_columns(texts=texts))
    encoded: DocumentBatch = asyncio.run(encoder.encode(documents, parameters)).batch
    return encoded


def _cpu_of(action: Callable[[], object], times: int) -> list[float]:
    """CPU seconds of this process, all threads, for each call."""
    found = []
    for _ in range(times):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return found


def _prose(count: int, characters: int) -> list[str]:
    """English text that every machine has: Python's manual, from places that a seed chooses."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics.values()).split())
    places = random.Random(0)  # nosec B311 # the same load every time
    return [
        text[start : start + characters] for start in (places.randrange(len(text) - characters) for _ in range(count))
    ]


# ---- index ----


@dataclass(frozen=True)
class IndexFigures:
    """What an embedded index of one shard was measured to be.

    Attributes:
        points: Passages.
        dimensions: Of their vectors.
        text: Bytes of a passage's text, on average.
        terms: Different words of a passage, on average.
        term_share: The share of the passages that a word of the queries is in.
        disk: Bytes of its files, the write-ahead log left out.
        log: Bytes of that.
        heap: Bytes that the engine's process has allocated.
        resident: The same, and what it has mapped of its files.
        write_ms: Engine CPU for a passage.
        host_write_ms: CPU of the process that calls it, for a passage.
        dense_ms: Engine CPU of a search by vector.
        sparse_ms: Of one by words.
        hybrid_ms: Of one by both.
        host_ms: CPU of the calling process for that.
    """

    points: int
    dimensions: int
    text: float
    terms: float
    term_share: float
    disk: int
    log: int
    heap: int
    resident: int
    write_ms: float
    host_write_ms: float
    dense_ms: float
    sparse_ms: float
    hybrid_ms: float
    host_ms: float


async def measure_index(
    folder: Path,
    points: int,
    *,
    dimensions: int = 384,
    vocabulary: int = 2000,
    searches: int = 100,
    graph: bool = False,
) -> IndexFigures:
    """Fill an embedded index with made-up passages, and measure it. Linux only: figures of processes are from /proc.

    Args:
        folder: An empty folder.
        points: Passages.
        dimensions: Of their vectors.
        vocabulary: How many words there are: the fewer, the more passages have each of them.
        searches: Of each kind.
        graph: Whether to wait for the graph and search by it, rather than compare all vectors.
    """
    from flowdex_executors import QdrantIndexer

    indexer = QdrantIndexer(uri=f"edge://{folder}", exact_up_to=0 if graph else max(points, 100_000))
    try:
        corpus = _Corpus(dimensions, vocabulary)
        engine = _child()
        used, host = _cpu(engine), time.process_time()
        made = 0.0
        for start in range(0, points, _WRITE):
            begin = time.process_time()
            batch = corpus.documents(start, min(_WRITE, points - start))
            made += time.process_time() - begin
            await indexer.index(batch)
        write_ms = (_cpu(engine) - used) / points * 1e3
        host_write_ms = (time.process_time() - host - made) / points * 1e3
        if graph:
            await _until_packed(indexer, points)
        await asyncio.sleep(_SETTLE_SECONDS)
        log = _size(folder, log=True)
        disk = _size(folder, log=False)
        engine_ms, host_ms = {}, {}
        for mode in ("dense", "sparse", "hybrid"):
            engine_ms[mode], host_ms[mode] = await _search(indexer, engine, corpus, mode, searches)
        heap = _memory(engine, "RssAnon")
        resident = _memory(engine)
    finally:
        closing = indexer.close()
        if closing is not None:
            await closing
    return IndexFigures(
        points=points,
        dimensions=dimensions,
        text=corpus.text / points,
        terms=corpus.terms / points,
        term_share=corpus.terms / points / vocabulary,
        disk=disk,
        log=log,
        heap=heap,
        resident=resident,
        write_ms=write_ms,
        host_write_ms=host_write_ms,
        dense_ms=engine_ms["dense"],
        sparse_ms=engine_ms["sparse"],
        hybrid_ms=engine_ms["hybrid"],
        host_ms=host_ms["hybrid"],
    )


class _Corpus:
    """Seeded passages and queries; counts what it has made."""

    def __init__(self, dimensions: int, vocabulary: int) -> None:
        import numpy as np

        self._dimensions = dimensions
        self._random = random.Random(0)  # nosec B311 # the same load every time
        self._vectors = np.random.default_rng(0)
        letters = random.Random(1)  # nosec B311 # the same load every time
        self._words = ["".join(letters.choices(_WORD_LETTERS, k=letters.randint(4, 10))) for _ in range(vocabulary)]
        self.text = 0
        self.terms = 0

    def documents(self, start: int, count: int) -> Any:
        from flowdex.documents import DocumentBatch
        from flowdex_executors import DocumentColumns

        names = [f"document-{start + row:09}" for row in range(count)]
        batch = DocumentBatch.from_columns(ids=names, texts=["x"] * count)
        vectors = self._vector(count)
        chunks = []
        for row, name in enumerate(names):
            words = self._random.choices(self._words, k=_PASSAGE_CHARACTERS // 8)
            self.terms += len(set(words))
            text = " ".join(words)
            self.text += len(text)
            chunks.append(
                DocumentBatch.from_columns(ids=[f"{name}#0"], texts=[text], embeddings=vectors[row : row + 1])
            )
        batch.set_nested("chunks", chunks)
        return DocumentColumns(batch)

    def query(self) -> Any:
        from flowdex.documents import DocumentBatch
        from flowdex_executors import DocumentColumns

        text = " ".join(self._random.choices(self._words, k=QUERY_TERMS))
        return DocumentColumns(DocumentBatch.from_columns(texts=[text], embeddings=self._vector(1)))

    def _vector(self, count: int) -> Any:
        import numpy as np

        return self._vectors.standard_normal((count, self._dimensions)).astype(np.float32)


async def _search(indexer: QdrantIndexer, engine: int, corpus: _Corpus, mode: str, times: int) -> tuple[float, float]:
    queries = [corpus.query() for _ in range(times + 3)]
    for query in queries[:3]:  # first touch of memory
        await indexer.search(query, {"mode": mode})
    used, host = _cpu(engine), time.process_time()
    for query in queries[3:]:
        await indexer.search(query, {"mode": mode})
    return (_cpu(engine) - used) / times * 1e3, (time.process_time() - host) / times * 1e3


async def _until_packed(indexer: QdrantIndexer, points: int) -> None:
    deadline = time.monotonic() + 60 + points / 200
    while time.monotonic() < deadline:
        status = await indexer.status()
        if status.get("indexed", 0) >= 1.9 * points:  # words, and nearly all vectors
            return
        await asyncio.sleep(0.5)
    raise ConfigurationError(f"the graph of {points:,} passages was not ready in time; measure fewer")


def _child() -> int:
    """The engine's process: the newest child of this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    engines = [int(pid) for pid in children if b"engine" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return (engines or [int(pid) for pid in children])[-1]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, key: str = "VmRSS") -> int:
    """Resident bytes of a process; 0 where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def _size(folder: Path, *, log: bool) -> int:
    """Bytes that files take on disk: of the write-ahead log, or of all else."""
    files = [path for path in folder.rglob("*") if path.is_file() and ("wal" in path.parts) == log]
    return sum(path.stat().st_blocks * 512 for path in files)
