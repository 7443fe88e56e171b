"""Random ELMo models on disk in the published format, and what they compute, step by step: the oracle of the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

TINY: dict[str, Any] = {
    "lstm": {
        "cell_clip": 0.6,  # low enough to be met
        "proj_clip": 0.4,
        "use_skip_connections": True,
        "n_layers": 2,
        "projection_dim": 5,
        "dim": 7,
    },
    "char_cnn": {
        "embedding": {"dim": 3},
        "filters": [[1, 2], [2, 3], [4, 5]],
        "n_highway": 2,
        "n_characters": 262,
        "max_characters_per_token": 50,
        "activation": "relu",
    },
}


def changed(lstm: dict[str, Any] | None = None, **char_cnn: Any) -> dict[str, Any]:
    """The tiny options with some changed."""
    return {"lstm": {**TINY["lstm"], **(lstm or {})}, "char_cnn": {**TINY["char_cnn"], **char_cnn}}


def write_elmo(folder: Path, options: dict[str, Any] = TINY, seed: int = 0) -> tuple[Path, Path]:
    """Write options.json and weights.hdf5; their paths."""
    generator = np.random.default_rng(seed)
    lstm, cnn = options["lstm"], options["char_cnn"]
    size, cell, embedding = lstm["projection_dim"], lstm["dim"], cnn["embedding"]["dim"]
    features = sum(count for _, count in cnn["filters"])
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (261, embedding)}
    for number, (width, count) in enumerate(cnn["filters"]):
        shapes |= {f"CNN/W_cnn_{number}": (1, width, embedding, count), f"CNN/b_cnn_{number}": (count,)}
    for number in range(cnn["n_highway"]):
        for name in ("carry", "transform"):
            shapes |= {f"CNN_high_{number}/W_{name}": (features, features), f"CNN_high_{number}/b_{name}": (features,)}
    if features != size:
        shapes |= {"CNN_proj/W_proj": (features, size), "CNN_proj/b_proj": (size,)}
    for direction in (0, 1):
        for layer in range(lstm["n_layers"]):
            name = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes |= {f"{name}/W_0": (2 * size, 4 * cell), f"{name}/B": (4 * cell,), f"{name}/W_P_0": (cell, size)}
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for key, shape in shapes.items():
            file[key] = (generator.standard_normal(shape) * 0.7).astype(np.float32)
    (folder / "options.json").write_text(json.dumps(options))
    return folder / "options.json", folder / "weights.hdf5"


class Oracle:
    """ELMo of one sentence at a time, one word and one gate at a time, in double precision.

    Written from the equations and the file's layout alone; shares nothing with the package.
    """

    def __init__(self, options: Path, weights: Path) -> None:
        self.options = json.loads(options.read_text())
        self.arrays: dict[str, Tensor] = {}
        with h5py.File(weights) as file:
            file.visititems(
                lambda name, item: (
                    self.arrays.update({name: torch.tensor(item[...]).double()})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )

    def word(self, word: str) -> Tensor:
        options, arrays = self.options["char_cnn"], self.arrays
        width = options["max_characters_per_token"]
        marks = {"<S>": [256], "</S>": [257]}
        characters = [258, *marks.get(word, word.encode()[: width - 2]), 259]
        embedded = arrays["char_embed"][characters + [260] * (width - len(characters))]
        features = []
        for number, (span, _) in enumerate(options["filters"]):
            kernel, bias = arrays[f"CNN/W_cnn_{number}"][0], arrays[f"CNN/b_cnn_{number}"]
            windows = [
                torch.einsum("we,wef->f", embedded[at : at + span], kernel) + bias for at in range(width - span + 1)
            ]
            features.append(torch.stack(windows).max(0).values)
        value = torch.cat(features)
        value = value.relu() if options["activation"] == "relu" else value.tanh()
        for number in range(options["n_highway"]):
            name = f"CNN_high_{number}"
            gate = torch.sigmoid(value @ arrays[f"{name}/W_carry"] + arrays[f"{name}/b_carry"])
            new = torch.relu(value @ arrays[f"{name}/W_transform"] + arrays[f"{name}/b_transform"])
            value = gate * new + (1 - gate) * value
        if "CNN_proj/W_proj" in arrays:
            value = value @ arrays["CNN_proj/W_proj"] + arrays["CNN_proj/b_proj"]
        return value

    def layers(self, words: Sequence[str], state: dict[Any, Any] | None = None) -> list[np.ndarray[Any, Any]]:
        """Each layer's vectors of the words, (len(words), 2 P); goes on from `state`, and changes it, where given."""
        options = self.options["lstm"]
        state = {} if state is None else state
        tokens = [self.word(word) for word in ("<S>", *words, "</S>")]
        sides: list[list[list[Tensor]]] = []
        for direction in (0, 1):
            inputs = tokens if direction == 0 else tokens[::-1]
            found = [tokens]
            for layer in range(options["n_layers"]):
                outputs = self.lstm(inputs, direction, layer, state)
                if layer and options["use_skip_connections"]:
                    outputs = [output + value for output, value in zip(outputs, inputs, strict=True)]
                inputs = outputs
                found.append(outputs if direction == 0 else outputs[::-1])
            sides.append(found)
        return [
            torch.cat([torch.stack(forwards), torch.stack(backwards)], dim=1)[1:-1].numpy()
            for forwards, backwards in zip(*sides, strict=True)
        ]

    def lstm(self, inputs: Sequence[Tensor], direction: int, layer: int, state: dict[Any, Any]) -> list[Tensor]:
        options = self.options["lstm"]
        name = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        zeros = torch.zeros(options["projection_dim"]).double(), torch.zeros(options["dim"]).double()
        hidden, memory = state.get((direction, layer), zeros)
        outputs = []
        for value in inputs:
            gates = torch.cat([value, hidden]) @ self.arrays[f"{name}/W_0"] + self.arrays[f"{name}/B"]
            enter, candidate, forget, leave = gates.chunk(4)
            memory = torch.sigmoid(forget + 1) * memory + torch.sigmoid(enter) * torch.tanh(candidate)
            if options["cell_clip"]:
                memory = memory.clip(-options["cell_clip"], options["cell_clip"])
            hidden = (torch.sigmoid(leave) * torch.tanh(memory)) @ self.arrays[f"{name}/W_P_0"]
            if options["proj_clip"]:
                hidden = hidden.clip(-options["proj_clip"], options["proj_clip"])
            outputs.append(hidden)
        state[direction, layer] = (hidden, memory)
        return outputs
