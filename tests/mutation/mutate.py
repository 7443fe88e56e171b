"""Mutations, each a function of a valid request and of a source of randomness.

Requests are numbered, and a number seeds the randomness: a fault is made again by its number.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from flowdex.proto import flowdex_pb2 as pb

__all__ = ["mutate_bytes", "mutate_json", "mutate_message", "mutate_path"]

_FLOOD = "e" + "\u0301" * 3000
STRINGS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\u202e\u05d0\u05d1",
        _FLOOD,
        "\ufeff",
        "\U0001f469\u200d\U0001f469",
        "\u2028",
        "x" * 20_000,
    ),
    *(
        "/encode",
        "../../etc/passwd",
        "%s%n{}",
        "$gte",
        "a.b[].c",
        "id",
        "(((.*)*)*)*x",
        "[",
        "(?P<",
        "null",
        "NaN",
        "1e999",
    ),
    *(
        "2024-13-45",
        "9999-12-31T23:59:59+14:00",
        "0001-01-01",
        "edge://x",
        "none",
        "mean",
        "dense",
        "\n\r\t",
        "é" * 300,
    ),
)
NUMBERS = (
    *(0, -0.0, -1, 1, 2, 3, 0.5, 255, 256, 1000, 1001, 2001, 65_535, 65_536, 2**31 - 1, 2**31, -(2**31) - 1),
    *(2**53, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**40, 1e308, -1e308, 5e-324, 1e16, 0.1),
)
_RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    "1e999",
    "01",
    "'a'",
    "",
    "tru",
    '"\\x"',
    "\x00",
    "-",
)
_LARGE = 1 << 16  # characters: a million requests of megabytes would test the allocator, not what reads them
_LARGEST = 1 << 25
_MARK = "\u0001raw\u0001"  # stands in a value for what no JSON value can be


def _value(random: Random) -> Any:
    choice = random.randrange(10)
    if choice < 3:
        return random.choice(STRINGS)
    if choice < 6:
        return random.choice(NUMBERS)
    if choice == 6:
        return random.choice((None, True, False))
    if choice == 7:
        return random.choice(([], {}, [[]], [{}], [None], {"": None}, ["a", 1, None], {"a": {"b": [1]}}))
    if choice == 8:
        return _nested(random.choice((3, 15, 17, 21, 25, 120, 900)), random.random() < 0.5)
    return _repeated(random.choice((random.choice(STRINGS), random.choice(NUMBERS), None)), random, (1, 2, 50, 1500))


def _repeated(value: Any, random: Random, counts: tuple[int, ...]) -> list[Any]:
    """The value several times, as often as leaves the request small; now and then as large as requests may be."""
    most = _LARGEST if random.random() < 0.001 else _LARGE
    return [value] * min(random.choice(counts), 1 + most // len(json.dumps(value)))


def _nested(depth: int, lists: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if lists else {random_key(depth): value}
    return value


def random_key(depth: int) -> str:
    """A key that leads deeper in filters, too."""
    return "$not" if depth % 2 else "a"


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each container and key in it, at any depth."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        each = pending.pop()
        items = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for key, inner in items:
            found.append((each, key))
            if isinstance(inner, (dict, list)):
                pending.append(inner)
    return found


def mutate_json(value: Any, random: Random) -> bytes:
    """A JSON text near to the value's: other values and types, keys gone, renamed, twice; or bytes near to it."""
    value = json.loads(json.dumps(value))
    raw: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = _places(value)
        if not places:
            break
        holder, key = random.choice(places)
        choice = random.randrange(9)
        if choice < 5:
            holder[key] = _value(random)
        elif choice == 5:
            del holder[key]
        elif choice == 6 and isinstance(holder, dict):
            holder[random.choice((f"{key}x", "", "filter", "limit", "__results__", str(key).upper(), _FLOOD))] = holder[
                key
            ]
        elif choice == 7 and isinstance(holder, list):
            holder[key:key] = _repeated(holder[key], random, (1, 10, 200))
        else:
            raw.append(random.choice(_RAW))
            holder[key] = _MARK
    if random.random() < 0.03:
        value = _value(random)
    try:
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    except RecursionError:  # several deep values, one in the other
        return b"[" * 5000
    for each in raw:
        text = text.replace(json.dumps(_MARK), each, 1)
    if random.random() < 0.05 and '": ' in text:  # a key twice
        text = text.replace('"', '"limit": 3, "', 1) if text.startswith('{"') else text
    data = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(data, random) if random.random() < 0.25 else data


