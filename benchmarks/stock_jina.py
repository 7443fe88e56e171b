"""Stock Jina running a flow of `count` no-op executors: ``python benchmarks/stock_jina.py PORT COUNT CLASS``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["JINA_OPTOUT_TELEMETRY"] = "1"


def main(port: int, count: int, class_name: str) -> None:
    """Run the flow until killed."""
    from jina import Flow
    from jina.orchestrate import orchestrator

    # Stock Jina asks public services for this machine's address at every start, opted out or not.
    orchestrator.get_public_ip = lambda *_, **__: None
    flow = Flow(port=port, host="127.0.0.1")
    for index in range(count):
        flow = flow.add(
            name=f"hop{index}", uses=class_name, py_modules=[str(Path(__file__).with_name("noop_executors.py"))]
        )
    with flow:
        print("ready", flush=True)
        flow.block()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
