"""Python's collector of cycles, kept from walking over modules again and again while they are imported.

    command begins --rest--> imports, loading --settle--> what is loaded is set aside, the collector works as usual

Importing makes some hundred thousand objects that all stay. With Python's thresholds the collector runs hundreds of
times meanwhile, and finds nothing.
"""

from __future__ import annotations

import gc

__all__ = ["rest", "settle"]

_USUAL = (700, 10, 10)  # Python's own, up to 3.13
_RESTING = 200_000  # objects: more than importing jina makes; of garbage, some ten megabytes at most


def rest() -> None:
    """Collect rarely, from now on."""
    gc.set_threshold(_RESTING, *_USUAL[1:])


def settle() -> None:
    """Set aside what is there, which stays: the collector need not walk over it while requests wait."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_USUAL)
