"""From the first log line to the exit code: loading, failing, draining, and the death of the parent."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2

from flowdex import wire
from flowdex.documents import DocumentBatch

SLOW = """
import asyncio
import os
import time
from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests


class Tested(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.started = self.most = self.running = 0
        self.cancelled = 0

    def warm_up(self):
        while not os.path.exists("let-me-load"):
            time.sleep(0.05)

    @requests(on="/slow")
    def slow(self, docs: DocList[TextDoc], parameters: dict, **kwargs) -> DocList[TextDoc]:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(parameters["seconds"])
        self.running -= 1
        docs[0].text = "done"

    @requests(on="/slow-async")
    async def slow_async(self, docs: DocList[TextDoc], parameters: dict, **kwargs) -> DocList[TextDoc]:
        try:
            await asyncio.sleep(parameters["seconds"])
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        docs[0].text = "done"

    @requests(on="/count")
    async def count(self, docs: DocList[TextDoc], **kwargs):
        return {"started": self.started, "most": self.most, "cancelled": self.cancelled}

    def close(self):
        with open("closed", "w") as file:
            file.write("closed")
"""


def start_slow(start_worker, *options, **more):
    worker = start_worker(SLOW, "Tested", *options, **more)
    (worker.log.parent / "let-me-load").touch()
    return worker.wait_ready()


def in_background(worker, endpoint, seconds, results):
    def call():
        try:
            reply = worker.post(endpoint, ["x"], parameters={"seconds": seconds})
            results.append(wire.documents_of(reply).texts)
        except grpc.RpcError as error:
            results.append(error.code())

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def counts(worker) -> dict[str, float]:
    return wire.dict_from_struct(worker.post("/count", ["x"]).parameters)["__results__"]["tested"]


def test_health_says_serving_only_after_loading_and_warming(start_worker):
    worker = start_worker(SLOW)
    assert worker.health(timeout=60) == health_pb2.HealthCheckResponse.NOT_SERVING, "the port is open while it loads"
    with pytest.raises(grpc.RpcError) as raised:
        worker.post("/count", ["x"])
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "still loading" in raised.value.details()
    (worker.log.parent / "let-me-load").touch()
    worker.wait_ready()
    worker.terminate()
    assert worker.wait() == 0
    assert (worker.log.parent / "closed").exists()


def test_sigterm_while_loading_ends_at_once(start_worker):
    worker = start_worker(SLOW)
    assert worker.health(timeout=60) == health_pb2.HealthCheckResponse.NOT_SERVING
    worker.terminate()
    assert worker.wait(timeout=5) == 0


def test_sigterm_loses_no_request_in_flight_and_ends_every_watch(start_worker):
    worker = start_slow(start_worker)
    watch = worker.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    never_ending = threading.Event()

    def requests():
        yield wire.build_request("/count", DocumentBatch.from_columns(texts=["x"]))
        never_ending.wait(30)

    open_stream = worker.channel.stream_stream(wire.CALL)(requests())
    next(open_stream)
    results: list = []
    threads = [in_background(worker, endpoint, 1.5, results) for endpoint in ("/slow", "/slow-async", "/slow")]
    time.sleep(0.5)
    started = time.monotonic()
    worker.terminate()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert worker.wait(timeout=20) == 0, worker.output
    assert time.monotonic() - started < 10, "an idle stream or watch must not hold up the end"
    for thread in threads:
        thread.join(10)
    assert results == [["done"]] * 3
    never_ending.set()
    open_stream.cancel()


def test_after_the_grace_period_a_stuck_request_is_left_behind(start_worker):
    worker = start_slow(start_worker, "--grace", "1")
    results: list = []
    thread = in_background(worker, "/slow", 60, results)
    time.sleep(0.5)
    worker.terminate()
    assert worker.wait(timeout=6) == 0
    thread.join(10)
    assert len(results) == 1


def test_synchronous_methods_run_one_at_a_time_and_not_for_callers_that_have_gone(start_worker):
    worker = start_slow(start_worker)
    results: list = []
    threads = [in_background(worker, "/slow", 0.4, results) for _ in range(3)]
    time.sleep(0.1)
    with pytest.raises(grpc.RpcError) as raised:
        worker.post("/slow", ["late"], parameters={"seconds": 0.4}, timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError):
        worker.post("/slow-async", ["late"], parameters={"seconds": 30}, timeout=0.3)
    for thread in threads:
        thread.join(30)
    assert results == [["done"]] * 3
    assert counts(worker) == {"started": 3.0, "most": 1.0, "cancelled": 1.0}


def test_an_executor_that_declares_itself_concurrent_gets_many_calls(start_worker):
    worker = start_worker(SLOW.replace("class Tested(Executor):", "class Tested(Executor):\n    concurrent = True\n"))
    (worker.log.parent / "let-me-load").touch()
    worker.wait_ready()
    results: list = []
    for thread in [in_background(worker, "/slow", 0.5, results) for _ in range(3)]:
        thread.join(30)
    assert counts(worker)["most"] == 3.0


PARENT = """
import subprocess, sys, time, os
process = subprocess.Popen([*sys.argv[1:], "--parent-pid", str(os.getpid())])
print("child", process.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not status.startswith("Z")


@pytest.mark.parametrize("busy", [False, True])
def test_the_death_of_the_parent_ends_the_worker(start_worker, busy):
    worker = start_slow(start_worker, through=[sys.executable, "-c", PARENT])
    (pid,) = map(int, re.findall("^child ([0-9]+)$", worker.output, re.MULTILINE))
    thread = in_background(worker, "/slow", 30 if busy else 0, [])
    time.sleep(0.3)
    worker.process.kill()
    worker.wait()
    deadline = time.monotonic() + 2
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid), "the worker must end within 2 s"
    thread.join(30)


HEADER = "from jina import Executor, requests\n"


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("class Tested(:\n    pass", "SyntaxError: invalid syntax (executors_of_the_test.py, line 1)"),
        (
            HEADER + "class Tested(Executor):\n    def __init__(self, **kwargs):\n        raise SystemExit(0)",
            "SystemExit: 0",
        ),
        (
            HEADER + "class Tested(Executor):\n    def warm_up(self):\n        raise OSError('no such\\n  model')",
            "OSError: no such model",
        ),
    ],
    ids=["import", "syntax", "exit", "warm-up"],
)
def test_an_executor_that_cannot_be_loaded_says_why(start_worker, source, last_line):
    worker = start_worker(source)
    assert worker.wait() == 1
    assert worker.last_line == last_line
    assert "Traceback" in worker.output, "the log of somebody else's failing code says where"


