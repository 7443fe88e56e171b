"""The clients of other services, over flowdex's own transport: change the import, keep the code.

from flowdex.compat import BertClient, ConcurrentBertClient      # of bert-serving-client 1.10
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdex.compat.bert import BertClient, ConcurrentBertClient, Response

__all__ = ["BertClient", "ConcurrentBertClient", "Response"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flowdex.compat' has no attribute {name!r}")
    from flowdex.compat import bert

    return getattr(bert, name)
