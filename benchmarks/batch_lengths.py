"""What a forward pass costs by the number of texts and their length: packed torch beside ONNX Runtime.

    python benchmarks/batch_lengths.py [--turns 12]

CPU time of one thread, median of the turns, in which the backends alternate. It says from how many tokens on `packed`
is the cheaper on this machine (`mixed_bert.py`).
"""

from __future__ import annotations

import argparse
import statistics
import time

SHAPES = ((1, 8), (16, 8), (64, 8), (1, 128), (4, 128), (8, 128), (4, 256))


def main(turns: int) -> None:
    import torch

    from flowdex_executors.encoder.model_files import read_model
    from flowdex_executors.encoder.onnx_backend import OnnxBert
    from flowdex_executors.encoder.packed_bert import PackedBert
    from flowdex_executors.encoder.tokenising import TokenSequence

    torch.set_num_threads(1)
    files = read_model(None)
    packed = PackedBert(files)
    onnx = OnnxBert(files, weights=packed.weights)
    print("| texts x tokens | packed, ms | ONNX Runtime, ms | ratio |\n|---|---:|---:|---:|")
    for count, length in SHAPES:
        sequences = [TokenSequence([101, *range(2000, 1998 + length), 102])] * count
        taken: list[list[float]] = [[], []]
        for turn in range(turns + 1):
            for backend, times in zip((packed, onnx), taken, strict=True):
                start = time.thread_time()
                backend.forward(sequences)
                if turn:  # the first warms up
                    times.append(1000 * (time.thread_time() - start))
        ours, theirs = (statistics.median(times) for times in taken)
        print(f"| {count} x {length} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12)
    main(parser.parse_args().turns)
