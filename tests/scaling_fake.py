"""A `flowdex` with the real runner and gateway, and executors that are light servers: they start in a moment.

    python scaling_fake.py up flow.yml      the real command, with this script as the program that it starts
    python scaling_fake.py executor ...     what that starts for an executor; `gateway` is the real one

An executor answers /encode with its process id and its `mark` appended to every text, after 20 ms in which it does
nothing else, as one that works on one batch at a time. The mark is of the flow file or of `--set`. `mark=bad` keeps it
from starting, `mark=slow` keeps it loading, `mark=embedded` makes it one of which there can be only one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


async def serve() -> None:
    sys.path.insert(0, str(Path(__file__).parent / "integration"))
    from gateway_fakes import FakeExecutor

    from flowdex.documents import DocumentBatch
    from flowdex.queue_clock import QueueClock
    from flowdex_orchestrator.flow import load_flow
    from flowdex_orchestrator.processes import watch_parent
    from flowdex_orchestrator.traits import Traits

    given = dict(value.split("=", 1) for flag, value in zip(sys.argv, sys.argv[1:], strict=False) if flag == "--set")
    executor = load_flow(option("--flow"), text_from=option("--flow-text")).executor(sys.argv[2])
    mark = json.loads(given["mark"]) if "mark" in given else executor.uses_with.get("mark", "")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    watch_parent(int(option("--parent-pid")), lambda: loop.call_soon_threadsafe(stop.set))
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if mark == "bad":
        raise ValueError("mark must not be bad")
    if mark == "slow":
        await stop.wait()
        return
    queue, turn = QueueClock(), asyncio.Lock()

    async def encode(request: Any) -> None:
        ticket = queue.enter()
        async with turn:
            queue.start(ticket)
            await asyncio.sleep(0.02)
        batch = DocumentBatch.from_proto(request.data.docs)
        batch.texts = [f"{text} {os.getpid()} {mark}" for text in batch.texts]

    traits = Traits(embedded=mark == "embedded")
    server = FakeExecutor("encoder", {"/encode": encode}, port=int(option("--port")), traits=traits)
    server.queue_ms = queue.mean_ms
    await server.start()
    await stop.wait()
    await server.stop(grace=10)


def command_line() -> None:
    from flowdex.cli.main import main
    from flowdex_orchestrator.runner import plan

    plan.FLOWDEX = (sys.executable, str(Path(__file__).resolve()))  # type: ignore[assignment]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "executor":
        asyncio.run(serve())
    else:
        command_line()
