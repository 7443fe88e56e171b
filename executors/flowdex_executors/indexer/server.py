"""What only a Qdrant server has: how a collection is laid out there, and how its graph is searched.

    uses_with.server --creation--> arguments of create_collection
                     --differences--> what an existing collection has otherwise, in words
                     --search_params--> of each dense query

None of it changes what is found beyond the accuracy of an approximate search, so a collection that was created with
other parameters is used as it is, and reported. The embedded engine has none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from qdrant_client import models

from flowdex_executors.indexer.payload import DENSE

__all__ = ["GraphSettings", "OnDiskSettings", "QuantizationSettings", "ServerSettings"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QuantizationSettings(_Settings):
    """Smaller copies of the vectors, for a first and faster comparison.

    Attributes:
        method: `scalar` (int8, a quarter of the memory), `binary` (1 bit a dimension: for 1024 dimensions and more)
            or `product` (the smallest and slowest).
        quantile: Of `scalar`: the share of values that the range covers; None covers all.
        compression: Of `product`.
        always_ram: Keep the small vectors in memory, also where the originals are on disk.
        rescore: Compare the best by their original vectors again; None leaves it to the server.
        oversampling: How many times the limit is fetched before that; None leaves it to the server.
    """

    method: Literal["scalar", "binary", "product"]
    quantile: float | None = Field(default=None, ge=0.5, le=1.0)
    compression: Literal["x4", "x8", "x16", "x32", "x64"] = "x16"
    always_ram: bool = True
    rescore: bool | None = None
    oversampling: float | None = Field(default=None, ge=1.0)

    def config(self) -> models.QuantizationConfig:
        """As the server takes it."""
        if self.method == "scalar":
            return models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(
                    type=models.ScalarType.INT8, quantile=self.quantile, always_ram=self.always_ram
                )
            )
        if self.method == "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=self.always_ram))
        return models.ProductQuantization(
            product=models.ProductQuantizationConfig(
                compression=models.CompressionRatio(self.compression), always_ram=self.always_ram
            )
        )


class OnDiskSettings(_Settings):
    """What is read from disk instead of being held in memory; None leaves it to the server.

    Attributes:
        vectors: Dense vectors and the index of the words.
        payload: Texts and tags.
        graph: The graph of the dense vectors.
    """

    vectors: bool | None = None
    payload: bool | None = None
    graph: bool | None = None


class GraphSettings(_Settings):
    """The graph (HNSW) of the dense vectors; None leaves it to the server.

    Attributes:
        m: Edges a node.
        ef_construct: Neighbours looked at while it is built.
        full_scan_threshold: Size in KB below which vectors are compared one by one.
        ef: Neighbours looked at in a search: more find more and take longer.
    """

    m: int | None = Field(default=None, ge=0, le=1024)
    ef_construct: int | None = Field(default=None, ge=4)
    full_scan_threshold: int | None = Field(default=None, ge=10)
    ef: int | None = Field(default=None, ge=1)


class ServerSettings(_Settings):
    """`uses_with.server` of a QdrantIndexer whose URI leads to a server.

    Attributes:
        ca_file: Certificates (PEM) to trust instead of the system's, for https:// and grpcs://.
        shards: Number of shards; None leaves it to the server, as in the following.
        replication_factor: Copies of each shard.
        write_consistency: Copies that must confirm a write.
        quantization: See `QuantizationSettings`; the name of a method stands for that method alone.
        on_disk: See `OnDiskSettings`; true stands for all of it.
        hnsw: See `GraphSettings`.
    """

    ca_file: Path | None = None
    shards: int | None = Field(default=None, ge=1)
    replication_factor: int | None = Field(default=None, ge=1)
    write_consistency: int | None = Field(default=None, ge=1)
    quantization: QuantizationSettings | None = None
    on_disk: OnDiskSettings = OnDiskSettings()
    hnsw: GraphSettings = GraphSettings()

    @field_validator("quantization", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("on_disk", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return dict.fromkeys(OnDiskSettings.model_fields, value) if isinstance(value, bool) else value

    @field_validator("ca_file")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    # ---- creation ----

    def creation(self) -> dict[str, Any]:
        """Arguments of `create_collection` beside the vectors; only those that are set."""
        arguments = {
            "shard_number": self.shards,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency,
            "on_disk_payload": self.on_disk.payload,
            "hnsw_config": self._graph(),
            "quantization_config": self.quantization.config() if self.quantization else None,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    def _graph(self) -> models.HnswConfigDiff | None:
        values = {**self.hnsw.model_dump(exclude={"ef"}), "on_disk": self.on_disk.graph}
        values = {name: value for name, value in values.items() if value is not None}
        return models.HnswConfigDiff(**values) if values else None

    def sparse_index(self) -> models.SparseIndexParams | None:
        """Where the index of the words is kept."""
        return None if self.on_disk.vectors is None else models.SparseIndexParams(on_disk=self.on_disk.vectors)

    # ---- an existing collection ----

    def differences(self, config: models.CollectionConfig) -> list[str]:
        """Where a collection is laid out otherwise than the settings say, such as "shards is 1 instead of 3".

        Args:
            config: As `get_collection` tells it.
        """
        return [f"{name} is {_shown(has)} instead of {_shown(wanted)}" for name, wanted, has in self._compared(config)]

    def _compared(self, config: models.CollectionConfig) -> Iterator[tuple[str, Any, Any]]:
        params, graph = config.params, config.hnsw_config
        vectors = params.vectors[DENSE] if isinstance(params.vectors, dict) else None
        pairs = {
            "shards": (self.shards, params.shard_number),
            "replication_factor": (self.replication_factor, params.replication_factor),
            "write_consistency": (self.write_consistency, params.write_consistency_factor),
            "on_disk.payload": (self.on_disk.payload, bool(params.on_disk_payload)),
            "on_disk.vectors": (self.on_disk.vectors, bool(vectors and vectors.on_disk)),
            "on_disk.graph": (self.on_disk.graph, bool(graph.on_disk)),
            "hnsw.m": (self.hnsw.m, graph.m),
            "hnsw.ef_construct": (self.hnsw.ef_construct, graph.ef_construct),
            "hnsw.full_scan_threshold": (self.hnsw.full_scan_threshold, graph.full_scan_threshold),
            "quantization": (self.quantization and self.quantization.method, _method_of(config.quantization_config)),
        }
        for name, (wanted, has) in pairs.items():
            if wanted is not None and wanted != has:
                yield name, wanted, has

    # ---- searching ----

    def search_params(self, *, exact: bool) -> models.SearchParams:
        """How the server is to compare a dense query with its vectors.

        Args:
            exact: With each of the original vectors; otherwise by the graph.
        """
        if exact:
            return models.SearchParams(exact=True)
        quantization = None
        if self.quantization and (self.quantization.rescore, self.quantization.oversampling) != (None, None):
            quantization = models.QuantizationSearchParams(
                rescore=self.quantization.rescore, oversampling=self.quantization.oversampling
            )
        return models.SearchParams(exact=False, hnsw_ef=self.hnsw.ef, quantization=quantization)


def _method_of(config: models.QuantizationConfig | None) -> str | None:
    for method in ("scalar", "binary", "product"):
        if getattr(config, method, None) is not None:
            return method
    return None


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
