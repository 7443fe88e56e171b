"""What cutting documents into passages costs: each mode, and how tokens are counted, side by side.

    python benchmarks/segmenter.py [--rounds 5] [--max-tokens 254] [FILE ...]

Texts are the files named, or else the prose of Python's own documentation (`pydoc_data.topics`) and as much made-up
Chinese. The ways take turns, so that each round compares them under the same noise; the table gives medians over the
rounds of the CPU time of all threads, and what each way takes relative to the first one, round by round. Counting by
words starts without a known word in every round, but where it says "again".
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.segmenter.cutting import MODES, Cutter, Mode
from flowdex_executors.segmenter.source import Source
from flowdex_executors.segmenter.tokens import TokenCounter

Cut = Callable[[str], int]


def prose() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics.values())


def chinese(size: int) -> str:
    generator = random.Random(0)  # nosec B311 # the same texts every time
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    clauses = ("".join(generator.choices(letters, k=generator.randint(5, 40))) for _ in range(size // 23))
    return "".join(clause + generator.choice("。！？，") for clause in clauses)


def library_alone(tokenizer: Tokenizer, max_tokens: int) -> Cut:
    """semantic-text-splitter with a tokenizer, as its documentation shows it."""
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, max_tokens)
    return lambda text: len(splitter.chunk_indices(text))


def tokenised_twice(tokenizer: Tokenizer, max_tokens: int) -> Cut:
    """Every text is tokenised to be cut, and every passage to be checked: what a tokenizer of any kind costs."""

    def cut(text: str) -> int:
        counter = TokenCounter(tokenizer)
        counter.by_words = False
        return len(Cutter(counter, max_tokens).cut(Source(text), "passage"))

    return cut


def counted_by_words(tokenizer: Tokenizer, max_tokens: int, mode: Mode) -> Cut:
    return lambda text: len(Cutter(TokenCounter(tokenizer), max_tokens).cut(Source(text), mode))


def counted_again(tokenizer: Tokenizer, max_tokens: int) -> Cut:
    """As in a service that has seen some texts."""
    cutter = Cutter(TokenCounter(tokenizer), max_tokens)
    return lambda text: len(cutter.cut(Source(text), "passage"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=254)
    options = parser.parse_args()
    tokenizer = load_tokenizer(find_model(None)[0])
    size = options.max_tokens
    if options.files:
        texts = {path.name: path.read_text(encoding="utf-8") for path in options.files}
    else:
        texts = {"English prose": prose(), "Chinese": chinese(100_000)}
    ways: dict[str, Cut] = {
        "passage, tokenised twice": tokenised_twice(tokenizer, size),
        "passage, the library alone": library_alone(tokenizer, size),
        "passage, counted by words again": counted_again(tokenizer, size),
        **{f"{mode}, counted by words": counted_by_words(tokenizer, size, mode) for mode in MODES},
    }
    for name, text in texts.items():
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        passages = {}
        ways["passage, counted by words again"](text)
        for _ in range(options.rounds):
            for way, cut in ways.items():
                start = time.process_time()
                passages[way] = cut(text)
                seconds[way].append(time.process_time() - start)
        first = next(iter(seconds.values()))
        print(f"\n{name}: {len(text) / 1e6:.2f} million characters\n")
        print("| mode, how tokens are counted | passages | million characters/CPU s | times as fast |")
        print("|---|---|---|---|")
        for way, taken in seconds.items():
            ratio = statistics.median(one / other for one, other in zip(first, taken, strict=True))
            speed = len(text) / 1e6 / statistics.median(taken)
            print(f"| {way} | {passages[way]:,} | {speed:.2f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
