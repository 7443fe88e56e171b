"""Vector search through the whole flow, side by side with engines in this process, on vectors that are ready.

    points, queries --/index, /search over gRPC--> gateway -> encoder -> indexer -> ranker      flowdex
                    `---------------------------> Qdrant's engine by itself, qdrant-client's local mode, faiss, hnswlib

    pip install faiss-cpu hnswlib      # what is not installed is left out
    python benchmarks/search.py [--points 100000] [--queries 200] [--seconds 60]

Queries bring a vector of their own, so the encoder computes nothing and passes them on. What remains above the engine
is the client, the gateway, three executors and the pipe to the engine's process; the encoder's hop is also taken off.
All systems are filled first; then each query is put to every one of them in turn, so that they share the machine's
noise, and `flowdex - engine` is the median of the differences query by query. So is a chain of bare grpc.aio servers,
as many as the flow has processes on a search's way, that forward its bytes and do nothing else: what a flow of
separate processes costs at the least. Local mode, which takes long, is asked some of the queries only.

Vectors are a seeded mixture of gaussians on the unit sphere: clusters of different sizes and widths, queries from the
same mixture. Vectors of real texts differ in ways that matter to graphs and not to exact search: their clusters overlap
and are nested, they fill fewer dimensions (some tens, of 384), all of them lean to one side (any two have a cosine well
above 0), and queries are not drawn from the same distribution as documents. The recall of the graphs here says little
about theirs.

Filtered searches ask for points of one of `--groups` groups, by a tag of each document.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from load import CHANNEL_OPTIONS
from servers import HERE, Servers, free_ports

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.runner.temporary import flow_of_its_own

Vectors = npt.NDArray[np.float32]

FLOW = Path(__file__).resolve().parent.parent / "flow.yml"
TOP = 10
SEED = 20_240_611
IN_FLIGHT = 4  # requests, while indexing
SLOW_QUERIES = 5  # asked of a system that takes seconds a query
HOPS = 3  # encoder, indexer, ranker


# ---- data ----


@dataclass(frozen=True)
class Data:
    """Points, queries, and the right answers.

    Attributes:
        points: Unit vectors of shape (n, dim); point i has the id i.
        groups: Of each point, shape (n,).
        queries: Unit vectors of shape (m, dim).
        asked: The group that each query is filtered by, shape (m,).
        nearest: Ids of the TOP nearest points of each query, shape (m, TOP).
        nearest_in_group: The same among the points of its group.
    """

    points: Vectors
    groups: npt.NDArray[np.int64]
    queries: Vectors
    asked: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    nearest_in_group: npt.NDArray[np.int64]


def make_data(count: int, dimensions: int, queries: int, groups: int) -> Data:
    """Draw points and queries from one mixture of gaussians, and find the nearest ones by comparing all."""
    source = np.random.default_rng(SEED)
    clusters = max(10, count // 200)
    centres = source.standard_normal((clusters, dimensions), dtype=np.float32)
    widths = source.uniform(0.4, 1.2, clusters).astype(np.float32)
    shares = source.dirichlet(np.ones(clusters))

    def draw(number: int) -> Vectors:
        chosen = source.choice(clusters, number, p=shares)
        noise = source.standard_normal((number, dimensions), dtype=np.float32)
        vectors = centres[chosen] + widths[chosen, None] * noise
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    points, asked_vectors = draw(count), draw(queries)
    of_group = source.integers(0, groups, count)
    asked = source.integers(0, groups, queries)
    similarities = asked_vectors @ points.T
    nearest = _top(similarities)
    nearest_in_group = _top(np.where(of_group[None, :] == asked[:, None], similarities, -2))
    return Data(points, of_group, asked_vectors, asked, nearest, nearest_in_group)


def _top(similarities: Vectors) -> npt.NDArray[np.int64]:
    return np.argsort(-similarities, axis=1, kind="stable")[:, :TOP]


# ---- systems ----


class System(ABC):
    """A system under test; `name` is its row in the tables."""

    name: str
    encoder_seconds = 0.0
    """Of the last search: how long the encoder had it, which passed it on."""
    slow = False
    """Whether it is asked `SLOW_QUERIES` queries only."""
    filters = True
    """Whether it can filter by a tag."""

    @abstractmethod
    def fill(self, data: Data) -> None:
        """Store all points, with their groups."""

    @abstractmethod
    def search(self, query: Vectors, group: int | None) -> list[int]:
        """Ids of the TOP nearest points, of one group if it is not None."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of everything."""


