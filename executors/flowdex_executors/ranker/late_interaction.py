"""Late interaction: each token of the query looks for its best matches among the tokens of the text.

    query, texts --encoder of the flow--> token vectors --cosine of each pair of tokens--> best matches --> score

Khattab and Zaharia 2020, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over
BERT". There a model is trained for it and each query token counts its one best match. Here the vectors are those of
whatever encoder the flow has, made to be pooled into one, so two things differ:

- A query token counts the mean of its `MATCHES` best cosines: a single one is often an accident.
- It weighs as much as its vector is long: in a pooled vector, that is the share it has.

docs/ranking.md has the measurements. Token vectors of texts are kept, least recently used out, by hash of the text and
fingerprint of the encoder: a text is encoded once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flowdex.errors import Conflict
from flowdex_executors.ranker.flow_encoder import FlowEncoder, TokenMatrix
from flowdex_executors.ranker.rerank import Scores

__all__ = ["LateInteraction", "VectorCache", "match_score"]

MATCHES = 3

_TEXTS_A_REQUEST = 8  # what has arrived when the time is up is kept for the next time
_REQUESTS_AT_A_TIME = 4

Matrix = npt.NDArray[np.float16]


class LateInteraction:
    """Scores texts by their token vectors.

    Args:
        encoder: Makes them.
        cache_bytes: Most memory to keep them in.
    """

    replaces = False

    def __init__(self, encoder: FlowEncoder, cache_bytes: int) -> None:
        self._encoder = encoder
        self._slots = asyncio.Semaphore(_REQUESTS_AT_A_TIME)
        self.cache = VectorCache(cache_bytes)

    async def score(self, query: str, texts: Sequence[str], timeout: float) -> Scores:
        """A mean of cosines for each text, -1 to 1; see `Scorer.score`.

        Raises:
            FlowdexError: The flow cannot be reached or refuses, or its encoder gives no token vectors.
        """
        end = time.monotonic() + timeout
        (asked,), fingerprint = await self._encoder.tokens([query], "search", timeout)
        if self.cache.open(fingerprint):
            self._encoder.forget()
        known: dict[str, Matrix] = {}
        missing: list[str] = []
        for text in dict.fromkeys(texts):
            matrix = self.cache.get(text)
            if matrix is None:
                missing.append(text)
            else:
                known[text] = matrix
        parts = [missing[start : start + _TEXTS_A_REQUEST] for start in range(0, len(missing), _TEXTS_A_REQUEST)]
        tasks = [asyncio.ensure_future(self._fetch(part, fingerprint, end)) for part in parts]
        try:
            for part, matrices in zip(parts, await asyncio.gather(*tasks), strict=True):
                known.update(zip(part, matrices, strict=True))
        finally:
            for task in tasks:
                task.cancel()
        return await asyncio.to_thread(match_score, asked, [known[text] for text in texts])

    async def _fetch(self, texts: Sequence[str], fingerprint: str, end: float) -> list[Matrix]:
        async with self._slots:
            found, made_by = await self._encoder.tokens(texts, "index", max(0.001, end - time.monotonic()))
        if made_by != fingerprint:
            raise Conflict("the flow's encoders differ from each other (a change is under way)")
        matrices = [matrix.vectors for matrix in found]
        for text, matrix in zip(texts, matrices, strict=True):
            self.cache.put(text, matrix, fingerprint)
        return matrices


def match_score(query: TokenMatrix, texts: Sequence[Matrix], matches: int = MATCHES) -> Scores:
    """For each text the mean, by weight of the query's tokens, of the mean of each one's best cosines.

    Args:
        query: Its tokens.
        texts: The token vectors of each text, of length 1, shape (tokens, D); one without tokens scores 0.
        matches: How many of the best count; all where a text has fewer tokens.
    """
    scores = np.zeros(len(texts))
    total = float(query.lengths.sum())
    if total <= 0:
        return scores
    vectors = query.vectors.astype(np.float32)
    for place, text in enumerate(texts):
        if not len(text):
            continue
        cosines = vectors @ text.astype(np.float32).T
        best = cosines if len(text) <= matches else np.partition(cosines, -matches, axis=1)[:, -matches:]
        scores[place] = float(best.mean(axis=1) @ query.lengths) / total
    return scores


class VectorCache:
    """Token vectors of texts, as many as fit, the least recently used out first; of one encoder at a time.

    Args:
        limit: Bytes of vectors.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.fingerprint: str | None = None
        self._entries: OrderedDict[bytes, Matrix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, fingerprint: str) -> bool:
        """Keep vectors of this encoder from now on; says whether those of another one were dropped."""
        if fingerprint == self.fingerprint:
            return False
        changed = self.fingerprint is not None
        self.fingerprint = fingerprint
        self._entries.clear()
        self.size = 0
        return changed

    def get(self, text: str) -> Matrix | None:
        """The vectors of a text, if they are here."""
        key = _key(text)
        matrix = self._entries.get(key)
        if matrix is not None:
            self._entries.move_to_end(key)
        return matrix

    def put(self, text: str, matrix: Matrix, fingerprint: str) -> None:
        """Keep the vectors of a text, if they are of the encoder at hand."""
        key = _key(text)
        if fingerprint != self.fingerprint or key in self._entries or matrix.nbytes > self.limit:
            return
        self._entries[key] = matrix
        self.size += matrix.nbytes
        while self.size > self.limit:
            _, dropped = self._entries.popitem(last=False)
            self.size -= dropped.nbytes


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
