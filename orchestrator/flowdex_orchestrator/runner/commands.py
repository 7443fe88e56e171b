"""What a runner does for other processes while its flow runs.

flowdex scale, flowdex restart --ask--> Commands --> Scaler --> Supervisor, gateway
autoscale: of the flow file --> Autoscaler ------------^
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from flowdex.errors import InvalidInput
from flowdex_orchestrator.control import ControlServer
from flowdex_orchestrator.flow.model import Flow
from flowdex_orchestrator.load import mean_queue_ms
from flowdex_orchestrator.runner.autoscale import Autoscaler, Rule
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
        rules = rules_of(planner.flow)
        self._autoscaler = Autoscaler(self.scaler, rules, self._queue_ms) if rules else None
        self._autoscaling: asyncio.Task[None] | None = None
        self._server = ControlServer({"scale": self._scale, "restart": self._restart}, self._token)

    async def start(self, folder: RunFolder) -> str:
        """Listen, and leave the token in `folder`; returns the address."""
        address = await self._server.start(self._port)
        folder.write_token(self._token)
        return address

    def flow_is_ready(self) -> None:
        """Begin to scale by the flow file's rules."""
        if self._autoscaler is not None:
            self._autoscaling = asyncio.create_task(self._autoscaler.run())

    async def stop(self) -> None:
        """Give up what is being done."""
        if self._autoscaling is not None:
            self._autoscaling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._autoscaling
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
