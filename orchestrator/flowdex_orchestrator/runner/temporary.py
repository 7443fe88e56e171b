"""A flow for the time of one command: `flowdex encode --flow flow.yml "..."`, `flowdex eval DATASET --flow flow.yml`.

flow_address      running already ----------------------------------------> its address
                  not running: flowdex up --detach -> its address -> (block) -> flowdex down
flow_of_its_own   flowdex up --detach, on free ports, state and index in a folder that is removed -> (block) -> down
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import Executor, load_flow
from flowdex_orchestrator.runner.cli import locate
from flowdex_orchestrator.runner.state import HOME_VARIABLE, RunFolder, Status

__all__ = ["flow_address", "flow_of_its_own"]


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
    with _started(flow_file, folder) as endpoints:
        yield _address(endpoints, flow_file)


@contextmanager
def flow_of_its_own(flow: Path, settings: Sequence[str] = ()) -> Iterator[str]:
    """The URL of a flow's gateway, started beside any other run of that flow, with an empty index; ends with the block.

    Args:
        flow: The flow file; relative paths in it mean what they always do.
        settings: NAME.KEY=VALUEs, arguments of executors in place of the file's.

    Raises:
        ConfigurationError: No executor of the flow keeps an index that could be put elsewhere; or the flow has neither
            gRPC nor HTTP.
        SystemExit: It did not start; `flowdex up` has said why.
    """
    flow_file, _, cwd = locate(flow)
    indexers = [executor.name for executor in load_flow(flow_file).executors if _keeps_an_index(executor)]
    if not indexers:
        raise ConfigurationError(
            f"{flow_file} has no QdrantIndexer of its own, so there is no index to keep apart: "
            "start the flow yourself and name it with --url"
        )
    with tempfile.TemporaryDirectory(prefix="flowdex-") as home:
        options = ["--free-ports"]
        for setting in [*(f"{name}.uri=edge://{home}/index/{name}" for name in indexers), *settings]:
            options += ["--set", setting]
        environment = {**os.environ, HOME_VARIABLE: home}
        with _started(flow_file, RunFolder(flow_file, cwd, home=Path(home)), options, environment) as endpoints:
            yield _address(endpoints, flow_file)


@contextmanager
def _started(
    flow_file: Path, folder: RunFolder, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Start a flow, give its endpoints, stop it; SIGTERM ends the block as Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _flowdex("up", str(flow_file), "--detach", *options, environment=environment)
        if code:
            raise SystemExit(code)
        state = folder.read()
        yield state.endpoints if state is not None else {}
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # stopping the flow is what it asks for
        _flowdex("down", str(flow_file), environment=environment)
        signal.signal(signal.SIGTERM, previous)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _keeps_an_index(executor: Executor) -> bool:
    """Whether it is a QdrantIndexer, or one of another name that takes the place of its index, that runs here."""
    is_indexer = str(executor.uses).rpartition(".")[2] == "QdrantIndexer" or "uri" in executor.uses_with
    return is_indexer and not executor.external


def _flowdex(*arguments: str, environment: Mapping[str, str] | None = None) -> int:
    """Run a command of ours; what it prints goes to standard error, as standard output is for the caller's answer."""
    command = [sys.executable, "-m", "flowdex", *arguments]
    return subprocess.run(command, stdout=sys.stderr, env=environment, check=False).returncode


def _address(endpoints: dict[str, str], flow_file: Path) -> str:
    address = endpoints.get("grpc") or endpoints.get("http")
    if address is None:
        raise ConfigurationError(f"{flow_file} offers neither gRPC nor HTTP: name one under `with: protocol:`")
    return address
