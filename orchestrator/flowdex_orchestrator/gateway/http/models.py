"""What the HTTP API takes and answers, as pydantic models; the OpenAPI document is made from them.

Requests are strict: an unknown key is an error that names the nearest known one, and nothing is converted (a number is
not a text). Limits that are settings are checked by the routes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

__all__ = [
    "ENCODE_CHOICES",
    "SEARCH_CHOICES",
    "CountRequest",
    "CountResponse",
    "DeleteRequest",
    "DeleteResponse",
    "Document",
    "EncodeRequest",
    "EncodeResponse",
    "GetRequest",
    "GetResponse",
    "Health",
    "IndexRequest",
    "IndexResponse",
    "Problem",
    "RankRequest",
    "RankResponse",
    "ScrollRequest",
    "ScrollResponse",
    "SearchRequest",
    "SearchResponse",
    "Status",
    "StoredDocument",
]


def _texts(value: Any) -> list[str]:
    """One text or several, none of them blank."""
    return [_text(item) for item in _strings(value)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "must be a string, not {kind}", {"kind": _kind(value)})
    if not value or value.isspace():
        raise PydanticCustomError("blank", "must not be blank")
    return value


def _strings(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError(
            "list_type", "must be a string or a list of strings, not {kind}", {"kind": _kind(value)}
        )
    if not value:
        raise PydanticCustomError("empty", "must not be empty")
    return value


def _kind(value: Any) -> str:
    """What JSON calls it."""
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "null")


_ONE_OR_MANY = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
Id = Annotated[str, StringConstraints(strict=True, min_length=1)]
Texts = Annotated[list[Text], BeforeValidator(_strings), WithJsonSchema(_ONE_OR_MANY)]
Ids = Annotated[list[Id], BeforeValidator(_strings), WithJsonSchema(_ONE_OR_MANY)]
Span = Annotated[list[int], Field(min_length=2, max_length=2)]
JsonObject = dict[str, Any]
Segment = Literal["passage", "sentence", "markdown", "document"]


class _Request(BaseModel):
    """A request's body: no key but those of the model."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise PydanticCustomError("object_type", "must be a JSON object, not {kind}", {"kind": _kind(data)})
        unknown = [key for key in data if key not in cls.model_fields]
        if unknown:
            near = difflib.get_close_matches(unknown[0], cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(cls.model_fields)}"
            raise PydanticCustomError(
                "unknown_key", "unknown key {key}; {hint}", {"key": repr(unknown[0]), "hint": hint}
            )
        return data


_PARAMETERS: Any = Field(
    default_factory=dict,
    description="Further parameters for the executors; an object under an executor's name is for that one alone.",
)


def _input(value: Any) -> Any:
    """A text, or an object with a pair of texts or with words."""
    if not isinstance(value, Mapping):
        return _text(value)
    names = set(value)
    if names == {"words"} and isinstance(value["words"], list) and value["words"]:
        return {"words": [_word(word) for word in value["words"]]}
    if names <= {"text", "text_pair"} and "text" in names:
        return {name: _text(text) for name, text in value.items()}
    raise PydanticCustomError(
        "text_object", 'must be a string, {{"text": ..., "text_pair": ...}} or {{"words": ["...", ...]}}'
    )


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "words must be strings, not {kind}", {"kind": _kind(value)})
    return value


_TEXT_OBJECT: Any = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "title": "Pair",
            "properties": {"text": {"type": "string"}, "text_pair": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "title": "Words",
            "properties": {"words": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            "required": ["words"],
            "additionalProperties": False,
        },
    ]
}
Input = Annotated[str | JsonObject, BeforeValidator(_input), WithJsonSchema(_TEXT_OBJECT)]
Inputs = Annotated[
    list[Input],
    BeforeValidator(_strings),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_OBJECT, "minItems": 1}]}),
]
Pooling = Literal[
    "mean", "max", "mean_max", "cls", "sep", "last", "weighted_mean", "mean_sqrt_len", "idf", "none"
]  # fmt: skip
# Fields of EncodeRequest that are parameters of the encoder.
ENCODE_CHOICES = {
    "pooling",
    "layers",
    "layer_mode",
    "normalize",
    "truncation",
    "max_length",
    "dimensions",
    "dtype",
    "prompt",
    "tokens",
    "attention",
    "receipt",
}


