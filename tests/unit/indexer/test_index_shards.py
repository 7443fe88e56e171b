"""Routing, manifests, and when a shard is packed: what is fixed on disk must stay as it is."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from flowdex.errors import ConfigurationError, Conflict, Unavailable
from flowdex_executors.indexer.columns import Point, SparseRow, as_columns, point_structs
from flowdex_executors.indexer.edge import AsyncEdgeClient, _routed
from flowdex_executors.indexer.files import copy_tree, data_ranges
from flowdex_executors.indexer.frames import encode
from flowdex_executors.indexer.layout import IndexFolder, Manifest, check_shards
from flowdex_executors.indexer.packing import is_due
from flowdex_executors.indexer.shard import Shard
from flowdex_executors.indexer.shards import shard_of


def point(document_id: str, number: int) -> Point:
    sparse = SparseRow(np.array([number, 7], np.uint32), np.array([0.5, 1.0], np.float32))
    vector = {"dense": np.full(4, number, np.float32), "bm25": sparse}
    return Point(f"00000000-0000-0000-0000-{number:012d}", vector, {"document_id": document_id})


def test_documents_stay_in_their_shards_for_ever() -> None:
    assert [shard_of(name, 5) for name in ("a", "docs/old.md", "搜索", "")] == [2, 1, 2, 0]
    spread = Counter(shard_of(f"document {number}", 4) for number in range(4000))
    assert all(900 < count < 1100 for count in spread.values())


def test_a_flush_is_due_while_updates_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates without a pause leave no time to wait for one in."""
    clock = iter(range(100))
    monkeypatch.setattr("flowdex_executors.indexer.shard.time.monotonic", lambda: next(clock) * 0.3)
    Shard.create(tmp_path / "s", {"dense": {"size": 4, "distance": "Cosine"}}, {"bm25": {"idf": True}})
    shard = Shard(tmp_path / "s", fsync=False)
    due = []
    for number in range(8):
        operations, arrays = _routed([_upsert_of(point("d", number))], 1)[0]
        shard.update(encode({"operations": operations}, arrays), operations, arrays)
        due.append(shard.must_flush)
        if due[-1]:
            shard.flush()
    shard.close()
    assert any(due)
    assert not all(due)


def _upsert_of(one: Point) -> models.UpsertOperation:
    return models.UpsertOperation.model_construct(upsert=models.PointsList.model_construct(points=[one]))


def test_operations_go_where_their_documents_are() -> None:
    names = [f"d{number}" for number in range(20)]
    upsert = models.PointsList.model_construct(points=[point(name, number) for number, name in enumerate(names)])
    named = models.FieldCondition(key="document_id", match=models.MatchAny(any=names))
    older = models.FieldCondition(key="generation", range=models.Range(lt=3))
    replace: list[Any] = [
        models.UpsertOperation.model_construct(upsert=upsert),
        models.DeleteOperation(delete=models.FilterSelector(filter=models.Filter(must=[named, older]))),
    ]
    parts = _routed(replace, 3)
    assert sorted(parts) == [0, 1, 2]
    for number, ((write, remove), arrays) in parts.items():
        here = [name for name in names if shard_of(name, 3) == number]
        assert [payload["document_id"] for payload in write["payloads"]] == here
        assert arrays[write["dense"]["dense"]].shape == (len(here), 4)
        match, rest = remove["delete"]["must"]
        assert match == {"key": "document_id", "match": {"any": here}}
        assert rest["range"] == {"lt": 3.0}
    everywhere: list[Any] = [
        models.DeleteOperation(delete=models.FilterSelector(filter=models.Filter(must=[older]))),
        models.DeleteOperation(delete=models.PointIdsList(points=["00000000-0000-0000-0000-000000000001"])),
    ]
    assert {number: len(operations) for number, (operations, _) in _routed(everywhere, 3).items()} == {0: 2, 1: 2, 2: 2}


