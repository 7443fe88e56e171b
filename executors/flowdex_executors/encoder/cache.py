"""Where encoders keep what is costly to make and can be made again: hashes of weights, converted models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """`FLOWDEX_CACHE`, or `flowdex` in the platform's folder for caches. It may not exist, and not be writable."""
    own = os.environ.get("FLOWDEX_CACHE")
    if own:
        return Path(own).expanduser()
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises for a user that the machine does not know
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or f"{home}/AppData/Local"
    elif sys.platform == "darwin":
        base = f"{home}/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return Path(base) / "flowdex"
