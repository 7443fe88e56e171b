"""The whole flow: every executor started at once, the gateway with them, all watched, restarted, stopped in order.

    FlowPlan --> Supervisor.start() --> Supervised (executors), Supervised (gateway)
                     |                        | change of state
                     |  <---------------------+--> FlowState --> state.json, table
                     +-- ready, or StartFailed (name, cause, remedy)
    Supervisor.stop(): the gateway drains, then the executors

One `Supervised` a process. While the flow runs, replicas join and part (`scaling` says when):

    join --> loading, ready or failed --> admit --> part of the flow, restarted when it ends --> leave --> part: ended
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from flowdex.errors import Unavailable
from flowdex.timeouts import within
from flowdex_orchestrator.runner.state import FlowState, ProcessState, State, Status
from flowdex_orchestrator.runner.supervised import Policy, ProcessPlan, Supervised

if TYPE_CHECKING:
    from pathlib import Path

    from flowdex_orchestrator.flow.model import Flow
    from flowdex_orchestrator.flow.overrides import Overrides

__all__ = ["FlowPlan", "Planner", "StartFailed", "Supervisor"]

_LOOK_SECONDS = 0.02
_GATHER_FAILURES = 0.3  # seconds: what failed for the same reason at the same time is reported together


class StartFailed(Unavailable):
    """The flow could not be started; the message names each failed process, its cause and the remedy."""

    @property
    def name(self) -> str:
        """It travels as the public class it is a kind of."""
        return Unavailable.__name__


class Planner(Protocol):
    """Plans processes of a flow that runs.

    Attributes:
        flow: The flow.
        flow_file: Its file.
        text: The copy of it that the processes read.
        overrides: Arguments of executors that differ from the file's.
        gateway_control: Address at which the gateway takes commands.
        runner_port: Port at which the runner takes commands.
        token: Of the runner and its gateway.
    """

    @property
    def flow(self) -> Flow: ...  # noqa: D102 - above

    @property
    def flow_file(self) -> Path: ...  # noqa: D102 - above

    @property
    def text(self) -> Path | None: ...  # noqa: D102 - above

    @property
    def overrides(self) -> Overrides: ...  # noqa: D102 - above

    @property
    def gateway_control(self) -> str: ...  # noqa: D102 - above

    @property
    def runner_port(self) -> int: ...  # noqa: D102 - above

    @property
    def token(self) -> str: ...  # noqa: D102 - above

    def replica(
        self, name: str, number: int, *, replicas: int, taken: Collection[int], settings: Mapping[str, Any]
    ) -> ProcessPlan:
        """One more replica of an executor."""
        ...

    def gateway(self, addresses: Sequence[tuple[str, str]]) -> ProcessPlan:
        """The gateway in front of these replicas: (executor, address)."""
        ...

    def again(self, plan: ProcessPlan, *, replicas: int, settings: Mapping[str, Any]) -> ProcessPlan:
        """The plan of a replica that is there, by the flow as it is now."""
        ...

    def reloaded(self, flow: Flow, text: Path, names: Collection[str] | None = None) -> Planner:
        """The planner after a reload, of all or of some executors."""
        ...


@dataclass(frozen=True)
class FlowPlan:
    """All processes that a flow needs.

    Attributes:
        executors: One plan a replica.
        gateway: The plan of the gateway.
        endpoints: Protocol or page -> URL, shown once the flow is ready.
        planner: Plans further processes; None for a flow that stays as it is.
    """

    executors: Sequence[ProcessPlan]
    gateway: ProcessPlan
    endpoints: dict[str, str]
    planner: Planner | None = None


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
        self._policy = policy or Policy()
        self._passing: set[Supervised] = set()  # those that join or leave: they do not count for the flow's status
        self._order = {each.name: place for place, each in enumerate(plan.executors)}  # replicas are side by side
        self._executors = [self._supervise(each) for each in plan.executors]
        self._gateway = self._supervise(plan.gateway, clock_starts=self._executors_ready)
        state.processes = [each.state for each in self._all]
        state.endpoints = dict(plan.endpoints)
        state.grace = plan.gateway.grace + max((each.grace for each in plan.executors), default=0.0)

    def _supervise(self, plan: ProcessPlan, clock_starts: asyncio.Event | None = None) -> Supervised:
        supervised = Supervised(
            plan,
            self._policy,
            changed=self._changed,
            flow_was_ready=lambda: self.state.ready_at is not None and supervised not in self._passing,
            clock_starts=clock_starts,
        )
        return supervised

    @property
    def _all(self) -> list[Supervised]:
        return [*self._executors, self._gateway]

    @property
    def gateway(self) -> Supervised:
        """The gateway's process."""
        return self._gateway

    @property
    def stopping(self) -> bool:
        """Whether a stop has been requested."""
        return self._stop_asked.is_set()

    def replicas(self, name: str | None = None) -> list[Supervised]:
        """The replicas of an executor (or of all) that are part of the flow."""
        members = [each for each in self._executors if each not in self._passing]
        return [each for each in members if name in (None, each.plan.name)]

    def ports(self) -> set[int]:
        """The ports of all processes."""
        ports = {each.plan.port for each in self._all}
        return ports | {each.plan.metrics_port for each in self._all if each.plan.metrics_port is not None}

    async def start(self, timeout: float = math.inf) -> None:
        """Start everything and wait until all of it is ready; returns early when a stop is requested.

        Raises:
            StartFailed: A process ended or was too slow, or `timeout` seconds have passed. Everything is stopped then.
        """
        self._changed()
        for each in self._all:
            self._run(each)
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

    def publish(self) -> None:
        """Tell of a change of `state` that somebody else has made."""
        self._changed()

    # ---- replicas that come and go ----

    def join(self, plan: ProcessPlan) -> Supervised:
        """Start a replica that is not part of the flow yet: it fails for good when it ends.

        Raises:
            Unavailable: The flow is stopping.
        """
        if self.stopping:
            raise Unavailable("the flow is stopping")
        joining = self._supervise(plan)
        self._passing.add(joining)
        self._executors.append(joining)
        self._sort()
        self._run(joining)
        return joining

    async def until_ready(self, joining: Sequence[Supervised]) -> None:
        """Wait until these are ready.

        Raises:
            StartFailed: One of them has failed; the message says why.
            Unavailable: The flow is stopping.
        """
        while not all(each.state.state is State.READY for each in joining):
            if self.stopping or any(each.state.state is State.STOPPED for each in joining):
                raise Unavailable("the flow is stopping")
            if failed := [each for each in joining if each.state.state is State.FAILED]:
                raise StartFailed("\n".join(map(_report, failed)))
            await asyncio.sleep(_LOOK_SECONDS)

    def admit(self, joined: Sequence[Supervised]) -> None:
        """Make these part of the flow."""
        self._passing.difference_update(joined)
        self._changed()

    def leave(self, leaving: Sequence[Supervised]) -> None:
        """Let these be part of the flow no more; they go on running until they `part`."""
        self._passing.update(leaving)
        self._changed()

    async def part(self, leaving: Sequence[Supervised]) -> None:
        """Stop these and forget them."""
        self._passing.update(leaving)
        await self._end(leaving)
        for each in leaving:
            self._tasks.pop(each, None)
        self._executors = [each for each in self._executors if each not in leaving]
        self._passing.difference_update(leaving)
        self._sort()

    def _sort(self) -> None:
        """In the order of the flow file, each executor's by number."""
        self._executors.sort(key=lambda each: (self._order.get(each.plan.name, math.inf), each.plan.replica or 0))
        self.state.processes = [each.state for each in self._all]
        self._changed()

    def _run(self, each: Supervised) -> None:
        task = self._tasks[each] = asyncio.create_task(each.run(), name=each.state.label)
        task.add_done_callback(lambda _: self._change.set())

    # ---- the end ----

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
        for task in list(self._tasks.values()):
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
            await within(self._change.wait(), None if timeout == math.inf else timeout)
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
        members = {each.state.state for each in self._all if each not in self._passing}
        return Status.READY if members == {State.READY} else Status.DEGRADED


def _report(failed: Supervised) -> str:
    state: ProcessState = failed.state
    hint = f"; its log: flowdex logs {state.label}" if state.log else ""
    return f"{state.label} failed: {state.cause}{hint}"