def mutate_bytes(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """Bytes near to these: bits flipped, cut, inserted, repeated, lengths that lie."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        size = len(found)
        if not size:
            return bytes(random.randbytes(random.randrange(20)))
        place, choice = random.randrange(size), random.randrange(8)
        if choice < 2:
            found[place] ^= 1 << random.randrange(8)
        elif choice == 2:
            del found[place:]
        elif choice == 3:
            found[place:place] = random.randbytes(random.randrange(1, 9))
        elif choice == 4:
            del found[place : place + random.randrange(1, 9)]
        elif choice == 5:
            piece = found[place : place + random.randrange(1, 64)]
            found[place:place] = piece * random.choice((1, 1, 2, 100))
        elif choice == 6:
            found[place] = random.choice((0x00, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x7B, 0x5B))
        else:
            source = other or bytes(found)
            start = random.randrange(len(source))
            found[place:] = source[start:]
    return bytes(found)


def mutate_path(path: str, random: Random) -> str:
    """A path and query near to these, in bytes that a request line may have."""
    path = random.choice((path, path, path.partition("?")[0]))
    choice = random.randrange(6)
    if choice == 0:
        return path + random.choice(
            ("%00", "%ff%fe", "%ed%a0%80", "/", "//", "%2e%2e%2f", "%", "%zz", "?", "#x", ";a=b")
        )
    if choice == 1:
        return (
            path
            + ("&" if "?" in path else "?")
            + random.choice(
                (
                    *(
                        "limit=0",
                        "limit=1e9",
                        "limit=99999999999999999999",
                        "limit=",
                        "cursor=x",
                        "id=",
                        "id=%00",
                        "x=1",
                    ),
                    *(
                        "filter=[",
                        "filter=%5B%5D",
                        "filter=" + "%5B" * 3000,
                        "filter=%7B%22a%22%3ANaN%7D",
                        "passages=maybe",
                    ),
                    *("embeddings=2", "id=" + "a" * 3000, "&".join(["id=a"] * 500), "filter=%7B%22%24not%22%3A1%7D"),
                )
            )
        )
    if choice == 2:
        return path.upper()
    if choice == 3:
        return "/documents/" + random.choice(("%00", "%E0%A4%A", "a" * 3000, "%F0%9F%92%A9", "..", "%2F", "a%0d%0ab"))
    return path


# ---- protobuf ----

_DTYPES = ("<f4", ">f4", "<f8", "<i8", "|b1", "<f2", "<c16", "O", "S3", "f4,f4", "<U1", "", "<f16", "(2,)f4")


def mutate_message(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """A request near to this one: in its fields, or in its bytes."""
    if random.random() < 0.5:
        return mutate_bytes(data, random, other)
    try:
        request = pb.DataRequestProto.FromString(data)
    except DecodeError:
        return mutate_bytes(data, random, other)
    for _ in range(random.choice((1, 1, 2, 4))):
        choice = random.randrange(8)
        docs = request.data.docs.docs
        if choice == 0:
            _mutate_header(request.header, random)
        elif choice < 3:
            _mutate_parameters(request, random)
        elif choice == 3 and docs:
            docs.add().CopyFrom(random.choice(docs))
        elif choice == 4:
            docs.add()
        elif choice == 5 and random.random() < 0.2:
            request.data.docs_bytes = random.randbytes(20)
        elif docs:
            doc = random.choice(docs)
            names = [
                *doc.data,
                "text",
                "embedding",
                "tags",
                "chunks",
                "matches",
                "fields",
                "words",
                "token_ids",
                "scores",
            ]
            _mutate_node(doc.data[random.choice(names)], random, 3)
    return request.SerializeToString()


def _mutate_header(header: pb.HeaderProto, random: Random) -> None:
    choice = random.randrange(4)
    if choice == 0:
        header.exec_endpoint = random.choice((*STRINGS, "/index", "/search", "/map", "/rank", "/delete", "/default"))
    elif choice == 1:
        header.target_executor = random.choice((*STRINGS, "ranker", "indexer", "seg.*", "(a|a)*$", "encoder|ranker"))
    elif choice == 2:
        header.request_id = random.choice(STRINGS)
    else:
        header.status.code = 1
        header.status.exception.name = random.choice(STRINGS)


def _mutate_parameters(request: pb.DataRequestProto, random: Random) -> None:
    fields = request.parameters.fields
    names = [
        *fields,
        "limit",
        "offset",
        "filter",
        "ids",
        "mode",
        "pooling",
        "rerank",
        "cursor",
        "layers",
        "segment",
        "x",
    ]
    name = random.choice(names)
    if name in fields and random.random() < 0.2:
        del fields[name]
        return
    target, depth = fields[name], 0
    while random.random() < 0.4 and depth < 30:
        target = target.struct_value.fields[random.choice(("$and", "$not", "a", "method", "$in", "top", "weights"))]
        depth += 1
    choice = random.randrange(6)
    if choice < 2:
        target.number_value = float(min(random.choice(NUMBERS), 1e308))
    elif choice == 2:
        target.number_value = random.choice((float("nan"), float("inf"), float("-inf")))
    elif choice == 3:
        target.string_value = random.choice(STRINGS)
    elif choice == 4:
        for _ in range(random.choice((0, 1, 5, 2000))):
            target.list_value.values.add().number_value = random.choice((1.0, float("nan"), -1.0))
    else:
        target.bool_value = random.random() < 0.5


def _mutate_node(node: pb.NodeProto, random: Random, depth: int) -> None:
    """Give a field of a document another value, of any type."""
    choice = random.randrange(6)
    if choice == 0:
        _set_scalar(node, random)
    elif choice < 3:
        _set_array(node.ndarray.dense, random)
    elif choice == 3:
        node.doc_array.SetInParent()
        for _ in range(random.choice((0, 1, 3))):
            inner = node.doc_array.docs.add()
            if depth:
                _mutate_node(inner.data[random.choice(("text", "chunks", "embedding", "tags"))], random, depth - 1)
    elif choice == 4:
        deep = node
        for _ in range(random.choice((1, 5, 19, 30))):
            deep = deep.list.data.add() if random.random() < 0.5 else deep.dict.data[random.choice(("a", "", "$not"))]
        deep.text = "x"
    else:
        for _ in range(random.choice((0, 1, 500))):
            node.set.data.add().text = "x"


def _set_scalar(node: pb.NodeProto, random: Random) -> None:
    name, value = random.choice(
        (
            ("text", random.choice(STRINGS)),
            ("integer", random.choice((0, -1, 2**31 - 1, -(2**31)))),
            ("float", random.choice((float("nan"), float("inf"), 1e308, -0.0, 0.5))),
            ("boolean", True),
            ("blob", random.randbytes(random.randrange(50))),
        )
    )
    setattr(node, name, value)


def _set_array(dense: pb.DenseNdArrayProto, random: Random) -> None:
    dense.dtype = random.choice((*("<f4",) * 6, *_DTYPES))
    dense.shape[:] = random.choice(([], [0], [64], [1, 64], [64, 1], [2**31], [2**16, 2**16], [1] * 70, [63], [3, 2]))
    fill = random.choice((b"\0\0\0\0", b"\0\0\xc0\x7f", b"\0\0\x80\x3f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f"))
    dense.buffer = fill * random.choice((0, 1, 6, 63, 64, 128))
