"""More replicas, fewer, or new ones in the place of old ones, while requests keep flowing.

    scale(encoder=3):  join 2 --> loaded and warm --> admit --> the gateway adds them
    scale(encoder=1):  the gateway takes 2 out, their requests finish --> SIGTERM --> ended
    restart(encoder):  for each replica: join another of its number --> ready --> the gateway changes over --> end it

All or nothing: when a new replica fails, or the caller goes away, the new ones are stopped and nothing has changed. The
gateway is always told the whole table of addresses; one that starts anew gets it on its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any

from flowdex.errors import ConfigurationError, Conflict, DeadlineExceeded, FlowdexError, Unavailable
from flowdex_orchestrator.control import ask
from flowdex_orchestrator.runner.logs import rotate
from flowdex_orchestrator.runner.replica import replica_traits
from flowdex_orchestrator.runner.state import ProcessId, State
from flowdex_orchestrator.runner.supervised import Supervised
from flowdex_orchestrator.runner.supervisor import Planner, StartFailed, Supervisor

__all__ = ["Scaler"]

_log = logging.getLogger(__name__)
_DRAIN = 30.0  # seconds for requests in flight on a replica that is taken out
_ANSWER = 20.0  # seconds more for the gateway's answer
_GATEWAY_WITHIN = 10.0  # seconds in which a gateway that runs must be reached
_AGAIN = 0.1
_EMBEDDED = (
    "{name} cannot {what}: an embedded index lives in one process; use a Qdrant server (uri: http://...) to have more"
)


class Scaler:
    """Changes the replicas of a flow that runs.

    Args:
        supervisor: Of the flow.
        planner: Plans new replicas, and the gateway in front of them.

    Attributes:
        planner: As given; a reload sets another.
    """

    def __init__(self, supervisor: Supervisor, planner: Planner) -> None:
        self._supervisor = supervisor
        self.planner = planner
        self._settings = {name: dict(values) for name, values in planner.overrides.items()}
        self._busy: dict[str, str] = {}
        self._revision = 0
        self._gateway: ProcessId | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def busy(self, name: str) -> bool:
        """Whether an executor is being changed."""
        return name in self._busy

    def count(self, name: str) -> int:
        """How many replicas an executor has."""
        return len(self._supervisor.replicas(name))

    async def scale(self, targets: Mapping[str, int]) -> dict[str, int]:
        """Give executors these numbers of replicas, all at the same time.

        Returns:
            The numbers before, by executor.

        Raises:
            ConfigurationError: An executor does not exist, runs elsewhere, or the number is not at least 1; nothing has
                been changed.
            Conflict: It cannot have more than one replica, or is being changed; nothing has been changed.
            StartFailed: A new replica has failed: the executor has as many replicas as before.
            Unavailable: The flow is starting or stopping, or its gateway does not answer.
        """
        for name, count in targets.items():
            self._check(name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ConfigurationError(
                    f"{name} needs at least one replica, got {count!r}; `flowdex down` stops a flow"
                )
        for name, count in targets.items():
            if count > 1 and count > self.count(name) and await self.is_embedded(name):
                raise Conflict(_EMBEDDED.format(name=name, what=f"have {count} replicas"))
        before = {name: self.count(name) for name in targets}
        with contextlib.ExitStack() as claims:
            for name, count in targets.items():
                claims.enter_context(self._claim(name, f"scaled to {count}"))
            await _all(self._scale(name, count) for name, count in targets.items())
        return before

    async def restart(self, name: str, settings: Mapping[str, Any]) -> int:
        """Put a new replica in the place of each, one after the other.

        Args:
            name: The executor.
            settings: Arguments of its class, over those it has.

        Returns:
            The number of replicas.

        Raises:
            StartFailed: A new replica has failed; the message says how many have been replaced.
            ConfigurationError, Conflict, Unavailable: As `scale`.
        """
        self._check(name)
        if await self.is_embedded(name):
            raise Conflict(_EMBEDDED.format(name=name, what="be restarted while it serves"))
        with self._claim(name, "restarted"):
            wanted = {**self._settings.get(name, {}), **settings}
            replicas = self._supervisor.replicas(name)
            for done, old in enumerate(replicas):
                try:
                    await self._replace(old, len(replicas), wanted)
                except StartFailed as error:
                    raise StartFailed(f"{error}\n{_restarted(name, done, len(replicas))}") from None
            self._settings[name] = wanted
        return len(replicas)

    def replan(self) -> None:
        """From now on, whatever process of the flow starts again does so by the planner as it is now."""
        for each in self._supervisor.replicas():
            if each.plan.launch is not None:
                settings = self._settings.get(each.plan.name, {})
                each.plan = self.planner.again(each.plan, replicas=self.count(each.plan.name), settings=settings)
        replicas = self._supervisor.replicas()
        self._supervisor.gateway.plan = self.planner.gateway([(each.plan.name, each.plan.address) for each in replicas])

    async def configure_gateway(self, options: Mapping[str, Any], calls: Mapping[str, Mapping[str, Any]]) -> None:
        """Let the gateway that runs go by other settings; see `gateway.admin`.

        Raises:
            Unavailable: It does not answer.
        """
        body = {"options": dict(options), "calls": {name: dict(values) for name, values in calls.items()}}
        await ask(self.planner.gateway_control, self.planner.token, "configure", body, timeout=_ANSWER)

    async def close(self) -> None:
        """Give up what is being done; the flow stops next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def watch_gateway(self) -> None:
        """Called at every change of state: a gateway that has just started is told the addresses once more.

        Its command line had them, but they may have changed while it started.
        """
        state = self._supervisor.gateway.state
        if state.state is State.READY and state.process != self._gateway:
            first, self._gateway = self._gateway is None, state.process
            if not first:
                self._in_background(self._tell_gateway())

    # ---- checks ----

    def _check(self, name: str) -> None:
        if self.planner.flow.executor(name).external:
            raise ConfigurationError(f"{name} is external: it is not started here, so it is scaled where it runs")
        if self._supervisor.stopping or self._supervisor.state.ready_at is None:
            what = "stopping" if self._supervisor.stopping else "still starting"
            raise Unavailable(f"the flow is {what}", retry_after=1.0)
        if other := self._busy.get(name):
            raise Conflict(f"{name} is being {other}; try again when that is done (`flowdex ps`)")

    @contextlib.contextmanager
    def _claim(self, name: str, what: str) -> Iterator[None]:
        if other := self._busy.get(name):
            raise Conflict(f"{name} is being {other}; try again when that is done (`flowdex ps`)")
        self._busy[name] = what
        try:
            yield
        finally:
            del self._busy[name]

    async def is_embedded(self, name: str) -> bool:
        """Whether an executor can have but one process, so that no other can take its place while it serves."""
        for each in self._supervisor.replicas(name):
            if each.state.state is State.READY:
                return (await replica_traits(each.plan.address, each.plan.hop)).embedded
        return False  # nobody to ask; a second process of an embedded index finds it locked, and fails

    # ---- the steps ----

    async def _scale(self, name: str, count: int) -> None:
        replicas = self._supervisor.replicas(name)
        if count > len(replicas):
            await self._grow(name, count, replicas)
        elif count < len(replicas):
            # Those that do not serve go first, then those of the highest numbers.
            replicas.sort(key=lambda each: (each.state.state is not State.READY, each.plan.replica or 0))
            await self._to_the_end(self._let_go(replicas[count:]))

    async def _grow(self, name: str, count: int, replicas: Sequence[Supervised]) -> None:
        used = {each.plan.replica for each in replicas}
        numbers = [number for number in range(count + len(used)) if number not in used][: count - len(replicas)]
        joined: list[Supervised] = []
        try:
            for number in numbers:
                joined.append(self._join(name, number, count, self._settings.get(name, {})))
            await self._supervisor.until_ready(joined)
            self._supervisor.admit(joined)
            await self._tell_gateway()
        except BaseException:
            await self._to_the_end(self._let_go(joined, anyway=True))
            raise

    async def _replace(self, old: Supervised, count: int, settings: Mapping[str, Any]) -> None:
        number = old.plan.replica or 0
        if old.plan.launch is not None:
            rotate(old.plan.launch.log)  # the old process writes on to the file that was moved
        new = self._join(old.plan.name, number, count, settings)
        try:
            await self._supervisor.until_ready([new])
            self._supervisor.admit([new])
            await self._tell_gateway()
        except BaseException:
            await self._to_the_end(self._let_go([new], anyway=True))
            raise
        await self._to_the_end(self._let_go([old]))

    def _join(self, name: str, number: int, count: int, settings: Mapping[str, Any]) -> Supervised:
        taken = self._supervisor.ports()
        return self._supervisor.join(self.planner.replica(name, number, replicas=count, taken=taken, settings=settings))

    async def _let_go(self, leaving: Sequence[Supervised], *, anyway: bool = False) -> None:
        """Take replicas out of the gateway, wait for their requests, end them.

        Raises:
            Unavailable: The gateway does not answer; the replicas stay. With `anyway` they end all the same.
        """
        known = [each for each in self._supervisor.replicas() if each in leaving]
        self._supervisor.leave(leaving)
        if known:
            try:
                await self._tell_gateway()
            except Unavailable:
                if not anyway:
                    self._supervisor.admit(leaving)
                    raise
        await self._supervisor.part(leaving)

    # ---- the gateway ----

    async def _tell_gateway(self) -> None:
        """Make the gateway's addresses those of the flow's replicas; returns when those taken out are idle.

        Raises:
            Unavailable: It runs, but does not answer.
        """
        replicas = self._supervisor.replicas()
        gateway = self._supervisor.gateway
        gateway.plan = self.planner.gateway([(each.plan.name, each.plan.address) for each in replicas])
        addresses: dict[str, list[str]] = {}
        for each in replicas:
            addresses.setdefault(each.plan.name, []).append(each.plan.address)
        self._revision += 1
        body = {"revision": self._revision, "addresses": addresses, "drain": _DRAIN}
        give_up = time.monotonic() + _GATEWAY_WITHIN
        while not self._supervisor.stopping:
            try:
                await ask(
                    self.planner.gateway_control,
                    self.planner.token,
                    "set_addresses",
                    body,
                    timeout=_DRAIN + _ANSWER,
                )
                return
            except (Unavailable, DeadlineExceeded) as error:
                if gateway.state.process is None or not gateway.state.process.alive:
                    return  # it has them on its command line when it starts again
                if time.monotonic() > give_up:
                    raise Unavailable(f"the gateway does not answer the runner: {error}") from None
            await asyncio.sleep(_AGAIN)

    # ---- tasks ----

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that must not stop half way, also when whoever asked for it goes away."""
        await asyncio.shield(self._in_background(work))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("%s", error, exc_info=None if isinstance(error, FlowdexError) else error)


def _restarted(name: str, done: int, replicas: int) -> str:
    if not done:
        return f"nothing has changed: {name} serves as before"
    return f"{done} of {replicas} replicas of {name} had been replaced by then, the others are as before"


async def _all(work: Any) -> None:
    """Do all of it to the end, then raise the first error."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
