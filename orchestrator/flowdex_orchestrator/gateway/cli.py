"""`flowdex gateway`: the gateway as a process.

flow.yml + options --> Gateway --> SIGTERM, SIGINT or the parent's death --> drain --> exit 0
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flowdex.cli import complete
from flowdex_orchestrator.observability.options import metrics_options

__all__ = ["gateway"]

logger = logging.getLogger(__name__)


@click.command()
@click.option(
    "--flow",
    "flow_file",
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    type=click.Path(path_type=Path),
    help="The flow file.  [default: ./flow.yml, else the built-in]",
)
@click.option(
    "--address",
    "addresses",
    metavar="NAME=HOST:PORT",
    multiple=True,
    help="Where an executor runs; several for one NAME are its replicas, and so are all addresses of the name in "
    "NAME=dns:///HOST:PORT.  [default: host and port in the flow file]",
)
@click.option("--flow-text", type=click.Path(path_type=Path), hidden=True, help="A copy of FLOW.YML to read instead.")
@click.option("--host", metavar="HOST", help="Address to listen on.  [default: the flow file's, 127.0.0.1]")
@click.option(
    "--port-grpc", metavar="N", type=click.IntRange(0, 65535), help="gRPC port, 0 for any.  [default: the flow file's]"
)
@click.option(
    "--port-http", metavar="N", type=click.IntRange(0, 65535), help="HTTP port, 0 for any.  [default: the flow file's]"
)
@click.option(
    "--port-websocket",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Further port for HTTP and Jina's WebSockets, which the HTTP port serves too; 0 for any.  [default: the flow "
    "file's]",
)
@click.option(
    "--port-bert",
    metavar="N",
    type=click.IntRange(0, 65535),
    help="Port for requests of bert-as-service's clients, 0 for any.  [default: the flow file's]",
)
@click.option(
    "--port-bert-out",
    metavar="N",
    type=click.IntRange(0, 65535),
    help="Port for replies to them, 0 for any.  [default: the flow file's, the one after --port-bert]",
)
@click.option(
    "--keys",
    "key_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File of the API keys that callers need (`flowdex keys`); also FLOWDEX_KEYS.  [default: the flow file's]",
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine though there are no keys.")
@click.option("--parent-pid", metavar="PID", type=int, help="Stop when the process with this id is gone.")
@metrics_options
@click.option("--control-port", type=click.IntRange(0, 65535), hidden=True, help="Where the runner talks to it.")
def gateway(
    *,
    flow_file: Path | None,
    flow_text: Path | None,
    addresses: tuple[str, ...],
    host: str | None,
    port_grpc: int | None,
    port_http: int | None,
    port_websocket: int | None,
    port_bert: int | None,
    port_bert_out: int | None,
    key_file: Path | None,
    insecure: bool,
    parent_pid: int | None,
    control_port: int | None,
    metrics_host: str,
    metrics_port: int,
) -> None:
    """Serve a flow's gateway: gRPC and HTTP in front of executors that run already or will.

    Listens at once, and is ready when every executor has a replica that takes requests. Ends on SIGTERM or Ctrl-C,
    after the requests in flight, with exit code 0.

    \b
    Example:
      flowdex gateway --flow flow.yml --address encoder=127.0.0.1:52000
      flowdex gateway --address encoder=10.0.0.5:52000 --address encoder=10.0.0.6:52000
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.collector import settle
    from flowdex_orchestrator.access import Caller, Role, guard_of, keys_path
    from flowdex_orchestrator.control import RUNNER_VARIABLE
    from flowdex_orchestrator.flow import default_flow_path, load_flow
    from flowdex_orchestrator.flow.certificates import gateway_files
    from flowdex_orchestrator.gateway.descriptors import raise_limit
    from flowdex_orchestrator.gateway.server import Gateway, settings_from_flow, targets_from_flow
    from flowdex_orchestrator.observability.logs import configure_logging
    from flowdex_orchestrator.observability.tracing import make_tracing

    flow = load_flow(flow_file or default_flow_path(), text_from=flow_text)
    configure_logging("gateway", flow.gateway.log_level, flow.gateway.log_format)
    named = {"grpc": port_grpc, "http": port_http, "websocket": port_websocket}
    ports = _ports(flow.gateway.listeners(), named, port_bert, port_bert_out)
    settings = settings_from_flow(flow)
    if insecure:
        settings = replace(settings, insecure=True)
    custom = {endpoint: Role(role) for endpoint, role in flow.gateway.roles.items()}
    guard = guard_of(key_file or keys_path(flow), custom)
    targets = targets_from_flow(flow, _parse_addresses(addresses))
    files = gateway_files(flow)
    tracing = make_tracing(flow.name, "gateway") if flow.gateway.tracing else None

    async def serve() -> None:
        stop = asyncio.Event()
        _stop_on_signals(stop, parent_pid)
        options: dict[str, Any] = {"name": flow.name, "bert": flow.gateway.bert, "certificates": files, "guard": guard}
        options["tracing"] = tracing
        async with Gateway(targets, settings, **options) as running:
            open_ports = await running.serve(
                host or flow.gateway.host,
                grpc_port=ports.get("grpc"),
                http_port=ports.get("http"),
                websocket_port=ports.get("websocket"),
                bert_ports=(ports["bert"], ports["bert-out"]) if "bert" in ports else None,
            )
            for protocol, port in open_ports.items():
                logger.info("listening on %s://%s:%d", protocol, host or flow.gateway.host, port)
            running.serve_metrics(metrics_host, metrics_port)
            if control_port is not None:
                token = _control_token()
                await running.serve_admin(control_port, token)
                if guard is not None:
                    guard.internal[token] = Caller("the runner", "", frozenset({Role.ADMIN}))
                    running.runner_token = token
                running.runner = os.environ.get(RUNNER_VARIABLE)
            settle()
            ready = asyncio.ensure_future(running.wait_ready())
            await asyncio.wait((ready, asyncio.ensure_future(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                logger.info("ready: every executor has a replica that takes requests")
            await stop.wait()
            logger.info("stopping: %d requests in flight", running.router.in_flight)

    raise_limit()
    asyncio.run(serve())


def _ports(
    listeners: list[tuple[str, int]],
    named: Mapping[str, int | None],
    port_bert: int | None,
    port_bert_out: int | None,
) -> dict[str, int]:
    """The port of each protocol: the flow file's, unless the command line says otherwise."""
    from flowdex.errors import ConfigurationError

    ports = dict(listeners)
    if unknown := sorted(set(ports) - {*named, "bert", "bert-out"}):
        raise ConfigurationError(
            f"this gateway serves {', '.join(named)} and bert, not {', '.join(unknown)}: change `with: protocol:`"
        )
    ports.update({protocol: port for protocol, port in named.items() if port is not None})
    if port_bert is not None:
        ports["bert"] = port_bert
        ports["bert-out"] = port_bert + 1 if 0 < port_bert < 65535 else 0
    if port_bert_out is not None:
        ports["bert-out"] = port_bert_out
    return ports


def _control_token() -> str:
    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.control import TOKEN_VARIABLE

    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise ConfigurationError(f"--control-port needs the environment variable {TOKEN_VARIABLE}")
    return token


def _parse_addresses(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, separator, address = pair.partition("=")
        if not separator or not name or ":" not in address:
            raise click.BadParameter(f"expected NAME=HOST:PORT, got {pair!r}", param_hint="--address")
        found.setdefault(name, []).append(address)
    return found


def _stop_on_signals(stop: asyncio.Event, parent_pid: int | None) -> None:
    """Set `stop` at the first SIGTERM or SIGINT, or when the parent is gone; end at once at the second signal."""
    from flowdex_orchestrator.processes import watch_parent

    loop = asyncio.get_running_loop()

    def stop_or_end() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop_or_end)
    if parent_pid is not None:

        def parent_died() -> None:
            loop.call_soon_threadsafe(stop.set)

        watch_parent(parent_pid, parent_died)
