"""The command line's group: light help, lazy verbs, and errors as one line and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from flowdex.cli import main as module
from flowdex.cli.main import COMMANDS, LazyGroup, main
from flowdex.errors import Unavailable

CLIENT_VERBS = ["encode", "index", "search", "delete", "eval", "compare", "conformance", "status", "completion"]


def run(*arguments: str, **options: object) -> object:
    return CliRunner().invoke(main, list(arguments), **options)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["index", "--help"], ["completion", "bash"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys, json
from flowdex.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & {"numpy", "grpc", "httpx", "rich", "google", "jina", "torch", "yaml", "asyncio"}


def test_help_lists_every_verb_with_its_summary() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for section, verbs in COMMANDS.items():
        assert f"{section}:" in result.output
        for name, (_, summary) in verbs.items():
            assert f"  {name}" in result.output
            assert summary in result.output


@pytest.mark.parametrize("verb", CLIENT_VERBS)
def test_every_verbs_help_starts_with_a_sentence_and_has_an_example(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "Example:\n" in result.output
    assert f"  flowdex {verb}" in result.output or verb == "completion"
    assert "\\b" not in result.output
    assert "\b" not in result.output


def test_every_verb_of_the_table_can_be_found() -> None:
    for section in COMMANDS.values():
        for name, (target, _) in section.items():
            home, _, attribute = target.partition(":")
            assert importlib.util.find_spec(home.partition(".")[0]) is not None
            if home.startswith("flowdex."):
                assert isinstance(getattr(importlib.import_module(home), attribute), click.Command), name


def test_an_unknown_verb_is_answered_with_the_nearest() -> None:
    result = run("serch", "x")
    assert result.exit_code == 2
    assert "There is no command 'serch'. Did you mean 'search'?" in result.stderr
    assert "--help" in run("zzzzzz").stderr


def test_version() -> None:
    import flowdex

    assert run("--version").output == f"flowdex {flowdex.__version__}\n"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.argument("how")
    def fail(how: str) -> None:
        if how == "return":
            return
        raise {
            "ours": Unavailable("nobody there"),
            "missing": ModuleNotFoundError("No module named 'torch'", name="torch"),
            "stop": KeyboardInterrupt(),
            "usage": click.UsageError("wrong"),
            "bug": LookupError("a bug"),
        }[how]

    monkeypatch.setitem(COMMANDS["Shell"], "fail", ("nowhere:fail", "Fail."))
    real = LazyGroup.get_command
    monkeypatch.setattr(
        LazyGroup, "get_command", lambda self, ctx, name: fail if name == "fail" else real(self, ctx, name)
    )


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("return", 0, ""),
        ("ours", 1, "Error: nobody there\n"),
        ("missing", 1, "Error: this command needs 'torch', which is not installed: pip install 'flowdex[server]'\n"),
        ("usage", 2, "Error: wrong\n"),
        ("stop", 130, "\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(how: str, code: int, message: str) -> None:
    result = run("fail", how)
    assert result.exit_code == code
    assert result.stderr.endswith(message)
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("failing")
def test_a_bug_is_not_hidden() -> None:
    assert isinstance(run("fail", "bug").exception, LookupError)


def test_completion_offers_verbs_without_importing_them() -> None:
    script = run("completion", "bash").output
    assert "_FLOWDEX_COMPLETE" in script
    environment = {"_FLOWDEX_COMPLETE": "bash_complete", "COMP_WORDS": "flowdex se", "COMP_CWORD": "1"}
    assert run(env=environment).output == "plain,search\n"
    environment["COMP_WORDS"] = "flowdex --ve"
    assert run(env=environment).output == "plain,--version\n"


def test_the_table_names_its_own_module() -> None:
    assert module.__all__ == ["EXIT_CODES", "LazyGroup", "Settings", "main"]
