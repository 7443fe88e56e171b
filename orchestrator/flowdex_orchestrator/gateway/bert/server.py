"""The sockets of bert-as-service's protocol: requests are pulled from `port`, replies published on `port_out`.

    BertClient PUSH --> PULL --_read--> task a request (at most `stream_window` at once) --> BertService
    BertClient SUB  <-- XPUB <-------------------- frames of the reply ----------------------+

A published message reaches who subscribes at that moment and nobody later. XPUB tells who does, so a request waits for
its client's subscription, instead of for some milliseconds, and is dropped when the client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

import zmq
import zmq.asyncio

from flowdex.errors import ConfigurationError, FlowdexError, InternalError, TooLarge
from flowdex.timeouts import within
from flowdex_orchestrator.access import CALLER, Caller, Role
from flowdex_orchestrator.gateway.bert.frames import (
    SHOW_CONFIG,
    SHOW_STATUS,
    Address,
    Frames,
    Request,
    error_reply,
    json_reply,
    read_address,
    read_request,
    read_texts,
    vectors_reply,
)
from flowdex_orchestrator.gateway.bert.service import BertService
from flowdex_orchestrator.gateway.seldom import SeldomLogger
from flowdex_orchestrator.gateway.settings import GatewaySettings

__all__ = ["BertServer"]

logger = logging.getLogger(__name__)

_SUBSCRIBE = 1  # first byte of what XPUB is told
_PATIENCE = 5.0  # seconds for a client to subscribe, or to come back
_LINGER = 1000  # milliseconds for replies to leave when it stops
_UNREAD = 10_000  # replies that wait for one client to read them; the next ones are lost to it
# A message beyond the limit is answered with an error up to so many times the limit; the library drops larger ones.
_TOLERANCE = 4


class BertServer:
    """The ZeroMQ front of a gateway.

    Args:
        service: Answers requests.
        settings: The gateway's limits.
    """

    def __init__(self, service: BertService, settings: GatewaySettings) -> None:
        self._service = service
        self._settings = settings
        self._seldom = SeldomLogger(logger)
        self._context: zmq.asyncio.Context | None = None
        self._receiver: zmq.asyncio.Socket
        self._publisher: zmq.asyncio.Socket
        self._loops: list[asyncio.Task[None]] = []
        self._slots = asyncio.Semaphore(settings.stream_window + 1)  # one is the reader's, while it waits
        self._work: dict[asyncio.Task[None], bytes] = {}
        self._topics: set[bytes] = set()
        self._subscribed = asyncio.Event()  # set for a moment whenever someone subscribes

    async def start(self, host: str, port: int, port_out: int) -> dict[str, int]:
        """Listen and answer.

        Args:
            host: Address to listen on.
            port: For requests; 0 for any free one, as for the next.
            port_out: For replies.

        Returns:
            The ports, as `bert` and `bert-out`.

        Raises:
            ConfigurationError: A port cannot be had.
        """
        self._context = zmq.asyncio.Context()
        self._receiver = self._context.socket(zmq.PULL)
        self._receiver.setsockopt(zmq.MAXMSGSIZE, _TOLERANCE * self._settings.max_message_bytes)
        self._publisher = self._context.socket(zmq.XPUB)
        self._publisher.setsockopt(zmq.SNDHWM, _UNREAD)
        self._publisher.setsockopt(zmq.MAXMSGSIZE, 1 << 16)
        try:
            ports = {
                "bert": await _bind(self._receiver, host, port),
                "bert-out": await _bind(self._publisher, host, port_out),
            }
        except ConfigurationError:
            self._context.destroy(linger=0)
            self._context = None
            raise
        self._service.ports = ports
        # Its clients have no keys; where the gateway has, serving them anyway lets them encode, and nothing else.
        CALLER.set(Caller("bert", "", frozenset({Role.SEARCH})))
        self._loops = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]
        return ports

    async def stop(self) -> None:
        """Take no more requests, finish those in flight (up to `settings.drain` seconds), close the sockets."""
        if self._context is None:
            return
        reader, watcher = self._loops
        await _end(reader)
        self._receiver.close(linger=0)
        if self._work:
            await asyncio.wait(list(self._work), timeout=self._settings.drain)
        for task in list(self._work):
            await _end(task)
        await _end(watcher)
        self._publisher.close(linger=_LINGER)
        await asyncio.to_thread(self._context.term)
        self._context = None

    # ---- requests ----

    async def _read(self) -> None:
        """Take requests, so many at a time: the others wait in the library's queue, and then at the clients."""
        while True:
            await self._slots.acquire()
            try:
                frames = await self._receiver.recv_multipart()
            except BaseException:
                self._slots.release()
                raise
            self._take(frames)
            await asyncio.sleep(0)  # what is there already is read without a pause, and would keep all others waiting

    def _take(self, frames: list[bytes]) -> None:
        address = read_address(frames)
        if address is None:
            self._slots.release()
            self._seldom.warning(
                "dropped %d frames on the port of bert-as-service: no identity or request id", len(frames)
            )
            return
        listens = self._is_subscribed(address.identity)
        task = asyncio.create_task(self._handle(address, frames) if listens else self._welcome(address, frames))
        self._work[task] = address.identity
        task.add_done_callback(self._done)
        if listens:
            task.add_done_callback(lambda _: self._slots.release())
            return
        self._slots.release()  # who does not listen yet, or never does, keeps nobody waiting
        if len(self._work) > self._settings.max_in_flight:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._work[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a reply of bert-as-service could not be sent", exc_info=error)

    async def _welcome(self, address: Address, frames: list[bytes]) -> None:
        """Handle a request whose sender's subscription has not arrived: it comes over another connection."""
        if not await self._listens(address.identity):
            self._seldom.warning("dropped request %s of a client that does not listen to replies", address.request_id)
            return
        async with self._slots:
            await self._handle(address, frames)

    async def _handle(self, address: Address, frames: list[bytes]) -> None:
        reply = await self._reply(address, frames)
        if reply is not None and await self._listens(address.identity):
            await self._publisher.send_multipart(reply, copy=False)

    async def _reply(self, address: Address, frames: list[bytes]) -> Frames | None:
        """The reply, which may be an error's; None where there is none to give."""
        try:
            size, limit = sum(map(len, frames)), self._settings.max_message_bytes
            if size > limit:
                raise TooLarge(
                    f"the request has {size} bytes, more than the {limit} allowed "
                    "(gateway.uses_with.max_message_bytes); send fewer texts in one request"
                )
            request = read_request(frames)
            return await self._command(request) if request.command else await self._encode(request)
        except FlowdexError as error:
            self._seldom.warning("bert-as-service: %s: %s", error.name, error.message)
            return error_reply(address, error)
        except Exception:  # the one place that turns the unknown into an incident
            logger.exception("a request of bert-as-service failed in the gateway")
            return error_reply(address, InternalError("the gateway failed on this request; its log says why"))

    async def _command(self, request: Request) -> Frames | None:
        self._service.statistic.add(request.address.identity, None)
        if request.command == SHOW_CONFIG:
            return json_reply(request.address, self._service.config())
        if request.command == SHOW_STATUS:
            return json_reply(request.address, self._service.status(request.address.identity))
        self._seldom.warning("ignored a request to terminate: `flowdex down` stops a flow, its clients cannot")
        return None

    async def _encode(self, request: Request) -> Frames:
        large = len(request.payload) > 1 << 18
        texts = await asyncio.to_thread(read_texts, request.payload) if large else read_texts(request.payload)
        self._service.statistic.add(request.address.identity, len(texts))
        encoded = await self._service.encode(texts)
        if encoded.vectors.nbytes > 1 << 20:
            return await asyncio.to_thread(vectors_reply, request.address, encoded.vectors, encoded.tokens)
        return vectors_reply(request.address, encoded.vectors, encoded.tokens)

    # ---- who listens ----

    async def _watch(self) -> None:
        """Keep track of subscriptions."""
        while True:
            message = (await self._publisher.recv_multipart())[0]
            topic = message[1:]
            if message[:1] == bytes([_SUBSCRIBE]):
                self._topics.add(topic)
                self._subscribed.set()
                self._subscribed.clear()  # who waits has been woken all the same
            else:
                self._topics.discard(topic)
                asyncio.get_running_loop().call_later(_PATIENCE, self._drop_work, topic)

    def _drop_work(self, topic: bytes) -> None:
        """Stop working for those who listened to this topic and have not come back."""
        for task, identity in list(self._work.items()):
            if identity.startswith(topic) and not self._is_subscribed(identity):
                task.cancel()

    def _is_subscribed(self, identity: bytes) -> bool:
        """Whether anyone gets messages for this client: a subscription is to all that start with its topic."""
        return any(identity[:end] in self._topics for end in range(len(identity), -1, -1))

    async def _listens(self, identity: bytes) -> bool:
        """Whether the client listens, or does within some seconds."""
        if not self._is_subscribed(identity):
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._wait_until_subscribed(identity), _PATIENCE)
        return self._is_subscribed(identity)

    async def _wait_until_subscribed(self, identity: bytes) -> None:
        while not self._is_subscribed(identity):
            await self._subscribed.wait()


async def _bind(listener: zmq.asyncio.Socket, host: str, port: int) -> int:
    """Open a port; the one that it is."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])  # the library resolves no names here
        if ":" in address:
            listener.setsockopt(zmq.IPV6, 1)
            address = f"[{address}]"
        listener.bind(f"tcp://{address}:{port or '*'}")
    except (zmq.ZMQError, OSError) as error:
        raise ConfigurationError(
            f"the port {port} of {host} cannot be opened for bert-as-service: {error.strerror}; choose another with "
            "--port-bert or --port-bert-out, or under `with: port:` and `gateway: bert: port_out:` in the flow file"
        ) from None
    endpoint: Any = listener.getsockopt(zmq.LAST_ENDPOINT)
    return int(endpoint.rstrip(b"\0").rpartition(b":")[2])


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