class EncodeRequest(_Request):
    """Texts to turn into vectors, and how. What is left out is as the encoder is set up."""

    texts: Inputs = Field(
        description="One text or a list of texts. In a list, a text may also be a pair of texts, which are read as "
        "one sequence, or a text that is cut into words already.",
        examples=[["The quick brown fox", {"text": "Who?", "text_pair": "Me."}, {"words": ["cut", "already"]}]],
    )
    encoding: Literal["float", "base64"] = Field(
        default="float",
        description="Vectors as lists of numbers, or as base64 of their little-endian bytes, of the type `dtype`.",
    )
    pooling: Pooling | list[Pooling] | None = Field(
        default=None, description="How token vectors become one; several are concatenated; none keeps them."
    )
    layers: int | list[int] | None = Field(
        default=None, description="Layers of the model: 0 is the input embeddings, -1 the top."
    )
    layer_mode: Literal["concat", "mean"] | None = Field(default=None, description="What is made of several layers.")
    normalize: bool | None = Field(default=None, description="Whether vectors have length 1.")
    truncation: Literal["error", "head", "tail", "window_mean"] | None = Field(
        default=None, description="What becomes of a text that is too long."
    )
    max_length: int | None = Field(default=None, ge=1, description="Longest sequence in tokens.")
    dimensions: int | None = Field(default=None, ge=1, description="So many leading dimensions, normalised again.")
    dtype: Literal["float32", "float16", "int8", "binary"] | None = Field(
        default=None, description="Number type; int8 comes with `scales`, binary is signs, eight to a byte."
    )
    prompt: str | None = Field(default=None, description="Name of the prompt before each text; empty for none.")
    tokens: bool | None = Field(default=None, description="Whether to answer the tokens.")
    attention: bool | None = Field(default=None, description="Whether to answer the attention.")
    receipt: bool | None = Field(default=None, description="Whether to answer what was done for each text.")
    parameters: JsonObject = _PARAMETERS


class Array(BaseModel):
    """An array in a reply with `encoding` base64."""

    dtype: Literal["float32", "float16", "int8", "uint8"]
    shape: list[int]
    data: str = Field(description="Base64 of its little-endian bytes, the last axis fastest.")


class Tokens(BaseModel):
    """The tokens of a text, special ones included."""

    texts: list[str] = Field(examples=[["[CLS]", "apollo", "[SEP]"]])
    spans: list[Span] = Field(
        description="[start, end] of each in characters of the text, end exclusive; [0, 0] for special tokens.",
        examples=[[[0, 0], [0, 6], [0, 0]]],
    )
    vectors: list[list[float]] | Array = Field(description="Neither pooled nor normalised.")


class Receipt(BaseModel):
    """What was done for a text."""

    tokens: int | None = Field(default=None, description="Tokens computed, special ones included.")
    dropped: int | None = Field(default=None, description="Tokens that truncation cut off.")
    queue_ms: float = Field(description="Milliseconds that the request waited in the encoder.")
    compute_ms: float = Field(description="Milliseconds from its first text's turn to its last text's end.")
    fingerprint: str = Field(description="Short hash of what made the vector.")


class EncodeResponse(BaseModel):
    """One vector a text, in order, and what else was asked for."""

    embeddings: list[list[float]] | list[str] | list[list[list[float]]] | list[Array] = Field(
        description="As `encoding` says; with pooling none, a matrix a text.", examples=[[[0.1, -0.2]]]
    )
    dimensions: int = Field(description="Length of a vector; of a binary one, in bytes.", examples=[384])
    dtype: str = Field(description="Number type of the vectors.", examples=["float32"])
    count: int = Field(description="Number of vectors.", examples=[1])
    scales: list[float] | list[list[float]] | None = Field(
        default=None, description="With int8: what each vector is to be multiplied with."
    )
    tokens: list[Tokens] | None = Field(default=None, description="Of each text, where asked for.")
    attentions: list[Any] | None = Field(
        default=None, description="Of each text, where asked for: of shape (layers, heads, tokens, tokens)."
    )
    receipts: list[Receipt] | None = Field(default=None, description="Of each text, where asked for.")
    took_ms: float = Field(description="Time in the gateway and behind it, in milliseconds.", examples=[7.4])


