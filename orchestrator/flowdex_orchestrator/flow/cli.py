"""`flowdex check` and `flowdex schema`.

    flowdex check [FLOW]  --load_flow, check_flow--> a line for each finding; exit code 1 if one is an error
    flowdex schema        --flow_schema------------> JSON Schema for editors

Everything heavy is imported when a command runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowdex.cli import complete

if TYPE_CHECKING:
    from flowdex_orchestrator.flow.findings import Finding

__all__ = ["check", "schema"]


@click.command()
@click.argument(
    "flow", required=False, type=click.Path(path_type=Path), metavar="[FLOW.YML]", shell_complete=complete.flow_files
)
@click.option("--no-ports", is_flag=True, help="Do not try the ports; they are taken while the flow runs.")
@click.option("--no-classes", is_flag=True, help="Do not import the executors' classes, which takes some seconds.")
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="Time for these imports.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def check(flow: Path | None, no_ports: bool, no_classes: bool, timeout: float, as_json: bool) -> None:
    """Find the mistakes of a flow file before it starts.

    Checks syntax, keys and values, names and `needs`, ports, classes and their arguments, model files, and that the
    encoder and the index agree. FLOW.YML is ./flow.yml by default, else the flow that comes with flowdex. Prints a line
    for each finding; the exit code is 1 if one of them is an error.

    \b
    Example:
      flowdex check
      flowdex check flows/remote-qdrant.yml --no-ports
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.flow.check import check_flow
    from flowdex_orchestrator.flow.findings import FlowFileError
    from flowdex_orchestrator.flow.load import default_flow_path, load_flow

    path = flow or default_flow_path()
    folder = None if flow else Path.cwd()  # where `flowdex up` would run it
    try:
        findings = check_flow(
            load_flow(path), ports=not no_ports, classes=not no_classes, folder=folder, timeout=timeout
        )
    except FlowFileError as error:
        findings = error.findings
    _print(path, findings, as_json)
    if any(finding.severity == "error" for finding in findings):
        raise SystemExit(1)


def _print(path: Path, findings: list[Finding], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2, ensure_ascii=False))
        return
    for finding in findings:
        click.echo(str(finding))
    if not findings:
        click.echo(f"{path}: no problems")


@click.command()
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file.  [default: standard output]",
)
def schema(output: Path | None) -> None:
    """Print the JSON Schema of flow files: an editor that knows it completes keys and marks mistakes.

    \b
    Example:
      flowdex schema -o flow-schema.json
      # then, as the first line of flow.yml:  # yaml-language-server: $schema=flow-schema.json
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.flow.schema import flow_schema

    text = json.dumps(flow_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}") from None
