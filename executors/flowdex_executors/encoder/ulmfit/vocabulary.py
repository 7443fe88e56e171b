"""Reading a fastai vocabulary ("itos": the tokens in the order of their ids).

    itos_*.pkl --pickletools--+
    itos.json ----------------+--> Vocabulary(tokens, ids)
    itos.txt -----------------+

fastai writes a pickled list of strings. A pickle is a program, and nothing here runs one: its opcodes are read one by
one, those that a list of strings is made of are carried out here, and the first other one refuses the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError

__all__ = ["BEGINNING", "Vocabulary", "read_vocabulary"]

BEGINNING = "xxbos"
_UNKNOWN = ("xxunk", "_unk_", "<unk>")

_STRINGS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE")
_STORES = ("BINPUT", "LONG_BINPUT", "PUT")
_FETCHES = ("BINGET", "LONG_BINGET", "GET")
_MARK = object()


class Vocabulary:
    """The tokens a model knows.

    Args:
        tokens: All tokens, in the order of their ids.

    Attributes:
        tokens: The same.
        unknown: Id that stands for every other token: that of "xxunk", or 0.
        beginning: Id of the token before every text, "xxbos"; None where the vocabulary has none.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        # A token that is there twice (fastai pads vocabularies with "xxfake") has its first id.
        self._ids = {token: len(tokens) - 1 - index for index, token in enumerate(reversed(tokens))}
        self.unknown = next((self._ids[token] for token in _UNKNOWN if token in self._ids), 0)
        self.beginning = self._ids.get(BEGINNING)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def digest(self) -> str:
        """A hash of the tokens, whatever file they came from."""
        return hashlib.sha256(json.dumps(self.tokens).encode()).hexdigest()[:16]

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """The ids of tokens, `unknown` for those that are not in the vocabulary."""
        get, unknown = self._ids.get, self.unknown
        return [get(token, unknown) for token in tokens]


def read_vocabulary(path: Path) -> Vocabulary:
    r"""Read a vocabulary: `.json` (a list of strings), `.pkl` (fastai's) or text (a token a line, `\n` for a newline).

    Raises:
        ConfigurationError: The file cannot be read, or holds something else.
    """
    readers: dict[str, Callable[[bytes], Any]] = {".json": json.loads, ".pkl": _read_pickle, ".pickle": _read_pickle}
    try:
        tokens = readers.get(path.suffix.lower(), _read_text)(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(f"vocabulary: there is no file {str(path)!r}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"vocabulary: {path}: {error.message}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"vocabulary: {path} cannot be read: {error}") from None
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ConfigurationError(
            f"vocabulary: {path} must hold the list of the model's tokens, as strings, in the order of their ids"
        )
    return Vocabulary(tokens)


def _read_text(data: bytes) -> list[str]:
    lines = data.decode().removesuffix("\n").split("\n")
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is empty; a file of text has one token a line")
    return [line.removesuffix("\r").replace("\\n", "\n") for line in lines]


def _read_pickle(data: bytes) -> Any:  # noqa: PLR0912 - one branch a kind of opcode
    """What a pickle of a list of strings holds.

    Raises:
        ConfigurationError: It has an opcode that such a pickle does not need.
        ValueError: It is not a pickle, or a broken one.
    """
    import pickletools  # nosec B403 # reads opcodes, runs none

    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, position in pickletools.genops(data):
            name = opcode.name
            if name in _STRINGS:
                stack.append(argument)
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in _STORES:
                memo[argument or 0] = stack[-1]
            elif name in _FETCHES:
                stack.append(memo[argument or 0])
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "LIST":
                stack.append(_pop_to_mark(stack))
            elif name == "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            elif name == "APPENDS":
                items = _pop_to_mark(stack)
                stack[-1].extend(items)
            elif name == "STOP":
                return stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise ConfigurationError(
                    f"a pickle of a list of strings has no opcode {name} (at byte {position}), and what others do is "
                    "not carried out; where you trust the file, write its tokens as a JSON list of strings"
                )
    except (IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"it is a broken pickle ({type(error).__name__})") from None
    raise ValueError("it is a broken pickle (it has no end)")


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]
