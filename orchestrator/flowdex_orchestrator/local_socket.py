"""Messages between two processes of one user on one machine, over a Unix domain socket.

    name = new_name()                        told to the other process by gRPC, which any process may read
    serve(name, handle)                      one process
    connection = await connect(name)         the other: asks first who listens
    message:  length (4 bytes, big-endian), that many bytes;  a length of 0 ends the messages in good order

gRPC takes 0.4 ms to carry a message of a stream to another process and its answer back, a socket a sixth of that
(docs/performance.md). Names are Linux's abstract ones (unix(7)): no file is left behind, and they hold within a network
namespace, as loopback does. Both sides ask the kernel for the other's user, so that this is no way around anything
that a port on loopback is not.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import struct
import sys
from collections.abc import Awaitable, Callable

__all__ = ["Connection", "MessageTooLarge", "connect", "new_name", "serve"]

_NAME = re.compile(r"flowdex-[0-9a-f]{32}")
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")  # SO_PEERCRED: process, user, group
_BUFFER = 1 << 20


def new_name() -> str | None:
    """A name that nobody can guess; None where the system has no such sockets."""
    return f"flowdex-{secrets.token_hex(16)}" if sys.platform == "linux" else None


class MessageTooLarge(ConnectionError):
    """The other side has sent a message beyond the limit; the connection is of no more use."""


class Connection:
    """Messages to and from the other process.

    Args:
        reader: What comes in.
        writer: What goes out.
        largest: Bytes of the largest message that may come in; -1 for no limit.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, largest: int) -> None:
        self._reader = reader
        self._writer = writer
        self._largest = largest

    async def read(self) -> bytes | None:
        """The next message; None where the other side has ended them in good order.

        Raises:
            MessageTooLarge: It is beyond the limit.
            ConnectionError: The other side went away in the midst of them.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if 0 <= self._largest < length:
                raise MessageTooLarge(f"Received message larger than max ({length} vs. {self._largest})")
            return await self._reader.readexactly(length) if length else None
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the connection was lost") from None

    async def write(self, message: bytes) -> None:
        """Send a message that is not empty; returns once the other side is not too far behind.

        Raises:
            ConnectionError: It has gone away.
        """
        self._writer.writelines((_LENGTH.pack(len(message)), message))
        await self._writer.drain()

    async def end(self) -> None:
        """End the messages in good order."""
        self._writer.write(_LENGTH.pack(0))
        await self._writer.drain()

    def close(self) -> None:
        """Close the connection, after what has been written."""
        self._writer.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()


async def serve(
    name: str, handle: Callable[[Connection], Awaitable[None]], largest: int = -1
) -> asyncio.AbstractServer:
    """Listen, and handle each connection of a process of the same user; it is closed after that.

    Args:
        name: Of `new_name`.
        handle: Called with each connection.
        largest: Bytes of the largest message that may come in; -1 for no limit.

    Raises:
        OSError: The name cannot be had.
    """

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, largest)
        try:
            if _is_of_this_user(writer):
                await handle(connection)
        finally:
            connection.close()

    return await asyncio.start_unix_server(accept, f"\0{name}", limit=_BUFFER)


async def connect(name: str, largest: int = -1) -> Connection:
    """Connect to the process that listens under a name.

    Args:
        name: What it was told to be.
        largest: Bytes of the largest message that may come in; -1 for no limit.

    Raises:
        OSError: There is none on this machine, or it is another user's.
        ValueError: That is not a name of `new_name`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of a local socket")
    reader, writer = await asyncio.open_unix_connection(f"\0{name}", limit=_BUFFER)
    if not _is_of_this_user(writer):
        writer.transport.abort()
        raise PermissionError(f"{name} belongs to another user")
    return Connection(reader, writer, largest)


def _is_of_this_user(writer: asyncio.StreamWriter) -> bool:
    found: socket.socket = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(user == os.getuid())
