r"""fastai's rules for texts, with the place in the original that each character of the result comes from.

    "SO good!!!! <br />Yes"  -->  "xxup so good xxrep 4 ! \n xxmaj yes"

A rule rewrites what its pattern matches: residue of HTML, runs of a character (xxrep) or a word (xxwrep), case (xxup,
xxmaj). They are the rules of fastai 2 in their order, in forms that take linear time whatever the text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

__all__ = ["MarkedText", "apply_rules"]

_Piece: TypeAlias = "str | tuple[int, int]"
"""A part of what replaces a match: new text, or [start, end) of what stays of the old one."""
_Rule: TypeAlias = "Callable[[re.Match[str]], Iterator[_Piece]]"

_RESIDUE = {  # what badly converted HTML and the WikiText corpus leave behind, replaced one after the other
    "#39;": "'",
    "amp;": "&",
    "#146;": "'",
    "nbsp;": " ",
    "#36;": "$",
    "\\n": "\n",
    "quot;": "'",
    "<br />": "\n",
    '\\"': '"',
    "<unk>": "xxunk",
    " @.@ ": ".",
    " @-@ ": "-",
    "...": " …",
}
_ENTITY = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")
_CHARACTER_RUN = re.compile(r"(\S)\1{2,}")
_WORD_RUN = re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\W|$)")
_SEPARATOR = re.compile(r"[/#\\]")
_SPACES = re.compile(r" {2,}")
_CAPITALS = re.compile(r"(?<!\S)(?:(?P<all>[A-Z][^a-z\s]*)|[A-Z][^A-Z\s]*)(?!\S)")


class MarkedText:
    """A text that is rewritten and remembers where its characters come from.

    Args:
        text: The original.

    Attributes:
        text: What has become of it.
        starts: For each of its characters, where in the original begins what it stands for.
        ends: Likewise, where that ends.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = list(range(len(text)))
        self.ends = list(range(1, len(text) + 1))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """[start, end) in the original of a slice, which is not empty."""
        return min(self.starts[start:end]), max(self.ends[start:end])

    def rewrite(self, pattern: re.Pattern[str], rule: _Rule) -> None:
        """Replace every match by the pieces that `rule` gives; new text stands for all of the match."""
        texts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for match in pattern.finditer(self.text):
            first, last = match.span()
            whole = self.span(first, last)
            for piece in ((done, first), *rule(match)):
                if isinstance(piece, str):
                    texts.append(piece)
                    starts += [whole[0]] * len(piece)
                    ends += [whole[1]] * len(piece)
                else:
                    kept = slice(*piece)
                    texts.append(self.text[kept])
                    starts += self.starts[kept]
                    ends += self.ends[kept]
            done = last
        if done:
            self.text = "".join(texts) + self.text[done:]
            self.starts = starts + self.starts[done:]
            self.ends = ends + self.ends[done:]

    def lower(self) -> None:
        """Lower the text; a character may become two."""
        lowered = self.text.lower()
        if len(lowered) != len(self.text):
            sizes = [len(character.lower()) for character in self.text]
            self.starts = [start for start, size in zip(self.starts, sizes, strict=True) for _ in range(size)]
            self.ends = [end for end, size in zip(self.ends, sizes, strict=True) for _ in range(size)]
        self.text = lowered


def apply_rules(text: str) -> MarkedText:
    """Rewrite a text as fastai does before it cuts it into words; xxbos is left to the caller."""
    marked = MarkedText(text)
    for residue, meant in _RESIDUE.items():
        if residue in marked.text:
            marked.rewrite(re.compile(re.escape(residue)), _constant(meant))
    for pattern, rule in (
        (_ENTITY, _entity),
        (_CHARACTER_RUN, _character_run),
        (_WORD_RUN, _word_run),
        (_SEPARATOR, _separator),
        (_SPACES, _constant(" ")),
        (_CAPITALS, _capitals),
    ):
        marked.rewrite(pattern, rule)
    marked.lower()
    return marked


def _constant(text: str) -> _Rule:
    def rule(match: re.Match[str]) -> Iterator[_Piece]:
        yield text

    return rule


def _entity(match: re.Match[str]) -> Iterator[_Piece]:
    meant = html.unescape(match.group())
    yield match.span() if meant == match.group() else meant


def _character_run(match: re.Match[str]) -> Iterator[_Piece]:
    yield f" xxrep {len(match.group())} {match.group(1)} "


def _word_run(match: re.Match[str]) -> Iterator[_Piece]:
    yield f" xxwrep {len(match.group(2).split()) + 2} {match.group(1)} "
    yield match.span(3)


def _separator(match: re.Match[str]) -> Iterator[_Piece]:
    yield " "
    yield match.span()
    yield " "


def _capitals(match: re.Match[str]) -> Iterator[_Piece]:
    if len(match.group()) > 1:
        yield "xxmaj " if match.group("all") is None else "xxup "
    yield match.span()