class FlowdexFlow(System):
    """flow.yml, as it comes, on free ports with an index of its own."""

    name = "flowdex, whole flow"

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._flow = flow_of_its_own(FLOW)
        self._target = self._flow.__enter__().removeprefix("grpc://")
        self._channel = grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        self._call = self._channel.unary_unary(wire.PROCESS_SINGLE_DATA)

    def fill(self, data: Data) -> None:
        """Send whole batches of columns, `IN_FLIGHT` at a time."""

        def request(start: int) -> bytes:
            part = slice(start, start + self._batch)
            numbers = range(len(data.points))[part]
            batch = DocumentBatch.from_columns(
                ids=[str(number) for number in numbers], texts=[f"point {number}" for number in numbers]
            )
            batch.embeddings = data.points[part]
            batch.tags = [{"group": int(group)} for group in data.groups[part]]
            return wire.build_request("/index", batch)

        async def send() -> None:
            starts = iter(range(0, len(data.points), self._batch))
            async with grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel:
                call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)

                async def caller() -> None:
                    for start in starts:
                        documents = _answer(wire.read_request(await call(request(start), timeout=120)))
                        if any(documents.column("error")):
                            raise SystemExit(f"a document was refused: {documents.column('error')}")

                await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))

        asyncio.run(send())

    def search(self, query: Vectors, group: int | None) -> list[int]:
        """Send a query with its vector."""
        reply = self._call(_search_request(query, group), timeout=60)
        request = wire.read_request(reply)
        (route,) = (each for each in request.routes if each.executor == "encoder")
        self.encoder_seconds = (route.end_time.ToMicroseconds() - route.start_time.ToMicroseconds()) / 1e6
        return [int(name) for name in _answer(request).nested("matches")[0].ids]

    def close(self) -> None:
        """Stop the flow."""
        self._channel.close()
        self._flow.__exit__(None, None, None)


def _search_request(query: Vectors, group: int | None) -> bytes:
    batch = DocumentBatch.from_columns(ids=["q"])
    batch.embeddings = query[None]
    parameters: dict[str, Any] = {"mode": "dense", "limit": TOP}
    if group is not None:
        parameters["filter"] = {"group": group}
    return wire.build_request("/search", batch, parameters=parameters)


def _answer(request: pb.DataRequestProto) -> DocumentBatch:
    error = wire.error_of(request.header)
    if error is not None:
        raise error
    return wire.documents_of(request)


class BareChain(System):
    """No search: servers that pass a search's bytes through as many processes as the flow does, and back."""

    name = "(bare grpc.aio, as many processes)"

    def __init__(self) -> None:
        self._servers = Servers()
        port, *hop_ports = free_ports(HOPS + 1)
        for each in hop_ports:
            self._servers.start([str(HERE / "bare_pair.py"), str(each)])
        self._servers.start([str(HERE / "bare_pair.py"), str(port), *map(str, hop_ports)])
        self._servers.wait_for(port, *hop_ports)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)
        self._call = self._channel.unary_unary(wire.PROCESS_SINGLE_DATA)

    def fill(self, data: Data) -> None:
        """It stores nothing."""

    def search(self, query: Vectors, group: int | None) -> list[int]:
        """It finds nothing."""
        self._call(_search_request(query, group), timeout=60)
        return []

    def close(self) -> None:
        """End the servers."""
        self._channel.close()
        self._servers.__exit__(None, None, None)


class Engine(System):
    """Qdrant's engine in this process, called as directly as Python can."""

    name = "Qdrant's engine by itself"

    def __init__(self, folder: Path, dimensions: int) -> None:
        import qdrant_edge as edge

        self._edge = edge
        path = folder / "engine"
        path.mkdir()
        # The threshold of which no segment gets a graph: exact search, as in the flow.
        self._shard = edge.EdgeShard.create(
            str(path),
            edge.EdgeConfig(
                vectors={"dense": edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
                optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1_000_000_000),
            ),
        )
        self._shard.update(edge.UpdateOperation.create_field_index("group", edge.PayloadSchemaType.Integer))

    def fill(self, data: Data) -> None:
        """Upsert batches of 512."""
        import array

        edge = self._edge
        for start in range(0, len(data.points), 512):
            points = [
                edge.Point(start + row, {"dense": array.array("f", vector.tobytes())}, {"group": int(group)})
                for row, (vector, group) in enumerate(
                    zip(data.points[start : start + 512], data.groups[start : start + 512], strict=True)
                )
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def search(self, query: Vectors, group: int | None) -> list[int]:
        """One exact query, with payloads as the flow needs them."""
        edge = self._edge
        match = None
        if group is not None:
            match = edge.Filter(must=[edge.FieldCondition("group", match=edge.MatchValue(group))])
        request = edge.QueryRequest(
            limit=TOP,
            query=edge.Query.Nearest(query.tolist(), using="dense"),
            prefetches=[],
            filter=match,
            with_payload=True,
            params=edge.SearchParams(exact=True),
        )
        return [int(point.id) for point in self._shard.query(request)]

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()


class LocalMode(System):
    """qdrant-client's local mode, in memory."""

    name = "qdrant-client, local mode"
    slow = True

    def __init__(self, dimensions: int) -> None:
        from qdrant_client import QdrantClient, models

        self._models = models
        self._client = QdrantClient(":memory:")
        self._client.create_collection(
            "points", vectors_config=models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
        )

    def fill(self, data: Data) -> None:
        """Upload in batches, as its documentation has it."""
        self._client.upload_collection(
            "points",
            vectors=data.points,
            payload=[{"group": int(group)} for group in data.groups],
            ids=range(len(data.points)),
            batch_size=512,
        )

    def search(self, query: Vectors, group: int | None) -> list[int]:
        """One query."""
        models = self._models
        match = None
        if group is not None:
            match = models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=group))])
        found = self._client.query_points("points", query=query.tolist(), query_filter=match, limit=TOP)
        return [int(point.id) for point in found.points]


