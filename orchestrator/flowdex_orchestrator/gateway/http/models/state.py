"""The state of the flow, and errors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from flowdex_orchestrator.gateway.http.models.base import JsonObject

__all__ = ["Health", "Problem", "Status"]


class Durations(BaseModel):
    """How long they took that have ended since the gateway started; refused ones are not among them."""

    count: int
    failed: int = Field(description="How many of them ended with an error.")
    mean_ms: float | None = Field(description="Null where there are none.")
    p50_ms: float | None = Field(description="Interpolated from the buckets, as the other two.")
    p95_ms: float | None
    p99_ms: float | None
    buckets: list[int] = Field(
        description="How many took at most the first of `bounds_ms`, at most the second, ..., more than the last."
    )


class Canary(BaseModel):
    """Whether a text of flowdex's own still comes back through the replica's queue and device as at the start."""

    ok: bool
    problem: str | None = Field(description="Why the replica takes no requests.")
    cosine: float | None = Field(description="Of the last one's vector with that of the start; null without vectors.")
    age_s: float = Field(description="Since the last one that came back right.")


class ReplicaStatus(BaseModel):
    """One replica of an executor, as this gateway sees it."""

    address: str = Field(examples=["127.0.0.1:51001"])
    ready: bool
    in_flight: int = Field(description="Calls it is working on for this gateway.")
    failure: str | None = Field(description="Why it is not ready.")
    versions: dict[str, str] | None = Field(
        description="Of flowdex, Python and what matters beside them; null where it does not say, as the following.",
        examples=[{"flowdex": "0.1.0", "python": "3.11.9"}],
    )
    uptime_s: float | None
    restarts: int | None = Field(description="How often its runner had to start it again; null without a runner.")
    canary: Canary | None = Field(description="Null where it has none.")


class ExecutorStatus(BaseModel):
    """One executor."""

    name: str = Field(examples=["encoder"])
    uses: str = Field(examples=["flowdex_executors.BertEncoder"])
    needs: list[str]
    replicas: list[ReplicaStatus]
    queue_ms: float | None = Field(
        description="Milliseconds that requests wait in it, the mean over its ready replicas; null where none says."
    )
    calls: Durations = Field(description="This gateway's calls; the parts of a divided request count one by one.")
    status: JsonObject | None = Field(description="What it says of itself, if it has a `/status` endpoint.")


class Status(BaseModel):
    """The flow as a whole."""

    name: str = Field(examples=["flowdex"])
    version: str
    python: str = Field(description="Version of the gateway's Python.")
    restarts: int | None = Field(description="How often the gateway's runner had to start it again; null without one.")
    uptime_s: float
    ready: bool = Field(description="Whether every executor has a replica that takes requests.")
    in_flight: int = Field(description="Requests the gateway is working on.")
    endpoints: dict[str, list[str]] = Field(
        description="Each endpoint with the executors that serve it, in order.", examples=[{"/encode": ["encoder"]}]
    )
    bounds_ms: list[float] = Field(description="Upper bounds of the buckets.", examples=[[1, 10, 100]])
    requests: dict[str, Durations] = Field(description="By endpoint; at most a hundred, the others as `other`.")
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
