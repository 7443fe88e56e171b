"""Documents to be stored, and to be removed."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.gateway.http.models.base import PARAMETERS, Id, Ids, JsonObject, Request, Segment, Text

__all__ = ["DeleteRequest", "DeleteResponse", "Document", "IndexRequest", "IndexResponse"]


class Document(Request):
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


class IndexRequest(Request):
    """Documents to add to the index."""

    documents: list[Document] = Field(
        min_length=1, examples=[[{"id": "apollo", "text": "Apollo 11 landed on the Moon.", "tags": {"year": 1969}}]]
    )
    segment: Segment | None = Field(
        default=None, description="How to cut documents into passages; if absent, as the flow's segmenter does."
    )
    parameters: JsonObject = PARAMETERS


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


class DeleteRequest(Request):
    """Documents to remove."""

    ids: Ids = Field(
        default_factory=list, description="One id or a list of ids; unknown ones are ignored.", examples=[["apollo"]]
    )
    filter: JsonObject | None = Field(
        default=None, description="Instead of ids: which documents, by their tags.", examples=[{"year": {"$lt": 1970}}]
    )
    parameters: JsonObject = PARAMETERS


class DeleteResponse(BaseModel):
    """What was removed."""

    deleted: int = Field(description="Number of documents.", examples=[1])
    took_ms: float = Field(examples=[3.0])
