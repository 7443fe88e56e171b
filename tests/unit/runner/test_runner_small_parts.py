"""Ports, environment, diagnosis: the runner's leaf modules."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from flowdex.errors import Unavailable
from flowdex_orchestrator.runner import environment, ports
from flowdex_orchestrator.runner.diagnosis import diagnose
from flowdex_orchestrator.runner.environment import THREAD_VARIABLES, child_environment
from flowdex_orchestrator.runner.ports import free_ports, is_free

# ---- ports ----


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_free_ports_differ_and_are_below_the_systems_own_range() -> None:
    found = free_ports(50)
    assert len(set(found)) == 50
    assert all(20_000 <= port < ports._ephemeral_start() for port in found)


def test_excluded_ports_are_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([20_001, 20_002, 20_002, 20_003])
    monkeypatch.setattr(ports.random, "randint", lambda low, high: next(drawn))
    monkeypatch.setattr(ports, "is_free", lambda port, host: True)
    assert free_ports(2, exclude=frozenset({20_001})) == [20_002, 20_003]


def test_no_free_port_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port, host: False)
    with pytest.raises(Unavailable, match="port:"):
        free_ports(1)


# ---- environment ----


@pytest.mark.parametrize(
    ("cores", "replicas", "threads"), [(2, 1, "2"), (2, 2, "1"), (2, 3, "1"), (16, 3, "5"), (1, 1, "1")]
)
def test_replicas_share_the_cores(cores: int, replicas: int, threads: str) -> None:
    variables = child_environment({}, replicas=replicas, base={}, cores=cores)
    assert {variables[name] for name in THREAD_VARIABLES} == {threads}


def test_what_the_user_sets_wins() -> None:
    variables = child_environment(
        {"MKL_NUM_THREADS": "7", "A": "executor"}, base={"OMP_NUM_THREADS": "5", "A": "shell", "B": "shell"}, cores=2
    )
    assert variables["OMP_NUM_THREADS"] == "5"
    assert variables["MKL_NUM_THREADS"] == "7"
    assert (variables["A"], variables["B"]) == ("executor", "shell")


def test_jina_does_not_phone_home() -> None:
    assert child_environment({}, base={})["JINA_OPTOUT_TELEMETRY"] == "1"


@pytest.mark.parametrize(
    ("text", "most"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 10**6), ("", 10**6)]
)
def test_a_cpu_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, most: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    monkeypatch.setattr(environment, "_CGROUP_QUOTA", quota)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert environment.usable_cores() == min(64, most)


# ---- diagnosis ----

TRACEBACK = """\
WARNING: something
Traceback (most recent call last):
  File "x.py", line 3, in __init__
    raise ValueError("no such model")
ValueError: no such model
"""


@pytest.mark.parametrize(
    ("code", "output", "cause"),
    [
        (1, TRACEBACK, "ValueError: no such model"),
        (1, TRACEBACK + "gRPC: closing\n\n", "ValueError: no such model"),
        (1, "x\nmy.package.CustomError: in 3 parts\n", "my.package.CustomError: in 3 parts"),
        (1, "NotFound: no executor 'x'\n", "NotFound: no executor 'x'"),
        (1, "KeyError: 'a'\nStopIteration\n", "KeyError: 'a'"),
        (1, "Traceback ...\nKeyboardInterrupt\n", "KeyboardInterrupt"),
        (3, "only words\n\n", "it ended with exit code 3; the last it said: only words"),
        (3, "", "it ended with exit code 3 and printed nothing"),
        (0, "", "it ended with exit code 0 and printed nothing"),
        (-signal.SIGKILL, TRACEBACK, "killed by SIGKILL"),
        (-signal.SIGSEGV, "", "killed by SIGSEGV"),
        (-250, "", "killed by signal 250"),
    ],
)
def test_the_cause_is_one_line(code: int, output: str, cause: str) -> None:
    assert diagnose(code, output).cause == cause


@pytest.mark.parametrize(
    ("code", "output", "remedy"),
    [
        (1, "ModuleNotFoundError: No module named 'torch.nn'", "pip install torch`"),
        (1, "OSError: [Errno 98] Address already in use", "another program listens there"),
        (1, "RuntimeError: Failed to bind to address 127.0.0.1:80", "another program listens there"),
        (1, "torch.OutOfMemoryError: CUDA out of memory", "not enough memory"),
        (1, "TypeError: Encoder.__init__() got an unexpected keyword argument 'modle'", "uses_with"),
        (-signal.SIGKILL, "", "memory"),
        (0, "", "must not end by itself"),
    ],
)
def test_known_causes_have_a_remedy(code: int, output: str, remedy: str) -> None:
    assert remedy in diagnose(code, output).remedy
    assert remedy in str(diagnose(code, output))


def test_a_cause_is_cut_to_a_readable_length() -> None:
    assert len(diagnose(1, "ValueError: " + "x" * 10_000).cause) <= 500


def test_executors_find_their_own_flow_whatever_the_shell_says() -> None:
    shell = {"FLOWDEX_URL": "grpc://elsewhere:1", "FLOWDEX_API_KEY": "key"}
    variables = child_environment({}, base=shell, url="grpc://127.0.0.1:51000")
    assert (variables["FLOWDEX_URL"], variables["FLOWDEX_API_KEY"]) == ("grpc://127.0.0.1:51000", "key")
    own = child_environment({"FLOWDEX_URL": "grpc://own:2"}, base=shell, url="grpc://127.0.0.1:51000")
    assert own["FLOWDEX_URL"] == "grpc://own:2"
