"""Import jina without what docarray tries to import beside it.

docarray imports torch, tensorflow and jax when they are installed, to know their tensor types: two thirds of the time
and of the memory of `import jina`. Executors of flowdex itself never use those types (their documents are columns, see
`flowdex_executors.schema`), so in a process that hosts one of them docarray need not see these packages.

    segmenter, indexer, ranker: import jina 1.4 s, 88 MiB instead of 3.4 s, 273 MiB; none of them imports torch later
    encoder: imports torch itself, later and as always
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import flowdex_executors  # imported before jina it stays lazy, imported after jina it loads every executor

if TYPE_CHECKING:
    from flowdex_orchestrator.flow.model import Executor

__all__ = ["import_jina_for"]

_OURS = "flowdex_executors."
_FRAMEWORKS = ("torch", "tensorflow", "jax")


def import_jina_for(*executors: Executor) -> None:
    """Import jina, lightly if the process will host nothing but executors of flowdex itself.

    Does nothing where docarray is imported already, where somebody else's code comes along, or where jina is missing
    (whoever needs it says so better).
    """
    if "docarray" in sys.modules or not all(map(_is_ours, executors)):
        return
    hidden = [name for name in _FRAMEWORKS if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make `import` fail
    try:
        with contextlib.suppress(ImportError):
            import jina  # noqa: F401
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def _is_ours(executor: Executor) -> bool:
    uses = executor.uses
    if not isinstance(uses, str) or executor.py_modules:
        return False
    return uses.startswith(_OURS) or uses in flowdex_executors.__all__
