"""A bertsearch index kept in flowdex: documents with a title, a text and a dense vector, ranked by cosine.

    mapping (index.json) --create--> the fields of the index, in .flowdex/bertsearch/NAME.json
    documents.jsonl      --add-----> flowdex, each with its own vector and the tag `index: NAME`
    query vector         --search--> all documents of the index, best first, score = cosine + 1.0

One flow holds any number of indexes. Vectors come from a BertClient: flowdex's own, over gRPC, or the stock one of
bert-serving-client, unmodified, over the flow's `protocol: bert`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from flowdex import Client

FOLDER = Path(".flowdex/bertsearch-indexes")
BATCH = 256  # texts in a call of BertClient.encode
PAGE = 1000  # most documents in one answer of the flow
TAG = "index"


@dataclass(frozen=True)
class Addresses:
    """Where the flow is.

    Attributes:
        grpc: Address for documents, and for flowdex's BertClient.
        http: Address for searches.
        bert_port: Of `protocol: bert`, for the stock BertClient; replies come from the next one.
    """

    grpc: str = "grpc://127.0.0.1:51000"
    http: str = "http://127.0.0.1:8080"
    bert_port: int = 5555

    def bert_client(self, *, stock: bool = False, concurrent: bool = False) -> Any:
        """A BertClient; `concurrent` for one that threads may share."""
        if stock:
            from bert_serving import client as package

            options: dict[str, Any] = {"port": self.bert_port, "port_out": self.bert_port + 1, "timeout": 60_000}
        else:
            from flowdex import compat as package

            where = urlsplit(self.grpc)
            options = {"ip": where.hostname, "port": where.port}
        return package.ConcurrentBertClient(**options) if concurrent else package.BertClient(**options)


class Index:
    """One index of the flow.

    Args:
        name: Its name.
        addresses: Where the flow is.
        folder: Where the mappings of indexes are kept.
    """

    def __init__(self, name: str, addresses: Addresses | None = None, folder: Path = FOLDER) -> None:
        self.name = name
        self.addresses = addresses or Addresses()
        self._file = folder / f"{name}.json"

    def create(self, mapping: Mapping[str, Any]) -> None:
        """Make the index from an Elasticsearch mapping, empty: documents of an index of this name are removed."""
        vectors = _vector_fields(mapping)
        if len(vectors) != 1:
            raise SystemExit(f"the mapping must have one field of type dense_vector, not {len(vectors)}")
        with Client(self.addresses.grpc) as client:
            client.delete(filter={TAG: self.name})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(mapping, indent=2), encoding="utf-8")

    @property
    def vector_field(self) -> tuple[str, int]:
        """Name and size of the field that holds the vector."""
        if not self._file.exists():
            raise SystemExit(f"there is no index {self.name!r}: create it with create_index.py")
        ((name, size),) = _vector_fields(json.loads(self._file.read_text(encoding="utf-8"))).items()
        return name, size

    def add(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """Store documents, each with `title`, `text` and its vector.

        Returns:
            How many.
        """
        field, size = self.vector_field

        def items() -> Iterator[dict[str, Any]]:
            for number, document in enumerate(documents):
                vector = document.get(field)
                if not isinstance(vector, list) or len(vector) != size:
                    raise SystemExit(
                        f"document {number}: {field} must be a list of {size} numbers, as the mapping says"
                    )
                yield {
                    "id": f"{self.name}-{number}",
                    "text": document["text"],
                    "tags": {"title": document["title"], TAG: self.name},
                    "embedding": vector,
                }

        with Client(self.addresses.grpc) as client:
            return client.index(items()).documents

    def search(self, vector: Sequence[float], size: int | None = None) -> list[dict[str, Any]]:
        """Rank the documents by their cosine to a vector.

        Args:
            vector: Of the query.
            size: Most documents; all of them by default.

        Returns:
            `{"_index", "_id", "_score", "_source": {"title", "text"}}` each, best first.
        """
        hits: list[dict[str, Any]] = []
        while size is None or len(hits) < size:
            wanted = PAGE if size is None else min(PAGE, size - len(hits))
            body = {
                "execEndpoint": "/search",
                "data": [{"embedding": list(map(float, vector))}],
                "parameters": {
                    "mode": "dense",
                    "filter": {TAG: self.name},
                    "limit": wanted,
                    "offset": len(hits),
                    "highlight": False,
                },
            }
            reply = httpx.post(f"{self.addresses.http}/post", json=body, timeout=60)
            reply.raise_for_status()
            matches = reply.json()["data"][0].get("matches") or []
            hits += [
                {
                    "_index": self.name,
                    "_id": match["id"],
                    "_score": match["scores"]["score"] + 1.0,
                    "_source": {"title": match["tags"]["title"], "text": match["text"]},
                }
                for match in matches
            ]
            if len(matches) < wanted:
                break
        return hits


def _vector_fields(mapping: Mapping[str, Any]) -> dict[str, int]:
    properties = mapping.get("mappings", {}).get("properties", {})
    return {name: field["dims"] for name, field in properties.items() if field.get("type") == "dense_vector"}


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """Slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