class Document(_Request):
    """One document to index."""

    id: Id | None = Field(default=None, description="Made up if absent; a known id replaces that document.")
    text: Text | None = Field(default=None, description="The text; long ones are cut into passages.")
    fields: Annotated[dict[str, str], Field(min_length=1)] | None = Field(
        default=None,
        description="Instead of a text: its parts, in order.",
        examples=[{"title": "Apollo 11", "body": "It landed on the Moon."}],
    )
    tags: JsonObject = Field(default_factory=dict, description="Values to filter by.", examples=[{"year": 1969}])
    embedding: Annotated[list[float], Field(min_length=1)] | None = Field(
        default=None, description="A vector of your own: the document is one passage with this vector."
    )
    segment: Segment | None = Field(default=None, description="How to cut this one, whatever the request says.")
    digest: str | None = Field(
        default=None,
        description="Kept with the document, and told by `POST /get`: any string that changes with the content, by "
        "which a caller can tell whether to send it again.",
    )

    @model_validator(mode="after")
    def _has_content(self) -> Document:
        if self.text is not None and self.fields is not None:
            raise PydanticCustomError("content", "has a text and fields; give one of them")
        if self.text is None and self.fields is None and self.embedding is None:
            raise PydanticCustomError("content", "has no text (nor fields, nor an embedding)")
        if self.fields is not None and self.embedding is None and not "".join(self.fields.values()).strip():
            raise PydanticCustomError("blank", "has blank fields only")
        return self


class IndexRequest(_Request):
    """Documents to add to the index."""

    documents: list[Document] = Field(
        min_length=1, examples=[[{"id": "apollo", "text": "Apollo 11 landed on the Moon.", "tags": {"year": 1969}}]]
    )
    segment: Segment | None = Field(
        default=None, description="How to cut documents into passages; if absent, as the flow's segmenter does."
    )
    parameters: JsonObject = _PARAMETERS


class DocumentError(BaseModel):
    """Why a document failed."""

    name: str = Field(description="The class of error.", examples=["InvalidInput"])
    message: str = Field(description="What is wrong, and what to do.")


class FailedDocument(BaseModel):
    """A document that was not stored."""

    index: int = Field(description="Its place in the request, from 0.", examples=[0])
    id: str
    error: DocumentError


class IndexResponse(BaseModel):
    """What was stored. A document that cannot be indexed fails alone."""

    ids: list[str] = Field(description="The ids of all documents, in order.", examples=[["apollo"]])
    documents: int = Field(description="Number of documents stored.", examples=[1])
    passages: int = Field(description="Number of passages they were cut into.", examples=[1])
    failed: list[FailedDocument] = Field(description="The documents that were not stored.", examples=[[]])
    took_ms: float = Field(examples=[31.0])


def _named(model: type[BaseModel], key: str, *names: str) -> Any:
    """Lets the value of `key` alone stand for a `model` that has only that: "rrf" for {"method": "rrf"}."""

    def wrap(value: Any) -> Any:
        return value if value is None or isinstance(value, (Mapping, list, BaseModel)) else {key: value}

    short: Any = Literal[names] if names else float
    return BeforeValidator(wrap, json_schema_input_type=short | model | None)


class FusionOptions(_Request):
    """How the rankings of a hybrid search become one."""

    method: Literal["rrf", "dbsf"] = Field(default="rrf", description="By ranks (rrf), or by scores (dbsf).")
    k: float | None = Field(default=None, ge=1, description="The constant of rrf: 1 / (k + rank).")
    weights: dict[Literal["dense", "sparse"], Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="How much each ranking counts; 1 where not given.", examples=[{"dense": 2}]
    )


