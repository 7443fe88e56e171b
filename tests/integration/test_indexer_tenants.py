"""Two tenants in one index see what each would see in an index of its own, whatever the other does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, PermissionDenied
from flowdex_executors import DocumentColumns, QdrantIndexer

DIMENSIONS = 4
IDS = ("a", "b", "a#0", "t\x1fa", "ü", "zeta")
TENANTS = ("acme", "globex")


class Indexes:
    """One index for both tenants, and one for each of them alone."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.shared = QdrantIndexer(uri=f"edge://{folder / 'shared'}")
        self.alone = {name: QdrantIndexer(uri=f"edge://{folder / name}") for name in TENANTS}
        for each in (self.shared, *self.alone.values()):
            self.run(each.warm_up())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def ask(self, indexer: QdrantIndexer, operation: tuple[Any, ...], tenant: str | None) -> Any:
        """What an operation is answered with, without what differs from index to index by nature."""
        name, ids, parameters = operation
        given = dict(parameters) if tenant is None else {**parameters, "__tenant__": tenant}
        try:
            answer = self.run(getattr(indexer, name)(docs=DocumentColumns(batch_of(name, ids)), parameters=given))
        except FlowdexError as error:
            return type(error).__name__, error.message
        return plain(answer) if isinstance(answer, DocumentColumns) else answer

    def close(self) -> None:
        for each in (self.shared, *self.alone.values()):
            each.close()
        self.loop.close()


def vector(text: str) -> Any:
    return np.random.default_rng(sum(text.encode())).standard_normal(DIMENSIONS).astype(np.float32)


def batch_of(name: str, ids: list[str]) -> DocumentBatch:
    """The documents of a request."""
    if name in ("get", "delete"):
        return DocumentBatch.from_columns(ids=ids)
    if name in ("search", "map"):
        queries = [f"query {each}" for each in ids[:1] or ["b"]]
        return DocumentBatch.from_columns(
            ids=["q"], texts=queries, embeddings=np.stack([vector(each) for each in queries])
        )
    if name != "index":
        return DocumentBatch()
    batch = DocumentBatch.from_columns(
        ids=[each.partition("|")[0] for each in ids],
        texts=[f"text {each}" for each in ids],
        tags=[{"word": each.partition("|")[2] or "x", "n": len(each)} for each in ids],
    )
    batch.embeddings = np.stack([vector(each) for each in ids])
    return batch


def plain(answer: DocumentColumns) -> Any:
    """A reply as comparable values; in the order of ids where the order is by a hash of what is stored."""

    def rows(batch: DocumentBatch) -> list[Any]:
        columns = {
            name: batch.column(name)
            for name in sorted(set(batch.fields()) - {"cursor", "embedding", "matches", "chunks"})
        }
        found = []
        for row in range(len(batch)):
            values = {name: column[row] for name, column in columns.items()}
            for name in ("matches", "chunks"):
                nested = rows(batch.nested(name)[row])
                values[name] = nested if name == "matches" else sorted(nested, key=str)
            values.pop("places", None)
            values.pop("variance", None)
            values.pop("place", None)
            found.append(
                {
                    key: np.round(value, 5).tolist() if isinstance(value, np.ndarray) else value
                    for key, value in values.items()
                }
            )
        return found

    return rows(answer.batch)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexes]:
    indexes = Indexes(tmp_path_factory.mktemp("tenants"))
    yield indexes
    indexes.close()


ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
versions = st.lists(st.builds("{}|{}".format, st.sampled_from(IDS), st.sampled_from("xyz")), min_size=1, max_size=1)
filters = st.one_of(
    st.none(),
    st.builds(lambda each: {"id": each}, st.sampled_from(IDS)),
    st.builds(lambda each: {"id": {"$in": each}}, ids),
    st.builds(lambda each: {"$not": {"id": each}}, st.sampled_from(IDS)),
    st.builds(lambda each: {"$or": [{"word": each}, {"id": {"$ne": "b"}}]}, st.sampled_from("xyz")),
    st.just({"$or": [{"word": {"$exists": True}}, {"\x1ftenant": "globex"}, {"tenant": "globex"}]}),
)
filtered = st.builds(lambda each: {} if each is None else {"filter": each}, filters)
operations = st.one_of(
    st.tuples(st.just("index"), versions, st.just({})),
    st.tuples(st.just("index"), versions, st.just({})),
    st.tuples(st.just("get"), ids, st.sampled_from([{}, {"passages": True}])),
    st.tuples(st.just("delete"), ids, filtered),
    st.tuples(st.just("delete"), st.just([]), filtered),
    st.tuples(st.just("count"), st.just([]), filtered),
    st.tuples(st.just("scroll"), st.just([]), filtered),
    st.tuples(
        st.just("search"), ids, filtered.map(lambda each: {**each, "mode": "dense", "limit": 10, "explain": True})
    ),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(TENANTS), operations), min_size=3, max_size=14))
