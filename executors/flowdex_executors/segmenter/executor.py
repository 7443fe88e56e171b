"""Segmenter: cuts documents into passages that fit the encoder.

    document(id, text | fields, tags) -> document(id, text, tags, chunks=[(id#0, text, location, context, ...), ...])

Passages are counted in tokens of the encoder's own tokenizer, with all that the encoder reads before them, so that it
truncates none. A document that cannot be cut is marked (`flowdex_executors.failures`), and the others go on.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from jina import Executor, requests
from pydantic import BaseModel, ConfigDict

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import ConfigurationError, FlowdexError, InvalidInput
from flowdex.fields import FIELDS, joined, read_fields
from flowdex_executors.encoder.model_files import ModelFiles, NotDownloaded, find_model, read_model
from flowdex_executors.encoder.prompts import Prompts
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.failures import mark, unmarked
from flowdex_executors.parameters import parse_parameters
from flowdex_executors.schema import DocumentColumns
from flowdex_executors.segmenter.budget import Budget
from flowdex_executors.segmenter.cutting import MODES, Cutter, Mode, Passage
from flowdex_executors.segmenter.source import Source, compose
from flowdex_executors.segmenter.tokens import TokenCounter

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["Segmenter"]


class SegmentParameters(BaseModel):
    """What a request may say.

    Attributes:
        segment: The mode, for documents that do not say it themselves.
        prompt: The encoder's parameter: its text takes part of the passages' room.
    """

    model_config = ConfigDict(strict=True)

    segment: Mode | None = None
    prompt: str | None = None


_OVERLAPS = 10
"""The default overlap is one part in so many of a passage."""


class Segmenter(Executor):  # type: ignore[misc]  # jina is untyped
    """Gives documents their passages as `chunks`.

    Args:
        tokenizer: The encoder's model: None or "default", a folder, or a hub id, as in `BertEncoder`'s `model`.
        mode: How documents are cut where neither they nor the request say so (`segment`): "passage" (as much as
            fits), "sentence", "markdown" (within sections, blocks kept whole) or "document" (not at all).
        max_tokens: Most tokens of a passage with its context and the encoder's prompt, special tokens not counted.
            None for as many as that model takes.
        overlap: Most tokens that a passage repeats from the end of the one before it, in the mode "passage". None for a
            tenth of `max_tokens`: without any, the short rest at a document's end is a passage out of context.
        sentences: Sentences of a passage, in the mode "sentence".
        sentence_overlap: How many of them it repeats from the one before it.
        language: ISO 639 code of the language whose abbreviations are known, in the mode "sentence".
        field_weights: How much the terms of a field count in BM25, by its name; 1 where not named.
        title_field: The field that is the context of every passage but its own; None or "" for none.
        prompts: The encoder's option, if it is given there. Prompts of the model itself are known.
        prompt: So, too.
        **kwargs: Jina's own.

    Attributes:
        concurrent: Tells flowdex's worker that endpoints may run at the same time: tokenising, which is
            most of the work, releases the GIL.

    Raises:
        ConfigurationError: The model cannot be found, or an option is out of range.
    """

    concurrent: ClassVar[bool] = True

    tenants = True
    """Keeps no documents, so none of one tenant reach another."""

    def __init__(
        self,
        tokenizer: str | None = None,
        *,
        mode: Mode = "passage",
        max_tokens: int | None = None,
        overlap: int | None = None,
        sentences: int = 1,
        sentence_overlap: int = 0,
        language: str = "en",
        field_weights: Mapping[str, float] | None = None,
        title_field: str | None = "title",
        prompts: Mapping[str, str] | None = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        path, self.tokenizer = find_model(tokenizer)
        loaded = load_tokenizer(path)
        files = _files(tokenizer, path, needed=max_tokens is None)
        if max_tokens is None and files is not None:
            max_tokens = files.max_tokens - loaded.num_special_tokens_to_add(False)
        problems = _problems(
            mode=mode,
            max_tokens=max_tokens,
            overlap=overlap,
            sentences=sentences,
            sentence_overlap=sentence_overlap,
            language=language,
            field_weights=field_weights,
            title_field=title_field,
        )
        if problems:
            raise ConfigurationError(problems[0])
        assert max_tokens is not None
        self.mode = mode
        self.field_weights = dict(field_weights or {})
        self.title_field = title_field
        default = files.prompt if files and prompt is None else prompt
        self.prompts = Prompts({**(files.prompts if files else {}), **(prompts or {})}, default)
        self.cutter = Cutter(
            TokenCounter(loaded, lower_case=files is not None and files.lower_case),
            max_tokens,
            overlap=max_tokens // _OVERLAPS if overlap is None else overlap,
            sentences=sentences,
            sentence_overlap=sentence_overlap,
            language=language,
        )
        self.passage_prompt = self.prompts.text(self.prompts.name(None, "index"))
        try:
            Budget(self.cutter.counter, max_tokens, self.passage_prompt)
        except InvalidInput as error:
            raise ConfigurationError(error.message) from None
        self._documents = 0
        self._passages = 0
        self._truncated = 0
        self._failed = 0

    @requests(on="/index")  # type: ignore[untyped-decorator]
    def segment(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Cut every document's text into `chunks`, except where there are chunks or an embedding already.

        A passage has `id` "<document id>#<n>", `text`, `location` ([start, end] in the document's text, in characters),
        `parent_id`, and where there is one, `context` and `weights`. A document without an id gets one, and one with
        `fields` gets the text that they make. One that cannot be cut is marked in `error`, without chunks. One that the
        encoder is going to truncate (mode "document") has a sentence on it in `notes`.

        Raises:
            InvalidInput: A parameter is wrong; nothing was cut.
        """
        options = parse_parameters(SegmentParameters, parameters)
        prompt = self._prompt(options.prompt)
        batch = docs.batch
        if not all(batch.ids):
            batch.ids = [identifier or new_id() for identifier in batch.ids]
        failures: dict[int, FlowdexError] = {}
        left_alone = _ready(batch)
        for row in unmarked(batch):
            if left_alone[row]:
                continue
            try:
                self._segment(batch.select([row]), options.segment or self.mode, prompt)
            except InvalidInput as error:
                failures[row] = InvalidInput(error.message.removeprefix("document 0: "))  # it was alone in its batch
        mark(batch, failures)
        self._failed += len(failures)
        return docs

    @requests(  # type: ignore[untyped-decorator]
        on="/status", request_schema=DocumentColumns, response_schema=DocumentColumns
    )
    def status(self, **kwargs: Any):  # type: ignore[no-untyped-def]  # of a dict, Jina would warn
        """How this segmenter cuts, and how much it has cut."""
        return {
            "tokenizer": self.tokenizer,
            "mode": self.mode,
            "max_tokens": self.cutter.max_tokens,
            "overlap": self.cutter.overlap,
            "sentences": self.cutter.sentences,
            "sentence_overlap": self.cutter.sentence_overlap,
            "language": self.cutter.language,
            "field_weights": self.field_weights,
            "title_field": self.title_field,
            "prompt": self.passage_prompt,
            "documents_segmented": self._documents,
            "documents_failed": self._failed,
            "documents_truncated": self._truncated,
            "passages": self._passages,
        }

    def warm_up(self) -> None:
        """Load what cuts, so that no caller pays for it."""
        for mode in MODES:
            self.cutter.cut(Source("Warm up. 東京都。"), mode)

    def _prompt(self, asked: str | None) -> str:
        """The text that the encoder is going to put before passages; one that is not known here is the encoder's."""
        if asked is None:
            return self.passage_prompt
        return self.prompts.texts.get(asked, "")

    def _segment(self, document: DocumentBatch, mode: Mode, prompt: str) -> None:
        """Cut one document, a batch of its own."""
        source = self._source(document)
        (own,) = document.column("segment")
        if own is not None and not (isinstance(own, str) and own in MODES):
            raise InvalidInput(f"segment must be one of {', '.join(MODES)}, got {own!r:.60}")
        mode = own or mode
        if source is None:
            return
        (identifier,) = document.ids
        passages = self.cutter.cut(source, mode, prompt)
        document.set_nested("chunks", [_chunks(identifier, passages)])
        if mode == "document":
            self._note_truncation(document, prompt + source.text)
        self._documents += 1
        self._passages += len(passages)

    def _source(self, document: DocumentBatch) -> Source | None:
        """What to cut of a document, whose fields become its text; None where it is cut or encoded already.

        Raises:
            InvalidInput: It has no text, or two.
        """
        (text,), (fields,) = document.texts, read_fields(document)
        if fields and text and text != joined(fields):  # equal where it comes out of an index
            raise InvalidInput("a document has a text or fields, not both; put the text into a field")
        source = compose(fields, self.field_weights, self.title_field) if fields else Source(text or "")
        if fields:
            document.texts = [source.text]
        if document.nested("chunks")[0]:
            return None
        if document.column("embedding")[0] is not None:
            if weights := source.weights_in(0, len(source.text)):
                document.set_column("weights", [weights])
            return None
        if not source.text or source.text.isspace():
            raise InvalidInput("the document has no text, or only white space: leave it out, or give it words")
        return source

    def _note_truncation(self, document: DocumentBatch, text: str) -> None:
        count, limit = self.cutter.counter.count(text), self.cutter.max_tokens
        if count > limit:
            notes = document.column("notes", [])[0]
            document.set_column("notes", [[*notes, f"its vector is that of its first {limit} of {count} tokens"]])
            self._truncated += 1

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """The tokenizer's model, and `max_tokens` (special tokens counted where it is the model's), from files alone.

        Raises:
            ConfigurationError: The model cannot be found.
        """
        asked = uses_with.get("max_tokens")
        try:
            if asked is not None:
                return {"tokenizer": find_model(uses_with.get("tokenizer"), download=False)[1], "max_tokens": asked}
            files = read_model(uses_with.get("tokenizer"), download=False)
        except NotDownloaded:
            return {"tokenizer": uses_with["tokenizer"]}
        return {"tokenizer": files.name, "max_tokens": files.max_tokens}

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences."""
        return _problems(**uses_with)


def _ready(batch: DocumentBatch) -> list[bool]:
    """Which documents have a vector and nothing to look at: told without reading them, as they come by thousands."""
    columns = (batch.has(name) for name in ("embedding", FIELDS, "chunks", "segment"))
    return [vector and not (fields or chunks or mode) for vector, fields, chunks, mode in zip(*columns, strict=True)]


def _files(tokenizer: str | None, path: Path, *, needed: bool) -> ModelFiles | None:
    """What the model's files say; None for a folder of a tokenizer alone, where no more is needed."""
    return read_model(tokenizer) if needed or (path / "config.json").is_file() else None


