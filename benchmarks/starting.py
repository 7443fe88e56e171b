"""How long things take from the command to being ready, with everything on a disk that has been read before.

    python benchmarks/starting.py [--rounds 5]

    python -c "pass"                     the interpreter by itself
    python -c "import jina"              what each executor process pays for the Executor class
    python -c "import torch"             what an encoder pays besides
    flowdex executor encoder             MiniLM, until its health says that it serves
    flowdex up --detach                  flow.yml as it is: segmenter, two encoders, indexer, ranker, gateway; the same
                                         flow again and again, so that it has been checked before
    flowdex encode "x"                   on that flow, the whole command

Medians over the rounds, and the longest. The first round, in which files are read from disk, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import FLOWDEX, Servers, free_ports

FLOW = Path(__file__).resolve().parent.parent / "flow.yml"
SECONDS = 120


def run(command: Sequence[str]) -> float:
    """Seconds that a command of this Python takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def encoder() -> float:
    """Seconds until an encoder serves."""
    (port,) = free_ports(1)
    with Servers() as servers:
        start = time.perf_counter()
        servers.start([*FLOWDEX, "executor", "encoder", "--flow", str(FLOW), "--port", str(port)])
        servers.wait_for(port)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[no-untyped-call]
            while check(health_pb2.HealthCheckRequest()).status != health_pb2.HealthCheckResponse.SERVING:
                if time.perf_counter() - start > SECONDS:
                    raise SystemExit("the encoder did not start")
                time.sleep(0.02)
        return time.perf_counter() - start


def flow_in(folder: Path) -> str:
    """Put flow.yml into a folder, with free ports in the place of its own; its address."""
    grpc_port, http_port = free_ports(2)
    text = FLOW.read_text()
    assert "[51000, 8080]" in text, "flow.yml has other ports than this program replaces"
    (folder / "flow.yml").write_text(text.replace("[51000, 8080]", f"[{grpc_port}, {http_port}]"))
    return f"grpc://127.0.0.1:{grpc_port}"


def measure(what: str, once: Callable[[], float], rounds: int) -> None:
    """Print a row of the table."""
    seconds = [once() for _ in range(rounds + 1)][1:]
    print(f"| {what} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |", flush=True)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ["JINA_OPTOUT_TELEMETRY"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling our sources again and again is nobody's start
    print("| | median s | longest s |\n|---|---:|---:|")
    for code in ("pass", "import jina", "import torch"):
        measure(f'python -c "{code}"', lambda code=code: run(["-c", code]), rounds)  # type: ignore[misc]
    measure("flowdex executor encoder, until it serves", encoder, rounds)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        url = flow_in(Path(folder))

        def up() -> float:
            run(["-m", "flowdex", "down"])
            return run(["-m", "flowdex", "up", "--detach"])

        try:
            measure("flowdex up --detach, until all are ready", up, rounds)
            encode = ["-m", "flowdex", "--url", url, "encode", "x"]
            measure('flowdex encode "x" on a running flow', lambda: run(encode), rounds)
        finally:
            run(["-m", "flowdex", "down"])


if __name__ == "__main__":
    main()
