"""`flowdex executor NAME`: the command that a runner, a container or a person starts one replica with."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from flowdex.cli import complete
from flowdex.errors import FlowdexError
from flowdex_orchestrator.gpus import VISIBLE, deal_gpus
from flowdex_orchestrator.observability.options import metrics_options

if TYPE_CHECKING:
    from jina import Executor

    from flowdex_orchestrator.worker.server import ServerOptions

__all__ = ["executor"]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_THREADS_END_WITHIN = 0.5  # seconds


@click.command()
@click.argument("name", shell_complete=complete.executor_names)
@click.option(
    "--flow",
    "flow_file",
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    type=click.Path(path_type=Path),
    help="The flow file.  [default: flow.yml]",
)
@click.option("--flow-text", type=click.Path(path_type=Path), hidden=True, help="A copy of FLOW.YML to read instead.")
@click.option("--host", metavar="HOST", help="Address to listen on.  [default: the flow's, else 127.0.0.1]")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    help="Port; 0 for any free one.  [default: the flow's, else 0]",
)
@click.option(
    "--replica", metavar="N", type=click.IntRange(0), default=0, show_default=True, help="Number of this replica."
)
@click.option(
    "--shard", metavar="N", type=click.IntRange(0), default=0, show_default=True, help="Number of this shard."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Argument of the class, over the flow's. Repeatable."
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine though callers need no certificate.")
@click.option("--parent-pid", type=int, metavar="PID", help="End when this process ends.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    help="Least level logged.  [default: the flow's]",
)
@click.option("--stacks", is_flag=True, help="Send tracebacks to callers, as stock Jina does.")
@click.option(
    "--max-message-mib",
    metavar="N",
    type=click.IntRange(1, 2047),
    default=64,
    show_default=True,
    help="Largest request and reply.",
)
@click.option(
    "--max-connection-age", type=click.FloatRange(min=1), metavar="SECONDS", help="Let clients connect anew this often."
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Time to end requests in, at stop.",
)
@metrics_options
def executor(  # noqa: PLR0917 - click passes them by name
    name: str,
    flow_file: Path | None,
    flow_text: Path | None,
    host: str | None,
    port: int | None,
    replica: int,
    shard: int,
    settings: tuple[str, ...],
    insecure: bool,
    parent_pid: int | None,
    log_level: str | None,
    stacks: bool,
    max_message_mib: int,
    max_connection_age: float | None,
    grace: float,
    metrics_host: str,
    metrics_port: int,
) -> None:
    """Serve the executor NAME of a flow over gRPC.

    Listens at once, and reports SERVING (grpc.health.v1) when the executor is loaded and warm. Ends on SIGTERM after
    the requests in flight, with exit code 0. An executor that cannot be loaded ends with exit code 1 and the reason in
    the last line on standard error.

    \b
    Example:
      flowdex executor encoder --flow flow.yml --port 52000
      flowdex executor encoder --set model=./my-model
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.flow import default_flow_path, load_flow
    from flowdex_orchestrator.flow.certificates import executor_files
    from flowdex_orchestrator.flow.overrides import parse_argument
    from flowdex_orchestrator.observability.logs import configure_logging
    from flowdex_orchestrator.observability.tracing import make_tracing
    from flowdex_orchestrator.worker.load import load_executor
    from flowdex_orchestrator.worker.server import MEBIBYTE, ServerOptions

    flow = load_flow(flow_file or default_flow_path(), text_from=flow_text)
    if settings:
        flow = flow.with_arguments({name: dict(map(parse_argument, settings))})
    entry = flow.executor(name)
    _configure_process((log_level or entry.log_level).upper(), flow.folder, entry.env, replica)
    configure_logging(f"{name}-{replica}", (log_level or entry.log_level).upper(), entry.log_format)
    addresses = entry.addresses()
    flow_host, _, flow_port = (addresses[replica] if replica < len(addresses) else "").rpartition(":")
    options = ServerOptions(
        host=host or flow_host.strip("[]") or entry.hosts[0],
        port=port if port is not None else int(flow_port or 0),
        max_message_bytes=max_message_mib * MEBIBYTE,
        max_connection_age=max_connection_age,
        grace=grace,
        stacks=stacks,
        parent_pid=parent_pid,
        certificates=executor_files(flow, entry),
        insecure=insecure or entry.insecure,
        replica=replica,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        canary_period=entry.canary_period,
        tracing=make_tracing(flow.name, name, replica) if entry.tracing else None,
    )
    process_exit = _Exit()
    process_exit(_serve(name, lambda: load_executor(entry, flow.folder, replica=replica, shard=shard), options))


def _configure_process(level: str, folder: Path, env: dict[str, str], replica: int) -> None:
    """Set what holds for the whole process: logging, the flow's environment variables, the import path."""
    os.environ.update(env)
    if VISIBLE in env:  # the file has it for all replicas; in a container those are its own GPUs
        os.environ[VISIBLE] = deal_gpus(env[VISIBLE], replica)
    os.environ.setdefault("JINA_OPTOUT_TELEMETRY", "1")
    os.environ.setdefault("JINA_LOG_LEVEL", level)
    for noise in ("pkg_resources is deprecated", "failed to set default signal handler"):
        warnings.filterwarnings("ignore", message=noise)  # jina's own, on every start, and nothing to do about it
    sys.path.append(str(folder))  # modules beside the flow file


def _serve(name: str, load: Callable[[], Executor], options: ServerOptions) -> int:
    """Serve until the end; returns the exit code."""
    from flowdex_orchestrator.worker.server import serve

    try:
        asyncio.run(serve(name, load, options))
    except KeyboardInterrupt:
        return 130
    except BaseException as error:  # an executor's constructor may raise anything, SystemExit too
        # An error of ours says all in its message; of anybody else's code the place is worth having in the log.
        if not isinstance(error, FlowdexError) or logging.getLogger().isEnabledFor(logging.DEBUG):
            traceback.print_exception(error)
        message = " ".join(str(error).split()) or "no message"
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
        return 1
    return 0


class _Exit:
    """Ends the process: without waiting for stuck threads, and without Python's taking apart of jina and torch.

    Made before the executor is loaded, so that its exit handler runs after those of the executor's libraries; what
    comes after that takes about a second and does nothing that the end of the process does not do.
    """

    def __init__(self) -> None:
        self._code = 0
        atexit.register(self._now)

    def __call__(self, code: int) -> NoReturn:
        self._code = code
        deadline = time.monotonic() + _THREADS_END_WITHIN
        for thread in threading.enumerate():
            if thread is threading.main_thread() or (thread.daemon and thread.name != "load"):
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._now()  # a method or a constructor that does not return
        sys.exit(code)

    def _now(self) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self._code)