class Faiss(System):
    """faiss-cpu: exact, or with a graph."""

    def __init__(self, dimensions: int, *, graph: bool) -> None:
        import faiss

        self._faiss = faiss
        faiss.omp_set_num_threads(1)  # one query at a time is asked; a team of threads would only spin
        self.name = "faiss, HNSW (M 32, ef 128)" if graph else "faiss, exact"
        self.filters = not graph
        if graph:
            self._index = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = 128
            self._index.hnsw.efSearch = 128
        else:
            self._index = faiss.IndexFlatIP(dimensions)
        self._members: dict[int, Any] = {}

    def fill(self, data: Data) -> None:
        """Add all at once, and note the members of each group."""
        self._index.add(data.points)
        for group in np.unique(data.groups):
            members = np.flatnonzero(data.groups == group).astype(np.int64)
            self._members[int(group)] = self._faiss.IDSelectorBatch(members)

    def search(self, query: Vectors, group: int | None) -> list[int]:
        """One query."""
        parameters = None if group is None else self._faiss.SearchParameters(sel=self._members[group])
        _, found = self._index.search(query[None], TOP, params=parameters)
        return [int(each) for each in found[0]]


class Hnswlib(System):
    """hnswlib."""

    name = "hnswlib (M 32, ef 128)"
    filters = False  # only by a Python function, called for each point it looks at

    def __init__(self, dimensions: int) -> None:
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=dimensions)

    def fill(self, data: Data) -> None:
        """Add all at once."""
        self._index.init_index(max_elements=len(data.points), M=32, ef_construction=128, random_seed=SEED)
        self._index.add_items(data.points, num_threads=1)
        self._index.set_ef(128)
        self._index.set_num_threads(1)

    def search(self, query: Vectors, group: int | None) -> list[int]:
        """One query."""
        found, _ = self._index.knn_query(query[None], TOP)
        return [int(each) for each in found[0]]


# ---- measuring ----


@dataclass
class Figures:
    """What was measured of one system; times in seconds, one a query."""

    fill_seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    encoder_times: list[float] = field(default_factory=list)
    filtered_times: list[float] = field(default_factory=list)
    found: int = 0
    found_filtered: int = 0

    def recall(self) -> float:
        """Part of the TOP nearest points that were found."""
        return self.found / (TOP * max(len(self.times), 1))

    def filtered_recall(self) -> float:
        """The same, of filtered searches."""
        return self.found_filtered / (TOP * max(len(self.filtered_times), 1))


def measure(systems: Sequence[System], data: Data, seconds: float) -> dict[str, Figures]:
    """Fill every system, then ask them all, query by query, for about `seconds` in each of the two ways."""
    figures = {system.name: Figures() for system in systems}
    for system in systems:
        start = time.perf_counter()
        system.fill(data)
        figures[system.name].fill_seconds = time.perf_counter() - start
        print(f"filled: {system.name}, {figures[system.name].fill_seconds:.1f} s", file=sys.stderr, flush=True)
    time.sleep(2)  # for what systems do after they were filled
    for filtered in (False, True):
        asked = [system for system in systems if system.filters or not filtered]
        for system in asked:  # not timed: first touch of memory, connections
            system.search(data.queries[-1], int(data.asked[-1]) if filtered else None)
        end = time.monotonic() + seconds
        for number, query in enumerate(data.queries[:-1]):
            group = int(data.asked[number]) if filtered else None
            right = (data.nearest_in_group if filtered else data.nearest)[number].tolist()
            for system in asked:
                if system.slow and number >= SLOW_QUERIES:
                    continue
                start = time.perf_counter()
                found = system.search(query, group)
                took = time.perf_counter() - start
                mine = figures[system.name]
                (mine.filtered_times if filtered else mine.times).append(took)
                if not filtered:
                    mine.encoder_times.append(system.encoder_seconds)
                hits = len(set(found) & set(right))
                if filtered:
                    mine.found_filtered += hits
                else:
                    mine.found += hits
            if number >= SLOW_QUERIES and time.monotonic() > end:
                break
    return figures


