"""What batching is worth to ELMo: the same texts one by one, and in batches of 8 to 64, on one thread.

    python benchmarks/elmo.py [--texts 64] [--rounds 3] [--options options.json --weights weights.hdf5]

Without files it writes random weights of the published size (2 layers of 4,096 with projections of 512, 2,048 filters)
in the published format and loads them through the real code: what is computed does not depend on the numbers. Texts are
of 5 to 40 words, and every word is new, so that the memory for words helps nobody; the last line shows what it saves
when no word is. Times are of the CPU.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flowdex_executors.encoder.elmo.backend import ElmoBackend
from flowdex_executors.encoder.tokenising import TokenSequence

PUBLISHED: dict[str, Any] = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 512,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 4096,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "embedding": {"dim": 16},
        "n_characters": 262,
        "max_characters_per_token": 50,  # nosec B105 # a number
    },
}


def write_model(folder: Path, options: dict[str, Any]) -> tuple[Path, Path]:
    """Write random weights in the published format; the paths of options and weights."""
    import h5py

    generator = np.random.default_rng(0)
    lstm, cnn = options["lstm"], options["char_cnn"]
    size, cell, embedding = lstm["projection_dim"], lstm["dim"], cnn["embedding"]["dim"]
    features = sum(count for _, count in cnn["filters"])
    shapes: dict[str, tuple[int, ...]] = {
        "char_embed": (261, embedding),
        "CNN_proj/W_proj": (features, size),
        "CNN_proj/b_proj": (size,),
    }
    for number, (width, count) in enumerate(cnn["filters"]):
        shapes[f"CNN/W_cnn_{number}"] = (1, width, embedding, count)
        shapes[f"CNN/b_cnn_{number}"] = (count,)
    for number in range(cnn["n_highway"]):
        for name in ("carry", "transform"):
            shapes[f"CNN_high_{number}/W_{name}"] = (features, features)
            shapes[f"CNN_high_{number}/b_{name}"] = (features,)
    for direction in (0, 1):
        for layer in range(lstm["n_layers"]):
            name = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes |= {f"{name}/W_0": (2 * size, 4 * cell), f"{name}/B": (4 * cell,), f"{name}/W_P_0": (cell, size)}
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for key, shape in shapes.items():
            scale = np.float32(1 / max(np.prod(shape[:-1]), 1) ** 0.5)
            file[key] = generator.standard_normal(shape, dtype=np.float32) * scale
    (folder / "options.json").write_text(json.dumps(options))
    return folder / "options.json", folder / "weights.hdf5"


def make_texts(count: int, seed: int) -> list[TokenSequence]:
    """Texts of 5 to 40 words that no other text has."""
    generator = random.Random(seed)  # nosec B311 # the same texts every time

    def word() -> str:
        return "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(6, 12)))

    return [TokenSequence([word() for _ in range(generator.randint(5, 40))]) for _ in range(count)]


def measure(backend: ElmoBackend, texts: list[TokenSequence], batch: int) -> float:
    """Seconds of CPU for all texts in batches of `batch`, sorted by length as the encoder does."""
    ordered = sorted(texts, key=len)
    started = time.process_time()  # one thread; what else the machine does must not count
    for start in range(0, len(ordered), batch):
        backend.forward(ordered[start : start + batch])
    return time.process_time() - started


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", type=Path)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = (arguments.options, arguments.weights)
        options, weights = paths if all(paths) else write_model(Path(folder), PUBLISHED)
        backend = ElmoBackend(options, weights)
    backend.forward(make_texts(2, seed=-1))
    sizes = (1, 8, 16, 32, 64)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    remembered = []
    for number in range(arguments.rounds):  # in turns, so that a round compares under the same noise
        for size in sizes:
            texts = make_texts(arguments.texts, seed=number * 100 + size)
            words = sum(map(len, texts))
            seconds[size].append(measure(backend, texts, size) / words)
        remembered.append(measure(backend, texts, sizes[-1]) / words)  # the same texts again
    base = seconds[1]
    print(f"{'sequences a batch':<20}{'words/s':>10}{'against one':>13}")
    for size in sizes:
        ratio = statistics.median(one / many for one, many in zip(base, seconds[size], strict=True))
        print(f"{size:<20}{1 / statistics.median(seconds[size]):>10.0f}{ratio:>12.1f}x")
    ratio = statistics.median(one / many for one, many in zip(base, remembered, strict=True))
    print(f"{f'{sizes[-1]}, known words':<20}{1 / statistics.median(remembered):>10.0f}{ratio:>12.1f}x")


if __name__ == "__main__":
    main()
