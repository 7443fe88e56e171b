"""Writes the generated parts of the documentation again, or says which of them are out of date.

    the click commands   -> docs/cli.md
    the gateway's models -> docs/openapi.json
    the flow's models    -> orchestrator/flowdex_orchestrator/flow/schema.json

``python docs/generate.py`` writes, ``python docs/generate.py --check`` only compares and fails on a difference.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent


def cli_reference() -> str:
    """The help texts of all commands, as one Markdown page."""
    from flowdex.cli.main import EXIT_CODES, main

    pages = [
        "# Command line\n\nThe help of every command; written by `make docs`.\n",
        "## Exit codes\n\n| code | meaning |\n|---|---|",
    ]
    pages[-1] += "".join(f"\n| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()) + "\n"
    settings = {**main.context_settings, "max_content_width": 100}
    for name, command in _walk("flowdex", main, None):
        context = click.Context(command, info_name=name, terminal_width=100, **settings)
        pages.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(pages)


def _walk(name: str, command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name, parent=parent)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from _walk(f"{name} {child}", found, context)


def openapi_document() -> str:
    """The gateway's OpenAPI 3.1 document."""
    from flowdex_orchestrator.gateway.http import openapi_document

    return json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n"


def flow_schema() -> str:
    """The JSON Schema of flow files."""
    from flowdex_orchestrator.flow.schema import flow_schema

    return json.dumps(flow_schema(), indent=2, ensure_ascii=False) + "\n"


GENERATED = {
    ROOT / "docs/cli.md": cli_reference,
    ROOT / "docs/openapi.json": openapi_document,
    ROOT / "orchestrator/flowdex_orchestrator/flow/schema.json": flow_schema,
}


def stale() -> list[Path]:
    """The generated files that differ from what would be written now."""
    return [path for path, make in GENERATED.items() if not path.exists() or path.read_text(encoding="utf-8") != make()]


def main() -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 when a file is out of date")
    check = parser.parse_args().check
    for path in stale():
        if not check:
            path.write_text(GENERATED[path](), encoding="utf-8")
        print(f"{path.relative_to(ROOT)} {'is out of date: run `make docs`' if check else 'written'}")
    if check and stale():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
