"""What the Dockerfile says, and its images run without a container engine.

    Dockerfile --parse--> stages --image_of--> Image(env, user, command, health check, ...)
    Image + an environment made by docker/install.sh --Container--> a process with what an engine would give it

A `Container` has PID, mount and network namespaces of its own, a root file system that is read-only but for /tmp and
its volumes, no capability, and the image's user. What it lacks is the base image: this machine's /usr and Python take
its place.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flow_support import ROOT

DOCKERFILE = ROOT / "Dockerfile"
TARGETS = ("gateway", "segmenter", "encoder-cpu", "encoder-gpu", "indexer", "ranker")
WITHOUT_TORCH = ("gateway", "segmenter", "indexer", "ranker")


# ---- the Dockerfile ----


@dataclass(frozen=True)
class Instruction:
    keyword: str
    arguments: str

    @property
    def words(self) -> list[str]:
        """The arguments, without options."""
        return [word for word in shlex.split(self.arguments) if not word.startswith("--")]

    @property
    def options(self) -> dict[str, str]:
        found = (word[2:].partition("=") for word in shlex.split(self.arguments) if word.startswith("--"))
        return {name: value for name, _, value in found}

    @property
    def exec_form(self) -> list[str]:
        """What ["a", "b"] says; fails on the shell form, which would put a shell between the engine and the process."""
        found = json.loads(self.arguments)
        assert isinstance(found, list)
        return found


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> list[Instruction]:
        return [each for each in self.instructions if each.keyword == keyword]


def parse(text: str) -> dict[str, Stage]:
    """The stages by their names, in order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    stages: dict[str, Stage] = {}
    for line in logical:
        keyword, arguments = line.split(None, 1)
        if keyword == "FROM":
            base, as_, name = arguments.split()
            assert as_ == "AS"
            stages[name] = Stage(name, base, ())
        else:
            *_, last = stages
            stages[last] = replace(
                stages[last], instructions=(*stages[last].instructions, Instruction(keyword, arguments))
            )
    return stages


@dataclass(frozen=True)
class Image:
    """What an engine keeps of a stage and those that it is built from."""

    target: str
    base: str
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = "root"
    folder: str = "/"
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    health: Sequence[str] = ()
    stop_signal: str = "SIGTERM"
    volumes: Sequence[str] = ()
    ports: Sequence[int] = ()
    copies: Sequence[Instruction] = ()


def image_of(target: str, stages: Mapping[str, Stage] | None = None) -> Image:
    stages = stages or parse(DOCKERFILE.read_text())
    stage = stages[target]
    image = image_of(stage.base, stages) if stage.base in stages else Image("", stage.base)
    image = replace(image, target=target)
    for each in stage.instructions:
        if each.keyword in ("ENV", "LABEL"):
            pairs = dict(word.split("=", 1) for word in each.words)
            image = (
                replace(image, env={**image.env, **pairs})
                if each.keyword == "ENV"
                else replace(image, labels={**image.labels, **pairs})
            )
        elif each.keyword == "USER":
            image = replace(image, user=each.arguments)
        elif each.keyword == "WORKDIR":
            image = replace(image, folder=each.arguments)
        elif each.keyword == "ENTRYPOINT":
            image = replace(image, entrypoint=each.exec_form)
        elif each.keyword == "CMD":
            image = replace(image, command=each.exec_form)
        elif each.keyword == "STOPSIGNAL":
            image = replace(image, stop_signal=each.arguments)
        elif each.keyword == "HEALTHCHECK":
            image = replace(image, health=json.loads(each.arguments.partition("CMD ")[2]))
        elif each.keyword == "VOLUME":
            image = replace(image, volumes=each.exec_form)
        elif each.keyword == "EXPOSE":
            image = replace(image, ports=[int(word) for word in each.words])
        elif each.keyword == "COPY":
            image = replace(image, copies=[*image.copies, each])
    return image


# ---- running an image ----

_MAKE_ROOT = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cd "$ROOT"
mkdir -p usr etc/flowdex proc dev tmp var/lib/flowdex var/cache/flowdex opt/flowdex ".$BASE"
mount --rbind /usr usr
mount --bind "$BASE" ".$BASE"
for each in bin sbin lib lib64; do ln -s "usr/$each" "$each"; done
for each in passwd group nsswitch.conf ld.so.cache localtime; do
    if [ -e "/etc/$each" ]; then cp -L "/etc/$each" etc; fi
