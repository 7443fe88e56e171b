"""The size of an index, as Prometheus reads it.

documents, passages; bytes of an embedded index and of the disk it is on --> flowdex_index_*
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

__all__ = ["disk_metrics", "size_metrics"]


def size_metrics(documents: int, passages: int) -> Iterator[Metric]:
    """How much is in it."""
    yield GaugeMetricFamily("flowdex_index_documents", "Documents in the index.", documents)
    yield GaugeMetricFamily("flowdex_index_passages", "Passages in the index, which are points of Qdrant.", passages)


def disk_metrics(directory: Path) -> Iterator[Metric]:
    """How much room an embedded index takes, and how much there is.

    Raises:
        OSError: The folder cannot be read.
    """
    disk = shutil.disk_usage(directory)
    taken = _bytes_on_disk(directory)
    yield GaugeMetricFamily("flowdex_index_bytes", "What the files of the index take on disk.", taken)
    yield GaugeMetricFamily("flowdex_index_disk_free_bytes", "Room that is left on its disk.", disk.free)
    yield GaugeMetricFamily("flowdex_index_disk_size_bytes", "Size of its disk.", disk.total)


def _bytes_on_disk(directory: Path) -> int:
    """Blocks, not lengths: files of the engine have holes."""
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH116, PTH118 - many files
            except FileNotFoundError:
                continue  # it was merged away meanwhile
    return total
