"""Counts and times of what has ended, kept as plain numbers: a request pays for a few additions.

Durations.observe(seconds, failed) --> buckets, seconds, failed --> quantile(), summary(), families.histogram()
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

__all__ = ["BOUNDS", "Durations"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram in seconds."""


class Durations:
    """A histogram of what has ended.

    Attributes:
        buckets: How many took at most `BOUNDS[i]` seconds and more than the bound before; the last: more than all.
        seconds: Of all together.
        failed: How many of them ended with an error.
    """

    __slots__ = ("buckets", "failed", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.failed = 0

    def observe(self, seconds: float, failed: bool) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.failed += failed

    def quantile(self, share: float) -> float | None:
        """Seconds in which this share of them had ended, interpolated as Prometheus does; None where there are none.

        Of those beyond the largest bound no more is known than that: it is the answer.
        """
        count = sum(self.buckets)
        if not count:
            return None
        wanted, below = share * count, 0
        for bound, here, start in zip(BOUNDS, self.buckets, (0.0, *BOUNDS), strict=False):
            if here and below + here >= wanted:
                return start + (bound - start) * (wanted - below) / here
            below += here
        return BOUNDS[-1]

    def summary(self) -> dict[str, Any]:
        """JSON values: count, failed, mean and quantiles in milliseconds, and the buckets."""
        count = sum(self.buckets)

        def rounded(seconds: float | None) -> float | None:
            return None if seconds is None else round(1000 * seconds, 3)

        return {
            "count": count,
            "failed": self.failed,
            "mean_ms": rounded(self.seconds / count if count else None),
            "p50_ms": rounded(self.quantile(0.5)),
            "p95_ms": rounded(self.quantile(0.95)),
            "p99_ms": rounded(self.quantile(0.99)),
            "buckets": list(self.buckets),
        }