def percentile(times: Sequence[float], percent: float) -> float:
    """In milliseconds."""
    return float(np.percentile(times, percent)) * 1e3 if times else float("nan")


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Median of the differences query by query, in milliseconds."""
    return statistics.median(a - b for a, b in zip(first, second, strict=False)) * 1e3


def report(figures: dict[str, Figures], data: Data) -> str:
    """The tables, in Markdown."""
    points, dimensions = data.points.shape
    lines = [
        f"{points:,} points x {dimensions}, top {TOP}; filtered searches look at "
        f"{np.bincount(data.groups).mean():,.0f} points:",
        "",
        "| | points/s in | p50 ms | p95 ms | recall@10 | filtered p50 ms | p95 ms | recall@10 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, each in figures.items():
        searches = name != BareChain.name
        cells = [f"{points / each.fill_seconds:,.0f}" if searches else "-"]
        cells += [f"{percentile(each.times, percent):.2f}" for percent in (50, 95)]
        cells.append(f"{each.recall():.3f}" if searches else "-")
        if each.filtered_times:
            cells += [f"{percentile(each.filtered_times, percent):.2f}" for percent in (50, 95)]
            cells.append(f"{each.filtered_recall():.3f}" if searches else "-")
        else:
            cells += ["-", "-", "-"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    flow, engine, local, bare = (figures.get(cls.name) for cls in (FlowdexFlow, Engine, LocalMode, BareChain))
    lines.append("")
    if flow and engine:
        for what, mine, its in (
            ("search", flow.times, engine.times),
            ("filtered search", flow.filtered_times, engine.filtered_times),
        ):
            lines.append(f"- flowdex - engine, {what}: {difference(mine, its):.2f} ms")
    if flow and engine and bare:
        processes = [one + other for one, other in zip(engine.filtered_times, bare.filtered_times, strict=False)]
        over = difference(flow.filtered_times, processes)
        lines.append(f"- flowdex - engine - bare chain, filtered search: {over:.2f} ms")
    if flow and engine:
        without = [time - encoder for time, encoder in zip(flow.times, flow.encoder_times, strict=True)]
        lines.append(f"- the same without the encoder's hop, search: {difference(without, engine.times):.2f} ms")
    if flow and local:
        ratio = percentile(local.filtered_times, 50) / percentile(flow.filtered_times, 50)
        lines.append(f"- local mode : flowdex, filtered search: {ratio:,.0f}")
    return "\n".join(lines)


def open_systems(folder: Path, settings: argparse.Namespace) -> list[System]:
    """All systems that are installed and asked for."""
    candidates: list[tuple[str, str, Callable[[], System]]] = [
        ("flowdex", "flowdex", lambda: FlowdexFlow(settings.batch)),
        ("bare", "grpc", BareChain),
        ("engine", "qdrant_edge", lambda: Engine(folder, settings.dimensions)),
        ("local", "qdrant_client", lambda: LocalMode(settings.dimensions)),
        ("faiss", "faiss", lambda: Faiss(settings.dimensions, graph=False)),
        ("faiss-hnsw", "faiss", lambda: Faiss(settings.dimensions, graph=True)),
        ("hnswlib", "hnswlib", lambda: Hnswlib(settings.dimensions)),
    ]
    wanted = settings.systems.split(",") if settings.systems else [name for name, _, _ in candidates]
    if unknown := set(wanted) - {name for name, _, _ in candidates}:
        raise SystemExit(f"unknown systems: {', '.join(sorted(unknown))}")
    systems = []
    for name, module, make in candidates:
        if name not in wanted:
            continue
        if importlib.util.find_spec(module) is None:
            print(f"{name}: {module} is not installed, left out", file=sys.stderr)
            continue
        systems.append(make())
    return systems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--dimensions", type=int, default=384, help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=200, help="at most; default: %(default)s")
    parser.add_argument("--groups", type=int, default=100, help="groups to filter by; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="for each way to search; default: %(default)s")
    parser.add_argument("--batch", type=int, default=512, help="points in a request of indexing; default: %(default)s")
    parser.add_argument("--systems", help="flowdex,bare,engine,local,faiss,faiss-hnsw,hnswlib; default: all")
    parser.add_argument("-o", "--output", type=Path, help="write the tables to this file, too")
    settings = parser.parse_args()
    data = make_data(settings.points, settings.dimensions, settings.queries + 1, settings.groups)
    with tempfile.TemporaryDirectory(prefix="benchmark-search-") as name:
        systems = open_systems(Path(name), settings)
        try:
            tables = report(measure(systems, data, settings.seconds), data)
        finally:
            for system in systems:
                system.close()
    print(tables)
    if settings.output:
        settings.output.write_text(tables + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
