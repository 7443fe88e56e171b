"""`flowdex completion`: the script that lets a shell complete our commands, as click writes it."""

from __future__ import annotations

import click

from flowdex.cli.main import main

__all__ = ["completion"]

_BASH_END = "\n    return 0\n"
# No space after `encoder=` or `flows/`: there is more to come.
_BASH_NO_SPACE = "\n    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace\n"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    It completes commands, options and their choices, flow files, and the executors, logs and addresses of a flow that
    runs or ran in the working directory.

    \b
    Example:
      eval "$(flowdex completion bash)"                    # in ~/.bashrc
      flowdex completion fish > ~/.config/fish/completions/flowdex.fish
    """  # noqa: D301 - click's mark for lines to keep
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, f"click completes {shell}: this is a bug"
    source = kind(main, {}, "flowdex", "_FLOWDEX_COMPLETE").source()
    click.echo(source.replace(_BASH_END, f"{_BASH_NO_SPACE}{_BASH_END}") if shell == "bash" else source)