def test_an_error_of_ours_has_a_traceback_for_debugging_only(start_worker):
    plain, debug = start_worker(HEADER, "Absent"), start_worker(HEADER, "Absent", "--log-level", "debug")
    assert plain.wait() == debug.wait() == 1
    assert plain.last_line.startswith("ConfigurationError: ")
    assert plain.last_line == debug.last_line
    assert "Traceback" not in plain.output
    assert "Traceback" in debug.output


def test_a_taken_port_is_known_at_once(start_worker):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        started = time.monotonic()
        worker = start_worker(SLOW, port=taken.getsockname()[1])
        assert worker.wait() == 1
        assert time.monotonic() - started < 10, "before anything is loaded"
        assert worker.last_line.startswith("ConfigurationError: cannot listen on 127.0.0.1: port ")


def test_nobody_else_gets_in_unless_told(start_worker):
    refused, told = (start_worker(SLOW, "Tested", "--host", "0.0.0.0", *more) for more in ((), ("--insecure",)))
    assert refused.wait() == 1
    assert refused.last_line.startswith("ConfigurationError: listening on 0.0.0.0 would open the executor")
    assert "`with: tls:`" in refused.last_line and "--insecure" in refused.last_line
    said = start_worker(SLOW, "Tested", "--host", "0.0.0.0", flow_extra="insecure: true")
    for each in (told, said):
        each.health(timeout=60)  # it listens


def test_stacks_are_sent_when_asked_for(start_worker):
    source = HEADER + (
        "class Tested(Executor):\n    @requests\n    def f(self, **kwargs):\n        raise RuntimeError('inside')\n"
    )
    worker = start_worker(source, "Tested", "--stacks").wait_ready()
    reply = worker.post("/anything-goes-to-default", ["x"])
    assert any("RuntimeError: inside" in line for line in reply.header.status.exception.stacks)


def test_the_message_limit_is_a_setting(start_worker):
    source = HEADER + "class Tested(Executor):\n    @requests\n    def f(self, docs, **kwargs):\n        return docs\n"
    worker = start_worker(source, "Tested", "--max-message-mib", "1").wait_ready()
    assert wire.error_of(worker.post("/x", ["a" * 500_000]).header) is None
    with pytest.raises(grpc.RpcError) as raised:
        worker.post("/x", ["a" * 1_500_000])
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
