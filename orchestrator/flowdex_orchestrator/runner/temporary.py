"""A flow for the time of one command: `flowdex encode --flow flow.yml "..."`.

running already ----------------------------------------> its address
not running: flowdex up --detach -> its address -> (block) -> flowdex down
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.runner.cli import locate
from flowdex_orchestrator.runner.state import Status

__all__ = ["flow_address"]


@contextmanager
def flow_address(flow: Path) -> Iterator[str]:
    """The URL of a flow's gateway; a flow that does not run is started, and stopped again at the end of the block.

    Raises:
        ConfigurationError: The flow has neither gRPC nor HTTP.
        SystemExit: It did not start; `flowdex up` has said why.
    """
    flow_file, folder, _ = locate(flow)
    state = folder.read()
    if state is not None and state.running and state.status in (Status.READY, Status.DEGRADED):
        yield _address(state.endpoints, flow_file)
        return
    try:
        code = _flowdex("up", str(flow_file), "--detach")
        if code:
            raise SystemExit(code)
        state = folder.read()
        yield _address(state.endpoints if state is not None else {}, flow_file)
    finally:
        _flowdex("down", str(flow_file))


def _flowdex(*arguments: str) -> int:
    """Run a command of ours; what it prints goes to standard error, as standard output is for the caller's answer."""
    return subprocess.run([sys.executable, "-m", "flowdex", *arguments], stdout=sys.stderr, check=False).returncode


def _address(endpoints: dict[str, str], flow_file: Path) -> str:
    address = endpoints.get("grpc") or endpoints.get("http")
    if address is None:
        raise ConfigurationError(f"{flow_file} offers neither gRPC nor HTTP: name one under `with: protocol:`")
    return address
