"""Find a query's words in a text: the spans that a reader should see marked.

    query --words, without stop words, folded and stemmed--> a set of stems
    text  --words with offsets-----------------------------> those whose stem is in the set

Words compare by Unicode case folding without accents; English ones also by a light stem (plural, -ing, -ed), much as
BM25 matches them. Scripts without spaces (Chinese, Japanese) compare by runs of two or more characters.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["Highlighter"]

# Letters and digits, and the marks of scripts that write vowels as marks, which \w leaves out.
_LETTER = r"(?:[^\W_]|[\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31\u0e34-\u0e4e])"
# Kana, Han and their extensions: written without spaces.
_UNSPACED = r"[\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
_TOKEN = re.compile(rf"(?P<run>{_UNSPACED}+)|(?:(?!{_UNSPACED}){_LETTER})+(?:['’](?:(?!{_UNSPACED}){_LETTER})+)*")

_STOP_WORDS = frozenset(
    """
    a about above after again against all am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here hers
    herself him himself his how i if in into is it its itself just me more most my myself no nor not now of off on
    once only or other our ours ourselves out over own same she should so some such than that the their theirs them
    themselves then there these they this those through to too under until up very was we were what when where which
    while who whom why will with would you your yours yourself yourselves
    """.split()  # noqa: SIM905 - a list of 120 literals would fill a page
)
_VOWEL = re.compile(r"[aeiouy]")
_DOUBLED = re.compile(r"([bdfgmnprt])\1$")


class Highlighter:
    """Marks the words of one query.

    Args:
        query: What was searched for.
    """

    def __init__(self, query: str) -> None:
        words: list[str] = []
        self._pairs: set[str] = set()
        for token in _TOKEN.finditer(query):
            if token["run"]:
                run = token["run"]
                self._pairs.update([run] if len(run) == 1 else (run[i : i + 2] for i in range(len(run) - 1)))
            else:
                words.append(_fold(token[0]))
        meaningful = [word for word in words if word not in _STOP_WORDS]
        # A query of nothing but stop words ("to be or not to be") means them.
        self._stems = {_stem(word) for word in (meaningful or ([] if self._pairs else words))}
        self._initials = frozenset(stem[0] for stem in self._stems)

    def spans(self, text: str) -> list[list[int]]:
        """The marked spans of a text: [start, end] in characters, end exclusive, in order, not overlapping."""
        spans: list[list[int]] = []
        if not self._stems and not self._pairs:
            return spans
        for token in _TOKEN.finditer(text):
            if token["run"]:
                spans.extend(self._spans_in_run(token["run"], token.start()))
            else:
                word = _fold(token[0])
                if word and word[0] in self._initials and _stem(word) in self._stems:
                    spans.append([token.start(), token.end()])
        return spans

    def _spans_in_run(self, run: str, start: int) -> list[list[int]]:
        marked: list[list[int]] = []
        for index in range(len(run)):
            size = 2 if run[index : index + 2] in self._pairs else 1
            if size == 1 and run[index] not in self._pairs:
                continue
            begin, end = start + index, start + min(index + size, len(run))
            if marked and begin <= marked[-1][1]:
                marked[-1][1] = max(end, marked[-1][1])
            else:
                marked.append([begin, end])
        return marked


def _fold(word: str) -> str:
    """Case-folded and without accents."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char)).replace("’", "'") or word


def _stem(word: str) -> str:
    """Strip the endings of English plurals, -ing and -ed, and a final e; a light form of Porter's steps 1 and 5a."""
    if not word.isascii() or not word.isalpha():
        word = word.removesuffix("'s").removesuffix("'")
        if not word.isascii() or not word.isalpha():
            return word
    word = _singular(word)
    for suffix in ("ing", "ed"):
        base = word.removesuffix(suffix)
        if base != word and len(base) >= 3 and _VOWEL.search(base):
            word = _DOUBLED.sub(r"\1", base)
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    return word[:-1]
