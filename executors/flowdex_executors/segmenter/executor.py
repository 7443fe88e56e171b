"""Segmenter: cuts documents into passages that fit the encoder.

    document(id, text, tags) -> document(id, text, tags, chunks=[(id#0, text, location, parent_id), ...])

Passages are counted in tokens of the encoder's own tokenizer, so that the encoder truncates none of them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jina import Executor, requests

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.encoder.model_files import NotDownloaded, find_model, read_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.schema import DocumentColumns
from flowdex_executors.segmenter.splitting import PassageSplitter

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["Segmenter"]

_NAMED_IN_ERRORS = 5


class Segmenter(Executor):  # type: ignore[misc]  # jina is untyped
    """Gives documents their passages as `chunks`.

    Args:
        tokenizer: The encoder's model: None or "default", a folder, or a hub id, as in `BertEncoder`'s `model`.
        max_tokens: Most tokens of a passage, special tokens not counted. None for as many as that model takes.
        overlap: Most tokens that a passage repeats from the end of the one before it.
        **kwargs: Jina's own.

    Attributes:
        concurrent: Tells flowdex's worker that endpoints may run at the same time: tokenising, which is
            most of the work, releases the GIL.

    Raises:
        ConfigurationError: The model cannot be found, or an option is out of range.
    """

    concurrent: ClassVar[bool] = True

    def __init__(
        self, tokenizer: str | None = None, *, max_tokens: int | None = None, overlap: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        path, self.tokenizer = find_model(tokenizer)
        loaded = load_tokenizer(path)
        if max_tokens is None:
            max_tokens = read_model(tokenizer).max_tokens - loaded.num_special_tokens_to_add(False)
        _check_at_least(1, max_tokens=max_tokens)
        _check_at_least(0, overlap=overlap)
        self.splitter = PassageSplitter(loaded, max_tokens, overlap)
        self._documents = 0
        self._passages = 0

    @requests(on="/index")  # type: ignore[untyped-decorator]
    def segment(self, docs: DocumentColumns, **kwargs: Any) -> DocumentColumns:
        """Cut every document's text into `chunks`, except where there are chunks or an embedding already.

        A passage has `id` "<document id>#<n>", `text`, `location` ([start, end] in the document's text, in characters)
        and `parent_id`. A document without an id gets one.

        Raises:
            InvalidInput: Texts are blank or absent; nothing was cut.
        """
        documents = _uncut(docs.batch)
        texts = _checked_texts(documents, docs.batch)
        documents.ids = [identifier or new_id() for identifier in documents.ids]
        chunks = [self._cut(identifier, text) for identifier, text in zip(documents.ids, texts, strict=True)]
        documents.set_nested("chunks", chunks)
        self._documents += len(documents)
        self._passages += sum(len(batch) for batch in chunks)
        return docs

    @requests(  # type: ignore[untyped-decorator]
        on="/status", request_schema=DocumentColumns, response_schema=DocumentColumns
    )
    def status(self, **kwargs: Any):  # type: ignore[no-untyped-def]  # of a dict, Jina would warn
        """How this segmenter cuts, and how much it has cut."""
        return {
            "tokenizer": self.tokenizer,
            "max_tokens": self.splitter.max_tokens,
            "overlap": self.splitter.overlap,
            "documents_segmented": self._documents,
            "passages": self._passages,
        }

    def warm_up(self) -> None:
        """Load the splitter's tables, so that no caller pays for it."""
        self.splitter.split("Warm up. 東京都。")

    def _cut(self, identifier: str, text: str) -> DocumentBatch:
        passages = self.splitter.split(text)
        return DocumentBatch.from_columns(
            ids=[f"{identifier}#{number}" for number in range(len(passages))],
            texts=[passage.text for passage in passages],
            location=[[passage.start, passage.end] for passage in passages],
            parent_id=[identifier] * len(passages),
        )

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


def _uncut(documents: DocumentBatch) -> DocumentBatch:
    """The documents without chunks and without an embedding of the caller's own."""
    chunks = documents.nested("chunks")
    fields = documents.column("embedding")
    return documents.select(index for index in range(len(documents)) if not chunks[index] and fields[index] is None)


def _checked_texts(documents: DocumentBatch, request: DocumentBatch) -> list[str]:
    """The texts of `documents`; an error names blank ones by their position in `request` and their ids."""
    texts = documents.texts
    blank = {id(document) for document, text in zip(documents, texts, strict=True) if not text or text.isspace()}
    if blank:
        names = [
            f"{index} (id {identifier!r})" if identifier else str(index)
            for index, (document, identifier) in enumerate(zip(request, request.ids, strict=True))
            if id(document) in blank
        ]
        more = f" and {len(names) - _NAMED_IN_ERRORS} more" if len(names) > _NAMED_IN_ERRORS else ""
        raise InvalidInput(
            f"{'document' if len(names) == 1 else 'documents'} {', '.join(names[:_NAMED_IN_ERRORS])}{more} "
            "without text, or of white space only; nothing was indexed"
        )
    return [text or "" for text in texts]


def _check_at_least(least: int, **options: Any) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{name} must be a whole number of at least {least}, got {value!r}")
