"""The same parts as `http_load.py`, by calls of an encoder's own method in this process: what serving it can reach.

    python in_process.py WORKLOAD.json --options '{"backend": "onnx"}' [--rounds-from-stdin]

It loads the encoder, then answers each line on its standard input with one round, as a JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from http_load import BULK, CONCURRENT, SEQUENTIAL, _some, quantile

from flowdex.documents import DocumentBatch


class InProcess:
    """An encoder, called as its worker calls it."""

    def __init__(self, options: dict[str, Any]) -> None:
        from flowdex_executors import BertEncoder

        self._encoder = BertEncoder(**options)
        self._encoder.warm_up()

    async def send(self, requests: list[list[str]], in_flight: int) -> tuple[float, list[float]]:
        """Keep `in_flight` calls going until all have returned; seconds in all, milliseconds of each (sorted)."""
        times: list[float] = []
        waiting = iter(requests)

        async def caller() -> None:
            from flowdex_executors import DocumentColumns

            for texts in waiting:
                start = time.perf_counter()
                await self._encoder.encode(DocumentColumns(DocumentBatch.from_columns(texts=texts)))
                times.append(1e3 * (time.perf_counter() - start))

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return time.perf_counter() - start, sorted(times)

    async def run(self, texts: list[str], queries: list[str]) -> dict[str, float]:
        """All parts."""
        bulk = [texts[start : start + BULK[0]] for start in range(0, len(texts), BULK[0])]
        await self.send([[query] for query in queries[:64]], 8)
        seconds, _ = await self.send(bulk, BULK[1])
        found = {"bulk_texts_s": len(texts) / seconds}
        _, times = await self.send([[query] for query in _some(queries, SEQUENTIAL)], 1)
        found |= {"sequential_p50_ms": quantile(times, 0.5), "sequential_p99_ms": quantile(times, 0.99)}
        seconds, times = await self.send([[query] for query in _some(queries, CONCURRENT[0])], CONCURRENT[1])
        found |= {"concurrent_rps": CONCURRENT[0] / seconds, "concurrent_p50_ms": quantile(times, 0.5)}
        return found | {"concurrent_p99_ms": quantile(times, 0.99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    options = parser.parse_args()
    work = json.loads(options.workload.read_text(encoding="utf-8"))

    async def serve() -> None:
        encoder = InProcess(options.options)
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await encoder.run(work["texts"], work["queries"])), flush=True)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
