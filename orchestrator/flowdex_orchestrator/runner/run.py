"""The runner's life, in the foreground: from a plan to the flow's end, with signals and the files other commands read.

run_flow() --> Supervisor --> state.json, display
           --> Commands <-- flowdex scale, flowdex restart
    SIGINT, SIGTERM, SIGHUP: stop in order; a second one: at once
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Callable

from flowdex_orchestrator.runner.commands import Commands
from flowdex_orchestrator.runner.state import FlowState, RunFolder
from flowdex_orchestrator.runner.supervised import Policy
from flowdex_orchestrator.runner.supervisor import FlowPlan, Supervisor
from flowdex_orchestrator.runner.table import Display

__all__ = ["run_flow"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_log = logging.getLogger(__name__)


async def run_flow(
    plan: FlowPlan,
    state: FlowState,
    folder: RunFolder,
    display: Display,
    *,
    on_ready: Callable[[FlowState], None] = lambda state: None,
    on_stop: Callable[[], None] = lambda: None,
    timeout: float = math.inf,
    policy: Policy | None = None,
) -> int:
    """Run a flow until a signal stops it; must be called in the main thread.

    Args:
        plan: The processes.
        state: The flow's state, written to `folder` at every change.
        folder: Where; its lock is held by the caller.
        display: Shows the start, and restarts.
        on_ready: Called once everything is ready.
        on_stop: Called when the flow begins to stop.
        timeout: Seconds until everything must be ready.
        policy: Pauses and bounds of each process.

    Returns:
        0 when a flow that was ready was stopped, 128 + the signal's number when it was stopped before that.

    Raises:
        StartFailed: The flow did not get ready; all its processes have been stopped.
    """
    muted = False
    commands: Commands | None = None

    def show(say: Callable[..., None], *arguments: FlowState) -> None:
        nonlocal muted
        if muted:
            return
        try:
            say(*arguments)
        except (OSError, SystemExit):  # rich's answer to a closed pipe is SystemExit
            muted = True  # a flow that serves goes on without anyone who reads what is printed

    def changed(state: FlowState) -> None:
        show(display.update, state)
        try:
            folder.write(state)
        except OSError as error:  # a full disk must not end a flow that serves
            _log.warning("could not write the state of the flow to %s: %s", folder.path, error)
        if commands is not None:
            commands.scaler.watch_gateway()

    supervisor = Supervisor(plan, state, policy=policy, changed=changed)
    commands = Commands(supervisor, plan.planner) if plan.planner is not None else None
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 1:
            supervisor.kill()
            return
        show(display.close)
        show(on_stop)
        supervisor.request_stop()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        if commands is not None:
            state.control = await commands.start(folder)
        await supervisor.start(timeout)
        show(display.close)
        if received:
            return 128 + received[0]
        show(on_ready, state)
        if commands is not None:
            commands.flow_is_ready()
        await supervisor.wait()
        return 0
    finally:
        show(display.close)
        supervisor.request_stop()
        if commands is not None:
            await commands.stop()
        await supervisor.stop()
