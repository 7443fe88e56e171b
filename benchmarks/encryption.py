"""What TLS, mutual TLS and keys cost a request: the same flow of one no-op executor with each of them, side by side.

    python benchmarks/encryption.py [--seconds 2] [--rounds 5]

All flows are up at the same time and take turns under load; the table gives medians over the rounds, and ratios to the
flow without, round by round. Connections stay open, as clients of flowdex keep them: handshakes are not part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from load import Load, Metadata, drive
from servers import FLOWDEX, HERE, Servers, free_ports

from flowdex import wire
from flowdex.certificates import CertificateFiles, channel_credentials
from flowdex.documents import DocumentBatch

IN_FLIGHT = 32
OUTER, INNER, CLIENTS = (
    "certificate: gateway.pem, key: gateway.key",
    "certificate: flow.pem, key: flow.key, ca: ca.pem",
    "client_ca: ca.pem",
)


@dataclass
class System:
    """One flow.

    Attributes:
        name: What it has.
        gateway: Its section `gateway`.
        settings: What of TLS stands in `with`.
        keyed: Whether it asks for keys.
    """

    name: str
    gateway: str = ""
    settings: str = ""
    keyed: bool = False
    servers: Servers = field(default_factory=Servers)
    port: int = 0
    busy: list[Load] = field(default_factory=list)
    alone: list[Load] = field(default_factory=list)

    def start(self, folder: Path) -> None:
        """Start its gateway and its executor."""
        self.port, hop = free_ports(2)
        flow = folder / f"{self.name.replace(' ', '-')}.yml"
        flow.write_text(
            f"jtype: Flow\nwith: {{protocol: [grpc], port: [{self.port}]{self.settings}}}\n"
            f"gateway: {{{self.gateway}}}\nexecutors:\n"
            f"  - {{name: hop, uses: ColumnarNoOp, port: {hop}, py_modules: ['{HERE / 'noop_executors.py'}']}}\n"
        )
        self.servers.start([*FLOWDEX, "executor", "hop", "--flow", str(flow)])
        self.servers.start([*FLOWDEX, "gateway", "--flow", str(flow)])
        self.servers.wait_for(hop, self.port)


SYSTEMS = (
    System("nothing"),
    System("keys", "keys: keys.json", keyed=True),
    System("TLS to the gateway", f"tls: {{{OUTER}}}"),
    System("mutual TLS everywhere", f"tls: {{{OUTER}, {CLIENTS}}}", f", tls: {{{INNER}}}"),
    System("mutual TLS, keys", f"tls: {{{OUTER}, {CLIENTS}}}, keys: keys.json", f", tls: {{{INNER}}}", keyed=True),
)


def flowdex(folder: Path, *arguments: str) -> str:
    """Run a command; what it prints."""
    return subprocess.run(
        [sys.executable, *FLOWDEX, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


async def measure(folder: Path, seconds: float, rounds: int) -> None:
    """Fill in every system's loads."""
    flowdex(folder, "tls", "init", ".")
    key = flowdex(folder, "keys", "add", "load", "--role", "admin", "--file", "keys.json").strip()
    files = CertificateFiles(ca=folder / "ca.pem", certificate=folder / "client.pem", key=folder / "client.key")
    request = wire.build_request("/noop", DocumentBatch.from_columns(texts=["hello"]))
    for system in SYSTEMS:
        system.start(folder)
    for _ in range(rounds):
        for loads, in_flight in (("busy", IN_FLIGHT), ("alone", 1)):
            for system in SYSTEMS:
                metadata: Metadata = (("authorization", f"Bearer {key}"),) if system.keyed else ()
                load = await drive(
                    f"127.0.0.1:{system.port}",
                    wire.PROCESS_SINGLE_DATA,
                    request,
                    in_flight=in_flight,
                    seconds=seconds,
                    pids=system.servers.pids,
                    credentials=channel_credentials(files) if "tls:" in system.gateway else None,
                    metadata=metadata,
                )
                getattr(system, loads).append(load)


def report() -> None:
    """Print the table."""
    print("| | one at a time: p50 ms | ratio | server CPU ms a request, 32 in flight | ratio | requests/s | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    base = SYSTEMS[0]
    for system in SYSTEMS:
        cells = []
        for ours, theirs, value in (
            (system.alone, base.alone, lambda load: load.percentile(50)),
            (system.busy, base.busy, lambda load: load.cpu_ms),
            (system.busy, base.busy, lambda load: load.rate),
        ):
            median = statistics.median(map(value, ours))
            ratio = statistics.median(value(a) / value(b) for a, b in zip(ours, theirs, strict=True))
            cells.append(f"{median:.0f} | {ratio:.2f}" if median > 20 else f"{median:.2f} | {ratio:.2f}")
        print(f"| {system.name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often the systems take turns (default: %(default)s)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(Path(folder), options.seconds, options.rounds))
    finally:
        for system in SYSTEMS:
            system.servers.__exit__()
    report()


if __name__ == "__main__":
    main()
