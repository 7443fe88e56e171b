"""Commands between the processes of one machine: JSON over gRPC, on loopback, behind a token.

    ask(address, token, "scale", {"encoder": 3}) --> ControlServer({"scale": method}, token) --> method --> JSON

`flowdex scale` talks to the runner in this way, and the runner to the gateway. A caller that goes away cancels the
method it called. The token is made anew by each runner and known to its user alone.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from flowdex.errors import (
    ConfigurationError,
    FlowdexError,
    InternalError,
    Unauthenticated,
    error_from_grpc,
    error_from_name,
)

__all__ = ["RUNNER_VARIABLE", "TOKEN_VARIABLE", "ControlServer", "Method", "ask"]

TOKEN_VARIABLE = "FLOWDEX_CONTROL_TOKEN"  # nosec B105 # a name
"""Environment variable in which a runner hands its token to the gateway."""
RUNNER_VARIABLE = "FLOWDEX_RUNNER"
"""Environment variable in which a runner tells the gateway its own address."""

Body = dict[str, Any]
Method = Callable[[Body], Awaitable[Body]]

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_SERVICE = "flowdex.v1.Control"
_TOKEN_KEY = "flowdex-token"  # nosec B105 # a name
_ERROR_KEY = "flowdex-error"
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))

Context = grpc.aio.ServicerContext[bytes, bytes]


class ControlServer:
    """Offers methods to those who know the token.

    Args:
        methods: By name: takes the JSON object that was sent and returns the one to send back. A `FlowdexError` reaches
            the caller as the same class; anything else is logged here.
        token: The secret.
    """

    def __init__(self, methods: Mapping[str, Method], token: str) -> None:
        self._methods = dict(methods)
        self._token = token.encode()
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on loopback.

        Args:
            port: 0 for any free one.

        Returns:
            The address.

        Raises:
            ConfigurationError: The port is taken.
        """
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(self._handler(name)) for name in self._methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        try:
            bound = server.add_insecure_port(f"{_HOST}:{port}")
        except RuntimeError:
            raise ConfigurationError(f"the control port {port} of {_HOST} is taken; choose another") from None
        await server.start()
        self._server = server
        return f"{_HOST}:{bound}"

    async def stop(self) -> None:
        """Cancel what is being worked on, and listen no more."""
        if self._server is not None:
            await self._server.stop(None)

    def _handler(self, name: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
        method = self._methods[name]

        async def handle(data: bytes, context: Context) -> bytes:
            try:
                self._authenticate(context)
                return json.dumps(await method(json.loads(data))).encode()
            except FlowdexError as error:
                found = error
            except Exception:
                _log.exception("the command %r failed", name)
                found = InternalError(f"the command {name!r} failed; the log of the process says why")
            await context.abort(found.status.grpc, found.message, ((_ERROR_KEY, found.name),))
            raise AssertionError("abort raises")

        return handle

    def _authenticate(self, context: Context) -> None:
        sent = dict(context.invocation_metadata() or ()).get(_TOKEN_KEY, "")
        if not hmac.compare_digest(sent.encode() if isinstance(sent, str) else sent, self._token):
            raise Unauthenticated("this command needs the token of the flow's runner, which its user alone can read")


async def ask(address: str, token: str, method: str, body: Body, *, timeout: float | None = None) -> Body:
    """Call a method of another process; cancelling this cancels it there.

    Raises:
        FlowdexError: What the method raised, `Unavailable` where nobody listens, `DeadlineExceeded` after `timeout`
            seconds.
    """
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call: Any = channel.unary_unary(f"/{_SERVICE}/{method}")
        try:
            reply: bytes = await call(json.dumps(body).encode(), timeout=timeout, metadata=((_TOKEN_KEY, token),))
        except grpc.aio.AioRpcError as error:
            name = next((value for key, value in error.trailing_metadata() or () if key == _ERROR_KEY), None)
            if name is not None:
                raise error_from_name(str(name), error.details() or "") from None
            raise error_from_grpc(error.code(), f"{method}: {error.details()}") from None
    found: Body = json.loads(reply)
    return found
