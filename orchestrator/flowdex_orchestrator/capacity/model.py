"""The capacity model: pure functions from a flow's shape, a demand and costs to a plan.

    documents --segmenter--> passages --index.py--> bytes of memory and disk --> nodes, shards
    searches a second --CPU of each step--> cores --> replicas, nodes
    tokens of all passages --encoder--> core hours --within hours--> replicas while indexing

Every quantity is a line with its reason. docs/scaling.md explains the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from flowdex_orchestrator.capacity.costs import Costs, EncoderCost
from flowdex_orchestrator.capacity.flow import EncoderShape, FlowShape, IndexShape, SegmenterShape
from flowdex_orchestrator.capacity.index import Layout, fit_embedded, fit_server, size_index
from flowdex_orchestrator.capacity.plan import GIB, Demand, Line, Plan, Totals, Warn

__all__ = ["make_plan", "passages_per_document", "replicas_for"]

_SPECIAL_TOKENS = 2  # [CLS] and [SEP]


def passages_per_document(segmenter: SegmenterShape | None, costs: Costs, tokens: float) -> float:
    """Passages of a document, on average; at least 1.

    Args:
        segmenter: How documents are cut; None for not at all.
        costs: With what was measured of cutting.
        tokens: Of a document, on average.
    """
    if segmenter is None or segmenter.mode == "document":
        return 1.0
    cutting = costs.segmenter
    fresh = cutting.fill * segmenter.max_tokens - cutting.overlap * segmenter.overlap
    if segmenter.mode == "sentence":
        fresh = cutting.sentence_tokens * segmenter.sentences
    elif segmenter.mode == "markdown":
        fresh = min(cutting.section_tokens, fresh)
    return max(1.0, tokens / max(min(fresh, segmenter.max_tokens), 1.0))


def replicas_for(rps: float, ms: float, cores: float, usable: float) -> int:
    """Replicas of `cores` each that serve `rps` requests of `ms` CPU milliseconds, at most `usable` of them busy."""
    return max(1, math.ceil(round(rps * ms / 1e3 / (cores * usable), 9)))


def make_plan(
    shape: FlowShape,
    demand: Demand,
    costs: Costs,
    *,
    dimensions: int,
    encoder: EncoderCost | None,
    passages_each: float | None = None,
) -> Plan:
    """Size a flow.

    Args:
        shape: What the flow file says.
        demand: What it has to do.
        costs: What its parts cost.
        dimensions: Of its vectors.
        encoder: What its encoder costs, on a core or a GPU; None where it has none.
        passages_each: Passages of a document where they are known.
    """
    maker = _Maker(shape, demand, costs, dimensions, encoder)
    return maker.plan(passages_each)


@dataclass
class _Maker:
    """Makes the lines one after the other."""

    shape: FlowShape
    demand: Demand
    costs: Costs
    dimensions: int
    encoder: EncoderCost | None
    lines: list[Line] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    section: str = ""
    cores: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    index_nodes: int = 0
    gpus: int = 0

    def line(self, key: str, label: str, value: float, unit: str, reason: str) -> None:
        self.lines.append(Line(key, label, value, unit, reason, self.section))

    def warn(self, problem: str, remedy: str) -> None:
        self.warnings.append(Warn(problem, remedy))

    # ---- the parts in order ----

    def plan(self, passages_each: float | None) -> Plan:
        self.section = "Documents"
        demand, tokens = self.demand, self.demand.tokens
        each = passages_each or passages_per_document(self.shape.segmenter, self.costs, tokens)
        passages = math.ceil(demand.documents * each)
        self.line("documents", "documents", demand.documents, "", f"{tokens:,.0f} tokens each")
        self.line("passages", "passages", passages, "", f"{each:.2f} a document{self._why_passages(passages_each)}")
        fresh = tokens / each
        layout = self._index(passages, fresh) if self.shape.index else None
        self._searches(layout)
        self._indexing(passages, self._read_tokens(fresh, each))
        return Plan(tuple(self.lines), self._totals(), tuple(self.warnings), self._sources())

    def _why_passages(self, given: float | None) -> str:
        segmenter = self.shape.segmenter
        if given is not None:
            return ", as given"
        if segmenter is None:
            return ": no segmenter"
        if segmenter.mode == "passage":
            return f": {segmenter.max_tokens} tokens of room, {self.costs.segmenter.fill:.0%} of it used"
        return f": mode {segmenter.mode}"

    def _read_tokens(self, fresh: float, each: float) -> float:
        """Tokens that the encoder reads of a passage."""
        segmenter = self.shape.segmenter
        overlap = 0.0
        if segmenter is not None and segmenter.mode == "passage" and each > 1:
            overlap = self.costs.segmenter.overlap * segmenter.overlap
        return fresh + overlap + _SPECIAL_TOKENS

    # ---- index ----

    def _index(self, passages: int, fresh: float) -> Layout:
        index, cost, demand = self.shape.index, self.costs.index, self.demand
        assert index is not None
        text = fresh * demand.text_share
        terms = text * cost.terms_text

        def laid_out(index: IndexShape) -> Layout:
            size = size_index(index, cost, passages=passages, dimensions=self.dimensions, text=text, terms=terms)
            fit = fit_embedded if index.embedded else fit_server
            return fit(index, size, cost, demand, passages=passages, dimensions=self.dimensions)

        layout = laid_out(index)
        if index.embedded and (problems := self._too_much(layout)):
            index = replace(index, embedded=False, shards=None, replication=2)
            layout = laid_out(index)
            self.warn(
                f"the embedded index of {index.name} does not hold this: {'; '.join(problems)}",
                "a Qdrant server, as planned above: uses_with: {uri: grpc://HOST:6334, server: "
                f"{{shards: {layout.shards}, replication_factor: {layout.copies}}}}}",
            )
        if not index.embedded and not index.quantization and not index.vectors_on_disk:
            smaller = laid_out(replace(index, quantization="scalar", compression=4.0, vectors_on_disk=True))
            if smaller.nodes < layout.nodes:
                self.warn(
                    f"with int8 vectors in memory, and the full ones on disk, {smaller.nodes} nodes hold the index "
                    f"instead of {layout.nodes}",
                    "uses_with.server: {quantization: scalar, on_disk: {vectors: true}}",
                )
        self._index_lines(index, layout, passages, text, terms)
        return layout

    def _too_much(self, layout: Layout) -> list[str]:
        demand, found = self.demand, []
        room = demand.node_memory * demand.usable
        if layout.memory > room:
            found.append(f"{layout.memory / GIB:,.1f} GiB of memory, where a node has {room / GIB:,.1f} to use")
        if layout.most_rps is not None and layout.most_rps < demand.rps:
            found.append(f"{layout.most_rps:,.1f} searches a second at most")
        if layout.latency_ms > demand.latency_ms:
            found.append(f"{layout.latency_ms:,.0f} ms a search, where {demand.latency_ms:,.0f} are asked for")
        return found

    def _index_lines(self, index: IndexShape, layout: Layout, passages: int, text: float, terms: float) -> None:
        self.section = "Index"
        cost, demand = self.costs.index, self.demand
        size = size_index(index, cost, passages=passages, dimensions=self.dimensions, text=text, terms=terms)
        copies = "" if layout.copies == 1 else f" x {layout.copies} copies"
        self.line("vectors", "vectors", size.vectors, "bytes", f"{passages:,} x {self.dimensions} x 4 bytes")
        if size.quantised:
            reason = f"{index.quantization}: {index.compression:g} times smaller than float32"
            self.line("quantised", "quantised vectors", size.quantised, "bytes", reason)
        if size.graph:
            self.line("graph", "graph", size.graph, "bytes", f"2 x {index.edges} edges x 4 bytes a vector")
        self.line("payload", "texts and tags", size.payload, "bytes", f"{text:,.0f} bytes of text a passage, and ids")
        self.line("words", "index of words", size.words, "bytes", f"{terms:,.0f} different words a passage")
        self.line("index_memory", "memory", layout.memory, "bytes", self._why_memory(index) + copies)
        rewrite = "3 while a shard is packed" if index.embedded else "2 for segments written anew"
        self.line("index_disk", "disk", layout.disk, "bytes", f"all of it x {rewrite}{copies}, and logs")
        self.line("shards", "shards", layout.shards, "", self._why_shards(index))
        if not index.embedded:
            self.line("copies", "copies of a shard", layout.copies, "", "replication_factor, or what CPU asks for")
        self.line("index_nodes", "nodes", layout.nodes, "", layout.limit)
        dense = "each vector compared" if passages <= index.exact_up_to else "by the graph"
        self.line("engine_ms", "engine, a search", layout.latency_ms, "ms", f"{dense}, and words; shards side by side")
        self.line(
            "engine_cores", "engine, all searches", layout.cores, "cores", f"{demand.rps:g} a second, every shard"
        )
        if not index.embedded:
            self._server_warnings(index, layout)
            self.index_nodes = layout.nodes
        self.cores += layout.cores / demand.usable
        self.memory += layout.memory
        self.disk += layout.disk

    def _why_memory(self, index: IndexShape) -> str:
        if index.embedded:
            return "vectors and graph mapped, words and ids in the engine"
        parts = ["vectors on disk" if index.vectors_on_disk else "vectors x 1.5"]
        if index.quantization and index.quantised_in_memory:
            parts.append("quantised x 1.5")
        return ", ".join(parts) + ", ids" + ("" if index.vectors_on_disk else " and words")

    def _why_shards(self, index: IndexShape) -> str:
        if index.shards is not None:
            return "as the flow says"
        return "two a node that memory asks for, so that a further node has something to take over"

    def _server_warnings(self, index: IndexShape, layout: Layout) -> None:
        demand = self.demand
        if layout.latency_ms > demand.latency_ms:
            self.warn(
                f"a search takes {layout.latency_ms:,.0f} ms in each shard, {demand.latency_ms:,.0f} are asked for",
                f"more shards (uses_with.server.shards, now {layout.shards}) on more nodes, or mode: dense in requests",
            )
        if index.shards is not None and layout.nodes > index.shards * layout.copies:
            self.warn(
                f"{index.shards} shards of {layout.copies} copies cannot be spread over {layout.nodes} nodes",
                f"uses_with.server.shards: {2 * layout.nodes}",
            )
        if index.vectors_on_disk and not (index.quantization and index.quantised_in_memory):
            self.warn(
                "vectors are on disk and there are no small ones in memory: searches wait for the disk, which this "
                "plan does not count",
                "uses_with.server.quantization: scalar",
            )
        if layout.copies > index.replication:
            self.warn(
                f"{layout.copies} copies of each shard are needed for {demand.rps:g} searches a second",
                f"uses_with.server.replication_factor: {layout.copies}",
            )

    # ---- searches ----

    def _service(self, key: str, label: str, ms: float, memory: float, reason: str, *, most: int | None = None) -> int:
        """A process that has a core at most: Python computes in one thread."""
        demand = self.demand
        replicas = replicas_for(demand.rps, ms, 1.0, demand.usable)
        if most is not None:
            replicas = min(replicas, most)
        self.line(key, label, replicas, "", f"{reason}: {ms:.1f} ms of a core a search")
        self.cores += demand.rps * ms / 1e3 / demand.usable
        self.memory += replicas * memory
        return replicas

    def _searches(self, layout: Layout | None) -> None:
        self.section = "Searches"
        demand, costs = self.demand, self.costs
        latency = costs.gateway.search_ms
        self._service("gateways", "gateway replicas", costs.gateway.search_ms, costs.gateway.memory, "gateway")
        if self.encoder is not None and self.shape.encoder is not None:
            latency += self._encoder_replicas(self.shape.encoder, self.encoder)
        if layout is not None:
            latency += costs.index.host_ms + layout.latency_ms
            embedded = layout.most_rps is not None
            self._service(
                "indexers",
                "indexer replicas",
                costs.index.host_ms,
                costs.index.host_memory,
                "indexer",
                most=1 if embedded else None,
            )
        if self.shape.ranker:
            latency += costs.ranker.search_ms
            self._service("rankers", "ranker replicas", costs.ranker.search_ms, costs.ranker.memory, "ranker")
        if self.shape.segmenter is not None:
            self.memory += costs.segmenter.memory
        self.line("latency_ms", "a search by itself", latency, "ms", "the sum of these, with nothing else going on")
        if latency > demand.latency_ms >= (layout.latency_ms if layout else 0.0):
            self.warn(
                f"a search takes {latency:,.0f} ms by itself, where {demand.latency_ms:,.0f} are asked for",
                "a faster encoder or more shards, whichever of the lines above is the longest",
            )
        if self.shape.reranks:
            self.warn(
                f"the ranker computes with a model in every search ({self.shape.reranks}), which this plan does not "
                "count",
                "see how long a search takes with and without rerank, and add replicas of what computes it",
            )

    def _encoder_replicas(self, shape: EncoderShape, cost: EncoderCost) -> float:
        """The encoder's replicas for searches; the milliseconds of one."""
        demand = self.demand
        ms = cost.query_ms + self.costs.encoder_call_ms
        device, each = ("GPU", max(shape.gpus, 1)) if shape.gpus else ("core", shape.cores)
        replicas = replicas_for(demand.rps, ms, each, demand.usable)
        size = "" if each == 1 else f", {each:g} {device}s a replica"
        self.line("encoders", "encoder replicas", replicas, "", f"{ms:.1f} ms of a {device} a query{size}")
        self.memory += replicas * cost.memory
        if shape.gpus:
            self.gpus = replicas * shape.gpus
            self.line("gpus", "GPUs", self.gpus, "", f"{shape.gpus} {shape.gpu_resource} a replica")
            self.cores += demand.rps * self.costs.encoder_call_ms / 1e3 / demand.usable
        else:
            self.cores += demand.rps * ms / 1e3 / demand.usable
        if replicas > shape.replicas:
            self.warn(
                f"{shape.name} has {shape.replicas} replica{'s' * (shape.replicas != 1)} in the flow file, "
                f"{replicas} are needed for {demand.rps:g} searches a second",
                f"{shape.name}: replicas: {replicas}, or autoscale: {{min: {max(1, replicas // 2)}, max: {replicas}}}",
            )
        return ms

    # ---- indexing ----

    def _indexing(self, passages: int, tokens: float) -> None:
        self.section = "Indexing all documents once"
        demand, costs, shape = self.demand, self.costs, self.shape
        seconds = 0.0
        on_gpu = bool(shape.encoder and shape.encoder.gpus)
        if self.encoder is not None:
            seconds = passages * tokens / self.encoder.tokens_per_second
            rate = f"{passages:,} x {tokens:,.0f} tokens, {self.encoder.tokens_per_second:,.0f} a second"
            name = "encoder, GPU hours" if on_gpu else "encoder, core hours"
            self.line("encoder_hours", name, seconds / 3600, "hours", f"{rate} and {'GPU' if on_gpu else 'core'}")
        others = passages * (costs.index.write_ms + costs.index.host_write_ms) / 1e3 if shape.index else 0.0
        graph = self._graph_seconds(passages)
        cut = 0.0
        if shape.segmenter is not None:
            cut = demand.documents * demand.tokens * demand.text_share / costs.segmenter.second_characters
        if rest := others + graph + cut:
            reason = "cutting, storing" + (", and building the graph" if graph else "")
            self.line("other_hours", "the rest, core hours", rest / 3600, "hours", reason)
        if demand.index_within is None:
            return
        window = demand.index_within * 3600 * demand.usable
        self._within(shape.encoder, seconds, window, demand.index_within)
        embedded = shape.index is not None and shape.index.embedded and not self.index_nodes
        if embedded and others > window:
            self.warn(
                f"the embedded index stores {passages:,} passages in {others / 3600:,.1f} hours at best",
                "more of uses_with.shards, or a Qdrant server",
            )

    def _graph_seconds(self, passages: int) -> float:
        index = self.shape.index
        if index is None or passages <= index.exact_up_to:
            return 0.0
        return passages * self.costs.index.graph_build_ms / 1e3

    def _within(self, shape: EncoderShape | None, seconds: float, window: float, hours: float) -> None:
        if shape is None or self.encoder is None:
            return
        each = max(shape.gpus, 1) if shape.gpus else shape.cores
        replicas = max(1, math.ceil(round(seconds / (window * each), 9)))
        self.line(
            "bulk_encoders",
            "encoder replicas for it",
            replicas,
            "",
            f"within {hours:g} hours, beside those for searches; scale down afterwards",
        )
        if shape.gpus:
            self.line("bulk_gpus", "GPUs for it", replicas * shape.gpus, "", shape.gpu_resource)

    # ---- totals ----

    def _totals(self) -> Totals:
        demand = self.demand
        index = {line.key: line.value for line in self.lines}
        rest_cores, rest_memory = self.cores, self.memory
        if self.index_nodes:
            rest_cores -= index["engine_cores"] / demand.usable
            rest_memory -= index["index_memory"]
        by_cores = math.ceil(rest_cores / demand.node_cpus)
        by_memory = math.ceil(rest_memory / (demand.node_memory * demand.usable))
        return Totals(self.cores, self.memory, self.disk, self.index_nodes + max(by_cores, by_memory, 1), self.gpus)

    def _sources(self) -> tuple[str, ...]:
        found = [f"index, gateway, indexer, ranker, segmenter: {self.costs.source}"]
        if self.encoder is not None:
            found.insert(0, f"encoder: {self.encoder.source}")
        return tuple(found)
