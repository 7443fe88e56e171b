"""The encoder's forward passes by themselves: packed and padded, in one-thread workers and with a team of threads.

    python benchmarks/encoder_inprocess.py [--texts 128] [--rounds 3] [--threads N] [--model FOLDER]

The texts are docstrings of this machine's standard library, of very different lengths. Tokenising is left out; each
case pools and copies its vectors out. The cases take turns, so that each round compares them under the same noise: the
table gives medians over the rounds, and ratios round by round. What the queue, the gateway and the network add is for
other benchmarks to say.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from flowdex_executors.encoder.backend import Backend
from flowdex_executors.encoder.batching import Batcher
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.packed_bert import PackedBert
from flowdex_executors.encoder.pooling import pool
from flowdex_executors.encoder.tokenising import TextTokenizer, TokeniseOptions, TokenSequence
from flowdex_executors.encoder.transformers_backend import TransformersBackend

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from stdlib_docs import documents

BUDGET = 1024
Vectors = npt.NDArray[np.float32]


class Case(NamedTuple):
    """One way to compute all texts."""

    name: str
    run: Callable[[Sequence[TokenSequence]], Vectors]


def vectors_of(backend: Backend, batch: Sequence[TokenSequence]) -> list[Vectors]:
    """Mean-pooled vectors of one batch; sorted by length, as the encoder does."""
    order = sorted(range(len(batch)), key=lambda index: len(batch[index]))
    with torch.inference_mode():
        computed = backend.forward([batch[index] for index in order])
        rows = pool(computed.layers[0], computed.lengths, ["mean"]).numpy()
    vectors = np.empty_like(rows)
    vectors[order] = rows
    return list(vectors)


def by_workers(backend: Backend, threads: int) -> Callable[[Sequence[TokenSequence]], Vectors]:
    """As the encoder runs: the batcher's threads, each of which computes by itself."""

    def run(sequences: Sequence[TokenSequence]) -> Vectors:
        batcher: Batcher[TokenSequence, Vectors] = Batcher(
            lambda batch: vectors_of(backend, batch),
            budget=BUDGET,
            threads=threads,
            padded=backend.padded,
            use_cores=torch.set_num_threads,
        )
        try:
            return np.stack(batcher.submit(sequences).result())
        finally:
            batcher.close()

    return run


def by_team(backend: Backend, threads: int, size: int | None) -> Callable[[Sequence[TokenSequence]], Vectors]:
    """As scripts run: one batch after the other, `threads` threads for each operation.

    `size` texts a batch in order of arrival, or None for batches of `BUDGET` padded tokens, sorted by length.
    """

    def run(sequences: Sequence[TokenSequence]) -> Vectors:
        torch.set_num_threads(threads)
        order = list(range(len(sequences)))
        if size is None:
            order.sort(key=lambda index: -len(sequences[index]))
        vectors: list[Vectors | None] = [None] * len(order)
        while order:
            count = size or max(1, BUDGET // len(sequences[order[0]]))
            batch, order = order[:count], order[count:]
            for index, vector in zip(batch, vectors_of(backend, [sequences[i] for i in batch]), strict=True):
                vectors[index] = vector
        return np.stack([vector for vector in vectors if vector is not None])

    return run


def some_sequences(count: int, model: str | None) -> list[TokenSequence]:
    files = read_model(model)
    found = list(islice(documents(Path(sysconfig.get_path("stdlib"))), 20 * count))
    texts = [document["text"] for document in random.Random(0).sample(found, min(count, len(found)))]  # nosec B311 # the same texts every time
    return TextTokenizer(files).tokenise(texts, TokeniseOptions(max_tokens=files.max_tokens))


def query_milliseconds(backend: Backend, rounds: int = 15) -> float:
    """Median time of a text of eight tokens by itself, with one thread."""
    torch.set_num_threads(1)
    query = [TokenSequence([101, *range(2000, 2006), 102])]
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        vectors_of(backend, query)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    from flowdex_executors.encoder.base import available_cores

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--model", help="a BERT-family folder or hub id; the default model if not given")
    options = parser.parse_args()

    files, threads = read_model(options.model), options.threads
    packed, padded = PackedBert(files), TransformersBackend(files)
    cases = [
        Case(f"transformers, sorted by length, {threads}-thread team", by_team(padded, threads, None)),
        Case(f"transformers, batches of 32 as they come, {threads}-thread team", by_team(padded, threads, 32)),
        Case(f"transformers, {threads} one-thread workers", by_workers(padded, threads)),
        Case(f"packed, {threads}-thread team", by_team(packed, threads, None)),
        Case(f"packed, {threads} one-thread workers", by_workers(packed, threads)),
    ]
    sequences = some_sequences(options.texts, options.model)
    tokens = sum(map(len, sequences))
    expected = cases[0].run(sequences)
    speeds: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            start = time.perf_counter()
            vectors = case.run(sequences)
            speeds[case.name].append(tokens / (time.perf_counter() - start))
            cosine = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
            assert cosine.min() >= 0.99999, f"{case.name}: cosine {cosine.min()}"

    print(f"{files.name}, {len(sequences)} texts, {tokens} tokens, medians of {options.rounds} rounds:\n")
    print("| case | tokens/s | ratio |\n|---|---:|---:|")
    for name, measured in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(measured, speeds[cases[0].name], strict=True))
        print(f"| {name} | {statistics.median(measured):,.0f} | {ratio:.2f} |")
    print("\n| one query of 8 tokens, one thread | ms |\n|---|---:|")
    print(f"| transformers | {query_milliseconds(padded):.1f} |\n| packed | {query_milliseconds(packed):.1f} |")


if __name__ == "__main__":
    main()
