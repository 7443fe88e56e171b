"""What of a request is encoded: documents, or their chunks.

document                ->  the document
document with chunks    ->  its chunks, in its place
one with an embedding   ->  as it is, where the caller's own vectors are kept
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors.encoder.tokenising import Text, TokenIds

__all__ = ["Targets", "find_targets"]


@dataclass(frozen=True)
class Targets:
    """The documents to encode.

    Attributes:
        batch: They themselves, a view.
        documents: The request's documents, a view.
        places: For each target, the index of its document, and its position in the document's chunks or None.
    """

    batch: DocumentBatch
    documents: DocumentBatch
    places: Sequence[tuple[int, int | None]]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, target: int) -> str:
        """How an error calls a target."""
        index, position = self.places[target]
        identifier = self.documents.select([index]).ids[0]
        document = f"document {index}" + (f" (id {identifier!r})" if identifier else "")
        return document if position is None else f"{document}, chunk {position}"

    def owners(self) -> DocumentBatch:
        """The documents that are targets or have some."""
        return self.documents.select(dict.fromkeys(index for index, _ in self.places))

    def texts(self) -> list[str]:
        """The text of each target.

        Raises:
            InvalidInput: One is absent or blank.
        """
        return [self.checked(index, text) for index, text in enumerate(self.batch.texts)]

    def inputs(self) -> list[Text]:
        """What to tokenise of each target: its `token_ids` or `words`, its text and `text_pair`, or its text.

        Raises:
            InvalidInput: It is absent or blank, or there are words and a pair.
        """
        texts = self.batch.texts
        pairs, words, ids = (self.batch.column(name) for name in ("text_pair", "words", "token_ids"))
        return [
            self.checked(index, text)
            if pair is None and own_words is None and own_ids is None
            else self._input(index, text, pair, own_words, own_ids)
            for index, (text, pair, own_words, own_ids) in enumerate(zip(texts, pairs, words, ids, strict=True))
        ]

    def token_ids(self, target: int, ids: Any) -> TokenIds:
        """The token ids of a target, if they are some.

        Raises:
            InvalidInput: They are not one or more whole numbers.
        """
        if isinstance(ids, np.ndarray):
            ids = ids.tolist() if ids.ndim == 1 and ids.dtype.kind in "iu" else None
        if not isinstance(ids, (list, tuple)) or not all(type(id_) is int for id_ in ids) or not ids:
            raise InvalidInput(f"{self.name(target)}: field 'token_ids' must be one or more whole numbers")
        return TokenIds(ids)

    def contexts(self) -> list[str]:
        """What is encoded before the text of each target: its `context` and a line break, or nothing.

        Raises:
            InvalidInput: A context is not a string.
        """
        return [self._before(index, context) for index, context in enumerate(self.batch.column("context", ""))]

    def _before(self, target: int, context: Any) -> str:
        if not isinstance(context, str):
            raise InvalidInput(f"{self.name(target)}: field 'context' must be a string")
        return f"{context}\n" if context and not context.isspace() else ""

    def _input(self, target: int, text: str | None, pair: Any, words: Any, ids: Any) -> Text:
        if ids is not None:
            return self.token_ids(target, ids)
        if words is None:
            if not isinstance(pair, str):
                raise InvalidInput(f"{self.name(target)}: field 'text_pair' must be a string")
            return self.checked(target, text), self.checked(target, pair)
        if pair is not None:
            raise InvalidInput(f"{self.name(target)} has words and a text_pair; send one of the two")
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise InvalidInput(f"{self.name(target)}: field 'words' must be a list of strings")
        if not any(word and not word.isspace() for word in words):
            raise InvalidInput(f"{self.name(target)} has no words to encode")
        return list(words)

    def checked(self, target: int, text: str | None) -> str:
        """A text of a target, if it is one that can be encoded.

        Raises:
            InvalidInput: It is absent or blank.
        """
        if text is None:
            raise InvalidInput(f"{self.name(target)} has no text to encode")
        if not text or text.isspace():
            raise InvalidInput(f"{self.name(target)} has a blank text; leave it out, or give it words")
        return text


def find_targets(documents: DocumentBatch, *, keep: bool, rows: Iterable[int] | None = None) -> Targets:
    """Find what to encode.

    Args:
        documents: The request's documents.
        keep: Whether what has an embedding keeps it, and is left out.
        rows: Which of the documents to look at; None for all.
    """
    chosen = []
    places: list[tuple[int, int | None]] = []
    rows = range(len(documents)) if rows is None else list(rows)
    looked_at = documents.select(rows)
    for index, document, chunks in zip(rows, looked_at, looked_at.nested("chunks"), strict=True):
        for position, target in enumerate(chunks or [document]):
            node = target.data.get("embedding") if keep else None
            if node is None or node.WhichOneof("content") is None:
                chosen.append(target)
                places.append((index, position if chunks else None))
    return Targets(DocumentBatch(chosen), documents, places)
