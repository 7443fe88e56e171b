"""flowdex: serve any text representation and search over it. `from flowdex import Client`.

Every public name is imported when it is first used, so that `import flowdex` (and with it the command line) costs
nothing; a type checker sees ordinary imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdex.async_client import AsyncClient
    from flowdex.attention import Attention
    from flowdex.client import Client
    from flowdex.encodings import Encoding, Encodings, Receipt, Tokens
    from flowdex.errors import (
        Cancelled,
        ConfigurationError,
        Conflict,
        DeadlineExceeded,
        ExecutorError,
        FlowdexError,
        InternalError,
        InvalidInput,
        NotFound,
        Overloaded,
        PermissionDenied,
        TooLarge,
        Unauthenticated,
        Unavailable,
    )
    from flowdex.inputs import Document, WrongType
    from flowdex.ranking import RankedText
    from flowdex.results import ExecutorStatus, FlowStatus, Hit, IndexFailure, IndexResult, Passage, SearchResult
    from flowdex.stored import StoredDocument, StoredPassage

    __version__: str

_HOMES = {
    "flowdex.async_client": ("AsyncClient",),
    "flowdex.attention": ("Attention",),
    "flowdex.client": ("Client",),
    "flowdex.encodings": ("Encoding", "Encodings", "Receipt", "Tokens"),
    "flowdex.errors": (
        "Cancelled",
        "ConfigurationError",
        "Conflict",
        "DeadlineExceeded",
        "ExecutorError",
        "FlowdexError",
        "InternalError",
        "InvalidInput",
        "NotFound",
        "Overloaded",
        "PermissionDenied",
        "TooLarge",
        "Unauthenticated",
        "Unavailable",
    ),
    "flowdex.inputs": ("Document", "WrongType"),
    "flowdex.results": (
        "ExecutorStatus",
        "FlowStatus",
        "Hit",
        "IndexFailure",
        "IndexResult",
        "Passage",
        "SearchResult",
    ),
    "flowdex.ranking": ("RankedText",),
    "flowdex.stored": ("StoredDocument", "StoredPassage"),
}

__all__ = [
    "AsyncClient",
    "Attention",
    "Cancelled",
    "Client",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "Document",
    "Encoding",
    "Encodings",
    "ExecutorError",
    "ExecutorStatus",
    "FlowStatus",
    "FlowdexError",
    "Hit",
    "IndexFailure",
    "IndexResult",
    "InternalError",
    "InvalidInput",
    "NotFound",
    "Overloaded",
    "Passage",
    "PermissionDenied",
    "RankedText",
    "Receipt",
    "SearchResult",
    "StoredDocument",
    "StoredPassage",
    "Tokens",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "WrongType",
    "__version__",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("flowdex")
        else:
            from importlib import import_module

            home = next((module for module, names in _HOMES.items() if name in names), None)
            if home is None:
                raise AttributeError(f"module 'flowdex' has no attribute {name!r}")
            value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
