"""What people see and scripts rely on: completion in a real shell, bars and colours, exit codes, proxies.

One small flow answers all of it; what is slow about it is made so by the test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_flow import FakeFlow
from flow_support import free_ports
from terminal import Terminal

from flowdex import Client
from flowdex.cli.main import EXIT_CODES

FLOWDEX = [sys.executable, "-m", "flowdex"]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX shells, pipes, signals")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"id": f"r{i}", "text": f"row {i}"}) + "\n" for i in range(500)))
    return file


# ---- completion ----


def completed(shell: Sequence[str], script: str, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*shell, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    (tmp_path / "flow.yml").write_text("executors:\n  - name: encoder\n  - name: ranker\n")
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/elmo.yml").touch()
    return tmp_path


BASH = """
eval "$(flowdex completion bash)"
complete -p flowdex | grep -q _flowdex_completion
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
compopt() {{ echo compopt "$1" "$2"; }}
_flowdex_completion flowdex
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("flowdex comp", "compare completion"),
        ("flowdex restart ''", "encoder ranker"),
        ("flowdex scale e", "compopt -o nospace\nencoder="),
        ("flowdex up flow.", "flow.yml"),
        ("flowdex up flows", "compopt -o nospace\nflows/"),
        ("flowdex search --mode ''", "hybrid dense sparse"),
        ("flowdex doctor nothing", "compopt -o default"),
    ],
)
def test_bash_completes(flows: Path, words: str, offered: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    assert completed(["bash"], BASH.format(words=words), flows) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_load(shell: str, flows: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = {
        "zsh": 'autoload -U compinit; compinit -u; eval "$(flowdex completion zsh)"; echo ${_comps[flowdex]}',
        "fish": 'flowdex completion fish | source; complete --do-complete "flowdex restart "',
    }[shell]
    expected = {"zsh": "_flowdex_completion", "fish": "encoder"}[shell]
    assert expected in completed([shell], script, flows)


# ---- bars and colours ----


def on_a_terminal(flow: FakeFlow, cwd: Path, *arguments: str, **environment: str) -> str:
    terminal = Terminal([*FLOWDEX, *arguments], cwd=cwd, FLOWDEX_URL=flow.grpc_url, **environment)
    shown = terminal.rest()
    assert terminal.code == 0, shown
    return shown


def in_a_pipe(flow: FakeFlow, cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return subprocess.run(
        [*FLOWDEX, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**variables, "FLOWDEX_URL": flow.grpc_url, **environment},
        check=False,
    )


LONG = {
    "index": ["index", "rows.jsonl", "--batch-size", "50"],
    "encode": ["encode", "-f", "texts.txt", "-o", "vectors.npy"],
    "export": ["export", "-o", "out.jsonl"],
}


@pytest.mark.parametrize("verb", LONG)
def test_bars_have_a_rate_and_the_time_that_remains(flow: FakeFlow, rows: Path, verb: str) -> None:
    prepare(flow, rows)
    flow.trouble = lambda endpoint, number: 0.3
    shown = on_a_terminal(flow, rows.parent, *LONG[verb])
    assert re.search(rf"{verb[:5]}\w* ", shown), shown
    assert "━" in shown
    assert re.search(r"[\d,]+/s", shown), "a rate"
    assert re.search(r"\d:\d\d:\d\d", shown), "the time that remains"


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
@pytest.mark.parametrize("verb", LONG)
def test_pipes_get_no_bar(flow: FakeFlow, rows: Path, verb: str, environment: dict[str, str]) -> None:
    prepare(flow, rows)
    done = in_a_pipe(flow, rows.parent, *LONG[verb], **environment)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "\x1b" not in said and "━" not in said and "\r" not in said
    assert len(said.splitlines()) == 1, "a final line, and that is all"


def prepare(flow: FakeFlow, rows: Path) -> None:
    flow.documents.update({f"d{i}": {"id": f"d{i}", "text": f"text {i}", "tags": {}} for i in range(700)})
    (rows.parent / "texts.txt").write_text("".join(f"text {i}\n" for i in range(600)))


def test_colours(flow: FakeFlow, tmp_path: Path) -> None:
    flow.documents["a"] = {"id": "a", "text": "a red apple", "tags": {}}
    search = ["search", "apple"]
    bold = "\x1b[1;33mapple\x1b[0m"
    assert bold in on_a_terminal(flow, tmp_path, *search)
    assert bold not in on_a_terminal(flow, tmp_path, *search, NO_COLOR="1")
    assert "\x1b" not in in_a_pipe(flow, tmp_path, *search).stdout
    assert bold in in_a_pipe(flow, tmp_path, *search, FORCE_COLOR="1").stdout
    assert "\x1b" not in in_a_pipe(flow, tmp_path, *search, "--json", FORCE_COLOR="1").stdout


def test_standard_output_in_a_pipe_and_a_bar_on_the_terminal(flow: FakeFlow, rows: Path) -> None:
    flow.trouble = lambda endpoint, number: 0.3
    terminal = Terminal(
        [*FLOWDEX, *LONG["index"], "--json"], cwd=rows.parent, streams=("stdin", "stderr"), FLOWDEX_URL=flow.grpc_url
    )
    shown = terminal.rest()
    assert "indexing" in shown
    assert json.loads(terminal.piped)["documents"] == 500


# ---- exit codes ----


def test_exit_codes_as_documented(flow: FakeFlow, tmp_path: Path) -> None:
    flow.documents["a"] = {"id": "a", "text": "apple", "tags": {}}
    (tmp_path / "wrong.yml").write_text("jtype: Flow\nexecutorss: []\n")
    seen = {
        0: [["count"], ["get", "a"], ["health", flow.grpc_url], ["--help"], ["--version"]],
        1: [
            ["get", "b"],
            ["index", "nothing.txt"],
            ["check", "wrong.yml"],
            ["doctor", "wrong.yml"],
            ["health", "grpc://127.0.0.1:1"],
            ["search", "x", "-u", "grpc://127.0.0.1:1"],
        ],
        2: [["search"], ["serch", "x"], ["count", "--filter", "{"], ["init", "--for", "magic"]],
    }
    for code, commands in seen.items():
        for arguments in commands:
            done = in_a_pipe(flow, tmp_path, *arguments)
            assert done.returncode == code, (arguments, done.stdout, done.stderr)
            assert "Traceback" not in done.stderr
    assert set(EXIT_CODES) == {*seen, 130, 141, 143}


def test_exit_code_of_a_closed_pipe(flow: FakeFlow) -> None:
    encode = f"{' '.join(FLOWDEX)} encode {' '.join('abcdefgh' * 200)} --json"
    command = f"{encode} | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], timeout=60, env={**os.environ, "FLOWDEX_URL": flow.grpc_url}, check=False
    )
    assert done.returncode == 141


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_of_signals_as_a_shell_sees_them(flow: FakeFlow, number: signal.Signals, code: int) -> None:
    flow.trouble = lambda endpoint, call: 30.0
    command = f"{' '.join(FLOWDEX)} search slow & wait %1; echo $?"
    if number is signal.SIGINT:  # the background jobs of a script without job control ignore it
        command = f"set -m; {command}"
    shell = subprocess.Popen(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "FLOWDEX_URL": flow.grpc_url},
    )
    deadline = time.monotonic() + 60
    while not flow.calls and time.monotonic() < deadline:
        time.sleep(0.02)
    (child,) = children(shell.pid)
    os.kill(child, number)
    out, _ = shell.communicate(timeout=60)
    assert out.split()[-1] == str(code)


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


# ---- proxies ----


def test_a_proxy_of_the_environment_is_not_for_this_machine(flow: FakeFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for url in (flow.grpc_url, flow.http_url):
        with Client(url, timeout=30) as client:
            assert client.count() == 0, url
