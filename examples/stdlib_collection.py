"""A test collection that any machine has: find a docstring of Python's standard library by its first sentence.

    docstring --> query: its first sentence; document: the rest; judgement: this document answers this query

Written in the layout that `flowdex eval` reads: ``python examples/stdlib_collection.py stdlib/``. Each query has one
relevant document, and others may answer it as well, so the figures are lower bounds and good for comparisons only.
"""

from __future__ import annotations

import argparse
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stdlib_docs import documents

SHORTEST_REST = 200  # characters: less says too little to be found by
SHORTEST_QUERY = 20
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(])|\n\s*\n")


class Example(NamedTuple):
    """A query, and the document that answers it."""

    id: str
    query: str
    text: str


def examples(root: Path) -> Iterator[Example]:
    """Docstrings whose first sentence is a question worth asking, each sentence and each rest once."""
    seen: set[str] = set()
    for document in documents(root):
        first, *rest = _SENTENCE_END.split(document["text"], maxsplit=1)
        query, text = " ".join(first.split()), "".join(rest).strip()
        if len(query) < SHORTEST_QUERY or len(text) < SHORTEST_REST or not seen.isdisjoint({query, text}):
            continue
        seen.update((query, text))
        yield Example(document["id"], query, text)


def write(folder: Path, limit: int | None) -> int:
    """Write the collection; returns the number of its documents."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus,
        (folder / "queries.jsonl").open("w", encoding="utf-8") as queries,
        (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for each in examples(Path(sysconfig.get_path("stdlib"))):
            if limit is not None and count >= limit:
                break
            count += 1
            corpus.write(json.dumps({"_id": each.id, "text": each.text}, ensure_ascii=False) + "\n")
            queries.write(json.dumps({"_id": f"q{count}", "text": each.query}, ensure_ascii=False) + "\n")
            qrels.write(f"q{count}\t{each.id}\t1\n")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write corpus.jsonl, queries.jsonl and qrels/test.tsv")
    parser.add_argument("-n", "--limit", type=int, help="at most so many documents")
    options = parser.parse_args()
    print(f"{write(options.folder, options.limit)} documents and as many queries in {options.folder}")
