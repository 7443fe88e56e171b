"""The texts that all systems get: short queries, sentences and passages, each of a seeded choice.

    the standard library's docstrings --> queries of 5 to 16 words, sentences, passages of up to 190 words

Where a development checkout has its workload beside it (../shared/harness/workload.jsonl), that is taken.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from stdlib_docs import documents

SHARED = Path(__file__).resolve().parents[3] / "shared" / "harness" / "workload.jsonl"
SHARES = {"query": 0.4, "sentence": 0.35, "passage": 0.25}
TEXTS = 2000


class Workload(NamedTuple):
    """What is sent.

    Attributes:
        texts: All, mixed, for the bulk part.
        queries: Short ones, for the others.
    """

    texts: list[str]
    queries: list[str]


def workload(count: int) -> Workload:
    """At most `count` texts of all kinds, the same at each call, and all queries there are."""
    if SHARED.exists():
        lines = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()]
    else:
        lines = list(_from_docstrings())
    step = max(1, len(lines) // count)
    return Workload(
        [line["text"] for line in lines[::step]][:count], [line["text"] for line in lines if line["kind"] == "query"]
    )


def _from_docstrings() -> Iterator[dict[str, str]]:
    random_ = random.Random(0)  # nosec B311 # the same texts every time
    texts = [each["text"] for each in itertools.islice(documents(Path(sysconfig.get_path("stdlib"))), 8000)]
    sentences = [" ".join(each.split()) for text in texts for each in re.split(r"(?<=[.!?])\s+|\n\n", text)]
    words = " ".join(texts).split()
    kinds = {
        "query": [" ".join(each.split()[: random_.randint(5, 12)]) for each in sentences if len(each.split()) > 4],
        "sentence": [each for each in sentences if 12 <= len(each.split()) <= 40],
        "passage": [
            " ".join(words[at : at + random_.randint(70, 190)])
            for at in (random_.randrange(len(words) - 200) for _ in range(TEXTS))
        ],
    }
    lines = [
        {"text": text, "kind": kind}
        for kind, share in SHARES.items()
        for text in random_.sample(kinds[kind], min(int(share * TEXTS), len(kinds[kind])))
    ]
    random_.shuffle(lines)
    yield from lines
