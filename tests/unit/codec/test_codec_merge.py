"""Branches of a flow join into one list of documents, as docarray's `reduce_all` does where that is sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from docarray import DocList
from docarray.documents.legacy import LegacyDocument
from docarray.proto import DocListProto
from docarray.utils.reduce import reduce_all
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.merge import merge_documents
from flowdex.proto import flowdex_pb2 as pb

Same = Callable[[Any, Any], bool]


def batch(*documents: dict[str, Any]) -> DocumentBatch:
    """Documents from dictionaries; a list of dictionaries is a field of nested documents."""
    made = []
    for fields in documents:
        document = DocumentBatch([pb.DocProto()])
        for name, value in fields.items():
            if name in ("chunks", "matches"):
                document.set_nested(name, [batch(*value)])
            else:
                document.set_column(name, [value])
        made.append(document)
    return DocumentBatch.concatenate(made)


def read(documents: DocumentBatch) -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = [{} for _ in documents]
    for index, doc in enumerate(documents):
        for name, node in doc.data.items():
            kind = node.WhichOneof("content")
            if kind == "doc_array":
                trees[index][name] = read(DocumentBatch(node.doc_array.docs))
            elif kind is not None:
                trees[index][name] = documents.select([index]).column(name)[0]
    return trees


def merged(*branches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return read(merge_documents([batch(*branch) for branch in branches]))


# ---- the rules ----


def test_branches_that_add_different_fields() -> None:
    assert merged(
        [{"id": "1", "text": "a", "scores": {"x": 1.0}}, {"id": "2", "text": "b"}],
        [{"id": "2", "text": "b", "label": "B"}, {"id": "1", "text": "a", "scores": {"y": 2.0}}],
    ) == [
        {"id": "1", "text": "a", "scores": {"x": 1.0, "y": 2.0}},
        {"id": "2", "text": "b", "label": "B"},
    ]


def test_the_left_most_value_wins() -> None:
    assert merged(
        [{"id": "1", "text": "left", "tags": {"k": "left", "d": {"a": 1}}}],
        [{"id": "1", "text": "middle", "tags": {"k": "middle", "d": {"a": 2, "b": 3}}, "url": "middle"}],
        [{"id": "1", "text": "right", "url": "right", "blob": b"right"}],
    ) == [
        {
            "id": "1",
            "text": "left",
            "tags": {"k": "left", "d": {"a": 1, "b": 3}},
            "url": "middle",
            "blob": b"right",
        }
    ]


def test_what_the_left_leaves_empty_is_taken_from_the_right() -> None:
    assert merged([{"id": "1", "text": None, "tags": {"k": None}}], [{"id": "1", "text": "x", "tags": {"k": 1}}]) == [
        {"id": "1", "text": "x", "tags": {"k": 1}}
    ]
    assert merged([{"id": "1", "text": "x"}], [{"id": "1", "text": None, "url": None}]) == [{"id": "1", "text": "x"}]


def test_an_empty_text_is_a_text() -> None:
    assert merged([{"id": "1", "text": ""}], [{"id": "1", "text": "x"}]) == [{"id": "1", "text": ""}]


def test_documents_of_one_branch_only_follow_in_order() -> None:
    assert [doc["id"] for doc in merged([{"id": "1"}], [{"id": "2"}, {"id": "1"}], [{"id": "3"}, {"id": "2"}])] == [
        "1",
        "2",
        "3",
    ]


def test_nested_documents_join_by_id_three_deep() -> None:
    def tree(text: str, extra: str) -> list[dict[str, Any]]:
        leaves = [{"id": "l", "text": text, extra: extra}, {"id": f"leaf-{extra}"}]
        return [{"id": "d", "chunks": [{"id": "c", "chunks": leaves, "matches": [{"id": extra}]}]}]

    assert merged(tree("left", "x"), tree("right", "y")) == [
        {
            "id": "d",
            "chunks": [
                {
                    "id": "c",
                    "chunks": [{"id": "l", "text": "left", "x": "x", "y": "y"}, {"id": "leaf-x"}, {"id": "leaf-y"}],
                    "matches": [{"id": "x"}, {"id": "y"}],
                }
            ],
        }
    ]


def test_lists_are_values_and_not_joined() -> None:
    """docarray appends them, and a passage found twice would end at [0, 5, 0, 5]."""
    branch = [{"id": "1", "location": [0, 5]}]
    assert merged(branch, branch) == branch


def test_documents_without_ids_join_in_order() -> None:
    assert merged([{"text": "a"}, {"text": "b"}], [{"url": "1"}, {"url": "2"}, {"url": "3"}]) == [
        {"text": "a", "url": "1"},
        {"text": "b", "url": "2"},
        {"url": "3"},
    ]


def test_an_id_that_occurs_twice_stays_twice() -> None:
    branch = [{"id": "1", "text": "a"}, {"id": "1", "text": "b"}]
    assert merged(branch, branch) == branch


def test_one_branch_and_empty_ones() -> None:
    assert merged([{"id": "1"}]) == [{"id": "1"}]
    assert merged([], [{"id": "1"}], []) == [{"id": "1"}]
    assert merged([], []) == []


def test_a_kind_that_differs_stays_the_lefts() -> None:
    assert merged([{"id": "1", "tags": {"a": 1}}], [{"id": "1", "tags": "text"}]) == [{"id": "1", "tags": {"a": 1}}]


def test_ids_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidInput, match="field 'id' must be a string"):
        merged([{"id": "1"}], [{"id": 1}])


def test_embeddings_stay_one_array() -> None:
    left = DocumentBatch.from_columns(ids=["1", "2"], texts=["a", "b"])
    right = DocumentBatch.from_columns(ids=["2", "1"], embeddings=np.array([[2, 2], [1, 1]], "f4"))
    assert merge_documents([left, right]).embeddings.tolist() == [[1, 1], [2, 2]]  # type: ignore[union-attr]


# ---- congruence with docarray ----

IDS = st.sampled_from("abc")
# What only one branch may set, and what both may: joined by key, with keys of one's own.
LEFT = {"text": st.text("xyz", max_size=2), "blob": st.binary(max_size=2)}
RIGHT = {"url": st.text("xyz", max_size=2)}
NESTED = ("chunks", "matches")


def branches(side: str, depth: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    own = LEFT if side == "l" else RIGHT
    keys = st.sampled_from([f"{side}1", f"{side}2"])
    optional: dict[str, st.SearchStrategy[Any]] = {**own, "tags": st.dictionaries(keys, st.integers(0, 9), max_size=2)}
    if depth:
        children = branches(side, depth - 1)
        optional |= dict.fromkeys(NESTED, children)
    return st.lists(
        st.fixed_dictionaries({"id": IDS}, optional=optional), max_size=3, unique_by=lambda fields: fields["id"]
    )


def legacy(documents: list[dict[str, Any]]) -> DocList[LegacyDocument]:
    return DocList[LegacyDocument](
        LegacyDocument(**{name: legacy(value) if name in NESTED else value for name, value in fields.items()})
        for fields in documents
    )


def by_id(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """docarray's order of nested documents follows no rule, by its own words; empty and absent are one to it."""
    return {
        fields["id"]: {
            name: by_id(value) if name in NESTED else value
            for name, value in fields.items()
            if name != "id" and value not in ({}, [])
        }
        for fields in documents
    }


