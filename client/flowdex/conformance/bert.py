"""bert-as-service over ZeroMQ: the frames that its clients send, and what must come back.

[identity, JSON, request id, count] --PUSH port--> server --PUB port_out--> [identity, JSON info, array, request id]

The ports are those of --bert, or those that the HTTP API tells at /status/server.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowdex.conformance.coded import CodedCase, coded, unless
from flowdex.conformance.model import Absent, Check, Contract, Problem, Server, Skipped, shown
from flowdex.conformance.patterns import mismatches
from flowdex.conformance.relations import different_vectors, same_vectors
from flowdex.errors import ConfigurationError, Unavailable

__all__ = ["BertContract"]

_CONFIG, _STATUS = "SHOW_CONFIG", "SHOW_STATUS"
_TEXTS = ["Apollo 11 landed on the Moon.", "Bread is made of flour.", "x"]
_LARGEST = 64 << 20  # bytes of a reply


class _NoReply(Exception):
    """Nothing came in time, or no frames that can be read; the message says which."""


class _Reply(NamedTuple):
    info: dict[str, Any]
    content: bytes
    request_id: bytes

    def vectors(self) -> npt.NDArray[np.float32]:
        """The array of a reply to texts."""
        try:
            array = np.frombuffer(self.content, np.dtype(self.info["dtype"]))
            return np.asarray(array.reshape(self.info["shape"]), dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise _NoReply(f"an array that cannot be read ({error}): {shown(self.info)}") from None


class _Connection:
    """One client: a socket to send, one that is subscribed to its identity."""

    def __init__(self, context: Any, server: Server, address: tuple[str, int, int]) -> None:
        import zmq

        host, port, port_out = address
        self.identity = str(uuid.uuid4()).encode()
        self._seconds = server.timeout
        self._ids = itertools.count()
        self._sender, self._receiver = context.socket(zmq.PUSH), context.socket(zmq.SUB)
        for socket in (self._sender, self._receiver):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST)
        self._receiver.setsockopt(zmq.SUBSCRIBE, self.identity)
        self._sender.connect(f"tcp://{host}:{port}")
        self._receiver.connect(f"tcp://{host}:{port_out}")

    def send(self, payload: Any) -> bytes:
        """Send texts, or a command; the id of the request."""
        import zmq

        request_id = str(next(self._ids)).encode()
        content = payload if isinstance(payload, str) else json.dumps(payload)
        count = 1 if isinstance(payload, str) else len(payload)
        if not self._sender.poll(self._seconds * 1000, zmq.POLLOUT):
            raise _NoReply("nothing takes the request")
        self._sender.send_multipart([self.identity, content.encode(), request_id, str(count).encode()])
        return request_id

    def receive(self, seconds: float | None = None) -> _Reply:
        """The next reply."""
        if not self._receiver.poll((self._seconds if seconds is None else seconds) * 1000):
            raise _NoReply("no reply")
        frames = self._receiver.recv_multipart()
        try:
            identity, info, content, request_id = frames
            if identity != self.identity:  # a subscription is to all topics that begin with it
                raise ValueError(f"for {shown(identity.decode(errors='replace'))}, who is somebody else")
            return _Reply(dict(json.loads(info)), content, request_id)
        except ValueError as error:
            raise _NoReply(f"{len(frames)} frames that cannot be read ({error})") from None

    def ask(self, payload: Any) -> _Reply:
        """Send, and wait for the reply to this request."""
        request_id = self.send(payload)
        end = time.monotonic() + self._seconds
        while (reply := self.receive(max(0.0, end - time.monotonic()))).request_id != request_id:
            pass
        return reply

    def encode(self, texts: Sequence[Any]) -> npt.NDArray[np.float32]:
        """The vectors of texts."""
        return self.ask(list(texts)).vectors()

    def close(self) -> None:
        """Close the sockets."""
        self._sender.close()
        self._receiver.close()


class BertContract(Contract):
    """The protocol of bert-serving-client 1.10."""

    name = "bert"
    title = "bert-as-service over ZeroMQ"
    probes = 2  # for the ports, over HTTP; for the configuration

    @property
    def cases(self) -> Sequence[CodedCase[_Connection]]:
        """Those below."""
        return _CASES

    @contextmanager
    def session(self, server: Server) -> Iterator[Check]:
        """See `Contract`."""
        address = server.bert or _told(server)
        try:
            import zmq
        except ImportError:
            if server.bert is None:
                raise Absent("needs pyzmq: pip install 'flowdex[zeromq]'") from None
            raise ConfigurationError("--bert needs pyzmq: pip install 'flowdex[zeromq]'") from None
        context = zmq.Context()
        connection = _Connection(context, server, address)
        try:
            connection.ask(_CONFIG)
        except _NoReply as error:
            place = f"{address[0]}:{address[1]}:{address[2]}"
            raise Unavailable(f"bert-as-service at {place}: {error} within {server.timeout:g} s") from None
        else:
            yield lambda case: _run(case, connection)
        finally:
            connection.close()
            context.destroy(linger=0)


def _told(server: Server) -> tuple[str, int, int]:
    """The address that the HTTP API tells."""
    import httpx

    if server.http is None:
        raise Absent("needs --bert HOST:PORT:PORT_OUT")
    try:
        status = httpx.get(
            f"{server.http}/status/server",
            headers=dict(server.http.headers),
            timeout=server.timeout,
            trust_env=not server.http.loopback,
            verify=server.http.secure,
        ).json()
        port, port_out = status["port"], status["port_out"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        raise Absent("/status/server tells no ports; name them with --bert HOST:PORT:PORT_OUT") from None
    if not isinstance(port, int) or not isinstance(port_out, int):
        raise Absent("/status/server tells no ports: it does not serve this protocol")
    return server.http.host, port, port_out


def _run(case: CodedCase[_Connection], connection: _Connection) -> list[Problem]:
    try:
        return list(case.check(connection))
    except _NoReply as error:
        return [Problem(case.name, "a reply of four frames", str(error))]


@coded("configuration", "SHOW_CONFIG: the server's flags as JSON")
def _configuration(server: _Connection) -> Iterator[Problem]:
    pattern = {
        "port": "<integer>",
        "port_out": "<integer>",
        "max_seq_len": "<integer|null>",
        "pooling_layer": "<array>",
        "pooling_strategy": "<any>",
        "num_worker": "<integer 1..>",
        "server_version": "<~^1\\.>",
    }
    yield from mismatches(pattern, server.ask(_CONFIG).info)


@coded("status", "SHOW_STATUS: the flags, and a statistic of the requests")
def _status(server: _Connection) -> Iterator[Problem]:
    counts = ("num_data_request", "num_sys_request", "num_total_request", "num_total_seq", "num_total_client")
    pattern = {
        "client": server.identity.decode(),
        "num_process": "<integer 1..>",
        "server_start_time": "<string>",
        "server_current_time": "<string>",
        "num_concurrent_socket": "<integer>",
        "python_version": "<string>",
        "zmq_version": "<string|null>",
        "statistic": dict.fromkeys(counts, "<integer 0..>"),
    }
    yield from mismatches(pattern, server.ask(_STATUS).info)


@coded("texts", "encode: [identity, {dtype, shape, tokens}, array, request id], float32 of shape (B, D) or (B, T, D)")
def _vectors(server: _Connection) -> Iterator[Problem]:
    reply = server.ask(_TEXTS)
    pattern = {
        "dtype": "float32",
        "shape": {"<each>": "<integer 1..>", "<length>": "<integer 2..3>"},
        "tokens": "<any>",
    }
    found = list(mismatches(pattern, reply.info))
    yield from found
    if not found:
        vectors = reply.vectors()
        if len(vectors) != len(_TEXTS) or not np.isfinite(vectors).all():
            yield Problem("array", f"finite numbers for {len(_TEXTS)} texts", f"shape {vectors.shape}")


@coded("the order of the texts", "encode: a vector for each text, in order", 2)
def _order(server: _Connection) -> Iterator[Problem]:
    first, second = _flat(server.encode(_TEXTS)), _flat(server.encode(_TEXTS[::-1]))
    yield from unless(different_vectors(first), "the vectors")
    yield from unless(same_vectors(second, first[::-1]), "the texts the other way round")


@coded("requests at once", "encode: a reply has the id of its request", 3)
def _request_ids(server: _Connection) -> Iterator[Problem]:
    sizes = {server.send(["text"] * count): count for count in (3, 1, 2)}
    found = {}
    for _ in sizes:
        reply = server.receive()
        found[reply.request_id] = len(reply.vectors())
    if found != sizes:
        told = [{key.decode(errors="replace"): value for key, value in each.items()} for each in (sizes, found)]
        yield Problem("texts by request id", shown(told[0]), shown(told[1]))


@coded("tokens of one's own", "is_tokenized: texts may be lists of tokens", 2)
def _tokenized(server: _Connection) -> Iterator[Problem]:
    words, text = server.encode([["bread", "and", "water"]]), server.encode(["bread and water"])
    yield from unless(same_vectors(_flat(words), _flat(text)), "words, and the text")


@coded("a pair", "texts: `A ||| B` is a pair of sentences", 2)
def _pair(server: _Connection) -> Iterator[Problem]:
    alone, pair = server.encode(["who is it"]), server.encode(["who is it ||| it is me"])
    if alone.shape == pair.shape:
        yield from unless(different_vectors([*_flat(alone), *_flat(pair)]), "a text, and a pair that begins with it")


@coded("a text that is too long", "texts: what is too long is cut, and is no error")
def _long(server: _Connection) -> Iterator[Problem]:
    vectors = server.encode(["moon " * 2000])
    if len(vectors) != 1:
        yield Problem("array", "one vector", f"shape {vectors.shape}")


@coded("tokens to the client", "show_tokens_to_client: the tokens of each text, [CLS] and [SEP] too", 2)
def _tokens(server: _Connection) -> Iterator[Problem]:
    if not server.ask(_CONFIG).info.get("show_tokens_to_client"):
        raise Skipped("the server has show_tokens_to_client off")
    word = {"<each>": "<string>", "<length>": "<integer 3..>"}
    tokens = server.ask(["bread", "bread and water"]).info.get("tokens")
    found = list(mismatches([word, word], tokens, "tokens"))
    yield from found
    for each in () if found else tokens or ():
        yield from mismatches(["[CLS]", "[SEP]"], [each[0], each[-1]], "the ends of the tokens")


def _flat(vectors: npt.NDArray[np.float32]) -> list[Any]:
    """A vector a text: of token vectors the first one, which stands for the text."""
    return [row if row.ndim == 1 else row[0] for row in vectors]


_CASES: tuple[CodedCase[_Connection], ...] = (
    _configuration,
    _status,
    _vectors,
    _order,
    _request_ids,
    _tokenized,
    _pair,
    _long,
    _tokens,
)
