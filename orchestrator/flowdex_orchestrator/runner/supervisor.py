"""The whole flow: every executor started at once, the gateway with them, all watched, restarted, stopped in order.

    FlowPlan --> Supervisor.start() --> Supervised (executors), Supervised (gateway)
                     |                        | change of state
                     |  <---------------------+--> FlowState --> state.json, table
                     +-- ready, or StartFailed (name, cause, remedy)
    Supervisor.stop(): the gateway drains, then the executors

One `Supervised` a process, kept in a list that can grow and shrink while the flow runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowdex.errors import Unavailable
from flowdex_orchestrator.runner.state import FlowState, ProcessState, State, Status
from flowdex_orchestrator.runner.supervised import Policy, ProcessPlan, Supervised

__all__ = ["FlowPlan", "StartFailed", "Supervisor"]

_GATHER_FAILURES = 0.3  # seconds: what failed for the same reason at the same time is reported together


class StartFailed(Unavailable):
    """The flow could not be started; the message names each failed process, its cause and the remedy."""

    @property
    def name(self) -> str:
        """It travels as the public class it is a kind of."""
        return Unavailable.__name__


@dataclass(frozen=True)
class FlowPlan:
    """All processes that a flow needs.

    Attributes:
        executors: One plan a replica.
        gateway: The plan of the gateway.
        endpoints: Protocol or page -> URL, shown once the flow is ready.
    """

    executors: Sequence[ProcessPlan]
    gateway: ProcessPlan
    endpoints: dict[str, str]


class Supervisor:
    """Runs one flow.

    Args:
        plan: The processes.
        state: Kept up to date; `changed` is called after every change.
        policy: Pauses and bounds of each process.
        changed: Writes the state down, redraws a table, ...
    """

    def __init__(
        self,
        plan: FlowPlan,
        state: FlowState,
        *,
        policy: Policy | None = None,
        changed: Callable[[FlowState], None] = lambda state: None,
    ) -> None:
        self.state = state
        self._changed_callback = changed
        self._change = asyncio.Event()
        self._executors_ready = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._tasks: dict[Supervised, asyncio.Task[None]] = {}
        policy = policy or Policy()
        self._executors = [self._supervise(each, policy) for each in plan.executors]
        self._gateway = self._supervise(plan.gateway, policy, clock_starts=self._executors_ready)
        state.processes = [each.state for each in self._all]
        state.endpoints = dict(plan.endpoints)
        state.grace = plan.gateway.grace + max((each.grace for each in plan.executors), default=0.0)

    def _supervise(self, plan: ProcessPlan, policy: Policy, clock_starts: asyncio.Event | None = None) -> Supervised:
        return Supervised(
            plan,
            policy,
            changed=self._changed,
            flow_was_ready=lambda: self.state.ready_at is not None,
            clock_starts=clock_starts,
        )

    @property
    def _all(self) -> list[Supervised]:
        return [*self._executors, self._gateway]

    async def start(self, timeout: float = math.inf) -> None:
        """Start everything and wait until all of it is ready; returns early when a stop is requested.

        Raises:
            StartFailed: A process ended or was too slow, or `timeout` seconds have passed. Everything is stopped then.
        """
        self._changed()
        for each in self._all:
            task = self._tasks[each] = asyncio.create_task(each.run(), name=each.state.label)
            task.add_done_callback(lambda _: self._change.set())
        deadline = time.monotonic() + timeout
        while not self._stop_asked.is_set():
            self._raise_defects()
            if any(each.state.state is State.FAILED for each in self._all):
                await asyncio.sleep(_GATHER_FAILURES)
                await self._fail("\n".join(map(_report, self._failed())))
            if all(each.state.state is State.READY for each in self._all):
                self.state.ready_at = time.time()
                self._changed()
                return
            left = deadline - time.monotonic()
            if left <= 0:
                await self._fail(self._too_late(timeout))
            await self._next_change(left)

    async def wait(self) -> None:
        """Wait until a stop is requested."""
        while not self._stop_asked.is_set():
            self._raise_defects()
            await self._next_change(math.inf)

    def request_stop(self) -> None:
        """Let `start` or `wait` return, so that whoever waits there can `stop`."""
        self._stop_asked.set()
        self._changed()

    async def stop(self) -> None:
        """Stop the gateway, which finishes the requests it has, then the executors; returns when all have ended."""
        self.request_stop()
        if self.state.ready_at is not None:
            await self._end([self._gateway])
        await self._end(self._all)
        self._changed()
        self._raise_defects()

    def kill(self) -> None:
        """End every process at once; `stop` returns soon after."""
        self._stop_asked.set()
        for each in self._all:
            each.kill()
        self._changed()

    async def _end(self, processes: Sequence[Supervised]) -> None:
        for each in processes:
            each.stop()
        tasks = [self._tasks[each] for each in processes if each in self._tasks]
        if tasks:
            await asyncio.wait(tasks)

    async def _fail(self, message: str) -> None:
        self.state.error = message
        await self.stop()
        raise StartFailed(message)

    def _raise_defects(self) -> None:
        """Raise what ended a supervising task: a defect of ours must not pass in silence."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    def _failed(self) -> list[Supervised]:
        return [each for each in self._all if each.state.state is State.FAILED]

    def _too_late(self, timeout: float) -> str:
        now = time.time()
        lines = [f"the flow was not ready within {timeout:g} s; still loading:"]
        waiting = [each for each in self._executors if each.state.state is not State.READY]
        for each in waiting or [self._gateway]:  # the gateway is ready after them at the earliest
            line = f"  {each.state.label} ({now - (each.state.started_at or now):.1f} s)"
            if said := each.last_words:
                line += f", the last it said: {said}"
            lines.append(line)
        return "\n".join(lines)

    async def _next_change(self, timeout: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._change.wait(), None if timeout == math.inf else timeout)
        self._change.clear()

    def _changed(self) -> None:
        """Draw the flow's status from its processes' states, and tell."""
        if all(each.state.state is State.READY for each in self._executors):
            self._executors_ready.set()
        self.state.status = self._status()
        self._change.set()
        self._changed_callback(self.state)

    def _status(self) -> Status:
        states = {each.state.state for each in self._all}
        if self._stop_asked.is_set():
            ended = states <= {State.STOPPED, State.FAILED}
            over = Status.FAILED if self.state.error else Status.STOPPED
            return over if ended or not self._tasks else Status.STOPPING
        if self.state.ready_at is None:
            return Status.STARTING
        return Status.READY if states == {State.READY} else Status.DEGRADED


def _report(failed: Supervised) -> str:
    state: ProcessState = failed.state
    hint = f"; its log: flowdex logs {state.label}" if state.log else ""
    return f"{state.label} failed: {state.cause}{hint}"
