"""Model folders from anybody: what would run code, reach outside or blow up memory is refused by the file's name."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex import ConfigurationError
from flowdex_executors.encoder.model_files import find_model, read_model
from flowdex_executors.encoder.transformers_backend import TransformersBackend

torch = pytest.importorskip("torch")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source, _ = find_model(None)
    return Path(shutil.copytree(source, tmp_path / "model"))


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def load(folder: Path) -> TransformersBackend:
    return TransformersBackend(read_model(folder))


def bin_bomb(folder: Path, witness: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Bomb(witness)}, folder / "pytorch_model.bin")


def plain_pickle(folder: Path, witness: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(witness)))


def own_code(folder: Path, witness: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w').close()")
    configure(folder, model_type="mine", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})


def kernel(folder: Path, witness: Path) -> None:
    configure(folder, attn_implementation="somebody/kernel")


def shard_outside(folder: Path, witness: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_link(folder: Path, witness: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "part.safetensors").symlink_to("../outside.safetensors")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "part.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def modules_outside(folder: Path, witness: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling", "path": "/etc"}]')


def modules_of_another_form(folder: Path, witness: Path) -> None:
    (folder / "modules.json").write_text('{"type": 1}')


def deep(folder: Path, witness: Path) -> None:
    (folder / "modules.json").write_text("[" * 100_000)


def layers(folder: Path, witness: Path) -> None:
    configure(folder, num_hidden_layers=10**9)


def vocabulary(folder: Path, witness: Path) -> None:
    configure(folder, vocab_size=10**9)


def header_length(folder: Path, witness: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 50).to_bytes(8, "little") + b"{}")


def header_shape(folder: Path, witness: Path) -> None:
    tensor = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"embeddings.word_embeddings.weight": tensor}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


CASES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "pickle in a zip": (bin_bomb, r"pytorch_model.bin holds more than arrays"),
    "plain pickle": (plain_pickle, r"pytorch_model.bin holds more than arrays"),
    "code of its own": (own_code, r"config.json asks for code that comes with the model \(auto_map\)"),
    "kernel of the hub": (kernel, r"config.json asks for code from the hub \(attn_implementation: 'somebody/kernel'\)"),
    "shard outside": (shard_outside, r"index.json names '../outside.safetensors', which lies outside"),
    "shard by a link": (shard_link, r"index.json names 'part.safetensors', which lies outside"),
    "modules outside": (modules_outside, r"modules.json names '/etc', which lies outside"),
    "modules that are none": (modules_of_another_form, r"modules.json is no list of modules"),
    "deep JSON": (deep, r"modules.json cannot be read: it is nested too deeply"),
    "a billion layers": (layers, r"config.json claims 1e\+09 layers"),
    "a billion words": (vocabulary, r"transformers cannot load model"),
    "length of the header": (header_length, r"transformers cannot load model"),
    "shape in the header": (header_shape, r"transformers cannot load model"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_refused(folder: Path, case: str) -> None:
    spoil, message = CASES[case]
    witness = folder.parent / "ran"
    spoil(folder, witness)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(folder)
    assert str(folder) in caught.value.message
    assert not witness.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024  # KiB


def test_nobody_is_asked_whether_to_run_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal transformers would ask, and a "y" would do it."""
    own_code(folder, folder.parent / "ran")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    with pytest.raises(ConfigurationError, match="auto_map"):
        load(folder)
    assert not (folder.parent / "ran").exists()


def test_safetensors_are_preferred(folder: Path) -> None:
    witness = folder.parent / "ran"
    torch.save({"a": Bomb(witness)}, folder / "pytorch_model.bin")
    assert load(folder).dimensions[0] == 384
    assert not witness.exists()


def test_a_native_model_keeps_its_unused_code(folder: Path) -> None:
    """Many models bring code for older versions of transformers: what knows their type loads them without it."""
    (folder / "evil.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w').close()")
    configure(folder, auto_map={"AutoModel": "evil.Model"})
    assert load(folder).dimensions[0] == 384
    assert not (folder.parent / "ran").exists()


def test_the_tokenizer_runs_no_code(folder: Path) -> None:
    from flowdex_executors.encoder.tokenising import load_tokenizer

    (folder / "tokenizer.json").unlink()
    (folder / "evil.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w').close()")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "Mine"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    try:
        load_tokenizer(folder)
    except ConfigurationError as error:
        assert str(folder) in error.message
    assert not (folder.parent / "ran").exists()


def test_the_cache_of_the_hub_is_links(folder: Path) -> None:
    """snapshots/REVISION/part -> ../../blobs/HASH is how it keeps files."""
    cache = folder.parent / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    snapshot = folder.rename(cache / "snapshots" / "abc")
    (snapshot / "model.safetensors").rename(cache / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "model.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_model(snapshot).hidden_size == 384


# ---- other formats ----


def test_an_hdf5_array_that_is_not_there(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    from flowdex_executors.encoder.elmo.weights import _Arrays

    with h5py.File(tmp_path / "w.hdf5", "w") as file:
        file.create_dataset("huge", shape=(1 << 20, 1 << 18), dtype="f4")  # a terabyte, never written
        file.create_dataset("packed", data=np.zeros((1 << 12, 1 << 12), np.float32), compression="gzip")
        file["away"] = h5py.ExternalLink("other.hdf5", "x")
        file.create_dataset("raw", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["x"] = np.ones(4, np.float32)
    (tmp_path / "secret").write_bytes(b"x" * 16)
    with h5py.File(tmp_path / "w.hdf5") as file:
        arrays = _Arrays(tmp_path / "w.hdf5", file)
        for key, shape in (("huge", (1 << 20, 1 << 18)), ("packed", (1 << 12, 1 << 12))):
            with pytest.raises(ConfigurationError, match=rf"'{key}' of .*w\.hdf5 claims [\d,]+ bytes"):
                arrays(key, *shape)
        for key in ("away", "raw"):
            with pytest.raises(ConfigurationError, match=rf"'{key}' of .*w\.hdf5 lies in another file"):
                arrays(key, 4)


def test_a_tensor_of_more_numbers_than_its_storage(tmp_path: Path) -> None:
    from flowdex_executors.encoder.ulmfit.weights import read_weights

    torch.save({"0.encoder.weight": torch.zeros(1).expand(1 << 20, 1 << 16)}, tmp_path / "w.pth")
    with pytest.raises(ConfigurationError, match=r"w\.pth: 0\.encoder\.weight claims more numbers \(68,719,476,736\)"):
        read_weights(tmp_path / "w.pth")


def test_an_array_of_more_numbers_than_its_file(tmp_path: Path) -> None:
    from flowdex_executors.encoder.word_vectors.weights import read_component

    path = tmp_path / "c.npy"
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 50), }"
    header = header.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 200)
    with pytest.raises(ConfigurationError, match=r"c\.npy cannot be read"):
        read_component(path, 50)


def test_a_parquet_file_of_more_words_than_vectors(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from flowdex_executors.encoder.word_vectors.files import find_word_vectors, read_word_vectors

    np.save(tmp_path / "v.npy", np.zeros((3, 2), np.float32))
    for words in (["a"] * 1_000_000, ["a" * 100_000] * 3):
        table = pyarrow.table({"w": pyarrow.array(words).dictionary_encode()})
        parquet.write_table(table, tmp_path / "v.parquet", compression="zstd")
        del table
        with pytest.raises(ConfigurationError, match=r"v\.parquet claims [\d,]+ words, but there are 3 vectors"):
            read_word_vectors(find_word_vectors(tmp_path / "v.npy", tmp_path / "v.parquet"))
