"""The `flowdex` command: a group that imports a verb's module only when the verb is used.

    flowdex [--url URL] VERB ...   --COMMANDS-->   "package.module:attribute"   --import-->   click command

The help of the group is written from the table below, so `flowdex --help` imports click and nothing else. This is also
the one place where errors become exit codes; EXIT_CODES says which.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from flowdex.cli import complete
from flowdex.collector import rest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["EXIT_CODES", "LazyGroup", "Settings", "main"]


@dataclass
class Settings:
    """The options given before the verb; a verb finds them as `click.Context.obj`."""

    url: str | None = None
    api_key: str | None = None


# section -> {verb: (where its click command is, one line of help)}
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Use a running flow": {
        "encode": ("flowdex.cli.encode:encode", "Turn texts into vectors."),
        "index": ("flowdex.cli.index:index", "Add files, folders or standard input to the index."),
        "search": ("flowdex.cli.search:search", "Find the documents that answer a query."),
        "rank": ("flowdex.cli.rank:rank", "Rank texts by how well they answer a query, without an index."),
        "attention": ("flowdex.cli.attention:attention", "Show where each token of a text looks, as a page too."),
        "get": ("flowdex.cli.documents:get", "Print documents by their ids."),
        "count": ("flowdex.cli.documents:count", "Count documents, all or those that a filter finds."),
        "export": ("flowdex.cli.documents:export", "Write documents as JSON lines; or the flow for Kubernetes."),
        "delete": ("flowdex.cli.manage:delete", "Remove documents from the index."),
        "reindex": ("flowdex.cli.reindex:reindex", "Embed all documents anew, with another encoder."),
        "snapshot": ("flowdex.cli.snapshots:snapshot", "Save all that is indexed to one file."),
        "restore": ("flowdex.cli.snapshots:restore", "Put a snapshot in the place of what is indexed."),
        "inspect": (
            "flowdex_executors.indexer.inspect_cli:inspect",
            "Say what a snapshot or an index is; check it.",
        ),
        "status": ("flowdex.cli.manage:status", "Show the flow's executors, models and counts."),
    },
    "Measure flows": {
        "eval": ("flowdex.cli.evaluate:evaluate", "Measure how well a flow finds, over a test collection."),
        "compare": ("flowdex.cli.evaluate:compare", "Put two flows side by side over a test collection."),
        "conformance": ("flowdex.cli.conformance:conformance", "Run other services' contracts against any server."),
    },
    "Run a flow on this machine": {
        "init": ("flowdex_orchestrator.flow.init_cli:init", "Write a starter flow file, after three questions."),
        "doctor": ("flowdex_orchestrator.doctor.cli:doctor", "Say what this machine lacks for a flow, and what to do."),
        "up": ("flowdex_orchestrator.runner.cli:up", "Start a flow: its gateway and every executor."),
        "down": ("flowdex_orchestrator.runner.cli:down", "Stop a flow that runs in the background."),
        "ps": ("flowdex_orchestrator.runner.cli:ps", "List the processes of a running flow."),
        "logs": ("flowdex_orchestrator.runner.cli:logs", "Print the log of an executor or of the gateway."),
        "scale": ("flowdex_orchestrator.runner.scale_cli:scale", "Change the number of replicas of a running flow."),
        "restart": ("flowdex_orchestrator.runner.scale_cli:restart", "Replace replicas one by one while they serve."),
        "reload": ("flowdex_orchestrator.runner.reload_cli:reload", "Make a running flow what its file says now."),
        "keys": ("flowdex_orchestrator.access.cli:keys", "Make, list and remove the API keys of a flow."),
        "check": ("flowdex_orchestrator.flow.cli:check", "Find the mistakes of a flow file before it starts."),
        "plan": ("flowdex_orchestrator.capacity.cli:plan", "Say how large a flow has to be, down to nodes and GPUs."),
        "schema": ("flowdex_orchestrator.flow.cli:schema", "Print the JSON Schema of flow files, for editors."),
        "tls": ("flowdex_orchestrator.tls_cli:tls", "Make certificates for trying TLS."),
    },
    "Run one part (containers, supervisors)": {
        "executor": ("flowdex_orchestrator.worker.cli:executor", "Serve one executor of a flow over gRPC."),
        "gateway": ("flowdex_orchestrator.gateway.cli:gateway", "Serve a flow's gateway: gRPC and HTTP."),
        "health": ("flowdex.cli.health:health", "Ask a gateway or an executor whether it takes requests."),
    },
    "Shell": {
        "completion": ("flowdex.cli.completion:completion", "Print the script that lets a shell complete commands."),
    },
}


EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "an error, said on standard error; of check, doctor, get and health also a no",
    2: "wrong usage",
    130: "stopped by Ctrl-C",
    141: "the reader of the output has closed the pipe",
    143: "stopped by SIGTERM (a flow that is ready stops in order, and ends with 0)",
}
"""What the command ends with, for scripts."""


class LazyGroup(click.Group):
    """A click group whose commands are named in a table and imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs, in the table's order."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`; None when there is none of that name."""
        target = next((section[cmd_name][0] for section in COMMANDS.values() if cmd_name in section), None)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of `args`; an unknown verb is answered with the nearest known one."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            import difflib

            nearest = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else f" See '{ctx.command_path} --help'."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs by section, from the table alone."""
        width = max(map(len, self.list_commands(ctx)))
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in section.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the exit codes mean."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code:<10}", meaning) for code, meaning in EXIT_CODES.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs from the table (click would import every one of them) and the group's options."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=text)
            for section in COMMANDS.values()
            for name, (_, text) in section.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; in `standalone_mode` (the default) ends with `SystemExit`."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        rest()  # this is the whole process: whoever serves lets the collector work as usual once all is loaded
        try:
            code = super().main(args, prog_name or "flowdex", complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.Abort:
            sys.exit(130)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            _close_pipe()
        except ModuleNotFoundError as error:
            _fail(f"this command needs {error.name!r}, which is not installed: pip install 'flowdex[server]'")
        except Exception as error:
            if not _is_ours(error):
                raise
            _fail(str(error))
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; keeps a closed pipe from click, which would end it with the code of an error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _close_pipe()


def _is_ours(error: Exception) -> bool:
    """Whether `error` is a `FlowdexError`; that module (and gRPC) is loaded by whoever can raise one, not by us."""
    errors = sys.modules.get("flowdex.errors")
    return errors is not None and isinstance(error, errors.FlowdexError)


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _close_pipe() -> NoReturn:
    """End quietly, as a program killed by SIGPIPE does; what is still buffered has no reader."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import flowdex

        click.echo(f"flowdex {flowdex.__version__}")
        ctx.exit()


