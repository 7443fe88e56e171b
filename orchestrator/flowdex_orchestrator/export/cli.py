"""`flowdex export kubernetes` and `flowdex export docker-compose`.

    flow.yml --load_flow, inspect_classes--> Deployment --render--> files below a folder | one file

What a command wrote earlier and would not write now is removed; nothing else in the folder is touched.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowdex.cli import complete

if TYPE_CHECKING:
    from flowdex_orchestrator.export.model import Deployment

__all__ = ["docker_compose", "kubernetes"]

_flow_argument = click.argument(
    "flow", required=False, type=click.Path(path_type=Path), metavar="[FLOW.YML]", shell_complete=complete.flow_files
)
_prefix_option = click.option(
    "--image-prefix", default="", metavar="PREFIX", help="In front of flowdex's own images, such as a registry and '/'."
)
_timeout_option = click.option(
    "--timeout", default=60.0, show_default=True, metavar="SECONDS", help="Time to import the executors' classes."
)


@click.command()
@_flow_argument
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    default="k8s",
    show_default=True,
    help="Folder to write to.",
)
@click.option("--namespace", metavar="NAME", help="Namespace of the flow.  [default: the flow's name]")
@_prefix_option
@_timeout_option
def kubernetes(flow: Path | None, output: Path, namespace: str | None, image_prefix: str, timeout: float) -> None:
    """Write Kubernetes manifests of a flow: a Kustomize base, components and overlays.

    FLOW.YML is ./flow.yml by default. Overlays: local, gpu, production, production-keda. What the operator has to
    see to is said on standard error.

    \b
    Example:
      flowdex export kubernetes flow.yml -o k8s/
      kubectl apply -k k8s/overlays/local
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.export.folder import write_folder
    from flowdex_orchestrator.export.kubernetes import render

    deployment = _deployment(flow, image_prefix, timeout, namespace)
    write_folder(output, render(deployment))
    _tell(deployment, f"the Secret {deployment.secret} must hold")
    click.echo(
        f"{output}: base and overlays of {deployment.flow.name}; kubectl apply -k {output}/overlays/local", err=True
    )


@click.command("docker-compose")
@_flow_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.  [default: standard output]",
)
@click.option(
    "--with",
    "additions",
    type=click.Choice(("qdrant", "monitoring")),
    multiple=True,
    help="Add a Qdrant server, with the index on it; or Prometheus and Grafana. Repeatable.",
)
@click.option(
    "--build",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Build flowdex's images, from the Dockerfile in this folder.",
)
@_prefix_option
@_timeout_option
def docker_compose(
    *,
    flow: Path | None,
    output: Path | None,
    additions: tuple[str, ...],
    build: Path | None,
    image_prefix: str,
    timeout: float,
) -> None:
    """Write a docker-compose.yml of a flow.

    FLOW.YML is ./flow.yml by default. The containers read the flow file where it is, so keep both in one folder. What
    --with adds has files of its own: they go into a folder beside OUTPUT with its name, without the suffix.

    \b
    Example:
      flowdex export docker-compose flow.yml -o docker-compose.yml --build . --with qdrant --with monitoring
      docker compose up
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.export.compose import render_compose
    from flowdex_orchestrator.export.folder import LIST, write_folder

    if output is None and additions:
        raise ConfigurationError("--with writes files beside the Compose file: say where with -o docker-compose.yml")
    deployment = _deployment(flow, image_prefix, timeout, None)
    place = output or Path("docker-compose.yml")
    made = render_compose(
        deployment,
        additions=additions,
        build=None if build is None else os.path.relpath(build, place.parent),
        folder=f"./{place.stem}",
    )
    _tell(deployment, "set in the environment, or in .env beside the file:")
    if output is None:
        click.echo(made.text, nl=False)
        return
    folder = output.with_suffix("")
    if made.files or (folder / LIST).exists():
        write_folder(folder, made.files)
    try:
        output.write_text(made.text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}") from None


def _deployment(path: Path | None, prefix: str, timeout: float, namespace: str | None) -> Deployment:
    from dataclasses import replace

    from flowdex_orchestrator.export.model import dns_label, make_deployment
    from flowdex_orchestrator.flow import FlowFileError, default_flow_path, load_flow
    from flowdex_orchestrator.flow.classes import inspect_classes

    file = path or default_flow_path()
    flow = load_flow(file)
    findings, facts = inspect_classes(flow, flow.folder, timeout)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise FlowFileError(errors)
    deployment = make_deployment(flow, file.read_text(encoding="utf-8-sig"), facts, image_prefix=prefix)
    return deployment if namespace is None else replace(deployment, name=dns_label(namespace))


def _tell(deployment: Deployment, needs: str) -> None:
    """Say what the operator has to see to; `needs` goes before the names of what is secret."""
    for remark in deployment.remarks:
        click.echo(f"note: {remark}", err=True)
    if deployment.variables.secrets:
        click.echo(f"note: {needs} {', '.join(deployment.variables.secrets)}", err=True)