def test_columns_and_structs_hold_the_same() -> None:
    points = [point("a", 1), point("b", 2)]
    ours, theirs = as_columns(points), as_columns(point_structs(points))
    np.testing.assert_array_equal(ours.dense["dense"], theirs.dense["dense"])
    for mine, other in zip(ours.sparse["bm25"], theirs.sparse["bm25"], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert (ours.ids, ours.payloads) == (theirs.ids, theirs.payloads)


async def test_pages_of_several_shards_are_those_of_one(tmp_path: Path) -> None:
    numbers = random.Random(1).sample(range(1000), 50)
    points = [point(f"d{number}", number) for number in numbers]
    for each in points:
        each.payload["generation"] = numbers[-1] if each is points[0] else int(each.id[-12:]) * 2
    pages: dict[int, list[Any]] = {}
    for shards in (1, 3):
        client = AsyncEdgeClient(tmp_path / str(shards), shards=shards)
        try:
            await client.create_collection(
                "c",
                {"dense": models.VectorParams(size=4, distance=models.Distance.EUCLID)},
                {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            )
            await client.create_payload_index("c", "generation", models.PayloadSchemaType.INTEGER)
            upsert = models.PointsList.model_construct(points=points)
            await client.batch_update_points("c", [models.UpsertOperation.model_construct(upsert=upsert)])
            found, offset = pages.setdefault(shards, []), None
            while True:
                records, offset = await client.scroll("c", limit=7, offset=offset)
                found.append([record.id for record in records])
                if offset is None:
                    break
            order = models.OrderBy(key="generation", direction=models.Direction.DESC, start_from=900)
            records, _ = await client.scroll("c", limit=9, order_by=order)
            found.append([(record.payload or {})["generation"] for record in records])
            query = models.QueryRequest(query=[3.0] * 4, using="dense", limit=8)
            (answer,) = await client.query_batch_points("c", [query])
            found.append([round(hit.score, 3) for hit in answer.points])
            found.append((await client.count("c")).count)
            assert len(await client.retrieve("c", [each.id for each in points])) == 50
        finally:
            await client.close()
    assert pages[1] == pages[3]
    assert sum(map(len, pages[1][:-3])) == 50


# ---- the folder ----


def manifest(**changes: Any) -> Manifest:
    return Manifest(**{"shards": 2, "data": "data-1", "dense": {}, "sparse": {}, **changes})


def test_a_collection_is_there_when_its_manifest_is(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path)
    (tmp_path / "c" / "data-1").mkdir(parents=True)
    (tmp_path / "c" / "data-2").mkdir()
    assert folder.get("c") is None
    assert folder.put("c", manifest()) is None
    assert folder.put("c", manifest(data="data-2")) == manifest()
    folder.close()
    folder = IndexFolder(tmp_path)  # removes what an interrupted step left behind
    assert [path.name for path in (tmp_path / "c").glob("data-*")] == ["data-2"]
    assert folder.get("c") == manifest(data="data-2")
    with pytest.raises(ConfigurationError, match=r"'c' has 2 shards, but uses_with.shards of the indexer is 3"):
        check_shards("c", manifest(), 3)
    assert folder.remove("c") and not folder.remove("c")
    folder.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1}', "is damaged"),
        (
            json.dumps({**manifest().to_json(), "format": 2}),
            "is of format 2, .* reads formats up to 1",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "collection.json").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        IndexFolder(tmp_path)
    (tmp_path / "c" / "collection.json").unlink()
    IndexFolder(tmp_path).close()  # the lock was not kept


def test_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowdex_executors.indexer.layout._LOCK_SECONDS", 0.1)
    folder = IndexFolder(tmp_path)
    heir = os.dup(folder.lock)  # as a child process has it
    folder.close()
    with pytest.raises(Conflict, match=f"in use by process {os.getpid()}"):
        IndexFolder(tmp_path)
    os.close(heir)
    IndexFolder(tmp_path).close()
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be used"):
        IndexFolder(tmp_path / "file" / "index")


# ---- packing ----


@pytest.mark.parametrize(
    ("points", "indexed", "deleted", "graph", "due"),
    [
        (10_000, 10_000, 0, False, False),
        (10_000, 10_000, 2000, False, False),
        (10_000, 10_000, 2500, False, True),
        (100, 100, 900, False, False),
        (200_000, 200_000, 0, True, True),
        (200_000, 399_000, 0, True, False),
        (200_000, 360_000, 0, True, True),
    ],
)
def test_when_a_shard_is_packed(points: int, indexed: int, deleted: int, graph: bool, due: bool) -> None:
    assert is_due({"points": points, "indexed": indexed, "deleted": deleted}, graph=graph) is due


def test_holes_stay_holes(tmp_path: Path) -> None:
    source = tmp_path / "source" / "deep"
    source.mkdir(parents=True)
    with (source / "file").open("wb") as file:
        file.write(b"begin")
        file.seek(2**22)
        file.write(b"end")
        file.truncate(2**23)
    (source / "empty").touch()
    copy_tree(tmp_path / "source", tmp_path / "copy")
    copy = tmp_path / "copy" / "deep" / "file"
    assert copy.read_bytes() == (source / "file").read_bytes()
    assert (tmp_path / "copy" / "deep" / "empty").read_bytes() == b""
    with copy.open("rb") as file:
        covered = sum(end - start for start, end in data_ranges(file.fileno(), 2**23))
    assert covered < 2**20
