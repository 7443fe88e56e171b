"""`flowdex conformance`: which contracts a server offers, and which rules of them it keeps.

URL..., --bert --Server--> flowdex.conformance.suite.run --Report--> table | JSON, JUnit; exit code
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowdex.cli.common import console, json_option, print_json
from flowdex.cli.main import Settings

if TYPE_CHECKING:
    from flowdex.conformance.model import Contract, Report, Server
    from flowdex.transport.target import Target

__all__ = ["conformance"]


def _bert(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int, int] | None:
    if value is None:
        return None
    host, *ports = value.rsplit(":", 2)
    if not host or len(ports) != 2 or not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise click.BadParameter("must be HOST:PORT:PORT_OUT, such as 127.0.0.1:5555:5556")
    return host, int(ports[0]), int(ports[1])


def _variables(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"must be NAME=VALUE, such as model=bge-small, not {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


@click.command()
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option(
    "--contract", "chosen", multiple=True, metavar="NAME", help="Only this one, which then must be offered. Repeatable."
)
@click.option(
    "--cases",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Also the contract of this file, JSON or YAML. Repeatable.",
)
@click.option(
    "--set",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_variables,
    help="Value of a variable of the cases, such as model or rerank_model. Repeatable.",
)
@click.option(
    "--bert",
    metavar="HOST:PORT:PORT_OUT",
    callback=_bert,
    help="Where bert-as-service's protocol is served.  [default: what /status/server tells]",
)
@click.option("--api-key", metavar="KEY", help="API key; also FLOWDEX_API_KEY.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for a request.",
)
@click.option("--list", "as_list", is_flag=True, help="Show the contracts and their cases; nothing is sent.")
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the results as JUnit XML."
)
@json_option
@click.pass_context
def conformance(
    ctx: click.Context,
    /,
    *,
    urls: tuple[str, ...],
    chosen: tuple[str, ...],
    files: tuple[Path, ...],
    variables: dict[str, Any],
    bert: tuple[str, int, int] | None,
    api_key: str | None,
    timeout: float,
    as_list: bool,
    junit: Path | None,
    as_json: bool,
) -> None:
    """Run the recorded contracts of other services against any server, and show which rules it keeps.

    URL is the server's address: http:// for HTTP contracts, grpc:// for gRPC ones; name both to test both. What it
    does not offer is absent, and not failed. Exit code 0: it keeps all of what it offers.

    \b
    Example:
      flowdex conformance http://127.0.0.1:8080 grpc://127.0.0.1:51000
      flowdex conformance http://127.0.0.1:7997 --contract openai --set model=bge-small --junit results.xml
      flowdex conformance --bert 127.0.0.1:5555:5556 --contract bert
      flowdex conformance --list
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.conformance import suite
    from flowdex.conformance.model import Server

    contracts = suite.contracts(files, chosen)
    if as_list:
        _list(contracts, as_json)
        return
    targets = _targets(ctx, urls or (() if bert else (None,)), api_key)
    server = Server(targets.get("http"), targets.get("grpc"), bert, timeout, variables)
    report = _run(server, contracts, chosen)
    if junit is not None:
        from flowdex.conformance import report as reports

        junit.write_bytes(reports.junit(report))
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    if not report.complete:
        raise click.Abort
    ctx.exit(0 if report.passed else 1)


def _targets(ctx: click.Context, urls: Sequence[str | None], api_key: str | None) -> dict[str, Target]:
    """The addresses by protocol; None is that of the group's options."""
    from flowdex.transport.target import Target

    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    found: dict[str, Target] = {}
    for url in urls:
        target = Target.parse(url or settings.url, api_key=api_key or settings.api_key)
        kind = "grpc" if target.scheme.startswith("grpc") else "http"
        if kind in found:
            raise click.UsageError(f"{found[kind]} and {target} are both {kind}: one server at a time.")
        found[kind] = target
    return found


def _run(server: Server, contracts: list[Contract], chosen: tuple[str, ...]) -> Report:
    from flowdex.conformance.suite import run
    from flowdex.progress import open_progress

    total = sum(len(contract.cases) for contract in contracts)
    with open_progress(None, "cases", total, 1) as advance:
        return run(server, contracts, required=chosen, started=lambda contract, case: advance(1))


def _show(report: Report) -> None:
    from rich.text import Text

    from flowdex.conformance.report import failures, left_out, table, verdict

    out = console()
    out.print(table(report))
    notes = list(left_out(report))
    for line in (*([Text()] if notes else []), *notes, *failures(report)):
        out.print(line, soft_wrap=True)
    out.print()
    out.print(Text(verdict(report), "green" if report.passed else "red"), soft_wrap=True)


def _list(contracts: list[Contract], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "name": contract.name,
                    "title": contract.title,
                    "requests": contract.requests,
                    "cases": [{"name": case.name, "rule": case.rule} for case in contract.cases],
                }
                for contract in contracts
            ]
        )
        return
    from rich.text import Text

    from flowdex.results import counted

    out = console()
    for contract in contracts:
        size = f"{counted(len(contract.cases), 'case')}, at most {counted(contract.requests, 'request')}"
        out.print(Text.assemble((contract.name, "bold"), f"  {contract.title}: {size}"), soft_wrap=True)
        for case in contract.cases:
            out.print(Text.assemble(f"  {case.name:<32} ", (case.rule, "dim")), soft_wrap=True)
        out.print()
