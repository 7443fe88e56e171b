"""What a runner does for other processes while its flow runs.

flowdex scale, flowdex restart --ask--> Commands --> Scaler --> Supervisor, gateway
"""

from __future__ import annotations

from typing import Any

from flowdex.errors import InvalidInput
from flowdex_orchestrator.control import ControlServer
from flowdex_orchestrator.runner.scaling import Scaler
from flowdex_orchestrator.runner.state import RunFolder
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
        self._token = planner.token
        self._server = ControlServer({"scale": self._scale, "restart": self._restart}, self._token)

    async def start(self, folder: RunFolder) -> str:
        """Listen, and leave the token in `folder`; returns the address."""
        address = await self._server.start()
        folder.write_token(self._token)
        return address

    async def stop(self) -> None:
        """Give up what is being done."""
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
