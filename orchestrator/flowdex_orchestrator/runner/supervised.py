"""One process of the flow, kept running: started, watched until ready, started again when it ends.

    +------------------- pause (exponential, jitter) <-------------------+
    v                                                                    |
LOADING --health--> READY --ended by itself--> WAITING, or after many such FAILED (pauses are long then)
    |                 |
    |                 +--silent too long--> killed, which is an end by itself
    |                 +--stop()--> STOPPING --> STOPPED
    +--ended, or too slow, before the flow was ever ready--> FAILED for good: `flowdex up` reports it
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flowdex.timeouts import within
from flowdex_orchestrator.load import RESTARTS_VARIABLE
from flowdex_orchestrator.runner.diagnosis import Diagnosis, diagnose, last_words, remedy_for
from flowdex_orchestrator.runner.health import Probe
from flowdex_orchestrator.runner.logs import cut
from flowdex_orchestrator.runner.ports import is_free
from flowdex_orchestrator.runner.process import ChildProcess, Launch
from flowdex_orchestrator.runner.state import ProcessState, State
from flowdex_orchestrator.tls import PLAIN, Hop

__all__ = ["Policy", "ProcessPlan", "Supervised", "address_of"]


@dataclass(frozen=True)
class Policy:
    """When to look, when to start again, how long to wait for an end. All times are seconds.

    Attributes:
        first_pause: Pause before the first restart; each further one is `factor` times longer ...
        longest_pause: ... up to this.
        jitter: Share by which each pause is made longer or shorter at random, so that replicas that died together
            do not load together for ever.
        stable: A process that was ready this long starts the count of failures anew.
        give_up_after: Failures in a row after which it counts as failed ...
        slow_pause: ... and is tried again only this often.
        look_loading: Between two questions for the health of a process that loads ...
        look_ready: ... and of one that is ready.
        grace_loading: Between SIGTERM and SIGKILL for a process that serves nothing yet.
        silent_after: Health checks without any answer after which a ready process counts as unresponsive.
    """

    first_pause: float = 0.5
    factor: float = 2.0
    longest_pause: float = 30.0
    jitter: float = 0.2
    stable: float = 30.0
    give_up_after: int = 5
    slow_pause: float = 60.0
    look_loading: float = 0.1
    look_ready: float = 2.0
    grace_loading: float = 2.0
    silent_after: int = 3

    def pause(self, failures: int) -> float:
        """How long to wait after so many failures in a row (at least one)."""
        if failures >= self.give_up_after:
            pause = self.slow_pause
        else:
            pause = min(self.longest_pause, self.first_pause * self.factor ** (failures - 1))
        return pause * random.uniform(1 - self.jitter, 1 + self.jitter)  # nosec B311 # spreads load, hides nothing


@dataclass(frozen=True)
class ProcessPlan:
    """One process that the flow needs.

    Attributes:
        name: The executor's name, or "gateway".
        replica: Its number, from 0; None for the gateway.
        host: Where it listens.
        port: Where it listens.
        launch: How to start it; None for an external one, which is only watched.
        probe: Makes the probe that tells when it is ready.
        timeout_ready: Seconds it may take to get ready.
        timeout_silent: Seconds that it may leave health checks without any answer, once it is ready; then it hangs, and
            is killed and started again.
        grace: Seconds between SIGTERM and SIGKILL; more than the process takes at most to finish what it works on.
        metrics_port: Where on loopback Prometheus reads its metrics; None for one that is not started here.
        hop: How to connect to it.
    """

    name: str
    replica: int | None
    host: str
    port: int
    launch: Launch | None
    probe: Callable[[], Probe]
    timeout_ready: float = math.inf
    timeout_silent: float = math.inf
    grace: float = 35.0
    metrics_port: int | None = None
    hop: Hop = PLAIN

    @property
    def address(self) -> str:
        """`host:port`."""
        return address_of(self.host, self.port)


def address_of(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Supervised:
    """Keeps the process of one plan running until told to stop.

    Args:
        plan: The process. Another one that is set later counts from the next start on.
        policy: Pauses and bounds.
        changed: Called after every change of `state`.
        flow_was_ready: Whether the process has a part in a flow that has been ready: only then, when it ends, is it
            started again.
        clock_starts: When given, `timeout_ready` counts from the moment it is set (the gateway waits for others).
    """

    def __init__(
        self,
        plan: ProcessPlan,
        policy: Policy,
        *,
        changed: Callable[[], None] = lambda: None,
        flow_was_ready: Callable[[], bool] = lambda: True,
        clock_starts: asyncio.Event | None = None,
    ) -> None:
        self.plan = plan
        self.state = ProcessState(
            plan.name,
            plan.replica,
            plan.host,
            plan.port,
            log=str(plan.launch.log) if plan.launch else "",
            metrics_port=plan.metrics_port,
        )
        self._policy = policy
        self._changed = changed
        self._flow_was_ready = flow_was_ready
        self._clock_starts = clock_starts
        self._stopping = asyncio.Event()
        self._child: ChildProcess | None = None

    async def run(self) -> None:
        """Start, watch and restart; returns once stopped, or failed for good."""
        failures = 0
        while True:
            self.state.ready_at, self.state.cause = None, ""
            problem = await self._one_life()
            if self._stopping.is_set():
                self._set(State.STOPPED)
                return
            lived = time.time() - self.state.ready_at if self.state.ready_at else 0.0
            failures = 1 if lived >= self._policy.stable else failures + 1
            self.state.cause = str(problem)
            if not self._flow_was_ready():
                self._set(State.FAILED)
                return
            self._set(State.FAILED if failures >= self._policy.give_up_after else State.WAITING)
            if await _set_within(self._stopping, self._policy.pause(failures)):
                self._set(State.STOPPED)
                return
            self.state.restarts += 1

    def stop(self) -> None:
        """Begin to stop; `run` returns when it is done."""
        self._stopping.set()

    def kill(self) -> None:
        """Stop at once, finishing nothing."""
        self._stopping.set()
        if self._child is not None:
            self._child.kill()

    @property
    def output(self) -> str:
        """The end of what the present process printed."""
        return self._child.output if self._child is not None else ""

    @property
    def last_words(self) -> str:
        """The last line of that which says something; empty if there is none."""
        return last_words(self.output)

    async def _one_life(self) -> Diagnosis:
        """From start to end of one process; says why it ended."""
        self.state.started_at, self.state.process = time.time(), None
        launch = self.plan.launch
        if launch is None:
            self._set(State.LOADING)
            return await self._watch(None)
        if not is_free(self.plan.port, self.plan.host):
            cause = f"port {self.plan.port} on {self.plan.host} is taken"
            return Diagnosis(cause, remedy_for(cause))
        try:
            environment = {**launch.env, RESTARTS_VARIABLE: str(self.state.restarts)}
            self._child = await ChildProcess.start(replace(launch, env=environment))
        except OSError as error:
            return Diagnosis(f"could not start {launch.command[0]} in {launch.cwd}: {error}")
        self.state.process = self._child.identity
        self._set(State.LOADING)
        return await self._watch(self._child)

    async def _watch(self, child: ChildProcess | None) -> Diagnosis:
        """Watch the health until the process ends, takes too long, or must stop."""
        ended = asyncio.ensure_future(child.wait() if child is not None else asyncio.Event().wait())
        told = asyncio.ensure_future(self._stopping.wait())
        probe = self.plan.probe()
        began, silent = time.monotonic(), 0
        heard = began
        try:
            while True:
                loading = self.state.ready_at is None
                look = self._policy.look_loading if loading else self._policy.look_ready
                await asyncio.wait((ended, told), timeout=look, return_when=asyncio.FIRST_COMPLETED)
                if told.done():
                    await probe.close()  # before the other end does, which gRPC would report
                    await self._end(child, self._policy.grace_loading if loading else self.plan.grace)
                    return Diagnosis("it was stopped")
                if child is not None and ended.done():
                    return diagnose(await child.wait(), child.output)
                if self._clock_starts is not None and not self._clock_starts.is_set():
                    began = time.monotonic()
                healthy = await probe.ready()
                silent = silent + 1 if probe.silent else 0
                if loading and not healthy and time.monotonic() - began > self.plan.timeout_ready:
                    problem = self._too_late()
                    await self._end(child, self._policy.grace_loading)
                    return problem
                if loading or not probe.silent:
                    heard = time.monotonic()
                if healthy:
                    self._healthy()
                elif not loading:
                    self._unhealthy(silent, probe.reason)
                if child is not None and silent and time.monotonic() - heard > self.plan.timeout_silent:
                    child.kill()  # it would not hear anything else
                    await child.wait()
                    return self._silent_too_long()
                if self.plan.launch is not None:
                    cut(self.plan.launch.log)
        finally:
            for task in (ended, told):
                task.cancel()
            await asyncio.gather(ended, told, return_exceptions=True)
            await probe.close()

    def _healthy(self) -> None:
        """Note that it takes requests."""
        if self.state.state is not State.READY:
            if self.state.ready_at is None:
                self.state.ready_at = time.time()
            self.state.cause = ""
            self._set(State.READY)

    def _unhealthy(self, silent: int, reason: str) -> None:
        """Note that it has been ready and takes no requests: so it said, or it said nothing so many times."""
        if not silent:
            state, cause = State.UNREADY, reason or "it answers that it takes no requests"
        elif silent >= self._policy.silent_after:
            state, cause = State.UNRESPONSIVE, "it does not answer health checks"
        else:
            return
        if (state, cause) != (self.state.state, self.state.cause):
            self.state.cause = cause
            self._set(state)

    def _silent_too_long(self) -> Diagnosis:
        return Diagnosis(
            f"it hung: no answer to health checks for {self.plan.timeout_silent:g} s",
            "if it was only busy, raise `timeout_silent:` (milliseconds)",
        )

    def _too_late(self) -> Diagnosis:
        """What to say of a process that was not ready in time."""
        seconds = f"{self.plan.timeout_ready:g} s"
        if self.plan.launch is None:
            return Diagnosis(
                f"the external executor at {self.plan.host}:{self.plan.port} was not ready within {seconds}",
                "start it, or correct `host:` and `port:`",
            )
        said = self.last_words
        return Diagnosis(
            f"it was not ready within {seconds}" + (f"; the last it said: {said}" if said else "; it printed nothing"),
            "if it only needs more time, raise `timeout_ready:` (milliseconds)",
        )

    async def _end(self, child: ChildProcess | None, grace: float) -> None:
        if child is not None:
            self._set(State.STOPPING)
            await child.stop(grace)

    def _set(self, state: State) -> None:
        self.state.state = state
        self._changed()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await within(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
