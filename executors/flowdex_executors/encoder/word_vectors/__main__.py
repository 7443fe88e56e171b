"""Convert word vectors into a folder that loads at once: python -m flowdex_executors.encoder.word_vectors FILE FOLDER.

glove.6B.300d.txt, 1 GB, parsed at every start -> vectors.npy, mapped into memory and shared, + words.txt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.word_vectors.files import find_word_vectors, read_word_vectors
from flowdex_executors.encoder.word_vectors.vectors import save_word_vectors

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flowdex_executors.encoder.word_vectors",
        description="Convert word vectors into a folder that loads at once.",
    )
    parser.add_argument("file", help="word2vec, GloVe or fastText vectors, or .npy; 'default' for the packaged ones")
    parser.add_argument("folder", type=Path, help="where to write vectors.npy and words.txt")
    parser.add_argument("--vocabulary", type=Path, help="the words of a .npy file")
    parser.add_argument("--limit", type=int, help="how many words to keep, from the first")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error("--limit must be at least 1")
    try:
        vectors = read_word_vectors(find_word_vectors(options.file, options.vocabulary), options.limit)
        save_word_vectors(vectors, options.folder)
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(f"{options.folder}: {len(vectors)} words of {vectors.dimensions} dimensions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
