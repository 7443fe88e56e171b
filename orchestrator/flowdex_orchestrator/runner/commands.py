"""What a runner does for other processes while its flow runs.

flowdex scale, flowdex restart --ask--> Commands --> Scaler --> Supervisor, gateway
flowdex reload --ask--> Commands --> Reloader --> Scaler
autoscale: of the flow file --> Autoscaler ------------^
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import Any

from flowdex.errors import InvalidInput, Unavailable
from flowdex_orchestrator.control import ControlServer
from flowdex_orchestrator.flow.model import Flow
from flowdex_orchestrator.load import mean_queue_ms
from flowdex_orchestrator.runner.autoscale import Autoscaler, Rule
from flowdex_orchestrator.runner.reloading import Reloader
from flowdex_orchestrator.runner.replica import replica_queue_ms
from flowdex_orchestrator.runner.scaling import Scaler
from flowdex_orchestrator.runner.state import RunFolder, State
from flowdex_orchestrator.runner.supervisor import Planner, Supervisor

__all__ = ["Commands"]


class Commands:
    """The runner's control server.

    Args:
        supervisor: Of the flow.
        planner: Of the flow; its token is the one that commands must show.

    Attributes:
        scaler: Does what is asked.
    """

    def __init__(self, supervisor: Supervisor, planner: Planner) -> None:
        self.scaler = Scaler(supervisor, planner)
        self._supervisor = supervisor
        self._port, self._token = planner.runner_port, planner.token
        self._reloader: Reloader | None = None
        self._rules = rules_of(planner.flow)
        self._autoscaling: asyncio.Task[None] | None = None
        methods = {"scale": self._scale, "restart": self._restart, "reload": self._reload}
        self._server = ControlServer(methods, self._token)

    async def start(self, folder: RunFolder) -> str:
        """Listen, and leave the token in `folder`; returns the address."""
        self._reloader = Reloader(self.scaler, folder, self._supervisor)
        address = await self._server.start(self._port)
        folder.write_token(self._token)
        return address

    def flow_is_ready(self) -> None:
        """Begin to scale by the flow file's rules."""
        if self._rules:
            self._autoscaling = asyncio.create_task(Autoscaler(self.scaler, self._rules, self._queue_ms).run())

    async def stop(self) -> None:
        """Give up what is being done."""
        await self._stop_autoscaling()
        await self._server.stop()
        await self.scaler.close()

    async def _scale(self, body: dict[str, Any]) -> dict[str, Any]:
        targets = body.get("replicas")
        if not isinstance(targets, dict) or not targets:
            raise InvalidInput('expected {"replicas": {"encoder": 3}}')
        return {"before": await self.scaler.scale(targets)}

    async def _restart(self, body: dict[str, Any]) -> dict[str, Any]:
        name, settings = body.get("executor"), body.get("settings", {})
        if not isinstance(name, str) or not isinstance(settings, dict):
            raise InvalidInput('expected {"executor": "encoder", "settings": {"threads": 2}}')
        return {"replicas": await self.scaler.restart(name, settings)}

    async def _reload(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self._reloader is not None, "there is no server before start()"
        if self._supervisor.stopping or self._supervisor.state.ready_at is None:
            raise Unavailable("the flow is starting or stopping", retry_after=1.0)
        dry_run = body.get("dry_run", False) is True
        changes, flow = await self._reloader.reload(dry_run=dry_run)
        if not dry_run and (rules := rules_of(flow)) != self._rules:
            await self._stop_autoscaling()
            self._rules = rules
            self.flow_is_ready()
        return {"changes": [{**asdict(change), "action": change.action.value} for change in changes]}

    async def _stop_autoscaling(self) -> None:
        if self._autoscaling is not None:
            self._autoscaling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._autoscaling
            self._autoscaling = None

    async def _queue_ms(self, name: str) -> float | None:
        ready = [each for each in self._supervisor.replicas(name) if each.state.state is State.READY]
        asked = [replica_queue_ms(each.plan.address, each.plan.hop) for each in ready]
        return mean_queue_ms(await asyncio.gather(*asked))


def rules_of(flow: Flow) -> dict[str, Rule]:
    """The rules of a flow file: those whose target is the queue, of executors that are started here."""
    return {
        executor.name: Rule(executor.autoscale.min, executor.autoscale.max, executor.autoscale.queue_ms)
        for executor in flow.executors
        if executor.autoscale is not None and executor.autoscale.queue_ms is not None and not executor.external
    }
