"""The help of every command, as a newcomer reads it: one voice, an example, defaults and units where they belong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from flowdex.cli.main import COMMANDS, EXIT_CODES, main


def walk(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from walk((*path, name), found)


EVERY = dict(walk(("flowdex",), main))


def text(name: str, width: int = 100) -> str:
    settings = {**main.context_settings, "max_content_width": width}
    return EVERY[name].get_help(click.Context(EVERY[name], info_name=name, terminal_width=width, **settings))


@pytest.mark.parametrize("name", EVERY)
def test_help_begins_with_a_sentence_and_has_an_example(name: str) -> None:
    shown = text(name)
    first = shown.split("\n\n")[1].strip()
    assert re.match(r"[A-Z]", first) and first.endswith((".", ".]")), first
    assert "\n  Example:\n" in shown, "an example, under that word"
    if name != "flowdex":
        example = shown.partition("\n  Example:\n")[2].partition("\n\n")[0]
        assert name in example, example
    assert "\\b" not in shown and "\b" not in shown, "the mark for kept lines is not kept itself"
    assert "-h, --help" in shown


@pytest.mark.parametrize("name", EVERY)
def test_options_read_alike(name: str) -> None:
    for option in EVERY[name].params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        told = option.help or ""
        bare = re.sub(r"  ?\[default: [^\]]+\]$", "", told)
        where = f"{name} {option.opts[-1]}: {told!r}"
        assert re.match(r"[A-Z]|gRPC|late_interaction|ndcg|embedded|minilm", bare), where
        assert bare.endswith("."), where
        assert "[" not in bare, f"{where}: a default is written [default: ...]"
        if not option.is_flag and not isinstance(option.type, click.Choice):
            assert option.metavar, f"{where}: name what it takes"
        if option.opts[-1] in ("--timeout", "--grace"):
            assert option.metavar == "SECONDS", where


@pytest.mark.parametrize("name", EVERY)
def test_defaults_are_shown(name: str) -> None:
    for option in EVERY[name].params:
        given = isinstance(option, click.Option) and not option.hidden and not option.is_flag and not option.multiple
        if given and option.default not in (None, "", "-") and not callable(option.default):
            assert isinstance(option, click.Option)
            shown = option.show_default or "[default:" in (option.help or "")
            plain = type(option.default).__module__ != "builtins"  # click's own mark for "not given"
            assert shown or plain, f"{name} {option.opts[-1]} does not show its default {option.default!r}"


def test_the_summaries_of_the_table_fit_the_commands() -> None:
    for section in COMMANDS.values():
        for name, (_, summary) in section.items():
            assert summary.endswith("."), name
            assert len(summary) <= 66, name


def test_exit_codes_are_in_the_help() -> None:
    shown = text("flowdex", 140).partition("Exit codes:\n")[2]
    for code, meaning in EXIT_CODES.items():
        assert re.search(rf"^  {code} +{re.escape(meaning)}$", shown, re.MULTILINE), (code, shown)