def _chunks(identifier: str, passages: list[Passage]) -> DocumentBatch:
    chunks = DocumentBatch.from_columns(
        ids=[f"{identifier}#{number}" for number in range(len(passages))],
        texts=[passage.text for passage in passages],
        location=[[passage.start, passage.end] for passage in passages],
        parent_id=[identifier] * len(passages),
    )
    with_context = [row for row, passage in enumerate(passages) if passage.context]
    chunks.select(with_context).set_column("context", [passages[row].context for row in with_context])
    weighted = [row for row, passage in enumerate(passages) if passage.weights]
    chunks.select(weighted).set_column("weights", [passages[row].weights for row in weighted])
    return chunks


def _problems(
    *,
    mode: Any = "passage",
    max_tokens: Any = None,
    overlap: Any = None,
    sentences: Any = 1,
    sentence_overlap: Any = 0,
    language: Any = "en",
    field_weights: Any = None,
    title_field: Any = "title",
    **others: Any,
) -> list[str]:
    """What is wrong with options, as sentences."""
    problems = [
        f"{name} must be a whole number of at least {least}, got {value!r}"
        for name, least, value in (
            ("max_tokens", 1, 1 if max_tokens is None else max_tokens),
            ("overlap", 0, 0 if overlap is None else overlap),
            ("sentences", 1, sentences),
            ("sentence_overlap", 0, sentence_overlap),
        )
        if isinstance(value, bool) or not isinstance(value, int) or value < least
    ]
    if not problems and max_tokens is not None and overlap is not None and overlap >= max_tokens:
        problems.append(f"overlap must be from 0 to less than max_tokens ({max_tokens}), got {overlap}")
    if not problems and sentence_overlap >= sentences:
        problems.append(f"sentence_overlap must be from 0 to less than sentences ({sentences}), got {sentence_overlap}")
    if mode not in MODES:
        problems.append(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not isinstance(language, str) or not language:
        problems.append(f"language must be a code such as en or de, got {language!r}")
    if title_field is not None and not isinstance(title_field, str):
        problems.append(f"title_field must be the name of a field, got {title_field!r}")
    if not isinstance(field_weights or {}, Mapping):
        return [*problems, f"field_weights must be numbers by the names of fields, got {field_weights!r}"]
    for name, weight in (field_weights or {}).items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            problems.append(f"field_weights: the weight of {name!r} must be a number from 0 on, got {weight!r}")
    return problems
