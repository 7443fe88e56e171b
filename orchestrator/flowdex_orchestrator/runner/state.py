"""What the runner writes down while a flow runs, so that other commands find it: `state.json`, a lock, logs.

    .flowdex/run/flow/          one folder a flow file (here flow.yml)
        lock                    held (flock) by the runner as long as it lives
        token                   of the runner that lives, readable by its user alone
        state.json              FlowState: replaced atomically at every change
        flow-0a1b2c.yml         what the processes read: the flow file as it was at the start, or at the last reload
        logs/encoder-0.log      output of the replica; the previous run's is encoder-0.log.1
        logs/gateway.log, logs/runner.log

A process is known by its id *and* its start time: ids are used again, so a stale state file must never make anyone
signal a stranger.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError, Conflict, PermissionDenied, Unavailable
from flowdex.formats import NewerFormat, flowdex_version, refuse_newer

__all__ = [
    "FlowState",
    "ProcessId",
    "ProcessState",
    "RunFolder",
    "State",
    "Status",
    "fingerprint_of",
]

HOME_VARIABLE = "FLOWDEX_HOME"
_VERSION = 1
_PROC = Path("/proc")


def fingerprint_of(text: str) -> str:
    """What tells one content of a flow file from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class State(str, Enum):
    """Where one process is in its life."""

    LOADING = "loading"  # started, not serving yet
    READY = "ready"
    UNREADY = "unready"  # was ready; answers health checks, and that it takes no requests
    UNRESPONSIVE = "unresponsive"  # runs, but does not answer health checks any more
    WAITING = "waiting"  # ended by itself; starts again after a pause
    FAILED = "failed"  # ended too often in a row (tried again, but rarely), or before the flow was ready
    STOPPING = "stopping"
    STOPPED = "stopped"


class Status(str, Enum):
    """Where the whole flow is in its life."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"  # was ready; now some process is not
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ProcessId:
    """A process, told from a later one with the same id by its start time (a string that only compares)."""

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Identify a running process; None when there is none (a zombie counts as none)."""
        if _PROC.joinpath("self", "stat").exists():
            return cls._from_proc(pid)
        return cls._from_ps(pid)

    @classmethod
    def _from_proc(cls, pid: int) -> ProcessId | None:
        try:
            text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()  # the name before it may hold spaces; state is field 0 of the rest
        return None if fields[0] in "ZX" else cls(pid, fields[19])

    @classmethod
    def _from_ps(cls, pid: int) -> ProcessId | None:
        ps = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # nosec B607 # who starts the runner chooses its PATH
        status, _, start = ps.stdout.strip().partition(" ")
        return None if not start or status.startswith("Z") else cls(pid, start.strip())

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self


@dataclass
class ProcessState:
    """One process of the flow, as shown by `flowdex ps`. Times are seconds since the epoch."""

    name: str  # the executor's name, or "gateway"
    replica: int | None  # None for the gateway
    host: str
    port: int
    log: str = ""  # path of the log file; empty for an external executor
    state: State = State.LOADING
    process: ProcessId | None = None
    restarts: int = 0
    started_at: float | None = None  # of the process that runs now, or ran last
    ready_at: float | None = None
    cause: str = ""  # why it ended, or what it waits for
    metrics_port: int | None = None  # of loopback; None for an external executor

    @property
    def label(self) -> str:
        """The name under which logs and messages know it: `encoder-0`, `gateway`."""
        return self.name if self.replica is None else f"{self.name}-{self.replica}"


