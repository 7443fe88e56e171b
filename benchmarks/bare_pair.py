"""The floor: a bare grpc.aio pair that moves bytes and does nothing else.

    client -> forwarder (calls each next server in turn) -> echo

Run as ``python benchmarks/bare_pair.py PORT [NEXT_PORT ...]``: with no next port it is the echo.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio
from load import CHANNEL_OPTIONS

from flowdex import wire


async def serve(port: int, next_ports: list[int]) -> None:
    """Serve `process_single_data` until killed."""
    server = grpc.aio.server(options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)])
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{each}", options=CHANNEL_OPTIONS) for each in next_ports]
    calls = [channel.unary_unary(wire.PROCESS_SINGLE_DATA) for channel in channels]

    async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        for call in calls:
            request = await call(request)
        return request

    service, method = wire.PROCESS_SINGLE_DATA.strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), [int(each) for each in sys.argv[2:]]))
