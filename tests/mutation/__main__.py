"""The command line: starts the flow, runs, says what came of it; ends with 1 if there were faults."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from flow_support import run_flowdex

from mutation.flow import flow_text
from mutation.program import Result, run


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600, help="time limit")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument(
        "--only", action="append", default=[], help="a surface: http, grpc, websocket, zeromq, worker, exchange"
    )
    parser.add_argument("--model", action="store_true", help="with MiniLM as encoder, not with counts of letters")
    parser.add_argument("--flow", type=Path, help="a flow file that runs already, rather than one of our own")
    parser.add_argument(
        "--resume", type=Path, help="file of the counts: gone on with if it is there, written at the end"
    )
    chosen = parser.parse_args()
    result = Result(chosen.seed)
    if chosen.resume and chosen.resume.exists():
        result = Result.load(chosen.resume)
    with tempfile.TemporaryDirectory() as folder:
        flow_file = chosen.flow or Path(folder) / "flow.yml"
        if chosen.flow is None:
            flow_file.write_text(flow_text(chosen.model))
            done = run_flowdex("up", str(flow_file), "--detach", timeout=300)
            if done.returncode:
                print(done.stdout, done.stderr, file=sys.stderr)
                return 1
        try:
            asyncio.run(run(flow_file, result, requests=chosen.requests, seconds=chosen.seconds, only=chosen.only))
        finally:
            if chosen.flow is None:
                run_flowdex("down", str(flow_file))
    if chosen.resume:
        result.save(chosen.resume)
    report(result)
    return 1 if result.faults else 0


def report(result: Result) -> None:
    """Print what became of the requests, as a table for docs/security.md."""
    rate = result.requests / max(result.seconds, 1)
    print(f"{result.requests} requests in {result.seconds:.0f} s, {rate:.0f} a second\n")
    print("| surface | requests | answered, by outcome |\n|---|---|---|")
    for surface, outcomes in result.outcomes.items():
        shown = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common(8))
        print(f"| {surface} | {sum(outcomes.values())} | {shown} |")
    print(f"\nslowest: {result.slowest[0]} s ({result.slowest[1]})")
    print("\nMiB: " + ", ".join(f"{name} {early} -> {late}" for name, (early, late) in result.memory.items()))
    print(f"\n{len(result.faults)} faults")
    for fault in result.faults:
        print(f"- {fault}")


if __name__ == "__main__":
    sys.exit(main())
