"""The same parts as `http_load.py`, by calls of an encoder's own method in this process: what serving it can reach.

    python in_process.py WORKLOAD.json --options '{"backend": "onnx"}'

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

from http_load import Sent, run_parts

from flowdex.documents import DocumentBatch


class InProcess:
    """An encoder, called as its worker calls it."""

    def __init__(self, options: dict[str, Any]) -> None:
        from flowdex_executors import BertEncoder

        self._encoder = BertEncoder(**options)
        self._encoder.warm_up()

    async def send(self, requests: list[list[str]], in_flight: int) -> Sent:
        """Keep `in_flight` calls going until all have returned; as `Load.send`, without replies."""
        from flowdex_executors import DocumentColumns

        times: list[float] = []
        waiting = iter(requests)

        async def caller() -> None:
            for texts in waiting:
                start = time.perf_counter()
                await self._encoder.encode(DocumentColumns(DocumentBatch.from_columns(texts=texts)))
                times.append(1e3 * (time.perf_counter() - start))

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return time.perf_counter() - start, sorted(times), []


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
            print(json.dumps(await run_parts(encoder.send, work["texts"], work["queries"])), flush=True)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
