"""Words as character ids, as ELMo's authors number them: bytes of UTF-8, and five marks.

    "cat" -> <word> c a t </word> <pad> ... <pad>          50 ids
             258    99 97 116 259  260   ... 260

A word of more than 48 bytes keeps its first 48. The boundaries of a sentence are two further words, of one mark each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["CHARACTERS", "PADDING", "SENTENCE_END", "SENTENCE_START", "character_ids"]

CHARACTERS = 261
"""How many ids there are: 256 bytes and five marks."""
SENTENCE_START, SENTENCE_END = "<S>", "</S>"

_SENTENCE_MARKS = {SENTENCE_START: 256, SENTENCE_END: 257}
_WORD_START, _WORD_END, PADDING = 258, 259, 260


def character_ids(words: Sequence[str], width: int) -> npt.NDArray[np.int64]:
    """The ids of each word.

    Args:
        words: Any strings; `<S>` and `</S>` stand for the boundaries of a sentence.
        width: Ids of a word, the marks of its start and end included.

    Returns:
        Shape (len(words), width).
    """
    ids = np.full((len(words), width), PADDING, dtype=np.int64)
    for row, word in zip(ids, words, strict=True):
        mark = _SENTENCE_MARKS.get(word)
        # Half of a surrogate pair has no bytes; the authors' own code leaves it out, too.
        characters = [mark] if mark is not None else list(word.encode("utf-8", "ignore")[: width - 2])
        row[0] = _WORD_START
        row[1 : len(characters) + 1] = characters
        row[len(characters) + 1] = _WORD_END
    return ids
