"""`flowdex tls init`: certificates for trying TLS, in one command."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["tls"]

_FILES = ("ca", "gateway", "flow", "client")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_YAML = """\
with:
  tls: {{certificate: {folder}/flow.pem, key: {folder}/flow.key, ca: {folder}/ca.pem}}
gateway:
  tls:
    certificate: {folder}/gateway.pem
    key: {folder}/gateway.key
    ca: {folder}/ca.pem
    client_ca: {folder}/ca.pem     # without it, clients need no certificate
"""
_SHELL = """\
export FLOWDEX_URL=grpcs://127.0.0.1:51000 FLOWDEX_CA={folder}/ca.pem
export FLOWDEX_CERTIFICATE={folder}/client.pem FLOWDEX_KEY={folder}/client.key
"""


@click.group()
def tls() -> None:
    """Make certificates for trying TLS.

    \b
    Example:
      flowdex tls init
    """  # noqa: D301 - click's mark for lines to keep


@tls.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="tls")
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Host name or address that gateway and executors are reached at, beside this machine's own. Repeatable.",
)
@click.option(
    "--days", metavar="N", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they are valid."
)
@click.option("--renew", is_flag=True, help="Make new certificates of the authority that is in the folder already.")
def init(folder: Path, hosts: tuple[str, ...], days: int, renew: bool) -> None:
    """Make an authority and certificates for gateway, flow and client, in FOLDER (tls).

    For development: the authority's key lies beside them. Keys are readable by you alone (mode 0600). A flow that runs
    takes renewed certificates over by itself.

    \b
    Example:
      flowdex tls init
      flowdex tls init certificates --host search.example.org --days 30
      flowdex tls init --renew
    """  # noqa: D301 - click's mark for lines to keep
    from datetime import timedelta

    from flowdex.errors import ConfigurationError

    try:
        from flowdex_orchestrator.development_ca import Authority
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this needs {error.name!r}, which is not installed: pip install 'flowdex[tls]'"
        ) from None
    if renew:
        authority = Authority.read(folder)
    else:
        there = [f"{name}.{end}" for name in _FILES for end in ("pem", "key") if (folder / f"{name}.{end}").exists()]
        if there:
            raise ConfigurationError(f"{folder / there[0]} is there already: choose another folder, or give --renew")
        folder.mkdir(parents=True, exist_ok=True)
        authority = Authority.make("flowdex development")
        authority.pair.write(folder, "ca")
    valid, names = timedelta(days=days), (*_LOCAL, *hosts)
    authority.issue("gateway", names, server=True, valid=valid).write(folder, "gateway")
    authority.issue("flow", names, server=True, client=True, valid=valid).write(folder, "flow")
    authority.issue("client", client=True, valid=valid).write(folder, "client")
    if renew:
        click.echo(f"Renewed the certificates in {folder}; a flow that runs takes them over by itself.")
        return
    click.echo(f"Wrote an authority and certificates to {folder}. In the flow file (paths start from it):\n")
    click.echo(_YAML.format(folder=folder))
    click.echo("And for clients:\n")
    click.echo(_SHELL.format(folder=folder), nl=False)