class DiversityOptions(_Request):
    """How hits are chosen that differ from each other (maximal marginal relevance)."""

    weight: float = Field(default=0.5, ge=0, le=1, description="0: by score alone, 1: by difference alone.")
    candidates: int = Field(default=50, ge=1, strict=True, description="How many hits to choose from.")


class AggregateOptions(_Request):
    """How the scores of a document's passages become the document's."""

    method: Literal["max", "mean", "sum", "softmax"] = Field(default="max")
    top: int | None = Field(default=None, ge=1, strict=True, description="How many of its best passages count.")
    temperature: float | None = Field(
        default=None, gt=0, description="Of softmax: the lower, the more the best counts."
    )


class RerankOptions(_Request):
    """A second look at the best hits; what is left out is as the flow is set up."""

    method: Literal["late_interaction", "cross_encoder", "none"] | None = None
    top: int | None = Field(default=None, ge=1, strict=True, description="How many hits to look at.")
    timeout: float | None = Field(default=None, gt=0, description="Seconds; then the order stays as it was.")


Fusion = Annotated[FusionOptions | None, _named(FusionOptions, "method", "rrf", "dbsf")]
Diversity = Annotated[DiversityOptions | None, _named(DiversityOptions, "weight")]
Aggregate = Annotated[AggregateOptions | None, _named(AggregateOptions, "method", "max", "mean", "sum", "softmax")]
Rerank = Annotated[RerankOptions | None, _named(RerankOptions, "method", "late_interaction", "cross_encoder", "none")]


class SearchRequest(_Request):
    """One query or several."""

    query: Texts = Field(description="One query or a list of queries.", examples=["first people on the Moon"])
    limit: int = Field(default=10, ge=1, strict=True, description="Most hits a query.")
    offset: int = Field(default=0, ge=0, strict=True, description="Hits to leave out from the top.")
    filter: JsonObject | None = Field(
        default=None, description="Conditions on the tags.", examples=[{"year": {"$gte": 1960}}]
    )
    mode: Literal["hybrid", "dense", "sparse"] | None = Field(
        default=None, description="Match by meaning (dense), by words (sparse) or both (hybrid, the default)."
    )
    passages: int | None = Field(default=None, ge=1, strict=True, description="Most passages of one document.")
    threshold: float | None = Field(default=None, description="Least score of a hit.")
    fusion: Fusion = Field(
        default=None, description='How hybrid is ranked: "rrf" (the default), "dbsf", or an object with the details.'
    )
    candidates: int | None = Field(
        default=None, ge=1, strict=True, description="How many documents the ranker gets to choose from."
    )
    explain: bool | None = Field(
        default=None, strict=True, description="Whether hits say where their scores come from."
    )
    diversity: Diversity = Field(
        default=None, description="Prefer hits that differ: a weight from 0 to 1, or an object with the details."
    )
    group: Literal["document", "passage"] | None = Field(
        default=None, description="Whether hits are documents (the default) or passages."
    )
    highlight: bool | None = Field(default=None, strict=True, description="Whether to mark the query's words.")
    aggregate: Aggregate = Field(
        default=None, description="How passages make a document's score: a method, or an object with the details."
    )
    rerank: Rerank = Field(
        default=None, description='A second look at the best hits: a method, "none", or an object with the details.'
    )
    parameters: JsonObject = _PARAMETERS


SEARCH_CHOICES = frozenset(SearchRequest.model_fields) - {"query", "parameters"}
"""What of a search request is a parameter of /search, under the same name."""


class Ranked(BaseModel):
    """Where one stage of a search has a hit."""

    model_config = ConfigDict(extra="allow")

    rank: int = Field(description="From 1.")
    score: float


class Passage(BaseModel):
    """A part of a document that matches."""

    id: str
    text: str
    location: Span | None = Field(description="Where it is in the document's text: characters, end exclusive.")
    score: float
    scores: dict[str, float] = Field(description="All scores, by name.")
    explain: dict[str, Ranked] | None = Field(default=None, description="As with hits.")