def test_any_interleaving_equals_separate_indexes(indexes: Indexes, steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    for indexer in (indexes.shared, *indexes.alone.values()):
        indexes.ask(indexer, ("delete", [], {"filter": {"n": {"$gte": 0}}}), None)
    for tenant, operation in steps:
        shared = indexes.ask(indexes.shared, operation, tenant)
        assert shared == indexes.ask(indexes.alone[tenant], operation, None), (tenant, operation)
    total = indexes.ask(indexes.shared, ("count", [], {}), None)["documents"]
    assert total == sum(indexes.ask(each, ("count", [], {}), None)["documents"] for each in indexes.alone.values())


@pytest.fixture
def filled(indexes: Indexes) -> Indexes:
    indexes.ask(indexes.shared, ("delete", [], {"filter": {"n": {"$gte": 0}}}), None)
    indexes.ask(indexes.shared, ("index", ["a|secret-of-acme", "b|x"], {}), "acme")
    indexes.ask(indexes.shared, ("index", ["a|secret-of-globex", "c|y"], {}), "globex")
    indexes.ask(indexes.shared, ("index", ["operators|z"], {}), None)
    return indexes


READS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("get", ["a", "b", "c", "operators", "globex\x1fa", "globex\x1fc"], {"passages": True, "embeddings": True}),
    ("scroll", [], {"passages": True}),
    ("search", ["q"], {"mode": "dense", "limit": 10, "explain": True}),
    ("search", ["q"], {"mode": "sparse", "limit": 10}),
    ("search", ["q"], {"mode": "hybrid", "limit": 10, "diversity": 0.5}),
    ("sample", [], {"limit": 100, "ids": ["c#0", "globex\x1fc#0", "operators#0", "a#0"]}),
    ("map", ["q"], {"limit": 100, "ids": ["c#0", "globex\x1fc#0", "operators#0"]}),
]


@pytest.mark.parametrize("read", READS, ids=[each[0] + str(each[2].get("mode", "")) for each in READS])
def test_no_read_shows_anything_of_others(filled: Indexes, read: tuple[str, list[str], dict[str, Any]]) -> None:
    shown = str(filled.ask(filled.shared, read, "acme"))
    assert "text a|secret-of-acme" in shown or read[2].get("mode") == "sparse"
    for other in ("globex", "'id': 'c", "operators", "\\x1f", "text c"):
        assert other not in shown, (other, shown)


def test_counts_and_deletions_are_of_the_tenant_alone(filled: Indexes) -> None:
    assert filled.ask(filled.shared, ("count", [], {}), "acme") == {"documents": 2, "passages": 2}
    assert filled.ask(filled.shared, ("delete", ["c", "operators", "globex\x1fa"], {}), "acme") == {"deleted": 0}
    assert filled.ask(filled.shared, ("delete", [], {"filter": {"n": {"$gte": 0}}}), "acme") == {"deleted": 2}
    assert filled.ask(filled.shared, ("count", [], {}), "globex") == {"documents": 2, "passages": 2}
    assert filled.ask(filled.shared, ("count", [], {}), None)["documents"] == 3


def test_the_operator_sees_ids_as_they_are_stored(filled: Indexes) -> None:
    found = {row["id"] for row in filled.ask(filled.shared, ("scroll", [], {}), None)}
    assert found == {"acme\x1fa", "acme\x1fb", "globex\x1fa", "globex\x1fc", "operators"}


def test_messages_name_the_ids_that_the_tenant_sent(indexes: Indexes) -> None:
    empty = DocumentBatch.from_columns(ids=["mine"])
    answer = indexes.run(indexes.shared.index(docs=DocumentColumns(empty), parameters={"__tenant__": "acme"}))
    (error,) = answer.batch.column("error")
    assert "'mine'" in error["message"] and "acme" not in error["message"]
    with pytest.raises(PermissionDenied, match="reindexing"):
        parameters = {"__tenant__": "acme", "reindex": {"versions": {}, "store": True}}
        indexes.run(indexes.shared.index(docs=DocumentColumns(empty), parameters=parameters))
