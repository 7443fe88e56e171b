"""`flowdex` with the names of a rehearsed cluster, where pods have no network namespace and so no resolv.conf.

    python pod_process.py DNS_HOST:PORT gateway --flow ...

`socket.getaddrinfo`, which is what the gateway finds pods with, asks that name server for names without a dot.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from pod_network import DOMAIN, ask


def main() -> None:
    host, _, port = sys.argv.pop(1).rpartition(":")
    namespace = os.environ["POD_NAMESPACE"]
    of_the_system = socket.getaddrinfo

    def getaddrinfo(name: Any, service: Any, *rest: Any, **more: Any) -> Any:
        if not isinstance(name, str) or not name or name == "localhost" or "." in name or ":" in name:
            return of_the_system(name, service, *rest, **more)
        try:
            found = ask(f"{name}.{namespace}.{DOMAIN}", (host, int(port)))
        except OSError:
            raise socket.gaierror(socket.EAI_AGAIN, "the name server does not answer") from None
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, service)) for each in found]

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    from flowdex.cli.main import main as flowdex

    flowdex()


if __name__ == "__main__":
    main()
