"""What an encoder replica holds, against its backend alone; what a second replica adds.

    alone:     a process with the backend, the tokenizer, and as many compute threads      -> RSS, PSS
    replica:   `flowdex executor`, after the same texts over gRPC                          -> RSS, PSS, times the above
    second:    another replica beside it: the memory that both hold together, less that of one

    python benchmarks/memory.py [--backends packed,onnx,ctranslate2] [--rounds 2] [--threads 2]

RSS counts a page in each process that maps it; PSS shares it between them, so that the PSS of all processes adds up to
what the machine gives. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import grpc.aio
from load import CHANNEL_OPTIONS
from process_watch import Sample, read_process
from servers import HERE, Servers, free_ports

from flowdex import wire
from flowdex.documents import DocumentBatch

BATCH_TOKENS = 1024
REQUEST = 64
IN_FLIGHT = 4


def sample_texts(count: int = 256) -> list[str]:
    """Docstrings of this machine's standard library, of very different lengths."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    from stdlib_docs import documents

    return [document["text"] for document in islice(documents(Path(sysconfig.get_path("stdlib"))), count)]


def compute_alone(name: str, threads: int, rounds: int) -> None:
    """Be the process with the backend alone: read the texts, compute, say so, and wait to be ended."""
    import torch

    from flowdex_executors.encoder.backend import Backend
    from flowdex_executors.encoder.ctranslate2_backend import CTranslate2Backend
    from flowdex_executors.encoder.model_files import read_model
    from flowdex_executors.encoder.onnx_backend import load_onnx
    from flowdex_executors.encoder.packed_bert import PackedBert
    from flowdex_executors.encoder.pooling import pool
    from flowdex_executors.encoder.tokenising import TextTokenizer, TokeniseOptions

    files = read_model(None)
    backend: Backend
    if name == "onnx":
        backend = load_onnx(files)
    elif name == "ctranslate2":
        backend = CTranslate2Backend(files, "cpu", threads=threads)
    else:
        backend = PackedBert(files, "cpu", "float32")
    sequences = TextTokenizer(files).tokenise(
        json.loads(sys.stdin.readline()), TokeniseOptions(max_tokens=files.max_tokens)
    )
    batches: list[list[object]] = [[]]
    for sequence in sorted(sequences, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * len(sequence) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(sequence)

    def work(own: Sequence[list[object]]) -> None:
        torch.set_num_threads(1)
        for _ in range(rounds):
            for batch in own:
                with torch.inference_mode():
                    computed = backend.forward(batch)  # type: ignore[arg-type]
                    pool(computed.layers[0], computed.lengths, ["mean"]).numpy()

    workers = [threading.Thread(target=work, args=(batches[number::threads],)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("ready", flush=True)
    sys.stdin.read()


def measure_alone(name: str, threads: int, rounds: int) -> Sample:
    """What the backend alone holds."""
    command = [sys.executable, str(Path(__file__)), "--alone", name, "--threads", str(threads), "--rounds", str(rounds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(sample_texts()) + "\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"the backend {name} alone failed")
        found = read_process(process.pid, "alone")
        process.stdin.close()
    return found


def measure_replicas(name: str, threads: int, rounds: int) -> tuple[Sample, list[Sample]]:
    """What one replica holds, and then each of two."""
    with Servers() as servers, tempfile.TemporaryDirectory(prefix="benchmark-memory-") as folder:
        flow = Path(folder) / "flow.yml"
        flow.write_text(
            "jtype: Flow\nexecutors:\n  - name: encoder\n    uses: flowdex_executors.BertEncoder\n"
            f"    uses_with: {{backend: {name}, threads: {threads}, batch_tokens: {BATCH_TOKENS}}}\n"
        )
        pids, first = [], None
        for _ in range(2):
            (port,) = free_ports(1)
            process = servers.start(["-m", "flowdex", "executor", "encoder", "--flow", str(flow), "--port", str(port)])
            servers.wait_for(port)
            asyncio.run(_send(port, rounds))
            pids.append(process.pid)
            first = first or read_process(process.pid, "replica")
        return first, [read_process(pid, "replica") for pid in pids]


async def _send(port: int, rounds: int) -> None:
    texts = sample_texts()
    parts = [texts[at : at + REQUEST] for at in range(0, len(texts), REQUEST)] * rounds
    requests = iter([wire.build_request("/encode", DocumentBatch.from_columns(texts=part)) for part in parts])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        method = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        for _ in range(300):
            try:
                await method(wire.build_request("/status"), timeout=60, wait_for_ready=True)
                break
            except grpc.aio.AioRpcError:  # it is loading
                await asyncio.sleep(0.2)

        async def caller() -> None:
            for request in requests:
                error = wire.error_of(wire.read_head(await method(request, timeout=120)).header)
                if error is not None:
                    raise error

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="packed,onnx,ctranslate2", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="how often the texts are computed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="compute threads (default: %(default)s)")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.alone:
        compute_alone(settings.alone, settings.threads, settings.rounds)
        return
    print("| backend | alone: RSS | PSS | replica: RSS | PSS | RSS of replica : alone | a second replica adds (PSS) |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in settings.backends.split(","):
        alone = measure_alone(name, settings.threads, settings.rounds)
        one, two = measure_replicas(name, settings.threads, settings.rounds)
        more = sum(each.pss for each in two) - one.pss
        print(
            f"| {name} | {alone.rss:.0f} MiB | {alone.pss:.0f} MiB | {one.rss:.0f} MiB | {one.pss:.0f} MiB "
            f"| {one.rss / alone.rss:.2f} | {more:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
