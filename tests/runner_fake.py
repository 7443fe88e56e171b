"""A `flowdex` whose executors and gateways are tiny health servers, so that tests of the runner take moments.

    python runner_fake.py up flow.yml     the real command, with this script as the program that it starts
    python runner_fake.py executor ...    what that starts: a health server that behaves as `env: {FAKE: ...}` says

FAKE is one of: serve (default), slow SECONDS, raise, exit CODE, hang, broken FILE (raises while there is such a file),
crash FILE (once it is there, while serving), deaf (ignores SIGTERM), drain SECONDS (takes so long to stop), orphan
(lives on without its parent).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent import futures
from pathlib import Path


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def serve() -> None:
    from flowdex_orchestrator.processes import watch_parent

    stop = threading.Event()
    behaviour, _, value = os.environ.get("FAKE", "serve").partition(" ")
    if behaviour != "orphan":
        watch_parent(int(option("--parent-pid")), stop.set)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else lambda *_: stop.set())
    print(f"fake {sys.argv[1]} {behaviour} with {os.environ['OMP_NUM_THREADS']} threads", flush=True)
    if behaviour == "raise":
        raise ValueError("no model in this folder")
    if behaviour == "broken" and Path(value).exists():
        raise RuntimeError("broken")
    if behaviour == "exit":
        sys.exit(int(value or 0))
    if behaviour == "hang":
        stop.wait(60)
        return
    if behaviour == "slow":
        time.sleep(float(value))

    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{option('--port' if '--port' in sys.argv else '--port-grpc')}")
    server.start()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    print(" ".join(sys.argv[1:]), flush=True)
    end = time.monotonic() + 120
    while not stop.wait(0.05) and time.monotonic() < end:
        if behaviour == "crash" and Path(value).exists():
            Path(value).unlink()
            raise RuntimeError("crashed while serving")
    if behaviour == "drain":
        time.sleep(float(value))
    server.stop(0).wait()


def command_line() -> None:
    from flowdex.cli.main import main
    from flowdex_orchestrator.runner import plan

    plan.FLOWDEX = (sys.executable, str(Path(__file__).resolve()))  # type: ignore[assignment]
    main()


if __name__ == "__main__":
    serve() if sys.argv[1] in ("executor", "gateway") else command_line()