@dataclass
class FlowState:
    """The whole flow. Times are seconds since the epoch."""

    flow: str  # absolute path of the flow file
    name: str
    runner: ProcessId
    status: Status = Status.STARTING
    started_at: float = field(default_factory=time.time)
    ready_at: float | None = None
    endpoints: dict[str, str] = field(default_factory=dict)  # protocol -> URL
    processes: list[ProcessState] = field(default_factory=list)
    error: str = ""  # why the start failed
    grace: float = 0.0  # seconds that an orderly stop may take
    control: str = ""  # address at which the runner takes commands
    metrics: str = ""  # URL of the runner's metrics
    fingerprint: str = ""  # of the flow file's content that the processes run
    reloaded_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether the runner that wrote this is alive."""
        return self.runner.alive

    def survivors(self) -> list[ProcessId]:
        """Processes of the flow that are alive."""
        return [p.process for p in self.processes if p.process is not None and p.process.alive]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the version that writes them."""
        return {"version": _VERSION, "flowdex": flowdex_version(), **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FlowState:
        """From JSON values; keys that this version does not know are passed over.

        Raises:
            NewerFormat: A newer version of flowdex wrote it.
            KeyError, TypeError, ValueError: It is no state.
        """
        refuse_newer(
            "the state of the flow",
            data["version"],
            _VERSION,
            written_by=data.get("flowdex"),
            remedy="a runner of that version is stopped by SIGTERM to the process that holds the file `lock` beside it",
        )
        processes = []
        for item in data["processes"]:
            identity = item["process"]
            known = {**_known(ProcessState, item), "state": State(item["state"])}
            processes.append(ProcessState(**{**known, "process": identity and ProcessId(**identity)}))
        values = {**_known(cls, data), "status": Status(data["status"]), "runner": ProcessId(**data["runner"])}
        return cls(**{**values, "processes": processes})


def _known(kind: type[ProcessState] | type[FlowState], data: dict[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {key: value for key, value in data.items() if key in names}


class RunFolder:
    """The folder that holds a flow's lock, state and logs.

    Args:
        flow: The flow file.
        base: The folder in which the flow runs: `.flowdex` is made there.
        home: Takes the place of that `.flowdex`. Default: the environment variable FLOWDEX_HOME, if set.
    """

    def __init__(self, flow: Path, base: Path, home: Path | None = None) -> None:
        if home is None and (named := os.environ.get(HOME_VARIABLE)):
            home = Path(named).expanduser()
        self.path = (home or base / ".flowdex") / "run" / flow.stem
        self.logs = self.path / "logs"
        self._state = self.path / "state.json"
        self._lock = self.path / "lock"
        self._token = self.path / "token"

    def log(self, label: str) -> Path:
        """The log file of a process."""
        return self.logs / f"{label}.log"

    def read(self) -> FlowState | None:
        """The last written state; None when there is none.

        Raises:
            NewerFormat: A newer version of flowdex wrote it.
        """
        try:
            return FlowState.from_json(json.loads(self._state.read_text(encoding="utf-8")))
        except NewerFormat:
            raise
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            return None

    def former(self) -> FlowState | None:
        """The same for who holds the lock, so that no runner lives: what a newer version left is no obstacle."""
        try:
            return self.read()
        except NewerFormat:
            return None

    def keep_text(self, text: str) -> Path:
        """Write down a flow file's content, for the processes to read; where it is."""
        path = self.path / f"flow-{fingerprint_of(text)}.yml"
        if not path.exists():
            staging = path.with_suffix(".new")
            staging.touch(mode=0o600)  # a flow file may hold secrets, and its own mode is its author's choice
            staging.write_text(text, encoding="utf-8")
            staging.replace(path)
        return path

    def forget_texts(self, *kept: Path) -> None:
        """Remove what `keep_text` wrote, but for these."""
        for path in self.path.glob("flow-*.yml"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def read_token(self) -> str:
        """The token that the runner wants to be shown.

        Raises:
            PermissionDenied: The flow is another user's.
            Unavailable: There is none.
        """
        try:
            return self._token.read_text(encoding="ascii")
        except PermissionError:
            raise PermissionDenied(f"{self._token} cannot be read: the flow belongs to another user") from None
        except OSError as error:
            raise Unavailable(f"{self._token} cannot be read: {error.strerror}") from None

    def write_token(self, token: str) -> None:
        """Leave the runner's token for commands of the same user."""
        self._token.unlink(missing_ok=True)
        descriptor = os.open(self._token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, token.encode("ascii"))
        finally:
            os.close(descriptor)

    def write(self, state: FlowState) -> None:
        """Replace the state file; a reader sees the old one or the new one, never a half."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self._state.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(state.to_json(), indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._state)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the flow's lock; it ends with the process at the latest, however that ends.

        Raises:
            Conflict: Another runner holds it; the message names its process id.
            ConfigurationError: The folder cannot be written to.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write the state of the flow to {self.path}: {error.strerror}; "
                f"set {HOME_VARIABLE} to a folder that is yours"
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(self._held_by(os.pread(descriptor, 32, 0))) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _held_by(self, pid: bytes) -> str:
        state = self.former()
        flow = state.flow if state is not None and state.running else "this flow"
        return (
            f"{flow} is running already (process {pid.decode(errors='replace') or 'unknown'}, state in {self.path}); "
            "see it with `flowdex ps`, stop it with `flowdex down`"
        )
