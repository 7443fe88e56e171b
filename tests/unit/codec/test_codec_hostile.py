"""Whatever bytes arrive: they are read, or refused with `InvalidInput`. Nothing else, and nothing large."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.merge import merge_documents
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited

thorough = settings(deadline=None, max_examples=300)


def valid_batch() -> DocumentBatch:
    batch = DocumentBatch.from_columns(
        ids=["a", "b"],
        texts=["text", "ünï"],
        embeddings=np.ones((2, 2), "f4"),
        tags=[{"a": [1, None, {"b": 2.5}]}, {"t": (1, "x"), "s": {1, 2}, "f": True, "z": b"raw"}],
    )
    batch.set_nested("chunks", [DocumentBatch.from_columns(ids=["c"], texts=["d"]), DocumentBatch()])
    return batch


DOCUMENTS = valid_batch().to_bytes()
REQUEST = wire.build_request("/index", valid_batch(), parameters={"limit": 3, "filter": {"a": ["b", None]}})


def attempt(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except InvalidInput as error:
        assert error.message
        return None


def read_everything(batch: DocumentBatch, depth: int = 0) -> None:
    """Touch every accessor; each may refuse, none may do anything else."""
    for read in (
        lambda: batch.ids,
        lambda: batch.texts,
        lambda: batch.tags,
        lambda: batch.embeddings,
        lambda: batch.flatten("chunks"),
        lambda: repr(batch),
        lambda: merge_documents([batch, DocumentBatch.from_bytes(batch.to_bytes())]),
    ):
        attempt(read)
    for name in batch.fields():
        attempt(lambda name=name: batch.column(name))  # type: ignore[misc]
        attempt(lambda name=name: batch.vectors(name))  # type: ignore[misc]
        for nested in attempt(lambda name=name: batch.nested(name)) or ():  # type: ignore[misc]
            if depth < 3:
                read_everything(nested, depth + 1)
    assert len(DocumentBatch.from_bytes(batch.to_bytes())) == len(batch)


def read_documents(data: bytes) -> None:
    batch = attempt(lambda: DocumentBatch.from_bytes(data))
    if batch is not None:
        read_everything(batch)


def read_message(data: bytes) -> None:
    head = attempt(lambda: wire.read_head(data))
    if head is not None:
        wire.dict_from_struct(head.parameters)
        wire.error_of(head.header)
    request = attempt(lambda: wire.read_request(data))
    if request is not None:
        batch = attempt(lambda: wire.documents_of(request))
        if batch is not None:
            read_everything(batch)


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """`original` after a few accidents: bytes changed, cut out, inserted, or copied from elsewhere in it."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        to = draw(st.integers(at, min(at + 12, len(data))))
        replacement = draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from([b"", b"\xff" * 5, b"\x80\x80\x80\x80\x08", b"\x7f", b"\xed\xa0\x80"]),
                st.just(bytes(data[to : to + 8])),
            )
        )
        data[at:to] = replacement
    return bytes(data)


@thorough
@given(st.binary(max_size=300))
@example(b"\xff" * 100)
@example(b"\x0a\xff\xff\xff\xff\x07")
def test_random_bytes(data: bytes) -> None:
    read_documents(data)
    read_message(data)


@thorough
@given(damaged(DOCUMENTS))
def test_damaged_documents(data: bytes) -> None:
    read_documents(data)


@thorough
@given(damaged(REQUEST))
def test_damaged_requests(data: bytes) -> None:
    read_message(data)


def test_every_truncation() -> None:
    for size in range(len(REQUEST)):
        read_message(REQUEST[:size])


@pytest.mark.parametrize("field", ["text", "key"])
def test_text_that_is_not_utf8(field: str) -> None:
    batch = DocumentBatch.from_columns(texts=["MARK"]) if field == "text" else DocumentBatch.from_columns(MARK=["x"])
    with pytest.raises(InvalidInput, match=r"could not be decoded: .*UTF-8"):
        DocumentBatch.from_bytes(batch.to_bytes().replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(InvalidInput, match="could not be decoded"):
        wire.read_request(wire.build_request("/x", batch).replace(b"MARK", b"\xff\xfe\xfd\xfc"))


def wrap(data: bytes, *numbers: int) -> bytes:
    for number in numbers:
        data = delimited(number, len(data)) + data
    return data


@pytest.mark.parametrize(
    ("levels", "numbers"),
    [(200, (1, 9)), (100_000, (1, 9)), (200, (2, 1, 12))],  # lists of lists; dictionaries of dictionaries
)
def test_nesting_without_end(levels: int, numbers: tuple[int, ...]) -> None:
    node = b""
    if levels > 1000:  # each level adds a few bytes to every enclosing length: keep it small
        node = bytes([9 << 3 | 2]) * levels
    else:
        for _ in range(levels):
            node = wrap(node, *numbers)
    document = wrap(node, 2, 1)  # DocProto.data[""] = node
    with pytest.raises(InvalidInput):
        DocumentBatch.from_bytes(wrap(document, 1))
    with pytest.raises(InvalidInput):
        wire.read_request(wrap(document, 1, 1, 4))


def test_parameters_nested_without_end() -> None:
    value = b""
    for _ in range(200):
        value = wrap(value, 1, 6)  # Value.list_value.values
    head = wrap(wrap(value, 2, 1), 2)  # parameters.fields[""] = value
    with pytest.raises(InvalidInput):
        wire.read_head(head)


def test_pickled_documents_are_never_read() -> None:
    request = pb.DataRequestProto()
    request.data.docs_bytes = b"cos\nsystem\n"
    with pytest.raises(InvalidInput, match="docs_bytes"):
        wire.documents_of(wire.read_request(request.SerializeToString()))


CLAIMS = """
import resource, sys
import numpy as np
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput

batch = DocumentBatch.from_columns(embeddings=np.ones((1, 2), "f4"))
(doc,) = batch
dense = doc.data["embedding"].ndarray.dense
dense.shape[:] = [2**31, 2**31]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
for buffer in (b"", b"1234", bytes(8)):
    dense.buffer = buffer
    data = batch.to_bytes()
    for read in (lambda b: b.embeddings, lambda b: b.column("embedding")):
        try:
            read(DocumentBatch.from_bytes(data))
        except InvalidInput as error:
            assert "does not fit its shape" in str(error)
        else:
            sys.exit("read")
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
"""


def test_a_huge_shape_allocates_nothing() -> None:
    """In a process of its own, whose memory is limited: a reader that believed the shape would fail otherwise."""
    done = subprocess.run([sys.executable, "-c", CLAIMS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2**31
