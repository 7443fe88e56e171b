"""Metrics as Prometheus reads them: families of samples, made when it asks.

    counters of a process --gauge(), counter(), histogram()--> families --expose()--> text, version 0.0.4

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for what only grows.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from flowdex.certificates import CertificateFiles
from flowdex_orchestrator.observability.durations import BOUNDS, Durations

__all__ = ["Samples", "about_certificates", "about_process", "counter", "expose", "gauge", "histogram", "info"]

Samples = Mapping[str, float] | Mapping[tuple[str, str], float]
"""Value of each label, or of two labels in the order of their names -> value of the sample."""


def gauge(name: str, text: str, samples: float | Samples, *labels: str) -> Metric:
    """What goes up and down.

    Args:
        name: With its unit.
        text: What it is, for people.
        samples: One value, or one for each combination of labels.
        *labels: Their names.
    """
    return _filled(GaugeMetricFamily(name, text, labels=labels), samples)


def counter(name: str, text: str, samples: float | Samples, *labels: str) -> Metric:
    """What only grows; as `gauge`, with a name that ends in `_total`."""
    return _filled(CounterMetricFamily(name, text, labels=labels), samples)


def info(name: str, text: str, **labels: str) -> Metric:
    """Facts, as labels of a sample whose value is 1; the sample's name is `name` and `_info`."""
    return InfoMetricFamily(name, text, value=labels)


def histogram(name: str, text: str, samples: Mapping[str, Durations], label: str, **fixed: str) -> Metric:
    """Histograms of seconds by one label.

    Args:
        name: With its unit.
        text: What it is, for people.
        samples: Value of the label -> histogram.
        label: Its name.
        **fixed: Further labels, the same for all.
    """
    family = HistogramMetricFamily(name, text, labels=(*fixed, label))
    for value, durations in samples.items():
        family.add_metric((*fixed.values(), value), cumulated(BOUNDS, durations.buckets), durations.seconds)
    return family


def cumulated(bounds: Sequence[float], buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus counts them: what is at most the bound, and the last one all of them."""
    total, found = 0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), buckets, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


def about_process(process: str) -> Iterator[Metric]:
    """What every process says: versions, memory, CPU seconds, descriptors, start (where the system tells).

    Args:
        process: Its name in the flow, such as `encoder-0`.
    """
    yield info(
        "flowdex_build", "Versions.", process=process, version=version("flowdex"), python=platform.python_version()
    )
    yield from ProcessCollector(registry=None).collect()


def about_certificates(
    process: str, *, serving: CertificateFiles | None = None, calling: Iterable[CertificateFiles | None] = ()
) -> Iterator[Metric]:
    """How long the certificates of a process are still valid; looks at their files, which may have been renewed.

    Args:
        process: Its name in the flow.
        serving: What it shows those that connect to it.
        calling: What it shows those that it connects to; of several the first to end counts.
    """
    left: dict[tuple[str, str], float] = {}
    for use, files in (("serving", serving), *(("calling", each) for each in calling)):
        if files is None:
            continue
        files.current()
        if files.expires_in is not None:
            left[process, use] = min(files.expires_in, left.get((process, use), files.expires_in))
    yield gauge(
        "flowdex_certificate_expires_in_seconds",
        "Time that the certificate in use is still valid, negative after its end.",
        left,
        "process",
        "use",
    )


def expose(families: Iterable[Metric]) -> bytes:
    """The families in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([family for family in families if family.samples]))
    return generate_latest(registry)


class _Collected:
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        """Nothing: names are not compared with other collectors' as there are none."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What was given."""
        yield from self._families


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: float | Samples) -> Metric:
    if not isinstance(samples, Mapping):
        family.add_metric((), samples)
        return family
    for labels, value in samples.items():
        family.add_metric((labels,) if isinstance(labels, str) else labels, value)
    return family
