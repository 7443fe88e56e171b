"""/map and /compare on a gateway in front of executors that are played."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gateway_fakes import FakeExecutor, result, serving

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb

TEXTS = {"a#0": "red fox", "a#1": "blue whale", "b#0": "green frog", "c#0": "..."}
PRINT = "the indexed encoder"


def encoder(name: str, letters: str, **about: Any) -> FakeExecutor:
    """Its vectors count letters; a text without any cannot be encoded."""

    def vectors(request: pb.DataRequestProto) -> DocumentBatch:
        batch = DocumentBatch.from_proto(request.data.docs)
        texts = [text or "" for text in batch.texts]
        if not all(any(letter in text for letter in letters) for text in texts):
            raise InvalidInput(f"{name} has nothing to encode")
        batch.embeddings = np.array([[text.count(letter) for letter in letters] for text in texts], np.float32)
        return batch

    async def encode(request: pb.DataRequestProto) -> None:
        vectors(request)

    async def search(request: pb.DataRequestProto) -> None:
        batch = vectors(request)
        batch.set_column("fingerprint", [PRINT] * len(batch))

    handlers = {"/encode": encode, "/status": result(name, dimensions=len(letters), model=f"{name}-model", **about)}
    return FakeExecutor(name, {**handlers, "/search": search} if about else handlers)


def indexer(*, total: int = 4, held: bool = True) -> FakeExecutor:
    """Finds all passages, in the order of their ids; holds vectors of the letters o and e."""

    def passages(ids: Any) -> DocumentBatch:
        batch = DocumentBatch.from_columns(
            ids=list(ids),
            parent_id=[name[0] for name in ids],
            texts=[TEXTS[name] for name in ids],
            location=[[0, len(TEXTS[name])] for name in ids],
            tags=[{"colour": TEXTS[name].split()[0]} for name in ids],
        )
        if held and ids:
            batch.embeddings = np.array([[TEXTS[name].count("o"), TEXTS[name].count("e")] for name in ids], np.float32)
        return batch

    async def search(request: pb.DataRequestProto) -> None:
        batch = DocumentBatch.from_proto(request.data.docs)
        found = passages(list(TEXTS))
        found.set_column("scores", [{"score": 1 - place / 10} for place in range(len(found))])
        batch.set_nested("matches", [found] * len(batch))

    def answer(request: pb.DataRequestProto, **columns: Any) -> DocumentBatch:
        batch = DocumentBatch.from_columns(total=[total], fingerprint=[PRINT], **columns)
        request.data.docs.Clear()
        return batch

    async def sample(request: pb.DataRequestProto) -> None:
        batch = answer(request)
        batch.set_nested("matches", [passages(["a#0", "a#1"])])
        batch.set_nested(
            "chunks", [passages([name for name in request.parameters["ids"] if name not in ("a#0", "a#1")])]
        )
        request.data.docs.docs.extend(batch)

    async def draw(request: pb.DataRequestProto) -> None:
        query = DocumentBatch.from_proto(request.data.docs)
        place = None if not query or query.embeddings is None else query.embeddings[0]
        batch = answer(request, shown=[2], variance=[[0.5, 0.25]], place=[place])
        if request.parameters["points"]:
            batch.set_nested("matches", [passages(["a#0", "a#1"])])
            batch.set_column("places", [np.array([[0.125, 0.5], [-1, 2]], np.float32)])
        request.data.docs.docs.extend(batch)

    return FakeExecutor("indexer", {"/search": search, "/sample": sample, "/map": draw})


def encoded(executor: FakeExecutor) -> list[str | None]:
    """The texts that an encoder was asked for at /encode."""
    requests = [each for each in executor.seen if each.header.exec_endpoint == "/encode"]
    return [text for each in requests for text in DocumentBatch.from_proto(each.data.docs).texts]


async def test_the_map_has_the_querys_place_by_the_vector_of_a_search() -> None:
    index, bert = indexer(), encoder("bert", "oe", fingerprint=PRINT)
    async with serving(bert, index) as flow:
        reply = (await flow.http.post("/map", json={"limit": 7, "query": "one", "ids": ["b#0"]})).json()
        assert (reply["total"], reply["shown"], reply["variance"]) == (4, 2, [0.5, 0.25])
        assert reply["points"][0] == {
            "id": "a#0", "document_id": "a", "text": "red fox", "location": [0, 7], "tags": {"colour": "red"},
            "x": 0.125, "y": 0.5,
        }  # fmt: skip
        assert reply["query"] == {"x": 1.0, "y": 1.0}
        asked = index.seen[-1]
        assert dict(asked.parameters) | {"ids": list(asked.parameters["ids"])} == {
            "limit": 7, "points": True, "ids": ["b#0"]
        }  # fmt: skip
        assert DocumentBatch.from_proto(asked.data.docs).column("fingerprint") == [PRINT]
        bare = (await flow.http.post("/map", json={"points": False})).json()
    assert (bare["query"], bare["points"], bare["placed"]) == (None, [], [])


async def test_without_an_index_the_answer_says_how_to_get_one() -> None:
    async with serving(encoder("bert", "oe", fingerprint=PRINT)) as flow:
        for path, body in (("/map", {}), ("/compare", {"query": "one"})):
            reply = await flow.http.post(path, json=body)
            assert reply.status_code == 404
            assert "flowdex_executors.QdrantIndexer" in reply.json()["detail"]
        assert (await flow.http.get("/compare")).json() == {
            "encoders": [{"name": "bert", "model": "bert-model", "dimensions": 2}], "modes": []
        }  # fmt: skip


async def test_encoders_rank_a_sample_and_the_best_hits() -> None:
    bert, glove = encoder("bert", "oe", fingerprint=PRINT), encoder("glove", "rg")
    async with serving(bert, indexer(), glove, needs={"indexer": ["bert"]}) as flow:
        choices = (await flow.http.get("/compare")).json()
        assert [each["name"] for each in choices["encoders"]] == ["bert", "glove"]
        assert choices["modes"] == ["dense", "sparse", "hybrid"]
        body = {"query": "grog of one", "encoders": ["bert", "glove-model"], "modes": ["sparse"], "limit": 2}
        first = (await flow.http.post("/compare", json=body)).json()
        asked = len(glove.seen)
        again = (await flow.http.post("/compare", json=body)).json()
    assert (first["total"], first["compared"], first["notes"]) == (4, 4, [])
    by_bert, by_glove, _ = first["columns"]
    assert [each["name"] for each in first["columns"]] == ["bert", "glove", "sparse"]
    # The query has (o, e) = (3, 1) and (r, g) = (1, 2), a#0 (1, 1) and (1, 0), b#0 (1, 2) and (2, 2).
    assert [hit["id"] for hit in by_bert["hits"]] == ["a#0", "b#0"]
    assert [hit["id"] for hit in by_glove["hits"]] == ["b#0", "a#0"]
    assert [hit["score"] for hit in by_bert["hits"]] == pytest.approx([4 / 20**0.5, 5 / 50**0.5])
    assert [hit["score"] for hit in by_glove["hits"]] == pytest.approx([6 / 40**0.5, 1 / 5**0.5])
    assert [hit["ranks"] for hit in by_glove["hits"]] == [[2, 1, 3], [1, 2, 1]]
    assert [each["ranked"] for each in first["columns"]] == [4, 4, 4]
    assert encoded(bert) == ["grog of one"], "the index holds the vectors of passages"
    assert [each["encoded"] for each in first["columns"]] == [1, 5, 0]
    assert [each["encoded"] for each in again["columns"]] == [0, 0, 0], "what is not held is encoded once"
    assert len(glove.seen) == asked and again["columns"][1]["hits"] == by_glove["hits"]
    # bert: a#0 b#0 a#1 c#0; glove: b#0 a#0 a#1 c#0. Squares 1 + 1, so 1 - 6 * 2 / (4 * 15).
    assert first["agreement"][0] == {
        "columns": [0, 1], "shared": 2, "overlap": 1.0, "correlation": pytest.approx(0.8), "common": 4
    }  # fmt: skip
    assert [each["columns"] for each in first["agreement"]] == [[0, 1], [0, 2], [1, 2]]


async def test_a_flow_of_one_encoder_compares_its_modes() -> None:
    async with serving(encoder("bert", "oe", fingerprint=PRINT), indexer()) as flow:
        reply = (await flow.http.post("/compare", json={"query": "one"})).json()
        assert [(each["name"], each["kind"]) for each in reply["columns"]] == [("dense", "mode"), ("sparse", "mode")]
        assert reply["agreement"] == [{"columns": [0, 1], "shared": 4, "overlap": 1.0, "correlation": 1.0, "common": 4}]
        alone = await flow.http.post("/compare", json={"query": "one", "encoders": ["bert"]})
    assert alone.status_code == 422
    assert "flows/compare.yml" in alone.json()["detail"]


async def test_texts_of_the_request_take_no_index() -> None:
    bert, glove = encoder("bert", "oe", fingerprint=PRINT), encoder("glove", "rf")
    async with serving(bert, glove, needs={}) as flow:
        body = {"query": "for one", "texts": ["see off", "roof", "???", "fern"]}
        reply = (await flow.http.post("/compare", json=body)).json()
        assert (reply["total"], reply["compared"]) == (4, 4)
        by_glove = reply["columns"][1]["hits"]
        assert by_glove[-1]["text"] == "???" and by_glove[-1]["score"] == 0, "without a vector it comes last"
        assert by_glove[0]["document_id"] is None
        refused = await flow.http.post("/compare", json={**body, "query": "???"})
        assert refused.status_code == 422
        both = await flow.http.post("/compare", json={**body, "modes": ["dense"]})
        assert both.status_code == 422
        unknown = await flow.http.post("/compare", json={**body, "encoders": ["bert", "elmo"]})
    assert unknown.status_code == 404 and "'glove'" in unknown.json()["detail"]


async def test_a_sample_says_that_it_is_one() -> None:
    bert, glove = encoder("bert", "oe", fingerprint=PRINT), encoder("glove", "rf")
    async with serving(bert, indexer(total=5000), glove, needs={"indexer": ["bert"]}) as flow:
        reply = (await flow.http.post("/compare", json={"query": "for one"})).json()
    assert reply["total"] == 5000
    assert "4 of 5000" in reply["notes"][0]