done
printf '127.0.0.1 localhost\\n' > etc/hosts
if [ -n "$FLOW" ]; then cp "$FLOW" etc/flowdex/flow.yml; fi
chmod -R a+rX etc
mount --bind "$ENVIRONMENT" opt/flowdex
mount -t tmpfs -o mode=1777 tmpfs tmp
for each in $WRITABLE; do mount -t tmpfs -o "mode=755,uid=$OWNER,gid=$GROUP" tmpfs ".$each"; done
mount -t proc proc proc
mount --rbind /dev dev
mount -o remount,bind,ro usr
mount -o remount,bind,ro opt/flowdex
mount -o remount,bind,ro ".$BASE"
mount -o remount,ro "$ROOT"
ip link set lo up
cd "$ROOT"
# The change of the user takes all capabilities along.
exec setpriv --no-new-privs chroot --userspec="$OWNER:$GROUP" "$ROOT" env -i "$@"
"""


class Container:
    """One image's process.

    Args:
        image: The image.
        environment: The virtual environment that takes the place of /opt/flowdex.
        root: An empty folder to mount its root file system on.
        command: In the place of the image's.
        env: Over the image's.
        flow: Appears as /etc/flowdex/flow.yml.
        network: A container whose network it shares, as the containers of a pod do.
    """

    def __init__(
        self,
        image: Image,
        environment: Path,
        root: Path,
        *,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        flow: Path | None = None,
        network: Container | None = None,
    ) -> None:
        self.image = image
        self._log = root.with_suffix(".log")
        self._env = {**image.env, **(env or {})}
        owner, _, group = image.user.partition(":")
        self._user = (owner, group)
        root.mkdir()
        arguments = [*image.entrypoint, *(image.command if command is None else command)]
        enter = [] if network is None else ["nsenter", f"--net=/proc/{network.pid}/ns/net"]
        own = ["--pid", "--mount", *(["--net"] if network is None else [])]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *enter,
                    *("unshare", "--fork", "--kill-child", *own, "sh", "-eu", "-c", _MAKE_ROOT, "container"),
                    *self._assignments(),
                    *("sh", "-c", f'cd {image.folder} && exec "$@"', "container", *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.environ["PATH"],
                    "ROOT": str(root),
                    "BASE": sys.base_prefix,
                    "ENVIRONMENT": str(environment),
                    "WRITABLE": "/var/lib/flowdex /var/cache/flowdex",
                    "OWNER": owner,
                    "GROUP": group,
                    "FLOW": str(flow or ""),
                },
            )

    @property
    def pid(self) -> int:
        """The process that is number 1 inside."""
        deadline = time.monotonic() + 10
        while True:
            found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if found:
                return int(found[0])
            assert self._process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def run(
        self, *command: str, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `docker exec` does."""
        owner, group = self._user
        return subprocess.run(
            [
                *("nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--root", "--wd"),
                *(f"--setgid={group}", f"--setuid={owner}", "env", "-i", *self._assignments(env), *command),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def healthy(self) -> bool:
        """What the image's health check says."""
        return self.run(*self.image.health).returncode == 0

    def wait_healthy(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not self.healthy():
            assert self.running, f"{self.image.target} ended with {self._process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"{self.image.target} is not ready after {seconds} s:\n{self.log}"
            time.sleep(0.5)

    def stop(self, seconds: float = 40) -> int:
        """Stop it as an engine does; returns its exit code."""
        if self.running:
            os.kill(self.pid, getattr(signal, self.image.stop_signal))
        return self._process.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait(10)

    def _assignments(self, more: Mapping[str, str] | None = None) -> list[str]:
        return [f"{name}={value}" for name, value in {**self._env, **(more or {})}.items()]


def why_no_containers() -> str | None:
    """Why `Container` cannot work here; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux namespaces, which only root may make"
    try:
        tried = subprocess.run(
            ["unshare", "--fork", "--pid", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except FileNotFoundError as error:
        return f"needs {error.filename}"
    return tried.stderr.strip() or None if tried.returncode else None


def locked(name: str) -> Iterator[tuple[str, str]]:
    """(package, version) of a lock file."""
    text = (ROOT / "docker" / "locks" / f"{name}.txt").read_text()
    yield from re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
