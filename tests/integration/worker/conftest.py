"""Workers as real processes, around executors that a test writes to disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb

START_SECONDS = 90  # jina alone takes seconds to import, more on a busy machine


@dataclass
class Worker:
    """A `flowdex executor` process."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}",
            options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100)],
        )

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        return self.output.strip().splitlines()[-1]

    def health(self, service: str = "", timeout: float = 5) -> int:
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return check(health_pb2.HealthCheckRequest(service=service), timeout=timeout, wait_for_ready=True).status

    def wait_ready(self) -> Worker:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the worker ended:\n{self.output}"
            try:
                if self.health(timeout=1) == health_pb2.HealthCheckResponse.SERVING:
                    return self
            except grpc.RpcError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {START_SECONDS} s:\n{self.output}")

    def post(
        self,
        endpoint: str,
        texts: list[str | None] | None = None,
        *,
        documents: DocumentBatch | None = None,
        parameters: dict[str, Any] | None = None,
        timeout: float = 30,
    ) -> pb.DataRequestProto:
        """Call the worker as a gateway does; the reply, which may carry an error."""
        if texts is not None:
            documents = DocumentBatch.from_columns(ids=[f"d{index}" for index in range(len(texts))], texts=texts)
        data = wire.build_request(endpoint, documents, parameters=parameters, request_id="the-request")
        return wire.read_request(self.channel.unary_unary(wire.PROCESS_SINGLE_DATA)(data, timeout=timeout))

    def wait(self, timeout: float = 60) -> int:
        return self.process.wait(timeout)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


Start = Callable[..., Worker]


def _start(
    folder: Path,
    source: str,
    uses: str,
    *options: str,
    flow_extra: str = "",
    port: int | None = None,
    through: Sequence[str] = (),
) -> Worker:
    (folder / "executors_of_the_test.py").write_text(textwrap.dedent(source))
    flow = folder / "flow.yml"
    flow.write_text(
        f"jtype: Flow\nexecutors:\n  - name: tested\n    uses: {uses}\n"
        f"    py_modules: [executors_of_the_test.py]\n{textwrap.indent(textwrap.dedent(flow_extra), '    ')}"
    )
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    log = folder / "worker.log"
    command = [sys.executable, "-m", "flowdex", "executor", "tested", "--flow", str(flow), "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*through, *command, *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    return Worker(process, port, log)


def _starter(folder: Path) -> Iterator[Start]:
    workers: list[Worker] = []

    def start(source: str, uses: str = "Tested", *options: str, **more: Any) -> Worker:
        place = folder / f"worker-{len(workers)}"
        place.mkdir()
        workers.append(_start(place, source, uses, *options, **more))
        return workers[-1]

    yield start
    for worker in workers:
        worker.channel.close()
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait(10)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Start]:
    """Start workers for one test: `start_worker(source, class_name, *options)`."""
    yield from _starter(tmp_path)


@pytest.fixture(scope="module")
def start_shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start workers that all tests of a module share."""
    yield from _starter(tmp_path_factory.mktemp("workers"))
