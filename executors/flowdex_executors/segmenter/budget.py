"""How much room a passage has beside what the encoder reads before it: its prompt and the passage's context.

("Guide", "Install") --context--> "Guide > Install", shortened from its left --room--> tokens left for the text
"""

from __future__ import annotations

from flowdex.errors import InvalidInput
from flowdex_executors.segmenter.tokens import TokenCounter, word_starts

__all__ = ["Budget"]

_SHARE_OF_CONTEXT = 4  # of the budget: one fourth
_JOINED = " > "
# Where a tokenizer looks across words, a passage may have a few tokens more by itself than in the middle of its text.
_SPARE = 2


class Budget:
    """How much room passages have beside what the encoder reads before them.

    Args:
        counter: Counts tokens.
        max_tokens: Most tokens of everything.
        prompt: What the encoder reads before each passage.

    Raises:
        InvalidInput: The prompt leaves no room.
    """

    def __init__(self, counter: TokenCounter, max_tokens: int, prompt: str) -> None:
        self.counter = counter
        self.max_tokens = max_tokens
        self._prompt = prompt
        self._left = max_tokens - (counter.count(prompt) if prompt else 0)
        self._contexts: dict[tuple[str, ...], str] = {}
        self._rooms: dict[str, int] = {}
        if self.room("") < 1:
            raise InvalidInput(
                f"a passage has at most {max_tokens} tokens, and the encoder's prompt {prompt!r:.60} takes them all; "
                "raise max_tokens of the segmenter"
            )

    def prefix(self, context: str) -> str:
        """What the encoder reads before a passage with this context."""
        return f"{self._prompt}{context}\n" if context else self._prompt

    def room(self, context: str) -> int:
        """Tokens left for a passage with this context."""
        room = self._rooms.get(context)
        if room is None:
            prefix = self.prefix(context)
            room = self.max_tokens - (self.counter.count(prefix) if prefix else 0)
            if not self.counter.by_words and room > _SPARE:
                room -= _SPARE
            self._rooms[context] = room
        return room

    def context(self, path: tuple[str, ...]) -> str:
        """A path of titles, without as many of its outermost parts as are too many."""
        context = self._contexts.get(path)
        if context is None:
            self._contexts[path] = context = self._shortened(path)
        return context

    def _shortened(self, path: tuple[str, ...]) -> str:
        for first in range(len(path)):
            context = _JOINED.join(path[first:])
            if self._is_short(context):
                return context
        last = path[-1] if path else ""
        return next((last[at:] for at in word_starts(last) if self._is_short(last[at:])), "")

    def _is_short(self, context: str) -> bool:
        return self.counter.count(f"{context}\n") <= self._left // _SHARE_OF_CONTEXT
