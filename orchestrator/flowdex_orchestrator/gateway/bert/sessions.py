"""Who asked how often: the statistic in bert-as-service's status, under its names.

Request --Statistic.add--> counts --Statistic.values--> {num_data_request, avg_request_per_second, ...}
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection

__all__ = ["Statistic"]

_CLIENTS = 500  # that are told apart; the ones that asked least recently are forgotten
_INTERVALS = 200
_ACTIVE_SECONDS = 180.0


class Statistic:
    """Counts of requests and of clients.

    Args:
        clock: Seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._data_requests = 0
        self._system_requests = 0
        self._texts = 0
        self._clients_seen = 0
        self._requests: OrderedDict[bytes, int] = OrderedDict()
        self._last_seen: dict[bytes, float] = {}
        self._sizes: Counter[int] = Counter()
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._last_request: float | None = None

    def add(self, identity: bytes, texts: int | None) -> None:
        """Count a request.

        Args:
            identity: The client.
            texts: Number of its texts, None for a control message.
        """
        if identity not in self._requests:
            self._clients_seen += 1
        self._requests[identity] = self._requests.get(identity, 0) + 1
        self._requests.move_to_end(identity)
        if len(self._requests) > _CLIENTS:
            forgotten, _ = self._requests.popitem(last=False)
            self._last_seen.pop(forgotten, None)
        if texts is None:
            self._system_requests += 1
            return
        now = self._clock()
        self._data_requests += 1
        self._texts += texts
        if texts in self._sizes or len(self._sizes) < _CLIENTS:
            self._sizes[texts] += 1
        self._last_seen[identity] = now
        if self._last_request is not None:
            self._intervals.append(max(now - self._last_request, 1e-9))
        self._last_request = now

    def values(self) -> dict[str, float]:
        """The counts, as bert-as-service names them."""
        now = self._clock()
        return {
            "num_data_request": self._data_requests,
            "num_sys_request": self._system_requests,
            "num_total_request": self._data_requests + self._system_requests,
            "num_total_seq": self._texts,
            "num_total_client": self._clients_seen,
            "num_active_client": sum(now - seen < _ACTIVE_SECONDS for seen in self._last_seen.values()),
            **_spread("request_per_client", list(self._requests.values())),
            **_spread("size_per_request", list(self._sizes), self._texts / max(self._data_requests, 1)),
            **_spread("last_two_interval", self._intervals),
            **_spread("request_per_second", [1 / interval for interval in self._intervals]),
        }


def _spread(name: str, values: Collection[float], mean: float | None = None) -> dict[str, float]:
    """Mean (of the values, unless given), least and most, and how many are the least and the most; nothing of none."""
    if not values:
        return {}
    least, most = min(values), max(values)
    return {
        f"avg_{name}": sum(values) / len(values) if mean is None else mean,
        f"min_{name}": least,
        f"max_{name}": most,
        f"num_min_{name}": sum(value == least for value in values),
        f"num_max_{name}": sum(value == most for value in values),
    }
