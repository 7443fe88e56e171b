"""What is stored, read back."""

from __future__ import annotations

from pydantic import BaseModel, Field

from flowdex_orchestrator.gateway.http.models.base import PARAMETERS, Ids, JsonObject, Request, Span

__all__ = [
    "CountRequest",
    "CountResponse",
    "GetRequest",
    "GetResponse",
    "ScrollRequest",
    "ScrollResponse",
    "StoredDocument",
]


class _ReadRequest(Request):
    """What to read of documents."""

    passages: bool = Field(default=False, strict=True, description="Whether to read their passages too.")
    embeddings: bool = Field(
        default=False,
        strict=True,
        description="Whether to read vectors: a document's where it was the caller's own, and those of its passages.",
    )
    parameters: JsonObject = PARAMETERS


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


class CountRequest(Request):
    """Which documents to count."""

    filter: JsonObject | None = Field(
        default=None, description="Conditions on the tags.", examples=[{"year": {"$gte": 1960}}]
    )
    parameters: JsonObject = PARAMETERS


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
