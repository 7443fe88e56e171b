"""Supervision with shell one-liners for executors and a file for health: restarts, give-up, order of the stop."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from flowdex_orchestrator.runner.process import ChildProcess, Launch
from flowdex_orchestrator.runner.state import FlowState, ProcessId, State, Status
from flowdex_orchestrator.runner.supervised import Policy, ProcessPlan
from flowdex_orchestrator.runner.supervisor import FlowPlan, StartFailed, Supervisor

QUICK = Policy(
    first_pause=0.02,
    jitter=0.0,
    stable=60.0,
    give_up_after=3,
    slow_pause=0.3,
    look_loading=0.01,
    look_ready=0.02,
    grace_loading=0.3,
    silent_after=2,
)
SERVE = "touch {ready}; exec sleep 60"


class FileProbe:
    """Healthy while the file is there."""

    reason = ""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.silent = False

    async def ready(self, timeout: float = 2.0) -> bool:
        exists = self._file.exists()
        self.silent = not exists
        return exists

    async def close(self) -> None:
        pass


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., ProcessPlan]:
    ports = iter(range(21_000, 21_100))

    def make(name: str, script: str, timeout: float = 20.0, silent: float = math.inf) -> ProcessPlan:
        ready = tmp_path / f"{name}.ready"
        # A process that starts is not ready, whatever the one before it was.
        command = f"rm -f {ready}; {script.format(ready=ready, folder=tmp_path)}"
        launch = Launch(("sh", "-c", command), dict(os.environ), tmp_path, tmp_path / f"{name}.log")
        replica = None if name == "gateway" else 0
        return ProcessPlan(name, replica, "127.0.0.1", next(ports), launch, partial(FileProbe, ready), timeout, silent)

    return make


def supervise(*plans: ProcessPlan, policy: Policy = QUICK, history: list[str] | None = None) -> Supervisor:
    *executors, gateway = plans
    runner = ProcessId.of(os.getpid())
    assert runner is not None

    def changed(state: FlowState) -> None:
        if history is not None:
            history.append(" ".join(f"{p.name}={p.state.value}" for p in state.processes) + f" {state.status.value}")

    state = FlowState("flow.yml", "test", runner)
    return Supervisor(FlowPlan(executors, gateway, {"grpc": "grpc://x"}), state, policy=policy, changed=changed)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.005)


async def test_all_start_at_once_and_stop_gateway_first(plan: Callable[..., ProcessPlan]) -> None:
    history: list[str] = []
    serve = "touch {folder}/began.$$; sleep 0.2; " + SERVE
    flow = supervise(plan("a", serve), plan("b", serve), plan("gateway", serve), history=history)
    began = time.monotonic()
    await flow.start()
    assert time.monotonic() - began < 0.55  # not 3 x 0.2 one after the other
    assert flow.state.status is Status.READY
    assert [process.state for process in flow.state.processes] == [State.READY] * 3
    pids = [process.process for process in flow.state.processes]
    await flow.stop()
    assert flow.state.status is Status.STOPPED
    assert not any(pid.alive for pid in pids if pid)
    assert "a=ready b=ready gateway=stopping stopping" in history
    assert "a=ready b=ready gateway=stopped stopping" in history
    assert history[-1] == "a=stopped b=stopped gateway=stopped stopped"


async def test_a_failing_executor_is_named_with_cause_and_all_is_stopped(plan: Callable[..., ProcessPlan]) -> None:
    flow = supervise(
        plan("good", SERVE),
        plan("bad", "echo 'ModuleNotFoundError: No module named \"x\"' | tr '\"' \"'\"; exit 1"),
        plan("gateway", "sleep 60"),
    )
    with pytest.raises(StartFailed) as failure:
        await flow.start()
    assert "bad-0 failed: ModuleNotFoundError: No module named 'x' (install it:" in str(failure.value)
    assert "flowdex logs bad-0" in str(failure.value)
    assert "good" not in str(failure.value)
    assert flow.state.status is Status.FAILED
    assert flow.state.error == str(failure.value)
    assert [process.state for process in flow.state.processes] == [State.STOPPED, State.FAILED, State.STOPPED]
    assert not any(process.process.alive for process in flow.state.processes if process.process)


async def test_exit_with_code_0_before_readiness_is_a_failure(plan: Callable[..., ProcessPlan]) -> None:
    flow = supervise(plan("bad", "exit 0"), plan("gateway", SERVE))
    with pytest.raises(StartFailed, match=r"exit code 0 .*must not end by itself"):
        await flow.start()


async def test_a_program_that_does_not_exist_is_a_failure(plan: Callable[..., ProcessPlan], tmp_path: Path) -> None:
    missing = plan("bad", "")
    launch = Launch(("/does/not/exist",), {}, tmp_path, tmp_path / "bad.log")
    missing = ProcessPlan("bad", 0, "127.0.0.1", missing.port, launch, missing.probe)
    with pytest.raises(StartFailed, match=r"bad-0 failed: could not start /does/not/exist"):
        await supervise(missing, plan("gateway", SERVE)).start()


async def test_an_executor_that_hangs_runs_into_its_own_time_limit(plan: Callable[..., ProcessPlan]) -> None:
    # It ignores SIGTERM, too.
    flow = supervise(plan("slow", "trap '' TERM; echo loading 1 %; sleep 60", timeout=0.2), plan("gateway", SERVE))
    began = time.monotonic()
    with pytest.raises(
        StartFailed, match=r"slow-0 failed: it was not ready within 0.2 s; .*loading 1 %.*timeout_ready"
    ):
        await flow.start()
    assert time.monotonic() - began < 3
    assert not any(process.process.alive for process in flow.state.processes if process.process)


async def test_the_time_limit_of_the_flow_names_what_still_loads(plan: Callable[..., ProcessPlan]) -> None:
    flow = supervise(plan("fast", SERVE), plan("slow", "echo half way; sleep 60"), plan("gateway", SERVE))
    with pytest.raises(StartFailed) as failure:
        await flow.start(timeout=0.4)
    assert "not ready within 0.4 s; still loading:\n  slow-0 (0." in str(failure.value)
    assert "half way" in str(failure.value)
    assert "fast" not in str(failure.value)


async def test_the_gateways_clock_starts_when_the_executors_are_ready(plan: Callable[..., ProcessPlan]) -> None:
    flow = supervise(plan("slow", "sleep 0.5; " + SERVE), plan("gateway", "sleep 0.6; " + SERVE, timeout=0.3))
    await flow.start()
    await flow.stop()


async def test_a_taken_port_is_a_failure_with_a_remedy(plan: Callable[..., ProcessPlan]) -> None:
    taken = plan("a", SERVE)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", taken.port)
    async with server:
        with pytest.raises(
            StartFailed, match=rf"a-0 failed: port {taken.port} on 127.0.0.1 is taken \(another program"
        ):
            await supervise(taken, plan("gateway", SERVE)).start()


async def test_a_crashed_process_is_started_again(plan: Callable[..., ProcessPlan]) -> None:
    history: list[str] = []
    flow = supervise(plan("a", SERVE), plan("gateway", SERVE), history=history)
    await flow.start()
    process = flow.state.processes[0]
    first = process.process
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: process.restarts == 1 and flow.state.status is Status.READY)
    assert process.process is not None
    assert process.process != first
    assert "a=waiting gateway=ready degraded" in history
    assert "a=loading gateway=ready degraded" in history
    await flow.stop()


async def test_what_hangs_is_killed_and_started_again(plan: Callable[..., ProcessPlan], tmp_path: Path) -> None:
    history: list[str] = []
    # Deaf to SIGTERM, as a process that was stopped is.
    flow = supervise(plan("a", "trap '' TERM; " + SERVE, silent=0.3), plan("gateway", SERVE), history=history)
    await flow.start()
    process = flow.state.processes[0]
    first = process.process
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    (tmp_path / "a.ready").unlink()
    silent_from = time.monotonic()
    await until(lambda: process.state is State.WAITING)
    assert time.monotonic() - silent_from >= 0.3
    assert process.cause.startswith("it hung: no answer to health checks for 0.3 s")
    await until(lambda: flow.state.status is Status.READY)
    assert process.restarts == 1
    assert not first.alive
    assert process.process != first
    assert "a=unresponsive gateway=ready degraded" in history
    await flow.stop()


async def test_what_answers_that_it_is_not_ready_does_not_hang(
    plan: Callable[..., ProcessPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = supervise(plan("a", SERVE, silent=0.1), plan("gateway", SERVE))
    await flow.start()
    monkeypatch.setattr(FileProbe, "silent", property(lambda probe: False, lambda probe, value: None), raising=False)
    (tmp_path / "a.ready").unlink()
    process = flow.state.processes[0]
    await until(lambda: process.state is State.UNREADY)
    assert process.cause == "it answers that it takes no requests"
    await asyncio.sleep(0.3)
    assert process.state is State.UNREADY
    assert process.restarts == 0
    (tmp_path / "a.ready").touch()
    await until(lambda: process.state is State.READY)
    assert process.cause == ""
    await flow.stop()


async def test_a_crash_loop_is_given_up_but_tried_again_slowly(
    plan: Callable[..., ProcessPlan], tmp_path: Path
) -> None:
    script = "[ -e {folder}/broken ] && {{ echo 'RuntimeError: broken'; exit 1; }}; " + SERVE
    flow = supervise(plan("a", script), plan("gateway", SERVE))
    await flow.start()
    (tmp_path / "broken").touch()
    process = flow.state.processes[0]
    assert process.process is not None
    os.kill(process.process.pid, signal.SIGKILL)
    await until(lambda: process.state is State.FAILED)
    assert process.cause == "RuntimeError: broken"
    assert flow.state.status is Status.DEGRADED
    assert process.restarts == 2  # three lives: failures 1, 2, 3
    (tmp_path / "broken").unlink()
    await until(lambda: flow.state.status is Status.READY)
    assert process.restarts == 3
    assert process.cause == ""
    await flow.stop()


def test_pauses_grow_to_a_limit_and_then_are_slow() -> None:
    policy = Policy(jitter=0.0, first_pause=1, factor=2, longest_pause=5, give_up_after=6, slow_pause=60)
    assert [policy.pause(n) for n in range(1, 8)] == [1, 2, 4, 5, 5, 60, 60]
    jittered = {Policy(first_pause=1, jitter=0.2).pause(1) for _ in range(50)}
    assert len(jittered) > 40
    assert all(0.8 <= pause <= 1.2 for pause in jittered)


async def test_what_ran_long_enough_starts_its_count_anew(plan: Callable[..., ProcessPlan]) -> None:
    policy = Policy(**{**vars(QUICK), "stable": 0.0, "give_up_after": 2, "slow_pause": 60.0})
    flow = supervise(plan("a", SERVE), plan("gateway", SERVE), policy=policy)
    await flow.start()
    process = flow.state.processes[0]
    for restarts in (1, 2, 3):
        assert process.process is not None
        os.kill(process.process.pid, signal.SIGKILL)
        await until(lambda restarts=restarts: process.restarts == restarts and process.state is State.READY)
    await flow.stop()


async def test_silence_shows_and_passes(plan: Callable[..., ProcessPlan], tmp_path: Path) -> None:
    flow = supervise(plan("a", SERVE), plan("gateway", SERVE))
    await flow.start()
    (tmp_path / "a.ready").unlink()
    await until(lambda: flow.state.processes[0].state is State.UNRESPONSIVE)
    assert flow.state.status is Status.DEGRADED
    (tmp_path / "a.ready").touch()
    await until(lambda: flow.state.status is Status.READY)
    assert flow.state.processes[0].restarts == 0
    await flow.stop()


async def test_an_external_executor_is_watched_not_started(plan: Callable[..., ProcessPlan], tmp_path: Path) -> None:
    file = tmp_path / "external"
    external = ProcessPlan("ext", 0, "127.0.0.1", 9, None, partial(FileProbe, file), 20)
    flow = supervise(external, plan("gateway", SERVE))
    start = asyncio.create_task(flow.start())
    await until(lambda: flow.state.processes[1].state is State.READY)
    assert not start.done()
    file.touch()
    await start
    assert flow.state.processes[0].process is None
    await flow.stop()
    late = ProcessPlan("ext", 0, "127.0.0.1", 9, None, partial(FileProbe, tmp_path / "never"), 0.1)
    with pytest.raises(StartFailed, match=r"the external executor at 127.0.0.1:9 was not ready within 0.1 s"):
        await supervise(late, plan("gateway", SERVE)).start()


async def test_a_stop_while_loading_is_quick(plan: Callable[..., ProcessPlan]) -> None:
    flow = supervise(plan("a", "trap '' TERM; sleep 60"), plan("gateway", "sleep 60"))
    start = asyncio.create_task(flow.start())
    await until(lambda: all(process.process for process in flow.state.processes))
    pids = [process.process for process in flow.state.processes]
    flow.request_stop()
    await start
    began = time.monotonic()
    await flow.stop()
    assert time.monotonic() - began < 2
    assert not any(pid.alive for pid in pids if pid)
    assert flow.state.status is Status.STOPPED


async def test_a_second_signal_kills_at_once(plan: Callable[..., ProcessPlan]) -> None:
    stubborn = "trap '' TERM; touch {ready}; while true; do sleep 1; done"
    flow = supervise(plan("a", stubborn), plan("gateway", stubborn))
    await flow.start()
    stop = asyncio.create_task(flow.stop())
    await asyncio.sleep(0.1)
    assert not stop.done()
    flow.kill()
    await asyncio.wait_for(stop, 2)
    assert not any(process.process.alive for process in flow.state.processes if process.process)


async def test_a_defect_of_the_supervisor_is_raised(plan: Callable[..., ProcessPlan]) -> None:
    class Broken(FileProbe):
        async def ready(self, timeout: float = 2.0) -> bool:
            raise ZeroDivisionError

    broken = plan("a", SERVE)
    broken = ProcessPlan("a", 0, broken.host, broken.port, broken.launch, partial(Broken, Path("x")))
    flow = supervise(broken, plan("gateway", SERVE))
    with pytest.raises(ZeroDivisionError):
        await flow.start()
    with pytest.raises(ZeroDivisionError):
        await flow.stop()


# ---- one process ----


async def test_what_a_process_started_goes_down_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowdex_orchestrator.runner.process._LEFTOVERS_END_WITHIN", 0.3)
    script = "(sleep 0.1; touch finished) & sleep 60 & echo $! > child.pid; exit 3"
    child = await ChildProcess.start(Launch(("sh", "-c", script), dict(os.environ), tmp_path, tmp_path / "x.log"))
    assert await child.wait() == 3
    grandchild = int((tmp_path / "child.pid").read_text())
    await until(lambda: ProcessId.of(grandchild) is None)
    assert (tmp_path / "finished").exists()  # it was given a moment


async def test_output_is_that_of_this_process_alone(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    for word in ("first", "second"):
        launch = Launch(("sh", "-c", f"echo {word}; echo {word} >&2; read x"), dict(os.environ), tmp_path, log)
        child = await ChildProcess.start(launch)
        assert await asyncio.wait_for(child.wait(), 5) == 1  # standard input is empty: `read` fails
        assert child.output == f"{word}\n{word}\n"
    assert log.read_text().count("---- started") == 2
