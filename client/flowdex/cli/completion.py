"""`flowdex completion`: the script that lets a shell complete our commands, as click writes it."""

from __future__ import annotations

import click

from flowdex.cli.main import main

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Example:
      eval "$(flowdex completion bash)"                    # in ~/.bashrc
      flowdex completion fish > ~/.config/fish/completions/flowdex.fish
    """  # noqa: D301 - click's mark for lines to keep
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, f"click completes {shell}: this is a bug"
    click.echo(kind(main, {}, "flowdex", "_FLOWDEX_COMPLETE").source())
