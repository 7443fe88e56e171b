"""What `uses_with` of a QdrantIndexer may say, and where a URI leads.

edge://DIR                  Qdrant's engine, embedded, in the folder DIR (relative to the working directory)
memory://                   the same in a folder of its own that goes when the indexer ends
http(s)://HOST[:6333]       a Qdrant server or cluster, over REST
grpc(s)://HOST[:6334]       the same over gRPC
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from flowdex_executors.indexer.limits import IndexLimits
from flowdex_executors.indexer.server import ServerSettings

__all__ = ["EdgeLocation", "IndexerSettings", "MemoryLocation", "ServerLocation"]

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DEFAULT_PORTS = {"http": 6333, "https": 6333, "grpc": 6334, "grpcs": 6334}


class EdgeLocation(BaseModel):
    """An embedded index.

    Attributes:
        directory: Its folder, absolute.
    """

    directory: Path


class MemoryLocation(BaseModel):
    """An embedded index that nobody needs to outlive the process: for trials and tests."""


class ServerLocation(BaseModel):
    """A Qdrant server.

    Attributes:
        host: Name or address.
        port: Of the protocol in use.
        grpc: Whether to speak gRPC rather than REST.
        tls: Whether to encrypt.
        prefix: Path before the REST API's own, where a proxy adds one.
    """

    host: str
    port: int
    grpc: bool
    tls: bool
    prefix: str | None = None


class IndexerSettings(BaseModel):
    """The settings of a QdrantIndexer, checked.

    Attributes:
        uri: Where the index lives.
        collection: Name of the collection there; created when the first documents come.
        dimensions: Size of the vectors. Fixed by the first vectors where it is not given.
        distance: How vectors are compared.
        api_key: Of a Qdrant server.
        server: What only a server has: see `server.py`.
        shards: Of an embedded index: into how many parts the collection is split, each with a process of its own. Fixed
            when the collection is created.
        durability: Of an embedded index: what an acknowledged document survives; `process`, the end of any process
            (it is on disk within a second); `fsync`, the loss of power, too.
        timeout: Seconds for one call to a Qdrant server.
        retry_for: Seconds for which a call is tried again while the backend is unavailable.
        max_passages: Most passages that one document may have. They are written in one piece, so that a document is
            never half replaced; the limit keeps that piece within what a server accepts.
        max_tag_bytes: Most bytes of a document's tags, as JSON: each of its passages holds them.
        limits: How much a request may ask for: see `limits.py`.
        tag_indexes: How many tag fields get an index of their own, in the order in which they are first seen; filters
            on further fields work too, more slowly.
        exact_up_to: Up to how many passages a server compares a query with each vector; beyond, it may use its graph,
            and so does the embedded engine.
        candidates: How many documents the ranker gets to choose from, where a request does not say.
        rrf_k: The constant of reciprocal rank fusion: 1 / (k + rank), ranks from 0.
        bm25_average_length: Expected average length of a passage, in terms without stop words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str = "edge://.flowdex/index"
    collection: str = "flowdex"
    dimensions: int | None = Field(default=None, ge=1, le=65536)
    distance: Literal["cosine", "dot", "euclid", "manhattan"] = "cosine"
    api_key: SecretStr | None = None
    server: ServerSettings | None = None
    shards: int = Field(default=1, ge=1, le=64)
    durability: Literal["process", "fsync"] = "process"
    timeout: float = Field(default=30.0, gt=0)
    retry_for: float = Field(default=10.0, ge=0)
    max_passages: int = Field(default=20_000, ge=1)
    max_tag_bytes: int = Field(default=65_536, ge=1)
    limits: IndexLimits = IndexLimits()
    tag_indexes: int = Field(default=32, ge=0, le=256)
    exact_up_to: int = Field(default=100_000, ge=0)
    rrf_k: int = Field(default=60, ge=1)
    candidates: int | None = Field(default=None, ge=1, le=2000)
    bm25_average_length: float = Field(default=75.0, gt=0)

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        _parse_uri(uri)
        return uri

    @field_validator("collection")
    @classmethod
    def _check_collection(cls, name: str) -> str:
        if not _COLLECTION_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name a collection: use up to 100 letters, digits, '_', '-' and '.', "
                "starting with a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _check_server(self) -> IndexerSettings:
        if self.server is not None and not isinstance(self.location, ServerLocation):
            raise ValueError(f"server: {self.uri} is an embedded index, which has none of these; take them out")
        if isinstance(self.location, ServerLocation) and (self.shards, self.durability) != (1, "process"):
            raise ValueError(
                f"shards, durability: {self.uri} is a server, which has its own; say server.shards, and take these out"
            )
        return self

    @property
    def location(self) -> EdgeLocation | MemoryLocation | ServerLocation:
        """Where `uri` leads."""
        return _parse_uri(self.uri)

    @property
    def layout(self) -> ServerSettings:
        """`server`, or what holds where it is not given: all is left to the server."""
        return self.server or ServerSettings()

    @property
    def higher_is_better(self) -> bool:
        """Whether the distance is a similarity."""
        return self.distance in ("cosine", "dot")


def _parse_uri(uri: str) -> EdgeLocation | MemoryLocation | ServerLocation:
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("edge", "memory", *_DEFAULT_PORTS):
        raise ValueError(
            f"{uri!r} is not the URI of an index: use edge://DIR, memory://, http(s)://HOST:6333 or grpc(s)://HOST:6334"
        )
    if scheme == "memory":
        if rest:
            raise ValueError(f"{uri!r}: an index in memory has no place; use memory://, or edge://{rest}")
        return MemoryLocation()
    if scheme == "edge":
        if not rest:
            raise ValueError(f"{uri!r} names no folder: use edge://DIR, such as edge://.flowdex/index")
        return EdgeLocation(directory=Path(rest).expanduser().absolute())
    parts = urlsplit(uri)
    if not parts.hostname:
        raise ValueError(f"{uri!r} names no host")
    if parts.username or parts.password:
        raise ValueError("the URI of an index must not hold credentials: give the key as api_key: ${{ ENV.NAME }}")
    return ServerLocation(
        host=parts.hostname,
        port=parts.port or _DEFAULT_PORTS[scheme],  # a port out of range raises ValueError here
        grpc=scheme.startswith("grpc"),
        tls=scheme.endswith("s"),
        prefix=parts.path.strip("/") or None,
    )
