"""A flow handled from another process: started in the background, stopped, its remains removed.

start_in_background() --spawns--> runner (own session)  --writes--> state.json --> what is shown here
stop_flow() --SIGTERM--> runner --> gateway, executors; what is left over is stopped one by one
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence

from flowdex.errors import PermissionDenied
from flowdex_orchestrator.runner.diagnosis import last_words
from flowdex_orchestrator.runner.logs import read_from
from flowdex_orchestrator.runner.state import FlowState, ProcessId, RunFolder, Status
from flowdex_orchestrator.runner.supervisor import StartFailed
from flowdex_orchestrator.runner.table import Display

__all__ = ["end_processes", "start_in_background", "stop_flow"]

_LOOK_SECONDS = 0.05
_AT_ONCE = 5.0  # seconds that a runner has to kill everything when asked a second time


def start_in_background(command: Sequence[str], folder: RunFolder, display: Display) -> FlowState:
    """Start a runner in a session of its own and wait until its flow is ready.

    Args:
        command: The runner's command line. Its output goes to `runner.log`, which the caller has rotated.
        folder: Where it writes its state.
        display: Shows the start.

    Returns:
        The state of the ready flow.

    Raises:
        StartFailed: It did not get ready; nothing of it runs.
        KeyboardInterrupt: Ctrl-C; the runner has been stopped.
    """
    log = folder.log("runner")
    with log.open("ab") as output:
        runner = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while True:
            ended = runner.poll() is not None  # asked before reading, so that the last state is seen
            state = folder.read()
            if state is not None and state.runner.pid == runner.pid:
                display.update(state)
                if state.status in (Status.READY, Status.DEGRADED):
                    return state
            if ended:
                raise StartFailed(_why(state, runner, read_from(log, 0)))
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        display.close()
        _stop_child(runner)
        raise
    finally:
        display.close()


def stop_flow(folder: RunFolder, *, tell: Callable[[str], None] = lambda text: None) -> bool:
    """Stop the flow of `folder`: the runner in order, or, if it is dead, what it has left.

    Args:
        folder: Of the flow.
        tell: Takes a line about what is being done.

    Returns:
        Whether anything ran.

    Raises:
        PermissionDenied: The flow belongs to another user.
    """
    state = folder.read()
    if state is None:
        return False
    grace = state.grace + _AT_ONCE
    found = state.running
    if found:
        tell(f"Stopping {state.flow} (process {state.runner.pid}) ...")
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGTERM, _AT_ONCE), (signal.SIGKILL, _AT_ONCE)):
            _send(state.runner, number)
            if _all_gone([state.runner], seconds):
                break
        state = folder.read() or state
    survivors = state.survivors()
    if survivors:
        tell(f"The runner is gone, but {len(survivors)} of its processes are not: stopping them ...")
        end_processes(survivors, grace)
    if found or survivors:
        state.status = Status.STOPPED
        with contextlib.suppress(OSError):
            folder.write(state)
    return found or bool(survivors)


def end_processes(processes: Sequence[ProcessId], grace: float) -> None:
    """End processes that have lost their runner: SIGTERM, and after `grace` seconds SIGKILL to their groups."""
    for process in processes:
        _send(process, signal.SIGTERM)
    if not _all_gone(processes, grace):
        for process in processes:
            if process.alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        _all_gone(processes, _AT_ONCE)


def _send(process: ProcessId, number: signal.Signals) -> None:
    if process.alive:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return  # it has ended meanwhile
        except PermissionError:
            raise PermissionDenied(f"process {process.pid} belongs to another user, who has to stop the flow") from None


def _all_gone(processes: Iterable[ProcessId], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(process.alive for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _stop_child(runner: subprocess.Popen[bytes]) -> None:
    """Stop the runner that was just started; another Ctrl-C makes it quick."""
    while True:
        runner.terminate()
        try:
            runner.wait()
        except KeyboardInterrupt:
            continue
        return


def _why(state: FlowState | None, runner: subprocess.Popen[bytes], output: str) -> str:
    if state is not None and state.runner.pid == runner.pid and state.error:
        return state.error
    if state is not None and state.runner.pid == runner.pid and state.status is Status.STOPPED:
        return "it was stopped before it was ready"
    return last_words(output) or f"the runner ended with exit code {runner.returncode}"