class Hit(BaseModel):
    """A document that matches: its best passage, and why."""

    id: str = Field(examples=["apollo"])
    score: float = Field(description="Higher is better.", examples=[0.71])
    text: str = Field(description="Its best passage.", examples=["Apollo 11 landed on the Moon."])
    tags: JsonObject = Field(examples=[{"year": 1969}])
    location: Span | None = Field(description="Where the passage is in the document: characters, end exclusive.")
    highlights: list[Span] = Field(description="What to mark in `text`: characters, end exclusive.")
    scores: dict[str, float] = Field(
        description="All scores, by name: score, dense, sparse, rerank, those that are known.",
        examples=[{"score": 0.033, "dense": 0.71, "sparse": 9.3}],
    )
    passages: list[Passage] = Field(description="All its matching passages, best first.")
    explain: dict[str, Ranked] | None = Field(
        default=None,
        description="With `explain`: each stage that ranked it.",
        examples=[{"dense": {"rank": 1, "score": 0.71}, "fusion": {"rank": 1, "score": 0.033, "method": "rrf"}}],
    )
    parent_id: str | None = Field(default=None, description="Where hits are passages: the id of its document.")


class SearchResult(BaseModel):
    """The hits of one query, best first."""

    query: str
    hits: list[Hit]
    notes: list[str] = Field(description="What to know of this answer, such as that there was no time to rerank.")


class SearchResponse(BaseModel):
    """One result a query, in order."""

    results: list[SearchResult]
    took_ms: float = Field(examples=[12.5])


class _ReadRequest(_Request):
    """What to read of documents."""

    passages: bool = Field(default=False, strict=True, description="Whether to read their passages too.")
    embeddings: bool = Field(
        default=False,
        strict=True,
        description="Whether to read vectors: a document's where it was the caller's own, and those of its passages.",
    )
    parameters: JsonObject = _PARAMETERS


class GetRequest(_ReadRequest):
    """Documents to read."""

    ids: Ids = Field(description="One id or a list of ids; unknown ones are passed over.", examples=[["apollo"]])
    content: bool = Field(
        default=True, strict=True, description="Whether to read text and fields; without: id, tags and digest."
    )


class ScrollRequest(_ReadRequest):
    """Which documents to read, and where to go on."""

    filter: JsonObject | None = Field(
        default=None, description="Conditions on the tags.", examples=[{"year": {"$gte": 1960}}]
    )
    limit: int = Field(default=100, ge=1, le=1000, strict=True, description="Most documents; it may be fewer.")
    cursor: str | None = Field(default=None, description="The `cursor` of the page before; none for the first.")


class CountRequest(_Request):
    """Which documents to count."""

    filter: JsonObject | None = Field(
        default=None, description="Conditions on the tags.", examples=[{"year": {"$gte": 1960}}]
    )
    parameters: JsonObject = _PARAMETERS


class StoredPassage(BaseModel):
    """A part of a stored document."""

    id: str = Field(examples=["apollo#0"])
    text: str
    location: Span = Field(description="Where it is in the document's text: characters, end exclusive.")
    context: str | None = Field(
        default=None, description="What was encoded before it without being part of it, such as the headings above."
    )
    embedding: list[float] | None = Field(default=None, description="Its vector, where asked for.")


class StoredDocument(BaseModel):
    """A document in the index, as it was sent."""

    id: str = Field(examples=["apollo"])
    text: str | None = Field(default=None, examples=["Apollo 11 landed on the Moon."])
    fields: dict[str, str] | None = Field(default=None, description="Where it was sent in fields.")
    tags: JsonObject = Field(examples=[{"year": 1969}])
    passage_count: int = Field(description="How many passages it has.", examples=[1])
    segment: str | None = Field(default=None, description="How it was to be cut, where it said so.")
    digest: str | None = Field(default=None, description="As it was sent.")
    embedding: list[float] | None = Field(default=None, description="Its own vector, where asked for.")
    passages: list[StoredPassage] | None = Field(default=None, description="Where asked for, in order.")


class GetResponse(BaseModel):
    """The documents that are there, in the order of the ids."""

    documents: list[StoredDocument]
    took_ms: float = Field(examples=[3.0])


