"""A network for pods that are processes of this machine: an address for each, and names as a cluster has them.

                        +-- namespace fx123-encoder-1   198.18.7.11 --+
    tests, probes  -----+-- namespace fx123-gateway-1   198.18.7.12 --+-- bridge, in a namespace too
    198.18.7.1: DNS     +-- ...

`Namespaces` needs root, `ip` and a kernel that lets it. `Loopback` is what there is elsewhere: an address 127.x.y.z
for each pod, which has to listen on that one alone, and a `socket.getaddrinfo` that asks the DNS responder (see
pod_process.py).
What a network makes has this process's id in its name, and goes with `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

DOMAIN = "svc.cluster.local"
_ETC = Path("/etc/netns")


@dataclass(frozen=True)
class Place:
    """Where a pod lives."""

    name: str
    address: str


class Network(Protocol):
    """Addresses, and processes that have them."""

    address: str
    """Of this machine: where the DNS responder listens."""
    dns_port: int

    def place(self, name: str, namespace: str) -> Place:
        """An address for a pod."""
        ...

    def service_address(self) -> str:
        """An address of this machine that is a Service's."""
        ...

    def adapt(self, value: str, place: Place, services: Mapping[str, str]) -> str:
        """What an argument or a variable of a container has to be here."""
        ...

    def start(self, place: Place, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Run a command at a place."""
        ...

    def remove(self, place: Place) -> None:
        """Take a pod's address back."""
        ...

    def close(self) -> None:
        """End all processes and leave nothing behind."""
        ...


class _Processes:
    """Those that were started here, to be ended at last whatever happens."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=True, **options)
        self._started.append(process)
        return process

    def close(self) -> None:
        for each in self._started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(each.pid, signal.SIGKILL)  # a group outlives its leader: what that started goes too
            each.wait(10)
        self._started.clear()


class Loopback:
    """Addresses 127.x.y.z: no namespaces, no rights needed, Linux only.

    Pods listen on their own address in place of all, as they share the machine's ports.
    """

    def __init__(self) -> None:
        pid = os.getpid()
        self._prefix = f"127.{64 + pid % 64}.{pid // 64 % 250 + 1}"
        self._last = 1
        self._processes = _Processes()
        self.address = f"{self._prefix}.1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((self.address, 0))
            self.dns_port = free.getsockname()[1]

    def place(self, name: str, namespace: str) -> Place:
        return Place(name, self.service_address())

    def service_address(self) -> str:
        self._last += 1
        return f"{self._prefix}.{self._last}"

    def adapt(self, value: str, place: Place, services: Mapping[str, str]) -> str:
        if value == "0.0.0.0":
            return place.address
        for name, address in services.items():  # gRPC's own resolver asks the system, which has never heard of them
            value = value.replace(f"grpc://{name}:", f"grpc://{address}:")
        return value

    def start(self, place: Place, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        if command[:3] == [sys.executable, "-m", "flowdex"]:
            names = Path(__file__).with_name("pod_process.py")
            command = [sys.executable, str(names), f"{self.address}:{self.dns_port}", *command[3:]]
        return self._processes.run(command, **options)

    def remove(self, place: Place) -> None:
        pass

    def close(self) -> None:
        self._processes.close()


class Namespaces:
    """Network namespaces, joined by a bridge; each with the resolv.conf that Kubernetes writes."""

    dns_port = 53

    def __init__(self) -> None:
        self._id = f"fx{os.getpid()}"
        self._prefix = _unused_prefix()
        self._last = 1
        self._processes = _Processes()
        self._namespaces: list[str] = []
        self._made: list[Path] = []
        self.address = f"{self._prefix}.1"
        node = f"{self._id}-node"
        try:
            # The bridge has a namespace of its own, where no firewall of this machine filters what crosses it.
            self._add(node)
            _ip("-n", node, "link", "add", "bridge", "type", "bridge")
            _ip("-n", node, "link", "set", "bridge", "up")
            _ip("link", "add", self._id, "type", "veth", "peer", "name", "host", "netns", node)
            _ip("-n", node, "link", "set", "host", "master", "bridge", "up")
            _ip("address", "add", f"{self.address}/24", "dev", self._id)
            _ip("link", "set", self._id, "up")
        except BaseException:
            self.close()
            raise

    def place(self, name: str, namespace: str) -> Place:
        self._last += 1
        number, found = self._last, f"{self._id}-{name}"
        place = Place(found, f"{self._prefix}.{number}")
        self._write_etc(found, place.address, namespace)
        self._add(found)
        node = f"{self._id}-node"
        _ip("link", "add", "eth0", "netns", found, "type", "veth", "peer", "name", f"pod{number}", "netns", node)
        _ip("-n", node, "link", "set", f"pod{number}", "master", "bridge", "up")
        _ip("-n", found, "address", "add", f"{place.address}/24", "dev", "eth0")
        _ip("-n", found, "link", "set", "lo", "up")
        _ip("-n", found, "link", "set", "eth0", "up")
        return place

    def service_address(self) -> str:
        self._last += 1
        address = f"{self._prefix}.{self._last}"
        _ip("address", "add", f"{address}/24", "dev", self._id)
        return address

    def adapt(self, value: str, place: Place, services: Mapping[str, str]) -> str:
        return value

    def start(self, place: Place, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return self._processes.run(["ip", "netns", "exec", place.name, *command], **options)

    def remove(self, place: Place) -> None:
        self._delete(place.name)

    def close(self) -> None:
        self._processes.close()
        if Path("/sys/class/net", self._id).exists():
            _ip("link", "delete", self._id)
        for name in [*self._namespaces]:
            with contextlib.suppress(subprocess.SubprocessError):  # whatever it is, the others go
                self._delete(name)
        for path in reversed(self._made):
            with contextlib.suppress(OSError):  # /etc/netns itself, where somebody else's lie in it by now
                path.rmdir()
        self._made.clear()

    def _add(self, name: str) -> None:
        _ip("netns", "add", name)
        self._namespaces.append(name)

    def _delete(self, name: str) -> None:
        folder = _ETC / name
        if folder in self._made:
            shutil.rmtree(folder)
            self._made.remove(folder)
        if name in self._namespaces:
            self._namespaces.remove(name)
            _ip("netns", "delete", name)

    def _write_etc(self, name: str, address: str, namespace: str) -> None:
        """What `ip netns exec` shows in the place of /etc/*."""
        for folder in (_ETC, _ETC / name):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                self._made.append(folder)
        search = f"search {namespace}.{DOMAIN} {DOMAIN} cluster.local"
        files = {
            "resolv.conf": f"nameserver {self.address}\n{search}\noptions ndots:5\n",
            "hosts": f"127.0.0.1 localhost\n{address} {name}\n",
            "nsswitch.conf": "hosts: files dns\n",
        }
        for file, text in files.items():
            if Path("/etc", file).exists():  # what there is not, there is nothing to put in the place of
                (_ETC / name / file).write_text(text)


def why_no_namespaces() -> str | None:
    """Why `Namespaces` cannot work here; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    try:
        network = Namespaces()
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces cannot be made: {getattr(error, 'stderr', None) or error}".strip()
    try:
        place = network.place("trial", "trial")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind((network.address, 0))
            listener.settimeout(20)
            say = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', {listener.getsockname()!r})"
            network.start(place, [sys.executable, "-S", "-c", say])
            listener.recv(1)
    except (OSError, subprocess.SubprocessError) as error:
        return f"a network namespace cannot reach this machine: {getattr(error, 'stderr', None) or error}".strip()
    finally:
        network.close()
    return None


def why_no_loopback() -> str | None:
    """Why `Loopback` cannot work here; None if it can."""
    try:
        Loopback()
    except OSError as error:
        return f"127.0.0.0/8 is not this machine's: {error}"
    return None


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def _unused_prefix() -> str:
    """A /24 of the network that is set aside for tests of network devices (RFC 2544)."""
    taken = _ip("-o", "-4", "address") + _ip("-4", "route")
    for offset in range(512):
        number = (os.getpid() + offset) % 512
        prefix = f"198.{18 + number // 256}.{number % 256}"
        if f"{prefix}." not in taken:
            return prefix
    raise OSError("every network of 198.18.0.0/15 is in use")


# ---- names ----

_A, _NO_SUCH_NAME = 1, 3


class NameServer(asyncio.DatagramProtocol):
    """Answers A questions over UDP, with the addresses that `lookup` has for a name, None for a name there is not."""

    def __init__(self, lookup: Callable[[str], Sequence[str] | None]) -> None:
        self._lookup = lookup
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(self._answer(data), addr)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        (kind,) = struct.unpack_from("!H", query, at + 1)
        found = self._lookup(".".join(labels))
        addresses = found or () if kind == _A else ()
        code = _NO_SUCH_NAME if found is None else 0
        head = struct.pack("!2sHHHHH", query[:2], 0x8580 | code, 1, len(addresses), 0, 0)
        records = b"".join(
            struct.pack("!HHHIH4s", 0xC00C, _A, 1, 5, 4, socket.inet_aton(address)) for address in addresses
        )
        return head + query[12 : at + 5] + records


def ask(name: str, server: tuple[str, int], seconds: float = 5.0) -> list[str] | None:
    """The addresses that a `NameServer` has for a name, None if there is no such name.

    Raises:
        TimeoutError: It does not answer.
    """
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    query = struct.pack("!HHHHHH", time.monotonic_ns() & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(seconds)
        asking.connect(server)
        asking.send(query)
        reply = asking.recv(4096)
    if reply[3] & 0xF:
        return None
    (count,) = struct.unpack_from("!H", reply, 6)
    return [socket.inet_ntoa(reply[end - 4 : end]) for end in range(len(reply) - 16 * (count - 1), len(reply) + 1, 16)]
