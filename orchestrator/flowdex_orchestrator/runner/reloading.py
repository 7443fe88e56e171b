"""A flow that runs is made what its file says now, without losing a request.

    flow.yml --> Flow --compare (changes.py)--> some key takes `flowdex down`: refuse, nothing has changed
                                            --> executors: scaled, restarted replica by replica
                                                gateway: settings that change at once
                                                planner: what starts again later goes by the new file

The processes read a copy of the file (`RunFolder.keep_text`), never the file itself: an edit that is not finished, or
wrong, harms no process that starts again in the meantime. Where a replica fails, the reload ends there; what has been
changed by then goes by the new copy, the rest by the old one, and the next reload takes it from there.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from flowdex.errors import Conflict
from flowdex_orchestrator.flow.load import load_flow
from flowdex_orchestrator.flow.model import Flow
from flowdex_orchestrator.gateway.settings import GatewaySettings, options_of
from flowdex_orchestrator.runner.changes import Action, Change, compare
from flowdex_orchestrator.runner.scaling import Scaler
from flowdex_orchestrator.runner.state import RunFolder, fingerprint_of
from flowdex_orchestrator.runner.supervisor import Supervisor

__all__ = ["Reloader"]


class Reloader:
    """Reloads of one flow.

    Args:
        scaler: Of the flow.
        folder: Of the flow, for the copies of its file.
        supervisor: Of the flow, whose state notes what it runs.
    """

    def __init__(self, scaler: Scaler, folder: RunFolder, supervisor: Supervisor) -> None:
        self._scaler = scaler
        self._folder = folder
        self._supervisor = supervisor
        self._running: Flow | None = None  # as the file said, without what the command line changes
        self._busy = False

    async def reload(self, *, dry_run: bool) -> tuple[list[Change], Flow]:
        """Make the flow what its file says.

        Args:
            dry_run: Whether only to say what it takes.

        Returns:
            The changes, and the flow that the file describes.

        Raises:
            FlowFileError: The file has mistakes; nothing has changed.
            Conflict: A change takes `flowdex down`, or another reload is under way; nothing has changed.
            StartFailed: A new replica has failed; what follows it is as before.
            Unavailable: The gateway does not answer.
        """
        if self._busy:
            raise Conflict("the flow is being reloaded; try again when that is done")
        self._busy = True
        try:
            return await self._reload(dry_run)
        finally:
            self._busy = False

    async def _reload(self, dry_run: bool) -> tuple[list[Change], Flow]:
        planner = self._scaler.planner
        wanted = await asyncio.to_thread(load_flow, planner.flow_file)
        GatewaySettings.from_options(options_of(wanted))
        if self._running is None:
            self._running = await asyncio.to_thread(load_flow, planner.flow_file, text_from=planner.text)
        changes = await self._refined(compare(self._running, wanted))
        if dry_run:
            return changes, wanted
        if refused := [change.key for change in changes if change.action is Action.DOWN]:
            raise Conflict(
                f"{', '.join(refused)} cannot change while the flow runs, so nothing has: `flowdex down` and "
                "`flowdex up`, or leave that as it was"
            )
        await self._apply(changes, wanted)
        return changes, wanted

    async def _refined(self, changes: list[Change]) -> list[Change]:
        """With what only the processes know: of an embedded index there is one, which another cannot replace."""
        names = {change.executor for change in changes if change.action is Action.RESTART and change.executor}
        embedded = {name for name in names if await self._scaler.is_embedded(name)}
        return [
            Change(change.key, Action.DOWN, change.executor, "an embedded index lives in one process")
            if change.action is Action.RESTART and change.executor in embedded
            else change
            for change in changes
        ]

    async def _apply(self, changes: list[Change], wanted: Flow) -> None:
        scaler, before, running = self._scaler, self._scaler.planner, self._running
        assert running is not None
        copy = self._folder.keep_text(wanted.text)
        done: list[str] = []
        scaler.planner = before.reloaded(wanted, copy)
        try:
            for executor in wanted.executors:
                actions = {change.action for change in changes if change.executor == executor.name}
                if Action.RESTART in actions:
                    await scaler.restart(executor.name, {})
                if Action.SCALE in actions:
                    await scaler.scale({executor.name: executor.replicas})
                done.append(executor.name)
            # Last, so that a reload which ends early leaves the gateway as the copy says that it would start again by;
            # and always, as the executors of such a reload have not been told of to it.
            await scaler.configure_gateway(options_of(wanted), _calls(wanted))
        except BaseException:
            scaler.planner = before.reloaded(wanted, copy, done)
            executors = tuple(wanted.executor(each.name) if each.name in done else each for each in running.executors)
            self._running = running.model_copy(update={"executors": executors})
            scaler.replan()
            raise
        scaler.replan()
        self._running = wanted
        state = self._supervisor.state
        state.fingerprint, state.reloaded_at = fingerprint_of(wanted.text), time.time()
        self._supervisor.publish()
        self._folder.forget_texts(copy)


def _calls(flow: Flow) -> dict[str, dict[str, Any]]:
    """How the gateway calls each executor; see `Gateway.configure`."""
    return {
        executor.name: {
            "timeout": executor.send_timeout or flow.gateway.send_timeout,
            "retries": executor.retries if executor.retries >= 0 else flow.gateway.retries,
        }
        for executor in flow.executors
    }