class ScrollResponse(BaseModel):
    """Some documents, in the order in which they were last written."""

    documents: list[StoredDocument]
    cursor: str | None = Field(description="Where to go on; null where these are the last.")
    took_ms: float = Field(examples=[12.5])


class CountResponse(BaseModel):
    """How many there are."""

    documents: int = Field(examples=[3])
    passages: int = Field(examples=[17])
    took_ms: float = Field(examples=[1.5])


class RankRequest(_Request):
    """A query, and the texts to rank for it."""

    query: Text = Field(description="What the texts are to answer.", examples=["first people on the Moon"])
    texts: Texts = Field(
        description="One text or a list of texts.", examples=[["Cats purr.", "Apollo 11 landed on the Moon."]]
    )
    method: Literal["late_interaction", "cross_encoder", "dense"] | None = Field(
        default=None, description="How; by default cross_encoder where the flow has one, else late_interaction."
    )
    top: int | None = Field(default=None, ge=1, strict=True, description="Most texts to answer with; all by default.")
    parameters: JsonObject = _PARAMETERS


class RankedText(BaseModel):
    """A text, and how well it answers the query."""

    index: int = Field(description="Its position in the request, from 0.", examples=[1])
    score: float = Field(description="Higher is better.", examples=[0.62])
    text: str = Field(examples=["Apollo 11 landed on the Moon."])


class RankResponse(BaseModel):
    """The texts, best first."""

    results: list[RankedText]
    took_ms: float = Field(examples=[14.2])


class DeleteRequest(_Request):
    """Documents to remove."""

    ids: Ids = Field(
        default_factory=list, description="One id or a list of ids; unknown ones are ignored.", examples=[["apollo"]]
    )
    filter: JsonObject | None = Field(
        default=None, description="Instead of ids: which documents, by their tags.", examples=[{"year": {"$lt": 1970}}]
    )
    parameters: JsonObject = _PARAMETERS


class DeleteResponse(BaseModel):
    """What was removed."""

    deleted: int = Field(description="Number of documents.", examples=[1])
    took_ms: float = Field(examples=[3.0])


class ReplicaStatus(BaseModel):
    """One replica of an executor, as this gateway sees it."""

    address: str = Field(examples=["127.0.0.1:51001"])
    ready: bool
    in_flight: int = Field(description="Calls it is working on for this gateway.")
    failure: str | None = Field(description="Why it is not ready.")


class ExecutorStatus(BaseModel):
    """One executor."""

    name: str = Field(examples=["encoder"])
    uses: str = Field(examples=["flowdex_executors.BertEncoder"])
    needs: list[str]
    replicas: list[ReplicaStatus]
    status: JsonObject | None = Field(description="What it says of itself, if it has a `/status` endpoint.")


class Status(BaseModel):
    """The flow as a whole."""

    name: str = Field(examples=["flowdex"])
    version: str
    uptime_s: float
    ready: bool = Field(description="Whether every executor has a replica that takes requests.")
    in_flight: int = Field(description="Requests the gateway is working on.")
    endpoints: dict[str, list[str]] = Field(
        description="Each endpoint with the executors that serve it, in order.", examples=[{"/encode": ["encoder"]}]
    )
    executors: list[ExecutorStatus]


class Health(BaseModel):
    """A probe's answer."""

    status: Literal["ok"] = "ok"


class InvalidPart(BaseModel):
    """One part of a request that is wrong."""

    pointer: str = Field(description="JSON pointer to it.", examples=["#/texts/3"])
    detail: str = Field(examples=["must not be blank"])


class Problem(BaseModel):
    """An error, as a problem document (RFC 9457)."""

    type: str = Field(description="Names the class of error.", examples=["urn:flowdex:error:InvalidInput"])
    title: str = Field(description="The class of error, for people.", examples=["Invalid input"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="What is wrong here, and what to do.", examples=["texts/3: must not be blank"])
    request_id: str | None = Field(default=None, description="Names the request in logs.")
    executor: str | None = Field(default=None, description="The executor that raised the error.")
    errors: list[InvalidPart] | None = Field(default=None, description="Every part of the request that is wrong.")
