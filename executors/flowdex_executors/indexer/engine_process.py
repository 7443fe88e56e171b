"""The indexer's end of the engine process: start it, hand it commands, notice its death.

    submit(command) -> Future      any thread
      -> queue, searches first     one thread writes a frame and reads its answer, one at a time
      -> pipe -> engine.py

The process starts on construction, and again when a command finds it dead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError, FlowdexError, InternalError, NotFound, Unavailable
from flowdex_executors.indexer.frames import Array, WithArrays, decode, encode, read_frame

__all__ = ["EngineProcess", "MissingShard"]

_URGENT, _NORMAL, _LAST = range(3)


class MissingShard(NotFound):
    """The shard of a command is not there, or no more."""


@dataclass(order=True)
class _Job:
    priority: int
    number: int
    frame: bytes = field(compare=False)
    done: Future[Any] = field(compare=False)


class EngineProcess:
    """One engine process and the queue before it.

    Args:
        directory: Folder of the index.
        lock: Descriptor of its lock, which the process inherits.
        durability: `process` or `fsync`: what an acknowledged update survives.
        niceness: How much the process yields to others, 0 to 19.

    Raises:
        Unavailable: The process does not start.
    """

    def __init__(self, directory: Path, lock: int, *, durability: str = "process", niceness: int = 0) -> None:
        self._directory = directory
        self._lock_descriptor = lock
        self._arguments = [str(directory), durability, str(niceness)]
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closed = self._killed = False
        self._lock = threading.Lock()
        self._process = self._start()
        # A daemon, so that an interpreter that never calls close() still ends; its pipe then ends the engine.
        self._thread = threading.Thread(target=self._serve, name="index-engine", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def submit(self, body: dict[str, Any], arrays: Sequence[Array] = (), *, urgent: bool = False) -> Future[Any]:
        """Queue a command; urgent ones (searches) go ahead of the others, writes stay in order.

        Returns:
            A future of the command's result. It raises `Unavailable` where the process has died (the next command
            starts another) and `InternalError` where the engine refuses.
        """
        job = _Job(_URGENT if urgent else _NORMAL, next(self._numbers), encode(body, arrays), Future())
        with self._lock:
            if self._closed:
                raise Unavailable("the index is closed")
            self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Finish what is queued, flush, end the process. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(_Job(_LAST, next(self._numbers), b"", Future()))
        self._thread.join()

    def kill(self) -> None:
        """End the process at once, whatever it does: what it writes is not wanted any more. Then `close` it."""
        self._killed = True
        self._process.kill()

    # ---- the thread ----

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            if job.priority == _LAST:
                self._stop()
                return
            if not job.done.set_running_or_notify_cancel():
                continue  # whoever asked has gone before it began
            try:
                if self._killed:
                    raise Unavailable("the index is closed")
                if self._process.poll() is not None:
                    self._process = self._start()
                result = self._call(job.frame)
            except FlowdexError as error:
                job.done.set_exception(error)
            except Exception as error:  # an answer that is no frame: a defect, told to the caller, never a dead thread
                job.done.set_exception(InternalError(f"the index engine gave an unreadable answer: {error}"))
            else:
                job.done.set_result(result)

    def _call(self, frame: bytes) -> Any:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(frame)
            process.stdin.flush()
        except BrokenPipeError:
            answer = None
        else:
            answer = read_frame(process.stdout.read)
        if answer is None:
            code = self._end(process)
            raise Unavailable(
                f"the index engine of {self._directory} ended unexpectedly ({_describe(code)}); "
                "it is started again, and nothing acknowledged is lost",
                retry_after=0.5,
            )
        return _result(answer, self._directory)

    def _start(self) -> subprocess.Popen[bytes]:
        # The child finds this very package, however the parent found it.
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "flowdex_executors.indexer.engine", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._lock_descriptor],
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdout is not None
        answer = read_frame(process.stdout.read)
        if answer is None:
            code = self._end(process)
            raise Unavailable(f"the index engine of {self._directory} does not start ({_describe(code)}); see its log")
        return process

    def _stop(self) -> None:
        self._end(self._process)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> int:
        """Close the pipe, which tells the process to flush and end, and wait for that."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            code = process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()  # the write-ahead log keeps what it could not flush
            code = process.wait()
        process.stdout.close()
        return code


def _result(answer: bytes, directory: Path) -> Any:
    body, arrays = decode(answer)
    if "error" not in body:
        return WithArrays(body["result"], arrays) if arrays else body["result"]
    kind, message = body["error"], body["message"]
    if kind == "missing":
        raise MissingShard(message)
    if kind == "full":
        raise Unavailable(
            f"there is no room left for the index in {directory} ({message}); free some and send again what was not "
            "acknowledged: nothing that was is lost, and searches go on",
            retry_after=5.0,
        )
    if kind == "damaged":
        raise ConfigurationError(
            f"files of the index in {directory} are damaged and cannot be opened: stop the flow, move the folder away, "
            f"start the flow, and restore a snapshot (docs/runbook.md, Corrupted index). The engine says: {message}"
        )
    if kind == "disk":
        raise Unavailable(f"the index folder {directory} cannot be written: {message}", retry_after=5.0)
    raise InternalError(f"the index engine failed: {message}")


def _describe(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
