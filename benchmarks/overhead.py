"""What the runtime costs: flowdex, stock Jina and a bare grpc.aio pair on the same no-op flow, side by side.

    python benchmarks/overhead.py [--seconds 3] [--rounds 5]

For one and for four executors in a row, all systems are up at the same time and take turns under load, so that each
round compares them under the same noise; the table gives medians over the rounds, and ratios round by round. Then the
same for documents: requests of 256 texts that come back with 384-d vectors.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from pathlib import Path

from load import Load, drive
from servers import HERE, Servers, free_ports

from flowdex import wire
from flowdex.documents import DocumentBatch

Results = dict[str, list[Load]]

IN_FLIGHT = 32
TEXT = "Compute the generalized normal stress on each surface element of the wing. " * 4
BARE, COLUMNAR, PLAIN, JINA, JINA_COLUMNAR = (
    "bare grpc.aio pair",
    "flowdex, columnar executor",
    "flowdex, plain Jina executor",
    "stock Jina, plain Jina executor",
    "stock Jina, columnar executor",
)


def start_bare(servers: Servers, hops: int) -> int:
    """Start a forwarder and `hops` echo servers; return the forwarder's port."""
    port, *hop_ports = free_ports(hops + 1)
    for each in hop_ports:
        servers.start([str(HERE / "bare_pair.py"), str(each)])
    servers.start([str(HERE / "bare_pair.py"), str(port), *map(str, hop_ports)])
    servers.wait_for(port, *hop_ports)
    return port


def start_flowdex(servers: Servers, hops: int, class_name: str, folder: Path) -> int:
    """Start a flowdex gateway and `hops` executors; return the gateway's gRPC port."""
    port, *hop_ports = free_ports(hops + 1)
    flow = folder / f"{class_name}-{hops}.yml"
    executors = "".join(
        f"  - name: hop{index}\n    uses: {class_name}\n    port: {each}\n"
        f"    py_modules: [{HERE / 'noop_executors.py'}]\n"
        for index, each in enumerate(hop_ports)
    )
    flow.write_text(f"jtype: Flow\nwith:\n  protocol: [grpc]\n  port: [{port}]\nexecutors:\n{executors}")
    for index, each in enumerate(hop_ports):
        servers.start(["-m", "flowdex", "executor", f"hop{index}", "--flow", str(flow), "--port", str(each)])
    servers.wait_for(*hop_ports)
    servers.start(["-m", "flowdex", "gateway", "--flow", str(flow)])
    servers.wait_for(port)
    return port


def start_jina(servers: Servers, hops: int, class_name: str) -> int:
    """Start a stock Jina flow; return its gateway's port."""
    (port,) = free_ports(1)
    servers.start([str(HERE / "stock_jina.py"), str(port), str(hops), class_name])
    servers.wait_for_line("ready")
    return port


async def compare(
    hops: int, requests: dict[str, bytes], seconds: float, rounds: int, folder: Path
) -> dict[str, Results]:
    """Measure every system with every request; `{request name: {system: one Load a round}}`."""
    systems = {
        BARE: lambda servers: start_bare(servers, hops),
        COLUMNAR: lambda servers: start_flowdex(servers, hops, "ColumnarNoOp", folder),
        PLAIN: lambda servers: start_flowdex(servers, hops, "PlainNoOp", folder),
        JINA: lambda servers: start_jina(servers, hops, "PlainNoOp"),
        JINA_COLUMNAR: lambda servers: start_jina(servers, hops, "ColumnarNoOp"),
    }
    running = {name: Servers() for name in systems}
    results: dict[str, Results] = {kind: {name: [] for name in systems} for kind in requests}
    try:
        ports = {name: start(running[name]) for name, start in systems.items()}
        for _ in range(rounds):
            for kind, request in requests.items():
                for name, port in ports.items():
                    in_flight = 4 if kind == "documents" else 1 if kind == "sequential" else IN_FLIGHT
                    load = await drive(
                        f"127.0.0.1:{port}",
                        wire.PROCESS_SINGLE_DATA,
                        request,
                        in_flight=in_flight,
                        seconds=seconds,
                        pids=running[name].pids,
                    )
                    results[kind][name].append(load)
    finally:
        for servers in running.values():
            servers.__exit__()
    return results


def _median(loads: list[Load], value: str) -> float:
    return statistics.median(
        load.rate if value == "rate" else load.cpu_ms if value == "cpu" else load.percentile(float(value))
        for load in loads
    )


def _ratio(loads: list[Load], base: list[Load], value: str) -> float:
    return statistics.median(_median([a], value) / _median([b], value) for a, b in zip(loads, base, strict=True))


def print_requests(title: str, results: Results, sequential: Results) -> None:
    """Print one table of requests."""
    print(f"\n**{title}**\n")
    print(
        "| | requests/s | p50 ms | p99 ms | server CPU ms/request | one at a time: p50 ms | req/s : Jina | p50 : bare |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, loads in results.items():
        print(
            f"| {name} | {_median(loads, 'rate'):.0f} | {_median(loads, '50'):.1f} | {_median(loads, '99'):.1f} "
            f"| {_median(loads, 'cpu'):.2f} | {_median(sequential[name], '50'):.2f} "
            f"| {_ratio(loads, results[JINA], 'rate'):.2f} | {_ratio(loads, results[BARE], '50'):.2f} |"
        )


def print_documents(results: Results, size: int) -> None:
    """Print the table of documents."""
    print(f"\n**Documents: requests of {size} texts, 384-d float32 vectors come back, 4 in flight**\n")
    print("| | documents/s | server CPU us/document | documents/s : Jina |")
    print("|---|---|---|---|")
    for name, loads in results.items():
        if name == BARE:
            continue  # it returns the request: no vectors come back
        print(
            f"| {name} | {_median(loads, 'rate') * size:.0f} | {_median(loads, 'cpu') * 1e3 / size:.1f} "
            f"| {_ratio(loads, results[JINA], 'rate'):.1f} |"
        )


async def main(seconds: float, rounds: int, size: int) -> None:
    """Run both comparisons and print their tables."""
    import tempfile

    noop = wire.build_request("/noop", DocumentBatch.from_columns(texts=["hello"]))
    encode = wire.build_request("/encode", DocumentBatch.from_columns(texts=[TEXT] * size))
    with tempfile.TemporaryDirectory() as folder:
        for hops in (1, 4):
            requests = {"noop": noop, "sequential": noop} | ({"documents": encode} if hops == 1 else {})
            results = await compare(hops, requests, seconds, rounds, Path(folder))
            title = f"{hops} executor{'s in a row' if hops > 1 else ''}, {IN_FLIGHT} requests of one document in flight"
            print_requests(title, results["noop"], results["sequential"])
            if "documents" in results:
                print_documents(results["documents"], size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often the systems take turns (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=256, help="documents a request (default: %(default)s)")
    options = parser.parse_args()
    asyncio.run(main(options.seconds, options.rounds, options.documents))
