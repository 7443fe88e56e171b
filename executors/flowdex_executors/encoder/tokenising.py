"""Texts to token sequences, with a model's own tokenizer.

    texts --prefix of over-long ones--> tokenizers.encode_batch_fast --cut--> TokenSequence(ids, dropped, ...)

Blocking code that releases the GIL: call it in a thread. A text far longer than the model's limit costs no more than
a part of it that holds enough tokens.

A family with a vocabulary of its own kind (words, characters) brings its own `Tokenizer`; what its sequences hold as
`ids` is between it and its backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from flowdex.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    import tokenizers

    from flowdex_executors.encoder.model_files import ModelFiles

__all__ = [
    "Span",
    "Text",
    "TextTokenizer",
    "TokenIdTokenizer",
    "TokenIds",
    "TokenSequence",
    "TokeniseOptions",
    "Tokenizer",
    "Truncation",
    "load_tokenizer",
]

Text: TypeAlias = "str | tuple[str, str] | list[str] | TokenIds"
"""What is tokenised: a text, a pair of texts (a tuple), a text cut into words already (a list), or its token ids."""
Span: TypeAlias = "tuple[int, int]"
Truncation: TypeAlias = Literal["error", "head", "tail", "window_mean"]

# Few tokens of any language are longer than 16 characters on average, and if a text's are, its prefix grows.
_PREFIX_CHARACTERS_PER_TOKEN = 16
_PREFIX_GROWTH = 16
# A prefix ends inside of the text, where the cut may change the tokens next to it: so many must be to spare.
_SPARE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A text that is tokenised already, as ids of the model's own vocabulary.

    Attributes:
        ids: Taken as they are: special tokens are those that are among them.
    """

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class TokeniseOptions:
    """How texts become sequences.

    Attributes:
        max_tokens: Longest sequence, special tokens included; None for no limit.
        truncation: What becomes of a longer text: "head" keeps its beginning, "tail" its end, "window_mean" makes
            further sequences of the rest, and "error" cuts like "head", for the caller to refuse (`dropped`).
        spans: Whether to fill in `spans` and `special`.
        exact: Whether `dropped` must be exact; otherwise it may be any number from 1 on where something was dropped.
    """

    max_tokens: int | None = None
    truncation: Truncation = "head"
    spans: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One tokenised text, or the first window of one. Its length is its number of tokens.

    Attributes:
        ids: What the family's backend takes, one entry a token: token ids with special tokens for sub-word models.
        dropped: How many of the text's tokens truncation has cut off.
        spans: [start, end) of each token in the text, in characters; (0, 0) for special tokens, the second text's own
            characters in the second part of a pair, and those of the words joined by single spaces for words.
        special: Positions of the special tokens, which have no text.
        pair_start: Position of the first token of a pair's second text, where spans are wanted.
        type_ids: 0 or 1 for each token of a pair, where the model tells the two texts apart.
        weights: Weight of each token in the pooling "idf", where the family has such weights.
        windows: Further sequences of the same text ("window_mean"), in order.
    """

    ids: Any
    dropped: int = 0
    spans: list[Span] | None = None
    special: Sequence[int] = ()
    pair_start: int | None = None
    type_ids: list[int] | None = None
    weights: Sequence[float] | None = None
    windows: tuple[TokenSequence, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Protocol):
    """Makes token sequences. Called in threads, several at the same time."""

    def tokenise(self, texts: Sequence[Text], options: TokeniseOptions) -> list[TokenSequence]:
        """Tokenise; a sequence for each text, one of length 0 where a text holds no token.

        Raises:
            InvalidInput: A kind of input that the family does not have (pairs, words), or too small a limit.
        """
        ...

    def tokens(self, sequence: TokenSequence) -> list[str]:
        """The tokens of a sequence as strings, special ones included."""
        ...


@runtime_checkable
class TokenIdTokenizer(Protocol):
    """A tokenizer whose `ids` are numbers of a vocabulary: it takes `TokenIds`, and makes texts of them."""

    def decode(self, sequences: Sequence[Sequence[int]], *, skip_special: bool = True) -> list[str]:
        """Texts of token ids, with or without the special tokens.

        Raises:
            InvalidInput: An id is none of the vocabulary's.
        """
        ...


def load_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Load the tokenizer of a model folder, without padding and truncation.

    Raises:
        ConfigurationError: The folder holds no usable tokenizer.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:  # an older folder (vocab.txt, sentencepiece): transformers knows how to convert it
            from transformers import AutoTokenizer

            from flowdex_executors.encoder.pretrained import NO_CODE

            tokenizer = AutoTokenizer.from_pretrained(str(path), **NO_CODE).backend_tokenizer  # nosec B615 # a local folder
    except Exception as error:  # the library raises bare Exception
        raise ConfigurationError(f"{path} has no tokenizer that can be loaded: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class TextTokenizer:
    """The tokenizer of a transformers folder.

    Args:
        files: The model.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._tokenizer = load_tokenizer(files.path)
        self._lower_case = files.lower_case
        # Special tokens stand before and after a text. Sequences are cut between them, and not by the library, whose
        # limit is a property of the whole tokenizer, while each request may have its own.
        sample = self._tokenizer.encode("a")
        mask = sample.special_tokens_mask
        self._before = mask.index(0) if 0 in mask else len(mask)
        self._after = mask[::-1].index(0) if 0 in mask else 0
        self._pair_special = self._tokenizer.num_special_tokens_to_add(True)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(id_ for id_, token in added.items() if token.special) | frozenset(
            id_
            for id_, special in zip(sample.ids, mask, strict=True)
            if special  # not every file declares them
        )
        self._vocabulary_size = self._tokenizer.get_vocab_size()

    def tokenise(self, texts: Sequence[Text], options: TokeniseOptions) -> list[TokenSequence]:
        """Tokenise; see `Tokenizer.tokenise`."""
        least = self._before + self._after + 1
        if options.max_tokens is not None and options.max_tokens < least:
            raise InvalidInput(f"max_length must be at least {least} tokens, got {options.max_tokens}")
        if all(isinstance(text, str) for text in texts):
            return self._texts(texts, options)  # type: ignore[arg-type]
        sequences: list[TokenSequence | None] = [None] * len(texts)
        kinds: list[tuple[type, Callable[[Any, TokeniseOptions], list[TokenSequence]]]] = [
            (str, self._texts),
            (tuple, self._pairs),
            (list, self._words),
            (TokenIds, self._given),
        ]
        for kind, tokenise in kinds:
            chosen = [index for index, text in enumerate(texts) if isinstance(text, kind)]
            if not chosen:
                continue  # a limit too small for pairs is no error of a call without any
            for index, sequence in zip(chosen, tokenise([texts[i] for i in chosen], options), strict=True):
                sequences[index] = sequence
        return sequences  # type: ignore[return-value]  # all are filled

    def tokens(self, sequence: TokenSequence) -> list[str]:
        """The tokens as the vocabulary has them; see `Tokenizer.tokens`."""
        return [self._tokenizer.id_to_token(token) or "" for token in sequence.ids]

    def decode(self, sequences: Sequence[Sequence[int]], *, skip_special: bool = True) -> list[str]:
        """Texts of token ids; see `TokenIdTokenizer.decode`."""
        for ids in sequences:
            self._check_ids(ids)
        left_out = self._special_ids if skip_special else frozenset()
        kept = [[id_ for id_ in ids if id_ not in left_out] for ids in sequences]
        return self._tokenizer.decode_batch(kept, skip_special_tokens=skip_special)

    # ---- the kinds of input ----

    def _texts(self, texts: Sequence[str], options: TokeniseOptions) -> list[TokenSequence]:
        limit = options.max_tokens
        whole = limit is None or options.exact or options.truncation == "window_mean"
        size = None if whole or limit is None else max(2048, _PREFIX_CHARACTERS_PER_TOKEN * limit)
        encode = self._tokenizer.encode_batch if options.spans else self._tokenizer.encode_batch_fast
        from_end = options.truncation == "tail"
        sequences: list[TokenSequence | None] = [None] * len(texts)
        pending = list(range(len(texts)))
        while pending:
            parts = [_part(texts[index], size, from_end) for index in pending]
            encodings = encode([part.lower() if self._lower_case else part for part in parts])
            again = []
            for index, part, encoding in zip(pending, parts, encodings, strict=True):
                if len(part) < len(texts[index]) and limit is not None and len(encoding) < limit + _SPARE_TOKENS:
                    again.append(index)
                else:
                    start = len(texts[index]) - len(part) if from_end else 0
                    sequences[index] = self._cut(encoding, options, [start] if options.spans else None)
            pending = again
            size = None if size is None else size * _PREFIX_GROWTH
        return sequences  # type: ignore[return-value]

    def _words(self, texts: Sequence[list[str]], options: TokeniseOptions) -> list[TokenSequence]:
        lowered = [[word.lower() for word in words] for words in texts] if self._lower_case else texts
        encodings = self._tokenizer.encode_batch(lowered, is_pretokenized=True)
        starts = [list(accumulate((len(word) + 1 for word in words), initial=0)) for words in texts]
        return [
            self._cut(encoding, options, start if options.spans else None)
            for encoding, start in zip(encodings, starts, strict=True)
        ]

    def _pairs(self, pairs: Sequence[tuple[str, str]], options: TokeniseOptions) -> list[TokenSequence]:
        if options.truncation == "window_mean":
            raise InvalidInput("truncation window_mean is for single texts; choose head or tail for pairs")
        if options.max_tokens is not None and options.max_tokens < self._pair_special + 2:
            raise InvalidInput(f"max_length must be at least {self._pair_special + 2} tokens for pairs of texts")
        flat = [text.lower() if self._lower_case else text for pair in pairs for text in pair]
        encodings = self._tokenizer.encode_batch(flat, add_special_tokens=False)
        side = "left" if options.truncation == "tail" else "right"
        sequences = []
        for first, second in zip(encodings[::2], encodings[1::2], strict=True):
            total = len(first) + len(second)
            if options.max_tokens is not None:
                sizes = _share(len(first), len(second), options.max_tokens - self._pair_special)
                for encoding, length in zip((first, second), sizes, strict=True):
                    encoding.truncate(length, direction=side)
            both = self._tokenizer.post_process(first, second)
            mask = both.special_tokens_mask if options.spans else []
            sequences.append(
                TokenSequence(
                    both.ids,
                    dropped=total - len(first) - len(second),
                    spans=both.offsets if options.spans else None,
                    special=tuple(position for position, special in enumerate(mask) if special),
                    pair_start=_first(both.sequence_ids, 1) if options.spans else None,
                    type_ids=both.type_ids if any(both.type_ids) else None,
                )
            )
        return sequences

    def _given(self, texts: Sequence[TokenIds], options: TokeniseOptions) -> list[TokenSequence]:
        return [self._cut_ids(list(text.ids), options) for text in texts]

    def _cut_ids(self, ids: list[int], options: TokeniseOptions) -> TokenSequence:
        """Cut token ids that exceed the limit, between the special tokens at their ends where they have some."""
        self._check_ids(ids)
        special = [id_ in self._special_ids for id_ in ids]
        before = special.index(False) if False in special else 0
        after = special[::-1].index(False) if False in special else 0
        limit = len(ids) if options.max_tokens is None else options.max_tokens
        room = limit - before - after
        if len(ids) > limit and room < 1:
            raise InvalidInput(f"{before + after} special tokens leave no room for others within {limit}")
        content = ids[before : len(ids) - after]

        def piece(start: int, stop: int, windows: tuple[TokenSequence, ...] = (), dropped: int = 0) -> TokenSequence:
            kept = ids[:before] + content[start:stop] + ids[len(ids) - after :]
            return TokenSequence(
                kept,
                dropped=dropped,
                spans=[(0, 0)] * len(kept) if options.spans else None,  # there is no text that they could be spans of
                special=tuple(place for place, id_ in enumerate(kept) if id_ in self._special_ids),
                windows=windows,
            )

        if len(ids) <= limit:
            return piece(0, len(content))
        if options.truncation == "window_mean":
            rest = tuple(piece(start, start + room) for start in range(room, len(content), room))
            return piece(0, room, rest)
        start = len(content) - room if options.truncation == "tail" else 0
        return piece(start, start + room, dropped=len(content) - room)

    def _check_ids(self, ids: Sequence[int]) -> None:
        if ids and not 0 <= min(ids) <= max(ids) < self._vocabulary_size:
            wrong = next(id_ for id_ in ids if not 0 <= id_ < self._vocabulary_size)
            raise InvalidInput(
                f"token id {wrong} is none of this model's vocabulary, which has 0 to {self._vocabulary_size - 1}; "
                "send texts, or ids that its own tokenizer made (/tokenize)"
            )

    def _cut(self, encoding: tokenizers.Encoding, options: TokeniseOptions, starts: list[int] | None) -> TokenSequence:
        """Cut what exceeds the limit.

        Args:
            encoding: Of a whole text, special tokens included.
            options: The limit and where to cut.
            starts: Where each of the words that the tokenizer was given starts; of a text, which counts as one word,
                where it starts in the caller's. None where spans are not wanted.
        """
        ids = encoding.ids
        spans = None if starts is None else self._spans(encoding, starts)
        before, after, limit = self._before, self._after, options.max_tokens
        if limit is None or len(ids) <= limit:
            return TokenSequence(ids, spans=spans, special=self._special(len(ids)) if spans else ())
        end = len(ids) - after
        room = limit - before - after

        def piece(start: int, stop: int, windows: tuple[TokenSequence, ...] = (), dropped: int = 0) -> TokenSequence:
            return TokenSequence(
                ids[:before] + ids[start:stop] + ids[end:],
                dropped=dropped,
                spans=None if spans is None else spans[:before] + spans[start:stop] + spans[end:],
                special=self._special(before + stop - start + after) if spans else (),
                windows=windows,
            )

        if options.truncation == "window_mean":
            rest = tuple(piece(start, min(start + room, end)) for start in range(before + room, end, room))
            return piece(before, before + room, rest)
        start = end - room if options.truncation == "tail" else before
        return piece(start, start + room, dropped=end - before - room)

    def _special(self, length: int) -> tuple[int, ...]:
        return (*range(min(self._before, length)), *range(max(length - self._after, self._before), length))

    def _spans(self, encoding: tokenizers.Encoding, starts: list[int]) -> list[Span]:
        if starts == [0]:
            return encoding.offsets
        words = encoding.word_ids if len(starts) > 1 else [0] * len(encoding)
        mask = encoding.special_tokens_mask
        return [
            (0, 0) if special or word is None else (start + starts[word], end + starts[word])
            for (start, end), word, special in zip(encoding.offsets, words, mask, strict=True)
        ]


def _part(text: str, size: int | None, from_end: bool) -> str:
    """At most `size` characters of the text, cut at a space where there is one near; the whole text for None."""
    if size is None or len(text) <= size:
        return text
    if from_end:
        space = text.find(" ", len(text) - size, len(text) - size // 2)
        return text[space if space > 0 else len(text) - size :]
    space = text.rfind(" ", size // 2, size)
    return text[: space if space > 0 else size]


def _first(values: Sequence[int | None], wanted: int) -> int | None:
    """Position of the first of the values that is the wanted one, if any is."""
    return next((position for position, value in enumerate(values) if value == wanted), None)


def _share(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens of the two texts of a pair that fit: the longer one is cut first."""
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= half:
        return first, room - first
    if second <= room - half:
        return room - second, second
    return half, room - half
