"""Ties between the processes of a flow: a child that notices the death of the process that started it.

    runner --starts--> executor, gateway  (--parent-pid PID)
    runner killed  -->  watch_parent calls on_death in each  -->  they drain and exit: no orphans

Linux tells through a pidfd, at once and without a race on reused process ids. Elsewhere a thread polls.
PR_SET_PDEATHSIG is not used: it fires when the *thread* that forked ends, which a runner with a thread pool would learn
the hard way.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

__all__ = ["watch_parent"]

_POLL_SECONDS = 0.5
GRACE_SECONDS = 40.0


def watch_parent(pid: int, on_death: Callable[[], None], *, grace: float = GRACE_SECONDS) -> None:
    """Call `on_death` once, from a daemon thread, when the process `pid` is gone (also if it is gone already).

    Args:
        pid: The process to watch; usually the parent, but any process will do.
        on_death: Starts the shutdown. Runs in a thread of its own, so it should do no more than
            `loop.call_soon_threadsafe(...)` or `os.kill(os.getpid(), signal.SIGTERM)`.
        grace: Seconds after which a process that has still not ended by itself is ended with exit code 1, so that
            a stuck shutdown leaves no orphan.
    """
    # Both are opened here, not in the thread: what is watched is the process that has this pid now.
    descriptor = _open_pidfd(pid)
    is_parent = os.getppid() == pid

    def watch() -> None:
        if descriptor is not None:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)  # readable once the process has ended, zombie or not
            while not poll.poll():
                pass
            os.close(descriptor)
        else:
            while _alive(pid, is_parent):
                time.sleep(_POLL_SECONDS)
        on_death()
        time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def _open_pidfd(pid: int) -> int | None:
    """A descriptor of the process; None where the system has none to offer or the process is gone already."""
    opener: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return opener(pid)
    except OSError:
        return None


def _alive(pid: int, is_parent: bool) -> bool:
    if is_parent:
        return os.getppid() == pid  # an orphan is adopted the moment its parent ends
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