def of_docarray(docs: DocList[LegacyDocument]) -> list[dict[str, Any]]:
    return read(DocumentBatch.from_bytes(docs.to_protobuf().SerializeToString()))


def of_flowdex(*parts: DocList[LegacyDocument]) -> list[dict[str, Any]]:
    batches = [DocumentBatch.from_bytes(part.to_protobuf().SerializeToString()) for part in parts]
    result = merge_documents(batches).to_bytes()
    return of_docarray(DocList[LegacyDocument].from_protobuf(DocListProto.FromString(result)))


@settings(deadline=None, max_examples=80)
@given(branches("l", 2), branches("r", 2))
def test_branches_that_agree_join_as_docarray_joins_them(
    same: Same, left: list[dict[str, Any]], right: list[dict[str, Any]]
) -> None:
    ours = of_flowdex(legacy(left), legacy(right))
    theirs = of_docarray(reduce_all([legacy(left), legacy(right)]))
    assert same(by_id(ours), by_id(theirs))
    assert [fields["id"] for fields in ours] == [fields["id"] for fields in theirs]


@settings(deadline=None, max_examples=80)
@given(branches("l", 2), branches("l", 2))
def test_where_branches_differ_docarray_decides_the_other_way(
    same: Same, left: list[dict[str, Any]], right: list[dict[str, Any]]
) -> None:
    """Its words say "priority to the left-most", its code lets the right-most win: the same rule from the other end."""
    ours = of_flowdex(legacy(left), legacy(right))
    theirs = of_docarray(reduce_all([legacy(right), legacy(left)]))
    assert same(by_id(ours), by_id(theirs))
