"""What a batcher has done, as Prometheus reads it.

    Batcher.counts --batch_metrics()--> flowdex_batch_* --the worker's metrics port--> Prometheus

How full batches are is `rate(tokens) / (rate(batches) * budget)`; how busy the compute threads,
`rate(compute seconds) / threads`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from flowdex_executors.encoder.batching import BATCH_SIZES, Batcher

__all__ = ["batch_metrics"]


def batch_metrics(batcher: Batcher[Any, Any]) -> Iterator[Metric]:
    """The metrics of a batcher."""
    counts = batcher.counts
    sizes = HistogramMetricFamily("flowdex_batch_sequences", "Texts, or windows of long ones, in a batch.")
    total, buckets = 0, []
    for bound, count in zip((*map(str, BATCH_SIZES), "+Inf"), counts.sizes, strict=True):
        total += count
        buckets.append((bound, total))
    sizes.add_metric((), buckets, counts.sequences)
    yield sizes
    yield CounterMetricFamily("flowdex_batch_tokens_total", "Tokens in batches, without padding.", counts.tokens)
    yield CounterMetricFamily(
        "flowdex_batch_compute_seconds_total", "Time that compute threads worked, each of them counted.", counts.seconds
    )
    yield CounterMetricFamily(
        "flowdex_batch_sequences_failed_total", "Sequences that could not be computed.", counts.failed
    )
    yield GaugeMetricFamily("flowdex_batch_budget_tokens", "Most tokens of a batch.", batcher.budget)
    yield GaugeMetricFamily("flowdex_batch_threads", "Compute threads.", batcher.threads)
    yield GaugeMetricFamily("flowdex_batch_sequences_waiting", "Sequences in the queue.", batcher.waiting)
