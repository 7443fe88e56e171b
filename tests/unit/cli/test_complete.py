"""What is offered after TAB: from files alone, without anything heavy, and what the runner really writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from flowdex.cli.main import main
from flowdex_orchestrator.runner.state import FlowState, ProcessId, ProcessState, RunFolder

HEAVY = ("grpc", "numpy", "httpx", "rich", "google", "jina", "torch", "yaml", "pydantic")


def offered(*words: str) -> list[str]:
    """What is offered for the last of these words."""
    found = ShellComplete(main, {}, "flowdex", "_FLOWDEX_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [each.value if each.type == "plain" else f"<{each.type}>" for each in found]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a flow, other flows and other files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWDEX_HOME", raising=False)
    (tmp_path / "flows").mkdir()
    (tmp_path / "docs").mkdir()
    Path("flow.yml").write_text("jtype: Flow\nexecutors:\n  - name: encoder\n  - name: 'ranker'\n")
    for name in ("flows/elmo.yml", "flows/encode.yaml", "flows/notes.txt", "docs/a.md", ".hidden.yml"):
        Path(name).write_text("executors:\n  - {uses: A}\n  - name: other\n")
    return tmp_path


def test_flow_files() -> None:
    assert offered("up", "") == ["flow.yml", "flows/"]
    assert offered("up", "flows/e") == ["flows/elmo.yml", "flows/encode.yaml"]
    assert offered("encode", "--flow", "flows/elm") == ["flows/elmo.yml"]
    assert offered("check", "nothing") == ["<file>"]  # whatever the shell finds
    assert offered("check", "docs/") == ["<file>"]
    for verb in ("down", "ps", "plan", "doctor", "logs --flow", "restart --flow", "gateway --flow", "reindex --with"):
        assert "flow.yml" in offered(*verb.split(), "f"), verb
    assert offered("export", "kubernetes", "flo") == ["flow.yml", "flows/"]


def test_executors_by_the_file_and_by_the_run(folder: Path) -> None:
    assert offered("restart", "") == ["encoder", "ranker"]
    assert offered("restart", "--flow", "flows/elmo.yml", "") == ["other"]
    assert offered("scale", "e") == ["encoder="]
    assert offered("up", "--replicas", "") == ["encoder=", "ranker="]
    assert offered("executor", "--flow", "flows/elmo.yml", "o") == ["other"]
    run = RunFolder(Path("flow.yml").resolve(), folder)
    runner = ProcessId(1, "1")
    processes = [ProcessState(name, 0, "127.0.0.1", 1) for name in ("encoder", "encoder", "indexer", "gateway")]
    run.write(FlowState("flow.yml", "x", runner, processes=processes, endpoints={"grpc": "grpc://127.0.0.1:5"}))
    assert offered("restart", "") == ["encoder", "indexer"]
    assert offered("search", "--url", "") == ["grpc://127.0.0.1:5"]
    assert offered("--url", "g") == ["grpc://127.0.0.1:5"]
    assert offered("--url", "http") == []
    run.logs.mkdir()
    for name in ("encoder-0", "encoder-1", "gateway", "runner"):
        run.log(name).touch()
    assert offered("logs", "") == ["encoder", "encoder-0", "encoder-1", "gateway", "runner"]
    assert offered("logs", "g") == ["gateway"]


def test_the_runners_folder_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWDEX_HOME", str(folder / "home"))
    run = RunFolder(Path("flow.yml").resolve(), folder)
    run.write(FlowState("f", "x", ProcessId(1, "1"), processes=[ProcessState("far", 0, "127.0.0.1", 1)]))
    assert offered("restart", "") == ["far"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"processes": null}', '{"endpoints": {}}'])
def test_a_state_that_cannot_be_read_offers_what_the_file_says(folder: Path, content: str) -> None:
    state = folder / ".flowdex/run/flow/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(content)
    assert offered("restart", "") == ["encoder", "ranker"]
    assert offered("search", "--url", "") == []


def test_names() -> None:
    assert offered("search", "--mode", "") == ["hybrid", "dense", "sparse"]
    assert offered("search", "--rerank", "l") == ["late_interaction"]
    assert offered("search", "--fusion", "") == ["rrf", "dbsf"]
    assert offered("init", "--encoder", "g") == ["glove", "gpt="]
    assert offered("completion", "z") == ["zsh"]


@pytest.mark.parametrize("words", ["flowdex restart ", "flowdex up f", "flowdex search --url ", "flowdex logs "])
def test_nothing_heavy_is_imported_for_it(words: str) -> None:
    code = f"""
import sys
from flowdex.cli.main import main
try:
    main(prog_name="flowdex")
except SystemExit:
    pass
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    environment = {
        **os.environ,
        "_FLOWDEX_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_completion_takes_little_time() -> None:
    """CPU time, which other programs do not add to: most of it is Python's own start."""
    import resource

    environment = {
        **os.environ,
        "_FLOWDEX_COMPLETE": "bash_complete",
        "COMP_WORDS": "flowdex restart ",
        "COMP_CWORD": "2",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "flowdex"], capture_output=True, timeout=60, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_every_candidate_is_text() -> None:
    context = click.Context(main, info_name="flowdex")
    for name in main.list_commands(context):
        assert all(isinstance(each, str) for each in offered(name, "")), name