@click.group(
    "flowdex",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "-u",
    "--url",
    envvar="FLOWDEX_URL",
    metavar="URL",
    shell_complete=complete.addresses,
    help="The flow's gateway; also FLOWDEX_URL.  [default: grpc://127.0.0.1:51000]",
)
@click.option(
    "--api-key",
    envvar="FLOWDEX_API_KEY",
    metavar="KEY",
    help="API key, where the gateway asks for one; also FLOWDEX_API_KEY.",
)
@click.option("--ca", metavar="FILE", help="Authorities (PEM) to trust; also FLOWDEX_CA.  [default: the system's]")
@click.option(
    "--certificate",
    metavar="FILE",
    help="The own certificate (PEM), where the gateway asks for one; also FLOWDEX_CERTIFICATE.",
)
@click.option("--key", metavar="FILE", help="Its key (PEM); also FLOWDEX_KEY.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version of flowdex.",
)
@click.pass_context
def main(
    ctx: click.Context,
    *,
    url: str | None,
    api_key: str | None,
    ca: str | None,
    certificate: str | None,
    key: str | None,
) -> None:
    """Serve text representations and search over them: one YAML flow of executors behind one gateway.

    \b
    Example:
      flowdex up --detach
      flowdex index docs/
      flowdex search "how do I start a flow?"
      flowdex down
    """  # noqa: D301 - click's mark for lines to keep
    ctx.obj = Settings(url=url, api_key=api_key)
    # Whatever a verb connects to reads them there, in this process and in those it starts.
    for name, file in (("FLOWDEX_CA", ca), ("FLOWDEX_CERTIFICATE", certificate), ("FLOWDEX_KEY", key)):
        if file is not None:
            os.environ[name] = file
