"""`flowdex plan`.

flow file + options --load_flow, read_flow--> shape, demand --make_plan--> a table with reasons, or JSON

Nothing of the executors is imported, but with --measure, and where only an encoder's class knows its dimensions.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowdex.cli import complete

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowdex_orchestrator.capacity.costs import EncoderCost
    from flowdex_orchestrator.capacity.flow import FlowShape
    from flowdex_orchestrator.capacity.plan import Demand, Plan
    from flowdex_orchestrator.flow.model import Flow

__all__ = ["plan"]

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_NUMBER = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)")


def _scaled(
    multiples: dict[str, int], example: str
) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """A click callback that reads a number with a letter for its multiple."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        match = _NUMBER.fullmatch(value.strip())
        scale = multiples.get(match[2].lower()) if match else None
        number = float(match[1].replace(",", "").replace("_", "")) * scale if match and scale else 0.0
        if number <= 0:
            raise click.BadParameter(f"{value!r} is not a number more than 0, such as {example}", ctx, param)
        return number

    return read


_COUNT = _scaled(_MULTIPLES, "10k, 100M or 1.5B")
_MEMORY = _scaled(_BYTES, "64Gi")
_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument(
    "flow", required=False, type=click.Path(path_type=Path), metavar="[FLOW.YML]", shell_complete=complete.flow_files
)
@click.option("--documents", callback=_COUNT, required=True, metavar="N", help="Documents: 10k, 100M, 1.5B.")
@click.option("--rps", type=_POSITIVE, default=10.0, show_default=True, metavar="N", help="Searches a second.")
@click.option("--tokens", callback=_COUNT, metavar="N", help="Tokens of a document on average.  [default: 500]")
@click.option("--characters", callback=_COUNT, metavar="N", help="The same in characters, 3.7 for a token.")
@click.option("--passages", type=_POSITIVE, metavar="N", help="Passages of a document.  [default: by the segmenter]")
@click.option("--dimensions", type=click.IntRange(1, 65536), metavar="N", help="Size of the vectors.")
@click.option("--node-cpus", type=_POSITIVE, default=16.0, show_default=True, metavar="N", help="Cores of a node.")
@click.option("--node-memory", callback=_MEMORY, default="64Gi", show_default=True, metavar="SIZE", help="Its memory.")
@click.option(
    "--headroom",
    type=click.FloatRange(0, 0.9),
    default=0.3,
    show_default=True,
    metavar="SHARE",
    help="Share of cores and memory that stays free.",
)
@click.option(
    "--latency-ms", type=_POSITIVE, default=200.0, show_default=True, metavar="N", help="Longest a search may take."
)
@click.option("--index-within", type=_POSITIVE, metavar="HOURS", help="Time to index all documents once.")
@click.option(
    "--term-share",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="Share of passages that a word of a query is in.",
)
@click.option("--gpu", metavar="NAME", help="Encode on GPUs of this name; their cost has to be given.")
@click.option(
    "--encoder-tokens-per-second", callback=_COUNT, metavar="N", help="What one core, or one GPU, encodes, as measured."
)
@click.option("--encoder-query-ms", type=_POSITIVE, metavar="N", help="Time of one query there, as measured.")
@click.option("--measure", is_flag=True, help="Load the flow's encoder here and measure it, some seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def plan(
    flow: Path | None,
    *,
    documents: float,
    rps: float,
    tokens: float | None,
    characters: float | None,
    passages: float | None,
    dimensions: int | None,
    node_cpus: float,
    node_memory: float,
    headroom: float,
    latency_ms: float,
    index_within: float | None,
    term_share: float,
    gpu: str | None,
    encoder_tokens_per_second: float | None,
    encoder_query_ms: float | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Say how large a flow has to be: memory, disk, replicas, nodes and GPUs.

    Computed from what texts, passages and searches were measured to cost; the formulas are in docs/scaling.md. What
    the flow as written cannot do is said with what to change. FLOW.YML is ./flow.yml by default.

    \b
    Example:
      flowdex plan --documents 100k
      flowdex plan flow.yml --documents 100M --rps 500 --index-within 48
      flowdex plan flow.yml --documents 1M --measure --json
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.capacity.costs import CHARACTERS_PER_TOKEN
    from flowdex_orchestrator.capacity.flow import read_flow
    from flowdex_orchestrator.capacity.plan import Demand
    from flowdex_orchestrator.flow.load import default_flow_path, load_flow

    if tokens is not None and characters is not None:
        raise click.UsageError("give --tokens or --characters, not both")
    if characters is not None:
        tokens = characters / CHARACTERS_PER_TOKEN
    loaded = load_flow(flow or default_flow_path())
    demand = Demand(
        documents=round(documents),
        rps=rps,
        tokens=500.0 if tokens is None else tokens,
        term_share=term_share,
        node_cpus=node_cpus,
        node_memory=node_memory,
        headroom=headroom,
        latency_ms=latency_ms,
        index_within=index_within,
    )
    shape = read_flow(loaded, gpu=gpu)
    cost, found = _encoder_cost(loaded, shape, encoder_tokens_per_second, encoder_query_ms, measure)
    size = dimensions or _dimensions(loaded, shape, found)
    made = _plan(shape, demand, cost, size, passages)
    if as_json:
        click.echo(json.dumps({"dimensions": size, **made.as_dict()}, indent=2))
        return
    from flowdex_orchestrator.capacity.table import print_plan

    print_plan(made, demand)


def _plan(shape: FlowShape, demand: Demand, cost: EncoderCost | None, dimensions: int, passages: float | None) -> Plan:
    from flowdex_orchestrator.capacity.costs import REFERENCE
    from flowdex_orchestrator.capacity.model import make_plan

    return make_plan(shape, demand, REFERENCE, dimensions=dimensions, encoder=cost, passages_each=passages)


def _encoder_cost(
    flow: Flow, shape: FlowShape, tokens_per_second: float | None, query_ms: float | None, measure: bool
) -> tuple[EncoderCost | None, int | None]:
    """What the flow's encoder costs, and the size of its vectors where that comes with it."""
    from dataclasses import replace

    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.capacity.costs import ENCODERS, QUERY_TOKENS, UNKNOWN_MEMORY, EncoderCost

    encoder = shape.encoder
    if encoder is None:
        return None, None
    cost, dimensions = ENCODERS.get(encoder.kind, (None, None))
    if measure:
        from flowdex_orchestrator.capacity.measure import measure_encoder

        cost, dimensions = measure_encoder(flow, encoder.name)
    if tokens_per_second is not None:
        memory = cost.memory if cost else UNKNOWN_MEMORY
        in_time = cost.query_ms if cost else QUERY_TOKENS / tokens_per_second * 1e3
        cost = EncoderCost(tokens_per_second, in_time, memory, "as given")
    if cost is None:
        device = encoder.gpu_name or "one core"
        raise ConfigurationError(
            f"what {encoder.kind} costs on {device} has not been measured: give --encoder-tokens-per-second N (and "
            "--encoder-query-ms), from benchmarks/encoders.py" + ("" if encoder.gpus else ", or measure with --measure")
        )
    if query_ms is not None:
        cost = replace(cost, query_ms=query_ms, source=f"{cost.source}; the time of a query as given")
    return cost, dimensions


def _dimensions(flow: Flow, shape: FlowShape, found: int | None) -> int:
    """The size of the vectors: of the flow file, the encoder that was measured, or what its class says."""
    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.capacity.flow import facts_of_class

    written = [part.dimensions for part in (shape.encoder, shape.index) if part and part.dimensions]
    if written or found:
        return written[0] if written else int(found or 0)
    if shape.index is None:
        return 1  # nothing is kept, so it makes no difference
    if shape.encoder is not None:
        stated = facts_of_class(flow, shape.encoder.name, timeout=60.0).get("dimensions")
        if isinstance(stated, int):
            return stated
    raise ConfigurationError("how many dimensions the vectors have is not known here: give --dimensions N")
